//! Which runs: one value for everything that works on many runs.

use super::metadata::check_key;
use super::{RunStatus, Window};
use crate::error::{Error, Result};

/// Which runs are meant: by time, workflow, status and metadata. What is not said is not asked.
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
    /// Tags of the engine and of this crate, which users cannot ask for.
    pub(crate) marks: Vec<(&'static str, String)>,
}

impl RunFilter {
    /// All runs that were created in a window of time.
    pub fn new(window: Window) -> Self {
        Self { window, workflows: Vec::new(), statuses: Vec::new(), metadata: Vec::new(), marks: Vec::new() }
    }

    /// Runs of this workflow; given several times, of any of them.
    pub fn workflow(mut self, name: impl Into<String>) -> Self {
        self.workflows.push(name.into());
        self
    }

    /// Runs in this state; given several times, in any of them.
    ///
    /// The engine files timed-out runs under failed ones. So for [`RunStatus::TimedOut`] and [`RunStatus::Failed`] the
    /// events of each failed run without an error text are read, one small request for each such run.
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

    /// Runs with a tag that is not the user's.
    pub(crate) fn mark(mut self, key: &'static str, value: &str) -> Self {
        self.marks.push((key, value.to_owned()));
        self
    }

    /// Checks what the server would silently understand otherwise.
    pub(crate) fn check(&self) -> Result<()> {
        for (at, (key, _)) in self.metadata.iter().enumerate() {
            check_key(key)?;
            if self.metadata.iter().take(at).any(|(other, _)| other == key) {
                return Err(Error::invalid(
                    "filter",
                    format_args!("the metadata key {key:?} is given twice, accepted: once"),
                ));
            }
        }
        if let Some(RunStatus::Unknown(name)) =
            self.statuses.iter().find(|status| matches!(status, RunStatus::Unknown(_)))
        {
            // The engine drops what it does not know and then returns everything.
            return Err(Error::invalid(
                "filter",
                format_args!("the status {name:?} is not known, so it cannot be asked for"),
            ));
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
    fn what_the_server_would_misunderstand_is_refused() {
        let any = RunFilter::new(Window::all());
        assert!(any.clone().metadata("a", "1").metadata("b", "2").check().is_ok());
        for (filter, text) in [
            (any.clone().metadata("a", "1").metadata("a", "2"), "given twice"),
            (any.clone().metadata("a:b", "1"), "without a colon"),
            (any.clone().status(RunStatus::Unknown("NOPE".into())), "\"NOPE\" is not known"),
            (RunFilter::new(Window::between(day(2), day(1))), "before it starts"),
        ] {
            assert!(filter.check().unwrap_err().to_string().contains(text), "{text}");
        }
    }
}
