//! Heartbeats that depend neither on the threads of the runtime nor on the connection of the client.
//!
//! After 30 seconds without heartbeats, the engine assigns all attempts of the worker to other workers. There are two reasons for which
//! the heartbeats of the runtime do not arrive although the engine could be reached: code that blocks a thread can keep the tasks of the
//! runtime from running, and a NAT or a load balancer can drop a connection without closing it. A dedicated thread therefore monitors the
//! heartbeats. If the engine has not responded for a few seconds, it sends one over its own connection. If that one is answered and the
//! runtime is not blocked, the connection of the client is closed, and the next call establishes another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::client::Client;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::WorkerId;
use crate::rpc::Rpc;
use crate::time::Clock;
use crate::workflow::FullSlots;

/// How long the engine may not have responded to the heartbeats of the runtime, and how long the runtime may not have attempted any. In an
/// outage each takes 4 seconds, with its timeout and its pause. After 5 seconds, the engine assigns nothing more, which is right if the
/// runtime is blocked.
const MAX_DELAY: Duration = Duration::from_secs(6);
const CHECK_PERIOD: Duration = Duration::from_millis(500);
/// The interval of the heartbeats that the thread sends while the worker has a free slot. The engine keeps the attempts for 30 seconds, and
/// assigns further ones only for five seconds after a heartbeat: a blocked runtime should not get many.
const PERIOD: Duration = Duration::from_secs(12);
/// The interval while all slots are taken: that of the runtime. Nothing can be assigned until one of the attempts has ended, also by its
/// timeout.
const FULL_PERIOD: Duration = Duration::from_secs(2);
/// The pause after a heartbeat that failed, and after one that the runtime has attempted in vain.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// When the last heartbeats of the runtime ended, by the clock of the machine.
#[derive(Debug, Clone)]
pub(super) struct LastHeartbeat {
    start: Instant,
    /// The last one, in milliseconds since the start.
    attempted: Arc<AtomicU64>,
    /// The last one to which the engine has responded.
    answered: Arc<AtomicU64>,
}

impl LastHeartbeat {
    #[expect(clippy::disallowed_methods, reason = "the thread runs on the clock of the machine")]
    pub(super) fn now() -> Self {
        Self { start: Instant::now(), attempted: Arc::default(), answered: Arc::default() }
    }

    /// As if the last heartbeat had ended `age` ago.
    #[cfg(all(test, feature = "health"))]
    #[expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "only for tests, on the clock of the machine")]
    pub(super) fn ago(age: Duration) -> Self {
        Self { start: Instant::now().checked_sub(age).unwrap(), ..Self::now() }
    }

    /// A heartbeat has ended now.
    pub(super) fn set(&self, is_answered: bool) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.attempted.store(millis, Relaxed);
        if is_answered {
            self.answered.store(millis, Relaxed);
        }
    }

    /// How long ago the last attempt was.
    pub(super) fn age(&self) -> Duration {
        self.since(&self.attempted)
    }

    /// How long ago the engine last responded.
    fn silence(&self) -> Duration {
        self.since(&self.answered)
    }

    fn since(&self, millis: &AtomicU64) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(millis.load(Relaxed)))
    }
}

/// Whether the engine has rejected a heartbeat because the worker has no stream. A proxy rejects calls with other codes.
pub(super) fn reports_missing_stream(error: &Error) -> bool {
    const FAILED_PRECONDITION: i32 = 9;
    error.grpc_code() == Some(FAILED_PRECONDITION)
}

/// Whether a heartbeat has reached the engine.
pub(super) fn is_answered(heartbeat: &Result<()>) -> bool {
    heartbeat.as_ref().map_or_else(|error| reports_missing_stream(error) || error.is_not_found(), |()| true)
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct HeartbeatThread {
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
}

impl HeartbeatThread {
    /// Starts the thread, or returns `None` if the worker is not connected over sockets: an embedded engine in this process runs on the
    /// same threads.
    pub(super) fn start(client: &Client, worker: WorkerId, last: LastHeartbeat, slots: FullSlots) -> Option<Self> {
        if !matches!(client.clock(), Clock::System) {
            return None;
        }
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (config, rpc) = (client.config().clone(), client.rpc().clone());
        let run = move || {
            let _end = end;
            match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let mut own = None;
                    let send = async || send(&config, &mut own, worker).await;
                    let ages = || Ages { attempted: last.age(), answered: last.silence() };
                    let reconnect = || rpc.dispatcher.close_connections(MAX_DELAY);
                    let period = || if slots.are_full() { FULL_PERIOD } else { PERIOD };
                    runtime.block_on(watch(worker, ages, period, send, reconnect, stopped));
                    // A name resolution in progress must not delay the end.
                    runtime.shutdown_background();
                }
                Err(error) => tracing::warn!(%error, "failed to start the runtime of the heartbeat thread"),
            }
        };
        match thread::Builder::new().name("hatchet-heartbeat".into()).spawn(run) {
            Ok(_) => Some(Self { stop: Some(stop), ended }),
            Err(error) => {
                tracing::warn!(%error, "failed to start the heartbeat thread");
                None
            }
        }
    }

    /// Ends the thread, and waits until it has ended.
    pub(super) async fn stop(mut self) {
        drop(self.stop.take());
        let _ = (&mut self.ended).await;
    }
}

