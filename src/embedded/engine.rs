//! The engine and its builder.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::ServiceExt as _;

use super::actor::{self, Handle};
use super::core::Core;
use super::faults::Faults;
use super::grpc::Services;
use super::listen::{self, Protocol, SHUTDOWN_GRACE_PERIOD, Shared};
use super::quirks::Quirks;
use super::{VERSION, rest, token};
use crate::client::Client;
use crate::config::{Config, ConfigBuilder};
use crate::error::{Error, Result};
use crate::model::TenantId;
use crate::model::engine_version::EngineVersion;
use crate::runtime::{self, Needs};
use crate::time::Clock;
use crate::transport::Wire;

/// The default tenant of a new Hatchet server.
pub(super) const TENANT: uuid::Uuid = uuid::uuid!("707d0855-80ab-4e1f-a156-f1c4546cbf52");

/// An in-process engine.
///
/// Dropping the engine stops it. After that, calls of its clients fail with [`Unavailable`](crate::ErrorKind::Unavailable).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// use hatchet::embedded::Engine;
///
/// let engine = Engine::start().await?;
/// let hatchet = engine.client();
/// assert_eq!(engine.run_count().await, 0);
/// # drop(hatchet);
/// engine.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// # Panics
/// Dropping the engine panics if the engine has panicked before, unless the current thread is panicking.
#[must_use = "dropping it stops the engine"]
pub struct Engine {
    client: Client,
    token: Arc<str>,
    handle: Handle,
    services: Services,
    router: axum::Router,
    addresses: Option<Addresses>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// Where an engine listens.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    grpc: SocketAddr,
    rest: SocketAddr,
}

/// The ports of a listening engine. 0 means any free port.
#[derive(Debug, Clone, Copy, Default)]
struct Ports {
    grpc: u16,
    rest: u16,
}

/// A builder for an [`Engine`]: its defects, its clock, and where it listens; see [`Engine::builder`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// use hatchet::Config;
/// use hatchet::embedded::{Engine, Quirk};
///
/// let engine = Engine::builder()
///     .seed(7)
///     .quirks([Quirk::RestLag, Quirk::LateTimeouts])
///     .client_config(Config::builder().namespace("test"))
///     .start()
///     .await?;
/// assert_eq!(engine.client().config().namespace(), Some("test_"));
/// # engine.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "nothing happens until `start` is awaited"]
pub struct EngineBuilder {
    quirks: Quirks,
    seed: Option<u64>,
    config: Option<ConfigBuilder>,
    listen: Option<Ports>,
    start_time: Option<DateTime<Utc>>,
    version: Option<String>,
    shutdown_grace_period: Option<Duration>,
    retention: Option<Duration>,
}

impl EngineBuilder {
    /// Enables defects of the real engine. The default is none.
    pub fn quirks(mut self, quirks: impl Into<Quirks>) -> Self {
        self.quirks = quirks.into();
        self
    }

    /// Makes ids, the token and random decisions reproducible.
    ///
    /// With a seed, the token is predictable and therefore not a secret. The default is a random seed, and a token that is independent of
    /// it.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets the configuration of [`Engine::client`], such as a namespace. Addresses, tenant, token and TLS are those of the engine.
    pub fn client_config(mut self, config: ConfigBuilder) -> Self {
        self.config = Some(config);
        self
    }

    /// Listens on 127.0.0.1 for gRPC and REST, for programs in other processes.
    ///
    /// The engine selects free ports, unless [`grpc_port`](Self::grpc_port) or [`rest_port`](Self::rest_port) sets them. By default, the
    /// engine does not listen.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> hatchet::Result<()> {
    /// use hatchet::embedded::Engine;
    ///
    /// let engine = Engine::builder().listen().start().await?;
    /// assert!(engine.grpc_address().is_some() && engine.rest_address().is_some());
    /// # engine.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The resources of clients are limited, so that a program that hangs cannot block the engine:
    ///
    /// | resource | limit |
    /// |---|---|
    /// | a listener | 1000 connections; others wait |
    /// | a gRPC connection | 10,000 concurrent calls and streams; others wait |
    /// | the first request of a connection, and the headers of each REST request | 30 seconds |
    /// | a gRPC connection without a call or a stream | 5 minutes |
    /// | the response to an HTTP/2 ping, which is sent after 30 idle seconds | 20 seconds |
    /// | a client that reads nothing | 60 seconds |
    /// | the next part of a body, except in a stream of requests | 30 seconds |
    /// | a gRPC message, a REST body | 4 MiB, 16 MiB; read only with a valid token |
    /// | a page of a REST list | 10,000 rows |
    pub fn listen(mut self) -> Self {
        self.listen.get_or_insert_default();
        self
    }

