//! The responses and errors of events, schedules, crons and idempotency keys, as observed on the real server.

use std::time::Duration;

use hatchet::embedded::Quirks;
use http::Method;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::Code;

use super::recording::workflow;
use super::setup::{Setup, merged};

const NAME: &str = "fx";

async fn setup(quirks: Quirks, more: &Value) -> Setup {
    Setup::with_workflow(quirks, NAME, more).await
}

impl Setup {
    async fn rejected(&self, rpc: &str, request: &Value) -> (Code, String) {
        let rejection = self.wire.call(rpc, request).await.expect_err(rpc);
        (rejection.code(), rejection.message().to_owned())
    }
}

/// Removes fields that differ in each run.
fn without(mut body: Value, keys: &[&str]) -> Value {
    for key in keys {
        body.as_object_mut().unwrap().remove(*key).unwrap_or_else(|| panic!("expected the field {key}, got none"));
    }
    body
}

#[tokio::test(start_paused = true)]
async fn event_responses_match() {
    let setup = setup(Quirks::all(), &json!({"event_triggers": ["order:*"]})).await;
    let event =
        json!({"key": "order:1", "payload": "{\"n\": 1}", "additional_metadata": "{\"a\": \"x\"}", "scope": "s"});
    let response = setup.wire.call("EventsService.Push", &event).await.unwrap();
    assert_eq!(
        (&response["key"], &response["payload"], &response["additional_metadata"]),
        (&event["key"], &event["payload"], &event["additional_metadata"])
    );
    assert_eq!((&response["scope"], &response["tenant_id"]), (&Value::Null, &json!(setup.tenant)));
    let path = format!("stable/tenants/{{t}}/events/{}", response["event_id"].as_str().unwrap());
    assert_eq!(setup.send(Method::GET, &path, None).await, (404, json!({"message": "not found"})));
    sleep(Duration::from_millis(120)).await;
    assert_eq!(setup.get(&path).await["triggeredRuns"], Value::Null, "its runs appear later");
    sleep(Duration::from_millis(130)).await;
    let shown = setup.get(&path).await;
    assert_eq!(shown["seenAt"], shown["metadata"]["createdAt"]);
    let run = shown["triggeredRuns"][0]["workflowRunId"].clone();
    assert_eq!(
        without(shown, &["metadata", "seenAt", "triggeredRuns"]),
        json!({
            "key": "order:1", "payload": {"n": 1}, "additionalMetadata": {"a": "x"}, "scope": "s", "tenantId": "", "triggeringWebhookName": "",
            "workflowRunSummary": {"queued": 1, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0},
        })
    );
    // The runs of an event are found by a list.
    let list = format!(
        "stable/tenants/{{t}}/workflow-runs?since=2000-01-01&only_tasks=false&triggering_event_external_id={}",
        response["event_id"].as_str().unwrap()
    );
    assert_eq!(setup.get(&list).await["rows"][0]["workflowRunExternalId"], run);

    setup.wire.call("EventsService.Push", &json!({"key": "", "payload": ""})).await.unwrap();
    sleep(Duration::from_millis(120)).await;
    let rows = setup.get("stable/tenants/{t}/events").await;
    assert_eq!(rows["pagination"], json!({"current_page": 1, "next_page": 1, "num_pages": 1}));
    assert_eq!((&rows["rows"][0]["key"], &rows["rows"][0]["triggeredRuns"]), (&json!(""), &Value::Null));
    for (query, count) in [
        ("keys=order:1", 1),
        ("keys=order:*", 0),
        ("scopes=s", 1),
        ("scopes=t", 0),
        ("additionalMetadata=a:x", 1),
        ("additionalMetadata=a:x&additionalMetadata=b:y", 0),
        ("workflowRunStatuses=QUEUED", 1),
        ("workflowRunStatuses=FAILED", 0),
        ("offset=1", 1),
    ] {
        let found = setup.get(&format!("stable/tenants/{{t}}/events?{query}")).await;
        assert_eq!(found["rows"].as_array().unwrap().len(), count, "{query}");
    }
    for query in ["additionalMetadata=bad", "limit=0", "limit=-1"] {
        let response = setup.send(Method::GET, &format!("stable/tenants/{{t}}/events?{query}"), None).await;
        assert_eq!(response, (500, json!({"message": "Internal Server Error"})), "{query}");
    }
    assert_eq!(
        setup.send(Method::GET, "stable/tenants/{t}/events/zz", None).await,
        (400, json!({"message": "invalid event id"}))
    );
    let deprecated = json!({"errors": [{"description": "EventCreate is deprecated"}]});
    assert_eq!(setup.send(Method::POST, "tenants/{t}/events", Some(json!({}))).await, (400, deprecated));
}

