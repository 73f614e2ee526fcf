//! REST calls: encodes requests, and converts error responses.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, DATE, USER_AGENT};
use http::response::Parts;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioTimer;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::runtime::Handle;
use tonic::body::Body;
use tower::ServiceExt as _;

use super::auth::Authorized;
use super::connect::{Connector, USER_AGENT_NAME};
use super::failure::no_response;
use super::proxy_response::{ProxyResponse, meaning};
use super::retry_after::retry_after;
use super::service::{Wire, explain};
use crate::config::Config;
use crate::error::{BoxError, Error, ErrorKind, Result, ServerStatus};
use crate::time::ServerClock;

/// How long an idle connection is kept open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The maximum number of idle connections.
const MAX_IDLE_CONNECTIONS: usize = 32;

/// The maximum size of a response in bytes. A page of runs with payloads is much smaller.
const MAX_RESPONSE_BYTES: usize = 256 << 20;

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
    /// A GET request. The segments of the path are percent-encoded.
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

    /// Adds a query parameter. A repeated parameter is a list.
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

/// Runs the tasks of connections on the runtime on which the client was created, independent of the caller's runtime.
#[derive(Clone)]
struct OnRuntime(Handle);

impl<F> hyper::rt::Executor<F> for OnRuntime
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// The wire under the REST calls.
#[derive(Clone)]
pub(crate) struct RestWire {
    wire: Authorized<Wire>,
    /// Scheme, host and path before `/api`.
    base: String,
    clock: ServerClock,
}

impl RestWire {
    /// A wire to the server URL of a configuration. It connects at the first call.
    pub(crate) fn connect(config: &Config, token: HeaderValue) -> Result<Self> {
        let base = config.server_url();
        let uri: Uri = base.parse().map_err(|error: http::uri::InvalidUri| {
            Error::new(ErrorKind::Config, format!("invalid server URL {base}"))
                .with_source(error)
                .without_side_effects()
        })?;
        let connector = Connector::rest(config, &uri)?;
        let client = Client::builder(OnRuntime(connector.runtime().clone()))
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .build::<_, Body>(connector.clone());
        let client = client.map_response(|response| response.map(Body::new)).map_err(BoxError::from);
        Ok(Self::over(Wire::new(client.then(move |response| explain(connector.clone(), response))), base, token))
    }

    /// A wire over any service.
    pub(crate) fn over(wire: Wire, base: &str, token: HeaderValue) -> Self {
        Self { wire: Authorized::new(wire, token), base: base.to_owned(), clock: ServerClock::default() }
    }

    /// The server's base URL, for error messages.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The clock of the server.
    pub(crate) fn clock(&self) -> &ServerClock {
        &self.clock
    }

    /// Sends a request once, without retries, and reads the response.
    pub(crate) async fn send(&self, name: &'static str, call: &RestCall) -> Result<Bytes> {
        let (head, body) = self.exchange(name, &call.method, &call.target, call.body.clone()).await?;
        if !head.status.is_success() {
            return Err(error_response(name, &head, &body));
        }
        if is_error_page(&head, &body) {
            return Err(ProxyResponse::new(head.status, &head.headers, &body).error(name));
        }
        Ok(body)
    }

    /// Sends a request with an encoded path and query, and returns the status and the body of the response.
    #[cfg(feature = "unstable-raw")]
    pub(crate) async fn raw(
        &self,
        method: &Method,
        target: &str,
        body: Option<Bytes>,
    ) -> Result<(http::StatusCode, Bytes)> {
        let (head, body) = self.exchange("the raw call", method, target, body).await?;
        Ok((head.status, body))
    }

    async fn exchange(&self, name: &str, method: &Method, target: &str, body: Option<Bytes>) -> Result<(Parts, Bytes)> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{target}", self.base))
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, USER_AGENT_NAME);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Body::new(Full::new(body.unwrap_or_default())))
            .map_err(|error| Error::invalid("request", error))?;
        let response = self.wire.clone().oneshot(request).await.map_err(|error| lost(name, error))?;
        let (head, body) = response.into_parts();
        // An error can be that of a proxy.
        let date = head.headers.get(DATE).filter(|_| head.status.is_success());
        if let Some(date) = date.and_then(|date| date.to_str().ok()) {
            self.clock.record_date(date);
        }
        let body =
            Limited::new(body, MAX_RESPONSE_BYTES).collect().await.map_err(|error| lost(name, error))?.to_bytes();
        Ok((head, body))
    }
}

