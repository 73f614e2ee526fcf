//! The process under measurement.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::alone::Alone;
use crate::work::{Side, Work};
use crate::{raw, sdk};

/// The number of tasks that start runs at the same time.
const CONCURRENCY: usize = 50;

pub(crate) fn run(work: Work, side: Side, count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let spent = runtime.block_on(async {
        match side {
            Side::Raw => {
                let client = raw::Raw::connect().await;
                let start = processor_time();
                match work {
                    Work::Trigger => spread(count, |count| raw::triggers(client.clone(), count)).await,
                    Work::Bulk => raw::bulk(client, count).await,
                    Work::Wait => raw::waits(client, count).await,
                    Work::Watch => raw::watches(client, count).await,
                    Work::Task | Work::Dispatch => raw::worker(client, end_of_input()).await,
                }
                processor_time().saturating_sub(start)
            }
            Side::Sdk => {
                let client = hatchet::Client::from_env().unwrap();
                let start = processor_time();
                match work {
                    Work::Trigger => spread(count, |count| sdk::triggers(client.clone(), count)).await,
                    Work::Bulk => sdk::bulk(client, count).await,
                    Work::Wait => sdk::waits(client, count).await,
                    Work::Watch => sdk::watches(client, count).await,
                    Work::Task | Work::Dispatch => sdk::worker(client, work == Work::Task, end_of_input()).await,
                }
                processor_time().saturating_sub(start)
            }
        }
    });
    println!("{}", spent.as_nanos());
}

/// Does operations without a connection.
pub(crate) fn alone(alone: Alone, waiting: usize, count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = hatchet::embedded::Engine::start().await.unwrap();
        alone.run(&engine.client(), waiting, count);
        // Its time would be measured, too.
        std::process::exit(0);
    });
}

/// Does operations in several tasks of the runtime.
async fn spread<F: Future<Output = ()> + Send + 'static>(count: usize, part: impl Fn(usize) -> F) {
    let tasks: JoinSet<()> = (0..CONCURRENCY).map(|_| part(count / CONCURRENCY)).collect();
    tasks.join_all().await;
}

/// Resolves when the other process has no more tasks for this worker.
async fn end_of_input() {
    let read = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    tokio::task::spawn_blocking(read).await.unwrap().unwrap();
}

/// The CPU time of this process, or zero if the system does not report it.
fn processor_time() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = schedstat.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}
