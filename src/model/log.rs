//! Log lines of tasks.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::TaskId;

/// A message that a task wrote to its log, with its severity and its metadata.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// let mut lines = run.logs();
/// while let Some(line) = lines.next().await.transpose()? {
///     println!("{} {} {}", line.created_at, line.level, line.message);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogLine {
    /// The task that wrote the line.
    pub task_id: TaskId,
    /// The number of the attempt that wrote the line, starting at 1.
    pub attempt: u32,
    /// When the engine received the line, by the engine's clock. The engine does not store the time of the worker.
    pub created_at: DateTime<Utc>,
    /// The severity.
    pub level: LogLevel,
    /// The message, without its level and its metadata.
    pub message: String,
    /// The metadata of the line, usually an object. `None` if the line has none.
    pub metadata: Option<Value>,
}

/// The severity of a log line.
///
/// The engine has four levels; a name that this crate does not know is kept.
///
/// ```
/// use hatchet::model::LogLevel;
///
/// assert_eq!("WARN".parse(), Ok(LogLevel::Warn));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LogLevel {
    /// Details for debugging.
    Debug,
    /// Normal messages.
    Info,
    /// Unexpected events.
    Warn,
    /// Failures.
    Error,
    /// A level that this version of the crate does not know, as the server sent it.
    Unknown(String),
}

impl LogLevel {
    /// Returns the name of the level in capitals, as in the REST API.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Unknown(name) => name,
        }
    }

    /// Returns the level with this name. A name that this version of the crate does not know becomes [`Unknown`](Self::Unknown).
    pub fn from_name(name: &str) -> Self {
        [Self::Debug, Self::Info, Self::Warn, Self::Error]
            .into_iter()
            .find(|level| level.as_str() == name)
            .unwrap_or_else(|| Self::Unknown(name.to_owned()))
    }
}

/// Parses the name of a level; see [`LogLevel::from_name`].
impl FromStr for LogLevel {
    type Err = Infallible;

    fn from_str(name: &str) -> Result<Self, Infallible> {
        Ok(Self::from_name(name))
    }
}

impl<'de> Deserialize<'de> for LogLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer).map(|name| Self::from_name(&name))
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
