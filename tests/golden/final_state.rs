//! Compares the final state of a run in REST.

use serde_json::{Value, json};

use super::compare::{Compare, Extra};
use super::parallel::sorted;
use super::recording::FIRST_RUN;
use super::setup::Setup;
use super::wire::query;

/// Compares all recorded REST responses.
pub(crate) async fn check(setup: &Setup, recording: &Value, compare: &mut Compare) {
    let extra =
        if recording["rest"].get("list_row_with_payloads").is_some() && recording["rest"].get("list_query").is_some() {
            // This recording is not trimmed.
            Extra::Forbidden
        } else {
            Extra::Allowed
        };
    let id = compare.name(FIRST_RUN);
    rest(setup, "rest", &id, &recording["rest"], extra, compare).await;
    for other in recording["others"].as_array().into_iter().flatten() {
        let id = compare.name(other["id"].as_str().unwrap());
        rest(setup, "others", &id, &other["rest"], Extra::Allowed, compare).await;
    }
    for child in recording["children"].as_array().into_iter().flatten() {
        let id = compare.name(child["id"].as_str().unwrap());
        rest(setup, "child", &id, &child["rest"], Extra::Allowed, compare).await;
    }
    if let Some(mut list) = recording.get("list_by_parent").cloned() {
        list["what"] = "list by parent".into();
        check_list(setup, &list, compare).await;
    }
    for (name, task) in recording["rest"]["tasks"].as_object().into_iter().flatten() {
        let run = setup.wire.get(&format!("/api/v1/stable/workflow-runs/{}", compare.name(FIRST_RUN))).await;
        let shape = run["shape"].as_array().unwrap();
        let step = shape.iter().find(|step| step["taskName"] == *name).unwrap();
        let id = step["taskExternalId"].as_str().unwrap().to_owned();
        single(setup, &format!("task {name}"), &id, task, extra, compare).await;
    }
    for list in recording["lists"].as_array().into_iter().flatten() {
        check_list(setup, list, compare).await;
    }
    for (name, body) in recording["logs"].as_object().into_iter().flatten() {
        let parameters = if name == "all" { "" } else { name };
        let ours = setup.wire.get(&format!("/api/v1/stable/tasks/{id}/logs?{parameters}")).await;
        compare.check(&format!("logs {name:?}"), Extra::Forbidden, body, &ours);
    }
}

async fn rest(setup: &Setup, path: &str, id: &str, recorded: &Value, extra: Extra, compare: &mut Compare) {
    let runs = format!("/api/v1/stable/workflow-runs/{id}");
    if let Some(recorded) = recorded.get("run") {
        let (mut recorded, mut ours) = (sorted(recorded), sorted(&setup.wire.get(&runs).await));
        if recorded.get("taskEvents").is_some_and(|events| *events != json!([])) {
            // The events of all tasks are in two responses.
            let rows = |run: &mut Value| json!({"rows": run.as_object_mut().unwrap().remove("taskEvents").unwrap()});
            let (events, our_events) = (rows(&mut recorded), rows(&mut ours));
            compare.check(&format!("{path}.run"), extra, &recorded, &ours);
            compare.check_events(&format!("{path}.taskEvents"), Extra::Allowed, &events, &our_events);
            let again = setup.wire.get(&format!("{runs}/task-events")).await;
            assert_eq!(our_events["rows"], again["rows"], "{path}.run_task_events");
        } else {
            compare.check(&format!("{path}.run"), extra, &recorded, &ours);
        }
    }
    let targets = [
        ("run_status", format!("{runs}/status")),
        ("run_task_events", format!("{runs}/task-events?limit=1000")),
        ("task_timings", format!("{runs}/task-timings")),
    ];
    for (key, target) in targets {
        if let Some(recorded) = recorded.get(key).filter(|recorded| recorded.get("same_rows_as").is_none()) {
            let ours = setup.wire.get(&target).await;
            compare.check(&format!("{path}.{key}"), extra, recorded, &ours);
        }
    }
    single(setup, path, id, recorded, extra, compare).await;
    for (key, parameters) in [
        ("list_row", "only_tasks=false"),
        ("list_row_with_payloads", "only_tasks=false&include_payloads=true"),
        ("list_rows_only_tasks", "only_tasks=true"),
    ] {
        if let Some(recorded) = recorded.get(key) {
            let rows = list(setup, compare, &format!("{parameters}&limit=20&offset=0")).await;
            let expected_id = recorded
                .pointer("/0/metadata/id")
                .and_then(Value::as_str)
                .map_or_else(|| id.to_owned(), |id| compare.name(id));
            let row =
                rows["rows"].as_array().unwrap().iter().find(|row| row["metadata"]["id"] == *expected_id).cloned();
            let ours = row.unwrap_or_else(|| panic!("{path}.{key}: expected a row, got {rows}"));
            let ours = if recorded.is_array() { json!([ours]) } else { sorted(&ours) };
            compare.check(&format!("{path}.{key}"), extra, &sorted(recorded), &ours);
        }
    }
}

/// Compares the responses about one task.
async fn single(setup: &Setup, path: &str, id: &str, recorded: &Value, extra: Extra, compare: &mut Compare) {
    let target = format!("/api/v1/stable/tasks/{id}");
    if let Some(recorded) = recorded.get("task") {
        let ours = setup.wire.get(&target).await;
        compare.check(&format!("{path}.task"), extra, recorded, &ours);
    }
    if let Some(recorded) = recorded.get("task_events") {
        let ours = setup.wire.get(&format!("{target}/task-events?limit=1000")).await;
        compare.check_events(&format!("{path}.task_events"), Extra::Allowed, recorded, &ours);
    }
}

async fn list(setup: &Setup, compare: &Compare, parameters: &str) -> Value {
    let since = (compare.ours - chrono::TimeDelta::seconds(6)).to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    setup.wire.get(&format!("/api/v1/stable/tenants/{}/workflow-runs?since={since}&{parameters}", setup.tenant)).await
}

/// Compares a page of a list: all fields, or only the ids and their order.
pub(crate) async fn check_list(setup: &Setup, list: &Value, compare: &mut Compare) {
    let what = list["what"].as_str().unwrap();
    let parameters = query(&compare.translate(&list["query"], chrono::TimeDelta::zero()));
    let body = setup.wire.get(&format!("/api/v1/stable/tenants/{}/workflow-runs?{parameters}", setup.tenant)).await;
    let column = |pointer: &str| {
        body["rows"].as_array().unwrap().iter().map(|row| row.pointer(pointer).unwrap().clone()).collect::<Value>()
    };
    if let Some(recorded) = list.get("body") {
        compare.check(what, Extra::Allowed, recorded, &body);
        return;
    }
    compare.check(what, Extra::Forbidden, &list["pagination"], &body["pagination"]);
    let ids = column("/metadata/id");
    if list["query"]["only_tasks"] == "true" {
        // The order of tasks is random.
        let (theirs, ours) = (list["ids_in_order"].as_array().unwrap().len(), ids.as_array().unwrap().len());
        if theirs != ours {
            compare.differ(what, format!("recorded {theirs} rows, got {ours}"));
        }
        return;
    }
    compare.check(what, Extra::Forbidden, &list["ids_in_order"], &ids);
    if let Some(recorded) = list.get("created_at_in_order") {
        compare.check(what, Extra::Forbidden, recorded, &column("/createdAt"));
    }
}
