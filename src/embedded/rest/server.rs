//! Health, version and settings of the server, and its tenant.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::json;

use super::api::RestApi;
use super::json::extend;
use super::paging::millis;
use super::request::OfTenant;
use super::response::{RestResult, respond};

pub(super) fn routes() -> Router<RestApi> {
    Router::new()
        .route("/api/live", get(alive))
        .route("/api/ready", get(alive))
        .route("/api/v1/cloud/metadata", get(cloud))
        .route("/api/v1/meta", get(meta))
        .route("/api/v1/tenants/{tenant}", get(tenant))
        .route("/api/v1/version", get(version))
}

/// Healthy as long as the core answers.
async fn alive(State(api): State<RestApi>) -> RestResult {
    api.core.call(|_, _| ()).await?;
    Ok(StatusCode::OK.into_response())
}

/// A self-hosted server answers with an error body and status 200.
async fn cloud() -> Response {
    respond(&json!({"errors": [{"description": "oss"}]}))
}

/// The default settings of a server.
async fn meta() -> Response {
    respond(&json!({
        "allowChangePassword": true,
        "allowCreateTenant": true,
        "allowInvites": true,
        "allowSignup": false,
        "auth": {"schemes": ["basic"]},
        "authDisabled": false,
        "observabilityEnabled": false,
        "prometheusServerEnabled": false,
        "pylonAppId": "",
    }))
}

async fn version(State(api): State<RestApi>) -> Response {
    respond(&json!({ "version": api.core.version.to_string() }))
}

async fn tenant(OfTenant(api): OfTenant) -> RestResult {
    let created = millis(api.started);
    let retention = api.core.call(|core, _| core.retention()).await?;
    let mut tenant = json!({
        "metadata": {"id": api.tenant.to_string(), "createdAt": created, "updatedAt": created},
        "alertMemberEmails": true,
        "analyticsOptOut": false,
        "name": "Default",
        "slug": "default",
        "version": "V1",
    });
    // The engine whose behavior is reproduced does not show its retention, and newer ones do.
    if let Some(retention) = retention {
        extend(&mut tenant, json!({"dataRetentionPeriod": format!("{}s", retention.num_seconds())}));
    }
    Ok(respond(&tenant))
}
