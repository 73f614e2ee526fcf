//! Fault injection: calls that are rejected or delayed, or whose response is lost, interrupted streams, and streams whose messages are
//! lost, repeated, reordered or delayed.
//!
//! Quirks are permanent properties of the engine. Faults are single events, at moments that the test chooses.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response as HttpResponse};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::actor::Handle;
use super::calls;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::sync::lock;
use crate::time::{Clock, MAX_DURATION};

/// A failure of one call or of one message of a stream, which a test injects with [`Faults::inject`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// use std::time::Duration;
/// use hatchet::embedded::{Engine, Fault};
///
/// let engine = Engine::start().await?;
/// engine.faults().inject_times("GET /api/v1/stable/workflow-runs/{run}", Fault::RejectRest(503), 2)?;
/// engine.faults().inject("Push", Fault::Delay(Duration::from_secs(3)))?;
/// assert_eq!(engine.faults().planned(), 3);
/// # engine.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The gRPC call does not reach the engine. The caller gets this numeric code, from 1 to 16, as if the engine had sent it: 14 is
    /// `UNAVAILABLE`. The caller cannot know whether the call had an effect. With 16, `UNAUTHENTICATED`, the message is the one
    /// that the engine sends for a token that it does not accept, such as an expired one. With 3, `INVALID_ARGUMENT`,
    /// `SendStepActionEvent` gets the message that the engine sends while its database fails.
    RejectGrpc(u16),
    /// The REST call does not reach the engine. The caller gets this HTTP status, from 400 to 599, as if the engine had sent it. With 403,
    /// the body is the one that the engine sends for a token that it does not accept.
    RejectRest(u16),
    /// The engine processes the call, but the caller gets `UNAVAILABLE`, or 502 in REST, as from a proxy.
    LoseResponse,
    /// The call reaches the engine after this delay.
    Delay(Duration),
    /// The next message of a stream is not sent.
    LoseMessage,
    /// The next message of a stream is sent twice.
    DuplicateMessage,
    /// The next message of a stream is sent after the one that follows it. If none follows, it is not sent.
    ReorderMessages,
    /// The next message of a stream arrives after this delay, by Tokio's clock. The messages after it, and the end of the stream, do not
    /// overtake it. If a test interrupts or ends the stream first, the message is lost.
    DelayMessage(Duration),
}

impl Fault {
    /// Rejects a fault that cannot happen to a call.
    fn check(&self, call: &str) -> Result<()> {
        let (kind, accepted, status) = match self {
            Self::RejectGrpc(code) => ("gRPC", 1..=16, *code),
            Self::RejectRest(status) => ("REST", 400..=599, *status),
            Self::LoseResponse | Self::Delay(_) => return Ok(()),
            Self::LoseMessage | Self::DuplicateMessage | Self::ReorderMessages | Self::DelayMessage(_) => {
                return check_stream(call);
            }
        };
        if calls::REST.contains(&call) != matches!(self, Self::RejectRest(_)) {
            return Err(Error::invalid("fault", format_args!("expected a {kind} call, got {call:?}")));
        }
        if !accepted.contains(&status) {
            let (min, max) = (accepted.start(), accepted.end());
            return Err(Error::invalid("fault", format_args!("expected a status from {min} to {max}, got {status}")));
        }
        Ok(())
    }

    /// Whether it happens to a message of a stream, and not to a call.
    fn is_of_message(&self) -> bool {
        matches!(self, Self::LoseMessage | Self::DuplicateMessage | Self::ReorderMessages | Self::DelayMessage(_))
    }

    /// Applies the fault to a call, and returns what its caller gets. Those of messages are not taken for a call.
    pub(super) async fn apply<R>(
        self,
        engine: &Handle,
        call: impl Future<Output = R>,
        rejected: impl FnOnce(u16) -> R,
        lost: impl FnOnce() -> R,
    ) -> R {
        match self {
            Self::RejectGrpc(code) | Self::RejectRest(code) => rejected(code),
            Self::LoseResponse => {
                call.await;
                lost()
            }
            Self::Delay(delay) => {
                engine.sleep(delay).await;
                call.await
            }
            Self::LoseMessage | Self::DuplicateMessage | Self::ReorderMessages | Self::DelayMessage(_) => call.await,
        }
    }
}

fn check_stream(call: &str) -> Result<()> {
    if calls::STREAMS.contains(&call) {
        return Ok(());
    }
    let known = calls::STREAMS.join(", ");
    Err(Error::invalid("fault", format_args!("expected a stream ({known}), got {call:?}")))
}

