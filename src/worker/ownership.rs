//! Whether attempts still belong to the worker, after a time in which the engine could not notify it.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use tokio::time::sleep;

use super::key::Key;
use crate::model::RunId;
use crate::rpc::Rpc;

/// Without a heartbeat for 30 seconds, the engine assigns the attempts of a worker to other workers, and does not notify it.
pub(super) const MAX_HEARTBEAT_GAP: Duration = Duration::from_secs(25);
/// The number of calls in flight.
const MAX_CALLS: usize = 8;
/// How long a check may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Returns which attempts the engine has ended, or assigned again. Only REST reports the retry count of a task; attempts about which it
/// cannot be asked in time are kept.
pub(super) async fn lost(rpc: Rpc, attempts: Vec<Key>) -> Vec<Key> {
    let mut by_run: HashMap<RunId, Vec<Key>> = HashMap::new();
    for key in attempts {
        by_run.entry(key.run).or_default().push(key);
    }
    let checks = iter(by_run).map(|(run, attempts)| lost_of_run(&rpc, run, attempts));
    checks.buffer_unordered(MAX_CALLS).take_until(sleep(TIMEOUT)).concat().await
}

async fn lost_of_run(rpc: &Rpc, run: RunId, mut attempts: Vec<Key>) -> Vec<Key> {
    let Ok(run) = rpc.rest.run(run).await else { return Vec::new() };
    attempts.retain(|key| {
        let task = run.tasks.iter().find(|task| task.task_external_id == key.task);
        task.is_some_and(|task| {
            task.retry_count > key.retry_count || task.retry_count == key.retry_count && task.status.is_final()
        })
    });
    attempts
}
