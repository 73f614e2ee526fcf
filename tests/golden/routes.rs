//! The responses of routes that are in no recording.

use std::time::Duration;

use chrono::{DateTime, Utc};
use hatchet::embedded::Quirks;
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::setup::{Setup, merged, registration};

const NAME: &str = "rt";

async fn setup() -> Setup {
    Setup::with_workflow(Quirks::all(), NAME, &json!({})).await
}

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(Value::to_string);
    rows
}

#[tokio::test(start_paused = true)]
async fn event_keys_are_those_of_the_last_day() {
    let setup = setup().await;
    let keys = async || sorted(setup.rows("stable/tenants/{t}/events/keys").await);
    assert_eq!(setup.get("stable/tenants/{t}/events/keys").await, json!({"rows": []}));
    let push = async |key: &str| {
        let event = json!({"key": key, "payload": "{}"});
        setup.wire.call("EventsService.Push", &event).await.unwrap();
    };
    for key in ["b:2", "a:1", "b:2"] {
        push(key).await;
    }
    // A key appears with its event.
    assert_eq!(keys().await, Vec::<Value>::new());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(keys().await, ["a:1", "b:2"]);
    sleep(Duration::from_secs(23 * 3600)).await;
    push("b:2").await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(keys().await, ["b:2"]);
}

