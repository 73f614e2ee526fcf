//! What there is no engine for yet says so, by name: nothing is pretended.

use hatchet::embedded::Quirks;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tonic::Code;

use super::recording::workflow;
use super::stage::Stage;

/// Recordings that cannot be played yet.
pub(crate) const NOT_YET: &[&str] = &[];

async fn refuses(stage: &Stage, rpc: &str, request: &Value) {
    let refusal = stage.wire.call(rpc, request).await.expect_err(rpc);
    assert_eq!(refusal.code(), Code::Unimplemented, "{rpc}: {refusal}");
    assert!(refusal.message().starts_with("the embedded engine does not implement "), "{rpc}: {refusal}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_yet_says_so() {
    let stage = Stage::set(Quirks::none(), 7).await;
    stage.put(&workflow(&Value::Null, "fx", &Value::Null)).await;
    refuses(&stage, "v1.AdminService.BranchDurableTask", &json!({})).await;
    // Beside the log of a task, the recording has the logs of the whole tenant.
    let logs = format!("/api/v1/stable/tenants/{}/logs", stage.tenant);
    assert_eq!(stage.wire.rest(Method::GET, &logs, None).await.0, StatusCode::NOT_IMPLEMENTED);
}