/// The ages of the last heartbeat of the runtime, and of the last one to which the engine has responded.
struct Ages {
    attempted: Duration,
    answered: Duration,
}

/// Sends heartbeats with this period while the last answered one of the runtime is too old. If one is answered although the runtime has
/// attempted others, their connection is at fault: `reconnect` closes it, unless it is new.
async fn watch(
    worker: WorkerId,
    ages: impl Fn() -> Ages,
    period: impl Fn() -> Duration,
    mut send: impl AsyncFnMut() -> Result<()>,
    reconnect: impl Fn() -> bool,
    mut stopped: oneshot::Receiver<()>,
) {
    let (mut pause, mut was_blocked) = (CHECK_PERIOD, false);
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            () = sleep(pause) => {}
        }
        pause = CHECK_PERIOD;
        if ages().answered < MAX_DELAY {
            was_blocked = false;
            continue;
        }
        let heartbeat = tokio::select! {
            biased;
            _ = &mut stopped => return,
            heartbeat = send() => heartbeat,
        };
        pause = period();
        let Ages { attempted, answered } = ages();
        match heartbeat {
            _ if answered < MAX_DELAY => {}
            result if is_answered(&result) && attempted < MAX_DELAY => {
                pause = RETRY_PAUSE;
                if reconnect() {
                    tracing::warn!(worker_id = %worker, "closed an unresponsive connection; another one responds");
                }
            }
            Ok(()) if !was_blocked => {
                was_blocked = true;
                tracing::warn!(worker_id = %worker, "runtime is blocked: sent a heartbeat from the heartbeat thread");
            }
            Ok(()) => {
                tracing::debug!(worker_id = %worker, "runtime is still blocked: sent a heartbeat from the heartbeat thread");
            }
            Err(error) => {
                pause = RETRY_PAUSE;
                tracing::debug!(worker_id = %worker, %error, "heartbeat thread failed to send a heartbeat");
            }
        }
    }
}

