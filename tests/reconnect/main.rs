//! What a client's streams do when they are lost: results, status changes and chunks of runs, and all runs with a tag. With planned
//! faults on virtual time, through a proxy over real sockets, and at random.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests may panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod ends;
mod faults;
mod late;
mod random;
mod sockets;
mod tagged;

use std::time::Duration;

use futures_util::future::join3;
use hatchet::model::{ChangeKind, ChunkItem};
use hatchet::stream::RunChunks;
use hatchet::{Client, Context, Error, RunHandle, Task};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Input {
    /// The task sends a chunk in each of these intervals, and then returns their number.
    chunks: u64,
    millis: u64,
}

fn talk() -> Task<Input, u64> {
    Task::new("talk", async |input: Input, context: Context| {
        for number in 0..input.chunks {
            context.put(number.to_string()).await?;
            sleep(Duration::from_millis(input.millis)).await;
        }
        Ok(input.chunks)
    })
    .timeout(7200 * SECOND)
}

fn text(item: &ChunkItem) -> String {
    match item {
        ChunkItem::Chunk(chunk) => chunk.to_string(),
        ChunkItem::Gap(gap) => gap.to_string(),
        ChunkItem::Restart(_) => "restarted".to_owned(),
        _ => "interrupted".to_owned(),
    }
}

/// Reads a stream to its end.
async fn read_items<O>(chunks: &mut RunChunks<O>) -> Vec<ChunkItem> {
    let mut items = Vec::new();
    while let Some(item) = chunks.next().await {
        items.push(item.unwrap());
    }
    items
}

/// What the followers of a run have received, and when.
#[derive(Debug)]
struct Received {
    /// Several waits for the same run.
    results: Vec<(Duration, Result<u64, Error>)>,
    states: Vec<String>,
    watch_error: Option<Error>,
    watched_for: Duration,
    chunks: Vec<ChunkItem>,
    chunks_error: Option<Error>,
}

/// Follows a run in all ways until it has ended.
async fn follow(run: &RunHandle<u64>) -> Received {
    let start = Instant::now();
    let wait = async || {
        let result = run.result().await;
        (start.elapsed(), result)
    };
    let results = async {
        let (one, two, three) = join3(wait(), wait(), wait()).await;
        vec![one, two, three]
    };
    let watch = async {
        let (mut states, mut error, mut watch) = (Vec::new(), None, run.watch());
        while let Some(change) = watch.next().await {
            match change {
                Ok(change) => states.push(change.to_string()),
                Err(failed) => error = Some(failed),
            }
        }
        (states, error, start.elapsed())
    };
    let chunks = async {
        let (mut items, mut error, mut chunks) = (Vec::new(), None, run.chunks());
        while let Some(item) = chunks.next().await {
            match item {
                Ok(item) => items.push(item),
                Err(failed) => error = Some(failed),
            }
        }
        (items, error)
    };
    let (results, (states, watch_error, watched_for), (chunks, chunks_error)) = join3(results, watch, chunks).await;
    Received { results, states, watch_error, watched_for, chunks, chunks_error }
}

impl Received {
    /// Everyone was answered with the truth.
    fn check(&self, input: Input) {
        for (_, result) in &self.results {
            assert_eq!(*result.as_ref().unwrap(), input.chunks);
        }
        assert_eq!(self.states, completed(), "{:?}", self.watch_error);
        assert!(self.watch_error.is_none() && self.chunks_error.is_none(), "{self:?}");
    }

    /// The numbers of the chunks that have arrived. Each is in order, once, and those before it that are missing are a gap.
    fn check_chunks(&self) -> Vec<i64> {
        let (mut next, mut arrived) = (0, Vec::new());
        for item in &self.chunks {
            match item {
                ChunkItem::Chunk(chunk) => {
                    assert_eq!((chunk.index, chunk.to_string()), (Some(next), next.to_string()));
                    arrived.push(next);
                    next += 1;
                }
                ChunkItem::Gap(gap) => {
                    assert_eq!(gap.first_index, next);
                    next = gap.last_index + 1;
                }
                // The last chunks may be missing, too.
                ChunkItem::Interrupted => assert_eq!(item, self.chunks.last().unwrap()),
                other => panic!("{other:?}"),
            }
        }
        arrived
    }

    fn is_interrupted(&self) -> bool {
        self.chunks.last() == Some(&ChunkItem::Interrupted)
    }
}

fn completed() -> Vec<String> {
    ["QUEUED", "RUNNING", "COMPLETED"].map(|status| format!("{status} (attempt 1)")).to_vec()
}

/// The states of the runs with a tag, until some of them have ended.
async fn states_with_tag(hatchet: &Client, tag: &str, count: usize) -> Vec<String> {
    let mut watch = hatchet.watch_matching("tag", tag).only(ChangeKind::Run);
    let (mut states, mut ended) = (Vec::new(), 0);
    while ended < count {
        let change = watch.next().await.unwrap().unwrap();
        ended += usize::from(change.is_final());
        states.push(change.to_string());
    }
    states
}