    /// [Listens](Self::listen) on this port for gRPC. 0 means any free port.
    pub fn grpc_port(mut self, port: u16) -> Self {
        self.listen.get_or_insert_default().grpc = port;
        self
    }

    /// [Listens](Self::listen) on this port for REST. 0 means any free port.
    pub fn rest_port(mut self, port: u16) -> Self {
        self.listen.get_or_insert_default().rest = port;
        self
    }

    /// Sets the time at which the engine's clock starts.
    ///
    /// The default is the system's time. From then on, the engine's clock follows Tokio's clock. All timestamps, crons and schedules of the
    /// engine are based on it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> hatchet::Result<()> {
    /// use hatchet::embedded::Engine;
    ///
    /// let leap_day = "2028-02-29T12:00:00Z".parse().expect("a time");
    /// let engine = Engine::builder().start_time(leap_day).start().await?;
    /// assert!(engine.now() >= leap_day);
    /// # engine.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// ```no_run
    /// # async fn example(engine: hatchet::embedded::Engine, remind: hatchet::Task<(), ()>) -> hatchet::Result<()> {
    /// let tomorrow = engine.now() + std::time::Duration::from_secs(24 * 3600);
    /// engine.client().schedule(&remind, &(), tomorrow).send().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn start_time(mut self, time: DateTime<Utc>) -> Self {
        self.start_time = Some(time);
        self
    }

    /// Sets the version that the engine reports, such as `v0.111.0`.
    ///
    /// The default is v0.104.7; the engine reproduces the behavior of this version. Of the changes in newer versions, only these are
    /// implemented: from v0.105.16, the [strategies for queued runs](crate::workflow::ConcurrencyStrategy::CancelQueuedExceptNewest); from
    /// v0.106.5, concurrency limits with [`max_runs_expression`](crate::workflow::Concurrency::max_runs_expression) and
    /// [tenant-scoped](crate::workflow::Concurrency::tenant_scoped) ones; from v0.111.0, the delay of a retry that a
    /// [task chooses](crate::TaskError::retry_after).
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Sets how long [`Engine::shutdown`] waits for the connections of other processes to close before it drops them.
    ///
    /// The default is two seconds.
    pub fn shutdown_grace_period(mut self, period: Duration) -> Self {
        self.shutdown_grace_period = Some(period);
        self
    }

    /// Drops runs that were created longer ago than this and have ended, as a server does.
    ///
    /// Dropped runs are unknown to gRPC and REST, like runs that never existed. By default, the engine keeps all runs; the default of a
    /// server is 30 days.
    ///
    /// A server drops all runs of a day (UTC) together, and so does this engine: a run is dropped when this period has passed since the
    /// midnight after its creation. Unlike a server, it keeps runs that have not ended. Events are dropped in the same way.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> hatchet::Result<()> {
    /// use std::time::Duration;
    ///
    /// use hatchet::embedded::Engine;
    ///
    /// let engine = Engine::builder().retention(Duration::from_secs(30 * 24 * 3600)).start().await?;
    /// # engine.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Starts the engine.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if [`start_time`](Self::start_time) is before the year 1970 or after 9000, if the
    /// [version](Self::version) does not consist of three numbers, or if the [retention](Self::retention) is zero or longer than ten years.
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if a port is in use. [`Config`](crate::ErrorKind::Config) if the client
    /// configuration is invalid, or if the current thread is not in a Tokio runtime with timers enabled (and with I/O, if the engine listens).
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no engine runs.
    pub async fn start(self) -> Result<Engine> {
        check_time(self.start_time)?;
        let version = version(self.version.as_deref())?;
        let retention = self.retention.map(retention).transpose()?;
        let needs = if self.listen.is_some() { Needs::TimersAndSockets } else { Needs::Timers };
        runtime::require("an embedded engine", needs)?;
        let sockets = match self.listen {
            None => None,
            Some(Ports { grpc, rest }) => {
                let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                Some((listen::bind(local(grpc)).await?, listen::bind(local(rest)).await?))
            }
        };
        let addresses = sockets
            .as_ref()
            .map(|(grpc, rest)| {
                Ok::<_, Error>(Addresses { grpc: listen::address(grpc)?, rest: listen::address(rest)? })
            })
            .transpose()?;
        let (grpc, server) = match addresses {
            None => ("embedded:7070".to_owned(), "http://embedded".to_owned()),
            Some(Addresses { grpc, rest }) => (grpc.to_string(), format!("http://{rest}")),
        };
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        let token: Arc<str> = token::issue(TENANT, &grpc, &server, token::random(self.seed)).into();
        let (stop, clock) = (CancellationToken::new(), Clock::tokio(self.start_time));
        let core = Core::new(TENANT, self.quirks);
        let core = match retention {
            Some(retention) => core.with_retention(retention),
            None => core,
        };
        let (mut handle, task) = actor::start(core, seed, clock.clone(), stop.clone());
        handle.version = version;
        let faults = Faults::of(clock.clone());
        let services = Services::new(handle.clone(), TENANT, Arc::clone(&token), faults.clone());
        let router = rest::router(handle.clone(), TENANT, Arc::clone(&token), faults);
        let config = self.config.unwrap_or_else(Config::builder).embedded(TENANT.into(), token.to_string())?;
        let client = connect(config, &services, &router, clock)?;
        let mut tasks = vec![task];
        if let Some((grpc, rest)) = sockets {
            let shared = Shared {
                failure: handle.failure().clone(),
                stop: stop.clone(),
                shutdown_grace_period: self.shutdown_grace_period.unwrap_or(SHUTDOWN_GRACE_PERIOD),
            };
            tasks.push(listen::serve(grpc, Protocol::Grpc, services.clone(), shared.clone()));
            tasks.push(listen::serve(rest, Protocol::Rest, rest_service(&router), shared));
        }
        Ok(Engine { client, token, handle, services, router, addresses, stop, tasks })
    }
}

