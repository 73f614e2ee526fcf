//! Lines of a task's log.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::TaskId;

/// A line of a task's log.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LogLine {
    /// The task.
    pub task: TaskId,
    /// Which attempt at it wrote the line, from 1.
    pub attempt: u32,
    /// When the engine got it, by the engine's clock: the sender's own time is not kept.
    pub at: DateTime<Utc>,
    /// How grave it is.
    pub level: LogLevel,
    /// The text.
    pub message: String,
    /// What its writer added, mostly an object.
    pub metadata: Value,
}

/// How grave a line of a log is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LogLevel {
    /// For who looks for a mistake.
    Debug,
    /// The usual.
    Info,
    /// Something is odd.
    Warn,
    /// Something is wrong.
    Error,
    /// A level that this version of the crate does not know, as the server sent it.
    Unknown(String),
}

impl LogLevel {
    /// The level's name, in capitals as the server has it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Unknown(name) => name,
        }
    }

    pub(crate) fn from_name(name: &str) -> Self {
        [Self::Debug, Self::Info, Self::Warn, Self::Error]
            .into_iter()
            .find(|level| level.as_str() == name)
            .unwrap_or_else(|| Self::Unknown(name.to_owned()))
    }
}

impl Serialize for LogLevel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_not_known_is_carried() {
        assert_eq!(LogLevel::from_name("WARN"), LogLevel::Warn);
        assert_eq!(LogLevel::from_name("TRACE").to_string(), "TRACE");
    }
}
