//! A stream that is reopened whenever it is lost. All long-lived streams of the crate use it.
//!
//! The owner opens it when [`StreamEvent::NeedsOpen`] requests it, and receives its messages. It spawns nothing, and it is cancel
//! safe: an opening that has started continues with the next call.
//!
//! **Idle streams.** The engine is silent while nothing happens, so silence does not prove a loss. But a proxy can keep a connection
//! open, answer its HTTP/2 pings, and have lost the stream behind it. So each stream has an idle limit: after that time without a message,
//! its owner gets [`StreamEvent::Idle`]. The owner opens another stream, or finds out in another way whether it has missed something. The
//! idle stream is read until the new one has certainly begun. Whether a message that both deliver is returned once is the owner's choice. If
//! so, a message that only the new one delivers shows that the idle stream was lost.

mod backoff;
mod overlap;

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::select;
use tokio::time::Instant;

use super::messages::Messages;
use crate::error::{Error, Result};
use crate::sync::or_pending;
use crate::telemetry::{self, Measurement};
use crate::time::Alarm;
use backoff::Backoff;
use overlap::{Overlap, Side};

/// A stream that was requested this long ago was not rejected at once.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// Idle limits are extended by up to this part at random, because the streams of many clients must not be reopened at the same time.
const IDLE_JITTER: f64 = 0.25;
/// For how long the first message of a new stream waits for the idle stream to deliver anything. If it does not, it was lost.
const TWIN_DELAY: Duration = Duration::from_millis(500);

type Opening<T> = Pin<Box<dyn Future<Output = Result<Messages<T>>> + Send>>;

/// The properties of a long-lived stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamPolicy {
    /// The name in log messages and measurements.
    pub(crate) name: &'static str,
    /// The maximum pause before it is reopened.
    pub(crate) max_backoff: Duration,
    /// The time without a message after which it is idle. It is extended by up to a quarter at random.
    pub(crate) idle_limit: Duration,
    /// What happens to a message that both streams deliver while one replaces the other.
    pub(crate) twins: Twins,
}

/// Messages that two streams deliver while one replaces the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Twins {
    /// The owner gets one of them. No stream delivers two equal messages.
    Dropped,
    /// The owner gets both. Equal messages can have different meanings, or it makes no difference.
    Kept,
    /// The server sends most messages to one of the two streams, whichever it is. The replaced one is read until it is silent.
    Split,
}

impl StreamPolicy {
    /// The idle limit of one stream, in whole milliseconds.
    pub(crate) fn with_jitter(&self, jitter: f64) -> Duration {
        let limit = self.idle_limit.mul_f64(1.0 + IDLE_JITTER * jitter);
        Duration::from_millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
    }
}

#[derive(Debug)]
pub(crate) struct ReconnectingStream<T> {
    policy: StreamPolicy,
    state: State<T>,
    /// The idle stream that was replaced, while it is still read.
    replaced: Option<Source<T>>,
    overlap: Overlap<T>,
    /// A message of the new stream that waits for the idle one, and until when.
    first: Option<(T, Instant)>,
    backoff: Backoff,
    /// When it was last opened.
    opened_at: Instant,
    idle_limit: Duration,
    /// When it is idle if there is no message before.
    idle_at: Instant,
    alarm: Alarm,
}

enum State<T> {
    Closed,
    Requested(Source<T>),
    /// To be reopened at this time.
    Lost(Instant),
}

/// A stream that was requested.
enum Source<T> {
    /// The call was sent. The server accepts it only with the first message.
    Opening(Opening<T>),
    Open(Messages<T>),
}

/// What happened to the stream.
#[derive(Debug)]
pub(crate) enum StreamEvent<T> {
    /// The owner must call [`ReconnectingStream::open`].
    NeedsOpen,
    Message(T),
    /// The idle stream that was replaced had been lost: messages are missing before the next one.
    Gap,
    /// There was no message for the idle limit. The owner opens another stream, which replaces this one without a gap, or finds out in
    /// another way whether it has missed something. This event is repeated after each further limit without a message.
    Idle,
    /// The stream was lost, with an error or because the server ended it. [`NeedsOpen`](Self::NeedsOpen) follows after a pause.
    Lost(Option<Error>),
    /// The stream was lost with an error that reopening cannot resolve. It is closed.
    Failed(Error),
}

impl<T> Source<T> {
    /// The next message, or `None` if the server has ended the stream. Cancel safe.
    async fn next(&mut self) -> Result<Option<T>> {
        loop {
            match self {
                Self::Opening(opening) => {
                    let messages = opening.await?;
                    *self = Self::Open(messages);
                }
                Self::Open(messages) => return messages.next().await.transpose(),
            }
        }
    }
}