#[tokio::test(start_paused = true)]
async fn workers_are_listed_with_their_details() {
    let setup = setup().await;
    let runtime =
        json!({"sdk_version": "1.2.3", "language": "PYTHON", "language_version": "3.12", "os": "linux", "extra": "x"});
    let more = json!({
        "worker_name": "one", "runtime_info": runtime, "slot_config": {"default": 3, "durable": 2},
        "labels": {"zone": {"str_value": "eu"}, "size": {"int_value": 7}},
    });
    let (one, received) = setup.worker(&merged(&registration(NAME), &more)).await;
    sleep(Duration::from_secs(1)).await;
    let other = json!({"worker_name": "two", "actions": ["rt:work", "rt:rest"], "slots": 5});
    let two = setup.wire.call("Dispatcher.Register", &other).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    setup.trigger(NAME, &json!({})).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(received.messages().len(), 1);
    // A worker without a heartbeat is not listed.
    let listed = setup.get("tenants/{t}/worker").await;
    assert_eq!(listed["pagination"], json!({"current_page": 1, "next_page": 1, "num_pages": 1}));
    let rows = listed["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{listed}");
    let row = &rows[0];
    let timestamp = |pointer: &str| row.pointer(pointer).unwrap().as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    assert!(timestamp("/lastHeartbeatAt") > timestamp("/metadata/createdAt"), "{row}");
    let label = |key: &str, value: &str| {
        let nil = "00000000-0000-0000-0000-000000000000";
        let created = &row["metadata"]["createdAt"];
        json!({"metadata": {"id": nil, "createdAt": created, "updatedAt": created}, "key": key, "value": value})
    };
    let expected = json!({
        "metadata": {"id": one["worker_id"], "createdAt": row["metadata"]["createdAt"], "updatedAt": row["metadata"]["updatedAt"]},
        "actions": ["rt:work"],
        "dispatcherId": row["dispatcherId"],
        "labels": [label("size", "7"), label("zone", "eu")],
        "lastHeartbeatAt": row["lastHeartbeatAt"],
        "name": "one",
        "runtimeInfo": {"language": "PYTHON", "languageVersion": "3.12", "os": "linux", "runtimeExtra": "x", "sdkVersion": "1.2.3"},
        "slotConfig": {"default": {"available": 2, "limit": 3}, "durable": {"available": 2, "limit": 2}},
        "status": "ACTIVE",
        "type": "SELFHOSTED",
    });
    assert_eq!(*row, expected);

    // The details of a worker also contain its workflows. The response to a pause has neither labels nor actions.
    let path = format!("workers/{}", one["worker_id"].as_str().unwrap());
    let details = setup.get(&path).await;
    assert_eq!(details["registeredWorkflows"][0]["name"], NAME);
    assert_eq!(details["recentStepRuns"], json!([]));
    let (status, paused) = setup.send(Method::PATCH, &path, Some(json!({"isPaused": true}))).await;
    assert_eq!((status, &paused["status"], &paused["actions"]), (200, &json!("PAUSED"), &Value::Null));
    assert!(paused.get("labels").is_none());

    // The second one sends a heartbeat: newest first.
    let heartbeat = json!({"worker_id": two["worker_id"]});
    setup.wire.call("Dispatcher.Heartbeat", &heartbeat).await.unwrap();
    let names = async |query: &str| {
        let rows = setup.rows(&format!("tenants/{{t}}/worker{query}")).await;
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("").await, ["two", "one"]);
    assert_eq!(names("?limit=1").await, ["two"]);
    assert_eq!(names("?limit=1&offset=1").await, ["one"]);
    assert_eq!(names("?statuses=PAUSED").await, ["one"]);
    assert_eq!(names("?statuses=PAUSED&statuses=ACTIVE").await, ["two", "one"]);
    assert_eq!(names("?labels=zone:eu&labels=size:7").await, ["one"]);
    assert_eq!(names("?labels=zone:us").await, Vec::<String>::new());
    let (status, body) = setup.send(Method::GET, "tenants/{t}/worker?labels=zone:", None).await;
    let text = "invalid label filter format: zone:, expected key:value";
    assert_eq!((status, body), (400, json!({"errors": [{"description": text}]})));
    // INACTIVE takes precedence over PAUSED. After a day without a heartbeat a worker is not listed.
    sleep(Duration::from_secs(6)).await;
    assert_eq!(names("?statuses=INACTIVE").await, ["two"]);
    sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(names("").await, ["one"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_actions_is_500() {
    let setup = setup().await;
    let worker = setup.wire.call("Dispatcher.Register", &json!({"worker_name": "idle"})).await.unwrap();
    let path = format!("workers/{}", worker["worker_id"].as_str().unwrap());
    assert_eq!(setup.send(Method::GET, &path, None).await, (500, json!({"message": "Internal Server Error"})));
}

#[tokio::test(start_paused = true)]
async fn the_tenant_has_version_v1() {
    let setup = setup().await;
    let tenant = setup.get("tenants/{t}").await;
    assert_eq!((&tenant["metadata"]["id"], &tenant["version"]), (&json!(setup.tenant), &json!("V1")));
    let created: DateTime<Utc> = tenant["metadata"]["createdAt"].as_str().unwrap().parse().unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(setup.get("tenants/{t}").await, tenant);
    // The time is written in milliseconds, rounded.
    assert!((setup.now() - created).num_milliseconds() >= 59_999);
}

#[tokio::test(start_paused = true)]
async fn the_id_of_an_updated_workflow_is_checked() {
    let setup = setup().await;
    let id = setup.rows("tenants/{t}/workflows").await[0]["metadata"]["id"].as_str().unwrap().to_owned();
    let update = async |id: &str| {
        let body = json!({"pause": {"action": "unpause"}});
        setup.send(Method::PATCH, &format!("workflows/{id}"), Some(body)).await
    };
    assert_eq!(update("zz").await, (400, json!({"message": "invalid workflow id"})));
    assert_eq!(update("1c2d3e4f-0000-4000-8000-000000000001").await, (404, json!({"message": "not found"})));
    assert_eq!(update(&id).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn cel_expressions_are_evaluated() {
    let setup = setup().await;
    let evaluate = async |body: Value| setup.send(Method::POST, "stable/tenants/{t}/cel/debug", Some(body)).await;
    let request = |expression: &str| {
        json!({
            "expression": expression, "input": {"n": 1, "list": []}, "additionalMetadata": {"m": "x"},
            "filterPayload": {"p": true},
        })
    };
    for (expression, output) in [
        ("input.n == 1", true),
        ("input.n > 1", false),
        ("additional_metadata.m == 'x' && payload.p", true),
        ("has(input.nothing)", false),
        ("string(input.n) in ['1', '2'] && size(input.list) == 0", true),
    ] {
        assert_eq!(
            evaluate(request(expression)).await,
            (200, json!({"status": "SUCCESS", "output": output})),
            "{expression}"
        );
    }
    for (expression, error) in [
        ("1", "expression did not evaluate to a boolean: got int"),
        ("input.n", "expression did not evaluate to a boolean: got double"),
        ("'x'", "expression did not evaluate to a boolean: got string"),
        ("null", "expression did not evaluate to a boolean: got null_type"),
        ("input", "expression did not evaluate to a boolean: got map"),
        ("input.list", "expression did not evaluate to a boolean: got list"),
    ] {
        assert_eq!(
            evaluate(request(expression)).await,
            (200, json!({"status": "ERROR", "error": error})),
            "{expression}"
        );
    }
    for (expression, error) in [
        ("input.nothing == 1", "no such key: nothing"),
        ("input.n * 2 == 2", "no such overload"),
        // These names are declared, but have no value.
        ("event_key == 'x'", "no such attribute(s): event_key"),
        ("event_id == 'x'", "no such attribute(s): event_id"),
    ] {
        let error = format!("failed to evaluate expression: {error}");
        assert_eq!(
            evaluate(request(expression)).await,
            (200, json!({"status": "ERROR", "error": error})),
            "{expression}"
        );
    }
    // The rest of the message comes from the server's CEL library.
    for (expression, start) in [
        ("input.v >", "failed to compile expression: "),
        ("", "failed to compile expression: "),
        ("unknown.x", "failed to compile expression: "),
        ("1 == 'x'", "failed to compile expression: "),
    ] {
        let (status, body) = evaluate(request(expression)).await;
        assert_eq!((status, &body["status"], body.get("output")), (200, &json!("ERROR"), None), "{expression}");
        assert!(body["error"].as_str().unwrap().starts_with(start), "{expression}: {body}");
    }
    let (status, body) = evaluate(request("'a'.matches('b')")).await;
    let text = "the embedded engine does not implement the CEL expression `'a'.matches('b')` yet";
    assert_eq!((status, body), (501, json!({"message": text})));
    // Absent objects are empty.
    assert_eq!(evaluate(json!({"expression": "has(input.n) || has(payload.p)"})).await.1["output"], false);
    let (status, body) = evaluate(json!({"expression": 1, "input": {}})).await;
    assert_eq!(status, 400, "{body}");
    assert!(body["message"].as_str().unwrap().starts_with("Unmarshal type error: expected=string, got=number"));
}
