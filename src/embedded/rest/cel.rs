//! Evaluation of CEL expressions for debugging.

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::{Value, json};

use super::api::RestApi;
use super::body::Typed;
use super::request::OfTenant;
use super::response::{Rejection, RestResult, respond};
use crate::embedded::core::expression::{Environment, Expression, Names, ParseError, Truth};

pub(super) fn routes() -> Router<RestApi> {
    Router::new().route("/api/v1/stable/tenants/{tenant}/cel/debug", post(debug))
}

async fn debug(_: OfTenant, bytes: Bytes) -> RestResult {
    let body = Typed::parse(&bytes, "gen.V1CELDebugRequest")?;
    let map = |name: &str| body.object(name).map(|map| Value::Object(map.unwrap_or_default()));
    let text = body.text("expression")?.unwrap_or_default();
    let (input, metadata, payload) = (map("input")?, map("additionalMetadata")?, map("filterPayload")?);
    let expression = match Expression::parse(&text, &Environment::FILTER) {
        Ok(expression) => expression,
        Err(ParseError::Invalid) => return Ok(failed("failed to compile expression: it is not valid CEL")),
        Err(ParseError::Unsupported) => {
            let text = format!("the embedded engine does not implement the CEL expression `{text}` yet");
            return Err(Rejection::message(StatusCode::NOT_IMPLEMENTED, text));
        }
    };
    // `event_id` and `event_key` are declared, but have no value here.
    let names = [("input", &input), ("additional_metadata", &metadata), ("payload", &payload)];
    Ok(match expression.truth(&Names(&names)) {
        Ok(Truth::Known(output)) => respond(&json!({"status": "SUCCESS", "output": output})),
        Ok(Truth::OfType(kind)) => failed(&format!("expression did not evaluate to a boolean: got {kind}")),
        Err(error) => failed(&format!("failed to evaluate expression: {error}")),
    })
}

fn failed(error: &str) -> axum::response::Response {
    respond(&json!({"status": "ERROR", "error": error}))
}