/// Sends a heartbeat over a new connection: an older one could have been dropped, too.
async fn send(config: &Config, rpc: &mut Option<Rpc>, worker: WorkerId) -> Result<()> {
    let rpc = match rpc {
        Some(rpc) => rpc,
        None => rpc.insert(Rpc::connect(config)?),
    };
    let result = rpc.dispatcher.heartbeat(worker, Clock::System.now()).await;
    rpc.dispatcher.close_connections(Duration::ZERO);
    result
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use uuid::Uuid;

    use super::*;
    use crate::error::{Error, ErrorKind, ServerStatus};

    const SECOND: Duration = Duration::from_secs(1);

    /// What a runtime does at every second in which it is not blocked.
    struct Runtime<'a> {
        /// The periods in which it is blocked.
        blocked: &'a [(u64, u64)],
        /// The periods in which its heartbeats are not answered. A new connection works.
        unanswered: &'a [(u64, u64)],
        /// How many heartbeats of the thread fail.
        failures: usize,
        period: Duration,
    }

    const HEALTHY: Runtime<'_> = Runtime { blocked: &[], unanswered: &[], failures: 0, period: PERIOD };

    /// Watches a runtime. Returns when the thread sent heartbeats, and when it closed the connection.
    async fn watched(runtime: Runtime<'_>, stop_at: Duration) -> (Vec<Duration>, Vec<Duration>) {
        let start = tokio::time::Instant::now();
        let (times, closed, count) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()), Cell::new(0));
        let since_last = |missing: &[&[(u64, u64)]]| {
            let is_missing = |second: u64| missing.concat().iter().any(|(from, to)| (*from..*to).contains(&second));
            let last = (0..=start.elapsed().as_secs()).rev().find(|second| !is_missing(*second)).unwrap_or_default();
            start.elapsed().saturating_sub(Duration::from_secs(last))
        };
        let ages = || Ages {
            attempted: since_last(&[runtime.blocked]),
            answered: since_last(&[runtime.blocked, runtime.unanswered]),
        };
        let send = async || {
            times.borrow_mut().push(start.elapsed());
            count.set(count.get() + 1);
            let is_failing = count.get() <= runtime.failures;
            if is_failing { Err(Error::new(ErrorKind::Unavailable, "as planned")) } else { Ok(()) }
        };
        let reconnect = || {
            closed.borrow_mut().push(start.elapsed());
            true
        };
        let (stop, stopped) = oneshot::channel();
        let stopping = async {
            sleep(stop_at).await;
            drop(stop);
        };
        tokio::join!(watch(Uuid::nil().into(), ages, || runtime.period, send, reconnect, stopped), stopping);
        assert_eq!(start.elapsed(), stop_at, "it ends at once");
        (times.into_inner(), closed.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_are_sent_only_while_the_runtime_sends_none() {
        let sent = async |blocked| watched(Runtime { blocked, ..HEALTHY }, 60 * SECOND).await;
        assert_eq!(sent(&[]).await, (vec![], vec![]));
        assert_eq!(sent(&[(5, 10)]).await, (vec![], vec![]), "a short delay");
        // The last one was at 4 s.
        assert_eq!(sent(&[(5, 40)]).await, (vec![10 * SECOND, 22 * SECOND, 34 * SECOND], vec![]));
        assert_eq!(sent(&[(5, 20), (30, 37)]).await, (vec![10 * SECOND, 35 * SECOND], vec![]));
        // All slots are taken.
        let full = Runtime { blocked: &[(5, 17)], period: FULL_PERIOD, ..HEALTHY };
        assert_eq!(watched(full, 60 * SECOND).await, ([10, 12, 14, 16].map(|at| at * SECOND).into(), vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_closed_if_another_one_works() {
        let watched = async |unanswered, failures| {
            let (sent, closed) = watched(Runtime { unanswered, failures, ..HEALTHY }, 30 * SECOND).await;
            assert_eq!(closed, sent.get(failures..).unwrap_or_default(), "after each heartbeat that is answered");
            sent
        };
        assert_eq!(watched(&[(5, 10)], 0).await, [], "a short outage");
        assert_eq!(watched(&[(5, 11)], 0).await, [10 * SECOND]);
        assert_eq!(
            watched(&[(5, 16)], 0).await,
            [10 * SECOND, 12 * SECOND, 14 * SECOND],
            "the next connection does not work, either"
        );
        // In an outage, no connection works.
        assert_eq!(watched(&[(5, 15)], 99).await, [10 * SECOND, 12 * SECOND, 14 * SECOND]);
        assert_eq!(watched(&[(5, 15)], 2).await, [10 * SECOND, 12 * SECOND, 14 * SECOND]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_that_fails_is_sent_again_soon() {
        let runtime = Runtime { blocked: &[(1, 60)], failures: 2, ..HEALTHY };
        assert_eq!(watched(runtime, 21 * SECOND).await, (vec![6 * SECOND, 8 * SECOND, 10 * SECOND], vec![]));
    }

    #[test]
    fn a_rejection_is_an_answer() {
        let failed = |kind| Err(Error::new(kind, "as planned"));
        let rejected = |status| Err(Error::new(ErrorKind::Rejected, "as planned").with_status(status));
        assert!(
            is_answered(&Ok(()))
                && is_answered(&rejected(ServerStatus::Grpc(9)))
                && is_answered(&failed(ErrorKind::NotFound))
        );
        assert!(!is_answered(&failed(ErrorKind::Timeout)) && !is_answered(&failed(ErrorKind::Unavailable)));
        // Of a proxy.
        assert!(!is_answered(&rejected(ServerStatus::Http(405))) && !is_answered(&rejected(ServerStatus::Grpc(3))));
    }

    #[tokio::test]
    async fn the_thread_ends_when_it_is_stopped() {
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiI3MDdkMDg1NS04MGFiLTRlMWYtYTE1Ni1mMWM0NTQ2Y2JmNTIiLCJncnBjX2Jyb2FkY2F\
                     zdF9hZGRyZXNzIjoibG9jYWxob3N0OjcwNzciLCJzZXJ2ZXJfdXJsIjoiaHR0cDovL2xvY2FsaG9zdDo4MDgwIn0.c2ln";
        let config = Config::builder().token(token).tls_strategy(crate::config::TlsStrategy::None).build().unwrap();
        let client = Client::new(config).unwrap();
        let thread = HeartbeatThread::start(&client, Uuid::nil().into(), LastHeartbeat::now(), FullSlots::default());
        let thread = thread.unwrap();
        thread.stop().await;
    }
}
