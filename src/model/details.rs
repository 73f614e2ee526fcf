//! What is known about a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    CancelRequest, LogLine, Outcome, Payload, RunId, RunStatus, TaskId, Trigger, WorkerId, WorkflowId,
    WorkflowVersionId, trigger,
};
use crate::time::between;

/// The details of one run at one moment, from all of the server's API views.
///
/// Details can be serialized, for example as JSON for other programs. Statuses are serialized as the server writes them, and payloads as
/// JSON values.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// let details = run.details().await?;
/// println!("{}, attempt {}, after {:?}", details.status, details.attempt(), details.ran_for());
/// println!("{details}"); // a tree of the tasks and their attempts
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunDetails {
    /// The id, for [`Client::run_handle`](crate::Client::run_handle).
    pub id: RunId,
    /// The id of the workflow. `None` if the engine's history, which lags behind, does not contain the run yet.
    pub workflow_id: Option<WorkflowId>,
    /// The name of the workflow, without the namespace. `None` if the history does not contain the run yet.
    pub workflow_name: Option<String>,
    /// The id of the version of the definition. `None` if the history does not contain the run yet.
    pub workflow_version_id: Option<WorkflowVersionId>,
    /// The status, resolved from all API views. See [`conflicts`](Self::conflicts) for views that permanently disagree.
    pub status: RunStatus,
    /// The outcome, if the run has ended.
    pub outcome: Option<Outcome>,
    /// What started the run.
    pub trigger: Trigger,
    /// The input, as it was sent. `None` if the server has not returned it, and if the run was archived without payloads.
    pub input: Option<Payload>,
    /// The user's metadata.
    pub metadata: BTreeMap<String, Value>,
    /// The metadata that the engine and this crate added. The key of an event has no namespace.
    pub engine_metadata: BTreeMap<String, Value>,
    /// When the run was created, by the engine's clock. `None` if the history does not contain the run yet.
    pub created_at: Option<DateTime<Utc>>,
    /// The tasks, in the order of the definition. Tasks that the engine has not created yet are missing.
    pub tasks: Vec<TaskDetails>,
    /// The first log lines of the tasks, oldest first, as many as were [requested](crate::builder::DetailsBuilder::logs).
    /// [`RunHandle::logs`](crate::RunHandle::logs) returns all of them.
    pub logs: Vec<LogLine>,
    /// Permanent conflicts between the server's API views. Empty for nearly every run.
    pub conflicts: Vec<Conflict>,
}

/// One task of a run: its attempts, and how it ended.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// for task in run.details().await?.tasks {
///     println!("{} {} after {:?}", task.name, task.status, task.ran_for());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskDetails {
    /// The id. The task of a single-task run has the id of the run.
    pub id: TaskId,
    /// The name of the task in its workflow.
    pub name: String,
    /// The status of the newest attempt. A task without attempts has a status, too.
    pub status: RunStatus,
    /// The outcome, if the task has ended.
    pub outcome: Option<Outcome>,
    /// The attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// The numbers of the attempts after which the task was replayed.
    pub replayed_after: Vec<u32>,
}

/// One execution of a task, with its times and its worker.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// let details = run.details().await?;
/// for attempt in details.tasks.iter().flat_map(|task| &task.attempts) {
///     println!("attempt {}: {}, queued for {:?}", attempt.number, attempt.status, attempt.queued_for());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attempt {
    /// The number of the attempt, starting at 1.
    pub number: u32,
    /// The current status, or the final one if the attempt has ended.
    pub status: RunStatus,
    /// When the attempt was queued, by the engine's clock.
    pub queued_at: Option<DateTime<Utc>>,
    /// When the attempt started, by the clock of the worker that reported it.
    pub started_at: Option<DateTime<Utc>>,
    /// When the attempt ended, by the clock of the worker or the engine that reported it.
    pub finished_at: Option<DateTime<Utc>>,
    /// The id of the worker that ran the attempt.
    pub worker_id: Option<WorkerId>,
    /// The error message, if the attempt failed.
    pub error: Option<String>,
}

