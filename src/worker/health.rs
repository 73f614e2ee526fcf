//! An HTTP server that reports the health of a worker.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::heartbeat_thread::LastHeartbeat;
use super::running::RunningWorker;
use super::status::{Life, WorkerState, WorkerStatus};
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::{PrometheusRecorder, worker_gauges};

/// The runtime of the worker is blocked if it has not sent a heartbeat for this long.
const MAX_HEARTBEAT_AGE: Duration = Duration::from_secs(15);
/// The maximum number of connections.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may take for its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection stays open.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

impl RunningWorker {
    /// Returns a builder for a server that reports the health of this worker over HTTP, for Kubernetes and for load balancers:
    ///
    /// | path | returns 200 if | on 503 |
    /// |---|---|---|
    /// | `/livez` | the runtime of the worker is not blocked: a heartbeat was attempted within the last 15 seconds | restart the process |
    /// | `/readyz` | the worker accepts attempts: it is connected, neither paused nor shutting down, and its outbox is not full | wait |
    /// | `/health` | as `/readyz`; the body is a JSON object with the status and the reason | |
    /// | `/metrics` | always; the body has the metrics in the Prometheus text format | |
    ///
    /// The server has its own thread, so that it responds while the runtime of the worker is blocked. It serves at most 64 connections,
    /// each for at most 30 seconds. Available with the `health` feature.
    ///
    /// ```no_run
    /// # async fn example(worker: hatchet::worker::RunningWorker) -> hatchet::Result<()> {
    /// let health = worker.health(([0, 0, 0, 0], 8001)).start().await?;
    /// println!("http://{}/health", health.address());
    /// # Ok(())
    /// # }
    /// ```
    pub fn health(&self, address: impl Into<SocketAddr>) -> HealthBuilder {
        let (life, last_heartbeat) = self.health_source();
        HealthBuilder { address: address.into(), source: HealthSource { life, last_heartbeat, recorder: None } }
    }
}

/// A builder for a [`HealthServer`]; see [`RunningWorker::health`].
///
/// ```no_run
/// # async fn example(worker: hatchet::worker::RunningWorker) -> hatchet::Result<()> {
/// use hatchet::telemetry::{PrometheusRecorder, set_recorder};
///
/// let recorder = PrometheusRecorder::new();
/// set_recorder(recorder.clone())?;
/// let health = worker.health(([127, 0, 0, 1], 8001)).metrics(recorder).start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing happens until `start` is awaited"]
pub struct HealthBuilder {
    address: SocketAddr,
    source: HealthSource,
}

/// A running server that reports the health of a worker.
///
/// Dropping it stops it.
///
/// ```no_run
/// # async fn example(worker: hatchet::worker::RunningWorker) -> hatchet::Result<()> {
/// let health = worker.health(([127, 0, 0, 1], 0)).start().await?;
/// println!("port {}", health.address().port());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it stops the server"]
pub struct HealthServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the server reports.
#[derive(Debug, Clone)]
struct HealthSource {
    life: watch::Receiver<Life>,
    last_heartbeat: LastHeartbeat,
    recorder: Option<PrometheusRecorder>,
}

impl HealthBuilder {
    /// Adds the metrics of a recorder to `/metrics`.
    ///
    /// Without a recorder, `/metrics` contains only the gauges of the worker's status, without labels: slots, running attempts, queued
    /// attempts, and results in the outbox.
    pub fn metrics(mut self, recorder: PrometheusRecorder) -> Self {
        self.source.recorder = Some(recorder);
        self
    }

    /// Starts the server. Port 0 selects a free port; see [`HealthServer::address`].
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if the address is in use or cannot be used, or if no thread can be started.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, the server does not run.
    pub async fn start(self) -> Result<HealthServer> {
        let Self { address, source } = self;
        let failed = |text: String, error: std::io::Error| Error::new(ErrorKind::Unavailable, text).with_source(error);
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let run = move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(async {
                match TcpListener::bind(address).await {
                    Ok(listener) => {
                        let _ = ready.send(listener.local_addr());
                        serve(listener, source, stopped).await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            }),
            Err(error) => drop(ready.send(Err(error))),
        };
        let thread = thread::Builder::new()
            .name("hatchet-health".into())
            .spawn(run)
            .map_err(|error| failed("failed to start the health thread".into(), error))?;
        let bound = is_ready.await.map_err(|_| Error::closed("the health thread"))?;
        let address = bound.map_err(|error| failed(format!("failed to listen on {address}"), error))?;
        Ok(HealthServer { address, stop: Some(stop), thread: Some(thread) })
    }
}

impl HealthServer {
    /// Returns the address on which the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        // It ends at once: it waits for nothing but its sockets.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("health server thread panicked");
        }
    }
}

