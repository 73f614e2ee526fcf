//! Whether attempts still belong to the worker, after a time in which the engine could not notify it.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use tokio::time::{sleep, timeout};

use super::key::Key;
use crate::error::Result;
use crate::model::{RunId, RunStatus, TaskId};
use crate::observe::may_be_timeout;
use crate::rpc::Rpc;
use crate::rpc::convert::{ReportKind, RestTask, TaskEventKind};

/// Without a heartbeat for 30 seconds, the engine assigns the attempts of a worker to other workers, and does not notify it.
pub(super) const MAX_HEARTBEAT_GAP: Duration = Duration::from_secs(25);
/// The number of calls in flight.
const MAX_CALLS: usize = 8;
/// How long a check may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long no answer may arrive if results wait for it that name their attempts. They are sent then: it is rare that their attempts are over.
const URGENT_TIMEOUT: Duration = Duration::from_secs(3);

/// An attempt that may not belong to the worker any longer, and its batch.
pub(super) type Held = (Key, Option<Arc<str>>);

/// What the engine has answered.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// The attempts that it has ended, or assigned again, with the kind of the report with which one has ended. Nothing but a report
    /// completes an attempt; it can also fail because of its timeout.
    pub(super) lost: HashMap<Held, Option<ReportKind>>,
    /// The retry counts of the attempts that it knows. Those of attempts of batches are known as soon as it has stored them.
    pub(super) retry_counts: HashMap<Held, u32>,
    /// Whether it could not be asked about some attempts, and can be asked again.
    pub(super) is_incomplete: bool,
}

/// Asks the engine about attempts. Only REST reports the retry count of a task.
pub(super) async fn check(rpc: Rpc, attempts: HashSet<Held>, is_urgent: bool) -> Checked {
    let max_pause = if is_urgent { URGENT_TIMEOUT } else { TIMEOUT };
    let mut by_run: HashMap<RunId, Vec<Held>> = HashMap::new();
    for held in attempts {
        by_run.entry(held.0.run).or_default().push(held);
    }
    let mut unanswered = by_run.len();
    let checks = iter(by_run).map(|(run, attempts)| check_run(&rpc, run, attempts));
    let mut checks = pin!(checks.buffer_unordered(MAX_CALLS).take_until(sleep(TIMEOUT)));
    let mut checked = Checked::default();
    while let Ok(Some(answer)) = timeout(max_pause, checks.next()).await {
        match answer {
            Ok(of_run) => {
                checked.lost.extend(of_run.lost);
                checked.retry_counts.extend(of_run.retry_counts);
            }
            // It will be the same if it is asked again, for example for a client without REST.
            Err(error) if !error.is_transient() => {}
            Err(error) => {
                tracing::debug!(%error, "failed to check whether attempts belong to the worker");
                continue;
            }
        }
        unanswered -= 1;
    }
    checked.is_incomplete = unanswered > 0;
    checked
}

async fn check_run(rpc: &Rpc, run: RunId, attempts: Vec<Held>) -> Result<Checked> {
    let run = rpc.rest.run(run).await?;
    let mut checked = Checked::default();
    for held in attempts {
        let (key, batch) = &held;
        let Some(task) = run.tasks.iter().find(|task| task.task_external_id == key.task) else { continue };
        let retry_count = match batch {
            None => {
                checked.retry_counts.insert(held.clone(), key.retry_count);
                Some(key.retry_count)
            }
            Some(batch) => {
                let found = retry_count_in_batch(rpc, key.task, batch).await?;
                checked.retry_counts.extend(found.map(|retry_count| (held.clone(), retry_count)));
                found
            }
        };
        if retry_count.is_some_and(|retry_count| is_over(task, retry_count)) {
            let kind = retry_count
                .filter(|retry_count| task.retry_count_or_zero() == *retry_count)
                .and_then(|_| kind_of_end(task));
            checked.lost.insert(held, kind);
        }
    }
    Ok(checked)
}

fn is_over(task: &RestTask, retry_count: u32) -> bool {
    task.retry_count_or_zero() > retry_count || task.retry_count_or_zero() == retry_count && task.status.is_final()
}

fn kind_of_end(task: &RestTask) -> Option<ReportKind> {
    match task.status {
        RunStatus::Completed => Some(ReportKind::Completed),
        // A timeout is not what the worker has reported.
        RunStatus::Failed if !task.error_message.as_deref().is_some_and(may_be_timeout) => Some(ReportKind::Failed),
        _ => None,
    }
}

/// The retry count of the attempt of a task that was assigned in a batch, if the engine has stored it already.
pub(super) async fn retry_count_in_batch(rpc: &Rpc, task: TaskId, batch: &str) -> Result<Option<u32>> {
    if batch.is_empty() {
        return Ok(None);
    }
    let events = rpc.rest.task_events(task).await?;
    let is_start = |kind: &TaskEventKind| *kind == TaskEventKind::BatchFlushed;
    let start = events.iter().find(|event| is_start(&event.kind) && event.message.contains(batch));
    Ok(start.and_then(|start| start.retry_count))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_timeout_is_not_a_failure_that_the_worker_has_reported() {
        let kind = |status: &str, error: Option<&str>| {
            let id = "00000000-0000-4000-8001-000000000001";
            let task = json!({"taskExternalId": id, "status": status, "errorMessage": error});
            kind_of_end(&serde_json::from_value(task).unwrap())
        };
        for (status, error, expected) in [
            ("COMPLETED", None, Some(ReportKind::Completed)),
            ("FAILED", Some("broken"), Some(ReportKind::Failed)),
            ("FAILED", None, Some(ReportKind::Failed)),
            ("FAILED", Some("Task exceeded timeout of 5s"), None),
            ("CANCELLED", None, None),
            ("RUNNING", None, None),
        ] {
            assert_eq!(kind(status, error), expected, "{status} {error:?}");
        }
    }
}
