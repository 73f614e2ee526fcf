//! Which runs: one value for everything that works on many runs.

use super::metadata::check_key;
use super::{EventId, RunStatus, TaskId, Window, WorkerId};
use crate::error::{Error, Result};

/// Which runs are meant: by time, workflow, status, metadata, and what they have to do with. What is not said is not asked.
///
/// The window of time is part of making a filter, so that none is ever assumed:
///
/// ```
/// use std::time::Duration;
/// use hatchet::{RunFilter, RunStatus, Window};
///
/// let failed = RunFilter::new(Window::last(Duration::from_secs(7 * 24 * 3600)))
///     .workflow("greet")
///     .status(RunStatus::Failed)
///     .metadata("tenant", "acme");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct RunFilter {
    pub(crate) window: Window,
    pub(crate) workflows: Vec<String>,
    pub(crate) statuses: Vec<RunStatus>,
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) any_metadata: Vec<(String, String)>,
    /// Keys of the engine's or of this crate, which users cannot ask for: runs with all of them.
    pub(crate) own_metadata: Vec<(String, String)>,
    pub(crate) event: Option<EventId>,
    pub(crate) parent: Option<TaskId>,
    pub(crate) worker: Option<WorkerId>,
    pub(crate) tasks: bool,
}

impl RunFilter {
    /// All runs that were created in a window of time.
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
            tasks: false,
        }
    }

    /// Runs of this workflow; given several times, of any of them.
    pub fn workflow(mut self, name: impl Into<String>) -> Self {
        self.workflows.push(name.into());
        self
    }

    /// Runs in this state; given several times, in any of them.
    ///
    /// The engine files timed-out runs under failed ones, and so it does with runs that were cancelled while they were queued, once
    /// their schedule timeout has passed. So for [`RunStatus::TimedOut`], [`RunStatus::Failed`] and [`RunStatus::Cancelled`] all
    /// failed runs are listed, and the events of each without an error text are read: one small request for each such run. A
    /// total of one or two of the three is [`AtMost`](crate::Total::AtMost) if there are over 1 000 runs to read; of all three
    /// together it is the server's.
    pub fn status(mut self, status: RunStatus) -> Self {
        if !self.statuses.contains(&status) {
            self.statuses.push(status);
        }
        self
    }

    /// Runs with this tag; given several times, runs with all of them.
    ///
    /// Only text values can be found: the engine compares as text.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Runs with this tag; given several times, runs with any of them. Not together with [`metadata`](Self::metadata): the
    /// engine asks for all or for any.
    pub fn any_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.any_metadata.push((key.into(), value.into()));
        self
    }

    /// Runs that this event has started.
    pub fn event(mut self, event: EventId) -> Self {
        self.event = Some(event);
        self
    }

    /// The children of this task: the runs that it has started through its [`Context`](crate::Context::run). The task of a
    /// one-task run has the id of its run.
    pub fn parent(mut self, task: impl Into<TaskId>) -> Self {
        self.parent = Some(task.into());
        self
    }

    /// Tasks that this worker has, or had last. Only together with [`tasks`](Self::tasks): a run may be with many workers,
    /// and the engine does not look at it then.
    ///
    /// The engine may miss a task that failed within milliseconds of its assignment: of failures it keeps no worker.
    pub fn worker(mut self, worker: WorkerId) -> Self {
        self.worker = Some(worker);
        self
    }

    /// Tasks rather than runs: of a run of several, each by itself. Not together with [`event`](Self::event) and
    /// [`parent`](Self::parent), which the engine does not follow then.
    pub fn tasks(mut self) -> Self {
        self.tasks = true;
        self
    }

    /// Whether runs of any workflow are meant. An event, a parent and a tag of the crate's own are of one namespace by
    /// themselves.
    pub(crate) fn is_of_all_workflows(&self) -> bool {
        let narrowed = self.event.is_some() || self.parent.is_some() || !self.own_metadata.is_empty();
        self.workflows.is_empty() && !narrowed
    }

    pub(crate) fn own_metadata(mut self, key: &str, value: &str) -> Self {
        self.own_metadata.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Checks what the server would silently understand otherwise.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |problem: std::fmt::Arguments<'_>| Err(Error::invalid("filter", problem));
        for tags in [&self.metadata, &self.any_metadata] {
            for (at, (key, _)) in tags.iter().enumerate() {
                check_key(key)?;
                if tags.iter().take(at).any(|(other, _)| other == key) {
                    return refuse(format_args!("the metadata key {key:?} is given twice, accepted: once"));
                }
            }
        }
        if !self.metadata.is_empty() && !self.any_metadata.is_empty() {
            return refuse(format_args!("metadata of which all, and of which any are to match, accepted: either"));
        }
        if self.tasks && (self.event.is_some() || self.parent.is_some()) {
            return refuse(format_args!("tasks by event or by parent, accepted: runs by event or by parent"));
        }
        if self.worker.is_some() && !self.tasks {
            return refuse(format_args!("runs by worker, accepted: tasks by worker"));
        }
        if let Some(RunStatus::Unknown(name)) =
            self.statuses.iter().find(|status| matches!(status, RunStatus::Unknown(_)))
        {
            // The engine drops what it does not know and then returns everything.
            return refuse(format_args!("the status {name:?} is not known, so it cannot be asked for"));
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
    fn what_the_server_would_misunderstand_is_refused() {
        let any = RunFilter::new(Window::all());
        let run: super::super::RunId = "00000000-0000-4000-8001-000000000001".parse().unwrap();
        assert!(any.clone().metadata("a", "1").metadata("b", "2").check().is_ok());
        for (filter, text) in [
            (any.clone().metadata("a", "1").metadata("a", "2"), "given twice"),
            (any.clone().any_metadata("a", "1").any_metadata("a", "2"), "given twice"),
            (any.clone().metadata("a", "1").any_metadata("b", "2"), "accepted: either"),
            (any.clone().tasks().parent(TaskId::from(run)), "tasks by event or by parent"),
            (any.clone().metadata("a:b", "1"), "without a colon"),
            (any.clone().metadata("hatchet__cron_name", "nightly"), "hatchet__"),
            (any.clone().status(RunStatus::Unknown("NOPE".into())), "\"NOPE\" is not known"),
            (RunFilter::new(Window::between(day(2), day(1))), "before it starts"),
        ] {
            assert!(filter.check().unwrap_err().to_string().contains(text), "{text}");
        }
    }
}
