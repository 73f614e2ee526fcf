//! One stream that is opened again whenever it is lost: what all of the crate's long streams have in common.
//!
//! Whoever owns it says how it is opened, each time it is due, and is told what comes. It spawns nothing, and it is cancel
//! safe: what is under way stays in it.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::reconnect::Reconnect;
use crate::error::{Error, Result};
use crate::rpc::Messages;

type Opening<T> = Pin<Box<dyn Future<Output = Result<Messages<T>>> + Send>>;

#[derive(Debug)]
pub(crate) struct Link<T> {
    /// How the log calls it.
    name: &'static str,
    state: State<T>,
    reconnect: Reconnect,
    /// When it was last asked for.
    asked: Instant,
}

enum State<T> {
    /// Nobody wants it.
    Closed,
    /// Asked for. The server shows it to be open only with its first message.
    Opening(Opening<T>),
    Open(Messages<T>),
    /// To be opened again at this time.
    Lost(Instant),
}

/// What happened to the stream.
#[derive(Debug)]
pub(crate) enum LinkEvent<T> {
    /// It is time to open it: the owner is to call [`Link::open`].
    Due,
    Message(T),
    /// It is lost, with an error or by the server's own end of it, and will be due again.
    Lost(Option<Error>),
    /// It is lost, and can never be opened again: it is closed.
    Refused(Error),
}

impl<T> Link<T> {
    /// A stream that is closed. `longest`: the longest pause before it is opened again.
    pub(crate) fn new(name: &'static str, longest: Duration) -> Self {
        Self { name, state: State::Closed, reconnect: Reconnect::new(longest), asked: Instant::now() }
    }

    /// Opens it, in whatever state it is.
    pub(crate) fn open(&mut self, opening: impl Future<Output = Result<Messages<T>>> + Send + 'static) {
        self.state = State::Opening(Box::pin(opening));
        self.asked = Instant::now();
    }

    /// Makes it due at once.
    pub(crate) fn renew(&mut self) {
        self.state = State::Lost(Instant::now());
    }

    pub(crate) fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Counts it as lost, though it has not ended.
    pub(crate) fn give_up(&mut self) {
        let pause = self.reconnect.lost(None, fastrand::f64()).unwrap_or_default();
        self.state = State::Lost(Instant::now() + pause);
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether it is lost and not yet due again.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost(_))
    }

    /// When it was last asked for.
    pub(crate) fn asked(&self) -> Instant {
        self.asked
    }

    /// The next thing that happens; never, while it is closed. Cancel safe.
    pub(crate) async fn next(&mut self) -> LinkEvent<T> {
        let error = loop {
            match &mut self.state {
                State::Closed => pending().await,
                State::Lost(until) => {
                    sleep_until(*until).await;
                    return LinkEvent::Due;
                }
                State::Opening(opening) => match opening.await {
                    Ok(messages) => self.state = State::Open(messages),
                    Err(error) => break Some(error),
                },
                State::Open(messages) => match messages.next().await {
                    Some(Ok(message)) => {
                        self.reconnect.delivered();
                        return LinkEvent::Message(message);
                    }
                    Some(Err(error)) => break Some(error),
                    None => break None,
                },
            }
        };
        match (self.reconnect.lost(error.as_ref(), fastrand::f64()), error) {
            (None, Some(error)) => {
                self.state = State::Closed;
                LinkEvent::Refused(error)
            }
            (pause, error) => {
                self.reconnect.log(self.name, error.as_ref());
                self.state = State::Lost(Instant::now() + pause.unwrap_or_default());
                LinkEvent::Lost(error)
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

    const CAP: Duration = Duration::from_secs(2);

    fn told(event: &LinkEvent<u32>) -> String {
        match event {
            LinkEvent::Due => "due".into(),
            LinkEvent::Message(number) => number.to_string(),
            LinkEvent::Lost(None) => "ended".into(),
            LinkEvent::Lost(Some(error)) => format!("lost: {error}"),
            LinkEvent::Refused(error) => format!("refused: {error}"),
        }
    }

    fn messages(items: Vec<Result<u32>>) -> Messages<u32> {
        Messages::of(items)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_delivered_is_due_at_once_and_one_that_did_not_later_each_time() {
        let mut link = Link::new("numbers", CAP);
        link.renew();
        let broken = || Error::new(ErrorKind::Unavailable, "broken").transient();
        let mut streams = vec![vec![Ok(1), Ok(2)], vec![Err(broken())], vec![], vec![Ok(3), Err(broken())]].into_iter();
        let mut seen = Vec::new();
        while seen.len() < 12 {
            let event = link.next().await;
            seen.push(told(&event));
            if matches!(event, LinkEvent::Due) {
                match streams.next() {
                    Some(items) => link.open(async { Ok(messages(items)) }),
                    None => link.open(async { Err(Error::new(ErrorKind::Unauthenticated, "no token")) }),
                }
            }
        }
        let expected =
            ["due", "1", "2", "ended", "due", "lost: broken", "due", "ended", "due", "3", "lost: broken", "due"];
        assert_eq!(seen, expected);
        assert_eq!(told(&link.next().await), "refused: no token");
        assert!(link.is_closed());
        let waits = tokio::time::timeout(CAP * 100, link.next()).await;
        assert!(waits.is_err(), "nothing happens to one that is closed");
    }

    #[tokio::test(start_paused = true)]
    async fn an_opening_that_is_dropped_while_it_is_waited_for_goes_on() {
        let mut link = Link::new("numbers", CAP);
        let begun = Instant::now();
        link.open(async {
            tokio::time::sleep(CAP).await;
            Ok(messages(vec![Ok(1)]))
        });
        for _ in 0..3 {
            assert!(tokio::time::timeout(CAP / 4, link.next()).await.is_err());
        }
        assert_eq!(told(&link.next().await), "1");
        assert_eq!(begun.elapsed(), CAP);
    }
}
