//! Bulk cancels by filters, valid and invalid. With all quirks.

use std::time::Duration;

use hatchet::embedded::Quirks;
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::recording::workflow;
use super::setup::{ALL_TIME, Setup, merged, registration};

const NAME: &str = "fx";

impl Setup {
    async fn cancel(&self, filter: Value) -> (u16, Value) {
        let body = json!({ "filter": filter });
        self.send(Method::POST, "stable/tenants/{t}/tasks/cancel", Some(body)).await
    }
}

fn since(more: &Value) -> Value {
    merged(&json!({"since": "2020-01-01T00:00:00Z"}), more)
}

#[tokio::test(start_paused = true)]
async fn invalid_filters_cancel_nothing() {
    let setup = Setup::with_workflow(Quirks::all(), NAME, &json!({})).await;
    let run = setup.trigger(NAME, &json!({})).await.unwrap();
    for (filter, response) in [
        (json!({"workflowIds": ["zz"]}), (400, json!({"message": "invalid UUID length: 2"}))),
        (json!({"statuses": ["NOPE"]}), (500, json!({"message": "Internal Server Error"}))),
        (json!({"statuses": ["QUEUED", "NOPE"]}), (500, json!({"message": "Internal Server Error"}))),
    ] {
        assert_eq!(setup.cancel(since(&filter)).await, response, "{filter}");
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(setup.shown(&format!("workflow-runs/{run}/status")).await, "QUEUED");
    // A valid filter cancels the run.
    assert_eq!(setup.cancel(since(&json!({"statuses": ["QUEUED"]}))).await, (200, json!({"ids": [run]})));
    assert_eq!(setup.shown(&format!("workflow-runs/{run}/status")).await, "CANCELLED");
}

#[tokio::test(start_paused = true)]
async fn cancels_of_completed_runs_return_their_ids_without_an_effect() {
    let setup = Setup::with_workflow(Quirks::all(), NAME, &json!({})).await;
    setup.put(&workflow(&Value::Null, "idle", &Value::Null)).await;
    setup.completing_worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    let requests = |name: &str, count: usize| vec![json!({"name": name, "input": "{}"}); count];
    let completed = setup.bulk(requests(NAME, 5)).await.unwrap();
    setup.bulk(requests("idle", 2)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let statuses = async || {
        let rows = setup.listed(ALL_TIME).await;
        let mut all: Vec<_> = rows.iter().map(|row| row["status"].as_str().unwrap().to_owned()).collect();
        all.sort();
        all
    };
    let before = [vec!["COMPLETED"; 5], vec!["QUEUED"; 2]].concat();
    assert_eq!(statuses().await, before);
    let (status, body) = setup.cancel(since(&json!({"statuses": ["COMPLETED"]}))).await;
    let mut returned = body["ids"].as_array().unwrap().clone();
    let mut expected = completed;
    for ids in [&mut returned, &mut expected] {
        ids.sort_by_key(ToString::to_string);
    }
    assert_eq!((status, returned), (200, expected));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(statuses().await, before);
}