fn lost(name: &str, error: BoxError) -> Error {
    if error.is::<LengthLimitError>() {
        return Error::new(
            ErrorKind::TooLarge,
            format!("{name} failed: the response exceeds {MAX_RESPONSE_BYTES} bytes"),
        );
    }
    no_response(name, error)
}

/// The two formats of error bodies.
#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorBody {
    Errors { errors: Vec<Description> },
    Message { message: String },
}

#[derive(Deserialize)]
struct Description {
    description: String,
}

fn error_response(name: &str, head: &Parts, body: &[u8]) -> Error {
    let description = match serde_json::from_slice(body) {
        Ok(ErrorBody::Message { message }) => message,
        Ok(ErrorBody::Errors { errors }) => {
            errors.into_iter().map(|error| error.description).collect::<Vec<_>>().join("; ")
        }
        Err(_) if is_error_page(head, body) => return ProxyResponse::new(head.status, &head.headers, body).error(name),
        Err(_) => String::new(),
    };
    let text = if description.is_empty() {
        format!("{name} failed: HTTP {}", head.status)
    } else {
        format!("{name} failed: {description}")
    };
    let error = Error::new(ErrorKind::Server, text).with_status(ServerStatus::Http(head.status.as_u16()));
    meaning(head.status).apply(error.with_retry_after(retry_after(&head.headers)))
}

/// Whether a response is an error page. The server's own responses are JSON.
fn is_error_page(head: &Parts, body: &[u8]) -> bool {
    let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_json = content_type.is_some_and(|name| name.windows(4).any(|word| word == b"json"));
    !is_json && !matches!(body.trim_ascii_start().first(), None | Some(b'{' | b'['))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    #[test]
    fn paths_and_queries_are_encoded() {
        let call = RestCall::get(&["tenants", "a/b"]).query("additional_metadata", "k:v w").query("x", "1+1");
        assert_eq!(call.target, "/api/v1/tenants/a%2Fb?additional_metadata=k%3Av%20w&x=1%2B1");
    }

    fn rejected(status: StatusCode, content_type: &str, body: &str) -> Error {
        let mut response = http::Response::builder().status(status);
        if !content_type.is_empty() {
            response = response.header(CONTENT_TYPE, content_type);
        }
        error_response("Get", &response.body(()).unwrap().into_parts().0, body.as_bytes())
    }

    #[test]
    fn both_formats_of_errors_are_read() {
        let errors = r#"{"errors":[{"description":"a"},{"description":"b"}]}"#;
        let error = rejected(StatusCode::BAD_REQUEST, "application/json", errors);
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Rejected, "Get failed: a; b".into()));
        let message = r#"{"message":"Please provide valid credentials"}"#;
        let error = rejected(StatusCode::FORBIDDEN, "application/json", message);
        assert_eq!((error.kind(), error.status()), (ErrorKind::Unauthenticated, Some(ServerStatus::Http(403))));
        let error = rejected(StatusCode::NOT_IMPLEMENTED, "", "");
        assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Unimplemented, true));
        let error = rejected(StatusCode::SERVICE_UNAVAILABLE, "", "");
        assert!(error.is_transient());
        assert_eq!(error.to_string(), "Get failed: HTTP 503 Service Unavailable");
    }

    #[test]
    fn pushbacks_that_forbid_retries_are_permanent() {
        let mut response = http::Response::builder().status(503).header("grpc-retry-pushback-ms", "-1");
        response = response.header(CONTENT_TYPE, "application/json");
        let error = error_response("Get", &response.body(()).unwrap().into_parts().0, b"");
        assert!(!error.is_transient() && error.forbids_retries());
    }

    #[test]
    fn error_pages_are_distinguished_from_error_bodies() {
        let error = rejected(StatusCode::SERVICE_UNAVAILABLE, "text/html", "<html><title>down</title></html>");
        let text = "Get failed: received HTTP 503 Service Unavailable (text/html), probably from a proxy: down";
        assert_eq!((error.to_string().as_str(), error.is_transient()), (text, true));
        // A proxy's 404 is about the route, not about the resource.
        let not_found = |content_type, body| rejected(StatusCode::NOT_FOUND, content_type, body).kind();
        assert_eq!(not_found("text/html", "<html>no such page</html>"), ErrorKind::Unimplemented);
        assert_eq!(not_found("text/plain", "404 page not found"), ErrorKind::Unimplemented);
        assert_eq!(not_found("application/json", r#"{"errors":[{"description":"not found"}]}"#), ErrorKind::NotFound);
        assert_eq!(not_found("application/json", "null"), ErrorKind::NotFound);
        assert_eq!(not_found("", ""), ErrorKind::NotFound);
    }
}
