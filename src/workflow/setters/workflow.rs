//! The options of a workflow as a whole. A task that is registered alone has most of them, too.

use super::super::dag::Workflow;
use super::super::task::Task;
use crate::model::{Concurrency, Priority};

impl<I, O> Task<I, O> {
    /// Sets the priority of runs that are started without one.
    ///
    /// The default is [`Low`](Priority::Low). The engine ignores this option for crons and schedules.
    #[must_use]
    pub fn default_priority(self, priority: Priority) -> Self {
        self.with_options(|options| options.default_priority = Some(priority))
    }

    /// Sets the description that the dashboard shows.
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        self.with_options(|options| options.description = text.into())
    }

    /// Adds a tag to the runs, schedules and crons that are started through this task.
    ///
    /// A tag of a run, schedule or cron replaces a default tag with the same key. Default tags have no effect on runs that are started by
    /// name, by events or by [`cron`](Self::cron). The rules for tags are those of
    /// [`RunBuilder::metadata`](crate::builder::RunBuilder::metadata).
    #[must_use]
    pub fn default_metadata(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with_options(|options| options.metadata.push((key.into(), value.into())))
    }
}

impl<I, O> Workflow<I, O> {
    /// Sets the priority of runs that are started without one.
    ///
    /// The default is [`Low`](Priority::Low). The engine ignores this option for crons and schedules.
    #[must_use]
    pub fn default_priority(self, priority: Priority) -> Self {
        self.with_options(|options| options.default_priority = Some(priority))
    }

    /// Sets the description that the dashboard shows.
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        self.with_options(|options| options.description = text.into())
    }

    /// Adds a tag to the runs, schedules and crons that are started through this workflow.
    ///
    /// A tag of a run, schedule or cron replaces a default tag with the same key. Default tags have no effect on runs that are started by
    /// name, by events or by [`cron`](Self::cron). The rules for tags are those of
    /// [`RunBuilder::metadata`](crate::builder::RunBuilder::metadata).
    #[must_use]
    pub fn default_metadata(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with_options(|options| options.metadata.push((key.into(), value.into())))
    }

    /// Limits how many runs of the workflow execute at the same time; see [`Concurrency`].
    ///
    /// With several limits, a run must pass them in the order in which they were added.
    ///
    /// A run counts from the start of its first task to its end. A run that exceeds the limit waits or is cancelled, depending on the
    /// strategy. The first task of a run that was cancelled has the message "Cancelled due to concurrency strategy".
    ///
    /// If the workflow has several tasks, some engines reject a limit that is [tenant-scoped](Concurrency::tenant_scoped) or that has a
    /// [`max_runs_expression`](Concurrency::max_runs_expression) when the worker starts. This depends on the version and the settings of
    /// the engine.
    ///
    /// ```
    /// use hatchet::workflow::{Concurrency, ConcurrencyStrategy};
    /// use hatchet::{Context, Task, Workflow};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Deploy { service: String }
    ///
    /// // A new deployment of a service cancels the one before it.
    /// let build = Task::new("build", async |_: Deploy, _: Context| Ok(()));
    /// let newest = Concurrency::new("input.service", ConcurrencyStrategy::CancelInProgress);
    /// let deploy = Workflow::<Deploy>::new("deploy").task(&build).concurrency(newest);
    /// ```
    #[must_use]
    pub fn concurrency(self, limit: Concurrency) -> Self {
        self.with_options(|options| options.concurrency.push(limit))
    }
}