impl<T: Clone + PartialEq> ReconnectingStream<T> {
    /// Creates a closed stream.
    pub(crate) fn new(policy: StreamPolicy) -> Self {
        let now = Instant::now();
        Self {
            policy,
            state: State::Closed,
            replaced: None,
            overlap: Overlap::default(),
            first: None,
            backoff: Backoff::new(policy.max_backoff),
            opened_at: now,
            idle_limit: policy.idle_limit,
            idle_at: now,
            alarm: Alarm::default(),
        }
    }

    /// Opens the stream. If it is open, it is replaced without a gap: the old one is read until the new one has certainly begun.
    pub(crate) fn open(&mut self, opening: impl Future<Output = Result<Messages<T>>> + Send + 'static) {
        let now = Instant::now();
        let requested = State::Requested(Source::Opening(Box::pin(opening)));
        if let State::Requested(replaced) = std::mem::replace(&mut self.state, requested) {
            tracing::debug!(stream = self.policy.name, "stream replaced");
            self.backoff.forget_rejections();
            // If only the stream before the last is alive, the last one hangs and is dropped.
            if self.replaced.is_none() || !self.overlap.only_replaced_is_alive() {
                self.replaced = Some(replaced);
                self.overlap = Overlap::default();
            }
        }
        if self.replaced.is_some() {
            self.overlap.begin(now);
        }
        self.opened_at = now;
        self.idle_limit = self.policy.with_jitter(fastrand::f64());
        self.idle_at = now + self.idle_limit;
    }

    /// Requests that the owner opens the stream now, without a pause.
    pub(crate) fn reopen_now(&mut self) {
        self.state = State::Lost(Instant::now());
    }

    pub(crate) fn close(&mut self) {
        self.backoff.forget_rejections();
        self.drop_replaced();
        self.state = State::Closed;
    }

    fn drop_replaced(&mut self) {
        (self.replaced, self.first) = (None, None);
        self.overlap = Overlap::default();
    }

    /// Treats the stream as lost, although it has not ended.
    pub(crate) fn mark_lost(&mut self) {
        let pause = self.backoff.lost(None, fastrand::f64()).unwrap_or_default();
        self.drop_replaced();
        self.state = State::Lost(Instant::now() + pause);
    }

    /// Limits the pause before the lost stream is reopened, whatever the server has requested.
    pub(crate) fn limit_pause(&mut self, max: Duration) {
        if let State::Lost(until) = &mut self.state {
            *until = (*until).min(Instant::now() + max);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether the stream is lost, and not reopened yet.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost(_))
    }

    /// Whether messages may still come from the stream that is replaced.
    pub(crate) fn is_overlapping(&self) -> bool {
        self.replaced.is_some()
    }

    /// When the opening of the stream last began. The server need not have been reached since.
    pub(crate) fn opened_at(&self) -> Instant {
        self.opened_at
    }

    /// Waits for the next event. While the stream is closed, there is none. Cancel safe.
    pub(crate) async fn next(&mut self) -> StreamEvent<T> {
        loop {
            if let Some(event) = self.resolve_first() {
                return event;
            }
            // If nothing arrives, the idle stream is read until one of them delivers something.
            let is_over = self.replaced.is_none() || self.policy.twins == Twins::Dropped && self.overlap.is_doubtful();
            let overlap_end = self.overlap.end().filter(|_| !is_over);
            let (source, due) = match &mut self.state {
                State::Closed => return pending().await,
                State::Requested(source) => {
                    let first = self.first.as_ref().map(|(_, until)| *until);
                    let due = [overlap_end, first].into_iter().flatten().fold(self.idle_at, Instant::min);
                    (Some(source).filter(|_| first.is_none()), due)
                }
                State::Lost(until) => (None, *until),
            };
            let replaced = or_pending(self.replaced.as_mut().map(Source::next));
            let source = or_pending(source.map(Source::next));
            tokio::select! {
                biased;
                received = from_either(self.overlap.next_side(), replaced, source) => match received {
                    (Side::Replaced, Ok(Some(message))) => {
                        let now = Instant::now();
                        self.overlap.replaced_is_alive(now, self.policy.twins == Twins::Split);
                        if self.policy.twins == Twins::Split {
                            self.idle_at = now + self.idle_limit;
                        }
                        if self.is_new(Instant::now(), Side::Replaced, &message) {
                            return StreamEvent::Message(message);
                        }
                    }
                    (Side::Replaced, Ok(None)) => {
                        self.replaced = None;
                        self.overlap.replaced_has_ended(Instant::now());
                    }
                    (Side::Replaced, Err(_)) => self.replaced = None,
                    (Side::New, Ok(Some(message))) => {
                        let now = Instant::now();
                        self.backoff.reset(self.policy.name);
                        self.overlap.new_is_alive(now);
                        self.idle_at = now + self.idle_limit;
                        self.first = Some((message, now + TWIN_DELAY));
                    }
                    (Side::New, Ok(None)) => return self.lost(None),
                    (Side::New, Err(error)) => return self.lost(Some(error)),
                },
                () = self.alarm.at(Some(due)) => {
                    if self.is_lost() {
                        return StreamEvent::NeedsOpen;
                    }
                    let now = Instant::now();
                    if overlap_end.is_some_and(|end| end <= now) {
                        self.replaced = None;
                    }
                    if self.idle_at <= now {
                        self.idle_at = now + self.idle_limit;
                        tracing::debug!(stream = self.policy.name, limit = ?self.idle_limit, "stream is idle");
                        return StreamEvent::Idle;
                    }
                }
            }
        }
    }

