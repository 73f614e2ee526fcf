//! A child that is started a second time under the same id, because another child in the same call was new, in each API view. With all
//! quirks.

use std::time::Duration;

use base64::Engine as _;
use hatchet::embedded::Quirks;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::setup::{ALL_TIME, Setup, merged, registration};
use super::wire::Received;

const NAME: &str = "fx";

struct RestartedChild {
    setup: Setup,
    received: Received,
    parent: String,
    child: String,
}

/// Starts a child that completes with `{"old": 1}`, is started again with another input, and completes with `{"new": 1}`.
async fn restart_child() -> RestartedChild {
    let setup = Setup::with_workflow(Quirks::all(), NAME, &json!({})).await;
    let (_, received) = setup.worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    let parent = setup.trigger(NAME, &json!({})).await.unwrap();
    let link = |index: i32, input: &str| json!({"name": NAME, "input": input, "parent_task_run_external_id": parent, "child_index": index});
    let child = setup.trigger(NAME, &link(0, "{\"n\": 1}")).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    setup.end(&child, "COMPLETED", "{\"old\": 1}").await;
    sleep(Duration::from_secs(1)).await;
    let ids = setup.bulk(vec![link(0, "{\"n\": 2}"), link(1, "{}")]).await.unwrap();
    assert_eq!(ids[0], *child);
    assert_ne!(ids[1], *child);
    sleep(Duration::from_secs(1)).await;
    setup.end(&child, "COMPLETED", "{\"new\": 1}").await;
    sleep(Duration::from_secs(1)).await;
    RestartedChild { setup, received, parent, child }
}

#[tokio::test(start_paused = true)]
async fn restarted_children_are_assigned_as_first_attempts() {
    let RestartedChild { received, child, .. } = restart_child().await;
    let all = received.messages();
    let assigned: Vec<_> =
        all.iter().map(|(_, action)| action).filter(|action| action["workflow_run_id"] == *child).collect();
    let kinds: Vec<_> = assigned.iter().map(|action| (&action["action_type"], &action["retry_count"])).collect();
    assert_eq!(kinds, [(&json!("START_STEP_RUN"), &json!(0)); 2]);
    let input = |action: &Value| {
        let payload: Value = serde_json::from_str(action["action_payload"].as_str().unwrap()).unwrap();
        payload["input"].clone()
    };
    assert_eq!([input(assigned[0]), input(assigned[1])], [json!({"n": 1}), json!({"n": 2})]);
}

#[tokio::test(start_paused = true)]
async fn rest_shows_the_new_input_and_grpc_the_old_one() {
    let RestartedChild { setup, child, .. } = restart_child().await;
    let run = setup.shown(&format!("workflow-runs/{child}")).await["run"].clone();
    assert_eq!((&run["status"], &run["input"]["input"]), (&json!("COMPLETED"), &json!({"n": 2})));
    assert_eq!(run["output"], json!({"old": 1}));

    let details = setup.details(&child).await.unwrap();
    let read = |bytes: &Value| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(bytes.as_str().unwrap()).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    assert_eq!((&details["status"], read(&details["input"])), (&json!("COMPLETED"), json!({"n": 1})));
    assert_eq!(read(&details["task_runs"]["work"]["output"]), json!({"old": 1}));
}

#[tokio::test(start_paused = true)]
async fn results_of_restarted_children_have_both_outputs() {
    let RestartedChild { setup, child, .. } = restart_child().await;
    let results = setup.wire.results();
    results.subscribe(&json!({"workflow_run_id": child}));
    sleep(Duration::from_secs(2)).await;
    let [(_, result)] = results.received.messages().try_into().unwrap();
    let outputs: Vec<Value> = result["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| serde_json::from_str(row["output"].as_str().unwrap()).unwrap())
        .collect();
    assert_eq!(outputs, [json!({"new": 1}), json!({"old": 1})]);
}

#[tokio::test(start_paused = true)]
async fn restarted_children_are_counted_several_times() {
    let RestartedChild { setup, parent, child, .. } = restart_child().await;
    let of_parent = format!("{ALL_TIME}&parent_task_external_id={parent}");
    let rows = setup.listed(&of_parent).await;
    let times = |rows: &[Value], pointer: &str| {
        (rows.len(), rows.iter().filter(|row| row.pointer(pointer) == Some(&json!(child))).count())
    };
    assert_eq!(times(&rows, "/metadata/id"), (3, 2));
    let counts = setup.get(&format!("stable/tenants/{{t}}/task-metrics?{of_parent}")).await;
    let count = |status: &str| {
        let counts = counts.as_array().unwrap();
        counts.iter().find(|row| row["status"] == status).unwrap()["count"].clone()
    };
    assert_eq!([count("COMPLETED"), count("RUNNING"), count("QUEUED")], [json!(2), json!(1), json!(0)]);
    assert_eq!(setup.shown(&format!("tasks/{parent}")).await["numSpawnedChildren"], 3);
    let timings = setup.rows(&format!("stable/workflow-runs/{parent}/task-timings?depth=1")).await;
    // The parent and the other child are listed once.
    assert_eq!(times(&timings, "/taskExternalId"), (5, 3));
}

#[tokio::test(start_paused = true)]
async fn without_quirks_children_are_not_restarted() {
    let setup = Setup::with_workflow(Quirks::none(), NAME, &json!({})).await;
    let (_, received) = setup.worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    let parent = setup.trigger(NAME, &json!({})).await.unwrap();
    let link = json!({"name": NAME, "input": "{}", "parent_task_run_external_id": parent});
    let child = setup.trigger(NAME, &merged(&link, &json!({"child_index": 0}))).await.unwrap();
    setup.end(&child, "COMPLETED", "{}").await;
    let links = [0, 1].map(|index| merged(&link, &json!({"child_index": index})));
    assert_eq!(setup.bulk(links.to_vec()).await.unwrap()[0], *child);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(received.messages().len(), 3);
    assert_eq!(setup.rows(&format!("stable/workflow-runs/{parent}/task-timings?depth=1")).await.len(), 3);
}
