//! The table of rejected requests, with their codes and messages.

use std::time::Duration;

use bytes::Bytes;
use chrono::TimeDelta;
use hatchet::embedded::Quirks;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::{Code, Status};

use super::compare::{Compare, Extra};
use super::recording::{FIRST_RUN, directory, list, load};
use super::setup::{Setup, registration};
use super::wire::query;
use super::{MAX_SEEDS, SEED};

const WORKFLOW: &str = "fx-error-bodies";

/// The REST rows that the embedded engine does not implement.
const NOT_YET_REST: &[&str] = &["display-names without ids", "external-ids without since"];

/// Whether a row is about the token. These rows are tested over sockets, because the client adds a valid token to each call.
pub(crate) fn is_about_token(row: &Value) -> bool {
    row.get("authorization").is_some_and(|header| header != "(none)" || row["answer"]["status"] == 403)
        || row["what"].as_str().unwrap().contains("token")
        || row["what"] == "lower-case bearer"
}

struct Table {
    setup: Setup,
    compare: Compare,
}

impl Table {
    async fn new(seed: u64) -> Self {
        let setup = Setup::new(Quirks::all(), seed).await;
        setup.put(&super::recording::workflow(&Value::Null, WORKFLOW, &Value::Null)).await;
        setup.completing_worker(&registration(WORKFLOW)).await;
        let mut compare = Compare::new(setup.now(), setup.now(), TimeDelta::days(10_000));
        sleep(Duration::from_secs(1)).await;
        let run = setup
            .wire
            .call("WorkflowService.TriggerWorkflow", &json!({"name": WORKFLOW, "input": "{}"}))
            .await
            .unwrap();
        sleep(Duration::from_secs(1)).await;
        compare.check("run", Extra::Allowed, &FIRST_RUN.into(), &run["workflow_run_id"]);
        compare.check(
            "tenant",
            Extra::Allowed,
            &"00000000-0000-4000-8005-000000000001".into(),
            &setup.tenant.clone().into(),
        );
        Self { setup, compare }
    }

    /// Makes a call, and returns the response in the format of the table.
    async fn grpc(&mut self, row: &Value) -> Value {
        let (rpc, request) = (row["rpc"].as_str().unwrap(), self.compare.translate(&row["request"], TimeDelta::zero()));
        match (rpc, row["what"].as_str().unwrap()) {
            ("Dispatcher.ListenV2", _) => return self.listen("Dispatcher.ListenV2", &request, row).await,
            ("Dispatcher.SubscribeToWorkflowEvents", _) => {
                return self.listen("Dispatcher.SubscribeToWorkflowEvents", &request, row).await;
            }
            ("Dispatcher.SubscribeToWorkflowRuns", _) => {
                let results = self.setup.wire.results();
                results.subscribe(&request);
                sleep(Duration::from_millis(row["answer"]["silence_for_ms"].as_u64().unwrap())).await;
                assert!(results.received.end().is_none() && results.received.messages().is_empty());
                return row["answer"].clone();
            }
            (_, "heartbeat 0.1 s after the listen stream was closed") => {
                let received =
                    self.setup.wire.listen("Dispatcher.ListenV2", &json!({"worker_id": request["worker_id"]}));
                sleep(Duration::from_secs(1)).await;
                received.close();
                sleep(Duration::from_millis(100)).await;
            }
            (_, "heartbeat 1.5 s after the listen stream was closed") => sleep(Duration::from_millis(1400)).await,
            (_, "heartbeat 6 s after the listen stream was closed") => sleep(Duration::from_millis(4500)).await,
            (_, "message over 4 MiB") => return self.sized(rpc, 4_194_335, &json!({"name": WORKFLOW}), "input").await,
            (_, "output over 4 MiB") => {
                let report = json!({"task_run_external_id": self.compare.name(FIRST_RUN), "event_type": "STEP_EVENT_TYPE_COMPLETED"});
                return self.sized(rpc, 4_194_412, &report, "event_payload").await;
            }
            (_, "log with 10001 characters") => {
                // The error quotes the whole line, which is too long for the headers that the client of the recorder accepts.
                let line = json!({"task_run_external_id": self.compare.name(FIRST_RUN), "message": "x".repeat(10_001)});
                let rejection = self.setup.wire.call(rpc, &line).await.unwrap_err();
                assert!(rejection.message().contains("on condition 'max' [ 10000 ]: got 'xxx"), "{rejection}");
                return row["answer"].clone();
            }
            _ => {}
        }
        if row["answer"]["code"] == "UNIMPLEMENTED" {
            return answer(
                self.setup.wire.send(rpc, self.setup.wire.message("NoSuchService.Method", &json!({}))).await,
            );
        }
        answer(self.setup.wire.call(rpc, &request).await)
    }