/// The planned faults of an engine, returned by [`Engine::faults`](crate::embedded::Engine::faults).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// use hatchet::embedded::{Engine, Fault};
///
/// let engine = Engine::start().await?;
/// engine.faults().inject("Push", Fault::LoseResponse)?;
/// // The event is pushed, but the response is lost.
/// assert!(engine.client().push("order:created", &()).send().await.is_err());
/// assert_eq!(engine.faults().planned(), 0);
/// # engine.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Faults(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The number of planned faults. Usually it is 0, and calls need no further check.
    planned: AtomicUsize,
    by_method: Mutex<Methods>,
    /// The engine's clock: idle workers send every heartbeat while faults are planned.
    clock: Clock,
}

#[derive(Debug, Default)]
struct Methods {
    /// Each fault with its remaining count.
    faults: HashMap<String, VecDeque<(Fault, Times)>>,
    /// Those of the messages of streams.
    of_messages: HashMap<String, VecDeque<(Fault, Times)>>,
    /// The streams of a method since its last interruption.
    open: HashMap<String, OpenStream>,
}

/// How many calls a fault is applied to.
#[derive(Debug, Clone, Copy)]
enum Times {
    Exactly(usize),
    Until(DateTime<Utc>),
    Always,
}

/// An open stream that can be closed by a test.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenStream {
    closed: CancellationToken,
    /// What its reader gets then. Its clones are counted.
    status: Arc<OnceLock<Status>>,
}

impl OpenStream {
    pub(super) fn close(&self, status: Status) {
        let _ = self.status.set(status);
        self.closed.cancel();
    }

    pub(super) fn closed(&self) -> impl Future<Output = Status> + Send + 'static {
        // Without the count.
        let (closed, status) = (self.closed.clone(), Arc::downgrade(&self.status));
        async move {
            closed.cancelled().await;
            status.upgrade().and_then(|status| status.get().cloned()).unwrap_or_else(interrupted)
        }
    }
}

/// The status that the reader of an interrupted stream gets.
pub(super) fn interrupted() -> Status {
    Status::unavailable("the stream was interrupted")
}

impl Methods {
    fn planned(&self) -> usize {
        let count = |(_, times): &(Fault, Times)| match times {
            Times::Exactly(times) => *times,
            Times::Until(_) | Times::Always => 1,
        };
        let all = self.faults.values().chain(self.of_messages.values());
        all.flatten().map(count).fold(0, usize::saturating_add)
    }

    fn remove_expired(&mut self, now: DateTime<Utc>) {
        for faults in self.faults.values_mut().chain(self.of_messages.values_mut()) {
            faults.retain(|(_, times)| !matches!(times, Times::Until(end) if *end <= now));
        }
    }
}

/// Takes the next of some faults.
fn take(faults: &mut VecDeque<(Fault, Times)>, now: DateTime<Utc>) -> Option<Fault> {
    while let Some((fault, times)) = faults.front_mut() {
        let fault = fault.clone();
        match times {
            Times::Until(until) if now >= *until => {
                faults.pop_front();
                continue;
            }
            Times::Exactly(times) if *times <= 1 => drop(faults.pop_front()),
            Times::Exactly(times) => *times -= 1,
            Times::Until(_) | Times::Always => {}
        }
        return Some(fault);
    }
    None
}

impl Faults {
    /// An empty set of faults, for the engine with this clock.
    pub(super) fn of(clock: Clock) -> Self {
        Self(Arc::new(Inner { clock, ..Inner::default() }))
    }

    fn set_planned(&self, planned: usize) {
        self.0.planned.store(planned, Relaxed);
        self.0.clock.suspend_idle(planned > 0);
    }

