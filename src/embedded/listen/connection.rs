//! One connection: what it may use, and when it ends.

use std::future::{Future, pending};
use std::pin::pin;
use std::time::Duration;

use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::request::Requests;
use super::stalled::WriteTimeout;
use super::{Handler, Shared};

/// How long connections have to end when the engine is shut down, unless it is said otherwise.
pub(in crate::embedded) const SHUTDOWN_GRACE_PERIOD: Duration = Duration::from_secs(2);
/// How long the first request of a connection, and the headers of each request of HTTP/1, may take to come.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may be open without a request.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long the next part of a request's body may take to come.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer may take to read anything of what is written to it.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a peer is asked whether it is still there, and how long it may take to answer: as the real engine asks.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(30);
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The most requests that a connection of HTTP/2 has at once. A client keeps others to itself until one has ended.
pub(super) const MAX_CONCURRENT_STREAMS: u32 = 10_000;
/// What may be under way to the engine on one stream.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same on one connection. h2 derives from it how many small frames it holds before it takes them for an attack and ends the
/// connection with `too_many_data_frames`: half of the window, of which a small message uses up to 256 bytes. With each
/// possible stream a small message can wait, with room to spare.
const CONNECTION_WINDOW: u32 = 16 << 20;
const _: () = assert!(CONNECTION_WINDOW / 2 > 2 * 256 * MAX_CONCURRENT_STREAMS);

/// What is spoken on a listener's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::embedded) enum Protocol {
    /// gRPC on HTTP/2.
    Grpc,
    /// REST on HTTP/1.
    Rest,
}

impl Protocol {
    fn builder(self, streams: StreamTasks) -> auto::Builder<StreamTasks> {
        let builder = auto::Builder::new(streams);
        match self {
            Self::Rest => {
                let mut builder = builder.http1_only();
                builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
                builder
            }
            Self::Grpc => {
                let mut builder = builder.http2_only();
                builder
                    .http2()
                    .timer(TokioTimer::new())
                    .keep_alive_interval(PING_INTERVAL)
                    .keep_alive_timeout(PING_TIMEOUT)
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
                    // A client may give up all that it has begun at once.
                    .max_pending_accept_reset_streams(MAX_CONCURRENT_STREAMS as usize);
                builder
            }
        }
    }
}

/// The tasks of a connection's streams. They end with it.
#[derive(Clone, Default)]
struct StreamTasks {
    tasks: TaskTracker,
    end: CancellationToken,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamTasks {
    fn execute(&self, stream: F) {
        let end = self.end.clone();
        self.tasks.spawn(async move {
            end.run_until_cancelled(stream).await;
        });
    }
}

/// Serves a connection until its peer ends it, it is of no more use, or the engine stops.
pub(super) async fn serve<I>(io: I, protocol: Protocol, service: impl Handler, shared: Shared)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let streams = StreamTasks::default();
    let _end_streams = streams.end.clone().drop_guard();
    let open = watch::Sender::new(0);
    let idle = idle(open.subscribe());
    let requests = Requests { protocol, service, failure: shared.failure, open };
    let builder = protocol.builder(streams.clone());
    let io = TokioIo::new(WriteTimeout::new(io, WRITE_TIMEOUT));
    let mut connection = pin!(builder.serve_connection(io, requests));
    let ended = tokio::select! {
        ended = connection.as_mut() => Ok(ended),
        () = async { tokio::select! { () = idle => (), () = shared.stop.cancelled() => () } } => {
            // What is open may still be answered. What has not ended by then is dropped.
            connection.as_mut().graceful_shutdown();
            timeout(shared.shutdown_grace_period, connection).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error = &*error, "connection failed"),
        Err(_) => tracing::debug!(?protocol, "dropped connection that did not close within the grace period"),
    }
    streams.end.cancel();
    streams.tasks.close();
    streams.tasks.wait().await;
}

/// Resolves when a connection has been without a request for too long.
async fn idle(mut open: watch::Receiver<usize>) {
    let mut limit = HEADER_TIMEOUT;
    loop {
        // Not marked as seen: a request that has come and gone by now is a change, too.
        let count = *open.borrow();
        let changed = if count > 0 { Ok(open.changed().await) } else { timeout(limit, open.changed()).await };
        match changed {
            Ok(Ok(())) => limit = IDLE_TIMEOUT,
            // The connection itself has ended.
            Ok(Err(_)) => pending().await,
            Err(_) => return,
        }
    }
}
