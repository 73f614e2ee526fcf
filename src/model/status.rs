//! The states of a run, and which may follow which.
//!
//! A state belongs to an attempt. Order is (attempt, rank): a higher attempt always wins, and within one attempt a run
//! goes from queued to running to an end and never back. The table below is all there is to it; [`judge`] applies it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a run, or of an attempt of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum RunStatus {
    /// Waiting for a worker, or for its next attempt.
    Queued,
    /// A worker has it.
    Running,
    /// Ended with an output.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended by a cancellation.
    Cancelled,
    /// Ended by a timeout: of its execution, or while it waited for a worker.
    ///
    /// The engine has no such status; it is derived from the task's events.
    #[serde(rename = "TIMED_OUT")]
    TimedOut,
    /// A status that this version of the crate does not know, as the server sent it.
    #[serde(untagged)]
    Unknown(String),
}

impl RunStatus {
    /// All states that the crate knows.
    pub const KNOWN: [Self; 6] =
        [Self::Queued, Self::Running, Self::Completed, Self::Failed, Self::Cancelled, Self::TimedOut];

    /// Whether an attempt in this state has ended.
    ///
    /// An unknown state is not an end: nothing is concluded from it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::TimedOut)
    }

    /// The state's name, in capitals as in the dashboard's API.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Queued => "QUEUED",
            Self::Running => "RUNNING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::TimedOut => "TIMED_OUT",
            Self::Unknown(text) => text,
        }
    }

    /// Reads a state by its name; one that is not known is carried as it is.
    pub fn from_name(name: &str) -> Self {
        Self::KNOWN.into_iter().find(|status| status.as_str() == name).unwrap_or_else(|| Self::Unknown(name.into()))
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A state of one attempt. Attempts count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AttemptStatus {
    /// Which attempt: the retry count plus one.
    pub attempt: u32,
    /// Its state.
    pub status: RunStatus,
}

impl AttemptStatus {
    /// A state of an attempt.
    pub fn new(attempt: u32, status: RunStatus) -> Self {
        Self { attempt, status }
    }
}

impl fmt::Display for AttemptStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (attempt {})", self.status, self.attempt)
    }
}

/// The moves that one attempt can make. From an end there are none.
///
/// A queued attempt may end without having run: a report of its start may be missing or late, and a cancel or a
/// timeout of the wait ends it where it is.
pub const TRANSITIONS: &[(RunStatus, RunStatus)] = &[
    (RunStatus::Queued, RunStatus::Running),
    (RunStatus::Queued, RunStatus::Completed),
    (RunStatus::Queued, RunStatus::Failed),
    (RunStatus::Queued, RunStatus::Cancelled),
    (RunStatus::Queued, RunStatus::TimedOut),
    (RunStatus::Running, RunStatus::Completed),
    (RunStatus::Running, RunStatus::Failed),
    (RunStatus::Running, RunStatus::Cancelled),
    (RunStatus::Running, RunStatus::TimedOut),
];

/// What a report means to someone who has already seen `from`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// A legal move: within the attempt by the table, or to a later attempt.
    Move,
    /// What is known already.
    Same,
    /// A report from before what is known: of an earlier attempt, or an earlier state of this one. To be dropped.
    Stale,
    /// A move that the table does not have, such as from one end to another.
    Illegal(InvalidTransition),
}

/// A move that no attempt can make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidTransition {
    /// The state before.
    pub from: AttemptStatus,
    /// The state that was reported after it.
    pub to: AttemptStatus,
}

impl fmt::Display for InvalidTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no run goes from {} to {}", self.from, self.to)
    }
}

impl std::error::Error for InvalidTransition {}

