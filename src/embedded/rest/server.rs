//! What the server says about itself, and about its one tenant.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::json;

use super::paging::millis;
use super::request::OfTenant;
use super::{Answer, Engine, answer};
use crate::embedded::VERSION;

pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/api/live", get(alive))
        .route("/api/ready", get(alive))
        .route("/api/v1/cloud/metadata", get(cloud))
        .route("/api/v1/meta", get(meta))
        .route("/api/v1/tenants/{tenant}", get(tenant))
        .route("/api/v1/version", get(version))
}

/// As long as anyone can be asked, all is well.
async fn alive(State(engine): State<Engine>) -> Answer {
    engine.core.call(|_, _| ()).await?;
    Ok(StatusCode::OK.into_response())
}

/// A server of one's own says so in the form of an error, and with the status of a success.
async fn cloud() -> Response {
    answer(&json!({"errors": [{"description": "oss"}]}))
}

/// The settings of a server that nobody has changed.
async fn meta() -> Response {
    answer(&json!({
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

async fn version() -> Response {
    answer(&json!({ "version": VERSION }))
}

async fn tenant(OfTenant(engine): OfTenant) -> Response {
    let created = millis(engine.started);
    answer(&json!({
        "metadata": {"id": engine.tenant.to_string(), "createdAt": created, "updatedAt": created},
        "alertMemberEmails": true,
        "analyticsOptOut": false,
        "name": "Default",
        "slug": "default",
        "version": "V1",
    }))
}
