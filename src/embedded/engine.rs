//! The public handle of the engine.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Datelike as _, Utc};
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
use super::{rest, token};
use crate::client::Client;
use crate::config::{Config, ConfigBuilder};
use crate::error::{Error, Result};
use crate::model::TenantId;
use crate::runtime::{self, Needs};
use crate::time::Clock;
use crate::transport::Wire;

/// The default tenant of a new Hatchet installation.
const TENANT: uuid::Uuid = uuid::uuid!("707d0855-80ab-4e1f-a156-f1c4546cbf52");

/// An in-process engine. Dropping it stops it: its clients then get [`Unavailable`](crate::ErrorKind::Unavailable).
///
/// # Panics
/// Panics when it is dropped if the engine has panicked before, unless the thread is already panicking.
#[must_use = "dropping it stops the engine"]
pub struct Engine {
    client: Client,
    token: Arc<str>,
    handle: Handle,
    services: Services,
    router: axum::Router,
    addresses: Option<(SocketAddr, SocketAddr)>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// A builder for an engine.
#[derive(Debug, Clone, Default)]
#[must_use = "the engine does not run before `start`"]
pub struct EngineBuilder {
    quirks: Quirks,
    seed: Option<u64>,
    config: Option<ConfigBuilder>,
    listen: Option<(u16, u16)>,
    now: Option<DateTime<Utc>>,
    shutdown_grace_period: Option<Duration>,
}

impl EngineBuilder {
    /// Enables defects of the real engine. By default, none is enabled.
    pub fn quirks(mut self, quirks: impl Into<Quirks>) -> Self {
        self.quirks = quirks.into();
        self
    }

    /// Makes the ids, the token and all random decisions of the engine reproducible. By default, they are random.
    ///
    /// Use it only in tests: anyone who knows the seed, or an id that the engine generated with it, can compute the token.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets the configuration of the engine's clients, such as a namespace. The engine sets the addresses, tenant, token and TLS.
    pub fn client_config(mut self, config: ConfigBuilder) -> Self {
        self.config = Some(config);
        self
    }

    /// Listens for programs in other processes on 127.0.0.1, on these ports for gRPC and REST. Port 0 selects a free port.
    ///
    /// The resources of a client are limited, so that a program that hangs does not block the engine:
    ///
    /// | resource | limit |
    /// |---|---|
    /// | connections of a listener | 1000; further ones wait |
    /// | concurrent calls and streams of a gRPC connection | 10 000; further ones wait |
    /// | time until the first request of a connection, and for the headers of each REST request | 30 seconds |
    /// | time that a gRPC connection may be without a call or a stream | 5 minutes |
    /// | time to answer an HTTP/2 ping, which is sent after 30 idle seconds | 20 seconds |
    /// | time without reading what the engine sends | 60 seconds |
    /// | time until the next part of a request body | 30 seconds |
    /// | size of a gRPC message; read only after the token was checked | 4 MiB |
    /// | size of a REST request body; read only after the token was checked | 16 MiB |
    /// | rows of a REST page | 10 000 |
    pub fn listen(mut self, grpc_port: u16, rest_port: u16) -> Self {
        self.listen = Some((grpc_port, rest_port));
        self
    }

    /// Sets the time at which the engine's clock starts. The default is the machine's time. The clock is advanced by Tokio's clock. All
    /// timestamps, crons and schedules of the engine use it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> hatchet::Result<()> {
    /// use hatchet::embedded::Engine;
    ///
    /// let leap_day = "2028-02-29T12:00:00Z".parse().expect("a time");
    /// let engine = Engine::builder().now(leap_day).start().await?;
    /// assert!(engine.now() >= leap_day);
    /// # engine.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn now(mut self, now: DateTime<Utc>) -> Self {
        self.now = Some(now);
        self
    }

    /// Sets how long [`Engine::shutdown`] waits for the connections of other processes to close. Then they are dropped. The default is
    /// 2 seconds.
    pub fn shutdown_grace_period(mut self, period: Duration) -> Self {
        self.shutdown_grace_period = Some(period);
        self
    }

