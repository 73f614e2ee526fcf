//! Streams that a test interrupts.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response};
use hyper::body::{Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;
use tonic::body::Body;

use super::faults::OpenStream;

/// The status that the reader of an interrupted stream gets.
pub(super) fn interrupted() -> Status {
    Status::unavailable("the stream was interrupted")
}

/// A response that ends when its stream is interrupted.
pub(super) fn until_interrupted(response: Response<Body>, open: OpenStream) -> Response<Body> {
    response.map(|body| {
        let interrupted = Box::pin(open.interrupted.clone().cancelled_owned());
        Body::new(UntilInterrupted { body, interrupted, open: Some(open), has_ended: false })
    })
}

struct UntilInterrupted {
    body: Body,
    interrupted: Pin<Box<WaitForCancellationFutureOwned>>,
    /// `None` after the end.
    open: Option<OpenStream>,
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
            // The engine learns of the end of a stream by the drop of its body. A client may keep its response for a while.
            self.body = Body::empty();
            Poll::Ready(Some(Ok(Frame::trailers(trailers()))))
        } else {
            Pin::new(&mut self.body).poll_frame(cx)
        };
        // Nothing follows trailers.
        if let Poll::Ready(ended) = &frame {
            self.has_ended = ended.as_ref().is_none_or(|frame| frame.as_ref().map_or(true, Frame::is_trailers));
        }
        if self.has_ended {
            self.open = None;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::Body as _;

    use super::*;

    #[tokio::test]
    async fn an_interrupted_stream_is_closed_in_the_engine() {
        let (is_open, open) = (Arc::new(()), OpenStream::default());
        let messages = stream::unfold(Arc::clone(&is_open), |is_open| async move {
            std::future::pending::<()>().await;
            Some((Ok::<_, Status>(Frame::data(Bytes::new())), is_open))
        });
        let interrupted = open.interrupted.clone();
        let response = Response::new(Body::new(StreamBody::new(messages)));
        let mut body = until_interrupted(response, open).into_body();
        assert_eq!(Arc::strong_count(&is_open), 2);
        interrupted.cancel();
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "14");
        // The client still has its response.
        assert_eq!((Arc::strong_count(&is_open), body.is_end_stream()), (1, true));
    }
}
