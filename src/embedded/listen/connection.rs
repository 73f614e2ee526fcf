//! One connection: its limits and its end.

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

use super::protocol::Protocol;
use super::request::Requests;
use super::stalled::WriteTimeout;
use super::{Handler, Shared};

/// How long connections have to close when the engine is shut down, by default.
pub(in crate::embedded) const SHUTDOWN_GRACE_PERIOD: Duration = Duration::from_secs(2);
/// The timeout for the first request of a connection, and for the headers of each HTTP/1 request.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may be open without a request.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a peer may go without reading.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// The interval and the timeout of HTTP/2 pings, as in the real engine.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(30);
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The maximum number of concurrent requests of an HTTP/2 connection. The client queues further ones.
pub(super) const MAX_CONCURRENT_STREAMS: u32 = 10_000;
/// The flow-control window of a stream.
const STREAM_WINDOW: u32 = 256 << 10;
/// The flow-control window of a connection. h2 derives from it how many small frames it buffers before it closes the connection
/// with `too_many_data_frames`: half of the window, at up to 256 bytes per small message. This is enough for a small message on
/// each possible stream.
const CONNECTION_WINDOW: u32 = 16 << 20;
const _: () = assert!(CONNECTION_WINDOW / 2 > 2 * 256 * MAX_CONCURRENT_STREAMS);

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
                    // A client may reset all of its requests at once.
                    .max_pending_accept_reset_streams(MAX_CONCURRENT_STREAMS as usize);
                builder
            }
        }
    }
}

/// The tasks of a connection's streams. They end with the connection.
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

/// Serves a connection until the peer closes it, a limit is exceeded, or the engine stops.
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
            // Open requests may still be answered within the grace period. Then they are dropped.
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
        // Not marked as seen: a request that has started and ended since then is a change, too.
        let count = *open.borrow();
        let changed = if count > 0 { Ok(open.changed().await) } else { timeout(limit, open.changed()).await };
        match changed {
            Ok(Ok(())) => limit = IDLE_TIMEOUT,
            // The connection has ended.
            Ok(Err(_)) => pending().await,
            Err(_) => return,
        }
    }
}
