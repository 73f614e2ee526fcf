//! What the tasks of a run have produced: outputs, errors, and the data that satisfied their conditions.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::run::Run;
use super::task::{End, Task};
use super::versions::Step;

impl Run {
    /// The data that satisfied the conditions of a task, by their names.
    pub(crate) fn wait_data(&self, task: &Task) -> Map<String, Value> {
        let place = self.dag.as_ref().and_then(|dag| dag.places.get(usize::from(task.step)));
        place.and_then(|place| place.wait.as_ref()).map(|wait| wait.data.clone()).unwrap_or_default()
    }

    /// The outputs of completed tasks by the tasks' names: of all tasks, or of the direct parents of a step.
    pub(crate) fn outputs(&self, of: Option<&Step>) -> BTreeMap<&str, Value> {
        let wanted = |place: &u16| of.is_none_or(|step| step.on_failure || step.parents.contains(place));
        let outputs = self.places().filter(|(place, _)| wanted(place)).filter_map(|(place, step)| {
            let value = match self.ended(place)?.output()? {
                "" => Value::Object(Map::new()),
                text => serde_json::from_str(text).ok()?,
            };
            Some((&*step.readable_id, value)).filter(|(_, value)| value.is_object())
        });
        outputs.collect()
    }

    /// The errors of failed tasks, by the tasks' names.
    pub(crate) fn errors(&self) -> BTreeMap<&str, &str> {
        let errors = self.places().filter_map(|(place, step)| {
            let error = self.ended(place)?.ends().find_map(|end| match end {
                End::Failed(text) | End::TimedOut(text) => Some(&**text),
                _ => None,
            });
            Some((&*step.readable_id, error?))
        });
        errors.collect()
    }
}
