//! Whether attempts still belong to the worker after a time without heartbeats.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::iter;

use super::key::Key;
use crate::rpc::Rpc;

/// Without a heartbeat for this long, the engine assigns the attempts of a worker to other workers, and does not notify it.
pub(super) const MAX_SILENCE: Duration = Duration::from_secs(30);
/// The number of calls in flight.
const MAX_CALLS: usize = 8;

/// Returns which attempts the engine has ended, or assigned again. Only REST reports the retry count of a task; attempts about which it
/// cannot be asked are kept.
pub(super) async fn lost(rpc: Rpc, attempts: Vec<Key>) -> Vec<Key> {
    let checks = iter(attempts).map(|key| {
        let rpc = rpc.clone();
        async move { is_lost(&rpc, key).await.then_some(key) }
    });
    checks.buffer_unordered(MAX_CALLS).filter_map(|lost| async move { lost }).collect().await
}

async fn is_lost(rpc: &Rpc, key: Key) -> bool {
    let Ok(run) = rpc.rest.run(key.run).await else { return false };
    let task = run.tasks.iter().find(|task| task.task_external_id == key.task);
    task.is_some_and(|task| {
        task.retry_count > key.retry_count || task.retry_count == key.retry_count && task.status.is_final()
    })
}