    /// Decides about a message of the new stream. `None` if there is none, or if it waits for the idle stream.
    fn resolve_first(&mut self) -> Option<StreamEvent<T>> {
        let (message, until) = self.first.take()?;
        let now = Instant::now();
        if self.policy.twins == Twins::Dropped && self.overlap.is_doubtful() {
            if self.replaced.is_some() && now < until {
                self.first = Some((message, until));
                return None;
            }
            self.drop_replaced();
            self.first = Some((message, now));
            return Some(StreamEvent::Gap);
        }
        self.is_new(now, Side::New, &message).then_some(StreamEvent::Message(message))
    }

    fn is_new(&mut self, now: Instant, side: Side, message: &T) -> bool {
        self.policy.twins != Twins::Dropped || self.overlap.is_new(now, side, message)
    }

    fn lost(&mut self, error: Option<Error>) -> StreamEvent<T> {
        // An idle stream that a proxy ends has had no message.
        if self.opened_at.elapsed() >= STABLE_AFTER {
            self.backoff.was_idle();
        }
        if self.replaced.is_none() {
            self.overlap = Overlap::default();
        }
        match (self.backoff.lost(error.as_ref(), fastrand::f64()), error) {
            (None, Some(error)) => {
                self.drop_replaced();
                self.state = State::Closed;
                StreamEvent::Failed(error)
            }
            (pause, error) => {
                self.backoff.log(self.policy.name, error.as_ref());
                telemetry::record(&Measurement::StreamLost { stream: self.policy.name });
                self.state = State::Lost(Instant::now() + pause.unwrap_or_default());
                StreamEvent::Lost(error)
            }
        }
    }
}

/// The next item of two streams. If both have one, it is that of the `first`.
async fn from_either<T>(first: Side, replaced: impl Future<Output = T>, new: impl Future<Output = T>) -> (Side, T) {
    let (replaced, new) = (replaced.map(|item| (Side::Replaced, item)), new.map(|item| (Side::New, item)));
    tokio::pin!(replaced, new);
    match first {
        Side::Replaced => select(replaced, new).await.factor_first().0,
        Side::New => select(new, replaced).await.factor_first().0,
    }
}

impl<T> std::fmt::Debug for State<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Closed => "Closed",
            Self::Requested(_) => "Requested",
            Self::Lost(_) => "Lost",
        })
    }
}

