//! The results of cancels and replays.

use std::fmt;

use super::{RunId, RunStatus};
use crate::error::Error;

/// An action on runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunAction {
    /// A cancel.
    Cancel,
    /// A replay.
    Replay,
}

/// The effect of an action on one run. It is the state that was fetched after the action and not the server's response, because the
/// server accepts every action.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RunReport {
    /// The run.
    pub run: RunId,
    /// The action.
    pub action: RunAction,
    /// The effect.
    pub seen: Seen,
    /// For a replay: the number of the new attempt, if it is known.
    pub attempt: Option<u32>,
}

/// The effect of an action on a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Seen {
    /// The action was applied: the run is cancelled, or runs again.
    Done,
    /// The run was skipped because of its status: a run that has ended is not cancelled, a run that has not ended is not replayed, and
    /// a cancelled run is replayed only on request.
    Refused(RunStatus),
    /// The run ended with this status before the cancel was applied.
    EndedOtherwise(RunStatus),
    /// The server accepted the action, but it had no effect within the time limit: the run has this status. A cancel has no effect on
    /// a DAG run that waits for a sleep or an event, and the engine may lose replays when there are many.
    NotTaken(RunStatus),
    /// The run does not exist.
    NotFound,
    /// The effect is unknown because of this error.
    Failed(Error),
}

impl RunReport {
    pub(crate) fn cancelled(run: RunId, seen: Seen) -> Self {
        Self { run, action: RunAction::Cancel, seen, attempt: None }
    }

    pub(crate) fn replayed(run: RunId, seen: Seen, attempt: Option<u32>) -> Self {
        Self { run, action: RunAction::Replay, seen, attempt }
    }

    /// Returns whether the action was applied.
    pub fn is_done(&self) -> bool {
        matches!(self.seen, Seen::Done)
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.seen {
            Seen::Done => write!(f, "{}: {}", self.run, self.action),
            seen => write!(f, "{}: {seen}", self.run),
        }
    }
}

/// The past participle: `cancelled`, `replayed`.
impl fmt::Display for RunAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cancel => "cancelled",
            Self::Replay => "replayed",
        })
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Refused(status) => write!(f, "left alone, as it is {status}"),
            Self::EndedOtherwise(status) => write!(f, "{status} in the meantime"),
            Self::NotTaken(status) => write!(f, "not taken, still {status}"),
            Self::NotFound => f.write_str("there is no such run"),
            Self::Failed(error) => write!(f, "unknown: {error}"),
        }
    }
}

/// The effects of an action on many runs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BulkReport {
    /// The action.
    pub action: RunAction,
    /// The number of runs to which the action was applied.
    pub done: u64,
    /// The number of runs that were skipped because of their status.
    pub refused: u64,
    /// The number of runs that ended before the action was applied.
    pub ended_otherwise: u64,
    /// The number of runs on which the action had no effect.
    pub not_taken: u64,
    /// The number of runs that do not exist.
    pub not_found: u64,
    /// The number of runs for which the effect is unknown.
    pub failed: u64,
    /// The first [1000](Self::EXCEPTIONS) reports of runs to which the action was not applied.
    pub exceptions: Vec<RunReport>,
    /// The error that ended the list of runs early, if any. Then there may be more matching runs.
    pub stopped_by: Option<Error>,
}

impl BulkReport {
    /// The maximum number of [`exceptions`](Self::exceptions).
    pub const EXCEPTIONS: usize = 1000;

    pub(crate) fn new(action: RunAction) -> Self {
        Self {
            action,
            done: 0,
            refused: 0,
            ended_otherwise: 0,
            not_taken: 0,
            not_found: 0,
            failed: 0,
            exceptions: Vec::new(),
            stopped_by: None,
        }
    }

    pub(crate) fn add(&mut self, report: RunReport) {
        *match report.seen {
            Seen::Done => &mut self.done,
            Seen::Refused(_) => &mut self.refused,
            Seen::EndedOtherwise(_) => &mut self.ended_otherwise,
            Seen::NotTaken(_) => &mut self.not_taken,
            Seen::NotFound => &mut self.not_found,
            Seen::Failed(_) => &mut self.failed,
        } += 1;
        if !report.is_done() && self.exceptions.len() < Self::EXCEPTIONS {
            self.exceptions.push(report);
        }
    }

    /// Returns the number of runs that the report covers.
    pub fn total(&self) -> u64 {
        self.done + self.refused + self.ended_otherwise + self.not_taken + self.not_found + self.failed
    }
}

impl fmt::Display for BulkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.done, self.action)?;
        let others = [
            (self.refused, "left alone"),
            (self.ended_otherwise, "ended otherwise"),
            (self.not_taken, "not taken"),
            (self.not_found, "not found"),
            (self.failed, "unknown"),
        ];
        others.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, what)| write!(f, ", {count} {what}"))?;
        self.stopped_by.as_ref().map_or(Ok(()), |error| write!(f, ", and stopped by an error: {error}"))
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
            all.add(RunReport::cancelled(run, Seen::Done));
            all.add(RunReport::cancelled(run, Seen::Refused(RunStatus::Completed)));
        }
        all.add(RunReport::cancelled(run, Seen::NotFound));
        assert_eq!((all.total(), all.exceptions.len()), (3001, BulkReport::EXCEPTIONS));
        assert_eq!(all.to_string(), "1500 cancelled, 1500 left alone, 1 not found");
    }
}
