//! One request of a connection: the count of open requests, the timeout of its body, and the response to a panic.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tower::ServiceExt as _;

use super::Handler;
use super::connection::{BODY_TIMEOUT, Protocol};
use super::stalled::ReadTimeout;
use crate::embedded::calls::STREAMS;
use crate::embedded::failure::Failure;
use crate::transport::PUSHBACK;

/// The service of one connection.
pub(super) struct Requests<S> {
    pub(super) protocol: Protocol,
    pub(super) service: S,
    pub(super) failure: Failure,
    /// The number of open requests.
    pub(super) open: watch::Sender<usize>,
}

/// Counts a request as open until it is dropped.
struct OpenRequest(watch::Sender<usize>);

impl OpenRequest {
    fn new(open: &watch::Sender<usize>) -> Self {
        open.send_modify(|count| *count = count.saturating_add(1));
        Self(open.clone())
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// The body of a response. Its request counts as open until the body is dropped.
struct AnswerBody {
    body: Body,
    _open: OpenRequest,
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<S> hyper::service::Service<Request<Incoming>> for Requests<S>
where
    S: Handler,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let open = OpenRequest::new(&self.open);
        let (protocol, failure, service) = (self.protocol, self.failure.clone(), self.service.clone());
        let request = if protocol == Protocol::Grpc && is_stream(request.uri().path()) {
            // The client of a stream may be idle.
            request.map(Body::new)
        } else {
            request.map(|body| Body::new(ReadTimeout::new(body, BODY_TIMEOUT)))
        };
        Box::pin(async move {
            let answer = AssertUnwindSafe(service.oneshot(request)).catch_unwind().await;
            let answer = match answer {
                Ok(Ok(answer)) => answer,
                Ok(Err(never)) => match never {},
                Err(panic) => panicked(protocol, &failure.record(&*panic)),
            };
            // The request is open until its answer has been sent.
            Ok(answer.map(|body| Body::new(AnswerBody { body, _open: open })))
        })
    }
}

fn is_stream(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|method| STREAMS.contains(&method))
}

/// The response to a request whose handler panicked. It forbids retries.
fn panicked(protocol: Protocol, message: &str) -> Response<Body> {
    let text = format!("the embedded engine panicked: {message}");
    let mut answer = match protocol {
        Protocol::Grpc => Status::internal(text).into_http(),
        Protocol::Rest => {
            let body = serde_json::json!({ "message": text }).to_string();
            let mut answer = Response::new(Body::new(body.map_err(|never| match never {})));
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer
        }
    };
    answer.headers_mut().insert(PUSHBACK, HeaderValue::from_static("-1"));
    answer
}
