//! Measured behavior of rate limits that is in no recording.

use std::time::Duration;

use hatchet::embedded::{Quirk, Quirks};
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::Code;

use super::setup::{Setup, registration};

const NAME: &str = "fx";
const UNKNOWN: &str = "Rate limit exceeded for key , attempting to consume 0 units, but only had 0 remaining";

fn workflow(limit: &Value) -> Value {
    let task =
        json!({"readable_id": "work", "action": "fx:work", "timeout": "1h", "rate_limits": [limit], "retries": 2});
    json!({"name": NAME, "tasks": [task]})
}

fn dynamic() -> Value {
    json!({"key": "d", "key_expr": "'p-'+input.u", "units_expr": "input.n", "limit_values_expr": "3"})
}

async fn setup(quirks: Quirks) -> Setup {
    let setup = Setup::new(quirks, 7).await;
    setup.worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    setup
}

impl Setup {
    async fn put_limit(&self, key: &str, limit: i32, duration: &str) {
        let request = json!({"key": key, "limit": limit, "duration": duration});
        self.wire.call("WorkflowService.PutRateLimit", &request).await.unwrap();
    }

    async fn rejection(&self, rpc: &str, request: &Value) -> (Code, String) {
        let rejection = self.wire.call(rpc, request).await.unwrap_err();
        (rejection.code(), rejection.message().to_owned())
    }

    async fn start_with(&self, input: Value) -> String {
        self.trigger(NAME, &json!({"input": input.to_string()})).await.unwrap()
    }

    async fn limits(&self, query: &str) -> Vec<Value> {
        self.rows(&format!("tenants/{{t}}/rate-limits?{query}")).await
    }

