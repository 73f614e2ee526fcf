//! Tests of the routes without a client.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::embedded::Engine;
use crate::embedded::core::store::PushedEvent;
use crate::embedded::engine::TENANT;
use crate::embedded::faults::Faults;

fn router(engine: &Engine) -> Router {
    let handle = engine.handle().clone();
    let faults = Faults::of(handle.clock.clone());
    super::router(handle, TENANT, "token".into(), faults)
}

/// The status of a response, and the parts of its body.
async fn get(engine: &Engine, path: &str) -> (u16, Vec<Vec<u8>>) {
    let request = Request::get(format!("/api/v1/{path}")).header("authorization", "Bearer token");
    let response = router(engine).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let (mut body, mut parts) = (response.into_body(), Vec::new());
    while let Some(frame) = body.frame().await {
        parts.push(frame.unwrap().into_data().unwrap().to_vec());
    }
    (status, parts)
}

#[tokio::test(start_paused = true)]
async fn lists_of_large_payloads_are_sent_in_parts() {
    const SIZE: usize = 150_000;
    let engine = Engine::start().await.unwrap();
    for _ in 0..20 {
        let payload = json!({"text": "x".repeat(SIZE)});
        let pushed = PushedEvent { key: "key".into(), payload, metadata: Value::Null, priority: None, scope: None };
        engine.handle().call(|core, turn| core.push(turn, pushed)).await.unwrap();
    }
    let (status, parts) = get(&engine, &format!("stable/tenants/{TENANT}/events")).await;
    assert_eq!(status, 200);
    let longest = parts.iter().map(Vec::len).max().unwrap();
    assert!(parts.len() >= 20 && longest < 2 * SIZE, "{} parts, the longest of {longest} bytes", parts.len());
    let body: Value = serde_json::from_slice(&parts.concat()).unwrap();
    assert_eq!(body["rows"].as_array().unwrap().len(), 20);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn each_list_limits_its_rows() {
    let engine = Engine::start().await.unwrap();
    for list in [
        format!("stable/tenants/{TENANT}/events"),
        format!("stable/tenants/{TENANT}/filters"),
        format!("stable/tenants/{TENANT}/workflow-runs"),
        format!("tenants/{TENANT}/worker"),
        format!("tenants/{TENANT}/workflows"),
        format!("tenants/{TENANT}/workflows/crons"),
        format!("tenants/{TENANT}/workflows/scheduled"),
    ] {
        for (limit, expected) in [(10_000, 200), (10_001, 400)] {
            let (status, _) = get(&engine, &format!("{list}?limit={limit}&only_tasks=false")).await;
            assert_eq!(status, expected, "{list}: {limit}");
        }
    }
    engine.shutdown().await;
}
