//! Starting the runs that the engine has stored for later.

use std::time::Duration;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::embedded::core::runs::start;
use crate::embedded::core::store::{Core, RunOptions, Trigger, Turn};

/// The time until the engine next checks for what is due.
pub(crate) const NEXT_CHECK: Duration = Duration::from_millis(2500);

/// Starts a run with an input from the database. Its priority does not default to that of its workflow.
pub(crate) fn start_stored(
    core: &mut Core,
    turn: &mut Turn<'_>,
    workflow: String,
    input: Value,
    metadata: Map<String, Value>,
    priority: Option<i32>,
) -> Option<Uuid> {
    let options = Some(Box::new(RunOptions { from_database: true, ..RunOptions::default() }));
    let trigger = Trigger { workflow, input, metadata, priority: priority.or(Some(1)), parent: None, options };
    start::start(core, turn, vec![trigger]).ok()?.first().copied()
}

/// Metadata that is empty if it is not an object.
pub(crate) fn object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}
