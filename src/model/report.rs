//! The results of cancellations and replays.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::parse_name;
use super::{RunId, RunStatus};
use crate::error::Error;

/// The action that a [`RunReport`] or a [`BulkReport`] is about.
///
/// ```
/// use hatchet::model::RunAction;
///
/// assert_eq!(RunAction::Cancel.to_string(), "cancel");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunAction {
    /// Cancels a run that has not ended.
    Cancel,
    /// Starts a new attempt of the same run.
    Replay,
}

/// The effect of an action on one run.
///
/// The client fetches the run after the action to determine the effect: the server's response does not contain it, because the server
/// accepts every action.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, ids: Vec<hatchet::RunId>) -> hatchet::Result<()> {
/// use hatchet::model::Effect;
///
/// for report in hatchet.cancel_many(ids).send().await? {
///     if let Effect::NoEffect(status) = &report.effect {
///         println!("run {} is still {status}", report.run_id);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunReport {
    /// The run that the action was applied to.
    pub run_id: RunId,
    /// What was requested.
    pub action: RunAction,
    /// What has happened to the run since, as far as the client could observe it.
    pub effect: Effect,
    /// For a replay: the number of the new attempt, if it is known.
    pub attempt: Option<u32>,
}

/// The effect of a cancellation or a replay on a run.
///
/// Effects with errors are equal if the kinds and the messages of the errors are equal.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use hatchet::model::Effect;
///
/// let report = run.cancel().send().await?;
/// if let Effect::FinishedFirst(status) = report.effect {
///     println!("too late: {status}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Effect {
    /// The action was applied: the run is cancelled, or runs again.
    Applied,
    /// The run was skipped because of its status: a run that has ended is not cancelled, a run that has not ended is not replayed, and
    /// a cancelled run is replayed only on request.
    Skipped(RunStatus),
    /// The run ended with this status before the cancellation was applied.
    FinishedFirst(RunStatus),
    /// The server accepted the action, but the action had no effect within the time limit: the run still has this status. A cancellation
    /// has no effect on a DAG run that waits for a sleep or an event, and the engine may lose replays when there are many.
    NoEffect(RunStatus),
    /// The run does not exist. No request was sent for it.
    NotFound,
    /// The effect is unknown because of this error.
    Unknown(Error),
}

impl PartialEq for Effect {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Applied, Self::Applied) | (Self::NotFound, Self::NotFound) => true,
            (Self::Skipped(one), Self::Skipped(other))
            | (Self::FinishedFirst(one), Self::FinishedFirst(other))
            | (Self::NoEffect(one), Self::NoEffect(other)) => one == other,
            (Self::Unknown(one), Self::Unknown(other)) => is_same(one, other),
            _ => false,
        }
    }
}

fn is_same(one: &Error, other: &Error) -> bool {
    one.kind() == other.kind() && one.to_string() == other.to_string()
}

impl RunReport {
    pub(crate) fn cancelled(run_id: RunId, effect: Effect) -> Self {
        Self { run_id, action: RunAction::Cancel, effect, attempt: None }
    }

    pub(crate) fn replayed(run_id: RunId, effect: Effect, attempt: Option<u32>) -> Self {
        Self { run_id, action: RunAction::Replay, effect, attempt }
    }

    /// Returns whether the run is cancelled, or runs again, because of the action.
    pub fn is_applied(&self) -> bool {
        matches!(self.effect, Effect::Applied)
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.effect {
            Effect::Applied => write!(f, "{}: {}", self.run_id, self.action.participle()),
            effect => write!(f, "{}: {effect}", self.run_id),
        }
    }
}

impl FromStr for RunAction {
    type Err = Error;

    /// Parses `cancel` or `replay`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for any other string.
    fn from_str(name: &str) -> Result<Self, Error> {
        parse_name("action", &[Self::Cancel, Self::Replay], name)
    }
}

impl RunAction {
    /// The past participle, for reports.
    fn participle(self) -> &'static str {
        match self {
            Self::Cancel => "cancelled",
            Self::Replay => "replayed",
        }
    }
}

