//! Streams that a test interrupts or ends, or whose messages it loses, repeats, reorders or delays.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use hyper::body::{Frame, SizeHint};
use tokio::runtime::Handle as Runtime;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;

use super::faults::{Fault, Faults, OpenStream};
use crate::time::MAX_DURATION;

/// A response that ends when its stream is interrupted or ended, and whose messages have the planned faults. Delays use the timers of a
/// runtime.
pub(super) fn with_faults(
    response: Response<Body>,
    open: OpenStream,
    faults: Faults,
    method: &str,
    runtime: &Runtime,
) -> Response<Body> {
    response.map(|body| {
        let closed = Box::pin(open.closed());
        let messages = Messages::new(faults, method, runtime.clone());
        Body::new(WithFaults { body, messages, end: None, closed, open: Some(open), has_ended: false })
    })
}

struct WithFaults {
    body: Body,
    messages: Messages,
    /// The end of the body, which follows delayed messages.
    end: Option<End>,
    /// Resolves to the status of a stream that the test closes.
    closed: Pin<Box<dyn Future<Output = Status> + Send>>,
    /// `None` after the end.
    open: Option<OpenStream>,
    has_ended: bool,
}

/// The last frame of a stream: trailers, an error or nothing.
type End = Option<Result<Frame<Bytes>, Status>>;

/// The messages of a stream.
struct Messages {
    faults: Faults,
    method: Box<str>,
    runtime: Runtime,
    /// Each message with the time of its arrival, if it is delayed.
    ready: VecDeque<(Bytes, Option<Instant>)>,
    /// When the last delayed message arrives.
    delayed_until: Option<Instant>,
    /// Until the first message arrives.
    timer: Option<Pin<Box<Sleep>>>,
    /// The message that follows the next one.
    held: Option<Bytes>,
}

impl Messages {
    fn new(faults: Faults, method: &str, runtime: Runtime) -> Self {
        let (ready, delayed_until, timer, held) = (VecDeque::new(), None, None, None);
        Self { faults, method: method.into(), runtime, ready, delayed_until, timer, held }
    }

    /// Applies the planned faults to the messages of a frame.
    fn add(&mut self, mut frame: Bytes) {
        if self.held.is_none() && self.faults.planned() == 0 {
            return self.extend([frame]);
        }
        while !frame.is_empty() {
            let message = frame.split_to(first_message(&frame));
            let held = self.held.take();
            match self.faults.next_of_message(&self.method) {
                Some(Fault::LoseMessage) => self.held = held,
                Some(Fault::DuplicateMessage) => self.extend([message.clone(), message].into_iter().chain(held)),
                Some(Fault::ReorderMessages) => {
                    self.extend(held);
                    self.held = Some(message);
                }
                fault => {
                    if let Some(Fault::DelayMessage(delay)) = fault {
                        self.delay(delay);
                    }
                    self.extend(std::iter::once(message).chain(held));
                }
            }
        }
    }

    /// Delays the messages that are added from now on.
    fn delay(&mut self, delay: Duration) {
        let _entered = self.runtime.enter();
        let until = Instant::now() + delay.min(MAX_DURATION);
        self.delayed_until = self.delayed_until.max(Some(until));
    }

    fn extend(&mut self, messages: impl IntoIterator<Item = Bytes>) {
        self.ready.extend(messages.into_iter().map(|message| (message, self.delayed_until)));
    }

