//! The statuses of a run, and their transitions.
//!
//! A status belongs to an attempt. A later attempt always supersedes an earlier one. Within an attempt, a run goes from queued to
//! running to a final status, and never back. The table [`TRANSITIONS`] has all transitions within an attempt.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The state of a run, of a task, or of one attempt at one moment.
///
/// ```
/// use hatchet::RunStatus;
///
/// let status: RunStatus = "RUNNING".parse()?;
/// assert!(!status.is_final());
/// assert!(status.can_become(&RunStatus::Failed) && !RunStatus::Failed.can_become(&status));
/// # Ok::<(), std::convert::Infallible>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum RunStatus {
    /// The run waits for a worker.
    Queued,
    /// A worker executes the run.
    Running,
    /// The run ended with an output.
    Completed,
    /// The run ended with an error.
    Failed,
    /// The run was cancelled, by a request or by a concurrency limit.
    Cancelled,
    /// The run timed out, either during its execution or while it waited for a worker.
    ///
    /// The engine has no such status. It is derived from the events of the tasks.
    #[serde(rename = "TIMED_OUT")]
    TimedOut,
    /// A status that this version of the crate does not know, as the server sent it.
    #[serde(untagged)]
    Unknown(String),
}

impl RunStatus {
    /// All statuses that this version of the crate knows.
    pub const KNOWN: [Self; 6] =
        [Self::Queued, Self::Running, Self::Completed, Self::Failed, Self::Cancelled, Self::TimedOut];

    /// Returns whether this is the status of an attempt that has ended. An unknown status is not final.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::TimedOut)
    }

    /// Returns whether an attempt can go from this status to `next`.
    ///
    /// A final status has no successor within an attempt; a later attempt starts as queued.
    ///
    /// A queued attempt can become final without having been observed as running: the report of its start can be late or missing, and a
    /// cancellation or a schedule timeout ends a queued attempt.
    pub fn can_become(&self, next: &Self) -> bool {
        TRANSITIONS.iter().any(|(from, to)| from == self && to == next)
    }

    /// Returns the name of the status in capitals, as in the REST API.
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

    /// Returns the status with this name. A name that this version of the crate does not know becomes [`Unknown`](Self::Unknown).
    pub fn from_name(name: &str) -> Self {
        Self::KNOWN.into_iter().find(|status| status.as_str() == name).unwrap_or_else(|| Self::Unknown(name.into()))
    }
}

/// Parses the name of a status; see [`RunStatus::from_name`].
impl FromStr for RunStatus {
    type Err = Infallible;

    fn from_str(name: &str) -> Result<Self, Infallible> {
        Ok(Self::from_name(name))
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The status of one attempt.
///
/// Attempts are counted from 1.
///
/// ```
/// use hatchet::RunStatus;
/// use hatchet::model::AttemptStatus;
///
/// assert_eq!(AttemptStatus::new(2, RunStatus::Running).to_string(), "RUNNING (attempt 2)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttemptStatus {
    /// The number of the attempt: the retry count plus one.
    pub attempt: u32,
    /// The current status, or the final one if the attempt has ended.
    pub status: RunStatus,
}

impl AttemptStatus {
    /// Combines a status with the number of its attempt.
    pub fn new(attempt: u32, status: RunStatus) -> Self {
        Self { attempt, status }
    }

    /// Compares a report with this status, which is the last known one.
    pub(crate) fn compare(&self, report: &Self) -> Update {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match report.attempt.cmp(&self.attempt) {
            Greater => Update::New,
            Less => Update::Outdated,
            Equal if report.status == self.status => Update::Duplicate,
            Equal if self.status.can_become(&report.status) => Update::New,
            Equal if report.status.can_become(&self.status) => Update::Outdated,
            Equal => Update::Invalid,
        }
    }
}

impl fmt::Display for AttemptStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (attempt {})", self.status, self.attempt)
    }
}

/// All transitions of one attempt.
const TRANSITIONS: &[(RunStatus, RunStatus)] = &[
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

/// What a report is, compared with the last known status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Update {
    /// A transition within the attempt, or a later attempt.
    New,
    /// The known status again.
    Duplicate,
    /// An earlier attempt, or an earlier status of the same attempt.
    Outdated,
    /// A transition that does not exist, such as from one final status to another.
    Invalid,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(attempt: u32, status: &RunStatus) -> AttemptStatus {
        AttemptStatus::new(attempt, status.clone())
    }

    #[test]
    fn every_pair_of_statuses_is_a_transition_outdated_or_invalid() {
        let (mut moves, mut invalid) = (0, 0);
        for from in &RunStatus::KNOWN {
            for to in &RunStatus::KNOWN {
                match at(1, from).compare(&at(1, to)) {
                    Update::New => {
                        moves += 1;
                        assert!(TRANSITIONS.contains(&(from.clone(), to.clone())));
                        assert_eq!(at(1, to).compare(&at(1, from)), Update::Outdated, "{to} then {from}");
                    }
                    Update::Duplicate => assert_eq!(from, to),
                    Update::Outdated => assert!(TRANSITIONS.contains(&(to.clone(), from.clone()))),
                    Update::Invalid => {
                        invalid += 1;
                        assert!(from.is_final() && to.is_final(), "{from} to {to}");
                    }
                }
            }
        }
        assert_eq!((moves, invalid), (TRANSITIONS.len(), 4 * 3));
    }

    #[test]
    fn nothing_follows_an_end_within_its_attempt() {
        assert!(TRANSITIONS.iter().all(|(from, _)| !from.is_final()));
    }

    #[test]
    fn a_later_attempt_wins_over_any_state() {
        for from in &RunStatus::KNOWN {
            for to in &RunStatus::KNOWN {
                assert_eq!(at(1, from).compare(&at(2, to)), Update::New);
                assert_eq!(at(2, from).compare(&at(1, to)), Update::Outdated);
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
        assert_eq!(at(1, &RunStatus::Queued).compare(&at(1, &odd)), Update::Invalid);
    }

    proptest! {
        /// Whatever the order of reports, following them never goes back to an earlier attempt, or from a final status.
        #[test]
        fn following_the_reports_never_goes_back(reports in proptest::collection::vec((1u32..4, 0usize..6), 0..40)) {
            let mut known = at(1, &RunStatus::Queued);
            for (attempt, status) in reports {
                let report = at(attempt, &RunStatus::KNOWN[status]);
                if known.compare(&report) == Update::New {
                    prop_assert!(report.attempt > known.attempt || (report.attempt == known.attempt && !known.status.is_final()));
                    known = report;
                }
            }
        }
    }
}
