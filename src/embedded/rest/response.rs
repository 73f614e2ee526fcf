//! Responses of the routes.

use std::borrow::Cow;

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::embedded::core::store::StatusError;
use crate::transport::PUSHBACK;

/// An error response in one of the engine's two formats: a message, or a list of descriptions.
pub(super) enum Rejection {
    Message(StatusCode, Cow<'static, str>),
    Description(StatusCode, Cow<'static, str>),
    /// The engine has stopped.
    Stopped(String),
}

impl Rejection {
    pub(super) const NOT_FOUND: Self = Self::Message(StatusCode::NOT_FOUND, Cow::Borrowed("not found"));
    pub(super) const INTERNAL: Self =
        Self::Message(StatusCode::INTERNAL_SERVER_ERROR, Cow::Borrowed("Internal Server Error"));

    pub(super) fn message(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self::Message(status, text.into())
    }

    pub(super) fn description(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self::Description(status, text.into())
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let (status, body) = match self {
            Self::Message(status, message) => (status, json!({ "message": message })),
            Self::Description(status, description) => (status, json!({ "errors": [{ "description": description }] })),
            Self::Stopped(message) => {
                let body = json!({ "message": message }).to_string();
                return (StatusCode::SERVICE_UNAVAILABLE, [(PUSHBACK, "-1")], body).into_response();
            }
        };
        (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
    }
}

impl From<StatusError> for Rejection {
    fn from(error: StatusError) -> Self {
        Self::Stopped(error.message)
    }
}

pub(super) type RestResult = Result<Response, Rejection>;

pub(super) fn respond(body: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
