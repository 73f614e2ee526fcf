//! Idempotency keys.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::expression::key_problem;

/// The minimum time of a key with which a start can be repeated. It is longer than a call with its retries usually takes.
const MIN_REPEATABLE_TTL: Duration = Duration::from_secs(600);
/// The engine stores milliseconds, and its timestamps are limited.
const MAX_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Allows only one run of a workflow per key.
///
/// An expression computes the key from the input.
///
/// A second run with the same key is not started: the start request fails with
/// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists), and [`Error::existing_run_id`](crate::Error::existing_run_id) returns the
/// id of the run that has the key. So a start request whose result is unknown can be retried. Keys are shared by all workflows of a tenant:
/// include the workflow's name in the expression if keys of different workflows may collide. An event or a schedule that would start a
/// second run starts none, and no error is reported.
///
/// Expressions are CEL over `input` and `additional_metadata`, and must return a string. If the key is missing or not a string, the engine
/// answers the start request with the id of a run that it never creates; a wait for this run returns
/// [`RunNotFound`](crate::ErrorKind::RunNotFound). The embedded engine rejects such a run, unless a quirk is enabled.
///
/// ```
/// use std::time::Duration;
/// use hatchet::{Context, Task};
/// use hatchet::model::Idempotency;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Order { id: String }
///
/// let day = Duration::from_secs(24 * 3600);
/// let charge = Task::new("charge", async |_: Order, _: Context| Ok(()))
///     .idempotency(Idempotency::for_time("'charge:' + input.id", day));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    pub(crate) expression: String,
    pub(crate) ttl: Duration,
    pub(crate) ends_with_run: bool,
}

impl Idempotency {
    /// Reserves the key for this time from the start of the run, even if the run ends earlier. The time must be from 1 ms to 100 years.
    pub fn for_time(expression: impl Into<String>, ttl: Duration) -> Self {
        Self { expression: expression.into(), ttl, ends_with_run: false }
    }

    /// Reserves the key until the run has ended, but at most for this time, which must be from 1 ms to 100 years.
    ///
    /// For a DAG run, the engine frees the key when the first task has ended.
    pub fn until_ended(expression: impl Into<String>, at_most: Duration) -> Self {
        Self { expression: expression.into(), ttl: at_most, ends_with_run: true }
    }

    /// Whether a call can be repeated while the key is kept, even if its run has ended.
    pub(crate) fn outlasts_calls(&self) -> bool {
        !self.ends_with_run && self.ttl >= MIN_REPEATABLE_TTL
    }

    /// The problem for which the engine would reject it.
    pub(crate) fn problem(&self) -> Option<String> {
        if let Some(problem) = key_problem(&self.expression) {
            return Some(format!("idempotency: {problem}"));
        }
        let fits = (Duration::from_millis(1)..=MAX_TTL).contains(&self.ttl);
        (!fits).then(|| format!("idempotency: expected 1 ms to 100 years, got {:?}", self.ttl))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_would_reject() {
        let second = Duration::from_secs(1);
        assert_eq!(Idempotency::for_time("input.id", second).problem(), None);
        assert!(Idempotency::for_time(" ", second).problem().unwrap().contains("a CEL expression"));
        for length in [Duration::ZERO, Duration::from_micros(999), Duration::MAX] {
            assert!(Idempotency::until_ended("input.id", length).problem().unwrap().contains("1 ms to"), "{length:?}");
        }
    }
}
