//! Streams that a test interrupts or ends, or whose messages it loses, repeats or reorders.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Response};
use hyper::body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::faults::{Fault, Faults, OpenStream};

/// A response that ends when its stream is interrupted or ended, and whose messages have the planned faults.
pub(super) fn with_faults(response: Response<Body>, open: OpenStream, faults: Faults, method: &str) -> Response<Body> {
    response.map(|body| {
        let closed = Box::pin(open.closed());
        let messages = Messages { faults, method: method.into(), ready: VecDeque::new(), held: None };
        Body::new(WithFaults { body, messages, closed, open: Some(open), has_ended: false })
    })
}

struct WithFaults {
    body: Body,
    messages: Messages,
    /// Resolves to the status of a stream that the test closes.
    closed: Pin<Box<dyn Future<Output = Status> + Send>>,
    /// `None` after the end.
    open: Option<OpenStream>,
    has_ended: bool,
}

/// The messages of a stream.
struct Messages {
    faults: Faults,
    method: Box<str>,
    ready: VecDeque<Bytes>,
    /// The message that follows the next one.
    held: Option<Bytes>,
}

impl Messages {
    /// Applies the planned faults to the messages of a frame.
    fn add(&mut self, mut frame: Bytes) {
        if self.held.is_none() && self.faults.planned() == 0 {
            return self.ready.push_back(frame);
        }
        while !frame.is_empty() {
            let message = frame.split_to(first_message(&frame));
            let held = self.held.take();
            match self.faults.next_of_message(&self.method) {
                Some(Fault::LoseMessage) => self.held = held,
                Some(Fault::DuplicateMessage) => self.ready.extend([message.clone(), message].into_iter().chain(held)),
                Some(Fault::ReorderMessages) => {
                    self.ready.extend(held);
                    self.held = Some(message);
                }
                _ => self.ready.extend(std::iter::once(message).chain(held)),
            }
        }
    }
}

/// The length of the first message, with its prefix: a flag and the length of the message.
fn first_message(frame: &[u8]) -> usize {
    let [_, a, b, c, d, ..] = *frame else { return frame.len() };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    length.saturating_add(5).min(frame.len())
}

impl hyper::body::Body for WithFaults {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let frame = if let Poll::Ready(status) = self.closed.as_mut().poll(cx) {
            // The engine learns of the end of a stream by the drop of its body. A client may keep its response for a while.
            self.body = Body::empty();
            Some(Ok(Frame::trailers(trailers(&status))))
        } else {
            loop {
                if let Some(message) = self.messages.ready.pop_front() {
                    return Poll::Ready(Some(Ok(Frame::data(message))));
                }
                match ready!(Pin::new(&mut self.body).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                    Some(Ok(Ok(data))) => self.messages.add(data),
                    Some(Ok(Err(trailers))) => break Some(Ok(trailers)),
                    Some(Err(error)) => break Some(Err(error)),
                    None => break None,
                }
            }
        };
        // Nothing follows trailers.
        self.has_ended = frame.as_ref().is_none_or(|frame| frame.as_ref().map_or(true, Frame::is_trailers));
        if self.has_ended {
            self.open = None;
        }
        Poll::Ready(frame)
    }

    /// A refusal is a response with headers only. The headers must end the stream: clients of other languages treat a stream that ends
    /// later and without trailers as broken, and lose the code.
    fn is_end_stream(&self) -> bool {
        self.has_ended || self.messages.ready.is_empty() && self.body.is_end_stream()
    }

    /// The number of messages may change.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // A status with a plain message can always be converted to headers.
    let _ = status.add_header(&mut trailers);
    trailers
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::Body as _;

    use super::*;
    use crate::embedded::faults::interrupted;
    use crate::time::Clock;

    fn message(text: &str) -> Vec<u8> {
        [&[0][..], &u32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
    }

    /// The messages of a stream that is received, with some faults.
    async fn received(faults: &[Fault]) -> Vec<String> {
        let planned = Faults::of(Clock::default());
        for fault in faults {
            planned.inject("ListenV2", fault.clone()).unwrap();
        }
        // Several messages may be in one frame.
        let frames = [["1", "2", "3"].map(message).concat(), message("4"), message("5")];
        let frames = stream::iter(frames.map(|frame| Ok::<_, Status>(Frame::data(Bytes::from(frame)))));
        let response = Response::new(Body::new(StreamBody::new(frames)));
        let mut body = with_faults(response, OpenStream::default(), planned, "ListenV2").into_body();
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            all.extend(frame.unwrap().into_data().unwrap());
        }
        all.chunks(6).map(|message| String::from_utf8(message[5..].to_vec()).unwrap()).collect()
    }

    #[tokio::test]
    async fn messages_are_lost_repeated_and_reordered() {
        use Fault::{DuplicateMessage, LoseMessage, ReorderMessages};
        for (faults, expected) in [
            (&[][..], &["1", "2", "3", "4", "5"][..]),
            (&[LoseMessage, LoseMessage], &["3", "4", "5"]),
            (&[DuplicateMessage], &["1", "1", "2", "3", "4", "5"]),
            (&[ReorderMessages], &["2", "1", "3", "4", "5"]),
            (&[ReorderMessages, LoseMessage, DuplicateMessage], &["3", "3", "1", "4", "5"]),
            (&[const { ReorderMessages }; 5], &["1", "2", "3", "4"]),
        ] {
            assert_eq!(received(faults).await, expected, "{faults:?}");
        }
    }

    #[tokio::test]
    async fn a_closed_stream_is_closed_in_the_engine() {
        for (status, code) in [(interrupted(), "14"), (Status::ok(""), "0")] {
            close(status, code).await;
        }
    }

    async fn close(status: Status, code: &str) {
        let (is_open, open) = (Arc::new(()), OpenStream::default());
        let messages = stream::unfold(Arc::clone(&is_open), |is_open| async move {
            std::future::pending::<()>().await;
            Some((Ok::<_, Status>(Frame::data(Bytes::new())), is_open))
        });
        let response = Response::new(Body::new(StreamBody::new(messages)));
        let mut body = with_faults(response, open.clone(), Faults::of(Clock::default()), "ListenV2").into_body();
        assert_eq!(Arc::strong_count(&is_open), 2);
        open.close(status);
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], code);
        // The client still has its response.
        assert_eq!((Arc::strong_count(&is_open), body.is_end_stream()), (1, true));
    }
}