#[tokio::test(start_paused = true)]
async fn invalid_events_are_rejected() {
    let setup = setup(Quirks::all(), &json!({})).await;
    let valid = json!({"key": "k", "payload": "{}"});
    let with = |change: Value| merged(&valid, &change);
    for (change, text) in [
        (json!({"payload": "{"}), "Invalid request: invalid json in field `payload`"),
        (
            json!({"payload": "\"\\u0000\""}),
            "Invalid request: encoded jsonb contains invalid null character \\u0000 in field `payload`",
        ),
        (json!({"additional_metadata": "{"}), "Invalid request: invalid json in field `additionalMetadata`"),
        (json!({"priority": 0}), "priority must be between 1 and 3, got 0"),
        (json!({"priority": 4}), "priority must be between 1 and 3, got 4"),
    ] {
        let expected = (Code::InvalidArgument, text.to_owned());
        assert_eq!(setup.rejected("EventsService.Push", &with(change.clone())).await, expected);
        let bulk = json!({"events": [valid, with(change)]});
        assert_eq!(setup.rejected("EventsService.BulkPush", &bulk).await, expected);
    }
    for (events, text) in [
        (vec![], "No events to ingest"),
        (vec![valid.clone(); 1001], "Invalid request: too many events - 1001 is over maximum (1000)"),
        (
            vec![with(json!({"key": ""}))],
            "Invalid request: events failing validation error 400: 1 error occurred:\n\t* validation failed on field 'CreateEventOpts.Key': on condition 'required'\n\n",
        ),
    ] {
        let expected = (Code::InvalidArgument, text.to_owned());
        assert_eq!(setup.rejected("EventsService.BulkPush", &json!({ "events": events })).await, expected);
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.get("stable/tenants/{t}/events").await["rows"], json!([]), "no event was stored");
    let keys: Vec<_> = (0..1000).map(|n| json!({"key": format!("{n}"), "payload": "{}"})).collect();
    let response = setup.wire.call("EventsService.BulkPush", &json!({ "events": keys })).await.unwrap();
    let keys_of_response: Vec<_> = response["events"].as_array().unwrap().iter().map(|event| &event["key"]).collect();
    assert_eq!(keys_of_response, keys.iter().map(|event| &event["key"]).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn schedule_responses_match() {
    let setup = setup(Quirks::all(), &json!({})).await;
    let create = format!("tenants/{{t}}/workflows/{NAME}/scheduled");
    let body = json!({"triggerAt": "2130-01-01T00:00:00.123456Z", "input": {"b": 1, "a": 2}, "additionalMetadata": {"k": "v"}});
    let (status, created) = setup.send(Method::POST, &create, Some(body)).await;
    assert_eq!(status, 200);
    let id = created["metadata"]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        without(created.clone(), &["metadata", "workflowId", "workflowVersionId"]),
        json!({
            "additionalMetadata": {"k": "v"}, "input": {"a": 2, "b": 1}, "method": "API", "priority": 1, "tenantId": setup.tenant,
            "triggerAt": "2130-01-01T00:00:00.123Z", "workflowName": NAME, "workflowRunCreatedAt": "0001-01-01T00:00:00Z", "workflowRunName": "",
        })
    );
    let one = format!("tenants/{{t}}/workflows/scheduled/{id}");
    assert_eq!(setup.get(&one).await, created);
    let request = json!({"name": NAME, "input": "{}", "schedules": ["2131-01-01T00:00:00Z", "2131-01-01T00:00:00Z"]});
    let version = setup.wire.call("WorkflowService.ScheduleWorkflow", &request).await.unwrap();
    assert_eq!(version["scheduled_workflows"].as_array().unwrap().len(), 2);
    assert_eq!(version["id"], created["workflowVersionId"]);
    for (query, count, pages) in [
        ("", 3, 1),
        ("limit=2", 2, 2),
        ("limit=2&offset=2", 1, 2),
        ("additionalMetadata=k:v", 1, 1),
        ("statuses=SCHEDULED", 3, 1),
        ("statuses=RUNNING", 0, 0),
    ] {
        let list = setup.get(&format!("tenants/{{t}}/workflows/scheduled?{query}")).await;
        assert_eq!(
            (list["rows"].as_array().unwrap().len(), &list["pagination"]["num_pages"]),
            (count, &json!(pages)),
            "{query}"
        );
    }
    let list = setup.get("tenants/{t}/workflows/scheduled").await;
    assert_eq!(list["rows"][2]["metadata"]["id"], json!(id), "the latest schedule is first");
    assert_eq!(
        setup.get("tenants/{t}/workflows/scheduled?limit=0").await["pagination"]["current_page"],
        json!(i64::MIN + 1)
    );

    let (status, moved) = setup.send(Method::PATCH, &one, Some(json!({"triggerAt": "2130-02-01T00:00:00Z"}))).await;
    assert_eq!((status, &moved["triggerAt"]), (200, &json!("2130-02-01T00:00:00Z")));
    let (status, started) = setup.send(Method::POST, &one, None).await;
    assert!(status == 200 && started["externalId"].is_string());
    let not_found = (404, json!({"message": "scheduled workflow run not found"}));
    for method in [Method::POST, Method::GET, Method::DELETE, Method::PATCH] {
        assert_eq!(setup.send(method, &one, None).await, not_found);
    }
    let others: Vec<_> =
        version["scheduled_workflows"].as_array().unwrap().iter().map(|row| row["id"].clone()).collect();
    let update = json!({"updates": [{"id": others[0], "triggerAt": "2132-01-01T00:00:00Z"}, {"id": id, "triggerAt": "2132-01-01T00:00:00Z"}]});
    let (_, updated) = setup.send(Method::POST, "tenants/{t}/workflows/scheduled/bulk-update", Some(update)).await;
    assert_eq!(
        updated,
        json!({"errors": [{"error": "Scheduled workflow not found.", "id": id}], "updatedIds": [others[0]]})
    );
    let delete = json!({"scheduledWorkflowRunIds": [others[0], id]});
    let (_, deleted) = setup.send(Method::POST, "tenants/{t}/workflows/scheduled/bulk-delete", Some(delete)).await;
    assert_eq!(
        deleted,
        json!({"errors": [{"error": "Failed to delete scheduled workflow.", "id": id}], "deletedIds": [others[0]]})
    );
    let other = format!("tenants/{{t}}/workflows/scheduled/{}", others[1].as_str().unwrap());
    assert_eq!(setup.send(Method::DELETE, &other, None).await.0, 204);
    assert_eq!(
        setup.get("tenants/{t}/workflows/scheduled").await["pagination"],
        json!({"current_page": 1, "next_page": 2, "num_pages": 0})
    );
}

#[tokio::test(start_paused = true)]
async fn invalid_schedules_are_rejected() {
    let setup = setup(Quirks::all(), &json!({})).await;
    let described = |text: &str| (400, json!({"errors": [{"description": text}]}));
    let create = format!("tenants/{{t}}/workflows/{NAME}/scheduled");
    for (body, response) in [
        (
            json!({"triggerAt": "2030-01-01T00:00:00Z", "priority": 9}),
            described(
                "error 400: 1 error occurred:\n\t* validation failed on field 'CreateScheduledWorkflowRunForWorkflowOpts.Priority': on condition 'max' [ 3 ]: got invalid type\n\n",
            ),
        ),
        (
            json!({}),
            described(
                "ERROR: null value in column \"triggerAt\" of relation \"WorkflowTriggerScheduledRef\" violates not-null constraint (SQLSTATE 23502)",
            ),
        ),
        (
            json!({"triggerAt": "soon"}),
            (
                400,
                json!({"message": "parsing time \"soon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"soon\" as \"2006\""}),
            ),
        ),
    ] {
        assert_eq!(setup.send(Method::POST, &create, Some(body)).await, response);
    }
    let unknown = setup
        .send(
            Method::POST,
            "tenants/{t}/workflows/unknown/scheduled",
            Some(json!({"triggerAt": "2030-01-01T00:00:00Z"})),
        )
        .await;
    assert_eq!(unknown, described("workflow not found"));
    let bulk = "tenants/{t}/workflows/scheduled/bulk-delete";
    assert_eq!(
        setup.send(Method::POST, bulk, Some(json!({}))).await,
        described("Provide scheduledWorkflowRunIds or filter.")
    );
    let both = json!({"scheduledWorkflowRunIds": [], "filter": {}});
    assert_eq!(
        setup.send(Method::POST, bulk, Some(both)).await,
        described("Provide either scheduledWorkflowRunIds or filter, not both.")
    );
    let list = setup.send(Method::GET, "tenants/{t}/workflows/scheduled?additionalMetadata=kv", None).await;
    assert_eq!(list, described("Additional metadata filters must be in the format key:value."));
    let malformed = setup.send(Method::PATCH, "tenants/{t}/workflows/scheduled/zz", Some(json!({}))).await;
    assert_eq!(malformed, (400, json!({"message": "invalid scheduled workflow run id"})));

    let rpc = "WorkflowService.ScheduleWorkflow";
    let with = |name: &str, value: Value| {
        let mut request = json!({"name": NAME, "input": "{}", "schedules": ["2131-01-01T00:00:00Z"]});
        request[name] = value;
        request
    };
    for (request, code, text) in [
        (with("name", json!("FX")), Code::NotFound, "workflow not found"),
        (with("input", json!("")), Code::Internal, "An internal error occurred."),
        (with("input", json!("{")), Code::InvalidArgument, "Invalid request: invalid json in field `payload`"),
        (
            with("additional_metadata", json!("{")),
            Code::InvalidArgument,
            "Invalid request: invalid json in field `additionalMetadata`",
        ),
        (with("priority", json!(5)), Code::InvalidArgument, "priority must be between 1 and 3, got 5"),
        (
            with("parent_id", json!("x")),
            Code::InvalidArgument,
            "parent task run id is required when parent id is provided",
        ),
    ] {
        assert_eq!(setup.rejected(rpc, &request).await, (code, text.to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn cron_responses_match() {
    let setup = setup(Quirks::all(), &json!({"cron_triggers": ["0 0 1 1 *"]})).await;
    let create = format!("tenants/{{t}}/workflows/{NAME}/crons");
    let body =
        json!({"cronExpression": "0 0 2 1 *", "cronName": "x", "input": {"b": 1}, "additionalMetadata": {"k": "v"}});
    let (status, created) = setup.send(Method::POST, &create, Some(body.clone())).await;
    assert_eq!(status, 200);
    assert_eq!(
        without(created.clone(), &["metadata", "workflowId", "workflowVersionId"]),
        json!({
            "additionalMetadata": {"k": "v"}, "cron": "0 0 2 1 *", "enabled": true, "input": {"b": 1}, "method": "API", "name": "x", "priority": 1,
            "tenantId": setup.tenant, "workflowName": NAME,
        })
    );
    let one = format!("tenants/{{t}}/workflows/crons/{}", created["metadata"]["id"].as_str().unwrap());
    assert_eq!(setup.get(&one).await, created);
    let list = setup.get("tenants/{t}/workflows/crons").await;
    let rows: Vec<_> = list["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["method"].as_str().unwrap(), row["name"].as_str().unwrap()))
        .collect();
    assert_eq!(rows, [("API", "x"), ("DEFAULT", "")]);
    assert_eq!(list["pagination"], json!({"current_page": 1, "next_page": 1, "num_pages": 1}));
    assert_eq!(
        setup.get("tenants/{t}/workflows/crons?cronName=x&workflowName=fx&additionalMetadata=k:v").await["rows"],
        json!([created])
    );

    let described = |text: &str| (400, json!({"errors": [{"description": text}]}));
    let with = |name: &str, value: Value| {
        let mut body = body.clone();
        body[name] = value;
        body
    };
    for (body, text) in [
        (body.clone(), "cron trigger with that name-expression pair already exists"),
        (with("cronName", json!("")), "cron name is required"),
        (with("priority", json!(9)), "error creating cron trigger"),
    ] {
        assert_eq!(setup.send(Method::POST, &create, Some(body)).await, described(text));
    }
    let (status, bad) = setup.send(Method::POST, &create, Some(with("cronExpression", json!("not a cron")))).await;
    assert_eq!((status, &bad["cron"]), (200, &json!("not a cron")));
    sleep(Duration::from_secs(1)).await;
    let broken = (500, json!({"message": "Internal Server Error"}));
    let bad = format!("tenants/{{t}}/workflows/crons/{}", bad["metadata"]["id"].as_str().unwrap());
    assert_eq!(
        setup.send(Method::GET, &bad, None).await,
        broken,
        "the cron has disappeared, and the server fails for unknown crons"
    );

    assert_eq!(setup.send(Method::PATCH, &one, Some(json!({"enabled": false}))).await.0, 204);
    assert_eq!(setup.get(&one).await["enabled"], json!(false));
    let (status, started) = setup.send(Method::POST, &one, None).await;
    assert!(status == 200 && started["externalId"].is_string());
    assert_eq!(setup.send(Method::DELETE, &one, None).await.0, 204);
    assert_eq!(setup.send(Method::DELETE, &one, None).await, broken);
    assert_eq!(
        setup.send(Method::GET, "tenants/{t}/workflows/crons/zz", None).await,
        (400, json!({"message": "invalid cron workflow id"}))
    );
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

#[tokio::test(start_paused = true)]
async fn collisions_name_the_existing_run() {
    use hatchet::raw::pb::v1::{BulkTriggerIdempotencyCollisionError, IdempotencyCollisionError};
    let setup = setup(Quirks::all(), &json!({"idempotency": {"expression": "input.key", "ttl_ms": 8000}})).await;
    let trigger = |key: &str| json!({"name": NAME, "input": json!({"key": key}).to_string()});
    let first =
        setup.wire.call("WorkflowService.TriggerWorkflow", &trigger("a")).await.unwrap()["workflow_run_id"].clone();
    let read = |status: &tonic::Status| {
        assert_eq!((status.code(), status.message()), (Code::AlreadyExists, "idempotency key collision"));
        let RpcStatus { code, message, mut details } = RpcStatus::decode(status.details()).unwrap();
        assert_eq!((code, message.as_str(), details.len()), (6, "idempotency key collision", 1));
        details.remove(0)
    };
    let single = read(&setup.wire.call("WorkflowService.TriggerWorkflow", &trigger("a")).await.unwrap_err());
    assert_eq!(single.type_url, "type.googleapis.com/v1.IdempotencyCollisionError");
    let single = IdempotencyCollisionError::decode(&*single.value).unwrap();
    assert_eq!(
        (json!(single.existing_run_external_id), single.colliding_run_external_id.as_str()),
        (first.clone(), "")
    );
    let bulk = json!({"workflows": [trigger("b"), trigger("a"), trigger("c")]});
    let bulk = read(&setup.wire.call("WorkflowService.BulkTriggerWorkflow", &bulk).await.unwrap_err());
    assert_eq!(bulk.type_url, "type.googleapis.com/v1.BulkTriggerIdempotencyCollisionError");
    let bulk = BulkTriggerIdempotencyCollisionError::decode(&*bulk.value).unwrap();
    assert_eq!((bulk.successful_workflow_run_external_ids.len(), bulk.collisions.len()), (2, 1));
    assert_eq!(json!(bulk.collisions[0].existing_run_external_id), first);
    sleep(Duration::from_secs(1)).await;
    for tasks in [true, false] {
        let list = format!("stable/tenants/{{t}}/workflow-runs?since=2000-01-01&only_tasks={tasks}&idempotency_keys=b");
        assert_eq!(setup.get(&list).await["rows"][0]["idempotencyKey"], json!("b"));
    }
}

#[tokio::test(start_paused = true)]
async fn dags_are_found_by_their_event_and_their_key() {
    let setup = Setup::new(Quirks::all(), 7).await;
    let mut definition = workflow(&Value::Null, NAME, &json!({"parents": {"a": [], "b": ["a"]}, "on_failure": "f"}));
    let more = json!({"event_triggers": ["k"], "idempotency": {"expression": "input.key", "ttl_ms": 8000}});
    definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    setup.put(&definition).await;
    let event = json!({"key": "k", "payload": json!({"key": "x"}).to_string()});
    let event = setup.wire.call("EventsService.Push", &event).await.unwrap()["event_id"].clone();
    sleep(Duration::from_secs(1)).await;
    let run = setup.get(&format!("stable/tenants/{{t}}/events/{}", event.as_str().unwrap())).await["triggeredRuns"][0]
        ["workflowRunId"]
        .clone();
    setup.wire.call("v1.AdminService.CancelTasks", &json!({"external_ids": [run]})).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let rows = async |tasks: bool, filter: &str| {
        let list = format!("stable/tenants/{{t}}/workflow-runs?since=2000-01-01&only_tasks={tasks}&{filter}");
        setup.get(&list).await["rows"].as_array().unwrap().clone()
    };
    // Only the first task has the key, and no task is found by the event.
    let by_event = format!("triggering_event_external_id={}", event.as_str().unwrap());
    assert_eq!(rows(true, &by_event).await, Vec::<Value>::new());
    for filter in [by_event.as_str(), "idempotency_keys=x"] {
        let [row] = rows(false, filter).await.try_into().unwrap();
        assert_eq!((&row["workflowRunExternalId"], &row["idempotencyKey"]), (&run, &json!("x")), "{filter}");
        let mut keys: Vec<_> = row["children"].as_array().unwrap().iter().map(|task| &task["idempotencyKey"]).collect();
        keys.sort_by_key(|key| key.is_null());
        assert_eq!(keys, [&json!("x"), &Value::Null, &Value::Null], "{filter}");
    }
    let [task] = rows(true, "idempotency_keys=x").await.try_into().unwrap();
    assert!(task["displayName"].as_str().unwrap().starts_with("a-"), "{task}");
    assert_eq!(rows(true, "idempotency_keys=y").await, Vec::<Value>::new());
}