/// Judges a report against what is known.
pub fn judge(from: &AttemptStatus, to: &AttemptStatus) -> Verdict {
    use std::cmp::Ordering::{Equal, Greater, Less};
    match to.attempt.cmp(&from.attempt) {
        Greater => Verdict::Move,
        Less => Verdict::Stale,
        Equal if to.status == from.status => Verdict::Same,
        Equal if is_move(&from.status, &to.status) => Verdict::Move,
        Equal if is_move(&to.status, &from.status) => Verdict::Stale,
        Equal => Verdict::Illegal(InvalidTransition { from: from.clone(), to: to.clone() }),
    }
}

fn is_move(from: &RunStatus, to: &RunStatus) -> bool {
    TRANSITIONS.iter().any(|(a, b)| a == from && b == to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(attempt: u32, status: &RunStatus) -> AttemptStatus {
        AttemptStatus::new(attempt, status.clone())
    }

    #[test]
    fn every_pair_within_an_attempt_is_a_move_stale_or_illegal() {
        let (mut moves, mut illegal) = (0, 0);
        for from in &RunStatus::KNOWN {
            for to in &RunStatus::KNOWN {
                match judge(&at(1, from), &at(1, to)) {
                    Verdict::Move => {
                        moves += 1;
                        assert!(TRANSITIONS.contains(&(from.clone(), to.clone())));
                        assert_eq!(judge(&at(1, to), &at(1, from)), Verdict::Stale, "{to} then {from}");
                    }
                    Verdict::Same => assert_eq!(from, to),
                    Verdict::Stale => assert!(TRANSITIONS.contains(&(to.clone(), from.clone()))),
                    Verdict::Illegal(pair) => {
                        illegal += 1;
                        assert_eq!(pair, InvalidTransition { from: at(1, from), to: at(1, to) });
                        assert!(from.is_final() && to.is_final(), "{pair}");
                    }
                }
            }
        }
        assert_eq!((moves, illegal), (TRANSITIONS.len(), 4 * 3));
    }

    #[test]
    fn nothing_follows_an_end_within_its_attempt() {
        assert!(TRANSITIONS.iter().all(|(from, _)| !from.is_final()));
    }

    #[test]
    fn a_later_attempt_wins_over_any_state() {
        for from in &RunStatus::KNOWN {
            for to in &RunStatus::KNOWN {
                assert_eq!(judge(&at(1, from), &at(2, to)), Verdict::Move);
                assert_eq!(judge(&at(2, from), &at(1, to)), Verdict::Stale);
            }
        }
    }

    #[test]
    fn each_is_written_as_it_is_called() {
        for status in RunStatus::KNOWN {
            let text = format!("\"{status}\"");
            assert_eq!(serde_json::to_string(&status).unwrap(), text);
            assert_eq!(serde_json::from_str::<RunStatus>(&text).unwrap(), status);
            assert_eq!(RunStatus::from_name(status.as_str()), status);
        }
    }

    #[test]
    fn an_unknown_status_is_carried_and_concludes_nothing() {
        let odd = RunStatus::from_name("PAUSED");
        assert_eq!(odd, RunStatus::Unknown("PAUSED".into()));
        assert_eq!(odd.to_string(), "PAUSED");
        assert!(!odd.is_final());
        let read: RunStatus = serde_json::from_str("\"PAUSED\"").unwrap();
        assert_eq!(read, odd);
        assert!(matches!(judge(&at(1, &RunStatus::Queued), &at(1, &odd)), Verdict::Illegal(_)));
    }

    proptest! {
        /// Whatever the order of reports, following the verdicts never takes back an attempt or an end.
        #[test]
        fn following_the_verdicts_never_goes_back(reports in proptest::collection::vec((1u32..4, 0usize..6), 0..40)) {
            let mut known = at(1, &RunStatus::Queued);
            for (attempt, status) in reports {
                let report = at(attempt, &RunStatus::KNOWN[status]);
                if judge(&known, &report) == Verdict::Move {
                    prop_assert!(report.attempt > known.attempt || (report.attempt == known.attempt && !known.status.is_final()));
                    known = report;
                }
            }
        }
    }
}
