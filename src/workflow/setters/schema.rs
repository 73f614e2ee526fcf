//! The JSON schema of the input.

use schemars::JsonSchema;

use super::super::dag::Workflow;
use super::super::task::Task;

impl<I: JsonSchema, O> Task<I, O> {
    /// Stores the JSON schema of the input type with the definition, for the dashboard and for other programs.
    ///
    /// The engine does not check inputs against it. Available with the `schemars` feature.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    /// use schemars::JsonSchema;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize, JsonSchema)]
    /// struct Greeting { name: String }
    ///
    /// let greet = Task::new("greet", async |input: Greeting, _: Context| Ok(input.name)).input_schema();
    /// ```
    #[must_use]
    pub fn input_schema(self) -> Self {
        self.with_options(|options| options.input_schema = Some(schema::<I>()))
    }
}

impl<I: JsonSchema, O> Workflow<I, O> {
    /// Stores the JSON schema of the input type with the definition, for the dashboard and for other programs.
    ///
    /// The engine does not check inputs against it. Available with the `schemars` feature.
    #[must_use]
    pub fn input_schema(self) -> Self {
        self.with_options(|options| options.input_schema = Some(schema::<I>()))
    }
}

fn schema<T: JsonSchema>() -> String {
    schemars::schema_for!(T).as_value().to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::super::super::Context;
    use super::*;

    #[test]
    fn the_schema_is_that_of_the_input() {
        type Input = BTreeMap<String, u32>;
        let task: Task<Input, ()> = Task::new("work", async |_: Input, _: Context| Ok(()));
        let task = task.input_schema();
        let text = task.options().input_schema.as_deref().unwrap();
        let schema: Value = serde_json::from_str(text).unwrap();
        assert_eq!((&schema["type"], &schema["additionalProperties"]["type"]), (&"object".into(), &"integer".into()));
        assert_eq!(task.options().names(), ["the input schema"]);
    }
}
