//! The options of a workflow as a whole. A task that is registered alone has them, too.

use super::start_options::StartOptions;
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

#[cfg(test)]
mod tests {
    use super::super::{ConcurrencyStrategy, Context, Definition, Task, Workflow};
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
