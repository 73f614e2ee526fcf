//! What became of runs that something was to be done to.

use std::fmt;

use super::{RunId, RunStatus};
use crate::error::Error;

/// What is done to runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunAction {
    /// They are cancelled.
    Cancel,
    /// They are replayed.
    Replay,
}

/// What was seen to become of one run, and not what the server answered: that says yes to everything.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RunReport {
    /// The run.
    pub run: RunId,
    /// What was to be done to it.
    pub action: RunAction,
    /// What was seen.
    pub seen: Seen,
    /// Of a run that was to be replayed: which attempt at it that would be, if that is known.
    pub attempt: Option<u32>,
}

/// What was seen to become of a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Seen {
    /// It is as it was wanted: cancelled, or under way again.
    Done,
    /// It was left alone, as it is in this state: one that has ended is not cancelled, one that goes on is not replayed,
    /// and a cancelled one is not replayed unless that was wanted.
    Refused(RunStatus),
    /// It ended in this way just when it was to be cancelled.
    EndedOtherwise(RunStatus),
    /// The server took the call, and nothing came of it in the time given: the run is in this state. A run of several
    /// tasks that waits for time to pass or for an event goes on after a cancel, and replays get lost when there are many.
    NotTaken(RunStatus),
    /// There is no such run.
    NotFound,
    /// It could not be found out.
    Failed(Error),
}

impl RunReport {
    pub(crate) fn cancelled(run: RunId, seen: Seen) -> Self {
        Self { run, action: RunAction::Cancel, seen, attempt: None }
    }

    pub(crate) fn replayed(run: RunId, seen: Seen, attempt: Option<u32>) -> Self {
        Self { run, action: RunAction::Replay, seen, attempt }
    }

    /// Whether the run is as it was wanted.
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

/// As what has been done: `cancelled`, `replayed`.
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

/// What became of many runs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BulkReport {
    /// What was to be done to them.
    pub action: RunAction,
    /// Runs that are as they were wanted.
    pub done: u64,
    /// Runs that were left alone.
    pub refused: u64,
    /// Runs that ended otherwise in the meantime.
    pub ended_otherwise: u64,
    /// Runs that went on as they were.
    pub not_taken: u64,
    /// Runs that do not exist.
    pub not_found: u64,
    /// Runs of which it could not be found out.
    pub failed: u64,
    /// The first [thousand](Self::EXCEPTIONS) reports of runs that are not as they were wanted.
    pub exceptions: Vec<RunReport>,
    /// What kept the list of runs from being read to its end, if anything did: then there may be more runs than these.
    pub stopped_by: Option<Error>,
}

impl BulkReport {
    /// How many reports are kept.
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

    /// The number of runs that there is a report on.
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