/// Rejects years in which a timeout or a schedule could lead to a time that cannot be represented.
fn check_time(time: Option<DateTime<Utc>>) -> Result<()> {
    match time.filter(|time| !(1970..=9000).contains(&time.year())) {
        Some(time) => {
            Err(Error::invalid("start_time", format_args!("expected a year from 1970 to 9000, got {}", time.year())))
        }
        None => Ok(()),
    }
}

/// How long after a restart the engine does what has become due while it was down.
const RESUME_DELAY: Duration = Duration::from_secs(2);
/// The longest retention.
const MAX_RETENTION: TimeDelta = TimeDelta::days(3653);

fn retention(length: Duration) -> Result<TimeDelta> {
    let known =
        TimeDelta::from_std(length).ok().filter(|length| *length > TimeDelta::zero() && *length <= MAX_RETENTION);
    known.ok_or_else(|| {
        Error::invalid("retention", format_args!("expected more than zero and at most ten years, got {length:?}"))
    })
}

fn version(text: Option<&str>) -> Result<EngineVersion> {
    let Some(text) = text else { return Ok(VERSION) };
    let problem = || Error::invalid("version", format_args!("expected three numbers, such as {VERSION}, got {text:?}"));
    EngineVersion::parse(text).ok_or_else(problem)
}

/// A client that calls the services directly, without sockets and HTTP.
fn connect(config: Config, services: &Services, router: &axum::Router, clock: Clock) -> Result<Client> {
    let grpc = Wire::new(services.clone().map_err(|never| match never {}));
    let rest = Wire::new(rest_service(router).map_err(|never| match never {}));
    Client::over(config, grpc, rest, clock)
}

/// The REST routes as a service.
fn rest_service(router: &axum::Router) -> impl listen::Handler {
    let router = router.clone();
    tower::service_fn(move |request: http::Request<Body>| {
        let response = router.clone().oneshot(request);
        async move { Ok(response.await?.map(Body::new)) }
    })
}