/// Serves until it is stopped.
async fn serve(listener: TcpListener, source: HealthSource, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        let can_accept = connections.len() < MAX_CONNECTIONS;
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if can_accept => {
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let source = source.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let response = source.respond(request.uri().path());
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                connections.spawn(timeout(CONNECTION_TIMEOUT, connection));
            }
        }
    }
}

impl HealthSource {
    fn respond(&self, path: &str) -> Response<Full<Bytes>> {
        let mut status = self.life.borrow().status.clone();
        // A worker that was dropped does not publish its end.
        if self.life.has_changed().is_err() {
            status.state = WorkerState::Stopped;
        }
        // A worker that shuts down may have stopped its heartbeats.
        let sends_heartbeats = matches!(status.state, WorkerState::Connected | WorkerState::Disconnected);
        let is_blocked = sends_heartbeats && self.last_heartbeat.age() > MAX_HEARTBEAT_AGE;
        let problem = if is_blocked { Some("the runtime is blocked") } else { problem(&status) };
        match path {
            "/livez" if is_blocked => text(StatusCode::SERVICE_UNAVAILABLE, "the runtime is blocked\n".into()),
            "/livez" => text(StatusCode::OK, "ok\n".into()),
            "/readyz" => match problem {
                Some(problem) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")),
                None => text(StatusCode::OK, "ok\n".into()),
            },
            "/health" => {
                let code = if problem.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
                let body = json!({"healthy": problem.is_none(), "problem": problem, "worker": status});
                with_type(code, "application/json", body.to_string())
            }
            "/metrics" => with_type(StatusCode::OK, "text/plain; version=0.0.4", self.metrics(&status)),
            _ => text(StatusCode::NOT_FOUND, "expected /livez, /readyz, /health or /metrics\n".into()),
        }
    }

    fn metrics(&self, status: &WorkerStatus) -> String {
        match &self.recorder {
            Some(recorder) => recorder.render(),
            None => worker_gauges(status.slots, status.running, status.queued, status.unreported)
                .map(|(name, value)| format!("# TYPE {name} gauge\n{name} {value}\n"))
                .concat(),
        }
    }
}

/// Why the worker takes no attempts.
fn problem(status: &WorkerStatus) -> Option<&'static str> {
    match status.state {
        WorkerState::Disconnected => Some("the worker is not connected"),
        WorkerState::Draining => Some("the worker is shutting down"),
        WorkerState::Stopped => Some("the worker has stopped"),
        WorkerState::Connected if status.is_paused => Some("the worker is paused"),
        WorkerState::Connected if status.is_outbox_full => Some("the outbox is full"),
        WorkerState::Connected => None,
    }
}

fn text(code: StatusCode, body: String) -> Response<Full<Bytes>> {
    with_type(code, "text/plain; charset=utf-8", body)
}

fn with_type(code: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use WorkerState::{Connected, Disconnected, Draining};

    use super::*;

    #[test]
    fn a_worker_without_heartbeats_is_not_alive() {
        let (life, source) =
            watch::channel(Life { status: WorkerStatus::starting(uuid::Uuid::from_u128(1).into(), 1), failure: None });
        let respond = |state, age: u64, path| {
            life.send_modify(|life| life.status.state = state);
            let last_heartbeat = LastHeartbeat::ago(Duration::from_secs(age));
            HealthSource { life: source.clone(), last_heartbeat, recorder: None }.respond(path).status().as_u16()
        };
        for (state, age, expected) in [
            (Connected, 0, [200, 200, 200]),
            (Connected, 5, [200, 200, 200]),
            (Connected, 15, [503, 503, 503]),
            (Disconnected, 5, [200, 503, 503]),
            (Disconnected, 60, [503, 503, 503]),
            // Its heartbeats may have been stopped.
            (Draining, 60, [200, 503, 503]),
        ] {
            let found = ["/livez", "/readyz", "/health"].map(|path| respond(state, age, path));
            assert_eq!(found, expected, "{state}, {age} s");
        }
    }
}
