//! Parents and children in each API view. With all quirks.

use std::time::Duration;

use hatchet::embedded::Quirks;
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::Code;

use super::setup::{ALL_TIME, Setup, merged, registration, registration_for};
use super::wire::Received;

const NAME: &str = "fx";

/// Creates a running run, and a worker with free slots for its children.
async fn parent() -> (Setup, Received, String) {
    let setup = Setup::with_workflow(Quirks::all(), NAME, &json!({})).await;
    let (_, received) = setup.worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    let parent = setup.trigger(NAME, &json!({})).await.unwrap();
    (setup, received, parent)
}

impl Setup {
    async fn child(&self, name: &str, parent: &str, index: i32) -> String {
        let link = json!({"parent_task_run_external_id": parent, "child_index": index});
        let child = self.trigger(name, &link).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        child
    }

    /// The task timings: the id of each task, its depth and its parent.
    async fn timings(&self, run: &str, depth: &str) -> Vec<(String, u64, Option<String>)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let rows = self.rows(&format!("stable/workflow-runs/{run}/task-timings{depth}")).await;
        let row = |row: &Value| {
            let parent = row.get("parentTaskExternalId").map(text);
            (text(&row["taskExternalId"]), row["depth"].as_u64().unwrap(), parent)
        };
        rows.iter().map(row).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_task_of_a_single_task_child_names_the_parent() {
    let (setup, _heard, parent) = parent().await;
    let child = setup.child(NAME, &parent, 0).await;
    let shown = setup.shown(&format!("workflow-runs/{child}")).await;
    assert_eq!(shown["run"].get("parentTaskExternalId"), None);
    let alone = setup.shown(&format!("tasks/{child}")).await;
    let listed = setup.listed(&format!("{ALL_TIME}&parent_task_external_id={parent}")).await;
    assert_eq!(listed.len(), 1);
    for row in [&shown["tasks"][0], &alone, &listed[0]] {
        assert_eq!(row["parentTaskExternalId"], json!(parent), "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_tasks_of_a_dag_child_name_the_parent() {
    let (setup, _heard, parent) = parent().await;
    let task = |name: &str| json!({"readable_id": name, "action": format!("wide:{name}"), "timeout": "60s"});
    setup.put(&json!({"name": "wide", "tasks": [task("one"), task("two")]})).await;
    let child = setup.child("wide", &parent, 0).await;
    let shown = setup.shown(&format!("workflow-runs/{child}")).await;
    let tasks = shown["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 2);
    for row in tasks.iter().chain([&shown["run"]]) {
        assert_eq!(row["parentTaskExternalId"], json!(parent), "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_task_details_count_the_children() {
    let task = |name: &str, parents: &[&str]| json!({"readable_id": name, "action": format!("dag:{name}"), "timeout": "60s", "parents": parents});
    let dag = json!({"name": "dag", "tasks": [task("a", &[]), task("b", &["a"])]});
    let (setup, _heard, single) = parent().await;
    setup.put(&dag).await;
    let (_, received) = setup.worker(&registration_for("dag", &[dag])).await;
    sleep(Duration::from_secs(1)).await;
    let run = setup.trigger("dag", &json!({})).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let a = received.messages()[0].1["task_run_external_id"].as_str().unwrap().to_owned();
    for (run, task) in [(&single, &single), (&run, &a)] {
        let children = [setup.child(NAME, task, 0).await, setup.child(NAME, task, 1).await];
        assert_eq!(setup.shown(&format!("tasks/{task}")).await["numSpawnedChildren"], 2);
        let shown = setup.shown(&format!("workflow-runs/{run}")).await;
        assert_eq!(shown["tasks"][0]["numSpawnedChildren"], 0);
        assert!(children.iter().all(|child| !shown.to_string().contains(child)), "{shown}");
        for tasks in [true, false] {
            let rows = setup.rows(&format!("stable/tenants/{{t}}/workflow-runs?{ALL_TIME}&only_tasks={tasks}")).await;
            let own: Vec<_> = rows.iter().filter(|row| row["workflowRunExternalId"] == **run).collect();
            assert!(!own.is_empty() && own.iter().all(|row| row["numSpawnedChildren"] == 0), "{own:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn timings_have_the_requested_depth_and_the_parents() {
    let (setup, _heard, parent) = parent().await;
    let child = setup.child(NAME, &parent, 0).await;
    let grandchild = setup.child(NAME, &child, 0).await;
    let rows = [
        (parent.clone(), 0, None),
        (child.clone(), 1, Some(parent.clone())),
        (grandchild.clone(), 2, Some(child.clone())),
    ];
    assert_eq!(setup.timings(&parent, "").await, rows[..1]);
    for depth in 0..=10 {
        assert_eq!(setup.timings(&parent, &format!("?depth={depth}")).await, rows[..=depth.min(2)], "{depth}");
    }
    // The first row also names its parent.
    assert_eq!(setup.timings(&child, "?depth=0").await, [(child.clone(), 0, Some(parent))]);
    let both = [(child.clone(), 0, rows[1].2.clone()), (grandchild, 1, Some(child.clone()))];
    assert_eq!(setup.timings(&child, "?depth=1").await, both);
}

#[tokio::test(start_paused = true)]
async fn lists_reject_invalid_parent_ids() {
    let (setup, _heard, _) = parent().await;
    let list = format!("stable/tenants/{{t}}/workflow-runs?{ALL_TIME}&only_tasks=false&parent_task_external_id=zz");
    let (status, body) = setup.send(Method::GET, &list, None).await;
    assert_eq!(status, 400, "{body}");
    let text = body["message"].as_str().unwrap();
    assert!(text.starts_with("Invalid format for parameter parent_task_external_id: "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn parent_run_ids_do_not_make_children() {
    let (setup, received, parent) = parent().await;
    let alone = setup.trigger(NAME, &json!({"parent_id": parent, "child_index": 5})).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let action = |run: &str| {
        let all = received.messages();
        all.into_iter().find(|(_, action)| action["workflow_run_id"] == run).unwrap().1
    };
    for field in ["parent_workflow_run_id", "child_workflow_index", "child_workflow_key"] {
        assert_eq!(action(&alone).get(field), None, "{field}");
    }
    let metadata = |run: &str| {
        let text = action(run)["additional_metadata"].as_str().unwrap().to_owned();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let (own, parents) = (metadata(&alone), metadata(&parent));
    assert_eq!(own.as_object().unwrap().keys().collect::<Vec<_>>(), ["traceparent"]);
    assert_ne!(own["traceparent"], parents["traceparent"]);
    let shown = setup.shown(&format!("tasks/{alone}")).await;
    assert_eq!(shown.get("parentTaskExternalId"), None);
}

#[tokio::test(start_paused = true)]
async fn known_children_are_not_restarted_beside_unknown_workflows() {
    let (setup, received, parent) = parent().await;
    let child = setup.child(NAME, &parent, 0).await;
    setup.end(&child, "COMPLETED", "{}").await;
    let assigned = received.messages().len();
    let link = json!({"name": NAME, "input": "{}", "parent_task_run_external_id": parent, "child_index": 0});
    let other = merged(&link, &json!({"name": "no-such", "child_index": 1}));
    let ids = setup.bulk(vec![link, other]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!((ids.len(), &ids[0], received.messages().len()), (2, &json!(child), assigned));
    let missing = setup.details(ids[1].as_str().unwrap()).await.unwrap_err();
    assert_eq!((missing.code(), missing.message()), (Code::NotFound, "workflow run not found"));
}
