//! What the tasks of a run have produced: outputs, errors, and the data that satisfied their conditions.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::run::Run;
use super::task::{End, Task};
use super::versions::Step;

impl Run {
    /// The data that satisfied the conditions of a task, by their names.
    pub(crate) fn wait_data(&self, task: &Task) -> Map<String, Value> {
        let node = self.dag.as_ref().and_then(|dag| dag.nodes.get(usize::from(task.step)));
        node.and_then(|node| node.wait.as_ref()).map(|wait| wait.data.clone()).unwrap_or_default()
    }

    /// The outputs of completed tasks by the tasks' names: of all tasks, or of the direct parents of a step.
    pub(crate) fn outputs(&self, of: Option<&Step>) -> BTreeMap<&str, Value> {
        let wanted = |index: &u16| of.is_none_or(|step| step.on_failure || step.parents.contains(index));
        let outputs = self.steps().filter(|(index, _)| wanted(index)).filter_map(|(index, step)| {
            let value = match self.ended(index)?.output()? {
                "" => Value::Object(Map::new()),
                text => serde_json::from_str(text).ok()?,
            };
            Some((&*step.readable_id, value)).filter(|(_, value)| value.is_object())
        });
        outputs.collect()
    }

    /// The errors of failed tasks, by the tasks' names.
    pub(crate) fn errors(&self) -> BTreeMap<&str, &str> {
        let errors = self.steps().filter_map(|(index, step)| {
            let error = self.ended(index)?.ends().find_map(|end| match end {
                End::Failed(text) | End::TimedOut(text) => Some(&**text),
                _ => None,
            });
            Some((&*step.readable_id, error?))
        });
        errors.collect()
    }
}