impl Engine {
    /// Starts an engine without quirks and without sockets.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if the current thread is not in a Tokio runtime with timers enabled.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no engine runs.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Returns a builder for an engine without quirks and without sockets.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// Returns a client of this engine. Each call returns a clone of the same client.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Creates a separate client with another configuration, such as a namespace or message sizes.
    ///
    /// Addresses, tenant, token and TLS are those of the engine.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if the configuration is invalid.
    pub fn client_with(&self, config: ConfigBuilder) -> Result<Client> {
        let config = config.embedded(TENANT.into(), self.token.to_string())?;
        connect(config, &self.services, &self.router, self.handle.clock.clone())
    }

    /// Returns the id of the tenant that all tokens of this engine belong to.
    pub fn tenant_id(&self) -> TenantId {
        TENANT.into()
    }

    /// Returns the address for gRPC, or `None` if the engine does not listen.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.addresses.map(|addresses| addresses.grpc)
    }

    /// Returns the address for REST, or `None` if the engine does not listen.
    pub fn rest_address(&self) -> Option<SocketAddr> {
        self.addresses.map(|addresses| addresses.rest)
    }

    /// Returns the environment variables with which a Hatchet SDK in another process connects to this engine, as pairs of a name and a
    /// value.
    ///
    /// The list is empty if the engine does not listen.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let Some(Addresses { grpc, rest }) = self.addresses else { return Vec::new() };
        vec![
            ("HATCHET_CLIENT_TOKEN", self.token.to_string()),
            ("HATCHET_CLIENT_HOST_PORT", grpc.to_string()),
            ("HATCHET_CLIENT_SERVER_URL", format!("http://{rest}")),
            ("HATCHET_CLIENT_API_URL", format!("http://{rest}")),
            ("HATCHET_CLIENT_TLS_STRATEGY", "none".into()),
        ]
    }

    /// Returns the injected faults. Initially there are none.
    pub fn faults(&self) -> &Faults {
        self.services.faults()
    }

    /// Returns the time of the engine's clock, which follows Tokio's clock.
    ///
    /// After `tokio::time::advance`, use this time instead of the system's for windows and schedules.
    pub fn now(&self) -> chrono::DateTime<chrono::Utc> {
        self.handle.clock.now()
    }

    /// Simulates an engine that is down for some time: all streams end with `UNAVAILABLE`, gRPC calls are rejected with `UNAVAILABLE` and
    /// REST requests with 503, and no timer of the engine fires.
    ///
    /// After that time, calls are accepted again. Timers that are due fire two seconds later, so a worker that has reconnected by then
    /// keeps its attempts, as after a restart of a real engine.
    ///
    /// The method returns immediately. [`Faults::clear`] ends only the rejections early: the timers still wait.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> hatchet::Result<()> {
    /// use hatchet::embedded::Engine;
    /// use std::time::Duration;
    ///
    /// let engine = Engine::start().await?;
    /// engine.restart_after(Duration::from_secs(60)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the time is over ten years.
    ///
    /// # Panics
    /// Panics if the engine has panicked before.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, calls are rejected, but the timers of the engine may
    /// still fire.
    pub async fn restart_after(&self, downtime: Duration) -> Result<()> {
        self.faults().reject_everything_for(downtime)?;
        let resumed = self.now() + downtime + RESUME_DELAY;
        // An engine that is stopped has no timers.
        let _ = self.handle.call(move |core, _| core.stop_timers_until(resumed)).await;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Returns the number of runs in the engine.
    ///
    /// # Panics
    /// Panics if the engine has panicked before.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn run_count(&self) -> usize {
        self.handle.call(|core, _| core.runs().len()).await.unwrap_or(0)
    }

    /// Stops the engine: ends all streams as the real engine does, and waits for its tasks and for the connections of other processes.
    ///
    /// Connections that have not ended within the [grace period](EngineBuilder::shutdown_grace_period) are dropped.
    ///
    /// # Panics
    /// Panics if the engine has panicked before.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the engine is dropped, and stops without waiting.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut self.tasks);
        let mut panics = join_all(tasks).await.into_iter().filter_map(|ended| ended.err()?.try_into_panic().ok());
        self.handle.failure().resume();
        if let Some(panic) = panics.next() {
            std::panic::resume_unwind(panic);
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.cancel();
        // A test must not pass if the engine panicked, even if it makes no further call.
        if !std::thread::panicking() {
            self.handle.failure().resume();
        }
    }
}
