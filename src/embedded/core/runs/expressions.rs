//! Expressions of tasks: evaluated when a task is created, on the input and the metadata of its run.

use serde_json::Value;

use crate::embedded::core::expression::{Expression, Names, StepValue, object};
use crate::embedded::core::store::{Core, TaskKey};

/// What the expressions of a task are evaluated on.
pub(crate) struct Scope {
    input: Value,
    metadata: Value,
    task: Value,
}

impl Scope {
    pub(crate) fn of(core: &Core, key: TaskKey) -> Option<Self> {
        let (run, task) = core.runs.task(key)?;
        let parse = |text| object(&serde_json::from_str(text).unwrap_or_default());
        Some(Self { input: parse(run.last_input()), metadata: parse(&run.metadata), task: task.id.to_string().into() })
    }

    /// The value of an expression, if it is a string. `what` names it in the error.
    pub(crate) fn text(&self, text: &str, parsed: Option<&Expression>, what: &str) -> Result<String, String> {
        match self.value(text, parsed)? {
            StepValue::Text(value) => Ok(value),
            StepValue::Number(_) => Err(failed(text, &format!("expected string output for {what}, got int"))),
        }
    }

    fn value(&self, text: &str, parsed: Option<&Expression>) -> Result<StepValue, String> {
        // A definition with an invalid expression is refused, so this is not reached.
        let Some(expression) = parsed else { return Err(failed(text, "it is not valid CEL")) };
        let names = [("input", &self.input), ("additional_metadata", &self.metadata), ("workflow_run_id", &self.task)];
        expression.step_value(&Names(&names)).map_err(|problem| failed(text, &problem))
    }
}

/// The error of a task whose expression cannot be evaluated.
pub(crate) fn failed(text: &str, problem: &str) -> String {
    format!("failed to parse step expression ({text}): {problem}")
}