impl fmt::Display for RunAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cancel => "cancel",
            Self::Replay => "replay",
        })
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied => f.write_str("applied"),
            Self::Skipped(status) => write!(f, "skipped: the run is {status}"),
            Self::FinishedFirst(status) => write!(f, "finished first: the run is {status}"),
            Self::NoEffect(status) => write!(f, "no effect: the run is {status}"),
            Self::NotFound => f.write_str("not found"),
            Self::Unknown(error) => write!(f, "unknown: {error}"),
        }
    }
}

/// The effects of an action on many runs.
///
/// Reports with errors are equal only if the kinds and the messages of the errors are equal.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// let report = hatchet.runs(Window::all()).cancel().send().await?;
/// println!("{} of {}", report.applied, report.total());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BulkReport {
    /// What was requested.
    pub action: RunAction,
    /// The number of runs to which the action was applied.
    pub applied: u64,
    /// The number of runs that were skipped because of their status.
    pub skipped: u64,
    /// The number of runs that ended before the action was applied.
    pub finished_first: u64,
    /// The number of runs on which the action had no effect.
    pub no_effect: u64,
    /// The number of runs that do not exist.
    pub not_found: u64,
    /// The number of runs for which the effect is unknown.
    pub unknown: u64,
    /// The first [1000](Self::MAX_EXCEPTIONS) reports of runs to which the action was not applied.
    pub exceptions: Vec<RunReport>,
    /// The error that ended the list of runs early, if any. In that case, there may be more matching runs.
    pub stopped_by: Option<Error>,
}

impl PartialEq for BulkReport {
    fn eq(&self, other: &Self) -> bool {
        let counts =
            |all: &Self| [all.applied, all.skipped, all.finished_first, all.no_effect, all.not_found, all.unknown];
        let is_same_end = match (&self.stopped_by, &other.stopped_by) {
            (Some(one), Some(other)) => is_same(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        self.action == other.action
            && counts(self) == counts(other)
            && self.exceptions == other.exceptions
            && is_same_end
    }
}

impl BulkReport {
    /// The maximum number of [`exceptions`](Self::exceptions).
    pub const MAX_EXCEPTIONS: usize = 1000;

    pub(crate) fn new(action: RunAction) -> Self {
        Self {
            action,
            applied: 0,
            skipped: 0,
            finished_first: 0,
            no_effect: 0,
            not_found: 0,
            unknown: 0,
            exceptions: Vec::new(),
            stopped_by: None,
        }
    }

    pub(crate) fn add(&mut self, report: RunReport) {
        *match report.effect {
            Effect::Applied => &mut self.applied,
            Effect::Skipped(_) => &mut self.skipped,
            Effect::FinishedFirst(_) => &mut self.finished_first,
            Effect::NoEffect(_) => &mut self.no_effect,
            Effect::NotFound => &mut self.not_found,
            Effect::Unknown(_) => &mut self.unknown,
        } += 1;
        if !report.is_applied() && self.exceptions.len() < Self::MAX_EXCEPTIONS {
            self.exceptions.push(report);
        }
    }

    /// Returns the number of runs that the report covers.
    pub fn total(&self) -> u64 {
        self.applied + self.skipped + self.finished_first + self.no_effect + self.not_found + self.unknown
    }
}

impl fmt::Display for BulkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.applied, self.action.participle())?;
        let others = [
            (self.skipped, "skipped"),
            (self.finished_first, "finished first"),
            (self.no_effect, "without an effect"),
            (self.not_found, "not found"),
            (self.unknown, "unknown"),
        ];
        others.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, what)| write!(f, ", {count} {what}"))?;
        self.stopped_by.as_ref().map_or(Ok(()), |error| write!(f, "; stopped by an error: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_report_is_counted_once_and_few_are_kept() {
        let run: RunId = "00000000-0000-4000-8001-000000000001".parse().unwrap();
        let mut all = BulkReport::new(RunAction::Cancel);
        for _ in 0..1500 {
            all.add(RunReport::cancelled(run, Effect::Applied));
            all.add(RunReport::cancelled(run, Effect::Skipped(RunStatus::Completed)));
        }
        all.add(RunReport::cancelled(run, Effect::NotFound));
        assert_eq!((all.total(), all.exceptions.len()), (3001, BulkReport::MAX_EXCEPTIONS));
        assert_eq!(all.to_string(), "1500 cancelled, 1500 skipped, 1 not found");
    }
}