    /// The next message that has arrived, or `None` if there is none on its way.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some((_, Some(at))) = self.ready.front() {
            let _entered = self.runtime.enter();
            ready!(self.timer.get_or_insert_with(|| Box::pin(sleep_until(*at))).as_mut().poll(cx));
            self.timer = None;
        }
        let next = self.ready.pop_front();
        if self.ready.is_empty() {
            // What is added later is not delayed.
            self.delayed_until = None;
        }
        Poll::Ready(next.map(|(message, _)| message))
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
                let next = self.messages.poll_next(cx);
                match (next, self.end.take()) {
                    (Poll::Ready(Some(message)), end) => {
                        self.end = end;
                        return Poll::Ready(Some(Ok(Frame::data(message))));
                    }
                    (Poll::Ready(None), Some(end)) => break end,
                    (Poll::Pending, Some(end)) => {
                        self.end = Some(end);
                        return Poll::Pending;
                    }
                    // Messages are read while earlier ones are delayed: the delay of each begins when it is sent.
                    (_, None) => {}
                }
                match ready!(Pin::new(&mut self.body).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                    Some(Ok(Ok(data))) => self.messages.add(data),
                    Some(Ok(Err(trailers))) => self.end = Some(Some(Ok(trailers))),
                    Some(Err(error)) => self.end = Some(Some(Err(error))),
                    None => self.end = Some(None),
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

    /// A rejection is a response with headers only. The headers must end the stream: clients of other languages treat a stream that ends
    /// later and without trailers as broken, and lose the code.
    fn is_end_stream(&self) -> bool {
        self.has_ended || self.messages.ready.is_empty() && self.end.is_none() && self.body.is_end_stream()
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

    use futures_util::{StreamExt as _, stream};
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
        let mut body =
            with_faults(response, OpenStream::default(), planned, "ListenV2", &Runtime::current()).into_body();
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

    const SECOND: Duration = Duration::from_secs(1);

    /// What a reader receives of a stream that sends a message each second and then ends, and when. The end is an empty message.
    async fn received_at(delays: &[u32]) -> Vec<(u64, String)> {
        let planned = Faults::of(Clock::default());
        for delay in delays {
            planned.inject("ListenV2", Fault::DelayMessage(*delay * SECOND / 10)).unwrap();
        }
        let frames = stream::iter(["1", "2", "3"]).then(|text| async move {
            tokio::time::sleep(SECOND).await;
            Ok(Frame::data(Bytes::from(message(text))))
        });
        let end = stream::iter([Ok::<_, Status>(Frame::trailers(trailers(&Status::ok(""))))]);
        let response = Response::new(Body::new(StreamBody::new(frames.chain(end))));
        let stream = with_faults(response, OpenStream::default(), planned, "ListenV2", &Runtime::current());
        let (mut body, start, mut all) = (stream.into_body(), Instant::now(), Vec::new());
        while let Some(frame) = body.frame().await {
            let text =
                frame.unwrap().into_data().map_or(String::new(), |data| String::from_utf8_lossy(&data[5..]).into());
            all.push((u64::try_from(start.elapsed().as_millis()).unwrap(), text));
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn messages_are_delayed_and_those_that_follow_do_not_overtake_them() {
        // In tenths of a second. The delays begin when the messages are sent, after one, two and three seconds.
        for (delays, expected) in [
            (&[][..], [1000, 2000, 3000, 3000]),
            (&[5], [1500, 2000, 3000, 3000]),
            (&[15], [2500, 2500, 3000, 3000]),
            (&[15, 15], [2500, 3500, 3500, 3500]),
            (&[25, 0, 5], [3500, 3500, 3500, 3500]),
            (&[0, 0, 20], [1000, 2000, 5000, 5000]),
        ] {
            let expected: Vec<_> = expected.into_iter().zip(["1", "2", "3", ""].map(str::to_owned)).collect();
            assert_eq!(received_at(delays).await, expected, "{delays:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn delayed_messages_are_lost_with_their_stream() {
        let (planned, open) = (Faults::of(Clock::default()), OpenStream::default());
        planned.inject("ListenV2", Fault::DelayMessage(Duration::MAX)).unwrap();
        let frames = stream::iter([Ok::<_, Status>(Frame::data(Bytes::from(message("1"))))]);
        let response = Response::new(Body::new(StreamBody::new(frames)));
        let mut body = with_faults(response, open.clone(), planned, "ListenV2", &Runtime::current()).into_body();
        assert!(tokio::time::timeout(3600 * SECOND, body.frame()).await.is_err());
        assert!(!body.is_end_stream(), "it is on its way");
        open.close(interrupted());
        assert!(body.frame().await.unwrap().unwrap().is_trailers());
        assert!(body.frame().await.is_none());
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
        let mut body =
            with_faults(response, open.clone(), Faults::of(Clock::default()), "ListenV2", &Runtime::current())
                .into_body();
        assert_eq!(Arc::strong_count(&is_open), 2);
        open.close(status);
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], code);
        // The client still has its response.
        assert_eq!((Arc::strong_count(&is_open), body.is_end_stream()), (1, true));
    }
}