    /// Applies a fault to the next call with this name, after the faults that are already planned for it.
    ///
    /// The names are those of [`calls`](Self::calls): for gRPC the methods in the `.proto` files, such as `TriggerWorkflow`, and for REST
    /// the method and the route, such as `GET /api/v1/stable/workflow-runs/{run}`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if there is no such call, or if the fault does not belong to its API.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> hatchet::Result<()> {
    /// use hatchet::embedded::{Engine, Fault};
    ///
    /// let engine = Engine::start().await?;
    /// engine.faults().inject("TriggerWorkflow", Fault::LoseResponse)?;
    /// # engine.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn inject(&self, call: &str, fault: Fault) -> Result<()> {
        self.plan(call, fault, Times::Exactly(1))
    }

    /// Applies a fault to the next `times` calls with this name; see [`inject`](Self::inject).
    ///
    /// ```no_run
    /// # async fn example(engine: hatchet::embedded::Engine) -> hatchet::Result<()> {
    /// use hatchet::embedded::Fault;
    ///
    /// engine.faults().inject_times("TriggerWorkflow", Fault::RejectGrpc(14), 3)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`inject`](Self::inject), and [`InvalidInput`](ErrorKind::InvalidInput) if `times` is 0.
    pub fn inject_times(&self, call: &str, fault: Fault, times: usize) -> Result<()> {
        if times == 0 {
            return Err(Error::invalid("fault", "expected a positive number of times, got 0"));
        }
        self.plan(call, fault, Times::Exactly(times))
    }

    /// Applies a fault to all calls with this name for a duration from now on, by the engine's clock, after the faults that are already
    /// planned for it.
    ///
    /// ```no_run
    /// # async fn example(engine: hatchet::embedded::Engine) -> hatchet::Result<()> {
    /// use std::time::Duration;
    /// use hatchet::embedded::Fault;
    ///
    /// engine.faults().inject_for("TriggerWorkflow", Fault::RejectGrpc(14), Duration::from_secs(60))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`inject`](Self::inject), and [`InvalidInput`](ErrorKind::InvalidInput) if the duration is over ten years.
    pub fn inject_for(&self, call: &str, fault: Fault, duration: Duration) -> Result<()> {
        if duration > MAX_DURATION {
            return Err(Error::invalid("fault", format_args!("expected at most 10 years, got {duration:?}")));
        }
        let duration = TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX);
        self.plan(call, fault, Times::Until(self.0.clock.now() + duration))
    }

    /// Rejects all calls for some time, and interrupts all streams.
    pub(super) fn reject_everything_for(&self, duration: Duration) -> Result<()> {
        // The code of `UNAVAILABLE`.
        calls::GRPC.iter().try_for_each(|call| self.inject_for(call, Fault::RejectGrpc(14), duration))?;
        calls::REST.iter().try_for_each(|call| self.inject_for(call, Fault::RejectRest(503), duration))?;
        calls::STREAMS.iter().try_for_each(|stream| self.interrupt(stream).map(drop))
    }

    /// Applies a fault to all calls with this name until [`clear`](Self::clear), after the faults that are already planned for it.
    ///
    /// Faults that are injected later are not applied.
    ///
    /// # Errors
    /// The errors of [`inject`](Self::inject).
    pub fn inject_always(&self, call: &str, fault: Fault) -> Result<()> {
        self.plan(call, fault, Times::Always)
    }

    fn plan(&self, call: &str, fault: Fault, times: Times) -> Result<()> {
        if !Self::calls().any(|known| known == call) {
            return Err(Error::invalid("fault", format_args!("expected a name of Faults::calls, got {call:?}")));
        }
        fault.check(call)?;
        let mut methods = self.lock();
        let Methods { faults, of_messages, .. } = &mut *methods;
        let faults = if fault.is_of_message() { of_messages } else { faults };
        faults.entry(call.to_owned()).or_default().push_back((fault, times));
        self.set_planned(methods.planned());
        Ok(())
    }

    /// Returns the names of all calls, for [`inject`](Self::inject).
    pub fn calls() -> impl Iterator<Item = &'static str> {
        calls::GRPC.iter().chain(calls::REST).copied()
    }

    /// Removes all planned faults.
    pub fn clear(&self) {
        let mut methods = self.lock();
        methods.faults.clear();
        methods.of_messages.clear();
        self.set_planned(0);
    }

    /// Interrupts the open streams of a method, such as `ListenV2`: their readers get `UNAVAILABLE`.
    ///
    /// New streams can be opened. Returns the number of interrupted streams.
    ///
    /// A client that is reopening a lost stream is not counted, and its new stream is not interrupted. While a
    /// client replaces an idle stream, both are open, so it counts as two.
    ///
    /// ```no_run
    /// # async fn example(engine: hatchet::embedded::Engine) -> hatchet::Result<()> {
    /// let streams = engine.faults().interrupt("ListenV2")?;
    /// println!("{streams} workers reconnect");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if there is no stream with this name.
    pub fn interrupt(&self, method: &str) -> Result<usize> {
        self.close(method, interrupted())
    }

    /// Ends the open streams of a method without an error, as a server or proxy that closes idle streams does: their readers get the end of
    /// the stream.
    ///
    /// New streams can be opened. Returns the number of streams that have ended.
    ///
    /// ```no_run
    /// # async fn example(engine: hatchet::embedded::Engine) -> hatchet::Result<()> {
    /// let streams = engine.faults().end("SubscribeToWorkflowEvents")?;
    /// println!("{streams} subscriptions are opened again");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if there is no stream with this name.
    pub fn end(&self, method: &str) -> Result<usize> {
        self.close(method, Status::ok(""))
    }

    fn close(&self, method: &str, status: Status) -> Result<usize> {
        check_stream(method)?;
        let Some(open) = self.lock().open.remove(method) else { return Ok(0) };
        open.close(status);
        Ok(Arc::strong_count(&open.status).saturating_sub(1))
    }

    /// Returns the number of faults that have not been applied yet.
    ///
    /// A fault that is always applied, or that is applied for a duration that has not expired, counts as one.
    pub fn planned(&self) -> usize {
        if !self.may_have_planned() {
            return 0;
        }
        let mut methods = self.lock();
        methods.remove_expired(self.0.clock.now());
        let planned = methods.planned();
        self.set_planned(planned);
        planned
    }

    /// Whether there may be a planned fault.
    fn may_have_planned(&self) -> bool {
        self.0.planned.load(Relaxed) > 0
    }

    /// Takes the next fault of this call.
    pub(super) fn next(&self, method: impl FnOnce() -> String) -> Option<Fault> {
        if !self.may_have_planned() {
            return None;
        }
        let mut methods = self.lock();
        let fault = take(methods.faults.get_mut(&method())?, self.0.clock.now());
        self.set_planned(methods.planned());
        fault
    }

    /// Takes the next fault of a message of this stream.
    pub(super) fn next_of_message(&self, method: &str) -> Option<Fault> {
        if !self.may_have_planned() {
            return None;
        }
        let mut methods = self.lock();
        let fault = take(methods.of_messages.get_mut(method)?, self.0.clock.now());
        self.set_planned(methods.planned());
        fault
    }

    /// Records a new stream of a method. It is open until the returned value is dropped.
    pub(super) fn opened(&self, method: &str) -> OpenStream {
        self.lock().open.entry(method.to_owned()).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Methods> {
        lock(&self.0.by_method)
    }
}

