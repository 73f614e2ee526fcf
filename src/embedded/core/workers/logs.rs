//! Log lines of tasks.

use serde_json::Value;
use uuid::Uuid;

use crate::embedded::core::format::json::{go_problem, go_type, jsonb_text};
use crate::embedded::core::format::validation::Problems;
use crate::embedded::core::store::{Core, LogLine, StatusError, Turn, stored};

const LEVELS: [&str; 4] = ["INFO", "ERROR", "WARN", "DEBUG"];
const MAX_MESSAGE_CHARS: usize = 10_000;

/// Adds a line to a task's log. The sender's own timestamp is ignored.
pub(crate) fn put_log(
    core: &mut Core,
    turn: &Turn<'_>,
    task: Uuid,
    message: &str,
    level: Option<&str>,
    metadata: &str,
    retry_count: Option<i32>,
) -> Result<(), StatusError> {
    let key = core.known_task(task)?;
    let metadata = match metadata {
        "" => Value::Object(serde_json::Map::new()),
        text => match serde_json::from_str(text) {
            Ok(value @ (Value::Object(_) | Value::Null)) => value,
            Ok(other) => {
                let kind = go_type(&other);
                let text = format!(
                    "Invalid metadata JSON: json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
                );
                return Err(StatusError::invalid(text));
            }
            Err(error) => {
                return Err(StatusError::invalid(format!("Invalid metadata JSON: {}", go_problem(text, &error))));
            }
        },
    };
    let mut problems = Problems::default();
    if message.is_empty() {
        problems.add("Message", "on condition 'required'");
    } else if message.chars().count() > MAX_MESSAGE_CHARS {
        problems.add("Message", &format!("on condition 'max' [ {MAX_MESSAGE_CHARS} ]: got '{message}'"));
    }
    let known = level.map_or(Some("INFO"), |level| LEVELS.into_iter().find(|known| *known == level));
    if known.is_none() {
        problems.add(
            "Level",
            &format!("on condition 'oneof' [ INFO ERROR WARN DEBUG ]: got '{}'", level.unwrap_or_default()),
        );
    }
    problems.into_request_result("CreateLogLineOpts")?;
    if message.contains('\0') {
        // The database rejects it.
        return Err(StatusError::internal());
    }
    let Some(task) = core.runs.task_mut(key) else { return Ok(()) };
    task.logs.push(LogLine {
        at: stored(turn.now),
        level: known.unwrap_or("INFO"),
        message: message.into(),
        metadata: jsonb_text(&metadata).into(),
        retry_count: retry_count.unwrap_or(task.retry_count),
    });
    Ok(())
}
