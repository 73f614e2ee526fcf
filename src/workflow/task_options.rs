//! The options of a task, their checks, and their conversion for the engine.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::batch::BatchOptions;
use crate::model::engine_version::EngineVersion;
use crate::model::label::check_key;
use crate::model::{Concurrency, Conditions, DesiredLabels, RateLimit};
use crate::rpc::convert::NewTask;
use crate::time::{MAX_DURATION, format_duration};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_SCHEDULE_TIMEOUT: Duration = Duration::from_secs(300);

/// The type of the slots that a worker has without further options.
pub(super) const DEFAULT_SLOT: &str = "default";
/// The engine that has slots of several types.
const SLOT_TYPES: EngineVersion = EngineVersion::new(0, 78, 23);

/// The options of a task. `None` is an option that was not set, for which a workflow can have another default.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TaskOptions {
    pub(super) retries: Option<u32>,
    pub(super) timeout: Option<Duration>,
    pub(super) schedule_timeout: Option<Duration>,
    pub(super) backoff: Option<(f32, Duration)>,
    /// The backoff of a task of this crate if it has retries. The user may set the retries to 0.
    pub(super) preset_backoff: Option<(f32, Duration)>,
    pub(super) labels: DesiredLabels,
    pub(super) concurrency: Vec<Concurrency>,
    pub(super) rate_limits: Vec<RateLimit>,
    pub(super) conditions: Conditions,
    /// The number of slots by type.
    pub(super) slots: BTreeMap<String, u32>,
    /// How its attempts are assigned in batches, if they are.
    pub(super) batch: Option<BatchOptions>,
}

impl TaskOptions {
    pub(super) fn max_retries(&self) -> u32 {
        self.retries.unwrap_or_default()
    }

    /// The backoff that was set, or the preset one of a task with retries.
    pub(super) fn backoff(&self) -> Option<(f32, Duration)> {
        self.backoff.or(self.preset_backoff.filter(|_| self.max_retries() > 0))
    }

    pub(super) fn timeouts(&self) -> (Duration, Duration) {
        (self.timeout.unwrap_or(DEFAULT_TIMEOUT), self.schedule_timeout.unwrap_or(DEFAULT_SCHEDULE_TIMEOUT))
    }

    /// What the engine would reject or ignore. The conditions are checked with the parents.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if i32::try_from(self.max_retries()).is_err() {
            problems.push(format!("retries: expected at most {}, got {}", i32::MAX, self.max_retries()));
        }
        let (timeout, schedule_timeout) = self.timeouts();
        for (field, length) in [("timeout", timeout), ("schedule timeout", schedule_timeout)] {
            if length.is_zero() || length > MAX_DURATION {
                problems.push(format!("{field}: expected more than 0 and at most 10 years, got {length:?}"));
            }
        }
        if let Some(backoff) = self.backoff() {
            problems.extend(backoff_problems(backoff));
            if self.max_retries() == 0 {
                problems.push("backoff: expected retries together with a backoff, got 0 retries".into());
            }
        }
        problems.extend(self.labels.keys().filter_map(|key| check_key(key).err()).map(|error| error.to_string()));
        problems.extend(self.concurrency.iter().flat_map(Concurrency::problems));
        problems.extend(self.rate_limits.iter().flat_map(RateLimit::problems));
        for (at, limit) in self.rate_limits.iter().enumerate() {
            if self.rate_limits.iter().take(at).any(|other| other.key == limit.key) {
                problems.push(format!("rate limit: expected each key once, got {:?} twice", limit.key.text()));
            }
        }
        for (name, count) in &self.slots {
            if name.is_empty() || name.contains('\0') {
                problems.push(format!("slots: expected a non-empty type without U+0000, got {name:?}"));
            }
            if *count < 1 || i32::try_from(*count).is_err() {
                problems.push(format!("slots: expected 1 to {} of type {name:?}, got {count}", i32::MAX));
            }
        }
        problems.extend(self.batch.iter().flat_map(BatchOptions::problems));
        if self.batch.is_some() && !self.slots.is_empty() {
            problems.push(format!(
                "slots: expected no requests for a batch task, whose batches occupy one default slot each, got {:?}",
                self.slots
            ));
        }
        problems
    }

    /// The options that old engines do not have.
    pub(super) fn requirements(&self) -> Vec<(String, EngineVersion)> {
        let slots = (!self.slot_requests().is_empty()).then(|| ("slots".to_owned(), SLOT_TYPES));
        let batch = self.batch.as_ref().map(BatchOptions::requirement);
        self.concurrency.iter().flat_map(Concurrency::requirements).chain(slots).chain(batch).collect()
    }

    /// The slots to request. Empty for one default slot, which is the engine's default, too.
    fn slot_requests(&self) -> Vec<(String, i32)> {
        if self.slots.iter().all(|(name, count)| name == DEFAULT_SLOT && *count == 1) {
            return Vec::new();
        }
        self.slots.iter().map(|(name, count)| (name.clone(), i32::try_from(*count).unwrap_or(i32::MAX))).collect()
    }

    /// Adds them to a task that is sent.
    pub(super) fn apply(&self, task: NewTask, event_key: impl Fn(&str) -> String) -> NewTask {
        let (timeout, schedule_timeout) = self.timeouts();
        let (factor, max_delay) = self.backoff().unzip();
        NewTask {
            timeout: format_duration(timeout),
            schedule_timeout: format_duration(schedule_timeout),
            retries: i32::try_from(self.max_retries()).unwrap_or(i32::MAX),
            backoff_factor: factor,
            backoff_max_seconds: max_delay.map(|max_delay| i32::try_from(max_delay.as_secs()).unwrap_or(i32::MAX)),
            labels: self.labels.clone(),
            concurrency: self.concurrency.clone(),
            rate_limits: self.rate_limits.clone(),
            conditions: self.conditions.clone().with_event_keys(event_key),
            slots: self.slot_requests(),
            batch: self.batch.clone(),
            ..task
        }
    }
}

