//! Events, and the runs that they start, in actions and in REST. With all quirks.

use std::time::Duration;

use hatchet::embedded::Quirks;
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::recording::workflow;
use super::setup::{ALL_TIME, Setup, merged, registration, registration_for};

const NAME: &str = "fx";

async fn setup(triggers: &[&str]) -> Setup {
    Setup::with_workflow(Quirks::all(), NAME, &json!({ "event_triggers": triggers })).await
}

impl Setup {
    /// Pushes an event, and waits until REST shows it.
    async fn push(&self, event: &Value) -> String {
        let response = self.wire.call("EventsService.Push", event).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        response["event_id"].as_str().unwrap().to_owned()
    }

    async fn event(&self, id: &str) -> Value {
        self.get(&format!("stable/tenants/{{t}}/events/{id}")).await
    }
}

#[tokio::test(start_paused = true)]
async fn event_ids_are_random() {
    let setup = setup(&[]).await;
    let id: Uuid = setup.push(&json!({"key": "k", "payload": "{}"})).await.parse().unwrap();
    assert_eq!(id.get_version_num(), 4);
}

#[tokio::test(start_paused = true)]
async fn non_object_payloads_have_no_input() {
    let setup = setup(&["k"]).await;
    let (_, received) = setup.worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    for payload in ["null", "[1]"] {
        setup.push(&json!({"key": "k", "payload": payload})).await;
    }
    let payloads: Vec<_> = received.messages().iter().map(|(_, action)| action["action_payload"].clone()).collect();
    assert_eq!(payloads.len(), 2);
    for payload in payloads {
        assert!(payload.as_str().unwrap().starts_with(r#"{"input":null,"triggered_by":"manual","#), "{payload}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_actions_of_event_runs_contain_the_event() {
    let setup = setup(&["k"]).await;
    let dag = workflow(&Value::Null, "dag", &json!({"parents": {"a": [], "b": ["a"]}}));
    setup.put(&merged(&dag, &json!({"event_triggers": ["k"]}))).await;
    let (_, single) = setup.worker(&registration(NAME)).await;
    let (_, several) = setup.worker(&registration_for("dag", &[dag])).await;
    sleep(Duration::from_secs(1)).await;
    let event = setup.push(&json!({"key": "k", "payload": "{}"})).await;
    let a = several.messages()[0].1["task_run_external_id"].as_str().unwrap().to_owned();
    setup.end(&a, "COMPLETED", "{}").await;
    sleep(Duration::from_secs(1)).await;
    let actions: Vec<_> =
        [single.messages(), several.messages()].concat().into_iter().map(|(_, action)| action).collect();
    let names: Vec<_> = actions.iter().map(|action| action["task_name"].as_str().unwrap()).collect();
    assert_eq!(names, ["work", "a", "b"]);
    for action in &actions {
        let event_fields = (&action["triggering_event_external_id"], &action["triggering_event_key"]);
        assert_eq!(event_fields, (&json!(event), &json!("k")), "{action}");
    }
    setup.trigger(NAME, &json!({})).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let (_, manual) = single.messages().pop().unwrap();
    assert_eq!(single.messages().len(), 2);
    for field in ["triggering_event_external_id", "triggering_event_key"] {
        assert_eq!(manual.get(field), None, "{field}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_metadata_links_a_run_to_its_event() {
    let setup = setup(&["the-key"]).await;
    let event = setup.push(&json!({"key": "the-key", "payload": "{}"})).await;
    let row = setup.listed(ALL_TIME).await.remove(0);
    let run = row["metadata"]["id"].as_str().unwrap().to_owned();
    let details = setup.details(&run).await.unwrap();
    let shown = setup.shown(&format!("workflow-runs/{run}")).await;
    let task = setup.shown(&format!("tasks/{run}")).await;
    for (mut response, owners) in
        [(row, vec![""]), (task, vec![""]), (shown, vec!["/run", "/tasks/0"]), (details, vec![""])]
    {
        for owner in owners {
            let owner = response.pointer_mut(owner).unwrap().as_object_mut().unwrap();
            let metadata = owner.remove("additionalMetadata").or_else(|| owner.remove("additional_metadata")).unwrap();
            // In gRPC, the metadata is bytes.
            if let Some(metadata) = metadata.as_object() {
                assert_eq!(metadata["hatchet__event_id"], *event);
                assert_eq!(metadata["hatchet__event_key"], "the-key");
            }
        }
        let text = response.to_string();
        for trace in [event.as_str(), "the-key", "riggeringEvent", "riggering_event"] {
            assert!(!text.contains(trace), "{trace}: {text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn events_are_rendered() {
    let setup = setup(&["k"]).await;
    let metadata = json!({"hatchet__x": "1", "hatchet__event_id": "y", "a": "b"});
    for (event, payload, additional) in [
        (
            json!({"key": "k", "payload": "{\"n\": 1}", "additional_metadata": metadata.to_string()}),
            json!({"n": 1}),
            metadata,
        ),
        (json!({"key": "k", "payload": ""}), json!({}), json!({})),
        (json!({"key": "k", "payload": "[1]"}), json!({}), json!({})),
        (json!({"key": "k", "payload": "null", "additional_metadata": "[1]"}), json!({}), json!({})),
    ] {
        let id = setup.push(&event).await;
        let one = setup.event(&id).await;
        let row = setup.rows("stable/tenants/{t}/events?limit=1").await.remove(0);
        let run = setup.listed(&format!("{ALL_TIME}&limit=1")).await.remove(0);
        let created_at = one["metadata"]["createdAt"].clone();
        let mut expected = json!({
            "metadata": {"id": id, "createdAt": created_at, "updatedAt": created_at}, "key": "k", "payload": payload,
            "additionalMetadata": additional, "seenAt": created_at, "tenantId": "",
            "triggeredRuns": [{"workflowRunId": run["metadata"]["id"]}],
            "workflowRunSummary": {"queued": 1, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0},
        });
        assert_eq!(row, expected, "no scope, no filter and no webhook");
        expected["triggeringWebhookName"] = json!("");
        assert_eq!(one, expected);
        let with_scope = setup.push(&merged(&event, &json!({"scope": "s"}))).await;
        assert_eq!(setup.event(&with_scope).await["scope"], "s");
    }
}

#[tokio::test(start_paused = true)]
async fn event_keys_can_be_blank_or_long() {
    let long = "x".repeat(300);
    let setup = setup(&["", "  ", &long]).await;
    for (key, count) in [("", 1), ("  ", 2), (&*long, 3), (" ", 3)] {
        setup.push(&json!({"key": key, "payload": "{}"})).await;
        assert_eq!(setup.listed(ALL_TIME).await.len(), count, "{key:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn runs_of_an_event_have_no_order() {
    let setup = setup(&["k:*", "k:o*", "*"]).await;
    let (_, received) = setup.worker(&merged(&registration(NAME), &json!({"slot_config": {"default": 100}}))).await;
    sleep(Duration::from_secs(1)).await;
    let mut in_order = 0;
    for number in 0..10 {
        let id = setup.push(&json!({"key": "k:o", "payload": "{}"})).await;
        let shown = setup.event(&id).await["triggeredRuns"].as_array().unwrap().clone();
        let shown: Vec<_> = shown.iter().map(|run| run["workflowRunId"].clone()).collect();
        let started = received.messages().into_iter().skip(number * 3);
        let started: Vec<_> = started.map(|(_, action)| action["workflow_run_id"].clone()).collect();
        assert!(shown.len() == 3 && started.iter().all(|run| shown.contains(run)), "{shown:?} {started:?}");
        in_order += u32::from(shown == started);
    }
    assert!(in_order < 10, "some runs are listed in another order than they were started");
}

/// In 40 measured pushes, the runs appeared 0 to 80 ms after the event, half of them within 20 ms.
#[tokio::test(start_paused = true)]
async fn runs_appear_at_most_80_ms_after_their_event() {
    const COUNT: usize = 40;
    let setup = setup(&["k"]).await;
    for _ in 0..COUNT {
        setup.wire.call("EventsService.Push", &json!({"key": "k", "payload": "{}"})).await.unwrap();
    }
    let (mut event_at, mut runs_at) = (None, Vec::new());
    for at in 0..300_i64 {
        let rows = setup.rows("stable/tenants/{t}/events?limit=100").await;
        if !rows.is_empty() {
            assert_eq!(rows.len(), COUNT);
            let event_at = *event_at.get_or_insert(at);
            let known = rows.iter().filter(|row| !row["triggeredRuns"].is_null()).count();
            runs_at.resize(known, at - event_at);
        }
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((event_at, runs_at.len()), (Some(120), COUNT));
    let (first, median, last) = (runs_at[0], runs_at[COUNT / 2], runs_at[COUNT - 1]);
    assert!(first <= 3 && (10..=30).contains(&median) && (60..=80).contains(&last), "{runs_at:?}");
}
