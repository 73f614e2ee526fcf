//! Schedules and crons by REST: the responses, and the runs that they start. With all quirks.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use hatchet::embedded::Quirks;
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::recording::workflow;
use super::setup::{ALL_TIME, Setup};

const NAME: &str = "fx";
const NOT_FOUND: &str = "scheduled workflow run not found";

async fn setup() -> Setup {
    Setup::with_workflow(Quirks::all(), NAME, &json!({})).await
}

impl Setup {
    /// Creates a schedule or a cron, and returns its path and the response.
    async fn create(&self, kind: &str, body: Value) -> (String, Value) {
        let (status, created) =
            self.send(Method::POST, &format!("tenants/{{t}}/workflows/{NAME}/{kind}"), Some(body)).await;
        assert_eq!(status, 200, "{created}");
        (format!("tenants/{{t}}/workflows/{kind}/{}", created["metadata"]["id"].as_str().unwrap()), created)
    }

    /// Starts a run immediately. The response contains only its id.
    async fn start(&self, path: &str) -> Value {
        let (status, started) = self.send(Method::POST, path, None).await;
        assert_eq!(status, 200, "{started}");
        let id = started["externalId"].as_str().unwrap();
        assert_eq!(started, json!({ "externalId": id }));
        sleep(Duration::from_secs(1)).await;
        self.shown(&format!("workflow-runs/{id}")).await["run"].clone()
    }
}

#[tokio::test(start_paused = true)]
async fn grpc_returns_the_version_of_a_new_schedule() {
    let setup = setup().await;
    let (_, created) = setup.create("scheduled", json!({"triggerAt": "2130-01-01T00:00:00Z"})).await;
    let request = json!({"name": NAME, "input": "{}", "schedules": ["2131-01-01T00:00:00Z"]});
    let version = setup.wire.call("WorkflowService.ScheduleWorkflow", &request).await.unwrap();
    assert_eq!((&version["id"], &version["workflow_id"]), (&created["workflowVersionId"], &created["workflowId"]));
    let put = version["created_at"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    assert!((setup.now() - put).abs() < TimeDelta::seconds(1), "{put}");
    assert_eq!(version["created_at"], version["updated_at"]);
    let order = |version: &Value| {
        let order = &version["order"];
        order.as_i64().or_else(|| order.as_str()?.parse().ok()).unwrap()
    };
    assert!(order(&version) > 0, "{version}");
    // A newer version has a higher order.
    setup.put(&workflow(&Value::Null, NAME, &json!({"retries": 1}))).await;
    let newer = setup.wire.call("WorkflowService.ScheduleWorkflow", &request).await.unwrap();
    assert!(order(&newer) > order(&version) && newer["id"] != version["id"], "{newer}");
    assert_eq!(newer["workflow_id"], version["workflow_id"]);
}

#[tokio::test(start_paused = true)]
async fn schedules_in_the_past_start_their_run_at_the_next_check() {
    let setup = setup().await;
    let (path, created) = setup.create("scheduled", json!({"triggerAt": "2020-01-01T00:00:00Z"})).await;
    assert_eq!(created["triggerAt"], "2020-01-01T00:00:00Z");
    sleep(Duration::from_secs(1)).await;
    assert_eq!((setup.listed(ALL_TIME).await.len(), setup.get(&path).await), (0, created));
    sleep(Duration::from_secs(4)).await;
    assert_eq!(setup.listed(ALL_TIME).await.len(), 1);
    assert_eq!(setup.send(Method::GET, &path, None).await, (404, json!({ "message": NOT_FOUND })));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(setup.listed(ALL_TIME).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn starting_a_schedule_returns_the_id_of_its_run() {
    let setup = setup().await;
    let body = json!({"triggerAt": "2130-01-01T00:00:00Z", "input": {"n": 1}, "additionalMetadata": {"k": "v"}});
    let (path, created) = setup.create("scheduled", body).await;
    let run = setup.start(&path).await;
    assert_ne!(run["metadata"]["id"], created["metadata"]["id"]);
    assert_eq!(run["input"]["input"], json!({"n": 1}));
    let mut metadata = run["additionalMetadata"].clone();
    assert!(metadata.as_object_mut().unwrap().remove("traceparent").is_some());
    assert_eq!(metadata, json!({"k": "v"}));
}

#[tokio::test(start_paused = true)]
async fn starting_a_cron_starts_an_ordinary_run() {
    let setup = setup().await;
    let body = json!({
        "cronExpression": "0 0 2 1 *", "cronName": "x", "input": {"n": 1}, "additionalMetadata": {"k": "v"},
    });
    let (path, created) = setup.create("crons", body).await;
    // The clock of the engine may differ by a millisecond.
    let [at, or_at] = [0, 1].map(|millis| setup.now() + TimeDelta::milliseconds(millis));
    let run = setup.start(&path).await;
    assert_ne!(run["metadata"]["id"], created["metadata"]["id"]);
    assert_eq!(run["input"]["input"], json!({"n": 1}));
    let mut metadata = run["additionalMetadata"].clone();
    let metadata = metadata.as_object_mut().unwrap();
    assert!(metadata.remove("traceparent").is_some());
    let scheduled = metadata.remove("hatchet__cron_scheduled_at").unwrap();
    assert!([at, or_at].map(|at| json!(at.format("%FT%TZ").to_string())).contains(&scheduled), "{scheduled} {at}");
    let rest = json!({"hatchet__cron_expression": "0 0 2 1 *", "hatchet__cron_name": "x", "k": "v"});
    assert_eq!(json!(metadata), rest);
    // The cron is unchanged.
    assert_eq!(setup.get(&path).await, created);
}

#[tokio::test(start_paused = true)]
async fn invalid_crons_are_accepted_and_disappear() {
    let setup = setup().await;
    for text in ["not a cron", ""] {
        let (path, created) = setup.create("crons", json!({"cronExpression": text, "cronName": "x"})).await;
        assert_eq!(created["cron"], text);
        assert_eq!(setup.get(&path).await, created);
        sleep(Duration::from_secs(1)).await;
        let broken = (500, json!({"message": "Internal Server Error"}));
        assert_eq!(setup.send(Method::GET, &path, None).await, broken, "{text:?}");
        assert_eq!(setup.rows("tenants/{t}/workflows/crons").await, Vec::<Value>::new(), "{text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_kinds_of_crons_are_accepted() {
    let setup = setup().await;
    let mut kept = Vec::new();
    for text in ["@hourly", "CRON_TZ=Europe/Oslo 0 9 * * *", "0 0 9 * * *"] {
        let (path, created) = setup.create("crons", json!({"cronExpression": text, "cronName": "x"})).await;
        assert_eq!(created["cron"], text);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(setup.get(&path).await, created);
        kept.insert(0, created);
    }
    assert_eq!(setup.rows("tenants/{t}/workflows/crons").await, kept);
}

#[tokio::test(start_paused = true)]
async fn times_are_rounded_to_the_millisecond() {
    let setup = setup().await;
    for (requested, stored) in [("00.123456Z", "00.123Z"), ("00.123999Z", "00.124Z"), ("00.9996Z", "01Z")] {
        let (_, created) =
            setup.create("scheduled", json!({"triggerAt": format!("2130-01-01T00:00:{requested}")})).await;
        assert_eq!(created["triggerAt"], format!("2130-01-01T00:00:{stored}"));
    }
    // The time zone is ignored.
    let (_, created) = setup.create("scheduled", json!({"triggerAt": "2130-01-01T02:00:00+02:00"})).await;
    assert_eq!(created["triggerAt"], "2130-01-01T02:00:00Z");
}
