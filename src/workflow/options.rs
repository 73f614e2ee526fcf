//! The options of a task.

use std::collections::BTreeMap;
use std::time::Duration;

use super::task::Task;
use crate::model::batch::BatchOptions;
use crate::model::engine_version::EngineVersion;
use crate::model::label::check_key;
use crate::model::{Concurrency, Conditions, DesiredLabel, DesiredLabels, RateLimit};
use crate::rpc::convert::NewTask;
use crate::time::{MAX_DURATION, format_duration};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_SCHEDULE_TIMEOUT: Duration = Duration::from_secs(300);

/// The type of the slots that a worker has without further options.
const DEFAULT_SLOT: &str = "default";
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

impl<I, O> Task<I, O> {
    fn with_task_options(self, change: impl FnOnce(&mut TaskOptions)) -> Self {
        self.with(|definition| change(&mut definition.options))
    }

    pub(super) fn with_batches(self, batch: BatchOptions) -> Self {
        self.with_task_options(|options| options.batch = Some(batch))
    }

    /// Sets how many times the task is retried after a failure or a timeout. The default is 0.
    #[must_use]
    pub fn retries(self, retries: u32) -> Self {
        self.with_task_options(|options| options.retries = Some(retries))
    }

    /// Sets the execution timeout of one attempt, from its assignment to a worker.
    ///
    /// The default is 60 seconds, as in the other SDKs. The timeout must be greater than 0 and at most 10 years.
    ///
    /// The engine checks timeouts about once per second, so an attempt may run up to a second longer. After a timeout, the attempt is
    /// cancelled, and dropped when the worker's [`cancel_grace_period`](crate::worker::WorkerBuilder::cancel_grace_period) is over. A retry
    /// starts when the function of this attempt has ended. The timeout of the retry already runs in the meantime, so code that reacts to
    /// [`Context::cancelled`](crate::Context::cancelled) leaves the retry more time.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// use std::time::Duration;
    ///
    /// let fetch: Task<(), ()> =
    ///     Task::new("fetch", async |(): (), _: Context| Ok(())).timeout(Duration::from_secs(30));
    /// ```
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with_task_options(|options| options.timeout = Some(timeout))
    }

    /// Sets how long each attempt may wait for a worker and for units of [rate limits](Self::rate_limit).
    ///
    /// The default is 5 minutes. The timeout must be greater than 0 and at most 10 years.
    ///
    /// The time that a task waits for its parents or for [conditions](Self::wait_for) does not count. A task that waits for a
    /// [concurrency limit](Self::concurrency) times out only when another run ends, even if its timeout passes before that. A task that
    /// waits for a [rate limit](Self::rate_limit) times out only when the limit is refilled, if that is more than two seconds away.
    #[must_use]
    pub fn schedule_timeout(self, timeout: Duration) -> Self {
        self.with_task_options(|options| options.schedule_timeout = Some(timeout))
    }

    /// Sets the exponential backoff: the engine waits `factor` seconds before the first retry, and `factor` times as long before each
    /// further retry, up to `max_delay`.
    ///
    /// By default, the engine retries immediately. The factor must be from 1 to 1000, and `max_delay` must be from 1 second to 1 day, in
    /// whole seconds. The task must have [retries](Self::retries).
    ///
    /// The engine checks an idle queue of delayed retries only from time to time, so a retry may start up to 40 seconds late.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// use std::time::Duration;
    ///
    /// let fetch: Task<(), ()> = Task::new("fetch", async |(): (), _: Context| Ok(()))
    ///     .retries(5)
    ///     .backoff(2.0, Duration::from_secs(60));
    /// ```
    #[must_use]
    pub fn backoff(self, factor: f32, max_delay: Duration) -> Self {
        self.with_task_options(|options| options.backoff = Some((factor, max_delay)))
    }

    /// Sets the backoff that applies until the user sets another one, or no retries.
    #[cfg(feature = "archive")]
    pub(crate) fn preset_backoff(self, factor: f32, max_delay: Duration) -> Self {
        self.with_task_options(|options| options.preset_backoff = Some((factor, max_delay)))
    }

    /// Requests workers with a label; see [`DesiredLabel`]. A run can request another value.
    #[must_use]
    pub fn desired_label(self, key: impl Into<String>, label: impl Into<DesiredLabel>) -> Self {
        self.with_task_options(|options| {
            options.labels.insert(key.into(), label.into());
        })
    }

    /// Sets how many of a worker's [slots](crate::worker::WorkerBuilder::slots) an attempt occupies, at least 1.
    ///
    /// The default is 1. [`WorkerBuilder::build`](crate::worker::WorkerBuilder::build) rejects a task that requests more slots of a type
    /// than the worker has. A worker without slots of that type never gets the task, and runs only the other tasks of the workflow.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// // At most 5 of them at a time on a worker with 20 slots.
    /// let transcode: Task<(), ()> = Task::new("transcode", async |(): (), _: Context| Ok(())).slots(4);
    /// ```
    #[must_use]
    pub fn slots(self, slots: u32) -> Self {
        self.slot_request(DEFAULT_SLOT, slots)
    }

    /// Sets how many slots of a type an attempt occupies, at least 1.
    ///
    /// An attempt is assigned only to a worker that has enough free slots of each requested type. A task that requests only types other
    /// than `default` occupies no default slot. On engines up to v0.104.7, such a task also occupies one default slot.
    #[must_use]
    pub fn slot_request(self, name: impl Into<String>, slots: u32) -> Self {
        self.with_task_options(|options| {
            options.slots.insert(name.into(), slots);
        })
    }

    /// Limits how many attempts of the task run at the same time; see [`Concurrency`].
    ///
    /// With several limits, a run must pass them in the order in which they were added.
    #[must_use]
    pub fn concurrency(self, limit: Concurrency) -> Self {
        self.with_task_options(|options| options.concurrency.push(limit))
    }

    /// Consumes units of a rate limit in each attempt; see [`RateLimit`].
    ///
    /// With several limits, an attempt waits until it can consume the units of all of them.
    #[must_use]
    pub fn rate_limit(self, limit: RateLimit) -> Self {
        self.with_task_options(|options| options.rate_limits.push(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ConcurrencyStrategy, Context, Definition};
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
