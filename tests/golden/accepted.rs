//! Unusual requests that the real server accepts, and their effects. With all quirks.

use std::time::Duration;

use base64::Engine as _;
use hatchet::embedded::Quirks;
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::Code;

use super::recording::workflow;
use super::setup::{ALL_TIME, Setup, merged, registration};

const NAME: &str = "fx";

async fn setup(more: Value) -> Setup {
    Setup::with_workflow(Quirks::all(), NAME, &more).await
}

#[tokio::test(start_paused = true)]
async fn unusual_events_are_accepted() {
    let setup = setup(json!({"event_triggers": ["*"]})).await;
    let push = async |event: Value| setup.wire.call("EventsService.Push", &event).await.unwrap();
    let blanks = "a b/\u{e9}".to_owned() + &"x".repeat(3000);
    let response = push(json!({"key": blanks, "payload": "null", "event_timestamp": "1970-01-01T00:00:00Z"})).await;
    assert_eq!(response["key"], blanks);
    assert_eq!(
        response["event_timestamp"].as_str().unwrap()[..4],
        setup.now().to_rfc3339()[..4],
        "the time is that of the server"
    );
    push(json!({"key": "list", "payload": "{}", "additional_metadata": "[1]"})).await;
    push(json!({"key": "none", "payload": "", "additional_metadata": "", "scope": ""})).await;
    sleep(Duration::from_secs(1)).await;
    let list = setup.rows("stable/tenants/{t}/workflow-runs?since=2000-01-01&only_tasks=false").await;
    assert_eq!(list.len(), 3);
    let listed = list.iter().find(|row| row["additionalMetadata"]["hatchet__event_key"] == "list").unwrap();
    let mut keys: Vec<_> = listed["additionalMetadata"].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["hatchet__event_id", "hatchet__event_key", "traceparent"]);
    // A single-task run is found by its event, also in a list of tasks, and by its metadata.
    let id = listed["additionalMetadata"]["hatchet__event_id"].as_str().unwrap();
    for filter in [
        format!("only_tasks=true&triggering_event_external_id={id}"),
        format!("only_tasks=false&triggering_event_external_id={id}"),
        format!("only_tasks=false&additional_metadata=hatchet__event_id:{id}"),
    ] {
        let found = setup.rows(&format!("stable/tenants/{{t}}/workflow-runs?since=2000-01-01&{filter}")).await;
        assert_eq!((found.len(), &found[0]["metadata"]["id"]), (1, &listed["metadata"]["id"]), "{filter}");
    }
    let metrics = format!("stable/tenants/{{t}}/task-metrics?since=2000-01-01&triggering_event_external_id={id}");
    let (_, counts) = setup.send(Method::GET, &metrics, None).await;
    let total: u64 = counts.as_array().unwrap().iter().map(|row| row["count"].as_u64().unwrap()).sum();
    assert_eq!(total, 1, "{counts}");
    assert_eq!(setup.rows("stable/tenants/{t}/events?limit=5000").await.len(), 3);
    assert_eq!(setup.rows(&format!("stable/tenants/{{t}}/events?eventIds={id}")).await.len(), 1);
    let rejection = setup.wire.call("EventsService.ReplaySingleEvent", &json!({"event_id": id})).await.unwrap_err();
    assert_eq!((rejection.code(), rejection.message()), (Code::Unimplemented, "ReplaySingleEvent is not implemented"));
}

