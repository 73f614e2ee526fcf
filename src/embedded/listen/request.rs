//! One request of a connection. It is counted while it is open, its body has a timeout, and a panic becomes an error response.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

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
use super::protocol::Protocol;
use super::stalled::ReadTimeout;
use crate::embedded::calls::CLIENT_STREAMS;
use crate::embedded::failure::Failure;
use crate::transport::PUSHBACK;

/// The timeout for the next part of a request body.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

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

/// The body of a response. Its request is open until it is dropped. A panic while it is produced is recorded, and ends it.
struct ResponseBody {
    body: Body,
    protocol: Protocol,
    failure: Failure,
    _open: OpenRequest,
}

impl ResponseBody {
    /// The end of a body that failed. The headers have been sent: gRPC sends its status after the body, and REST can only
    /// close the connection.
    fn fail(&mut self, message: &str) -> Result<Frame<Bytes>, Status> {
        self.body = Body::empty();
        match self.protocol {
            Protocol::Grpc => {
                let mut trailers = panicked(Protocol::Grpc, message).into_parts().0.headers;
                trailers.remove(CONTENT_TYPE);
                Ok(Frame::trailers(trailers))
            }
            Protocol::Rest => Err(Status::internal(panic_text(message))),
        }
    }
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.body).poll_frame(cx)));
        polled.unwrap_or_else(|panic| {
            let message = self.failure.record(&*panic);
            Poll::Ready(Some(self.fail(&message)))
        })
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
        let request = if protocol == Protocol::Grpc && is_client_stream(request.uri().path()) {
            request.map(Body::new)
        } else {
            request.map(|body| Body::new(ReadTimeout::new(body, BODY_TIMEOUT)))
        };
        Box::pin(async move {
            let response = AssertUnwindSafe(service.oneshot(request)).catch_unwind().await;
            let response = match response {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(panic) => panicked(protocol, &failure.record(&*panic)),
            };
            // The request is open until its response has been sent.
            Ok(response.map(|body| Body::new(ResponseBody { body, protocol, failure, _open: open })))
        })
    }
}

fn is_client_stream(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|method| CLIENT_STREAMS.contains(&method))
}

fn panic_text(message: &str) -> String {
    format!("the embedded engine panicked: {message}")
}

/// The response to a request whose handler panicked. Its header forbids retries.
fn panicked(protocol: Protocol, message: &str) -> Response<Body> {
    let text = panic_text(message);
    let mut response = match protocol {
        Protocol::Grpc => Status::internal(text).into_http(),
        Protocol::Rest => {
            let body = serde_json::json!({ "message": text }).to_string();
            let mut response = Response::new(Body::new(body.map_err(|never| match never {})));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
    };
    response.headers_mut().insert(PUSHBACK, HeaderValue::from_static("-1"));
    response
}
