//! A child that runs a second time under its id, because another one was new in the same call; and what the surfaces
//! make of it. All quirks are on.

use std::time::Duration;

use base64::Engine as _;
use hatchet::embedded::Quirks;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::stage::{EVER, Stage, merged, registration};
use super::wire::Heard;

const NAME: &str = "fx";

struct Play {
    stage: Stage,
    heard: Heard,
    parent: String,
    child: String,
}

/// A child that completes with `{"old": 1}`, is started again with another input, and completes with `{"new": 1}`.
async fn play() -> Play {
    let stage = Stage::with(Quirks::all(), NAME, &json!({})).await;
    let (_, heard) = stage.worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    let parent = stage.trigger(NAME, &json!({})).await.unwrap();
    let link = |index: i32, input: &str| json!({"name": NAME, "input": input, "parent_task_run_external_id": parent, "child_index": index});
    let child = stage.trigger(NAME, &link(0, "{\"n\": 1}")).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    stage.end(&child, "COMPLETED", "{\"old\": 1}").await;
    sleep(Duration::from_secs(1)).await;
    let ids = stage.bulk(vec![link(0, "{\"n\": 2}"), link(1, "{}")]).await.unwrap();
    assert_eq!(ids[0], *child);
    assert_ne!(ids[1], *child);
    sleep(Duration::from_secs(1)).await;
    stage.end(&child, "COMPLETED", "{\"new\": 1}").await;
    sleep(Duration::from_secs(1)).await;
    Play { stage, heard, parent, child }
}

#[tokio::test(start_paused = true)]
async fn its_worker_gets_it_twice_as_if_for_the_first_time() {
    let Play { heard, child, .. } = play().await;
    let all = heard.messages();
    let given: Vec<_> =
        all.iter().map(|(_, action)| action).filter(|action| action["workflow_run_id"] == *child).collect();
    let said: Vec<_> = given.iter().map(|action| (&action["action_type"], &action["retry_count"])).collect();
    assert_eq!(said, [(&json!("START_STEP_RUN"), &json!(0)); 2]);
    let input = |action: &Value| {
        let payload: Value = serde_json::from_str(action["action_payload"].as_str().unwrap()).unwrap();
        payload["input"].clone()
    };
    assert_eq!([input(given[0]), input(given[1])], [json!({"n": 1}), json!({"n": 2})]);
}

#[tokio::test(start_paused = true)]
async fn rest_has_the_new_input_and_grpc_the_old_one() {
    let Play { stage, child, .. } = play().await;
    let run = stage.shown(&format!("workflow-runs/{child}")).await["run"].clone();
    assert_eq!((&run["status"], &run["input"]["input"]), (&json!("COMPLETED"), &json!({"n": 2})));
    assert_eq!(run["output"], json!({"old": 1}));

    let details = stage.details(&child).await.unwrap();
    let read = |bytes: &Value| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(bytes.as_str().unwrap()).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    assert_eq!((&details["status"], read(&details["input"])), (&json!("COMPLETED"), json!({"n": 1})));
    assert_eq!(read(&details["task_runs"]["work"]["output"]), json!({"old": 1}));
}

#[tokio::test(start_paused = true)]
async fn its_result_has_both_outputs() {
    let Play { stage, child, .. } = play().await;
    let results = stage.wire.results();
    results.ask(&json!({"workflow_run_id": child}));
    sleep(Duration::from_secs(2)).await;
    let [(_, result)] = results.heard.messages().try_into().unwrap();
    let outputs: Vec<Value> = result["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| serde_json::from_str(row["output"].as_str().unwrap()).unwrap())
        .collect();
    assert_eq!(outputs, [json!({"new": 1}), json!({"old": 1})]);
}

#[tokio::test(start_paused = true)]
async fn it_is_counted_twice_and_in_timings_three_times() {
    let Play { stage, parent, child, .. } = play().await;
    let of_parent = format!("{EVER}&parent_task_external_id={parent}");
    let rows = stage.listed(&of_parent).await;
    let times = |rows: &[Value], pointer: &str| {
        (rows.len(), rows.iter().filter(|row| row.pointer(pointer) == Some(&json!(child))).count())
    };
    assert_eq!(times(&rows, "/metadata/id"), (3, 2));
    let counts = stage.look(&format!("stable/tenants/{{t}}/task-metrics?{of_parent}")).await;
    let count = |status: &str| {
        let counts = counts.as_array().unwrap();
        counts.iter().find(|row| row["status"] == status).unwrap()["count"].clone()
    };
    assert_eq!([count("COMPLETED"), count("RUNNING"), count("QUEUED")], [json!(2), json!(1), json!(0)]);
    assert_eq!(stage.shown(&format!("tasks/{parent}")).await["numSpawnedChildren"], 3);
    let timings = stage.rows(&format!("stable/workflow-runs/{parent}/task-timings?depth=1")).await;
    // The parent and the other child are there once.
    assert_eq!(times(&timings, "/taskExternalId"), (5, 3));
}

#[tokio::test(start_paused = true)]
async fn once_started_it_is_there_once() {
    let stage = Stage::with(Quirks::none(), NAME, &json!({})).await;
    let (_, heard) = stage.worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    let parent = stage.trigger(NAME, &json!({})).await.unwrap();
    let link = json!({"name": NAME, "input": "{}", "parent_task_run_external_id": parent});
    let child = stage.trigger(NAME, &merged(&link, &json!({"child_index": 0}))).await.unwrap();
    stage.end(&child, "COMPLETED", "{}").await;
    let links = [0, 1].map(|index| merged(&link, &json!({"child_index": index})));
    assert_eq!(stage.bulk(links.to_vec()).await.unwrap()[0], *child);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(heard.messages().len(), 3);
    assert_eq!(stage.rows(&format!("stable/workflow-runs/{parent}/task-timings?depth=1")).await.len(), 3);
}
