//! Checks of the current Tokio runtime: a missing feature is a typed error instead of a panic later.

use std::net::{Ipv4Addr, UdpSocket};
use std::panic::catch_unwind;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::{Error, ErrorKind, Result};

/// The features of a runtime that a caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Timers,
    TimersAndSockets,
}

/// Returns an error if there is no current Tokio runtime, or if it lacks a required feature.
///
/// Tokio has no API to query the features of a runtime; it panics. This function catches that panic: the panic hook still runs
/// and prints it, and the caller gets the error.
pub(crate) fn require(what: &str, needs: Needs) -> Result<()> {
    drop(timer(what, Instant::now())?);
    if needs == Needs::TimersAndSockets && !has_sockets() {
        return Err(missing(what, "a Tokio runtime with I/O: call `enable_io` or `enable_all` on its builder"));
    }
    Ok(())
}

/// The caller's runtime, if it has the required features.
pub(crate) fn current(what: &str, needs: Needs) -> Result<Handle> {
    require(what, needs)?;
    handle(what)
}

/// A timer on the caller's runtime, if it has timers.
pub(crate) fn timer(what: &str, at: Instant) -> Result<Sleep> {
    handle(what)?;
    catch_unwind(|| sleep_until(at)).map_err(|_| {
        missing(what, "a Tokio runtime with timers enabled: call `enable_time` or `enable_all` on its builder")
    })
}

fn handle(what: &str) -> Result<Handle> {
    Handle::try_current()
        .map_err(|error| missing(what, "a Tokio runtime, but the current thread is not in one").with_source(error))
}

fn missing(what: &str, needed: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{what} needs {needed}")).without_side_effects()
}

/// Whether the runtime has I/O enabled. If the system refuses a socket, later calls report that error.
fn has_sockets() -> bool {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| {
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    socket.map_or(true, |socket| catch_unwind(|| drop(tokio::net::UdpSocket::from_std(socket))).is_ok())
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn missing_runtime_features_are_named() {
        let text = |needs| require("it", needs).map_err(|error| (error.kind(), error.to_string()));
        let rejected = |text: &str| Err((ErrorKind::Config, format!("it needs {text}")));
        let none = rejected("a Tokio runtime, but the current thread is not in one");
        assert_eq!(text(Needs::TimersAndSockets), none);

        let bare = Builder::new_current_thread().build().unwrap();
        let entered = bare.enter();
        let no_timers = "a Tokio runtime with timers enabled: call `enable_time` or `enable_all` on its builder";
        assert_eq!(text(Needs::TimersAndSockets), rejected(no_timers));
        drop(entered);

        let timers = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let entered = timers.enter();
        let no_io = "a Tokio runtime with I/O: call `enable_io` or `enable_all` on its builder";
        assert_eq!(text(Needs::TimersAndSockets), rejected(no_io));
        assert_eq!(text(Needs::Timers), Ok(()));
        drop(entered);

        let all = Builder::new_current_thread().enable_all().build().unwrap();
        let entered = all.enter();
        assert_eq!(text(Needs::TimersAndSockets), Ok(()));
        drop(entered);
    }
}
