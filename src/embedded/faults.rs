//! Fault injection: calls that are refused or delayed, or whose response is lost, and interrupted streams.
//!
//! Quirks are permanent properties of the engine. Faults are single events, at moments that the test chooses.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response as HttpResponse};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::actor::Handle;
use super::calls;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::time::Clock;

/// A failure of one call, which a test injects with [`Faults::inject`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// use std::time::Duration;
/// use hatchet::embedded::{Engine, Fault};
///
/// let engine = Engine::start().await?;
/// engine.faults().inject("GET /api/v1/stable/workflow-runs/{run}", Fault::Refuse(503), 2)?;
/// engine.faults().inject("Push", Fault::Delay(Duration::from_secs(3)), 1)?;
/// assert_eq!(engine.faults().planned(), 3);
/// # engine.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The call does not reach the engine. The caller gets this numeric status (for `UNAVAILABLE`: 14 in gRPC, 503 in REST), as if the
    /// engine had sent it. The caller cannot know whether the call had an effect.
    Refuse(u16),
    /// The engine processes the call, but the caller gets `UNAVAILABLE`, or 502 in REST, as from a proxy.
    LoseResponse,
    /// The call reaches the engine after this delay.
    Delay(Duration),
}

impl Fault {
    /// Applies the fault to a call, and returns what its caller gets.
    pub(super) async fn apply<R>(
        self,
        engine: &Handle,
        call: impl Future<Output = R>,
        refused: impl FnOnce(u16) -> R,
        lost: impl FnOnce() -> R,
    ) -> R {
        match self {
            Self::Refuse(code) => refused(code),
            Self::LoseResponse => {
                call.await;
                lost()
            }
            Self::Delay(delay) => {
                engine.sleep(delay).await;
                call.await
            }
        }
    }
}

/// The planned faults of an engine, returned by [`Engine::faults`](crate::embedded::Engine::faults).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// use hatchet::embedded::{Engine, Fault};
///
/// let engine = Engine::start().await?;
/// engine.faults().inject("Push", Fault::LoseResponse, 1)?;
/// // The event is pushed, but the response is lost.
/// assert!(engine.client().push("order:created", &()).send().await.is_err());
/// assert_eq!(engine.faults().planned(), 0);
/// # engine.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
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
    faults: HashMap<String, VecDeque<(Fault, usize)>>,
    /// Interrupts the open streams of a method.
    open: HashMap<String, CancellationToken>,
}

impl Methods {
    fn planned(&self) -> usize {
        self.faults.values().flatten().map(|(_, times)| *times).fold(0, usize::saturating_add)
    }

    fn take(&mut self, method: &str) -> Option<Fault> {
        let faults = self.faults.get_mut(method)?;
        faults.retain(|(_, times)| *times > 0);
        let (fault, times) = faults.front_mut()?;
        *times = times.saturating_sub(1);
        Some(fault.clone())
    }
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