/// The message of a report whose task the engine cannot look up.
const DATABASE_FAILED: &str =
    "invalid task external run id 00000000-0000-0000-0000-000000000000: failed to connect to the database";
const INJECTED: &str = "injected fault";
/// What the engine answers to a token that it does not accept, over gRPC and REST.
pub(super) const INVALID_TOKEN: &str = "invalid auth token";
pub(super) const INVALID_CREDENTIALS: &str = "Please provide valid credentials";

pub(super) fn status(method: &str, code: u16) -> Status {
    match Code::from_i32(code.into()) {
        Code::Unauthenticated => Status::unauthenticated(INVALID_TOKEN),
        Code::InvalidArgument if method == "SendStepActionEvent" => Status::invalid_argument(DATABASE_FAILED),
        code => Status::new(code, INJECTED),
    }
}

/// The status that the caller gets instead of the response.
pub(super) fn lost() -> Status {
    Status::unavailable(INJECTED)
}

/// Applies the planned faults of a REST call.
pub(super) async fn over_rest(
    State((faults, engine)): State<(Faults, Handle)>,
    route: MatchedPath,
    request: Request,
    next: Next,
) -> HttpResponse {
    let Some(fault) = faults.next(|| format!("{} {}", request.method(), route.as_str())) else {
        return next.run(request).await;
    };
    let rejected = |code| match StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR) {
        StatusCode::FORBIDDEN => {
            let body = json!({ "message": INVALID_CREDENTIALS }).to_string();
            (StatusCode::FORBIDDEN, [(CONTENT_TYPE, "application/json")], body).into_response()
        }
        status => (status, INJECTED).into_response(),
    };
    fault.apply(&engine, next.run(request), rejected, || (StatusCode::BAD_GATEWAY, INJECTED).into_response()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults() -> Faults {
        Faults::of(Clock::default())
    }

    #[test]
    fn faults_are_applied_in_order() {
        let faults = faults();
        faults.inject_times("Push", Fault::RejectGrpc(14), 2).unwrap();
        faults.inject("Push", Fault::LoseResponse).unwrap();
        let next = |method: &str| faults.next(|| method.to_owned());
        assert_eq!(next("Register"), None);
        let taken: Vec<_> = std::iter::from_fn(|| next("Push")).collect();
        assert_eq!(taken, [Fault::RejectGrpc(14), Fault::RejectGrpc(14), Fault::LoseResponse]);
        assert_eq!(faults.planned(), 0);
        faults.inject("Push", Fault::LoseResponse).unwrap();
        faults.clear();
        assert_eq!((faults.planned(), next("Push")), (0, None));
        faults.inject("Push", Fault::Delay(Duration::ZERO)).unwrap();
        faults.inject_always("Push", Fault::LoseResponse).unwrap();
        faults.inject("Register", Fault::LoseResponse).unwrap();
        assert_eq!((faults.planned(), next("Push")), (3, Some(Fault::Delay(Duration::ZERO))));
        for _ in 0..3 {
            assert_eq!((next("Push"), faults.planned()), (Some(Fault::LoseResponse), 2));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_can_last_for_a_while() {
        let engine = crate::embedded::Engine::start().await.unwrap();
        let faults = engine.faults();
        faults.inject_for("Push", Fault::LoseResponse, Duration::from_secs(60)).unwrap();
        faults.inject("Push", Fault::RejectGrpc(14)).unwrap();
        let next = || faults.next(|| "Push".to_owned());
        assert_eq!((next(), next()), (Some(Fault::LoseResponse), Some(Fault::LoseResponse)));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!((next(), faults.planned()), (Some(Fault::LoseResponse), 2));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(faults.planned(), 1, "the first fault has expired");
        assert_eq!((next(), next(), faults.planned()), (Some(Fault::RejectGrpc(14)), None, 0));
        assert!(faults.inject_for("Push", Fault::LoseResponse, Duration::MAX).is_err());
    }

    #[test]
    fn faults_of_messages_are_not_those_of_calls() {
        let faults = faults();
        faults.inject_times("ListenV2", Fault::LoseMessage, 2).unwrap();
        faults.inject("ListenV2", Fault::LoseResponse).unwrap();
        assert_eq!(faults.next(|| "ListenV2".to_owned()), Some(Fault::LoseResponse));
        let next = || faults.next_of_message("ListenV2");
        assert_eq!((next(), next(), next()), (Some(Fault::LoseMessage), Some(Fault::LoseMessage), None));
        assert_eq!(faults.planned(), 0);
    }

    #[test]
    fn faults_that_cannot_happen_are_rejected() {
        let faults = faults();
        let rejected = |call: &str, fault| faults.inject(call, fault).map_err(|error| error.to_string());
        let (grpc, rest) = (Fault::RejectGrpc, Fault::RejectRest);
        let route = "GET /api/v1/workers/{worker}";
        for (call, fault, expected) in [
            ("Pusj", grpc(14), r#"expected a name of Faults::calls, got "Pusj""#),
            ("Push", grpc(0), "expected a status from 1 to 16, got 0"),
            ("Push", rest(503), r#"expected a REST call, got "Push""#),
            (route, grpc(14), r#"expected a gRPC call, got "GET /api/v1/workers/{worker}""#),
            (route, rest(200), "expected a status from 400 to 599, got 200"),
            (
                "Push",
                Fault::LoseMessage,
                "expected a stream (Listen, ListenV2, SubscribeToWorkflowEvents, SubscribeToWorkflowRuns, DurableTask, \
                 ListenForDurableEvent), got \"Push\"",
            ),
        ] {
            assert_eq!(rejected(call, fault).unwrap_err(), format!("invalid fault: {expected}"));
        }
        let never = faults.inject_times("Push", grpc(14), 0).unwrap_err();
        assert_eq!(never.to_string(), "invalid fault: expected a positive number of times, got 0");
        assert_eq!((rejected("Push", grpc(14)), rejected(route, rest(503)), faults.planned()), (Ok(()), Ok(()), 2));
    }

    #[test]
    fn interrupted_streams_are_counted() {
        let faults = faults();
        assert_eq!(faults.interrupt("ListenV2").unwrap(), 0);
        let (first, second, other) = (faults.opened("ListenV2"), faults.opened("ListenV2"), faults.opened("Listen"));
        drop(faults.opened("ListenV2"));
        assert_eq!(faults.interrupt("ListenV2").unwrap(), 2);
        let are_interrupted = [&first, &second, &other].map(|stream| stream.closed.is_cancelled());
        assert_eq!(are_interrupted, [true, true, false]);
        assert_eq!(faults.interrupt("ListenV2").unwrap(), 0, "they are interrupted once");
        assert!(faults.interrupt("Push").is_err());
    }
}
