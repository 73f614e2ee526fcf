//! What the real server takes although it looks odd, and what is left of it. All quirks are on.

use std::time::Duration;

use base64::Engine as _;
use hatchet::embedded::Quirks;
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::Code;

use super::recording::workflow;
use super::stage::{EVER, Stage, merged, registration};

const NAME: &str = "fx";

async fn stage(more: Value) -> Stage {
    Stage::with(Quirks::all(), NAME, &more).await
}

#[tokio::test(start_paused = true)]
async fn events() {
    let stage = stage(json!({"event_triggers": ["*"]})).await;
    let push = async |event: Value| stage.wire.call("EventsService.Push", &event).await.unwrap();
    let blanks = "a b/\u{e9}".to_owned() + &"x".repeat(3000);
    let answer = push(json!({"key": blanks, "payload": "null", "event_timestamp": "1970-01-01T00:00:00Z"})).await;
    assert_eq!(answer["key"], blanks);
    assert_eq!(answer["event_timestamp"].as_str().unwrap()[..4], stage.now().to_rfc3339()[..4], "the server's time");
    push(json!({"key": "list", "payload": "{}", "additional_metadata": "[1]"})).await;
    push(json!({"key": "none", "payload": "", "additional_metadata": "", "scope": ""})).await;
    sleep(Duration::from_secs(1)).await;
    let list = stage.rows("stable/tenants/{t}/workflow-runs?since=2000-01-01&only_tasks=false").await;
    assert_eq!(list.len(), 3);
    let listed = list.iter().find(|row| row["additionalMetadata"]["hatchet__event_key"] == "list").unwrap();
    let mut keys: Vec<_> = listed["additionalMetadata"].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["hatchet__event_id", "hatchet__event_key", "traceparent"]);
    // A run of one task is found by its event among the tasks, too; and by the key in its metadata.
    let id = listed["additionalMetadata"]["hatchet__event_id"].as_str().unwrap();
    for filter in [
        format!("only_tasks=true&triggering_event_external_id={id}"),
        format!("only_tasks=false&triggering_event_external_id={id}"),
        format!("only_tasks=false&additional_metadata=hatchet__event_id:{id}"),
    ] {
        let found = stage.rows(&format!("stable/tenants/{{t}}/workflow-runs?since=2000-01-01&{filter}")).await;
        assert_eq!((found.len(), &found[0]["metadata"]["id"]), (1, &listed["metadata"]["id"]), "{filter}");
    }
    let metrics = format!("stable/tenants/{{t}}/task-metrics?since=2000-01-01&triggering_event_external_id={id}");
    let (_, counts) = stage.send(Method::GET, &metrics, None).await;
    let total: u64 = counts.as_array().unwrap().iter().map(|row| row["count"].as_u64().unwrap()).sum();
    assert_eq!(total, 1, "{counts}");
    assert_eq!(stage.rows("stable/tenants/{t}/events?limit=5000").await.len(), 3);
    assert_eq!(stage.rows(&format!("stable/tenants/{{t}}/events?eventIds={id}")).await.len(), 1);
    let refusal = stage.wire.call("EventsService.ReplaySingleEvent", &json!({"event_id": id})).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.message()), (Code::Unimplemented, "ReplaySingleEvent is not implemented"));
}

