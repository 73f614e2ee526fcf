//! Wraps gRPC responses before they reach tonic, to distinguish statuses of the server from statuses of tonic.
//!
//! tonic creates statuses for resets, error pages and messages that it cannot decode, with the same codes that servers send. Only
//! a status that was received over the wire is the server's response. This layer marks those statuses, and keeps responses that
//! are not gRPC away from tonic.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use super::proxy_response::ProxyResponse;
use super::retry_after::retry_headers;
use super::service::CallFuture;
use super::status_source::{Interrupted, SentByServer};
use crate::error::BoxError;

/// The future of a response.
pub(crate) struct ResponseFuture(State);

enum State {
    Waiting(CallFuture),
    /// The response is not gRPC: the start of its body is read for the error message.
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
                    let end = match sent_status(response.headers_mut()) {
                        SentStatus::Error(status) => return Poll::Ready(Err(Box::new(status))),
                        SentStatus::Ok => End::InHeaders,
                        SentStatus::Missing => End::Missing,
                    };
                    if end == End::InHeaders || is_grpc(&response) {
                        let (http, retry_headers) = (response.status(), retry_headers(response.headers()));
                        return Poll::Ready(Ok(response.map(|body| ResponseBody { body, http, retry_headers, end })));
                    }
                    self.0 = State::Reading(Box::pin(read(response)));
                }
                State::Reading(response) => return Poll::Ready(Err(Box::new(ready!(response.as_mut().poll(cx))))),
                State::Failed(error) => {
                    return Poll::Ready(Err(error.take().unwrap_or_else(|| "the call has already failed".into())));
                }
            }
        }
    }
}

/// Whether a response is gRPC. A server may omit the content type; a proxy's own response has another type or another status.
fn is_grpc<B>(response: &Response<B>) -> bool {
    match response.headers().get(CONTENT_TYPE) {
        Some(content_type) => {
            let rest = content_type.as_bytes().strip_prefix(b"application/grpc");
            // `application/grpc-web` is another protocol.
            rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
        }
        None => response.status() == StatusCode::OK,
    }
}

/// Reads the start of a body for the error message, with a short timeout.
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

/// Takes a status that the server sent. Invalid details, which would make tonic panic, are removed from the headers. A message that is
/// not UTF-8, for which tonic would replace the code, is repaired.
fn sent_status(headers: &mut HeaderMap) -> SentStatus {
    // Parsed once: each response is searched for them.
    static CODE: HeaderName = HeaderName::from_static("grpc-status");
    static DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
    const BASE64: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let Some(code) = headers.get(&CODE) else { return SentStatus::Missing };
    let is_ok = code == "0";
    if headers.get(&DETAILS).is_some_and(|details| BASE64.decode(details).is_err()) {
        headers.remove(&DETAILS);
    }
    if is_ok {
        return SentStatus::Ok;
    }
    repair_message(headers);
    match Status::from_header_map(headers) {
        None => SentStatus::Missing,
        Some(mut status) => {
            status.set_source(Arc::new(SentByServer));
            SentStatus::Error(status)
        }
    }
}

/// Replaces the invalid parts of a message that is not UTF-8.
fn repair_message(headers: &mut HeaderMap) {
    const MESSAGE: &str = "grpc-message";
    let Some(message) = headers.get(MESSAGE) else { return };
    let decoded = percent_decode(message.as_bytes());
    if decoded.clone().decode_utf8().is_ok() {
        return;
    }
    let repaired = utf8_percent_encode(&decoded.decode_utf8_lossy(), NON_ALPHANUMERIC).to_string();
    match HeaderValue::try_from(repaired) {
        Ok(repaired) => headers.insert(MESSAGE, repaired),
        Err(_) => headers.remove(MESSAGE),
    };
}

/// The body of a response. It ends with trailers that have the server's status, or with an error: so the status is always at the end,
/// even if the server sent it in the headers.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    body: Body,
    http: StatusCode,
    /// The headers with the server's delay before a retry. It may be in the headers or in the trailers.
    retry_headers: HeaderMap,
    end: End,
}

/// The server's status, which ends a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It was not received yet.
    Missing,
    /// The headers had a success.
    InHeaders,
    /// It was returned, or an error instead of it.
    Returned,
}

impl ResponseBody {
    /// The next data, or `None` if the response is complete and the server's status is a success.
    pub(crate) async fn data(&mut self) -> Result<Option<Bytes>, Status> {
        match self.frame().await.transpose()?.map(Frame::into_data) {
            Some(Ok(data)) => Ok(Some(data)),
            // The trailers are the end.
            Some(Err(_)) | None => Ok(None),
        }
    }

    /// The error at the end of a body without a status.
    fn interrupted(&mut self, error: Option<Status>) -> Status {
        let mut status = Status::unavailable("the response was interrupted");
        match error {
            None if self.http != StatusCode::OK => {
                status.set_source(Arc::new(ProxyResponse::new(self.http, &self.retry_headers, b"")))
            }
            error => status.set_source(Arc::new(Interrupted(error))),
        };
        self.fail(status)
    }

    /// Ends the body with an error, which gets the server's delay from the headers unless the trailers have one.
    fn fail(&mut self, mut status: Status) -> Status {
        self.end = End::Returned;
        let metadata = status.metadata_mut().as_mut();
        for (name, value) in &self.retry_headers {
            if !metadata.contains_key(name) {
                metadata.insert(name, value.clone());
            }
        }
        status
    }
}

/// The trailers of a successful response.
fn success() -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))])
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(self.interrupted(Some(error))))),
            None => {
                let end = match self.end {
                    End::Returned => None,
                    End::InHeaders => {
                        self.end = End::Returned;
                        Some(Ok(Frame::trailers(success())))
                    }
                    End::Missing => Some(Err(self.interrupted(None))),
                };
                return Poll::Ready(end);
            }
        };
        if let Some(trailers) = frame.trailers_mut() {
            match sent_status(trailers) {
                SentStatus::Error(status) => return Poll::Ready(Some(Err(self.fail(status)))),
                // A proxy has appended its own trailers to a truncated response.
                SentStatus::Missing if self.end == End::Missing => {
                    return Poll::Ready(Some(Err(self.interrupted(None))));
                }
                SentStatus::Missing => trailers.extend(success()),
                SentStatus::Ok => {}
            }
            self.end = End::Returned;
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
