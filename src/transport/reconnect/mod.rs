//! A stream that is reopened whenever it is lost. All long-lived streams of the crate use it.
//!
//! The owner opens it when [`StreamEvent::NeedsOpen`] requests it, and receives its messages. It spawns nothing, and it is cancel
//! safe: an opening that has started continues with the next call.

mod backoff;

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::messages::Messages;
use crate::error::{Error, Result};
use crate::telemetry::{self, Measurement};
use backoff::Backoff;

/// A stream that was open for this long was not refused.
const STABLE_AFTER: Duration = Duration::from_secs(30);

type Opening<T> = Pin<Box<dyn Future<Output = Result<Messages<T>>> + Send>>;

#[derive(Debug)]
pub(crate) struct ReconnectingStream<T> {
    /// The name in log messages.
    name: &'static str,
    state: State<T>,
    backoff: Backoff,
    /// When it was last opened.
    opened_at: Instant,
}

enum State<T> {
    Closed,
    /// The call was sent. The server accepts it only with the first message.
    Opening(Opening<T>),
    Open(Messages<T>),
    /// To be reopened at this time.
    Lost(Instant),
}

/// What happened to the stream.
#[derive(Debug)]
pub(crate) enum StreamEvent<T> {
    /// The owner must call [`ReconnectingStream::open`].
    NeedsOpen,
    Message(T),
    /// The stream was lost, with an error or because the server ended it. [`NeedsOpen`](Self::NeedsOpen) follows after a pause.
    Lost(Option<Error>),
    /// The stream was lost with an error that reopening cannot resolve. It is closed.
    Failed(Error),
}

impl<T> ReconnectingStream<T> {
    /// Creates a closed stream, which pauses for at most `max_backoff` before it is reopened.
    pub(crate) fn new(name: &'static str, max_backoff: Duration) -> Self {
        Self { name, state: State::Closed, backoff: Backoff::new(max_backoff), opened_at: Instant::now() }
    }

    /// Opens the stream. If it is open, it is replaced.
    pub(crate) fn open(&mut self, opening: impl Future<Output = Result<Messages<T>>> + Send + 'static) {
        self.state = State::Opening(Box::pin(opening));
        self.opened_at = Instant::now();
    }

    /// Requests that the owner opens the stream now, without a pause.
    pub(crate) fn reopen_now(&mut self) {
        self.state = State::Lost(Instant::now());
    }

    pub(crate) fn close(&mut self) {
        self.backoff.closed();
        self.state = State::Closed;
    }

    /// Treats the stream as lost, although it has not ended.
    pub(crate) fn mark_lost(&mut self) {
        let pause = self.backoff.lost(None, fastrand::f64()).unwrap_or_default();
        self.state = State::Lost(Instant::now() + pause);
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether the stream is lost, and not reopened yet.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost(_))
    }

    /// When the opening of the stream last began. The server need not have been reached since.
    pub(crate) fn opened_at(&self) -> Instant {
        self.opened_at
    }

    /// Waits for the next event. While the stream is closed, there is none. Cancel safe.
    pub(crate) async fn next(&mut self) -> StreamEvent<T> {
        let error = loop {
            match &mut self.state {
                State::Closed => pending().await,
                State::Lost(until) => {
                    sleep_until(*until).await;
                    return StreamEvent::NeedsOpen;
                }
                State::Opening(opening) => match opening.await {
                    Ok(messages) => self.state = State::Open(messages),
                    Err(error) => break Some(error),
                },
                State::Open(messages) => match messages.next().await {
                    Some(Ok(message)) => {
                        self.backoff.reset(self.name);
                        return StreamEvent::Message(message);
                    }
                    Some(Err(error)) => break Some(error),
                    None => break None,
                },
            }
        };
        // An idle stream that a proxy ends has had no message.
        if self.opened_at.elapsed() >= STABLE_AFTER {
            self.backoff.reset(self.name);
        }
        match (self.backoff.lost(error.as_ref(), fastrand::f64()), error) {
            (None, Some(error)) => {
                self.state = State::Closed;
                StreamEvent::Failed(error)
            }
            (pause, error) => {
                self.backoff.log(self.name, error.as_ref());
                telemetry::record(&Measurement::StreamLost { stream: self.name });
                self.state = State::Lost(Instant::now() + pause.unwrap_or_default());
                StreamEvent::Lost(error)
            }
        }
    }
}