    async fn sized(&self, rpc: &str, size: usize, request: &Value, field: &str) -> Value {
        let mut request = request.clone();
        request[field] = "x".repeat(size - 1000).into();
        let message = self.setup.wire.message(rpc, &request);
        let missing = size - prost::Message::encoded_len(&message);
        request[field] = "x".repeat(size - 1000 + missing).into();
        answer(self.setup.wire.call(rpc, &request).await)
    }

    async fn listen(&self, rpc: &'static str, request: &Value, row: &Value) -> Value {
        let received = self.setup.wire.listen(rpc, request);
        sleep(Duration::from_millis(row["took_ms"].as_u64().unwrap_or(300) + 100)).await;
        let (_, code, message) =
            received.end().unwrap_or_else(|| panic!("expected the end of the stream, got none: {row}"));
        let mut answer = answer(if code == Code::Ok { Ok(Value::Null) } else { Err(Status::new(code, message)) });
        answer.as_object_mut().unwrap().remove("response");
        answer["messages"] = received.messages().into_iter().map(|(_, message)| message).collect();
        answer
    }

    async fn rest(&self, row: &Value) -> Value {
        let row = self.compare.translate(row, TimeDelta::zero());
        let parameters = row.get("query").map(|parameters| format!("?{}", query(parameters))).unwrap_or_default();
        let target = format!("{}{parameters}", row["path"].as_str().unwrap());
        let too_large = |body: &str| body.starts_with("(an input that makes the body 4194359 bytes)");
        let body = row
            .get("raw_body")
            .map(|body| body.as_str().unwrap().to_owned())
            .map(|body| if too_large(&body) { large(4_194_359) } else { body })
            .or_else(|| row.get("body").map(|body| sent_as(row["what"].as_str().unwrap()).unwrap_or(body.to_string())));
        let method: Method = row["method"].as_str().unwrap().parse().unwrap();
        let (status, body) = self.setup.wire.rest(method, &target, body.map(Bytes::from)).await;
        json!({"status": status.as_u16(), "body": body})
    }
}

/// The original body of a row, for errors that contain character offsets.
fn sent_as(what: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Rows {
        rest: Vec<Row>,
    }
    #[derive(serde::Deserialize)]
    struct Row {
        what: String,
        body: Option<Box<serde_json::value::RawValue>>,
    }
    let text = std::fs::read(directory().join("error-bodies.json")).unwrap();
    let rows: Rows = serde_json::from_slice(&text).unwrap();
    let is_it = |row: &Row| what.starts_with("trigger: ") && row.what == what;
    rows.rest.into_iter().find(is_it)?.body.map(|body| body.get().to_owned())
}

