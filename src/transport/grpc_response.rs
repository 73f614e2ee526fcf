//! Wraps gRPC responses before they reach tonic, to distinguish statuses of the server from statuses of tonic.
//!
//! tonic creates statuses for resets, error pages and messages that it cannot decode, with the same codes that servers send. Only
//! a status that was received over the wire is the server's response. This layer marks those statuses, and keeps responses that
//! are not gRPC away from tonic.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use super::proxy_response::ProxyResponse;
use super::wire::CallFuture;
use crate::error::BoxError;

/// The source of a status that the server sent.
#[derive(Debug)]
pub(super) struct SentByServer;

impl fmt::Display for SentByServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server sent this status")
    }
}

impl std::error::Error for SentByServer {}

/// The source of a status for a response that was interrupted after its headers.
#[derive(Debug)]
pub(super) struct Interrupted(Option<Status>);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response was interrupted")?;
        if self.0.is_none() { f.write_str(": it ended without a status") } else { Ok(()) }
    }
}

impl std::error::Error for Interrupted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.as_ref().map(|status| status as _)
    }
}

/// The future of a response.
pub(crate) struct ResponseFuture(State);

enum State {
    Waiting(CallFuture),
    /// The response is not gRPC: the start of its body is read for the error text.
    Reading(Pin<Box<dyn Future<Output = ProxyResponse> + Send>>),
    /// The call has failed already.
    Failed(Option<BoxError>),
}

impl ResponseFuture {
    pub(super) fn new(response: CallFuture) -> Self {
        Self(State::Waiting(response))
    }

    pub(super) fn failed(error: BoxError) -> Self {
        Self(State::Failed(Some(error)))
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.0 {
                State::Waiting(response) => {
                    let mut response = ready!(Pin::new(response).poll(cx))?;
                    let has_status = match sent_status(response.headers_mut()) {
                        SentStatus::Error(status) => return Poll::Ready(Err(Box::new(status))),
                        SentStatus::Ok => true,
                        SentStatus::Missing => false,
                    };
                    if has_status || is_grpc(&response) {
                        let http = response.status();
                        return Poll::Ready(Ok(response.map(|body| ResponseBody { body, http, has_status })));
                    }
                    self.0 = State::Reading(Box::pin(read(response)));
                }
                State::Reading(response) => return Poll::Ready(Err(Box::new(ready!(response.as_mut().poll(cx))))),
                State::Failed(error) => return error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
            }
        }
    }
}

/// Whether a response is gRPC. A server may omit the content type; a proxy's own response has another type or another status.
fn is_grpc<B>(response: &Response<B>) -> bool {
    match response.headers().get(CONTENT_TYPE) {
        Some(content_type) => content_type.as_bytes().starts_with(b"application/grpc"),
        None => response.status() == StatusCode::OK,
    }
}

/// Reads the start of a body for the error text, with a short timeout.
async fn read(response: Response<Body>) -> ProxyResponse {
    const MAX_EXCERPT_BYTES: usize = 4096;
    const EXCERPT_READ_TIMEOUT: Duration = Duration::from_secs(1);
    let (head, mut body) = response.into_parts();
    let mut start = Vec::new();
    if let Ok(over) = crate::runtime::timer("a call", Instant::now() + EXCERPT_READ_TIMEOUT) {
        let reading = async {
            while let Some(Ok(frame)) = body.frame().await {
                start.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
                if start.len() >= MAX_EXCERPT_BYTES {
                    break;
                }
            }
        };
        tokio::select! {
            biased;
            () = reading => {}
            () = over => {}
        }
    }
    ProxyResponse::new(head.status, &head.headers, start.get(..MAX_EXCERPT_BYTES).unwrap_or(&start))
}

/// The status in headers or trailers.
enum SentStatus {
    Missing,
    Ok,
    Error(Status),
}

/// Takes a status that the server sent. Invalid details, which would make tonic panic, are removed from the headers.
fn sent_status(headers: &mut HeaderMap) -> SentStatus {
    const DETAILS: &str = "grpc-status-details-bin";
    const BASE64: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let Some(code) = headers.get("grpc-status") else { return SentStatus::Missing };
    let is_ok = code == "0";
    if headers.get(DETAILS).is_some_and(|details| BASE64.decode(details).is_err()) {
        headers.remove(DETAILS);
    }
    if is_ok {
        return SentStatus::Ok;
    }
    match Status::from_header_map(headers) {
        None => SentStatus::Missing,
        Some(mut status) => {
            status.set_source(Arc::new(SentByServer));
            SentStatus::Error(status)
        }
    }
}

/// The body of a response, which ends with the server's status, or with an error if there is none.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    body: Body,
    http: StatusCode,
    /// Whether the status has been received.
    has_status: bool,
}

impl ResponseBody {
    /// Whether the status has been received.
    pub(crate) fn has_status(&self) -> bool {
        self.has_status
    }

    /// The next data, or `None` if the response is complete and the server's status is a success.
    pub(crate) async fn data(&mut self) -> Result<Option<Bytes>, Status> {
        match self.frame().await.transpose()?.map(Frame::into_data) {
            Some(Ok(data)) => Ok(Some(data)),
            // The trailers are the end.
            Some(Err(_)) | None => Ok(None),
        }
    }

    /// The error at the end of a body without a status.
    fn interrupted(&self, error: Option<Status>) -> Status {
        let mut status = Status::unavailable("the response was interrupted");
        match error {
            None if self.http != StatusCode::OK => {
                status.set_source(Arc::new(ProxyResponse::new(self.http, &HeaderMap::new(), b"")))
            }
            error => status.set_source(Arc::new(Interrupted(error))),
        };
        status
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(self.interrupted(Some(error))))),
            None if self.has_status => return Poll::Ready(None),
            None => {
                self.has_status = true;
                return Poll::Ready(Some(Err(self.interrupted(None))));
            }
        };
        if let Some(trailers) = frame.trailers_mut() {
            match sent_status(trailers) {
                SentStatus::Error(status) => {
                    self.has_status = true;
                    return Poll::Ready(Some(Err(status)));
                }
                SentStatus::Ok => self.has_status = true,
                SentStatus::Missing if self.has_status => {}
                // A proxy has appended its own trailers to a truncated response.
                SentStatus::Missing => {
                    self.has_status = true;
                    return Poll::Ready(Some(Err(self.interrupted(None))));
                }
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// Always `false`: a body without a status must end with an error, which only [`poll_frame`](Self::poll_frame) returns.
    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