#[tokio::test(start_paused = true)]
async fn unusual_schedules_are_accepted() {
    let setup = setup(json!({})).await;
    let schedule = async |more: Value| {
        let request = merged(&json!({"name": NAME, "input": "{}"}), &more);
        setup.wire.call("WorkflowService.ScheduleWorkflow", &request).await.unwrap()
    };
    let none = schedule(json!({"schedules": []})).await;
    assert!(none["scheduled_workflows"].as_array().is_none_or(Vec::is_empty), "{none}");
    let (early, late) = ("2130-01-01T00:00:00Z", "2131-01-01T00:00:00Z");
    let times = |version: &Value| {
        let rows = version["scheduled_workflows"].as_array().unwrap();
        rows.iter().map(|row| row["trigger_at"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        times(&schedule(json!({"schedules": [late, early]})).await),
        [late, early],
        "in the order of the request"
    );
    assert_eq!(times(&schedule(json!({"schedules": vec![early; 600]})).await).len(), 600);
    let rows = setup.rows("tenants/{t}/workflows/scheduled?limit=1000").await;
    assert_eq!(rows.len(), 602);
    for row in &rows {
        assert_eq!((&row["method"], &row["additionalMetadata"]), (&json!("API"), &Value::Null));
    }
    // Only the syntax of a parent is checked. It has no effect.
    let unknown = "00000000-0000-4000-8001-000000000001";
    let parent = json!({
        "schedules": [setup.now().to_rfc3339()], "parent_id": unknown, "parent_task_run_external_id": unknown, "child_index": 1,
    });
    schedule(parent).await;
    sleep(Duration::from_secs(10)).await;
    let [run] =
        setup.rows("stable/tenants/{t}/workflow-runs?since=2000-01-01&only_tasks=false").await.try_into().unwrap();
    assert_eq!(run["additionalMetadata"].as_object().unwrap().keys().collect::<Vec<_>>(), ["traceparent"]);
    assert_eq!(run.get("parentTaskExternalId").unwrap_or(&Value::Null), &Value::Null);

    let create = format!("tenants/{{t}}/workflows/{NAME}/scheduled");
    let (status, created) = setup.send(Method::POST, &create, Some(json!({ "triggerAt": early }))).await;
    assert_eq!((status, &created["additionalMetadata"]), (200, &Value::Null));
    let by_id = format!("tenants/{{t}}/workflows/{}/scheduled", created["workflowId"].as_str().unwrap());
    let rejected = (400, json!({"errors": [{"description": "workflow not found"}]}));
    assert_eq!(setup.send(Method::POST, &by_id, Some(json!({ "triggerAt": early }))).await, rejected);
    let text = "Additional metadata filters must be in the format key:value.";
    let two_colons = setup.send(Method::GET, "tenants/{t}/workflows/scheduled?additionalMetadata=a:b:c", None).await;
    assert_eq!(two_colons, (400, json!({"errors": [{"description": text}]})));
    let updated =
        setup.send(Method::POST, "tenants/{t}/workflows/scheduled/bulk-update", Some(json!({"updates": []}))).await;
    assert_eq!(updated, (200, json!({"updatedIds": [], "errors": []})));
    let ids: Vec<_> = rows.iter().take(501).map(|row| row["metadata"]["id"].clone()).collect();
    let by_ids = json!({"scheduledWorkflowRunIds": ids});
    let deleted = setup.send(Method::POST, "tenants/{t}/workflows/scheduled/bulk-delete", Some(by_ids)).await;
    assert_eq!(deleted, (200, json!({"deletedIds": ids, "errors": []})));
    let filter = json!({"filter": {"workflowId": created["workflowId"]}});
    let (_, deleted) = setup.send(Method::POST, "tenants/{t}/workflows/scheduled/bulk-delete", Some(filter)).await;
    assert_eq!(deleted["deletedIds"].as_array().unwrap().len(), 102, "not limited to a page");
}

#[tokio::test(start_paused = true)]
async fn unusual_children_are_accepted() {
    let setup = setup(json!({})).await;
    let (_, received) = setup.worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    let trigger = async |more: Value| setup.trigger(NAME, &more).await;
    let parent = trigger(json!({})).await.unwrap();
    let of = |more: Value| merged(&json!({ "parent_task_run_external_id": parent }), &more);
    let plain = trigger(of(json!({"child_index": 0}))).await.unwrap();
    let negative = trigger(of(json!({"child_index": -1}))).await.unwrap();
    assert_eq!(trigger(of(json!({"child_index": -1}))).await.unwrap(), negative);
    // A key without an index is stored, but does not identify the child.
    let keyed = trigger(of(json!({"child_key": "k"}))).await.unwrap();
    assert_ne!(trigger(of(json!({"child_key": "k"}))).await.unwrap(), keyed);
    // Only the id of the parent task makes a run a child.
    let alone = trigger(json!({"parent_id": parent, "child_index": 5})).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let action = |run: &str| {
        let all = received.messages();
        all.into_iter().find(|(_, action)| action["workflow_run_id"] == run).unwrap().1
    };
    assert_eq!(action(&plain)["child_workflow_index"], 0);
    let key = |run: &str| action(run).get("child_workflow_key").cloned().unwrap_or_default();
    assert_eq!((key(&plain), key(&keyed)), (Value::Null, json!("k")));
    assert_eq!(action(&alone).get("parent_workflow_run_id").cloned().unwrap_or_default(), Value::Null);
    let rejection = trigger(json!({"parent_task_run_external_id": ""})).await.unwrap_err();
    assert_eq!(rejection.code(), Code::InvalidArgument);
    assert!(
        rejection.message().ends_with("parentStepRunId must be a valid UUID: invalid UUID length: 0"),
        "{rejection}"
    );
    let unknown = "parent_task_external_id=00000000-0000-4000-8001-000000000001";
    let list = format!("stable/tenants/{{t}}/workflow-runs?since=2000-01-01&only_tasks=false&{unknown}");
    assert_eq!(setup.rows(&list).await, Vec::<Value>::new());
}

/// The base64 of a string, which is how JSON represents bytes.
fn bytes(text: &str) -> Value {
    base64::engine::general_purpose::STANDARD.encode(text).into()
}

#[tokio::test(start_paused = true)]
async fn unusual_definitions_are_accepted() {
    let filter =
        |expression: &str, payload: &str| json!({"expression": expression, "scope": "s", "payload": bytes(payload)});
    let filters = [
        filter("additional_metadata.m == 'x'", r#"{"n": 1}"#),
        filter("event_id != ''", r#"{"n": 2}"#),
        filter("input.v >", "{}"),
        json!({"expression": "", "scope": ""}),
    ];
    let setup = setup(json!({"event_triggers": ["k"], "default_filters": filters})).await;
    let push = json!({"key": "k", "payload": "{}", "scope": "s", "additional_metadata": "{\"m\": \"x\"}"});
    let event = setup.wire.call("EventsService.Push", &push).await.unwrap()["event_id"].clone();
    sleep(Duration::from_secs(1)).await;
    let path = format!("stable/tenants/{{t}}/events/{}", event.as_str().unwrap());
    let (_, shown) = setup.send(Method::GET, &path, None).await;
    let runs = shown["triggeredRuns"].as_array().unwrap();
    assert_eq!(runs.len(), 2, "invalid and empty filters start no run: {shown}");
    assert!(runs.iter().all(|run| run["filterId"].is_string()));

    let put = async |more: Value| {
        let definition = merged(&workflow(&Value::Null, "other", &Value::Null), &more);
        setup.wire.call("v1.AdminService.PutWorkflow", &definition).await
    };
    for rejected in [
        json!({"default_filters": [filter("true", "no json")]}),
        json!({"cron_triggers": ["0 9 * * *"], "cron_input": "{"}),
    ] {
        let rejection = put(rejected.clone()).await.unwrap_err();
        assert_eq!(
            (rejection.code(), rejection.message()),
            (Code::Internal, "An internal error occurred."),
            "{rejected}"
        );
    }
    put(json!({"cron_triggers": ["0 9 * * *"], "cron_input": "[1]"})).await.unwrap();
    put(json!({"idempotency": {"expression": "1", "ttl_ms": 10_000_000_000_000_i64}})).await.unwrap();
    let run =
        setup.wire.call("WorkflowService.TriggerWorkflow", &json!({"name": "other", "input": "{}"})).await.unwrap();
    let id = json!({"external_id": run["workflow_run_id"]});
    let missing = setup.wire.call("v1.AdminService.GetRunDetails", &id).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound, "a key that is not a string");
}

#[tokio::test(start_paused = true)]
async fn one_of_several_triggers_with_the_same_key_starts_a_run() {
    let setup = setup(json!({"idempotency": {"expression": "input.key", "ttl_ms": 8000}})).await;
    let request = json!({"input": "{\"key\": \"k\"}"});
    let responses = futures_util::future::join_all((0..8).map(|_| setup.trigger(NAME, &request))).await;
    let (started, rejected): (Vec<_>, Vec<_>) = responses.into_iter().partition(Result::is_ok);
    let [existing] = started.into_iter().map(Result::unwrap).collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(rejected.len(), 7);
    for rejection in rejected.into_iter().map(Result::unwrap_err) {
        assert_eq!((rejection.code(), rejection.message()), (Code::AlreadyExists, "idempotency key collision"));
        let details = String::from_utf8_lossy(rejection.details()).into_owned();
        assert!(details.contains(&existing), "{details}");
    }
    sleep(Duration::from_secs(1)).await;
    let list = setup.listed(ALL_TIME).await;
    assert_eq!(list.iter().map(|row| &row["metadata"]["id"]).collect::<Vec<_>>(), [&json!(existing)]);
}

#[tokio::test(start_paused = true)]
async fn empty_and_long_keys_are_accepted() {
    let setup = setup(json!({"idempotency": {"expression": "input.key", "ttl_ms": 8000}})).await;
    let long = "x".repeat(5000);
    for key in ["", long.as_str()] {
        let input = json!({ "key": key }).to_string();
        let request = json!({"name": NAME, "input": input});
        let run =
            setup.wire.call("WorkflowService.TriggerWorkflow", &request).await.unwrap()["workflow_run_id"].clone();
        let rejection = setup.wire.call("WorkflowService.TriggerWorkflow", &request).await.unwrap_err();
        assert_eq!((rejection.code(), rejection.message()), (Code::AlreadyExists, "idempotency key collision"));
        let v1 = json!({"workflow_name": NAME, "input": bytes(&input)});
        let newer = setup.wire.call("v1.AdminService.TriggerWorkflowRun", &v1).await.unwrap_err();
        assert_eq!(
            (newer.code(), newer.message(), newer.details()),
            (rejection.code(), rejection.message(), rejection.details())
        );
        sleep(Duration::from_secs(1)).await;
        // Only rows of lists contain the key.
        let run = run.as_str().unwrap();
        for path in [format!("stable/workflow-runs/{run}"), format!("stable/tasks/{run}")] {
            let (_, shown) = setup.send(Method::GET, &path, None).await;
            assert!(!shown.to_string().contains("idempotencyKey"), "{path}: {shown}");
        }
        let list = setup.rows("stable/tenants/{t}/workflow-runs?since=2000-01-01&only_tasks=false").await;
        assert_eq!((&list[0]["metadata"]["id"], &list[0]["idempotencyKey"]), (&json!(run), &json!(key)));
        assert_eq!(list[0]["additionalMetadata"].as_object().unwrap().keys().collect::<Vec<_>>(), ["traceparent"]);
    }
}
