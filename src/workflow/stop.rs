//! Why and how an attempt is stopped.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::model::name::parse_name;

/// Why an attempt must stop; see [`Context::cancel_cause`](crate::Context::cancel_cause).
///
/// ```
/// use hatchet::workflow::CancelCause;
///
/// assert_eq!(CancelCause::Engine.to_string(), "engine");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CancelCause {
    /// The engine has ended the attempt: its run was cancelled, or its execution timeout has expired. The worker cannot distinguish these
    /// causes.
    Engine,
    /// The engine has assigned a later attempt of the same task to this worker.
    Replaced,
    /// After an interruption of the connection, the worker found out that the engine had ended the attempt or assigned it to another
    /// worker.
    Lost,
    /// The worker is shutting down, and its grace period is over. The engine assigns the attempt to another worker.
    Shutdown,
}

impl CancelCause {
    /// Returns the name: `engine`, `replaced`, `lost` or `shutdown`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Replaced => "replaced",
            Self::Lost => "lost",
            Self::Shutdown => "shutdown",
        }
    }
}

impl FromStr for CancelCause {
    type Err = Error;

    /// Parses `engine`, `replaced`, `lost` or `shutdown`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for any other string.
    fn from_str(name: &str) -> Result<Self> {
        parse_name("cancel cause", &[Self::Engine, Self::Replaced, Self::Lost, Self::Shutdown], name)
    }
}

impl fmt::Display for CancelCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Stops an attempt.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    state: Arc<State>,
    requested: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the engine has ended the attempt. Otherwise, the worker shuts down.
    is_ended: AtomicBool,
    /// Whether the worker shuts down, even if the engine has ended the attempt before.
    is_shutdown: AtomicBool,
    shutdown: Notify,
    /// The first cause.
    cause: OnceLock<CancelCause>,
}

impl Stop {
    pub(crate) fn stop(&self, cause: CancelCause) {
        if cause == CancelCause::Shutdown {
            self.state.is_shutdown.store(true, Release);
            self.state.shutdown.notify_waiters();
        } else {
            self.state.is_ended.store(true, Relaxed);
        }
        // A second cause does not replace the first one.
        let _ = self.state.cause.set(cause);
        self.requested.cancel();
    }

    /// Whether the engine has ended the attempt.
    pub(crate) fn is_ended(&self) -> bool {
        self.state.is_ended.load(Relaxed)
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    pub(crate) async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Runs a future until it is ready. Returns `None` if it is pending when the attempt must stop. Cancel safe if the future is.
    pub(crate) async fn run_until_requested<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.requested() => None,
        }
    }

    /// Waits until the worker shuts down and the attempt must stop, even if it had to stop before. Cancel safe.
    pub(crate) async fn shutdown(&self) {
        // It receives the notification from now on.
        let notified = self.state.shutdown.notified();
        if !self.state.is_shutdown.load(Acquire) {
            notified.await;
        }
    }

    pub(super) fn cause(&self) -> Option<CancelCause> {
        self.state.cause.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn the_first_cause_is_kept_and_an_end_by_the_engine_is_noticed() {
        let stop = Stop::default();
        assert_eq!((stop.cause(), stop.is_requested()), (None, false));
        stop.stop(CancelCause::Shutdown);
        assert_eq!((stop.cause(), stop.is_requested(), stop.is_ended()), (Some(CancelCause::Shutdown), true, false));
        stop.stop(CancelCause::Engine);
        assert_eq!((stop.cause(), stop.is_ended()), (Some(CancelCause::Shutdown), true));
    }

    #[test]
    fn a_shutdown_is_noticed_after_an_end_by_the_engine() {
        let stop = Stop::default();
        stop.stop(CancelCause::Engine);
        let mut shutdown = pin!(stop.shutdown());
        assert_eq!(shutdown.as_mut().now_or_never(), None);
        stop.stop(CancelCause::Shutdown);
        assert_eq!((shutdown.now_or_never(), stop.shutdown().now_or_never()), (Some(()), Some(())));
    }
}
