//! Schedules and crons by REST: what they answer, and the runs that come of it. All quirks are on.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use hatchet::embedded::Quirks;
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::recording::workflow;
use super::stage::{EVER, Stage};

const NAME: &str = "fx";
const GONE: &str = "scheduled workflow run not found";

async fn stage() -> Stage {
    Stage::with(Quirks::all(), NAME, &json!({})).await
}

impl Stage {
    /// Makes a schedule or a cron: its path, and what was answered.
    async fn make(&self, kind: &str, body: Value) -> (String, Value) {
        let (status, made) =
            self.send(Method::POST, &format!("tenants/{{t}}/workflows/{NAME}/{kind}"), Some(body)).await;
        assert_eq!(status, 200, "{made}");
        (format!("tenants/{{t}}/workflows/{kind}/{}", made["metadata"]["id"].as_str().unwrap()), made)
    }

    /// Starts it now. All that is answered is the id of the run.
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
async fn grpc_answers_a_schedule_with_the_version() {
    let stage = stage().await;
    let (_, made) = stage.make("scheduled", json!({"triggerAt": "2130-01-01T00:00:00Z"})).await;
    let request = json!({"name": NAME, "input": "{}", "schedules": ["2131-01-01T00:00:00Z"]});
    let version = stage.wire.call("WorkflowService.ScheduleWorkflow", &request).await.unwrap();
    assert_eq!((&version["id"], &version["workflow_id"]), (&made["workflowVersionId"], &made["workflowId"]));
    let put = version["created_at"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    assert!((stage.now() - put).abs() < TimeDelta::seconds(1), "{put}");
    assert_eq!(version["created_at"], version["updated_at"]);
    let order = |version: &Value| {
        let order = &version["order"];
        order.as_i64().or_else(|| order.as_str()?.parse().ok()).unwrap()
    };
    assert!(order(&version) > 0, "{version}");
    // A newer version has a higher one.
    stage.put(&workflow(&Value::Null, NAME, &json!({"retries": 1}))).await;
    let newer = stage.wire.call("WorkflowService.ScheduleWorkflow", &request).await.unwrap();
    assert!(order(&newer) > order(&version) && newer["id"] != version["id"], "{newer}");
    assert_eq!(newer["workflow_id"], version["workflow_id"]);
}

#[tokio::test(start_paused = true)]
async fn a_schedule_of_the_past_starts_its_run_when_the_engine_looks() {
    let stage = stage().await;
    let (path, made) = stage.make("scheduled", json!({"triggerAt": "2020-01-01T00:00:00Z"})).await;
    assert_eq!(made["triggerAt"], "2020-01-01T00:00:00Z");
    sleep(Duration::from_secs(1)).await;
    assert_eq!((stage.listed(EVER).await.len(), stage.look(&path).await), (0, made));
    sleep(Duration::from_secs(4)).await;
    assert_eq!(stage.listed(EVER).await.len(), 1);
    assert_eq!(stage.send(Method::GET, &path, None).await, (404, json!({ "message": GONE })));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(stage.listed(EVER).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_is_started_answers_the_id_of_its_run() {
    let stage = stage().await;
    let body = json!({"triggerAt": "2130-01-01T00:00:00Z", "input": {"n": 1}, "additionalMetadata": {"k": "v"}});
    let (path, made) = stage.make("scheduled", body).await;
    let run = stage.start(&path).await;
    assert_ne!(run["metadata"]["id"], made["metadata"]["id"]);
    assert_eq!(run["input"]["input"], json!({"n": 1}));
    let mut metadata = run["additionalMetadata"].clone();
    assert!(metadata.as_object_mut().unwrap().remove("traceparent").is_some());
    assert_eq!(metadata, json!({"k": "v"}));
}

#[tokio::test(start_paused = true)]
async fn a_cron_that_is_started_has_a_run_like_any_other() {
    let stage = stage().await;
    let body = json!({
        "cronExpression": "0 0 2 1 *", "cronName": "x", "input": {"n": 1}, "additionalMetadata": {"k": "v"},
    });
    let (path, made) = stage.make("crons", body).await;
    // The engine's clock is a moment off.
    let [at, or_at] = [0, 1].map(|millis| stage.now() + TimeDelta::milliseconds(millis));
    let run = stage.start(&path).await;
    assert_ne!(run["metadata"]["id"], made["metadata"]["id"]);
    assert_eq!(run["input"]["input"], json!({"n": 1}));
    let mut metadata = run["additionalMetadata"].clone();
    let metadata = metadata.as_object_mut().unwrap();
    assert!(metadata.remove("traceparent").is_some());
    let scheduled = metadata.remove("hatchet__cron_scheduled_at").unwrap();
    assert!([at, or_at].map(|at| json!(at.format("%FT%TZ").to_string())).contains(&scheduled), "{scheduled} {at}");
    let rest = json!({"hatchet__cron_expression": "0 0 2 1 *", "hatchet__cron_name": "x", "k": "v"});
    assert_eq!(json!(metadata), rest);
    // It is still there, and as it was.
    assert_eq!(stage.look(&path).await, made);
}

#[tokio::test(start_paused = true)]
async fn crons_that_nobody_can_read_are_taken_and_vanish() {
    let stage = stage().await;
    for text in ["not a cron", ""] {
        let (path, made) = stage.make("crons", json!({"cronExpression": text, "cronName": "x"})).await;
        assert_eq!(made["cron"], text);
        assert_eq!(stage.look(&path).await, made);
        sleep(Duration::from_secs(1)).await;
        let broken = (500, json!({"message": "Internal Server Error"}));
        assert_eq!(stage.send(Method::GET, &path, None).await, broken, "{text:?}");
        assert_eq!(stage.rows("tenants/{t}/workflows/crons").await, Vec::<Value>::new(), "{text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn crons_of_the_other_kinds_are_taken_and_kept() {
    let stage = stage().await;
    let mut kept = Vec::new();
    for text in ["@hourly", "CRON_TZ=Europe/Oslo 0 9 * * *", "0 0 9 * * *"] {
        let (path, made) = stage.make("crons", json!({"cronExpression": text, "cronName": "x"})).await;
        assert_eq!(made["cron"], text);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(stage.look(&path).await, made);
        kept.insert(0, made);
    }
    assert_eq!(stage.rows("tenants/{t}/workflows/crons").await, kept);
}

#[tokio::test(start_paused = true)]
async fn times_are_rounded_to_the_millisecond() {
    let stage = stage().await;
    for (asked, kept) in [("00.123456Z", "00.123Z"), ("00.123999Z", "00.124Z"), ("00.9996Z", "01Z")] {
        let (_, made) = stage.make("scheduled", json!({"triggerAt": format!("2130-01-01T00:00:{asked}")})).await;
        assert_eq!(made["triggerAt"], format!("2130-01-01T00:00:{kept}"));
    }
    // Of another zone the digits are kept, and the zone is not.
    let (_, made) = stage.make("scheduled", json!({"triggerAt": "2130-01-01T02:00:00+02:00"})).await;
    assert_eq!(made["triggerAt"], "2130-01-01T02:00:00Z");
}
