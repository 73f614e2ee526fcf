//! Sends gRPC requests whose messages are encoded already.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::task::AtomicWaker;
use http::header::{CONTENT_TYPE, TE};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Version};
use http_body_util::StreamBody;
use hyper::body::{Body as HttpBody, Frame};
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;

use super::grpc_response::ResponseBody;
use super::wire::GrpcWire;
use crate::error::Error;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const GZIP_OR_NONE: HeaderValue = HeaderValue::from_static("gzip,identity");

/// Whether a request was sent. It is set when the first byte of the body is read, which happens only on an established connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent(Arc<SentState>);

#[derive(Debug, Default)]
struct SentState {
    is_sent: AtomicBool,
    waker: AtomicWaker,
}

impl Sent {
    /// For requests that do not set it: they may have been sent.
    pub(crate) fn unknown() -> Self {
        let sent = Self::default();
        sent.set();
        sent
    }

    pub(super) fn set(&self) {
        self.0.is_sent.store(true, Relaxed);
        self.0.waker.wake();
    }

    pub(super) fn get(&self) -> bool {
        self.0.is_sent.load(Relaxed)
    }

    /// Calls a function once when the request has been sent, while the call is being polled.
    pub(crate) async fn notify<T>(self, call: impl Future<Output = T>, sent: impl FnOnce()) -> T {
        let (mut call, mut sent) = (pin!(call), Some(sent));
        poll_fn(|cx| {
            self.0.waker.register(cx.waker());
            let polled = call.as_mut().poll(cx);
            if self.get()
                && let Some(sent) = sent.take()
            {
                sent();
            }
            polled
        })
        .await
    }
}

impl GrpcWire {
    /// Sends a frame, and returns the response, unless it is a status.
    pub(crate) async fn send(
        self,
        path: PathAndQuery,
        frame: Bytes,
        gzip: bool,
        sent: Sent,
    ) -> Result<Response<ResponseBody>, Status> {
        if self.is_in_process() {
            sent.set();
        }
        self.send_body(path, Body::new(OneFrame { frame, sent }), gzip).await
    }

    /// Sends a stream of frames, and returns the response, unless it is a status.
    pub(crate) async fn send_stream(
        self,
        path: PathAndQuery,
        frames: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
        gzip: bool,
    ) -> Result<Response<ResponseBody>, Status> {
        let frames = frames.map(|frame| frame.map(Frame::data));
        self.send_body(path, Body::new(StreamBody::new(frames)), gzip).await
    }

    async fn send_body(mut self, path: PathAndQuery, body: Body, gzip: bool) -> Result<Response<ResponseBody>, Status> {
        poll_fn(|cx| self.poll_ready(cx)).await.map_err(Status::from_error)?;
        self.call(request(path, body, gzip)).await.map_err(Status::from_error)
    }
}

/// The request, as tonic sends it.
fn request(path: PathAndQuery, body: Body, gzip: bool) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.into();
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(TE, TRAILERS);
    headers.insert(CONTENT_TYPE, GRPC);
    if gzip {
        headers.insert("grpc-encoding", GZIP);
        headers.insert("grpc-accept-encoding", GZIP_OR_NONE);
    }
    request
}

/// The body of a request: one frame. It is known to be the last one, so that the stream ends with it.
struct OneFrame {
    frame: Bytes,
    sent: Sent,
}

impl HttpBody for OneFrame {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.sent.set();
        let frame = std::mem::take(&mut self.frame);
        Poll::Ready(if frame.is_empty() { None } else { Some(Ok(Frame::data(frame))) })
    }

    fn is_end_stream(&self) -> bool {
        self.frame.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    /// The body is read by the task of the connection, and the response comes later.
    #[tokio::test(start_paused = true)]
    async fn a_call_notifies_once_when_its_request_is_sent() {
        const MILLI: Duration = Duration::from_millis(1);
        let (sent, start, notified) = (Sent::default(), Instant::now(), Cell::new(Vec::new()));
        let of_connection = sent.clone();
        let connection = tokio::spawn(async move {
            sleep(200 * MILLI).await;
            of_connection.set();
            of_connection.set();
        });
        let call = sleep(1000 * MILLI);
        let notify = || notified.set([notified.take(), vec![start.elapsed()]].concat());
        sent.notify(call, notify).await;
        assert_eq!((notified.take(), start.elapsed()), (vec![200 * MILLI], 1000 * MILLI));
        connection.await.unwrap();
    }
}
