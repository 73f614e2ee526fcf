//! What a worker receives with an assignment.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::embedded::core::format::json::{go_text, jsonb_text};
use crate::embedded::core::store::{Action, Core, Run, Task, TaskKey};

/// The assignment of the current attempt of a task, or its cancellation.
pub(crate) fn action(core: &Core, key: TaskKey, cancel: bool) -> Option<Action> {
    let (run, task) = core.runs.task(key)?;
    let step = run.step(task)?;
    Some(Action {
        cancel,
        run: run.id,
        task: task.id,
        step: step.id,
        readable_id: Arc::clone(&step.readable_id),
        name: Arc::clone(&step.action),
        payload: if cancel { String::new() } else { text(run, task) },
        retry_count: task.retry_count,
        metadata: run.metadata.to_string(),
        priority: run.priority.into(),
        workflow: run.version.workflow,
        version: run.version.id,
        parent: run.parent().cloned(),
        event: run.options.as_ref().and_then(|options| options.event.clone()),
    })
}

/// The payload of the current attempt of a task.
///
/// The first attempt gets JSON text in Go's style. Later attempts, on-failure tasks and runs that were started from the database
/// get it in the database's style.
pub(crate) fn text(run: &Run, task: &Task) -> String {
    let on_failure = run.step(task).is_some_and(|step| step.on_failure);
    let parents = if run.dag.is_some() {
        go_text(&run.outputs(None).into_iter().map(|(name, output)| (name.to_owned(), output)).collect())
    } else {
        "{}".into()
    };
    let mut triggers = run.wait_data(task);
    triggers.insert("filter_payload".into(), filter_payload(run));
    let triggers = go_text(&Value::Object(triggers));
    let errors = if on_failure {
        format!(r#","step_run_errors":{}"#, serde_json::to_string(&run.errors()).unwrap_or_default())
    } else {
        String::new()
    };
    let text = format!(
        r#"{{"input":{},"triggered_by":"manual","parents":{parents},"triggers":{triggers},"user_data":null,"overrides":null{errors}}}"#,
        run.last_input()
    );
    let from_database = run.options.as_ref().is_some_and(|options| options.from_database);
    match serde_json::from_str(&text) {
        Ok(value) if on_failure || task.retry_count > 0 || from_database => jsonb_text(&value),
        _ => text,
    }
}

/// The payload as the engine stored it when it created the task: it has the outputs of direct parents only.
pub(crate) fn stored(run: &Run, task: &Task) -> Value {
    let step = run.step(task);
    let parents = if run.dag.is_some() { run.outputs(step) } else { BTreeMap::new() };
    let input: Value = serde_json::from_str(run.last_input()).unwrap_or_default();
    let mut triggers = run.wait_data(task);
    triggers.insert("filter_payload".into(), filter_payload(run));
    let mut payload = json!({
        "input": input, "overrides": null, "parents": parents, "triggered_by": "manual",
        "triggers": triggers, "user_data": null,
    });
    if let (Some(payload), true) = (payload.as_object_mut(), step.is_some_and(|step| step.on_failure)) {
        payload.insert("step_run_errors".into(), json!(run.errors()));
    }
    payload
}

/// The payload of the filter that the run's event passed.
fn filter_payload(run: &Run) -> Value {
    run.options.as_ref().and_then(|options| options.filter_payload.clone()).unwrap_or_default()
}
