//! How urgent a run is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::parse_name;
use crate::error::Error;

/// The priority of a run.
///
/// Queued tasks with a higher priority are assigned first; among tasks with the same priority, the oldest is assigned first.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), ()>) -> hatchet::Result<()> {
/// use hatchet::Priority;
///
/// hatchet.run(&greet, &()).priority(Priority::High).start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// The lowest priority, which is the engine's default. The engine stores it as 1.
    #[default]
    Low,
    /// Between [`Low`](Self::Low) and [`High`](Self::High). The engine stores it as 2.
    Medium,
    /// The highest priority. The engine stores it as 3.
    High,
}

impl Priority {
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Low => 1,
            Self::Medium => 2,
            Self::High => 3,
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        })
    }
}

impl FromStr for Priority {
    type Err = Error;

    /// Parses `low`, `medium` or `high`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for any other string.
    fn from_str(name: &str) -> Result<Self, Error> {
        parse_name("priority", &[Self::Low, Self::Medium, Self::High], name)
    }
}

impl TryFrom<i32> for Priority {
    type Error = Error;

    /// Converts 1, 2 or 3 to a priority.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for anything but 1, 2 and 3.
    fn try_from(number: i32) -> Result<Self, Error> {
        [Self::Low, Self::Medium, Self::High]
            .into_iter()
            .find(|priority| priority.number() == number)
            .ok_or_else(|| Error::invalid("priority", format_args!("expected 1 to 3, got {number}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_to_three_are_priorities() {
        assert_eq!(Priority::try_from(3).unwrap(), Priority::High);
        for number in [i32::MIN, -1, 0, 4, 9] {
            assert_eq!(
                Priority::try_from(number).unwrap_err().to_string(),
                format!("invalid priority: expected 1 to 3, got {number}")
            );
        }
    }
}
