//! The options of a workflow as a whole. A task that is registered alone has them, too.

use super::dag::Workflow;
use super::start_options::StartOptions;
use super::task::Task;
use crate::model::engine_version::EngineVersion;
use crate::model::metadata::Metadata;
use crate::model::{Concurrency, Priority};

/// The options of a workflow as a whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct WorkflowOptions {
    pub(super) description: String,
    pub(super) default_priority: Option<Priority>,
    pub(super) start: StartOptions,
    /// Empty for a task: its limits are its own.
    pub(super) concurrency: Vec<Concurrency>,
    /// The tags of the runs that are started through the definition.
    pub(super) metadata: Vec<(String, String)>,
    /// A JSON schema, as JSON text.
    pub(super) input_schema: Option<String>,
}

impl WorkflowOptions {
    /// The names of the options that are set.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let own = [
            ("the description", !self.description.is_empty()),
            ("the default priority", self.default_priority.is_some()),
            ("the default metadata", !self.metadata.is_empty()),
            ("the input schema", self.input_schema.is_some()),
        ];
        own.into_iter().filter_map(|(name, is_set)| is_set.then_some(name)).chain(self.start.names()).collect()
    }

    /// What the engine would reject, or answer with an internal error.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = self.start.problems();
        problems.extend(self.concurrency.iter().flat_map(Concurrency::problems));
        let metadata = Metadata::of(&self.metadata);
        let problem = metadata.check().and_then(|()| metadata.encode().map(drop)).err();
        problems.extend(problem.map(|error| format!("default metadata: {error}")));
        problems
    }

    /// The options that old engines do not have.
    pub(super) fn requirements(&self) -> Vec<(String, EngineVersion)> {
        self.concurrency.iter().flat_map(Concurrency::requirements).collect()
    }
}

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

#[cfg(test)]
mod tests {
    use super::super::{ConcurrencyStrategy, Context, Definition};
    use super::*;

    #[test]
    fn invalid_tags_and_limits_are_rejected() {
        let task: Task<(), ()> = Task::new("work", async |(): (), _: Context| Ok(()));
        assert_eq!(
            Definition::from(&task.clone().default_metadata("a:b", "x")).problems(),
            ["workflow \"work\": default metadata: invalid metadata: expected a key without a colon, got \"a:b\""]
        );
        let flow = Workflow::<()>::new("flow").task(&task);
        let limit = Concurrency::new("'a'", ConcurrencyStrategy::CancelNewest).max_runs(0);
        assert_eq!(
            Definition::from(&flow.concurrency(limit)).problems(),
            ["workflow \"flow\": concurrency: expected a maximum of 1 to 2147483647 runs, got 0"]
        );
    }
}
