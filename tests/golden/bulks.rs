//! Cancels of many by a filter, and what is no filter. All quirks are on.

use std::time::Duration;

use hatchet::embedded::Quirks;
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::recording::workflow;
use super::stage::{EVER, Stage, merged, registration};

const NAME: &str = "fx";

impl Stage {
    async fn cancel(&self, filter: Value) -> (u16, Value) {
        let body = json!({ "filter": filter });
        self.send(Method::POST, "stable/tenants/{t}/tasks/cancel", Some(body)).await
    }
}

fn since(more: &Value) -> Value {
    merged(&json!({"since": "2020-01-01T00:00:00Z"}), more)
}

#[tokio::test(start_paused = true)]
async fn what_is_no_filter_cancels_nothing() {
    let stage = Stage::with(Quirks::all(), NAME, &json!({})).await;
    let run = stage.trigger(NAME, &json!({})).await.unwrap();
    for (filter, answer) in [
        (json!({"workflowIds": ["zz"]}), (400, json!({"message": "invalid UUID length: 2"}))),
        (json!({"statuses": ["NOPE"]}), (500, json!({"message": "Internal Server Error"}))),
        (json!({"statuses": ["QUEUED", "NOPE"]}), (500, json!({"message": "Internal Server Error"}))),
    ] {
        assert_eq!(stage.cancel(since(&filter)).await, answer, "{filter}");
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(stage.shown(&format!("workflow-runs/{run}/status")).await, "QUEUED");
    // It would have been.
    assert_eq!(stage.cancel(since(&json!({"statuses": ["QUEUED"]}))).await, (200, json!({"ids": [run]})));
    assert_eq!(stage.shown(&format!("workflow-runs/{run}/status")).await, "CANCELLED");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_of_the_completed_names_them_and_rest_shows_nothing_of_it() {
    let stage = Stage::with(Quirks::all(), NAME, &json!({})).await;
    stage.put(&workflow(&Value::Null, "nobodys", &Value::Null)).await;
    stage.ordinary_worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    let requests = |name: &str, count: usize| vec![json!({"name": name, "input": "{}"}); count];
    let completed = stage.bulk(requests(NAME, 5)).await.unwrap();
    stage.bulk(requests("nobodys", 2)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let statuses = async || {
        let rows = stage.listed(EVER).await;
        let mut all: Vec<_> = rows.iter().map(|row| row["status"].as_str().unwrap().to_owned()).collect();
        all.sort();
        all
    };
    let before = [vec!["COMPLETED"; 5], vec!["QUEUED"; 2]].concat();
    assert_eq!(statuses().await, before);
    let (status, body) = stage.cancel(since(&json!({"statuses": ["COMPLETED"]}))).await;
    let mut named = body["ids"].as_array().unwrap().clone();
    let mut expected = completed;
    for ids in [&mut named, &mut expected] {
        ids.sort_by_key(ToString::to_string);
    }
    assert_eq!((status, named), (200, expected));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(statuses().await, before);
}