/// The attempt number for a retry count. Both come from outside the process and may have any value.
pub(crate) fn attempt_number(retry_count: u32) -> u32 {
    retry_count.saturating_add(1)
}

/// A conflict between two of the server's API views about the end of a run.
///
/// A cancellation that arrives after the end of a run, or a result that arrives after a cancellation, leaves two final rows in the engine.
/// In that case, gRPC and REST may show different rows, and the status in gRPC may change.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// for conflict in run.details().await?.conflicts {
///     println!("{conflict}"); // gRPC reports CANCELLED, REST reports COMPLETED
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Conflict {
    /// The name of the affected task of a DAG run. `None` if the run itself is affected.
    pub task_name: Option<String>,
    /// The status that gRPC shows.
    pub grpc: RunStatus,
    /// The status that REST shows. It is stable, so it is the status in [`RunDetails`] and [`TaskDetails`].
    pub rest: RunStatus,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(task) = &self.task_name {
            write!(f, "task {task}: ")?;
        }
        write!(f, "gRPC reports {}, REST reports {}", self.grpc, self.rest)
    }
}

impl RunDetails {
    /// The maximum number of log lines in the details.
    pub const MAX_LOGS: usize = 1000;

    /// Returns the output, if the run completed. For a DAG run, it is an object with the outputs of the tasks by task name.
    pub fn output(&self) -> Option<&Payload> {
        self.outcome.as_ref()?.output()
    }

    /// Returns the task with this name.
    pub fn task(&self, name: &str) -> Option<&TaskDetails> {
        self.tasks.iter().find(|task| task.name == name)
    }

    /// Returns the number of the run's current attempt, starting at 1.
    ///
    /// Retries and replays count for a single-task run, and only replays for a DAG run.
    pub fn attempt(&self) -> u32 {
        self.tasks
            .iter()
            .map(|task| if self.is_single_task() { task.attempt() } else { attempt_number(task.replays()) })
            .max()
            .unwrap_or(1)
    }

    /// Returns the reason and the author of the cancellation, if the run was cancelled with this crate.
    pub fn cancellation(&self) -> Option<&CancelRequest> {
        match self.outcome.as_ref()? {
            Outcome::Cancelled(cancellation) => cancellation.request.as_ref(),
            _ => None,
        }
    }

    /// Returns the id of the original run, if this is a rerun.
    pub fn original_run_id(&self) -> Option<RunId> {
        trigger::original_run_id(&self.engine_metadata)
    }

    /// Returns the id of the run whose task started this run as a child, if it is known.
    pub fn parent_run_id(&self) -> Option<RunId> {
        match &self.trigger {
            Trigger::Child(child) => child.parent_run_id,
            _ => None,
        }
    }

    /// Whether this attempt, or a later one, has ended.
    pub(crate) fn has_ended_since(&self, attempt: u32) -> bool {
        self.outcome.is_some() && self.attempt() >= attempt
    }

    /// Whether the run has a single task, which then has the id of the run.
    pub(crate) fn is_single_task(&self) -> bool {
        self.tasks.iter().any(|task| task.id.is_single_task_of(self.id))
    }

    /// Returns when the first attempt started.
    pub fn started_at(&self) -> Option<DateTime<Utc>> {
        self.attempts().filter_map(|attempt| attempt.started_at).min()
    }

    /// Returns when the run ended, if it has ended.
    pub fn finished_at(&self) -> Option<DateTime<Utc>> {
        self.outcome.as_ref()?;
        self.tasks.iter().filter_map(|task| task.attempts.last()?.finished_at).max()
    }

    /// Returns the highest retry count of the run's tasks. Failures and replays both count.
    pub fn retry_count(&self) -> u32 {
        self.tasks
            .iter()
            .filter_map(|task| task.attempts.last())
            .map(|attempt| attempt.number.saturating_sub(1))
            .max()
            .unwrap_or(0)
    }