impl<T> std::fmt::Debug for State<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Closed => "Closed",
            Self::Opening(_) => "Opening",
            Self::Open(_) => "Open",
            Self::Lost(_) => "Lost",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const MAX_PAUSE: Duration = Duration::from_secs(2);

    fn text(event: &StreamEvent<u32>) -> String {
        match event {
            StreamEvent::NeedsOpen => "needs open".into(),
            StreamEvent::Message(number) => number.to_string(),
            StreamEvent::Lost(None) => "ended".into(),
            StreamEvent::Lost(Some(error)) => format!("lost: {error}"),
            StreamEvent::Failed(error) => format!("failed: {error}"),
        }
    }

    fn messages(items: Vec<Result<u32>>) -> Messages<u32> {
        Messages::of(items)
    }

    #[tokio::test(start_paused = true)]
    async fn streams_are_reopened_until_an_error_is_permanent() {
        let mut stream = ReconnectingStream::new("numbers", MAX_PAUSE);
        stream.reopen_now();
        let broken = || Error::new(ErrorKind::Unavailable, "broken").transient();
        let mut streams = vec![vec![Ok(1), Ok(2)], vec![Err(broken())], vec![], vec![Ok(3), Err(broken())]].into_iter();
        let mut events = Vec::new();
        while events.len() < 12 {
            let event = stream.next().await;
            events.push(text(&event));
            if matches!(event, StreamEvent::NeedsOpen) {
                match streams.next() {
                    Some(items) => stream.open(async { Ok(messages(items)) }),
                    None => stream.open(async { Err(Error::new(ErrorKind::Unauthenticated, "no token")) }),
                }
            }
        }
        let expected = [
            "needs open",
            "1",
            "2",
            "ended",
            "needs open",
            "lost: broken",
            "needs open",
            "ended",
            "needs open",
            "3",
            "lost: broken",
            "needs open",
        ];
        assert_eq!(events, expected);
        assert_eq!(text(&stream.next().await), "failed: no token");
        assert!(stream.is_closed());
        let next = tokio::time::timeout(MAX_PAUSE * 100, stream.next()).await;
        assert!(next.is_err(), "a closed stream has no events");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_that_is_ended_again_and_again_is_reopened_at_once() {
        let (mut stream, start) = (ReconnectingStream::<u32>::new("numbers", MAX_PAUSE), Instant::now());
        stream.reopen_now();
        for _ in 0..20 {
            assert_eq!(text(&stream.next().await), "needs open");
            stream.open(async {
                tokio::time::sleep(STABLE_AFTER).await;
                Ok(messages(Vec::new()))
            });
            assert_eq!(text(&stream.next().await), "ended");
        }
        assert_eq!(start.elapsed(), 20 * STABLE_AFTER);
    }

    #[tokio::test(start_paused = true)]
    async fn opening_continues_after_next_is_dropped() {
        let mut stream = ReconnectingStream::new("numbers", MAX_PAUSE);
        let start = Instant::now();
        stream.open(async {
            tokio::time::sleep(MAX_PAUSE).await;
            Ok(messages(vec![Ok(1)]))
        });
        for _ in 0..3 {
            assert!(tokio::time::timeout(MAX_PAUSE / 4, stream.next()).await.is_err());
        }
        assert_eq!(text(&stream.next().await), "1");
        assert_eq!(start.elapsed(), MAX_PAUSE);
    }
}
