//! Filters for runs and tasks.

use super::metadata::check_key;
use super::{EventId, RunStatus, TaskId, Window, WorkerId};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A filter for runs, or for tasks, by time, workflow, status, metadata, event, parent and worker.
///
/// Criteria that are not set match everything.
///
/// A filter always has a time window; there is no implicit default:
///
/// ```
/// use std::time::Duration;
/// use hatchet::{RunFilter, RunStatus};
/// use hatchet::model::Window;
///
/// let failed = RunFilter::new(Window::last(Duration::from_secs(7 * 24 * 3600)))
///     .workflow("greet")
///     .status(RunStatus::Failed)
///     .metadata("tenant", "acme");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct RunFilter {
    pub(crate) window: Window,
    #[serde(default)]
    pub(crate) workflows: Vec<String>,
    #[serde(default)]
    pub(crate) statuses: Vec<RunStatus>,
    #[serde(default)]
    pub(crate) metadata: Vec<(String, String)>,
    #[serde(default)]
    pub(crate) any_metadata: Vec<(String, String)>,
    /// Tags with keys of the engine or of this crate, which users cannot set: runs that have all of them.
    #[serde(skip)]
    pub(crate) own_metadata: Vec<(String, String)>,
    #[serde(default)]
    pub(crate) event: Option<EventId>,
    #[serde(default)]
    pub(crate) parent: Option<TaskId>,
    #[serde(default)]
    pub(crate) worker: Option<WorkerId>,
}

impl RunFilter {
    /// Creates a filter for all runs that were created in a time window.
    pub fn new(window: Window) -> Self {
        Self {
            window,
            workflows: Vec::new(),
            statuses: Vec::new(),
            metadata: Vec::new(),
            any_metadata: Vec::new(),
            own_metadata: Vec::new(),
            event: None,
            parent: None,
            worker: None,
        }
    }

    /// Matches runs of this workflow. If this method is called several times, runs of any of the workflows match.
    pub fn workflow(mut self, name: impl Into<String>) -> Self {
        self.workflows.push(name.into());
        self
    }

    /// Matches runs with this status. If this method is called several times, runs with any of the statuses match.
    ///
    /// The engine lists timed-out runs as failed, and also runs that were cancelled while they were queued, once their schedule timeout has
    /// passed. Therefore, a query for [`RunStatus::TimedOut`], [`RunStatus::Failed`] or [`RunStatus::Cancelled`] lists all failed runs, and
    /// fetches the events of each run without an error message, with one small request per run. The total for one or two of these three
    /// statuses is [`AtMost`](crate::model::Total::AtMost) if there are more than 1000 such runs. The total for all three statuses is the
    /// server's count.
    ///
    /// ```
    /// use hatchet::model::Window;
    /// use hatchet::{RunFilter, RunStatus};
    ///
    /// let bad = RunFilter::new(Window::all()).status(RunStatus::Failed).status(RunStatus::TimedOut);
    /// ```
    pub fn status(mut self, status: RunStatus) -> Self {
        if !self.statuses.contains(&status) {
            self.statuses.push(status);
        }
        self
    }

