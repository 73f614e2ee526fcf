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

use super::http_answer::HttpAnswer;
use super::wire::Calling;
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
pub(crate) struct Answering(State);

enum State {
    Waiting(Calling),
    /// The response is not gRPC: the start of its body is read for the error text.
    Reading(Pin<Box<dyn Future<Output = HttpAnswer> + Send>>),
    /// The call has failed already.
    Failed(Option<BoxError>),
}

impl Answering {
    pub(super) fn new(answer: Calling) -> Self {
        Self(State::Waiting(answer))
    }

    pub(super) fn failed(error: BoxError) -> Self {
        Self(State::Failed(Some(error)))
    }
}

impl Future for Answering {
    type Output = Result<Response<AnswerBody>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.0 {
                State::Waiting(answer) => {
                    let mut answer = ready!(Pin::new(answer).poll(cx))?;
                    let has_status = match sent_status(answer.headers_mut()) {
                        Sent::Refusal(status) => return Poll::Ready(Err(Box::new(status))),
                        Sent::Success => true,
                        Sent::Nothing => false,
                    };
                    if has_status || is_grpc(&answer) {
                        let http = answer.status();
                        return Poll::Ready(Ok(answer.map(|body| AnswerBody { body, http, has_status })));
                    }
                    self.0 = State::Reading(Box::pin(read(answer)));
                }
                State::Reading(answer) => return Poll::Ready(Err(Box::new(ready!(answer.as_mut().poll(cx))))),
                State::Failed(error) => return error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
            }
        }
    }
}

/// Whether a response is gRPC. A server may omit the content type; a proxy's own response has another type or another status.
fn is_grpc<B>(answer: &Response<B>) -> bool {
    match answer.headers().get(CONTENT_TYPE) {
        Some(content_type) => content_type.as_bytes().starts_with(b"application/grpc"),
        None => answer.status() == StatusCode::OK,
    }
}

/// Reads the start of a body for the error text, with a short timeout.
async fn read(answer: Response<Body>) -> HttpAnswer {
    const MAX_EXCERPT_BYTES: usize = 4096;
    const EXCERPT_READ_TIMEOUT: Duration = Duration::from_secs(1);
    let (head, mut body) = answer.into_parts();
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
    HttpAnswer::new(head.status, &head.headers, start.get(..MAX_EXCERPT_BYTES).unwrap_or(&start))
}

/// The status in headers or trailers.
enum Sent {
    Nothing,
    Success,
    Refusal(Status),
}

/// Takes a status that the server sent. Invalid details, which would make tonic panic, are removed from the headers.
fn sent_status(headers: &mut HeaderMap) -> Sent {
    const DETAILS: &str = "grpc-status-details-bin";
    const BASE64: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let Some(code) = headers.get("grpc-status") else { return Sent::Nothing };
    let is_success = code == "0";
    if headers.get(DETAILS).is_some_and(|details| BASE64.decode(details).is_err()) {
        headers.remove(DETAILS);
    }
    if is_success {
        return Sent::Success;
    }
    match Status::from_header_map(headers) {
        None => Sent::Nothing,
        Some(mut status) => {
            status.set_source(Arc::new(SentByServer));
            Sent::Refusal(status)
        }
    }
}

/// The body of a response, which ends with the server's status, or with an error if there is none.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    body: Body,
    http: StatusCode,
    /// Whether the status has been received.
    has_status: bool,
}

impl AnswerBody {
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

    /// The end of a body without a status.
    fn broken(&self, error: Option<Status>) -> Status {
        let mut status = Status::unavailable("the response was interrupted");
        match error {
            None if self.http != StatusCode::OK => {
                status.set_source(Arc::new(HttpAnswer::new(self.http, &HeaderMap::new(), b"")))
            }
            error => status.set_source(Arc::new(Interrupted(error))),
        };
        status
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(self.broken(Some(error))))),
            None if self.has_status => return Poll::Ready(None),
            None => {
                self.has_status = true;
                return Poll::Ready(Some(Err(self.broken(None))));
            }
        };
        if let Some(trailers) = frame.trailers_mut() {
            match sent_status(trailers) {
                Sent::Refusal(status) => {
                    self.has_status = true;
                    return Poll::Ready(Some(Err(status)));
                }
                Sent::Success => self.has_status = true,
                Sent::Nothing if self.has_status => {}
                // Something in between has written its own trailers under an answer that was cut off.
                Sent::Nothing => {
                    self.has_status = true;
                    return Poll::Ready(Some(Err(self.broken(None))));
                }
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// Never before [`poll_frame`](Self::poll_frame) has ended: a body without a status must end with an error.
    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