    /// Starts the engine.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if [`now`](Self::now) is before the year 1970 or after 9000.
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if a port is in use. [`Config`](crate::ErrorKind::Config) if the client
    /// configuration is invalid, or if the caller is not within a Tokio runtime with timers, and with I/O if the engine listens.
    pub async fn start(self) -> Result<Engine> {
        check_time(self.now)?;
        let needs = if self.listen.is_some() { Needs::TimersAndSockets } else { Needs::Timers };
        runtime::require("an embedded engine", needs)?;
        let sockets = match self.listen {
            None => None,
            Some((grpc, rest)) => {
                let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                Some((listen::bind(local(grpc)).await?, listen::bind(local(rest)).await?))
            }
        };
        let addresses = sockets
            .as_ref()
            .map(|(grpc, rest)| Ok::<_, crate::Error>((listen::address(grpc)?, listen::address(rest)?)))
            .transpose()?;
        let (grpc, server) = match addresses {
            None => ("embedded:7070".to_owned(), "http://embedded".to_owned()),
            Some((grpc, rest)) => (grpc.to_string(), format!("http://{rest}")),
        };
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        let token: Arc<str> = token::issue(TENANT, &grpc, &server, token::random(self.seed)).into();
        let (stop, clock) = (CancellationToken::new(), Clock::tokio(self.now));
        let (handle, task) = actor::start(Core::new(TENANT, self.quirks), seed, clock.clone(), stop.clone());
        let faults = Faults::of(clock.clone());
        let services = Services::new(handle.clone(), TENANT, Arc::clone(&token), faults.clone());
        let router = rest::router(handle.clone(), TENANT, Arc::clone(&token), faults);
        let config = self.config.unwrap_or_else(Config::builder).embedded(&TENANT.to_string(), token.to_string())?;
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

/// Within these years, timeouts and schedules cannot lead to a time that is not representable.
fn check_time(now: Option<DateTime<Utc>>) -> Result<()> {
    match now.filter(|now| !(1970..=9000).contains(&now.year())) {
        Some(now) => Err(Error::invalid("time", format_args!("found the year {}, accepted: 1970 to 9000", now.year()))),
        None => Ok(()),
    }
}

/// A client that calls the services directly, without sockets and HTTP.
fn connect(config: Config, services: &Services, router: &axum::Router, clock: Clock) -> Result<Client> {
    let grpc = Wire::new(services.clone().map_err(|never| match never {}));
    let rest = Wire::new(rest_service(router).map_err(|never| match never {}));
    Client::over(config, grpc, rest, clock)
}

/// The REST routes as a service of the same type as gRPC.
fn rest_service(router: &axum::Router) -> impl listen::Handler {
    let router = router.clone();
    tower::service_fn(move |request: http::Request<Body>| {
        let answer = router.clone().oneshot(request);
        async move { Ok(answer.await?.map(Body::new)) }
    })
}

impl Engine {
    /// Starts an engine without quirks and without sockets.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if the caller is not within a Tokio runtime with timers.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Returns a builder for an engine.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// Returns the default client of this engine. All clients that this method returns are clones of one client.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Creates a separate client, for example with another namespace. The engine sets the addresses, tenant, token and TLS.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if the configuration is invalid.
    pub fn client_with(&self, config: ConfigBuilder) -> Result<Client> {
        let config = config.embedded(&TENANT.to_string(), self.token.to_string())?;
        connect(config, &self.services, &self.router, self.handle.clock.clone())
    }

    /// Returns the only tenant of the engine.
    pub fn tenant(&self) -> TenantId {
        TenantId::from_uuid(TENANT)
    }

    /// Returns the addresses for gRPC and REST, if the engine listens.
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.addresses
    }

    /// Returns the environment variables with which Hatchet SDKs in other processes use this engine. Empty if it does not listen.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let Some((grpc, rest)) = self.addresses else { return Vec::new() };
        vec![
            ("HATCHET_CLIENT_TOKEN", self.token.to_string()),
            ("HATCHET_CLIENT_HOST_PORT", grpc.to_string()),
            ("HATCHET_CLIENT_SERVER_URL", format!("http://{rest}")),
            ("HATCHET_CLIENT_API_URL", format!("http://{rest}")),
            ("HATCHET_CLIENT_TLS_STRATEGY", "none".into()),
        ]
    }

    /// Returns the planned faults. Initially, there are none.
    pub fn faults(&self) -> &Faults {
        self.services.faults()
    }

    /// Returns the engine's time. After `tokio::time::advance`, tests must compute windows and schedules from this time and not from the
    /// machine's clock.
    pub fn now(&self) -> chrono::DateTime<chrono::Utc> {
        self.handle.clock.now()
    }

    #[cfg(test)]
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Returns the number of runs in the engine.
    ///
    /// # Panics
    /// Panics if the engine has panicked before.
    pub async fn run_count(&self) -> usize {
        self.handle.call(|core, _| core.runs().len()).await.unwrap_or(0)
    }

    /// Stops the engine: it ends all streams as the real engine does when it shuts down, and waits for its tasks and for the
    /// connections of other processes. Connections that do not close within the
    /// [grace period](EngineBuilder::shutdown_grace_period) are dropped.
    ///
    /// # Panics
    /// Panics if the engine has panicked before.
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
        // A test in which the engine panicked must not pass, even if it makes no further calls.
        if !std::thread::panicking() {
            self.handle.failure().resume();
        }
    }
}
