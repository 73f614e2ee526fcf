//! The open connections of a connector, which can be closed before their keepalive has failed.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use crate::sync::lock;

/// The open connections, with the times when they were established.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections(Arc<Mutex<Vec<(Instant, CancellationToken)>>>);

impl Connections {
    /// Adds a connection that was just established.
    pub(super) fn add(&self) -> Closing {
        let token = CancellationToken::new();
        let mut open = lock(&self.0);
        open.retain(|(_, token)| !token.is_cancelled());
        open.push((Instant::now(), token.clone()));
        Closing { requested: Box::pin(token.clone().cancelled_owned()), _ended: token.drop_guard() }
    }

    /// Closes the connections that were established at least this long ago. Their calls and streams fail as if the connection was lost.
    /// Returns whether there were any.
    pub(super) fn close_older_than(&self, age: Duration) -> bool {
        let mut open = lock(&self.0);
        open.retain(|(_, token)| !token.is_cancelled());
        let old = open.iter().filter(|(established, _)| established.elapsed() >= age);
        old.map(|(_, token)| token.cancel()).count() > 0
    }
}

/// Whether a connection must be closed. Owned by the connection: it is no longer open when this is dropped.
#[derive(Debug)]
pub(super) struct Closing {
    requested: Pin<Box<WaitForCancellationFutureOwned>>,
    _ended: DropGuard,
}

impl Closing {
    /// Fails an operation that waits for the peer if the connection must be closed. The task is woken when that is requested.
    pub(super) fn check<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending() && self.requested.as_mut().poll(cx).is_ready() {
            let text = "closed by the client: the peer did not respond";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, text)));
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt as _;
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn read(closing: &mut Closing) -> io::ErrorKind {
        poll_fn(|cx| closing.check(cx, Poll::<io::Result<()>>::Pending)).await.unwrap_err().kind()
    }

    #[tokio::test(start_paused = true)]
    async fn only_old_connections_are_closed() {
        let connections = Connections::default();
        let mut old = connections.add();
        advance(2 * SECOND).await;
        let mut new = connections.add();
        assert!(!connections.close_older_than(3 * SECOND));
        assert_eq!((read(&mut old).now_or_never(), read(&mut new).now_or_never()), (None, None));
        assert!(connections.close_older_than(2 * SECOND));
        assert!(!connections.close_older_than(2 * SECOND), "it is closed");
        assert_eq!(read(&mut old).now_or_never(), Some(io::ErrorKind::ConnectionAborted));
        assert_eq!(read(&mut new).now_or_never(), None);
        assert!(matches!(poll_fn(|cx| old.check(cx, Poll::Ready(Ok(1)))).await, Ok(1)), "what has arrived is read");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_tasks_are_woken() {
        let connections = Connections::default();
        let mut open = connections.add();
        let waiting = tokio::spawn(async move { read(&mut open).await });
        tokio::task::yield_now().await;
        assert!(connections.close_older_than(Duration::ZERO));
        assert_eq!(waiting.await.unwrap(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_have_ended_are_forgotten() {
        let connections = Connections::default();
        for _ in 0..10 {
            drop(connections.add());
        }
        let _open = connections.add();
        assert_eq!(lock(&connections.0).len(), 1);
    }
}
