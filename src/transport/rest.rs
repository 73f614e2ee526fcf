//! REST over the same kind of wire: JSON out, JSON in, and what the server says when it refuses.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::response::Parts;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tonic::body::Body;
use tower::ServiceExt as _;

use super::auth::Authorized;
use super::connect;
use super::status::pushback;
use super::wire::Wire;
use crate::config::Config;
use crate::error::{Answer, BoxError, Error, ErrorKind, Result};

/// An answer is read up to here. The largest that is of use, a page of runs with payloads, is far below.
const MAX_ANSWER: usize = 256 << 20;

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One request, without the server's address.
#[derive(Debug, Clone)]
pub(crate) struct RestCall {
    method: Method,
    /// Path and query, encoded.
    target: String,
    body: Option<Bytes>,
}

impl RestCall {
    /// A request that reads. Segments of the path are encoded here.
    pub(crate) fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn patch(path: &[&str], body: String) -> Self {
        Self { body: Some(body.into()), ..Self::new(Method::PATCH, path) }
    }

    pub(crate) fn post(path: &[&str], body: String) -> Self {
        Self { body: Some(body.into()), ..Self::new(Method::POST, path) }
    }

    pub(crate) fn delete(path: &[&str]) -> Self {
        Self::new(Method::DELETE, path)
    }

    fn new(method: Method, path: &[&str]) -> Self {
        let target = path.iter().fold(String::from("/api/v1"), |target, segment| target + "/" + &encoded(segment));
        Self { method, target, body: None }
    }

    /// Adds a parameter; one that is given several times is a list.
    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(name);
        self.target.push('=');
        self.target.push_str(&encoded(value));
        self
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// The wire under the REST calls.
#[derive(Clone)]
pub(crate) struct RestWire {
    wire: Authorized<Wire>,
    /// Scheme, host and path before `/api`.
    base: String,
}

impl RestWire {
    /// A wire to the server URL of a configuration. Nothing is dialled before the first call.
    pub(crate) fn connect(config: &Config, token: HeaderValue) -> Result<Self> {
        let base = config.server_url();
        let uri: Uri = base.parse().map_err(|error: http::uri::InvalidUri| {
            Error::new(ErrorKind::Config, format!("{base} is no URL")).with_source(error).unsent()
        })?;
        let connector = connect::rest(config, uri.scheme_str() == Some("https"))?;
        let client = Client::builder(TokioExecutor::new()).build::<_, Body>(connector);
        let wire = Wire::new(client.map_response(|answer| answer.map(Body::new)).map_err(BoxError::from));
        Ok(Self::over(wire, base, token))
    }

    /// A wire over any service.
    pub(crate) fn over(wire: Wire, base: &str, token: HeaderValue) -> Self {
        Self { wire: Authorized::new(wire, token), base: base.to_owned() }
    }

    /// Makes one request, once, and reads the whole answer.
    pub(crate) async fn send(&self, name: &'static str, call: &RestCall) -> Result<Bytes> {
        let (head, body) = self.exchange(name, &call.method, &call.target, call.body.clone()).await?;
        if head.status.is_success() {
            return Ok(body);
        }
        Err(refusal(name, head.status, &body, pushback(&head.headers)))
    }

    /// The same for any request, whatever the answer: path and query as they are, the answer as it came.
    #[cfg(feature = "unstable-raw")]
    pub(crate) async fn raw(&self, method: &Method, target: &str, body: Option<Bytes>) -> Result<(StatusCode, Bytes)> {
        let (head, body) = self.exchange("the raw call", method, target, body).await?;
        Ok((head.status, body))
    }

    async fn exchange(&self, name: &str, method: &Method, target: &str, body: Option<Bytes>) -> Result<(Parts, Bytes)> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{target}", self.base))
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("hatchet-rs/", env!("CARGO_PKG_VERSION")));
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Body::new(Full::new(body.unwrap_or_default())))
            .map_err(|error| Error::invalid("request", error))?;
        let answer = self.wire.clone().oneshot(request).await.map_err(|error| lost(name, error))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| lost(name, error))?.to_bytes();
        Ok((head, body))
    }
}

