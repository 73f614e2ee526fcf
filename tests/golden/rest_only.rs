//! What there is by REST only, and was measured: filters of events, triggers, the end of a workflow. All quirks are on.

use std::time::Duration;

use base64::Engine as _;
use hatchet::embedded::{Quirk, Quirks};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::recording::workflow;
use super::stage::{Stage, merged, registration};

const NAME: &str = "fx";
const FILTERS: &str = "stable/tenants/{t}/filters";
const TRIGGER: &str = "stable/tenants/{t}/workflow-runs/trigger";

fn broken() -> (u16, Value) {
    (500, json!({"message": "Internal Server Error"}))
}

fn not_found() -> (u16, Value) {
    (404, json!({"message": "not found"}))
}

impl Stage {
    async fn id_of_workflow(&self) -> String {
        self.rows("tenants/{t}/workflows").await[0]["metadata"]["id"].as_str().unwrap().to_owned()
    }

    /// Pushes an event, and tells its runs' filters.
    async fn filters_of_runs(&self, scope: Option<&str>) -> Vec<Value> {
        let mut event = json!({"key": "k", "payload": "{\"n\": 1}"});
        if let Some(scope) = scope {
            event["scope"] = scope.into();
        }
        let id = self.wire.call("EventsService.Push", &event).await.unwrap()["event_id"].clone();
        sleep(Duration::from_secs(1)).await;
        let shown = self.look(&format!("stable/tenants/{{t}}/events/{}", id.as_str().unwrap())).await;
        let runs = shown["triggeredRuns"].as_array().cloned().unwrap_or_default();
        runs.iter().map(|run| run["filterId"].clone()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn filters_are_made_changed_and_deleted() {
    let stage = Stage::with(Quirks::all(), NAME, &json!({"event_triggers": ["k"]})).await;
    let workflow = stage.id_of_workflow().await;
    assert_eq!(stage.filters_of_runs(None).await, [Value::Null], "no filter, and all goes through");

    let body = json!({"workflowId": workflow, "scope": "a", "expression": "input.n == 1.0"});
    let (status, mut made) = stage.send(Method::POST, FILTERS, Some(body.clone())).await;
    let metadata = made.as_object_mut().unwrap().remove("metadata").unwrap();
    let id = metadata["id"].as_str().unwrap().to_owned();
    assert_eq!(metadata["createdAt"], metadata["updatedAt"]);
    let mut shown = json!({
        "expression": "input.n == 1.0", "isDeclarative": false, "payload": {}, "scope": "a", "tenantId": stage.tenant,
        "workflowId": workflow,
    });
    assert_eq!((status, &made), (200, &shown));
    assert_eq!(stage.send(Method::POST, FILTERS, Some(body.clone())).await, broken(), "the same once more");
    for (field, value) in [("expression", json!("input.v >")), ("workflowId", json!(stage.tenant))] {
        let unchecked = merged(&body, &json!({field: value}));
        assert_eq!(stage.send(Method::POST, FILTERS, Some(unchecked)).await.0, 200, "{field}");
    }
    assert_eq!(
        [
            stage.filters_of_runs(None).await,
            stage.filters_of_runs(Some("b")).await,
            stage.filters_of_runs(Some("a")).await
        ],
        [vec![], vec![], vec![json!(id)]]
    );

    let one = format!("{FILTERS}/{id}");
    sleep(Duration::from_secs(1)).await;
    let change = json!({"scope": "b", "payload": {"p": 1}});
    let (status, mut changed) = stage.send(Method::PATCH, &one, Some(change)).await;
    let touched = changed.as_object_mut().unwrap().remove("metadata").unwrap();
    assert!(touched["createdAt"] == metadata["createdAt"] && touched["updatedAt"] != metadata["updatedAt"]);
    shown = merged(&shown, &json!({"scope": "b", "payload": {"p": 1}}));
    assert_eq!((status, &changed), (200, &shown));
    assert_eq!(
        [stage.filters_of_runs(Some("a")).await, stage.filters_of_runs(Some("b")).await],
        [vec![], vec![json!(id)]]
    );

    let list = stage.look(FILTERS).await;
    assert_eq!(list["pagination"], json!({"current_page": 0, "next_page": 1, "num_pages": 1}));
    assert_eq!(list["rows"].as_array().unwrap().len(), 3);
    let rows = stage.rows(&format!("{FILTERS}?scopes=b&workflowIds={workflow}")).await;
    assert_eq!((rows.len(), &rows[0]["metadata"]["id"]), (1, &json!(id)));

    let (status, mut deleted) = stage.send(Method::DELETE, &one, None).await;
    deleted.as_object_mut().unwrap().remove("metadata");
    assert_eq!((status, &deleted), (200, &shown));
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        assert_eq!(stage.send(method, &one, Some(json!({}))).await, not_found());
    }
    assert!(stage.filters_of_runs(Some("b")).await.is_empty(), "there is another one, of another scope");
    let message = |text: &str| (400, json!({ "message": text }));
    assert_eq!(stage.send(Method::GET, &format!("{FILTERS}/zz"), None).await, message("invalid filter id"));
    let none = (400, json!({"errors": [{"description": "failed to list filters"}]}));
    assert_eq!(stage.send(Method::GET, &format!("{FILTERS}?limit=0"), None).await, none);
    for (body, text) in [
        (json!({"workflowId": "zz", "scope": "a", "expression": "true"}), "invalid UUID length: 2"),
        (json!({"scope": 1}), "Unmarshal type error: expected=string, got=number, field=scope, offset=10"),
        (json!([1]), "Unmarshal type error: expected=gen.V1CreateFilterRequest, got=array, field=, offset=1"),
    ] {
        assert_eq!(stage.send(Method::POST, FILTERS, Some(body)).await, message(text));
    }
}

#[tokio::test(start_paused = true)]
async fn filters_of_a_definition_go_with_its_versions_and_others_stay() {
    let defined =
        |scope: &str| json!({"event_triggers": ["k"], "default_filters": [{"expression": "true", "scope": scope}]});
    let stage = Stage::with(Quirks::all(), NAME, &defined("a")).await;
    let body = json!({"workflowId": stage.id_of_workflow().await, "scope": "b", "expression": "true"});
    assert_eq!(stage.send(Method::POST, FILTERS, Some(body)).await.0, 200);
    let scopes = async || {
        let mut rows: Vec<_> =
            stage.rows(FILTERS).await.iter().map(|row| (row["scope"].clone(), row["isDeclarative"].clone())).collect();
        rows.sort_by_key(|(scope, _)| scope.to_string());
        rows
    };
    assert_eq!(scopes().await, [(json!("a"), json!(true)), (json!("b"), json!(false))]);
    stage.put(&merged(&workflow(&Value::Null, NAME, &Value::Null), &defined("c"))).await;
    assert_eq!(scopes().await, [(json!("b"), json!(false)), (json!("c"), json!(true))]);
    assert_eq!([stage.filters_of_runs(Some("a")).await.len(), stage.filters_of_runs(Some("b")).await.len()], [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn an_expression_that_calls_checksum_is_never_true() {
    let filter = json!({"expression": "checksum(input.n) == 'x'", "scope": "a"});
    let stage = Stage::with(Quirks::all(), NAME, &json!({"event_triggers": ["k"], "default_filters": [filter]})).await;
    assert!(stage.filters_of_runs(Some("a")).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_trigger_waits_until_the_run_can_be_shown() {
    for (quirks, millis) in [(Quirks::all(), 1000), (Quirks::all().without(Quirk::RestLag), 0)] {
        let stage =
            Stage::with(quirks, NAME, &json!({"idempotency": {"expression": "input.key", "ttl_ms": 8000}})).await;
        stage.ordinary_worker(&registration(NAME)).await;
        sleep(Duration::from_secs(1)).await;
        let body =
            json!({"workflowName": NAME, "input": {"key": "a"}, "additionalMetadata": {"m": "x"}, "priority": 2});
        let begun = Instant::now();
        let (status, shown) = stage.send(Method::POST, TRIGGER, Some(body.clone())).await;
        assert_eq!((status, begun.elapsed()), (200, Duration::from_millis(millis)));
        let id = shown["run"]["metadata"]["id"].as_str().unwrap();
        sleep(Duration::from_secs(1)).await;
        let run = stage.look(&format!("stable/workflow-runs/{id}")).await["run"].clone();
        assert_eq!(
            (&run["status"], &run["input"]["input"], &run["additionalMetadata"]["m"]),
            (&json!("COMPLETED"), &json!({"key": "a"}), &json!("x"))
        );
        assert_eq!(stage.send(Method::POST, TRIGGER, Some(body)).await, broken(), "its key is taken");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trigger_of_what_never_exists_is_waited_for_in_vain() {
    let stage =
        Stage::with(Quirks::all(), NAME, &json!({"idempotency": {"expression": "input.key", "ttl_ms": 8000}})).await;
    for (workflow, input) in [("nobody", json!({})), ("", json!({})), (NAME, json!({"key": 1}))] {
        let body = json!({"workflowName": workflow, "input": input});
        let begun = Instant::now();
        assert_eq!(stage.send(Method::POST, TRIGGER, Some(body.clone())).await, broken());
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
        let (status, shown) =
            stage.send(Method::POST, TRIGGER, Some(merged(&body, &json!({"return_only_id": true})))).await;
        assert_eq!((status, &shown["run"]["status"], begun.elapsed()), (200, &json!(""), Duration::from_secs(10)));
        sleep(Duration::from_secs(1)).await;
        let id = shown["run"]["metadata"]["id"].as_str().unwrap();
        assert_eq!(stage.send(Method::GET, &format!("stable/workflow-runs/{id}"), None).await, not_found());
    }
}

#[tokio::test(start_paused = true)]
async fn a_workflow_that_is_deleted_takes_what_starts_it_along_and_leaves_its_runs() {
    let stage =
        Stage::with(Quirks::all(), NAME, &json!({"event_triggers": ["k"], "cron_triggers": ["0 0 1 1 *"]})).await;
    let run = stage.trigger(NAME, &json!({})).await.unwrap();
    let path = format!("workflows/{}", stage.id_of_workflow().await);
    let shown = stage.look(&path).await;
    let version = &shown["versions"][0];
    assert_eq!(
        (&shown["name"], &shown["tenantId"], &version["workflowId"], &version["version"]),
        (&json!(NAME), &json!(stage.tenant), &shown["metadata"]["id"], &json!(""))
    );
    assert!(version["order"].as_i64().unwrap() > 0 && shown["versions"].as_array().unwrap().len() == 1);
    let filter = json!({"workflowId": shown["metadata"]["id"], "scope": "a", "expression": "true"});
    let filter = stage.send(Method::POST, FILTERS, Some(filter)).await.1["metadata"]["id"].clone();
    let later = json!({"triggerAt": "2100-01-01T00:00:00Z"});
    let (_, schedule) =
        stage.send(Method::POST, &format!("tenants/{{t}}/workflows/{NAME}/scheduled"), Some(later)).await;
    let schedule = format!("tenants/{{t}}/workflows/scheduled/{}", schedule["metadata"]["id"].as_str().unwrap());
    assert_eq!(stage.send(Method::GET, &schedule, None).await.0, 200);

    assert_eq!(stage.send(Method::DELETE, &path, None).await.0, 204);
    assert_eq!(stage.send(Method::DELETE, &path, None).await, not_found());
    assert_eq!(stage.send(Method::GET, &path, None).await, not_found());
    assert_eq!(
        stage.send(Method::GET, &schedule, None).await,
        (404, json!({"message": "scheduled workflow run not found"}))
    );
    assert!(stage.rows("tenants/{t}/workflows/crons").await.is_empty());
    assert_eq!(stage.rows(FILTERS).await[0]["metadata"]["id"], filter, "filters stay");
    assert!(stage.filters_of_runs(None).await.is_empty());
    assert_eq!(stage.look(&format!("stable/workflow-runs/{run}")).await["run"]["status"], json!("QUEUED"));
    assert_eq!(stage.send(Method::DELETE, "workflows/x", None).await, (400, json!({"message": "invalid workflow id"})));
}

#[tokio::test(start_paused = true)]
async fn filters_that_say_the_same_are_refused_and_those_of_another_payload_are_not() {
    let filter = |payload: &str| {
        let payload = base64::engine::general_purpose::STANDARD.encode(payload);
        json!({"expression": "true", "scope": "a", "payload": payload})
    };
    let definition = |filters: Vec<Value>| {
        merged(
            &workflow(&Value::Null, NAME, &Value::Null),
            &json!({"event_triggers": ["k"], "default_filters": filters}),
        )
    };
    let stage = Stage::set(Quirks::all(), 7).await;
    let put = async |filters| stage.wire.call("v1.AdminService.PutWorkflow", &definition(filters)).await;
    assert_eq!(put(vec![filter("{}"), filter("{}")]).await.unwrap_err().message(), "An internal error occurred.");
    put(vec![filter("{}"), filter("{\"p\":1}")]).await.unwrap();
    let body = |payload: Value| {
        let workflow = async || stage.id_of_workflow().await;
        async move { json!({"workflowId": workflow().await, "scope": "a", "expression": "true", "payload": payload}) }
    };
    assert_eq!(stage.send(Method::POST, FILTERS, Some(body(json!({"p": 1})).await)).await, broken());
    assert_eq!(stage.send(Method::POST, FILTERS, Some(body(json!({"p": 2})).await)).await.0, 200);
    assert_eq!(stage.filters_of_runs(Some("a")).await.len(), 3);
    // What REST has made, no new version may say as well; and the same version changes nothing.
    assert!(put(vec![filter("{\"p\":2}")]).await.is_err());
    put(vec![filter("{}"), filter("{\"p\":1}")]).await.unwrap();
    assert_eq!(stage.rows(FILTERS).await.len(), 3);
}