    /// Matches runs with this tag. If this method is called several times, runs with all of the tags match.
    ///
    /// Only string values can be found, because the engine compares tags as strings.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Matches runs with this tag.
    ///
    /// If this method is called several times, runs with any of the tags match. This criterion cannot be combined with
    /// [`metadata`](Self::metadata): the engine supports only "all" or "any" for the whole filter.
    pub fn any_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.any_metadata.push((key.into(), value.into()));
        self
    }

    /// Matches runs that this event has started.
    pub fn event(mut self, event: EventId) -> Self {
        self.event = Some(event);
        self
    }

    /// Matches the children of this task: the runs that it has started through its [`Context`](crate::Context::run).
    ///
    /// The task of a single-task run has the id of its run.
    pub fn parent(mut self, task: impl Into<TaskId>) -> Self {
        self.parent = Some(task.into());
        self
    }

    /// Matches tasks whose newest attempt this worker runs or ran.
    ///
    /// This criterion is valid only for a [query for tasks](crate::Client::tasks): several workers may be involved in one run, and the
    /// engine ignores the criterion for runs.
    ///
    /// The engine may omit a task that failed within milliseconds of its assignment, because it does not store the worker of a failure.
    pub fn worker(mut self, worker: WorkerId) -> Self {
        self.worker = Some(worker);
        self
    }

    /// Whether the filter matches runs of any workflow. Events, parents and tags of this crate belong to one namespace already.
    pub(crate) fn is_of_all_workflows(&self) -> bool {
        let narrowed = self.event.is_some() || self.parent.is_some() || !self.own_metadata.is_empty();
        self.workflows.is_empty() && !narrowed
    }

    pub(crate) fn own_metadata(mut self, key: &str, value: &str) -> Self {
        self.own_metadata.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Rejects filters that the server would silently interpret differently.
    pub(crate) fn check(&self, of_tasks: bool) -> Result<()> {
        let reject = |problem: std::fmt::Arguments<'_>| Err(Error::invalid("filter", problem));
        for tags in [&self.metadata, &self.any_metadata] {
            for (at, (key, _)) in tags.iter().enumerate() {
                check_key(key)?;
                if tags.iter().take(at).any(|(other, _)| other == key) {
                    return reject(format_args!("expected each metadata key once, got {key:?} twice"));
                }
            }
        }
        if !self.metadata.is_empty() && !self.any_metadata.is_empty() {
            return reject(format_args!("expected metadata or any_metadata, got both"));
        }
        if of_tasks && (self.event.is_some() || self.parent.is_some()) {
            return reject(format_args!("expected a query for runs with event or parent, got a query for tasks"));
        }
        if self.worker.is_some() && !of_tasks {
            return reject(format_args!("expected a query for tasks with worker, got a query for runs"));
        }
        if let Some(RunStatus::Unknown(name)) =
            self.statuses.iter().find(|status| matches!(status, RunStatus::Unknown(_)))
        {
            // The engine ignores unknown statuses and then returns all runs.
            return reject(format_args!("expected a known status, got {name:?}"));
        }
        self.window.check()
    }
}

impl From<Window> for RunFilter {
    fn from(window: Window) -> Self {
        Self::new(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};

    fn day(day: u32) -> DateTime<Utc> {
        format!("2026-11-{day:02}T00:00:00Z").parse().unwrap()
    }

    #[test]
    fn what_is_of_one_namespace_by_itself() {
        let any = RunFilter::new(Window::all());
        let run: super::super::RunId = "00000000-0000-4000-8001-000000000001".parse().unwrap();
        assert!(any.is_of_all_workflows() && any.clone().metadata("a", "1").is_of_all_workflows());
        for narrow in [
            any.clone().workflow("w"),
            any.clone().parent(TaskId::from(run)),
            any.clone().event("00000000-0000-4000-8001-000000000002".parse().unwrap()),
            any.own_metadata("hatchet__rs_schedule", "x"),
        ] {
            assert!(!narrow.is_of_all_workflows(), "{narrow:?}");
        }
    }

    #[test]
    fn filters_that_the_server_would_misinterpret_are_rejected() {
        let any = RunFilter::new(Window::all());
        let run: super::super::RunId = "00000000-0000-4000-8001-000000000001".parse().unwrap();
        assert!(any.clone().metadata("a", "1").metadata("b", "2").check(false).is_ok());
        for (filter, text) in [
            (any.clone().metadata("a", "1").metadata("a", "2"), "got \"a\" twice"),
            (any.clone().any_metadata("a", "1").any_metadata("a", "2"), "got \"a\" twice"),
            (any.clone().metadata("a", "1").any_metadata("b", "2"), "got both"),
            (any.clone().worker(uuid::Uuid::nil().into()), "a query for tasks with worker"),
            (any.clone().metadata("a:b", "1"), "without a colon"),
            (any.clone().metadata("hatchet__cron_name", "nightly"), "hatchet__"),
            (any.clone().status(RunStatus::Unknown("NOPE".into())), "got \"NOPE\""),
            (RunFilter::new(Window::since(day(2)).until(day(1))), "before the start"),
        ] {
            assert!(filter.check(false).unwrap_err().to_string().contains(text), "{text}");
        }
        let of_tasks = any.parent(TaskId::from(run)).check(true).unwrap_err();
        assert!(of_tasks.to_string().contains("a query for runs with event or parent"), "{of_tasks}");
    }
}
