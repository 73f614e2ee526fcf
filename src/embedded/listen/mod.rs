//! Listeners on the loopback address, for programs in other processes and other languages.
//!
//! Each listener is one task. It owns the tasks of its connections, and each connection owns the tasks of its streams, so no task
//! remains when the listener has ended.

mod connection;
mod protocol;
mod request;
mod stalled;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::Service;

pub(super) use self::connection::SHUTDOWN_GRACE_PERIOD;
pub(super) use self::protocol::Protocol;
use super::failure::Failure;
use crate::error::{Error, ErrorKind, Result};

/// The maximum number of connections of a listener. Further ones wait in the backlog of the system.
const MAX_CONNECTIONS: usize = 1000;
/// How long a listener pauses if the system has no free sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::new(ErrorKind::Unavailable, format!("failed to listen on {address}"))
            .with_source(error)
            .without_side_effects()
    })
}

pub(super) fn address(listener: &TcpListener) -> Result<SocketAddr> {
    listener
        .local_addr()
        .map_err(|error| Error::new(ErrorKind::Unavailable, "the socket has no address").with_source(error))
}

/// The handler of requests.
pub(super) trait Handler:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Handler for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// The state that all connections of an engine share.
#[derive(Clone)]
pub(super) struct Shared {
    /// The record of a panic in a request handler.
    pub(super) failure: Failure,
    pub(super) stop: CancellationToken,
    /// How long connections have to close after `stop`.
    pub(super) shutdown_grace_period: Duration,
}

/// Serves connections until the engine stops and they have ended, or the grace period is over.
///
/// The task panics if the task of a connection panicked.
pub(super) fn serve(
    listener: TcpListener,
    protocol: Protocol,
    service: impl Handler,
    shared: Shared,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let can_accept = connections.len() < MAX_CONNECTIONS;
            tokio::select! {
                () = shared.stop.cancelled() => break,
                Some(ended) = connections.join_next() => resume(ended),
                accepted = listener.accept(), if can_accept => match accepted {
                    Ok((stream, _)) => {
                        // Small messages must be sent immediately.
                        let _ = stream.set_nodelay(true);
                        connections.spawn(connection::serve(stream, protocol, service.clone(), shared.clone()));
                    }
                    Err(error) if is_connection_error(&error) => {
                        tracing::debug!(%error, "a connection ended before it was accepted");
                    }
                    Err(error) => {
                        tracing::warn!(%error, "failed to accept connection");
                        shared.stop.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await;
                    }
                }
            }
        }
        // From here on, new connections are rejected.
        drop(listener);
        while let Some(ended) = connections.join_next().await {
            resume(ended);
        }
    })
}

/// Whether an error of `accept` is about one connection, so that the next call can succeed.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::TimedOut
    )
}

fn resume(ended: std::result::Result<(), JoinError>) {
    if let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) {
        std::panic::resume_unwind(panic);
    }
}
