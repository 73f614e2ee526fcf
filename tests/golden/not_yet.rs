//! Features that the embedded engine does not implement report that, with their names.

use hatchet::embedded::Quirks;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tonic::Code;

use super::recording::workflow;
use super::setup::Setup;

async fn assert_not_implemented(setup: &Setup, rpc: &str, request: &Value) {
    let rejection = setup.wire.call(rpc, request).await.expect_err(rpc);
    assert_eq!(rejection.code(), Code::Unimplemented, "{rpc}: {rejection}");
    assert!(rejection.message().starts_with("the embedded engine does not implement "), "{rpc}: {rejection}");
}

#[tokio::test(start_paused = true)]
async fn missing_features_report_their_names() {
    let setup = Setup::new(Quirks::none(), 7).await;
    setup.put(&workflow(&Value::Null, "fx", &Value::Null)).await;
    assert_not_implemented(&setup, "v1.AdminService.BranchDurableTask", &json!({})).await;
    // The recording also contains the logs of the whole tenant.
    let logs = format!("/api/v1/stable/tenants/{}/logs", setup.tenant);
    assert_eq!(setup.wire.rest(Method::GET, &logs, None).await.0, StatusCode::NOT_IMPLEMENTED);
}
