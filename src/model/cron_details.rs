//! Crons: their specifications and their details.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cron::{Problem, Schedule};
use super::payload::excerpt;
use super::{CronId, Payload, Priority, WorkflowId};
use crate::error::{Error, Result};

/// The name and the expression of a cron.
///
/// An expression has five fields (minute, hour, day, month, weekday, where Sunday is 0), or six fields with seconds first, or it is one
/// of `@yearly`, `@monthly`, `@weekly`, `@daily` and `@hourly`, or `@every 90s`. Times are in UTC, unless the expression begins with a
/// time zone, such as `TZ=Europe/Oslo `.
///
/// ```
/// use hatchet::model::CronSpec;
///
/// let spec = CronSpec::new("mornings", "TZ=Europe/Oslo 0 9 * * MON-FRI");
/// assert_eq!(spec.to_string(), "mornings (TZ=Europe/Oslo 0 9 * * MON-FRI)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CronSpec {
    pub(crate) name: String,
    pub(crate) expression: String,
}

impl CronSpec {
    /// Creates a specification. It is checked when the cron is created.
    pub fn new(name: impl Into<String>, expression: impl Into<String>) -> Self {
        Self { name: name.into(), expression: expression.into() }
    }

    /// Returns the name of the cron, as it was passed to [`new`](Self::new).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the cron expression, as it was passed to [`new`](Self::new).
    pub fn expression(&self) -> &str {
        &self.expression
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.name.is_empty() || self.name.contains('\0') {
            let problem = format_args!("expected a non-empty string without U+0000, got {:?}", self.name);
            return Err(Error::invalid("cron name", problem));
        }
        // Only the engine knows which time zones exist.
        Schedule::parse(&self.expression).map(drop).map_err(|Problem(problem)| {
            Error::invalid("cron expression", format_args!("{problem} (in {:?})", excerpt(&self.expression)))
        })
    }
}

impl fmt::Display for CronSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.expression)
    }
}

/// A cron in the engine, with the expression, the workflow and the input of its runs; see
/// [`CronHandle::details`](crate::handle::CronHandle::details).
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, id: hatchet::model::CronId) -> hatchet::Result<()> {
/// let details = hatchet.cron_handle(id).details().await?;
/// println!("{} of {}, enabled: {}", details.expression, details.workflow_name, details.is_enabled);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CronDetails {
    /// The id, for [`Client::cron_handle`](crate::Client::cron_handle).
    pub id: CronId,
    /// The name. `None` if the cron belongs to a definition.
    pub name: Option<String>,
    /// The expression, which determines when a run is started.
    pub expression: String,
    /// Whether the cron starts runs. It is `false` while the cron is paused.
    pub is_enabled: bool,
    /// Whether the cron belongs to a definition. For each version of the definition, the engine creates the cron again, with another id.
    pub from_definition: bool,
    /// The workflow that the cron starts.
    pub workflow_id: WorkflowId,
    /// The name of the workflow, without the namespace.
    pub workflow_name: String,
    /// The input with which each run is started.
    pub input: Payload,
    /// The user's metadata.
    pub metadata: BTreeMap<String, Value>,
    /// The metadata that this crate added.
    pub engine_metadata: BTreeMap<String, Value>,
    /// The priority of each run. `None` if the server does not report one.
    pub priority: Option<Priority>,
    /// When the cron was created, by the engine's clock.
    pub created_at: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_specification_is_rejected() {
        let check = |name: &str, expression: &str| CronSpec::new(name, expression).check();
        assert!(check("a", "0 9 * * *").is_ok() && check("a", "@hourly").is_ok());
        assert!(check("a", "TZ=Europe/Oslo 0 9 * * *").is_ok(), "the engine knows the zones");
        for (name, expression, text) in [
            ("", "* * * * *", "invalid cron name: expected a non-empty string without U+0000, got \"\""),
            ("a", "not a cron", "invalid cron expression: expected 5 fields, or 6 with seconds first, got 3"),
            ("a", "", "invalid cron expression: expected 5 fields, or 6 with seconds first, got 0"),
            (
                "a",
                "TZ=Europe/Oslo 0 9 * * 7",
                "invalid cron expression: expected 0 to 6, *, lists, ranges and steps as the weekday, got \"7\"",
            ),
        ] {
            let error = check(name, expression).unwrap_err();
            assert!(error.to_string().starts_with(text) && error.has_no_side_effects(), "{error}");
        }
    }
}