/// What the engine would reject about a backoff.
pub(super) fn backoff_problems((factor, max_delay): (f32, Duration)) -> Vec<String> {
    let mut problems = Vec::new();
    if !(1.0..=1000.0).contains(&factor) {
        problems.push(format!("backoff factor: expected 1 to 1000, got {factor}"));
    }
    if max_delay.subsec_nanos() != 0 || !(1..=86400).contains(&max_delay.as_secs()) {
        problems.push(format!("maximum backoff: expected 1 to 86400 whole seconds, got {max_delay:?}"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::{ConcurrencyStrategy, Context, Definition, Task};
    use super::*;

    fn task() -> Task<(), ()> {
        Task::new("work", async |(): (), _: Context| Ok(()))
    }

    fn problems(task: &Task<(), ()>) -> Vec<String> {
        Definition::from(task).problems()
    }

    #[test]
    #[cfg(feature = "archive")]
    fn a_preset_backoff_needs_retries_and_another_one_replaces_it() {
        let second = Duration::from_secs(1);
        let preset = || task().retries(3).preset_backoff(2.0, second);
        for (task, backoff) in [
            (preset(), Some((2.0, second))),
            (preset().retries(0), None),
            (preset().backoff(3.0, second), Some((3.0, second))),
        ] {
            assert_eq!(problems(&task), Vec::<String>::new());
            assert_eq!(Definition::from(&task).all_tasks().next().unwrap().options.backoff(), backoff);
        }
    }

    #[test]
    fn each_problem_names_the_option_and_the_limit() {
        let second = Duration::from_secs(1);
        let limit = || Concurrency::new("input.a", ConcurrencyStrategy::CancelNewest);
        let fine = task().retries(3).backoff(2.0, second).slots(2).slot_request("gpu", 1);
        let fine = fine.concurrency(limit().max_runs(3)).concurrency(limit()).rate_limit(RateLimit::new("a"));
        assert_eq!(problems(&fine), Vec::<String>::new());
        for (task, problem) in [
            (task().retries(u32::MAX), "retries: expected at most 2147483647, got 4294967295"),
            (task().timeout(Duration::ZERO), "timeout: expected more than 0 and at most 10 years, got 0ns"),
            (
                task().schedule_timeout(MAX_DURATION + second),
                "schedule timeout: expected more than 0 and at most 10 years, got 315360001s",
            ),
            (task().backoff(2.0, second), "backoff: expected retries together with a backoff, got 0 retries"),
            (task().retries(1).backoff(0.5, second), "backoff factor: expected 1 to 1000, got 0.5"),
            (
                task().retries(1).backoff(2.0, Duration::from_millis(1500)),
                "maximum backoff: expected 1 to 86400 whole seconds, got 1.5s",
            ),
            (task().desired_label("", 1), "invalid label: expected a non-empty key without U+0000, got \"\""),
            (task().concurrency(limit().max_runs(0)), "concurrency: expected a maximum of 1 to 2147483647 runs, got 0"),
            (
                task().rate_limit(RateLimit::new("a").units(0)),
                "rate limit \"a\": units: expected 1 to 2147483647, got 0",
            ),
            (
                task().rate_limit(RateLimit::new("a")).rate_limit(RateLimit::new("a").units(2)),
                "rate limit: expected each key once, got \"a\" twice",
            ),
            (task().slots(0), "slots: expected 1 to 2147483647 of type \"default\", got 0"),
            (
                task().slots(1).with_batches(BatchOptions::new(2)),
                "slots: expected no requests for a batch task, whose batches occupy one default slot each, got {\"default\": 1}",
            ),
            (task().with_batches(BatchOptions::new(0)), "batch: maximum size: expected 1 to 100000, got 0"),
            (task().slot_request("", 1), "slots: expected a non-empty type without U+0000, got \"\""),
        ] {
            assert_eq!(problems(&task), [format!("task \"work\": {problem}")]);
        }
    }

    #[test]
    fn one_default_slot_is_not_sent() {
        let slots = |task: Task<(), ()>| task.definition().options.slot_requests();
        assert!(slots(task()).is_empty() && slots(task().slots(1)).is_empty());
        assert_eq!(slots(task().slots(2)), [("default".to_owned(), 2)]);
        assert_eq!(slots(task().slot_request("gpu", 1)), [("gpu".to_owned(), 1)]);
        let needed = task().with_batches(BatchOptions::new(2)).definition().options.requirements();
        assert_eq!(needed, [("batches".to_owned(), EngineVersion::new(0, 88, 1))]);
        let needed = task().slots(2).definition().options.requirements();
        assert_eq!(needed, [("slots".to_owned(), SLOT_TYPES)]);
    }
}
