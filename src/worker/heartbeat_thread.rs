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
                    runtime.block_on(watch(&config, worker, &last, stopped));
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

async fn watch(config: &Config, worker: WorkerId, last: &LastHeartbeat, mut stopped: oneshot::Receiver<()>) {
    let mut rpc = None;
    let mut pause = CHECK_PERIOD;
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            () = sleep(pause) => {}
        }
        pause = CHECK_PERIOD;
        if last.age() < MAX_DELAY {
            continue;
        }
        pause = PERIOD;
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            sent = send(config, &mut rpc, worker) => match sent {
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
