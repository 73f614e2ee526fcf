//! The options of a task.

use std::time::Duration;

use super::super::task::Task;
use super::super::task_options::{DEFAULT_SLOT, TaskOptions};
use crate::model::{Concurrency, DesiredLabel, RateLimit};

impl<I, O> Task<I, O> {
    fn with_task_options(self, change: impl FnOnce(&mut TaskOptions)) -> Self {
        self.with(|definition| change(&mut definition.options))
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
    /// than `default` occupies no default slot. In engine v0.104.7 and earlier, such a task also occupies one default slot.
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
