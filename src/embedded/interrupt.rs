//! Streams that a test interrupts.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response};
use hyper::body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;

/// The status that the reader of an interrupted stream gets.
pub(super) fn interrupted() -> Status {
    Status::unavailable("the stream was interrupted")
}

/// A response that ends when its stream is interrupted.
pub(super) fn until_interrupted(response: Response<Body>, open: CancellationToken) -> Response<Body> {
    response.map(|body| {
        Body::new(UntilInterrupted { body, interrupted: Box::pin(open.cancelled_owned()), has_ended: false })
    })
}

struct UntilInterrupted {
    body: Body,
    interrupted: Pin<Box<WaitForCancellationFutureOwned>>,
    has_ended: bool,
}

impl hyper::body::Body for UntilInterrupted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let frame = if self.interrupted.as_mut().poll(cx).is_ready() {
            Poll::Ready(Some(Ok(Frame::trailers(trailers()))))
        } else {
            Pin::new(&mut self.body).poll_frame(cx)
        };
        // Nothing follows trailers.
        if let Poll::Ready(ended) = &frame {
            self.has_ended = ended.as_ref().is_none_or(|frame| frame.as_ref().map_or(true, Frame::is_trailers));
        }
        frame
    }

    /// A refusal is a response with headers only. The headers must end the stream: clients of other languages treat a stream that ends
    /// later and without trailers as broken, and lose the code.
    fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // A status with a plain message can always be converted to headers.
    let _ = interrupted().add_header(&mut trailers);
    trailers
}
