//! The rows of the table about the token. They are sent over sockets, because the client adds a valid token to each call.

use bytes::Bytes;
use chrono::TimeDelta;
use hatchet::embedded::Engine;
use http::Uri;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tonic::client::Grpc;
use tonic::transport::Channel;

use super::compare::{Compare, Extra};
use super::errors::{answer, is_about_token};
use super::recording::{FIRST_RUN, list, load, workflow};
use super::support;
use super::wire::{Wire, path, query};

/// The authorization header of a row.
fn header(row: &Value, token: &str) -> Option<String> {
    let what = row["what"].as_str().unwrap();
    let broken = format!("{}AAAAAA", &token[..token.len() - 6]);
    match what {
        _ if what.contains("missing") => None,
        _ if what.contains("broken signature") => Some(format!("Bearer {broken}")),
        "token without Bearer" => Some(token.to_owned()),
        "lower-case bearer" => Some(format!("bearer {token}")),
        _ if what.contains("wrong token") => Some("Bearer wrong".into()),
        _ => panic!("expected a row about a token, got {row}"),
    }
}

#[tokio::test]
async fn token_errors_are_those_of_the_engine() {
    let recording = load("error-bodies");
    let engine = Engine::builder().listen().start().await.unwrap();
    let (grpc, rest) = (engine.grpc_address().unwrap(), engine.rest_address().unwrap());
    let token = support::token(&engine);
    let wire = Wire::new(engine.client());
    wire.call("v1.AdminService.PutWorkflow", &workflow(&Value::Null, "fx", &Value::Null)).await.unwrap();
    let run = wire.call("WorkflowService.TriggerWorkflow", &json!({"name": "fx", "input": "{}"})).await.unwrap();
    let now = chrono::DateTime::UNIX_EPOCH;
    let mut compare = Compare::new(now, now, TimeDelta::zero());
    compare.check("run", Extra::Allowed, &FIRST_RUN.into(), &run["workflow_run_id"]);
    compare.check(
        "tenant",
        Extra::Allowed,
        &"00000000-0000-4000-8005-000000000001".into(),
        &engine.tenant_id().to_string().into(),
    );

    let channel = Channel::from_shared(format!("http://{grpc}")).unwrap().connect().await.unwrap();
    for row in list(&recording, "/grpc").iter().filter(|row| is_about_token(row)) {
        let row = compare.translate(row, TimeDelta::zero());
        let rpc = row["rpc"].as_str().unwrap();
        let mut request = tonic::Request::new(wire.message(rpc, &row["request"]));
        if let Some(header) = header(&row, &token) {
            request.metadata_mut().insert("authorization", header.parse().unwrap());
        }
        let mut stub = Grpc::new(channel.clone());
        stub.ready().await.unwrap();
        // Streams can be called as unary calls, because the token is checked first.
        let answered = stub.unary(request, path(rpc), wire.codec(rpc)).await;
        let ours = answer(answered.map(|_| Value::Null));
        for key in ["code", "message"].iter().filter(|key| row["answer"].get(**key).is_some()) {
            compare.check(row["what"].as_str().unwrap(), Extra::Forbidden, &row["answer"][*key], &ours[*key]);
        }
    }

    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for row in list(&recording, "/rest").iter().filter(|row| is_about_token(row)) {
        let row = compare.translate(row, TimeDelta::zero());
        let parameters = row.get("query").map(|parameters| format!("?{}", query(parameters))).unwrap_or_default();
        let uri: Uri = format!("http://{rest}{}{parameters}", row["path"].as_str().unwrap()).parse().unwrap();
        let mut request = http::Request::get(uri);
        if let Some(header) = header(&row, &token) {
            request = request.header("authorization", header);
        }
        let (head, body) = client.request(request.body(Full::default()).unwrap()).await.unwrap().into_parts();
        let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        let ours = json!({"status": head.status.as_u16(), "body": body});
        compare.check(row["what"].as_str().unwrap(), Extra::Forbidden, &row["answer"], &ours);
    }
    assert!(compare.differences.is_empty(), "{}", compare.differences.join("\n"));
    engine.shutdown().await;
}
