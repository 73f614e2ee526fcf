//! Measured behavior of features that only REST has: event filters, triggers, and the deletion of workflows. With all quirks.

use std::time::Duration;

use base64::Engine as _;
use hatchet::embedded::{Quirk, Quirks};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::recording::workflow;
use super::setup::{Setup, merged, registration};

const NAME: &str = "fx";
const FILTERS: &str = "stable/tenants/{t}/filters";
const TRIGGER: &str = "stable/tenants/{t}/workflow-runs/trigger";

fn broken() -> (u16, Value) {
    (500, json!({"message": "Internal Server Error"}))
}

fn not_found() -> (u16, Value) {
    (404, json!({"message": "not found"}))
}

impl Setup {
    async fn id_of_workflow(&self) -> String {
        self.rows("tenants/{t}/workflows").await[0]["metadata"]["id"].as_str().unwrap().to_owned()
    }

    /// Pushes an event, and returns the filters of its runs.
    async fn filters_of_runs(&self, scope: Option<&str>) -> Vec<Value> {
        let mut event = json!({"key": "k", "payload": "{\"n\": 1}"});
        if let Some(scope) = scope {
            event["scope"] = scope.into();
        }
        let id = self.wire.call("EventsService.Push", &event).await.unwrap()["event_id"].clone();
        sleep(Duration::from_secs(1)).await;
        let shown = self.get(&format!("stable/tenants/{{t}}/events/{}", id.as_str().unwrap())).await;
        let runs = shown["triggeredRuns"].as_array().cloned().unwrap_or_default();
        runs.iter().map(|run| run["filterId"].clone()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn filters_are_created_changed_and_deleted() {
    let setup = Setup::with_workflow(Quirks::all(), NAME, &json!({"event_triggers": ["k"]})).await;
    let workflow = setup.id_of_workflow().await;
    assert_eq!(setup.filters_of_runs(None).await, [Value::Null], "without a filter, each event starts a run");

    let body = json!({"workflowId": workflow, "scope": "a", "expression": "input.n == 1.0"});
    let (status, mut created) = setup.send(Method::POST, FILTERS, Some(body.clone())).await;
    let metadata = created.as_object_mut().unwrap().remove("metadata").unwrap();
    let id = metadata["id"].as_str().unwrap().to_owned();
    assert_eq!(metadata["createdAt"], metadata["updatedAt"]);
    let mut shown = json!({
        "expression": "input.n == 1.0", "isDeclarative": false, "payload": {}, "scope": "a", "tenantId": setup.tenant,
        "workflowId": workflow,
    });
    assert_eq!((status, &created), (200, &shown));
    assert_eq!(
        setup.send(Method::POST, FILTERS, Some(body.clone())).await,
        broken(),
        "a filter with the same fields exists"
    );
    for (field, value) in [("expression", json!("input.v >")), ("workflowId", json!(setup.tenant))] {
        let unchecked = merged(&body, &json!({field: value}));
        assert_eq!(setup.send(Method::POST, FILTERS, Some(unchecked)).await.0, 200, "{field}");
    }
    assert_eq!(
        [
            setup.filters_of_runs(None).await,
            setup.filters_of_runs(Some("b")).await,
            setup.filters_of_runs(Some("a")).await
        ],
        [vec![], vec![], vec![json!(id)]]
    );

    let one = format!("{FILTERS}/{id}");
    sleep(Duration::from_secs(1)).await;
    let change = json!({"scope": "b", "payload": {"p": 1}});
    let (status, mut changed) = setup.send(Method::PATCH, &one, Some(change)).await;
    let touched = changed.as_object_mut().unwrap().remove("metadata").unwrap();
    assert!(touched["createdAt"] == metadata["createdAt"] && touched["updatedAt"] != metadata["updatedAt"]);
    shown = merged(&shown, &json!({"scope": "b", "payload": {"p": 1}}));
    assert_eq!((status, &changed), (200, &shown));
    assert_eq!(
        [setup.filters_of_runs(Some("a")).await, setup.filters_of_runs(Some("b")).await],
        [vec![], vec![json!(id)]]
    );

    let list = setup.get(FILTERS).await;
    assert_eq!(list["pagination"], json!({"current_page": 0, "next_page": 1, "num_pages": 1}));
    assert_eq!(list["rows"].as_array().unwrap().len(), 3);
    let rows = setup.rows(&format!("{FILTERS}?scopes=b&workflowIds={workflow}")).await;
    assert_eq!((rows.len(), &rows[0]["metadata"]["id"]), (1, &json!(id)));

    let (status, mut deleted) = setup.send(Method::DELETE, &one, None).await;
    deleted.as_object_mut().unwrap().remove("metadata");
    assert_eq!((status, &deleted), (200, &shown));
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        assert_eq!(setup.send(method, &one, Some(json!({}))).await, not_found());
    }
    assert!(setup.filters_of_runs(Some("b")).await.is_empty(), "the other filters have other scopes");
    let message = |text: &str| (400, json!({ "message": text }));
    assert_eq!(setup.send(Method::GET, &format!("{FILTERS}/zz"), None).await, message("invalid filter id"));
    let none = (400, json!({"errors": [{"description": "failed to list filters"}]}));
    assert_eq!(setup.send(Method::GET, &format!("{FILTERS}?limit=0"), None).await, none);
    for (body, text) in [
        (json!({"workflowId": "zz", "scope": "a", "expression": "true"}), "invalid UUID length: 2"),
        (json!({"scope": 1}), "Unmarshal type error: expected=string, got=number, field=scope, offset=10"),
        (json!([1]), "Unmarshal type error: expected=gen.V1CreateFilterRequest, got=array, field=, offset=1"),
    ] {
        assert_eq!(setup.send(Method::POST, FILTERS, Some(body)).await, message(text));
    }
}

#[tokio::test(start_paused = true)]
async fn only_filters_of_the_definition_are_replaced_by_a_new_version() {
    let defined =
        |scope: &str| json!({"event_triggers": ["k"], "default_filters": [{"expression": "true", "scope": scope}]});
    let setup = Setup::with_workflow(Quirks::all(), NAME, &defined("a")).await;
    let body = json!({"workflowId": setup.id_of_workflow().await, "scope": "b", "expression": "true"});
    assert_eq!(setup.send(Method::POST, FILTERS, Some(body)).await.0, 200);
    let scopes = async || {
        let mut rows: Vec<_> =
            setup.rows(FILTERS).await.iter().map(|row| (row["scope"].clone(), row["isDeclarative"].clone())).collect();
        rows.sort_by_key(|(scope, _)| scope.to_string());
        rows
    };
    assert_eq!(scopes().await, [(json!("a"), json!(true)), (json!("b"), json!(false))]);
    setup.put(&merged(&workflow(&Value::Null, NAME, &Value::Null), &defined("c"))).await;
    assert_eq!(scopes().await, [(json!("b"), json!(false)), (json!("c"), json!(true))]);
    assert_eq!([setup.filters_of_runs(Some("a")).await.len(), setup.filters_of_runs(Some("b")).await.len()], [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn checksum_expressions_are_never_true() {
    let filter = json!({"expression": "checksum(input.n) == 'x'", "scope": "a"});
    let setup =
        Setup::with_workflow(Quirks::all(), NAME, &json!({"event_triggers": ["k"], "default_filters": [filter]})).await;
    assert!(setup.filters_of_runs(Some("a")).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn triggers_wait_until_rest_shows_the_run() {
    for (quirks, millis) in [(Quirks::all(), 1000), (Quirks::all().without(Quirk::RestLag), 0)] {
        let setup =
            Setup::with_workflow(quirks, NAME, &json!({"idempotency": {"expression": "input.key", "ttl_ms": 8000}}))
                .await;
        setup.completing_worker(&registration(NAME)).await;
        sleep(Duration::from_secs(1)).await;
        let body =
            json!({"workflowName": NAME, "input": {"key": "a"}, "additionalMetadata": {"m": "x"}, "priority": 2});
        let start = Instant::now();
        let (status, shown) = setup.send(Method::POST, TRIGGER, Some(body.clone())).await;
        assert_eq!((status, start.elapsed()), (200, Duration::from_millis(millis)));
        let id = shown["run"]["metadata"]["id"].as_str().unwrap();
        sleep(Duration::from_secs(1)).await;
        let run = setup.get(&format!("stable/workflow-runs/{id}")).await["run"].clone();
        assert_eq!(
            (&run["status"], &run["input"]["input"], &run["additionalMetadata"]["m"]),
            (&json!("COMPLETED"), &json!({"key": "a"}), &json!("x"))
        );
        assert_eq!(setup.send(Method::POST, TRIGGER, Some(body)).await, broken(), "its idempotency key is held");
    }
}

#[tokio::test(start_paused = true)]
async fn triggers_of_runs_that_are_never_created_time_out() {
    let setup =
        Setup::with_workflow(Quirks::all(), NAME, &json!({"idempotency": {"expression": "input.key", "ttl_ms": 8000}}))
            .await;
    for (workflow, input) in [("unknown", json!({})), ("", json!({})), (NAME, json!({"key": 1}))] {
        let body = json!({"workflowName": workflow, "input": input});
        let start = Instant::now();
        assert_eq!(setup.send(Method::POST, TRIGGER, Some(body.clone())).await, broken());
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        let (status, shown) =
            setup.send(Method::POST, TRIGGER, Some(merged(&body, &json!({"return_only_id": true})))).await;
        assert_eq!((status, &shown["run"]["status"], start.elapsed()), (200, &json!(""), Duration::from_secs(10)));
        sleep(Duration::from_secs(1)).await;
        let id = shown["run"]["metadata"]["id"].as_str().unwrap();
        assert_eq!(setup.send(Method::GET, &format!("stable/workflow-runs/{id}"), None).await, not_found());
    }
}

#[tokio::test(start_paused = true)]
async fn deleted_workflows_lose_their_triggers_and_keep_their_runs() {
    let setup =
        Setup::with_workflow(Quirks::all(), NAME, &json!({"event_triggers": ["k"], "cron_triggers": ["0 0 1 1 *"]}))
            .await;
    let run = setup.trigger(NAME, &json!({})).await.unwrap();
    let path = format!("workflows/{}", setup.id_of_workflow().await);
    let shown = setup.get(&path).await;
    let version = &shown["versions"][0];
    assert_eq!(
        (&shown["name"], &shown["tenantId"], &version["workflowId"], &version["version"]),
        (&json!(NAME), &json!(setup.tenant), &shown["metadata"]["id"], &json!(""))
    );
    assert!(version["order"].as_i64().unwrap() > 0 && shown["versions"].as_array().unwrap().len() == 1);
    let filter = json!({"workflowId": shown["metadata"]["id"], "scope": "a", "expression": "true"});
    let filter = setup.send(Method::POST, FILTERS, Some(filter)).await.1["metadata"]["id"].clone();
    let later = json!({"triggerAt": "2100-01-01T00:00:00Z"});
    let (_, schedule) =
        setup.send(Method::POST, &format!("tenants/{{t}}/workflows/{NAME}/scheduled"), Some(later)).await;
    let schedule = format!("tenants/{{t}}/workflows/scheduled/{}", schedule["metadata"]["id"].as_str().unwrap());
    assert_eq!(setup.send(Method::GET, &schedule, None).await.0, 200);

    assert_eq!(setup.send(Method::DELETE, &path, None).await.0, 204);
    assert_eq!(setup.send(Method::DELETE, &path, None).await, not_found());
    assert_eq!(setup.send(Method::GET, &path, None).await, not_found());
    assert_eq!(
        setup.send(Method::GET, &schedule, None).await,
        (404, json!({"message": "scheduled workflow run not found"}))
    );
    assert!(setup.rows("tenants/{t}/workflows/crons").await.is_empty());
    assert_eq!(setup.rows(FILTERS).await[0]["metadata"]["id"], filter, "filters are kept");
    assert!(setup.filters_of_runs(None).await.is_empty());
    assert_eq!(setup.get(&format!("stable/workflow-runs/{run}")).await["run"]["status"], json!("QUEUED"));
    assert_eq!(setup.send(Method::DELETE, "workflows/x", None).await, (400, json!({"message": "invalid workflow id"})));
}

#[tokio::test(start_paused = true)]
async fn duplicate_filters_are_rejected() {
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
    let setup = Setup::new(Quirks::all(), 7).await;
    let put = async |filters| setup.wire.call("v1.AdminService.PutWorkflow", &definition(filters)).await;
    assert_eq!(put(vec![filter("{}"), filter("{}")]).await.unwrap_err().message(), "An internal error occurred.");
    put(vec![filter("{}"), filter("{\"p\":1}")]).await.unwrap();
    let body = |payload: Value| {
        let workflow = async || setup.id_of_workflow().await;
        async move { json!({"workflowId": workflow().await, "scope": "a", "expression": "true", "payload": payload}) }
    };
    assert_eq!(setup.send(Method::POST, FILTERS, Some(body(json!({"p": 1})).await)).await, broken());
    assert_eq!(setup.send(Method::POST, FILTERS, Some(body(json!({"p": 2})).await)).await.0, 200);
    assert_eq!(setup.filters_of_runs(Some("a")).await.len(), 3);
    // A version must not contain a filter that REST has created. Storing the same version again changes nothing.
    assert!(put(vec![filter("{\"p\":2}")]).await.is_err());
    put(vec![filter("{}"), filter("{\"p\":1}")]).await.unwrap();
    assert_eq!(setup.rows(FILTERS).await.len(), 3);
}
