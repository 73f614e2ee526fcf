//! The options of one of many runs, and of one of many replays.

use super::placement::Placement;
use crate::error::{Error, Result};
use crate::model::metadata::Metadata;
use crate::model::{DesiredLabel, Priority, WorkerId};

/// The options of one of many runs; see [`RunManyBuilder::each`](crate::builder::RunManyBuilder::each).
///
/// ```no_run
/// # use hatchet::{Client, Priority, Task};
/// # async fn example(hatchet: Client, greet: Task<(), ()>) -> hatchet::Result<()> {
/// let runs = hatchet.run_many(&greet, [(), ()]).each(|index, options| match index {
///     0 => options.priority(Priority::High).metadata("first", "yes"),
///     _ => options,
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use = "options have no effect unless they are returned"]
pub struct RunOptions {
    pub(super) metadata: Metadata,
    pub(super) priority: Option<Priority>,
    pub(super) placement: Placement,
    pub(super) child_key: Option<String>,
}

impl RunOptions {
    /// Adds a tag to the run; see [`RunBuilder::metadata`](crate::builder::RunBuilder::metadata).
    ///
    /// The tag replaces a tag with the same key that is set for all runs.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into().into());
        self
    }

    /// Sets the priority of the run. The default is the priority of all runs.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Requests a specific worker; see [`RunBuilder::desired_worker`](crate::builder::RunBuilder::desired_worker).
    pub fn desired_worker(mut self, worker: WorkerId) -> Self {
        self.placement.worker = Some(worker);
        self
    }

    /// Requests workers with a label; see [`RunBuilder::desired_label`](crate::builder::RunBuilder::desired_label).
    pub fn desired_label(mut self, key: impl Into<String>, label: impl Into<DesiredLabel>) -> Self {
        self.placement.label(key.into(), label.into());
        self
    }

    /// Sets the key that identifies a child run; see [`RunBuilder::child_key`](crate::builder::RunBuilder::child_key).
    pub fn child_key(mut self, key: impl Into<String>) -> Self {
        self.child_key = Some(key.into());
        self
    }
}

/// The options of one of many replays; see [`ReplayManyBuilder::each`](crate::builder::ReplayManyBuilder::each).
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, ids: Vec<hatchet::RunId>, retried: hatchet::RunId) -> hatchet::Result<()> {
/// let replay = hatchet.replay_many(ids);
/// // Cancelled runs are skipped, except for this one.
/// let replay = replay.each(|run, options| if run == retried { options.include_cancelled() } else { options });
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use = "options have no effect unless they are returned"]
pub struct ReplayOptions {
    pub(crate) include_cancelled: bool,
}

impl ReplayOptions {
    /// Also replays the run if it was cancelled; see
    /// [`ReplayManyBuilder::include_cancelled`](crate::builder::ReplayManyBuilder::include_cancelled).
    pub fn include_cancelled(mut self) -> Self {
        self.include_cancelled = true;
        self
    }
}

/// Checks the key of a run, which must be that of a child.
pub(super) fn check_child_key(key: Option<&str>, is_child: bool) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    let problem = if !is_child {
        "expected a run that is started through a task's context, got a run without a parent".to_owned()
    } else if key.is_empty() || key.parse::<i64>().is_ok() {
        format!("expected a non-empty string that is not an integer, got {key:?}")
    } else {
        return Ok(());
    };
    Err(Error::invalid("child key", problem))
}

#[cfg(test)]
mod tests {
    use crate::embedded::Engine;
    use crate::error::ErrorKind;
    use crate::workflow::{Context, Task};

    #[tokio::test(start_paused = true)]
    async fn each_of_many_runs_has_its_own_options() {
        let engine = Engine::start().await.unwrap();
        let client = engine.client();
        let task: Task<(), ()> = Task::new("task", async |(): (), _: Context| Ok(()));
        let worker = client.worker("worker").register(&task).build().unwrap().start().await.unwrap();
        let many = client.run_many(&task, [(), (), ()]).metadata("all", "1").metadata("which", "any");
        let runs = many.each(|index, options| match index {
            1 => options.metadata("which", "second"),
            2 => options.child_key("child"),
            _ => options,
        });
        let runs = runs.start().await.unwrap();
        let mut tags = Vec::new();
        for run in runs.iter().flatten() {
            let metadata = run.details().await.unwrap().metadata;
            tags.push((metadata["all"].clone(), metadata["which"].clone()));
        }
        assert_eq!(tags, [("1".into(), "any".into()), ("1".into(), "second".into())]);
        let rejected = runs.last().unwrap().as_ref().unwrap_err();
        assert_eq!(rejected.kind(), ErrorKind::InvalidInput, "{rejected}");
        worker.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_of_many_events_has_its_own_options() {
        let engine = Engine::start().await.unwrap();
        let events = engine.client().push_many("key", [serde_json::json!({}), serde_json::json!({})]).scope("all");
        let events = events.each(|index, options| if index == 1 { options.scope("own") } else { options });
        let mut scopes = Vec::new();
        for event in events.send().await.unwrap() {
            scopes.push(event.unwrap().details().await.unwrap().scope.unwrap());
        }
        assert_eq!(scopes, ["all", "own"]);
    }
}
