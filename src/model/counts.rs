//! Numbers of runs.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::RunStatus;

/// A number of runs.
///
/// ```
/// use hatchet::model::Total;
///
/// assert_eq!(Total::AtLeast(20_000).to_string(), "at least 20000");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Total {
    /// Exactly this many.
    Exactly(u64),
    /// This many or more: the server stops counting at 20,000.
    AtLeast(u64),
    /// This many or fewer: the server counts timed-out runs and some cancelled runs as failed, and ignores namespaces. Up to 1000
    /// runs are read to make the number exact.
    AtMost(u64),
    /// Unknown, because both `AtLeast` and `AtMost` apply.
    Unknown,
}

impl Total {
    /// The same number as an upper bound, if other runs were counted, too.
    pub(crate) fn at_most(self) -> Self {
        match self {
            Self::Exactly(0) => self,
            Self::Exactly(number) | Self::AtMost(number) => Self::AtMost(number),
            Self::AtLeast(_) | Self::Unknown => Self::Unknown,
        }
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(number) => write!(f, "{number}"),
            Self::AtLeast(number) => write!(f, "at least {number}"),
            Self::AtMost(number) => write!(f, "at most {number}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// The number of runs with each status.
///
/// The server counts timed-out runs as failed, and also runs that were cancelled while they were queued and whose schedule timeout passed
/// afterwards. An archive counts each status separately.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// use hatchet::RunStatus;
/// use hatchet::model::Window;
///
/// let counts = hatchet.runs(Window::all()).counts_by_status().await?;
/// println!("{counts}"); // 1200 COMPLETED, 3 FAILED, 12 QUEUED
/// println!("{:?}", counts.get(&RunStatus::Failed)); // Some(3)
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StatusCounts {
    by_status: BTreeMap<String, u64>,
}

impl StatusCounts {
    pub(crate) fn new(counts: impl IntoIterator<Item = (RunStatus, u64)>) -> Self {
        Self { by_status: counts.into_iter().map(|(status, count)| (status.as_str().to_owned(), count)).collect() }
    }

    /// Returns the number of runs with a status.
    ///
    /// For [`RunStatus::TimedOut`], it is `None` if the counts do not contain this status, because the server counts timed-out runs as
    /// failed.
    pub fn get(&self, status: &RunStatus) -> Option<u64> {
        let count = self.by_status.get(status.as_str()).copied();
        if *status == RunStatus::TimedOut { count } else { Some(count.unwrap_or(0)) }
    }

    /// Iterates over the statuses with their numbers, in the order of the statuses' names.
    pub fn iter(&self) -> impl Iterator<Item = (RunStatus, u64)> {
        self.by_status.iter().map(|(name, count)| (RunStatus::from_name(name), *count))
    }

    /// Returns the number of all runs.
    pub fn total(&self) -> u64 {
        self.by_status.values().sum()
    }
}

/// The statuses with their numbers, in the order of the statuses' names.
impl IntoIterator for StatusCounts {
    type Item = (RunStatus, u64);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter().collect::<Vec<_>>().into_iter()
    }
}

impl fmt::Display for StatusCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut present = self.by_status.iter().filter(|(_, count)| **count > 0);
        let Some((status, count)) = present.next() else { return f.write_str("none") };
        write!(f, "{count} {status}")?;
        present.try_for_each(|(status, count)| write!(f, ", {count} {status}"))
    }
}
