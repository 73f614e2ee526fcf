//! What calls and connections need of a Tokio runtime, checked where Tokio itself would panic.

use std::net::Ipv4Addr;
use std::panic::catch_unwind;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::{Error, ErrorKind, Result};

/// The caller's runtime, if connections can live on it.
pub(super) fn current() -> Result<Handle> {
    // Both checks need a runtime, and the first says so if there is none.
    drop(timer(Instant::now())?);
    if !has_io() {
        return Err(missing("with I/O (`enable_io` or `enable_all` of its builder)"));
    }
    Handle::try_current().map_err(|error| missing("").with_source(error))
}

/// A timer on the caller's runtime.
///
/// Tokio has no way to ask whether a runtime has timers. Where it has none, Tokio's panic is caught; the panic hook may
/// still print it.
pub(super) fn timer(at: Instant) -> Result<Sleep> {
    Handle::try_current().map_err(|error| missing("to run on").with_source(error))?;
    catch_unwind(|| sleep_until(at)).map_err(|_| missing("with timers (`enable_time` or `enable_all` of its builder)"))
}

fn has_io() -> bool {
    let bound = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let Ok(socket) = bound.and_then(|socket| socket.set_nonblocking(true).map(|()| socket)) else {
        // Without a socket nothing is known, and no connection will come about anyway.
        return true;
    };
    catch_unwind(|| drop(tokio::net::UdpSocket::from_std(socket))).is_ok()
}

fn missing(what: &str) -> Error {
    let text = format!("a client and its calls need a Tokio runtime {what}");
    Error::new(ErrorKind::Config, text.trim_end()).unsent()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::Builder;

    fn text<T>(result: Result<T>) -> String {
        let error = result.err().unwrap();
        assert_eq!((error.kind(), error.never_reached_server()), (ErrorKind::Config, true));
        error.to_string()
    }

    #[test]
    fn what_a_runtime_lacks_is_an_error_and_not_a_panic() {
        assert_eq!(text(current()), "a client and its calls need a Tokio runtime to run on");
        let bare = Builder::new_current_thread().build().unwrap();
        let timers =
            "a client and its calls need a Tokio runtime with timers (`enable_time` or `enable_all` of its builder)";
        assert_eq!(bare.block_on(async { text(current()) }), timers);
        assert_eq!(bare.block_on(async { text(timer(Instant::now())) }), timers);
        let timed = Builder::new_current_thread().enable_time().build().unwrap();
        assert_eq!(
            timed.block_on(async { text(current()) }),
            "a client and its calls need a Tokio runtime with I/O (`enable_io` or `enable_all` of its builder)"
        );
        assert!(timed.block_on(async { timer(Instant::now()).is_ok() }));
        let full = Builder::new_current_thread().enable_all().build().unwrap();
        assert!(full.block_on(async { current().is_ok() }));
    }
}