#[tokio::test(start_paused = true)]
async fn schedules() {
    let stage = stage(json!({})).await;
    let schedule = async |more: Value| {
        let request = merged(&json!({"name": NAME, "input": "{}"}), &more);
        stage.wire.call("WorkflowService.ScheduleWorkflow", &request).await.unwrap()
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
    let rows = stage.rows("tenants/{t}/workflows/scheduled?limit=1000").await;
    assert_eq!(rows.len(), 602);
    for row in &rows {
        assert_eq!((&row["method"], &row["additionalMetadata"]), (&json!("API"), &Value::Null));
    }
    // A parent is checked for its form only, and then forgotten.
    let unknown = "00000000-0000-4000-8001-000000000001";
    let parent = json!({
        "schedules": [stage.now().to_rfc3339()], "parent_id": unknown, "parent_task_run_external_id": unknown, "child_index": 1,
    });
    schedule(parent).await;
    sleep(Duration::from_secs(10)).await;
    let [run] =
        stage.rows("stable/tenants/{t}/workflow-runs?since=2000-01-01&only_tasks=false").await.try_into().unwrap();
    assert_eq!(run["additionalMetadata"].as_object().unwrap().keys().collect::<Vec<_>>(), ["traceparent"]);
    assert_eq!(run.get("parentTaskExternalId").unwrap_or(&Value::Null), &Value::Null);

    let create = format!("tenants/{{t}}/workflows/{NAME}/scheduled");
    let (status, made) = stage.send(Method::POST, &create, Some(json!({ "triggerAt": early }))).await;
    assert_eq!((status, &made["additionalMetadata"]), (200, &Value::Null));
    let by_id = format!("tenants/{{t}}/workflows/{}/scheduled", made["workflowId"].as_str().unwrap());
    let refused = (400, json!({"errors": [{"description": "workflow not found"}]}));
    assert_eq!(stage.send(Method::POST, &by_id, Some(json!({ "triggerAt": early }))).await, refused);
    let text = "Additional metadata filters must be in the format key:value.";
    let two_colons = stage.send(Method::GET, "tenants/{t}/workflows/scheduled?additionalMetadata=a:b:c", None).await;
    assert_eq!(two_colons, (400, json!({"errors": [{"description": text}]})));
    let updated =
        stage.send(Method::POST, "tenants/{t}/workflows/scheduled/bulk-update", Some(json!({"updates": []}))).await;
    assert_eq!(updated, (200, json!({"updatedIds": [], "errors": []})));
    let ids: Vec<_> = rows.iter().take(501).map(|row| row["metadata"]["id"].clone()).collect();
    let by_ids = json!({"scheduledWorkflowRunIds": ids});
    let deleted = stage.send(Method::POST, "tenants/{t}/workflows/scheduled/bulk-delete", Some(by_ids)).await;
    assert_eq!(deleted, (200, json!({"deletedIds": ids, "errors": []})));
    let filter = json!({"filter": {"workflowId": made["workflowId"]}});
    let (_, deleted) = stage.send(Method::POST, "tenants/{t}/workflows/scheduled/bulk-delete", Some(filter)).await;
    assert_eq!(deleted["deletedIds"].as_array().unwrap().len(), 102, "past any page");
}

#[tokio::test(start_paused = true)]
async fn children() {
    let stage = stage(json!({})).await;
    let (_, heard) = stage.worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    let trigger = async |more: Value| stage.trigger(NAME, &more).await;
    let parent = trigger(json!({})).await.unwrap();
    let of = |more: Value| merged(&json!({ "parent_task_run_external_id": parent }), &more);
    let plain = trigger(of(json!({"child_index": 0}))).await.unwrap();
    let negative = trigger(of(json!({"child_index": -1}))).await.unwrap();
    assert_eq!(trigger(of(json!({"child_index": -1}))).await.unwrap(), negative);
    // A key without an index is handed on, and finds nothing again.
    let keyed = trigger(of(json!({"child_key": "k"}))).await.unwrap();
    assert_ne!(trigger(of(json!({"child_key": "k"}))).await.unwrap(), keyed);
    // Only the task makes a child.
    let alone = trigger(json!({"parent_id": parent, "child_index": 5})).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let action = |run: &str| {
        let all = heard.messages();
        all.into_iter().find(|(_, action)| action["workflow_run_id"] == run).unwrap().1
    };
    assert_eq!(action(&plain)["child_workflow_index"], 0);
    let key = |run: &str| action(run).get("child_workflow_key").cloned().unwrap_or_default();
    assert_eq!((key(&plain), key(&keyed)), (Value::Null, json!("k")));
    assert_eq!(action(&alone).get("parent_workflow_run_id").cloned().unwrap_or_default(), Value::Null);
    let refusal = trigger(json!({"parent_task_run_external_id": ""})).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(refusal.message().ends_with("parentStepRunId must be a valid UUID: invalid UUID length: 0"), "{refusal}");
    let unknown = "parent_task_external_id=00000000-0000-4000-8001-000000000001";
    let list = format!("stable/tenants/{{t}}/workflow-runs?since=2000-01-01&only_tasks=false&{unknown}");
    assert_eq!(stage.rows(&list).await, Vec::<Value>::new());
}

/// Base64 of a text, as JSON writes bytes.
fn bytes(text: &str) -> Value {
    base64::engine::general_purpose::STANDARD.encode(text).into()
}

#[tokio::test(start_paused = true)]
async fn definitions() {
    let filter =
        |expression: &str, payload: &str| json!({"expression": expression, "scope": "s", "payload": bytes(payload)});
    let filters = [
        filter("additional_metadata.m == 'x'", r#"{"n": 1}"#),
        filter("event_id != ''", r#"{"n": 2}"#),
        filter("input.v >", "{}"),
        json!({"expression": "", "scope": ""}),
    ];
    let stage = stage(json!({"event_triggers": ["k"], "default_filters": filters})).await;
    let push = json!({"key": "k", "payload": "{}", "scope": "s", "additional_metadata": "{\"m\": \"x\"}"});
    let event = stage.wire.call("EventsService.Push", &push).await.unwrap()["event_id"].clone();
    sleep(Duration::from_secs(1)).await;
    let path = format!("stable/tenants/{{t}}/events/{}", event.as_str().unwrap());
    let (_, shown) = stage.send(Method::GET, &path, None).await;
    let runs = shown["triggeredRuns"].as_array().unwrap();
    assert_eq!(runs.len(), 2, "what is broken or empty starts nothing: {shown}");
    assert!(runs.iter().all(|run| run["filterId"].is_string()));

    let put = async |more: Value| {
        let definition = merged(&workflow(&Value::Null, "other", &Value::Null), &more);
        stage.wire.call("v1.AdminService.PutWorkflow", &definition).await
    };
    for refused in [
        json!({"default_filters": [filter("true", "no json")]}),
        json!({"cron_triggers": ["0 9 * * *"], "cron_input": "{"}),
    ] {
        let refusal = put(refused.clone()).await.unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (Code::Internal, "An internal error occurred."), "{refused}");
    }
    put(json!({"cron_triggers": ["0 9 * * *"], "cron_input": "[1]"})).await.unwrap();
    put(json!({"idempotency": {"expression": "1", "ttl_ms": 10_000_000_000_000_i64}})).await.unwrap();
    let run =
        stage.wire.call("WorkflowService.TriggerWorkflow", &json!({"name": "other", "input": "{}"})).await.unwrap();
    let id = json!({"external_id": run["workflow_run_id"]});
    let phantom = stage.wire.call("v1.AdminService.GetRunDetails", &id).await.unwrap_err();
    assert_eq!(phantom.code(), Code::NotFound, "a key that is no text");
}

#[tokio::test(start_paused = true)]
async fn of_many_at_once_with_one_key_one_wins() {
    let stage = stage(json!({"idempotency": {"expression": "input.key", "ttl_ms": 8000}})).await;
    let request = json!({"input": "{\"key\": \"k\"}"});
    let answers = futures_util::future::join_all((0..8).map(|_| stage.trigger(NAME, &request))).await;
    let (winners, losers): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    let [winner] = winners.into_iter().map(Result::unwrap).collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(losers.len(), 7);
    for refusal in losers.into_iter().map(Result::unwrap_err) {
        assert_eq!((refusal.code(), refusal.message()), (Code::AlreadyExists, "idempotency key collision"));
        let details = String::from_utf8_lossy(refusal.details()).into_owned();
        assert!(details.contains(&winner), "{details}");
    }
    sleep(Duration::from_secs(1)).await;
    let list = stage.listed(EVER).await;
    assert_eq!(list.iter().map(|row| &row["metadata"]["id"]).collect::<Vec<_>>(), [&json!(winner)]);
}

#[tokio::test(start_paused = true)]
async fn keys() {
    let stage = stage(json!({"idempotency": {"expression": "input.key", "ttl_ms": 8000}})).await;
    let long = "x".repeat(5000);
    for key in ["", long.as_str()] {
        let input = json!({ "key": key }).to_string();
        let request = json!({"name": NAME, "input": input});
        let run =
            stage.wire.call("WorkflowService.TriggerWorkflow", &request).await.unwrap()["workflow_run_id"].clone();
        let refusal = stage.wire.call("WorkflowService.TriggerWorkflow", &request).await.unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (Code::AlreadyExists, "idempotency key collision"));
        let v1 = json!({"workflow_name": NAME, "input": bytes(&input)});
        let newer = stage.wire.call("v1.AdminService.TriggerWorkflowRun", &v1).await.unwrap_err();
        assert_eq!(
            (newer.code(), newer.message(), newer.details()),
            (refusal.code(), refusal.message(), refusal.details())
        );
        sleep(Duration::from_secs(1)).await;
        // Only rows of lists show it.
        let run = run.as_str().unwrap();
        for path in [format!("stable/workflow-runs/{run}"), format!("stable/tasks/{run}")] {
            let (_, shown) = stage.send(Method::GET, &path, None).await;
            assert!(!shown.to_string().contains("idempotencyKey"), "{path}: {shown}");
        }
        let list = stage.rows("stable/tenants/{t}/workflow-runs?since=2000-01-01&only_tasks=false").await;
        assert_eq!((&list[0]["metadata"]["id"], &list[0]["idempotencyKey"]), (&json!(run), &json!(key)));
        assert_eq!(list[0]["additionalMetadata"].as_object().unwrap().keys().collect::<Vec<_>>(), ["traceparent"]);
    }
}
