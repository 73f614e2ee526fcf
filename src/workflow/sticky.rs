//! Stickiness: whether the tasks of a run stay on one worker.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::model::name::parse_name;

/// Whether the tasks of a run stay on one worker.
///
/// ```
/// use hatchet::workflow::Sticky;
/// use hatchet::{Context, Task};
///
/// let render = Task::new("render", async |(): (), _: Context| Ok(())).sticky(Sticky::Soft);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Sticky {
    /// The tasks use the same worker if it has a free slot, and another one otherwise.
    Soft,
    /// The tasks use only the same worker. A task waits for that worker until its schedule timeout.
    Hard,
}

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Soft => "soft",
            Self::Hard => "hard",
        })
    }
}

impl FromStr for Sticky {
    type Err = Error;

    /// Parses `soft` or `hard`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for any other string.
    fn from_str(name: &str) -> Result<Self, Error> {
        parse_name("stickiness", &[Self::Soft, Self::Hard], name)
    }
}