fn lost(name: &str, error: BoxError) -> Error {
    if error.is::<LengthLimitError>() {
        return Error::new(ErrorKind::TooLarge, format!("the answer of {name} has over {MAX_ANSWER} bytes"));
    }
    let (never_left, hopeless) = (connect::never_left(error.as_ref()), connect::is_hopeless(error.as_ref()));
    let unsent = never_left.is_some();
    let text = match never_left {
        Some(connecting) => format!("{name}: {connecting}"),
        None => format!("the connection broke while {name}"),
    };
    let mut lost = Error::new(ErrorKind::Unavailable, text).with_source(error);
    if unsent {
        lost = lost.unsent();
    }
    if hopeless { lost } else { lost.transient() }
}

/// The two shapes in which the server explains itself.
#[derive(Deserialize)]
#[serde(untagged)]
enum Explanation {
    Errors { errors: Vec<Description> },
    Message { message: String },
}

#[derive(Deserialize)]
struct Description {
    description: String,
}

fn refusal(name: &str, status: StatusCode, body: &[u8], after: Option<Duration>) -> Error {
    let text = match serde_json::from_slice(body) {
        Ok(Explanation::Message { message }) => message,
        Ok(Explanation::Errors { errors }) => {
            errors.into_iter().map(|error| error.description).collect::<Vec<_>>().join("; ")
        }
        Err(_) => String::new(),
    };
    let (kind, transient) = match status.as_u16() {
        // The server has one answer for a missing, a wrong, an expired and a foreign token, and it is 403.
        401 | 403 => (ErrorKind::Unauthenticated, false),
        404 => (ErrorKind::NotFound, false),
        408 => (ErrorKind::Timeout, true),
        413 => (ErrorKind::TooLarge, false),
        429 => (ErrorKind::RateLimited, true),
        501 => (ErrorKind::Unimplemented, false),
        400..=499 => (ErrorKind::Rejected, false),
        502..=504 => (ErrorKind::Unavailable, true),
        _ => (ErrorKind::Server, false),
    };
    let text =
        if text.is_empty() { format!("{name} was answered with {status}") } else { format!("{name} failed: {text}") };
    let mut error = Error::new(kind, text).with_answer(Answer::Http(status.as_u16())).with_retry_after(after);
    // A refusal is an answer: nothing was done.
    if status.is_client_error() && kind != ErrorKind::Timeout || kind == ErrorKind::Unimplemented {
        error = error.unsent();
    }
    if transient && !error.forbids_retries() { error.transient() } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_encoded() {
        let call = RestCall::get(&["tenants", "a/b"]).query("additional_metadata", "k:v w").query("x", "1+1");
        assert_eq!(call.target, "/api/v1/tenants/a%2Fb?additional_metadata=k%3Av%20w&x=1%2B1");
    }

    #[test]
    fn both_shapes_of_refusals_are_read() {
        let error = refusal(
            "Trigger",
            StatusCode::BAD_REQUEST,
            br#"{"errors":[{"description":"a"},{"description":"b"}]}"#,
            None,
        );
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Rejected, "Trigger failed: a; b".into()));
        let error = refusal("Get", StatusCode::FORBIDDEN, br#"{"message":"Please provide valid credentials"}"#, None);
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert_eq!(error.answer(), Some(Answer::Http(403)));
        let error = refusal("Get", StatusCode::NOT_IMPLEMENTED, b"", None);
        assert_eq!((error.kind(), error.never_reached_server()), (ErrorKind::Unimplemented, true));
        let error = refusal("Get", StatusCode::SERVICE_UNAVAILABLE, b"<html>", None);
        assert!(error.is_transient());
        assert_eq!(error.to_string(), "Get was answered with 503 Service Unavailable");
        let error = refusal("Get", StatusCode::SERVICE_UNAVAILABLE, b"", Some(Duration::MAX));
        assert!(!error.is_transient() && error.forbids_retries());
    }
}