/// A trigger with this size in bytes.
fn large(size: usize) -> String {
    let (head, tail) = (format!(r#"{{"workflowName": "{WORKFLOW}", "input": {{"x": ""#), r#""}}"#);
    format!("{head}{}{tail}", "x".repeat(size - head.len() - tail.len()))
}

pub(crate) fn answer(answer: Result<Value, Status>) -> Value {
    match answer {
        Ok(response) => json!({"code": "OK", "response": response}),
        Err(status) => json!({"code": name(status.code()), "message": status.message()}),
    }
}

/// A code in upper case, as in the recordings.
fn name(code: Code) -> String {
    let words = format!("{code:?}");
    words
        .char_indices()
        .flat_map(|(at, char)| (at > 0 && char.is_uppercase()).then_some('_').into_iter().chain(char.to_uppercase()))
        .collect()
}

/// Compares one row, or asserts that it is not implemented if it is listed as such.
fn check(table: &mut Table, row: &Value, ours: &Value, not_yet: &[&str], is_not_implemented: bool) {
    let path = row["what"].as_str().unwrap();
    match (not_yet.contains(&path), is_not_implemented) {
        (true, true) => {}
        (true, false) => table.compare.differ(path, format!("expected it to be not implemented, got {ours}")),
        (false, true) => table.compare.differ(path, "expected a response, got not implemented"),
        (false, false) if ["code", "status"].iter().any(|key| row["answer"][key] != ours[key]) => {
            table.compare.differ(path, format!("recorded {}, got {ours}", row["answer"]));
        }
        (false, false) => {
            let mut recorded = row["answer"].clone();
            // A long response is recorded only in part.
            let cut = recorded.get_mut("body").and_then(Value::as_object_mut).and_then(|body| body.remove("cut"));
            let extra = if cut.is_some() { Extra::Allowed } else { Extra::Forbidden };
            table.compare.check(path, extra, &recorded, ours);
        }
    }
}

/// The engine detects a closed stream only sometimes. In the recording it did not, so one of the seeds must have the same answers.
#[tokio::test(start_paused = true)]
async fn grpc_errors_are_those_of_the_engine() {
    let mut differences = Vec::new();
    for seed in (SEED..).take(MAX_SEEDS) {
        differences = grpc_differences(seed).await;
        if differences.is_empty() {
            return;
        }
    }
    panic!("{}", differences.join("\n"));
}

async fn grpc_differences(seed: u64) -> Vec<String> {
    let (recording, mut table) = (load("error-bodies"), Table::new(seed).await);
    for row in list(&recording, "/grpc").iter().filter(|row| !is_about_token(row)) {
        let ours = table.grpc(row).await;
        let text = ours["message"].as_str().unwrap_or_default().to_owned();
        check(&mut table, row, &ours, &[], ours["code"] == "UNIMPLEMENTED" && text.starts_with("the embedded engine"));
    }
    sleep(Duration::from_secs(30)).await;
    for row in list(&recording, "/afterwards/rows") {
        let id = table.compare.name(row["id"].as_str().unwrap());
        let details = table.setup.wire.call("v1.AdminService.GetRunDetails", &json!({"external_id": id})).await;
        let (status, body) =
            table.setup.wire.rest(Method::GET, &format!("/api/v1/stable/workflow-runs/{id}/status"), None).await;
        let rest = if status == StatusCode::OK { body } else { json!({"http_status": status.as_u16(), "body": body}) };
        let grpc = match details {
            Ok(details) => {
                let decode = |key: &str| -> Value {
                    use base64::Engine as _;
                    let bytes =
                        base64::engine::general_purpose::STANDARD.decode(details[key].as_str().unwrap()).unwrap();
                    serde_json::from_slice(&bytes).unwrap()
                };
                json!({"status": details["status"], "input": decode("input"), "additional_metadata": decode("additional_metadata")})
            }
            error => answer(error),
        };
        let path = format!("afterwards {}", row["what"]);
        table.compare.check(&path, Extra::Forbidden, &row["grpc"], &grpc);
        table.compare.check(&path, Extra::Forbidden, &row["rest_status"], &rest);
    }
    table.compare.differences
}

#[tokio::test(start_paused = true)]
async fn rest_errors_are_those_of_the_server() {
    let (recording, mut table) = (load("error-bodies"), Table::new(SEED).await);
    for row in list(&recording, "/rest").iter().filter(|row| !is_about_token(row)) {
        let ours = table.rest(row).await;
        check(&mut table, row, &ours, NOT_YET_REST, ours["status"] == 501);
    }
    assert!(table.compare.differences.is_empty(), "{}", table.compare.differences.join("\n"));
}