    /// Applies a fault to the next `times` calls with this name, after the faults that are already planned for it. The names are those
    /// of [`calls`](Self::calls): for gRPC the methods in the `.proto` files, such as `TriggerWorkflow`, and for REST the method and the
    /// route, such as `GET /api/v1/stable/workflow-runs/{run}`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if there is no such call, or if the status does not belong to its API.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> hatchet::Result<()> {
    /// use hatchet::embedded::{Engine, Fault};
    ///
    /// let engine = Engine::start().await?;
    /// engine.faults().inject("TriggerWorkflow", Fault::LoseResponse, 1)?;
    /// # engine.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn inject(&self, call: &str, fault: Fault, times: usize) -> Result<()> {
        if !Self::calls().any(|known| known == call) {
            return Err(Error::invalid("fault", format_args!("expected a name of Faults::calls, got {call:?}")));
        }
        let expected = if calls::REST.contains(&call) { 400..=599 } else { 1..=16 };
        if let Fault::Refuse(status) = fault
            && !expected.contains(&status)
        {
            let (min, max) = (expected.start(), expected.end());
            return Err(Error::invalid("fault", format_args!("expected a status from {min} to {max}, got {status}")));
        }
        let mut methods = self.lock();
        methods.faults.entry(call.to_owned()).or_default().push_back((fault, times));
        self.set_planned(methods.planned());
        Ok(())
    }

    /// Returns the names of all calls.
    pub fn calls() -> impl Iterator<Item = &'static str> {
        calls::GRPC.iter().chain(calls::REST).copied()
    }

    /// Removes all planned faults.
    pub fn clear(&self) {
        let mut methods = self.lock();
        methods.faults.clear();
        self.set_planned(0);
    }

    /// Interrupts the open streams of a method, such as `ListenV2`: their readers get `UNAVAILABLE`. New streams can be opened.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if there is no stream with this name.
    pub fn interrupt(&self, method: &str) -> Result<()> {
        if !calls::STREAMS.contains(&method) {
            let known = calls::STREAMS.join(", ");
            return Err(Error::invalid("fault", format_args!("expected a stream ({known}), got {method:?}")));
        }
        if let Some(open) = self.lock().open.remove(method) {
            open.cancel();
        }
        Ok(())
    }

    /// Returns the number of faults that have not been applied yet.
    pub fn planned(&self) -> usize {
        self.0.planned.load(Relaxed)
    }

    /// Takes the next fault of this call.
    pub(super) fn next(&self, method: impl FnOnce() -> String) -> Option<Fault> {
        if self.planned() == 0 {
            return None;
        }
        let mut methods = self.lock();
        let fault = methods.take(&method())?;
        self.set_planned(methods.planned());
        Some(fault)
    }

    /// Resolves when the currently open streams of a method are interrupted.
    pub(super) fn opened(&self, method: &str) -> CancellationToken {
        self.lock().open.entry(method.to_owned()).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Methods> {
        self.0.by_method.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const INJECTED: &str = "injected fault";

pub(super) fn status(code: u16) -> Status {
    Status::new(Code::from_i32(code.into()), INJECTED)
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
    let refused = |code| (StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), INJECTED);
    fault
        .apply(
            &engine,
            next.run(request),
            |code| refused(code).into_response(),
            || (StatusCode::BAD_GATEWAY, INJECTED).into_response(),
        )
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_applied_in_order() {
        let faults = Faults::default();
        faults.inject("Push", Fault::Refuse(14), 2).unwrap();
        faults.inject("Push", Fault::LoseResponse, 1).unwrap();
        let next = |method: &str| faults.next(|| method.to_owned());
        assert_eq!(next("Register"), None);
        let taken: Vec<_> = std::iter::from_fn(|| next("Push")).collect();
        assert_eq!(taken, [Fault::Refuse(14), Fault::Refuse(14), Fault::LoseResponse]);
        assert_eq!(faults.planned(), 0);
        faults.inject("Push", Fault::LoseResponse, 1).unwrap();
        faults.clear();
        assert_eq!((faults.planned(), next("Push")), (0, None));
        // `usize::MAX` means always.
        faults.inject("Push", Fault::LoseResponse, usize::MAX).unwrap();
        faults.inject("Register", Fault::LoseResponse, 1).unwrap();
        assert_eq!((next("Push"), faults.planned()), (Some(Fault::LoseResponse), usize::MAX));
        assert!(faults.interrupt("ListenV2").is_ok() && faults.interrupt("Push").is_err());
    }

    #[test]
    fn faults_that_cannot_happen_are_rejected() {
        let faults = Faults::default();
        let refused =
            |call: &str, status| faults.inject(call, Fault::Refuse(status), 1).map_err(|error| error.to_string());
        assert_eq!(refused("Pusj", 14).unwrap_err(), r#"invalid fault: expected a name of Faults::calls, got "Pusj""#);
        assert_eq!(refused("Push", 503).unwrap_err(), "invalid fault: expected a status from 1 to 16, got 503");
        let route = "GET /api/v1/workers/{worker}";
        assert_eq!(refused(route, 14).unwrap_err(), "invalid fault: expected a status from 400 to 599, got 14");
        assert_eq!((refused("Push", 14), refused(route, 503), faults.planned()), (Ok(()), Ok(()), 2));
    }
}