    async fn events_of(&self, run: &str) -> Vec<(String, String)> {
        let mut events = self.rows(&format!("stable/tasks/{run}/task-events?limit=50")).await;
        events.sort_by_key(|event| event["id"].as_i64());
        let text = |event: &Value, field: &str| event[field].as_str().unwrap().to_owned();
        let fields = |event: &Value| {
            let message = if event["eventType"] == "FAILED" { "errorMessage" } else { "message" };
            (text(event, "eventType"), text(event, message))
        };
        events.iter().map(fields).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn limits_are_put_listed_and_deleted() {
    let setup = setup(Quirks::all()).await;
    let put = "WorkflowService.PutRateLimit";
    let rejected = setup.rejection(put, &json!({"key": "", "limit": 1})).await;
    assert_eq!(rejected, (Code::InvalidArgument, "key is required".into()));
    let rejected = setup.rejection(put, &json!({"key": "k", "limit": 1, "duration": 9})).await;
    assert_eq!(rejected, (Code::Internal, "An internal error occurred.".into()));
    let windows = ["SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "YEAR"];
    for (window, limit) in windows.into_iter().zip([-1, 0, i32::MAX, 1, 2, 3, 4]) {
        setup.put_limit(window, limit, window).await;
    }
    let rows = setup.limits("orderByField=limitValue&orderByDirection=desc").await;
    let keys: Vec<_> = rows.iter().map(|row| row["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["HOUR", "YEAR", "MONTH", "WEEK", "DAY", "MINUTE", "SECOND"]);
    for row in &rows {
        assert_eq!(row["window"], format!("1 {}", row["key"].as_str().unwrap()));
        assert_eq!((&row["value"], &row["tenantId"]), (&row["limitValue"], &json!(setup.tenant)));
        assert!(row["lastRefill"].as_str().unwrap().ends_with('Z'));
    }
    assert_eq!(setup.limits("search=EAR").await.len(), 1);
    let page = setup.get("tenants/{t}/rate-limits?limit=3&offset=3").await;
    assert_eq!(page["pagination"], json!({"current_page": 2, "next_page": 3, "num_pages": 3}));
    assert_eq!(page["rows"][0]["key"], "MONTH");
    // One that a workflow uses cannot be deleted.
    setup.put(&workflow(&json!({"key": "DAY"}))).await;
    let delete =
        async |query: &str| setup.send(Method::DELETE, &format!("tenants/{{t}}/rate-limits?{query}"), None).await;
    assert_eq!(delete("key=HOUR").await.0, 204);
    assert_eq!(delete("key=unknown").await.0, 204);
    let body = json!({"errors": [{"description": "failed to delete rate-limit"}]});
    assert_eq!(delete("key=DAY").await, (400, body));
    assert_eq!(delete("").await.0, 400);
    assert_eq!(setup.limits("").await.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn definitions_with_rate_limits_are_checked() {
    let setup = setup(Quirks::all()).await;
    let put = "v1.AdminService.PutWorkflow";
    let internal = (Code::Internal, "An internal error occurred.".to_owned());
    assert_eq!(setup.rejection(put, &workflow(&json!({"key": "never-put"}))).await, internal);
    setup.put_limit("k", 1, "MINUTE").await;
    let mut twice = workflow(&json!({"key": "k"}));
    twice["tasks"][0]["rate_limits"] = json!([{"key": "k"}, {"key": "k"}]);
    assert_eq!(setup.rejection(put, &twice).await, internal);
    let field = |name: &str, problem: &str| {
        let text = format!(
            "Validation failed with the following errors:\n0: validation failed on field 'CreateWorkflowVersionOpts.Tasks[0].RateLimits[0].{name}': {problem}\n"
        );
        (Code::InvalidArgument, text)
    };
    for without_key in [json!({"key": ""}), json!({"key_expr": "input.u"})] {
        assert_eq!(setup.rejection(put, &workflow(&without_key)).await, field("Key", "on condition 'required'"));
    }
    let broken = json!({"key": "d", "key_expr": "input.", "units": 1});
    assert_eq!(setup.rejection(put, &workflow(&broken)).await, field("KeyExpr", "Invalid CEL expression"));
    for accepted in [json!({"key": "k", "units": 0}), json!({"key": "k", "units": -1}), json!({"key": "k"})] {
        setup.put(&workflow(&accepted)).await;
    }
    setup.put(&workflow(&json!({"key": "d", "key_expr": "parents.a.x", "units": 1}))).await;
}

#[tokio::test(start_paused = true)]
async fn runs_wait_for_the_next_window() {
    let setup = setup(Quirks::all()).await;
    setup.put_limit("k", 2, "MINUTE").await;
    setup.put(&workflow(&json!({"key": "k"}))).await;
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(setup.trigger(NAME, &json!({})).await.unwrap());
    }
    // All wait until the scheduler knows the limit, and then two start.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.events_of(&runs[0]).await[1], ("REQUEUED_RATE_LIMIT".into(), UNKNOWN.into()));
    sleep(Duration::from_secs(1)).await;
    let statuses = async || {
        let mut statuses = Vec::new();
        for run in &runs {
            let grpc = setup.details(run).await.unwrap()["status"].clone();
            let rest = setup.shown(&format!("workflow-runs/{run}/status")).await;
            assert_eq!(grpc, rest);
            statuses.push(grpc.as_str().unwrap().to_owned());
        }
        statuses
    };
    assert_eq!(statuses().await, ["RUNNING", "RUNNING", "QUEUED", "QUEUED"]);
    sleep(Duration::from_secs(58)).await;
    assert_eq!(statuses().await, ["RUNNING", "RUNNING", "QUEUED", "QUEUED"]);
    assert_eq!(setup.events_of(&runs[2]).await.len(), 2, "no further event");
    sleep(Duration::from_secs(8)).await;
    assert_eq!(statuses().await, ["RUNNING"; 4]);
}

#[tokio::test(start_paused = true)]
async fn an_exceeded_limit_is_reported() {
    let setup = setup(Quirks::all().without(Quirk::SlowRateLimits)).await;
    setup.put_limit("mb-rl-s", 1, "MINUTE").await;
    setup.put(&workflow(&json!({"key": "mb-rl-s"}))).await;
    setup.trigger(NAME, &json!({})).await.unwrap();
    let run = setup.trigger(NAME, &json!({})).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let text = "Rate limit exceeded for key mb-rl-s, attempting to consume 1 units, but only had 0 remaining";
    assert_eq!(setup.events_of(&run).await[1], ("REQUEUED_RATE_LIMIT".into(), text.into()));
    // A larger limit has an effect after the window.
    setup.put_limit("mb-rl-s", 10, "MINUTE").await;
    let row = setup.limits("").await.remove(0);
    assert_eq!((&row["limitValue"], &row["value"]), (&json!(10), &json!(0)));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(setup.limits("").await[0]["value"], 9);
    setup.put_limit("mb-rl-s", 0, "MINUTE").await;
    assert_eq!(setup.limits("").await[0]["value"], 0);
}

#[tokio::test(start_paused = true)]
async fn dynamic_limits_have_a_row_for_each_key() {
    let setup = setup(Quirks::all()).await;
    setup.put(&workflow(&dynamic())).await;
    for (user, n) in [("a", json!(1.9)), ("b", json!(0)), ("c", json!(-1))] {
        setup.start_with(json!({"u": user, "n": n})).await;
    }
    sleep(Duration::from_secs(3)).await;
    let rows = setup.limits("").await;
    let fields = |row: &Value| (row["key"].clone(), row["limitValue"].clone(), row["value"].clone());
    let seen: Vec<_> = rows.iter().map(fields).collect();
    assert_eq!(seen, [("p-a", 3, 2), ("p-b", 3, 3), ("p-c", 3, 4)].map(|(k, l, v)| (json!(k), json!(l), json!(v))));
    assert_eq!(rows[0]["window"], "1 MINUTE");
    for (limit, input, error) in [
        (
            dynamic(),
            json!({"u": "a", "n": "str"}),
            "(input.n): expected int output for dynamic rate limit units, got string",
        ),
        (dynamic(), json!({"u": 1, "n": 1}), "('p-'+input.u): no such overload"),
        (dynamic(), json!({"n": 1}), "('p-'+input.u): no such key: u"),
        (
            json!({"key": "d", "key_expr": "'p-'+input.u"}),
            json!({"u": "a"}),
            "(): ERROR: <input>:1:0: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}",
        ),
        (
            json!({"key": "d", "key_expr": "'p-' + '-' + parents.a.x", "units": 1}),
            json!({}),
            "('p-' + '-' + parents.a.x): ERROR: <input>:1:14: undeclared reference to 'parents' (in container '')\n | 'p-' + '-' + parents.a.x\n | .............^",
        ),
    ] {
        setup.put(&workflow(&limit)).await;
        sleep(Duration::from_secs(6)).await;
        let run = setup.start_with(input).await;
        sleep(Duration::from_secs(1)).await;
        let text = format!("failed to parse step expression {error}");
        assert_eq!(setup.events_of(&run).await, [("FAILED".into(), text)]);
    }
}
