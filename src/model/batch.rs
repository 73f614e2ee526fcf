//! How the attempts of a task are assigned in batches.

use std::time::Duration;

use super::engine_version::EngineVersion;
use super::expression::key_problem;

const MAX_SIZE: u32 = 100_000;
const MAX_INTERVAL: Duration = Duration::from_secs(86_400);
const MAX_BATCHES: u32 = 10_000;
/// The engine that has batches.
const BATCHES: EngineVersion = EngineVersion::new(0, 88, 1);

/// How the engine groups the attempts of a [batch task](crate::Task::batch).
///
/// The engine assigns a batch when [`max_size`](Self::new) attempts wait, or when the first attempt has waited for
/// [`max_interval`](Self::max_interval), whichever comes first.
///
/// The payloads of a batch of several attempts never exceed 4 MB in total.
///
/// ```
/// use std::time::Duration;
/// use hatchet::workflow::BatchOptions;
///
/// // At most 50 inputs of one tenant per batch, and two batches of each tenant at a time.
/// let options = BatchOptions::new(50)
///     .max_interval(Duration::from_millis(200))
///     .key("input.tenant")
///     .max_batches(2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "options have no effect before they are passed to `Task::batch`"]
pub struct BatchOptions {
    pub(crate) max_size: u32,
    pub(crate) max_interval: Option<Duration>,
    pub(crate) key: Option<String>,
    pub(crate) max_batches: Option<u32>,
}

impl BatchOptions {
    /// Creates options with this maximum number of attempts in a batch, from 1 to 100,000.
    pub fn new(max_size: u32) -> Self {
        Self { max_size, max_interval: None, key: None, max_batches: None }
    }

    /// Sets how long an attempt waits for others, from 1 millisecond to 1 day, in whole milliseconds.
    ///
    /// The default is 1 second. The engine checks the interval every 200 ms. If no worker has a free slot at that time, the attempts wait
    /// for another interval.
    pub fn max_interval(mut self, max_interval: Duration) -> Self {
        self.max_interval = Some(max_interval);
        self
    }

    /// Sets an expression that computes a key.
    ///
    /// Only attempts with the same key share a batch. By default, all attempts of the task can share a batch.
    ///
    /// The expression is CEL over `input` and `additional_metadata`, and must return a string. If the expression cannot be evaluated, the
    /// task fails without an attempt: "failed to parse batch group key expression (…)".
    pub fn key(mut self, expression: impl Into<String>) -> Self {
        self.key = Some(expression.into());
        self
    }

    /// Sets how many batches of each key run at the same time, from 1 to 10,000. The default is 100.
    pub fn max_batches(mut self, max_batches: u32) -> Self {
        self.max_batches = Some(max_batches);
        self
    }

    /// What the engine would reject.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(1..=MAX_SIZE).contains(&self.max_size) {
            problems.push(format!("maximum size: expected 1 to {MAX_SIZE}, got {}", self.max_size));
        }
        if let Some(interval) = self.max_interval
            && (interval.is_zero() || interval > MAX_INTERVAL || interval.subsec_nanos() % 1_000_000 != 0)
        {
            problems.push(format!(
                "maximum interval: expected 1 to {} whole milliseconds, got {interval:?}",
                MAX_INTERVAL.as_millis()
            ));
        }
        problems.extend(self.key.as_deref().and_then(key_problem).map(|problem| format!("key: {problem}")));
        if let Some(batches) = self.max_batches.filter(|batches| !(1..=MAX_BATCHES).contains(batches)) {
            problems.push(format!("maximum number of batches: expected 1 to {MAX_BATCHES}, got {batches}"));
        }
        problems.into_iter().map(|problem| format!("batch: {problem}")).collect()
    }

    /// What old engines ignore: they would assign the attempts one by one.
    #[expect(clippy::unused_self, reason = "each option has this method")]
    pub(crate) fn requirement(&self) -> (String, EngineVersion) {
        ("batches".to_owned(), BATCHES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_the_engine_would_reject_are_rejected() {
        let fine = BatchOptions::new(100_000).max_interval(MAX_INTERVAL).key("input.tenant").max_batches(MAX_BATCHES);
        assert_eq!(fine.problems(), Vec::<String>::new());
        let bad = BatchOptions::new(0).max_interval(Duration::from_micros(1500)).key("7").max_batches(0);
        assert_eq!(
            bad.problems(),
            [
                "batch: maximum size: expected 1 to 100000, got 0",
                "batch: maximum interval: expected 1 to 86400000 whole milliseconds, got 1.5ms",
                "batch: key: expected a CEL expression that returns a string, got \"7\"",
                "batch: maximum number of batches: expected 1 to 10000, got 0",
            ]
        );
        for interval in [Duration::ZERO, MAX_INTERVAL + Duration::from_millis(1)] {
            assert_eq!(BatchOptions::new(1).max_interval(interval).problems().len(), 1);
        }
        assert_eq!(BatchOptions::new(100_001).problems().len(), 1);
    }
}
