//! Heartbeats that do not depend on the threads of the runtime.
//!
//! Code that blocks a thread can keep the tasks of the runtime from running, and with them the heartbeats. After 30 seconds without
//! heartbeats, the engine assigns all attempts of the worker to other workers. A dedicated thread therefore monitors the heartbeats. If
//! they are late, it sends them over its own connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::config::Config;
use crate::error::Result;
use crate::model::WorkerId;
use crate::rpc::Rpc;
use crate::time::Clock;

/// How late the heartbeats of the runtime may be. In an outage each takes 4 seconds, with its timeout and its pause. After 5 seconds, the
/// engine assigns nothing more, which is right if the runtime is blocked.
const MAX_DELAY: Duration = Duration::from_secs(6);
const CHECK_PERIOD: Duration = Duration::from_millis(500);
/// The interval of the heartbeats that the thread sends. The engine keeps the attempts for 30 seconds, and assigns further ones only for
/// five seconds after a heartbeat: a blocked runtime should not get many.
const PERIOD: Duration = Duration::from_secs(12);
/// The pause after a heartbeat that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// When the last heartbeat of the runtime ended, by the clock of the machine.
#[derive(Debug, Clone)]
pub(super) struct LastHeartbeat {
    start: Instant,
    millis: Arc<AtomicU64>,
}

impl LastHeartbeat {
    #[expect(clippy::disallowed_methods, reason = "the thread runs on the clock of the machine")]
    pub(super) fn now() -> Self {
        Self { start: Instant::now(), millis: Arc::default() }
    }

    pub(super) fn set(&self) {
        self.millis.store(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How long ago it was.
    pub(super) fn age(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.millis.load(Relaxed)))
    }
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
    pub(super) fn start(config: &Config, clock: &Clock, worker: WorkerId, last: LastHeartbeat) -> Option<Self> {
        if !matches!(clock, Clock::System) {
            return None;
        }
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let config = config.clone();
        let run = move || {
            let _end = end;
            match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let mut rpc = None;
                    let send = async || send(&config, &mut rpc, worker).await;
                    runtime.block_on(watch(worker, || last.age(), send, stopped));
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

/// Sends heartbeats while the last one of the runtime is too old.
async fn watch(
    worker: WorkerId,
    age: impl Fn() -> Duration,
    mut send: impl AsyncFnMut() -> Result<()>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut pause = CHECK_PERIOD;
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            () = sleep(pause) => {}
        }
        pause = CHECK_PERIOD;
        if age() < MAX_DELAY {
            continue;
        }
        pause = PERIOD;
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            result = send() => match result {
                Ok(()) => tracing::warn!(worker_id = %worker, "runtime is blocked: sent a heartbeat from the heartbeat thread"),
                Err(error) => {
                    pause = RETRY_PAUSE;
                    tracing::debug!(worker_id = %worker, %error, "heartbeat thread failed to send a heartbeat");
                }
            },
        }
    }
}

async fn send(config: &Config, rpc: &mut Option<Rpc>, worker: WorkerId) -> Result<()> {
    let rpc = match rpc {
        Some(rpc) => rpc,
        None => rpc.insert(Rpc::connect(config)?),
    };
    rpc.dispatcher.heartbeat(worker, Clock::System.now()).await
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use uuid::Uuid;

    use super::*;
    use crate::error::{Error, ErrorKind};

    const SECOND: Duration = Duration::from_secs(1);

    /// Watches a runtime whose heartbeats are due at every second, and missing in these periods. Returns when heartbeats were sent, of
    /// which the first ones fail.
    async fn sent(missing: &[(u64, u64)], failures: usize, stop_at: Duration) -> Vec<Duration> {
        let start = tokio::time::Instant::now();
        let (times, count) = (RefCell::new(Vec::new()), Cell::new(0));
        let age = || {
            let now = start.elapsed().as_secs();
            let is_missing = |second: u64| missing.iter().any(|(from, to)| (*from..*to).contains(&second));
            let last = (0..=now).rev().find(|second| !is_missing(*second)).unwrap_or_default();
            start.elapsed().saturating_sub(Duration::from_secs(last))
        };
        let send = async || {
            times.borrow_mut().push(start.elapsed());
            count.set(count.get() + 1);
            if count.get() <= failures { Err(Error::new(ErrorKind::Unavailable, "as planned")) } else { Ok(()) }
        };
        let (stop, stopped) = oneshot::channel();
        let stopping = async {
            sleep(stop_at).await;
            drop(stop);
        };
        tokio::join!(watch(Uuid::nil().into(), age, send, stopped), stopping);
        assert_eq!(start.elapsed(), stop_at, "it ends at once");
        times.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_are_sent_only_while_the_runtime_sends_none() {
        assert_eq!(sent(&[], 0, 60 * SECOND).await, []);
        assert_eq!(sent(&[(5, 10)], 0, 60 * SECOND).await, [], "a short delay");
        // The last one was at 4 s.
        assert_eq!(sent(&[(5, 40)], 0, 60 * SECOND).await, [10 * SECOND, 22 * SECOND, 34 * SECOND]);
        assert_eq!(sent(&[(5, 20), (30, 37)], 0, 60 * SECOND).await, [10 * SECOND, 35 * SECOND]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_that_fails_is_sent_again_soon() {
        assert_eq!(sent(&[(1, 60)], 2, 21 * SECOND).await, [6 * SECOND, 8 * SECOND, 10 * SECOND]);
    }

    #[tokio::test]
    async fn the_thread_ends_when_it_is_stopped() {
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiI3MDdkMDg1NS04MGFiLTRlMWYtYTE1Ni1mMWM0NTQ2Y2JmNTIiLCJncnBjX2Jyb2FkY2F\
                     zdF9hZGRyZXNzIjoibG9jYWxob3N0OjcwNzciLCJzZXJ2ZXJfdXJsIjoiaHR0cDovL2xvY2FsaG9zdDo4MDgwIn0.c2ln";
        let config = Config::builder().token(token).tls_strategy(crate::config::TlsStrategy::None).build().unwrap();
        let last = LastHeartbeat::now();
        let thread = HeartbeatThread::start(&config, &Clock::System, Uuid::nil().into(), last).unwrap();
        thread.stop().await;
    }
}