    /// Returns the sum of the known queue times of all attempts of all tasks, or `None` if none is known.
    pub fn queued_for(&self) -> Option<Duration> {
        sum(self.attempts().map(Attempt::queued_for))
    }

    /// Returns the sum of the execution times of all ended attempts of all tasks, or `None` if there are none.
    pub fn ran_for(&self) -> Option<Duration> {
        sum(self.attempts().map(Attempt::ran_for))
    }

    /// Returns the time from the creation to the end, if the run has ended.
    pub fn elapsed(&self) -> Option<Duration> {
        between(self.created_at, self.finished_at())
    }

    fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.tasks.iter().flat_map(|task| &task.attempts)
    }
}

impl TaskDetails {
    /// Returns the output, if the task completed.
    pub fn output(&self) -> Option<&Payload> {
        self.outcome.as_ref()?.output()
    }

    /// Returns the number of the newest attempt, starting at 1.
    pub fn attempt(&self) -> u32 {
        self.attempts.last().map_or(1, |attempt| attempt.number)
    }

    /// Returns how many times the task was replayed.
    pub fn replays(&self) -> u32 {
        u32::try_from(self.replayed_after.len()).unwrap_or(u32::MAX)
    }

    /// Returns the sum of the known queue times of all attempts, or `None` if none is known.
    pub fn queued_for(&self) -> Option<Duration> {
        sum(self.attempts.iter().map(Attempt::queued_for))
    }

    /// Returns the sum of the execution times of all ended attempts, or `None` if there are none.
    pub fn ran_for(&self) -> Option<Duration> {
        sum(self.attempts.iter().map(Attempt::ran_for))
    }
}

impl Attempt {
    /// Returns how long the attempt waited for a worker, including the backoff, or `None` while the attempt waits.
    pub fn queued_for(&self) -> Option<Duration> {
        let (queued, left) = (self.queued_at?, self.started_at.or(self.finished_at)?);
        // The engine's timestamp can be a moment later than the worker's. Then the attempt did not wait.
        Some(left.signed_duration_since(queued).to_std().unwrap_or_default())
    }

    /// Returns the execution time, if the attempt has ended.
    pub fn ran_for(&self) -> Option<Duration> {
        between(self.started_at, self.finished_at)
    }
}

/// The sum of the known durations. `None` if none is known.
fn sum(lengths: impl Iterator<Item = Option<Duration>>) -> Option<Duration> {
    lengths.flatten().reduce(Duration::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn details_are_serialized_and_deserialized() {
        let id = "00000000-0000-4000-8001-000000000001";
        let outcome = Outcome::Completed(crate::model::Completed { output: Payload::output(r#"{"_value":7}"#) });
        let details = RunDetails {
            id: id.parse().unwrap(),
            workflow_id: None,
            workflow_name: Some("w".into()),
            workflow_version_id: None,
            status: RunStatus::Completed,
            outcome: Some(outcome),
            trigger: Trigger::Manual,
            input: Some(Payload::input(r#"{"n":1}"#)),
            metadata: BTreeMap::from([("k".into(), json!("v"))]),
            engine_metadata: BTreeMap::new(),
            created_at: Some(DateTime::UNIX_EPOCH),
            tasks: Vec::new(),
            logs: Vec::new(),
            conflicts: Vec::new(),
        };
        let json = serde_json::to_value(&details).unwrap();
        assert_eq!(
            serde_json::from_value::<RunDetails>(json.clone()).unwrap().outcome.unwrap().status(),
            RunStatus::Completed
        );
        assert_eq!(
            json,
            json!({
                "id": id, "workflow_id": null, "workflow_name": "w", "workflow_version_id": null, "status": "COMPLETED",
                "outcome": {"status": "COMPLETED", "output": 7}, "trigger": {"kind": "manual"}, "input": {"n": 1},
                "metadata": {"k": "v"}, "engine_metadata": {}, "created_at": "1970-01-01T00:00:00Z", "tasks": [],
                "logs": [], "conflicts": [],
            })
        );
    }
}
