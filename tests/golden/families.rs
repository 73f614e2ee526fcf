//! Parents and their children, as each surface shows them. All quirks are on.

use std::time::Duration;

use hatchet::embedded::Quirks;
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::Code;

use super::stage::{EVER, Stage, merged, registration, registration_for};
use super::wire::Heard;

const NAME: &str = "fx";

/// A run that goes on, and a worker with room for its children.
async fn parent() -> (Stage, Heard, String) {
    let stage = Stage::with(Quirks::all(), NAME, &json!({})).await;
    let (_, heard) = stage.worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    let parent = stage.trigger(NAME, &json!({})).await.unwrap();
    (stage, heard, parent)
}

impl Stage {
    async fn child(&self, name: &str, parent: &str, index: i32) -> String {
        let link = json!({"parent_task_run_external_id": parent, "child_index": index});
        let child = self.trigger(name, &link).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        child
    }

    /// When tasks began and ended: of each its id, its depth and its parent.
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
async fn the_run_of_a_child_of_one_task_does_not_name_its_parent_and_its_task_does() {
    let (stage, _heard, parent) = parent().await;
    let child = stage.child(NAME, &parent, 0).await;
    let shown = stage.shown(&format!("workflow-runs/{child}")).await;
    assert_eq!(shown["run"].get("parentTaskExternalId"), None);
    let alone = stage.shown(&format!("tasks/{child}")).await;
    let listed = stage.listed(&format!("{EVER}&parent_task_external_id={parent}")).await;
    assert_eq!(listed.len(), 1);
    for row in [&shown["tasks"][0], &alone, &listed[0]] {
        assert_eq!(row["parentTaskExternalId"], json!(parent), "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_task_of_a_child_of_several_names_its_parent() {
    let (stage, _heard, parent) = parent().await;
    let task = |name: &str| json!({"readable_id": name, "action": format!("wide:{name}"), "timeout": "60s"});
    stage.put(&json!({"name": "wide", "tasks": [task("one"), task("two")]})).await;
    let child = stage.child("wide", &parent, 0).await;
    let shown = stage.shown(&format!("workflow-runs/{child}")).await;
    let tasks = shown["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 2);
    for row in tasks.iter().chain([&shown["run"]]) {
        assert_eq!(row["parentTaskExternalId"], json!(parent), "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_task_by_itself_counts_its_children() {
    let task = |name: &str, parents: &[&str]| json!({"readable_id": name, "action": format!("dag:{name}"), "timeout": "60s", "parents": parents});
    let dag = json!({"name": "dag", "tasks": [task("a", &[]), task("b", &["a"])]});
    let (stage, _heard, single) = parent().await;
    stage.put(&dag).await;
    let (_, heard) = stage.worker(&registration_for("dag", &[dag])).await;
    sleep(Duration::from_secs(1)).await;
    let run = stage.trigger("dag", &json!({})).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let a = heard.messages()[0].1["task_run_external_id"].as_str().unwrap().to_owned();
    for (run, task) in [(&single, &single), (&run, &a)] {
        let children = [stage.child(NAME, task, 0).await, stage.child(NAME, task, 1).await];
        assert_eq!(stage.shown(&format!("tasks/{task}")).await["numSpawnedChildren"], 2);
        let shown = stage.shown(&format!("workflow-runs/{run}")).await;
        assert_eq!(shown["tasks"][0]["numSpawnedChildren"], 0);
        assert!(children.iter().all(|child| !shown.to_string().contains(child)), "{shown}");
        for tasks in [true, false] {
            let rows = stage.rows(&format!("stable/tenants/{{t}}/workflow-runs?{EVER}&only_tasks={tasks}")).await;
            let own: Vec<_> = rows.iter().filter(|row| row["workflowRunExternalId"] == **run).collect();
            assert!(!own.is_empty() && own.iter().all(|row| row["numSpawnedChildren"] == 0), "{own:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn timings_go_as_deep_as_was_asked_for_and_name_the_parents() {
    let (stage, _heard, parent) = parent().await;
    let child = stage.child(NAME, &parent, 0).await;
    let grandchild = stage.child(NAME, &child, 0).await;
    let rows = [
        (parent.clone(), 0, None),
        (child.clone(), 1, Some(parent.clone())),
        (grandchild.clone(), 2, Some(child.clone())),
    ];
    assert_eq!(stage.timings(&parent, "").await, rows[..1]);
    for depth in 0..=10 {
        assert_eq!(stage.timings(&parent, &format!("?depth={depth}")).await, rows[..=depth.min(2)], "{depth}");
    }
    // It names its parent where it is the first, too.
    assert_eq!(stage.timings(&child, "?depth=0").await, [(child.clone(), 0, Some(parent))]);
    let both = [(child.clone(), 0, rows[1].2.clone()), (grandchild, 1, Some(child.clone()))];
    assert_eq!(stage.timings(&child, "?depth=1").await, both);
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_is_no_id_is_refused_by_lists() {
    let (stage, _heard, _) = parent().await;
    let list = format!("stable/tenants/{{t}}/workflow-runs?{EVER}&only_tasks=false&parent_task_external_id=zz");
    let (status, body) = stage.send(Method::GET, &list, None).await;
    assert_eq!(status, 400, "{body}");
    let text = body["message"].as_str().unwrap();
    assert!(text.starts_with("Invalid format for parameter parent_task_external_id: "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_run_alone_makes_no_child() {
    let (stage, heard, parent) = parent().await;
    let alone = stage.trigger(NAME, &json!({"parent_id": parent, "child_index": 5})).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let action = |run: &str| {
        let all = heard.messages();
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
    let shown = stage.shown(&format!("tasks/{alone}")).await;
    assert_eq!(shown.get("parentTaskExternalId"), None);
}

#[tokio::test(start_paused = true)]
async fn a_known_child_beside_a_workflow_that_there_is_not_does_not_run_again() {
    let (stage, heard, parent) = parent().await;
    let child = stage.child(NAME, &parent, 0).await;
    stage.end(&child, "COMPLETED", "{}").await;
    let given = heard.messages().len();
    let link = json!({"name": NAME, "input": "{}", "parent_task_run_external_id": parent, "child_index": 0});
    let other = merged(&link, &json!({"name": "no-such", "child_index": 1}));
    let ids = stage.bulk(vec![link, other]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!((ids.len(), &ids[0], heard.messages().len()), (2, &json!(child), given));
    let phantom = stage.details(ids[1].as_str().unwrap()).await.unwrap_err();
    assert_eq!((phantom.code(), phantom.message()), (Code::NotFound, "workflow run not found"));
}