impl<T> std::fmt::Debug for Source<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Opening(_) => "Opening",
            Self::Open(_) => "Open",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const SECOND: Duration = Duration::from_secs(1);
    const MAX_PAUSE: Duration = Duration::from_secs(2);
    const POLICY: StreamPolicy = StreamPolicy {
        name: "numbers",
        max_backoff: MAX_PAUSE,
        idle_limit: Duration::from_secs(60),
        twins: Twins::Dropped,
    };

    fn text(event: &StreamEvent<u32>) -> String {
        match event {
            StreamEvent::NeedsOpen => "needs open".into(),
            StreamEvent::Message(number) => number.to_string(),
            StreamEvent::Gap => "gap".into(),
            StreamEvent::Idle => "idle".into(),
            StreamEvent::Lost(None) => "ended".into(),
            StreamEvent::Lost(Some(error)) => format!("lost: {error}"),
            StreamEvent::Failed(error) => format!("failed: {error}"),
        }
    }

    fn messages(items: Vec<Result<u32>>) -> Messages<u32> {
        Messages::of(items)
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_can_limit_the_pause_that_a_server_requests() {
        let mut stream = ReconnectingStream::<u32>::new(POLICY);
        let asked = crate::error::RetryAfter::Delay(3600 * SECOND);
        let away = Error::new(ErrorKind::Unavailable, "away").transient().with_retry_after(Some(asked));
        stream.open(async move { Err(away) });
        assert_eq!(text(&stream.next().await), "lost: away");
        let lost = Instant::now();
        stream.limit_pause(3 * SECOND);
        stream.limit_pause(5 * SECOND);
        assert_eq!((text(&stream.next().await), lost.elapsed()), ("needs open".to_owned(), 3 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn streams_are_reopened_until_an_error_is_permanent() {
        let mut stream = ReconnectingStream::new(POLICY);
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
        let (mut stream, start) = (ReconnectingStream::<u32>::new(POLICY), Instant::now());
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
        let mut stream = ReconnectingStream::new(POLICY);
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

    /// Messages at these times after a moment. The stream stays open.
    fn timed(start: Instant, items: &'static [(u64, u32)]) -> Messages<u32> {
        Messages::timed(start, items.iter().map(|(at, item)| (Duration::from_millis(*at), *item)).collect())
    }

    /// The idle limit that is drawn next.
    fn next_limit() -> Duration {
        fastrand::seed(7);
        let limit = POLICY.with_jitter(fastrand::f64());
        fastrand::seed(7);
        limit
    }

    #[test]
    fn idle_limits_differ_by_up_to_a_quarter() {
        let limits = [0.0, 0.5, 1.0].map(|jitter| POLICY.with_jitter(jitter).as_millis());
        assert_eq!(limits, [60_000, 67_500, 75_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_idle_after_the_limit_since_its_last_message() {
        let (mut stream, start) = (ReconnectingStream::new(POLICY), Instant::now());
        let limit = next_limit();
        stream.open(async move { Ok(timed(start, &[(0, 1), (40_000, 2), (90_000, 3)])) });
        for (at, expected) in [(0, "1"), (40_000, "2"), (90_000, "3")] {
            assert_eq!(text(&stream.next().await), expected);
            assert_eq!(start.elapsed().as_millis(), at);
        }
        // The owner can leave it open. Then it is idle again after the same time.
        for times in 1..=3 {
            assert_eq!(text(&stream.next().await), "idle");
            assert_eq!(start.elapsed(), 90 * SECOND + times * limit);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_the_server_never_accepts_is_idle() {
        let (mut stream, start) = (ReconnectingStream::<u32>::new(POLICY), Instant::now());
        let limit = next_limit();
        stream.open(pending());
        // Futures that are dropped do not extend it.
        for _ in 0..5 {
            assert!(tokio::time::timeout(10 * SECOND, stream.next()).await.is_err());
        }
        assert_eq!(text(&stream.next().await), "idle");
        assert_eq!(start.elapsed(), limit);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_or_lost_stream_is_not_idle() {
        let mut stream = ReconnectingStream::<u32>::new(POLICY);
        assert!(tokio::time::timeout(3600 * SECOND, stream.next()).await.is_err());
        stream.open(pending());
        stream.mark_lost();
        assert_eq!(text(&stream.next().await), "needs open");
        stream.close();
        assert!(tokio::time::timeout(3600 * SECOND, stream.next()).await.is_err());
    }

    /// The events until a stream was idle for the second time, with their times since the replacement.
    async fn replaced(old: &'static [(u64, u32)], new: &'static [(u64, u32)]) -> Vec<(u128, String)> {
        replaced_with(POLICY, old, new).await
    }

    async fn replaced_with(
        policy: StreamPolicy,
        old: &'static [(u64, u32)],
        new: &'static [(u64, u32)],
    ) -> Vec<(u128, String)> {
        let mut stream = ReconnectingStream::new(policy);
        let limit = next_limit();
        let start = Instant::now() + limit;
        stream.open(async move { Ok(timed(start, old)) });
        assert_eq!(text(&stream.next().await), "idle");
        stream.open(async move { Ok(timed(start, new)) });
        let mut events = Vec::new();
        loop {
            match stream.next().await {
                StreamEvent::Idle => return events,
                event => events.push((start.elapsed().as_millis(), text(&event))),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_is_replaced_without_a_gap() {
        let expected =
            |events: &[(u128, u32)]| -> Vec<_> { events.iter().map(|(at, n)| (*at, n.to_string())).collect() };
        // The new one begins only after a while, and is behind. What comes after the overlap is only on the new one.
        let events = replaced(&[(10, 1), (500, 2), (5599, 3), (5601, 4)], &[(600, 2), (5700, 3), (5701, 4)]).await;
        assert_eq!(events, expected(&[(10, 1), (500, 2), (5599, 3), (5701, 4)]));
        // The idle one is behind.
        let events = replaced(&[(400, 1)], &[(10, 1), (20, 1)]).await;
        assert_eq!(events, expected(&[(400, 1), (400, 1)]));
    }

    /// More than are remembered.
    #[tokio::test(start_paused = true)]
    async fn what_both_streams_deliver_at_once_is_returned_once() {
        let burst = |first: u32| -> &'static [(u64, u32)] { (first..5000).map(|n| (10, n)).collect::<Vec<_>>().leak() };
        let events = replaced(burst(0), burst(3)).await;
        let returned: Vec<_> = events.into_iter().map(|(_, text)| text.parse::<u32>().unwrap()).collect();
        assert!(returned.iter().copied().eq(0..5000), "{} are returned", returned.len());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_that_was_lost_is_a_gap() {
        let gap =
            |events: &[(u128, &str)]| -> Vec<_> { events.iter().map(|(at, text)| (*at, (*text).to_owned())).collect() };
        let events = replaced(&[], &[(10, 1), (20, 2), (2000, 3)]).await;
        assert_eq!(events, gap(&[(510, "gap"), (510, "1"), (510, "2"), (2000, "3")]));
        // What it delivers then is not read any longer.
        let events = replaced(&[(600, 1), (700, 2)], &[(10, 1), (2000, 2)]).await;
        assert_eq!(events, gap(&[(510, "gap"), (510, "1"), (2000, "2")]));
        // However late that shows.
        let events = replaced(&[(59_000, 1)], &[(30_000, 1), (40_000, 2)]).await;
        assert_eq!(events, gap(&[(30_500, "gap"), (30_500, "1"), (40_000, "2")]));
        let events = replaced(&[(30_100, 1)], &[(30_000, 1), (34_000, 2)]).await;
        assert_eq!(events, gap(&[(30_100, "1"), (34_000, "2")]), "it is alive");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_that_is_alive_is_read_while_its_replacement_hangs() {
        for twins in [Twins::Dropped, Twins::Kept] {
            let mut stream = ReconnectingStream::new(StreamPolicy { twins, ..POLICY });
            let limit = next_limit();
            let start = Instant::now() + limit;
            stream.open(async move { Ok(timed(start, &[(10, 1), (30_000, 2), (100_000, 3), (200_000, 9)])) });
            assert_eq!(text(&stream.next().await), "idle");
            stream.open(pending());
            assert_eq!((text(&stream.next().await), text(&stream.next().await)), ("1".into(), "2".into()));
            assert_eq!(text(&stream.next().await), "idle");
            // It is alive, too, and behind. Then the first one is no longer read.
            stream.open(async move { Ok(timed(start, &[(110_000, 4), (150_000, 5)])) });
            for (at, expected) in [(100_000, "3"), (110_000, "4"), (150_000, "5")] {
                assert_eq!(text(&stream.next().await), expected, "{twins:?}");
                assert_eq!(start.elapsed().as_millis(), at);
            }
            assert_eq!(text(&stream.next().await), "idle");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_can_get_the_messages_of_both_streams() {
        let policy = StreamPolicy { twins: Twins::Kept, ..POLICY };
        let events = replaced_with(policy, &[(10, 1), (5011, 2)], &[(10, 1), (600, 1)]).await;
        assert_eq!(events, [(10, "1".to_owned()), (10, "1".into()), (600, "1".into())]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_is_read_until_its_replacement_can_be_opened() {
        let mut stream = ReconnectingStream::new(POLICY);
        let limit = next_limit();
        let start = Instant::now() + limit;
        stream.open(async move { Ok(timed(start, &[(10, 1), (1500, 2), (3000, 3)])) });
        assert_eq!(text(&stream.next().await), "idle");
        let rejected = || async { Err(Error::new(ErrorKind::Unavailable, "away").transient()) };
        stream.open(rejected());
        let mut events = Vec::new();
        while events.len() < 6 {
            let event = stream.next().await;
            if matches!(event, StreamEvent::NeedsOpen) {
                // Away for a second.
                if start.elapsed() < SECOND {
                    tokio::time::sleep(SECOND).await;
                    stream.open(rejected());
                } else {
                    stream.open(async move { Ok(timed(start, &[(1500, 2), (3000, 3)])) });
                }
            }
            events.push(text(&event));
        }
        assert_eq!(events, ["lost: away", "needs open", "1", "lost: away", "needs open", "2"]);
        assert_eq!((text(&stream.next().await), start.elapsed()), ("3".to_owned(), 3 * SECOND), "once");
    }
}
