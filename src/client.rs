//! The client: a configuration, the calls, and what all of its callers share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::config::{Config, RequestOptions};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::feed::Feed;
use crate::model::{TenantId, WorkflowId};
use crate::rpc::Rpc;
use crate::runtime::{self, Needs};
use crate::time::Clock;
#[cfg(feature = "archive")]
use crate::time::RateLimit;
#[cfg(feature = "embedded")]
use crate::transport::Wire;

/// A client for one tenant of a Hatchet server.
///
/// A `Client` is cheap to clone; clones share their connections.
///
/// A client belongs to the Tokio runtime on which it was created. Its connections and waits end when that runtime shuts down. Until
/// then, it can be used from other runtimes, too.
///
/// ```no_run
/// # async fn example() -> hatchet::Result<()> {
/// let hatchet = hatchet::Client::from_env()?; // does not connect yet
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    config: Config,
    rpc: Rpc,
    clock: Clock,
    feed: Arc<Feed>,
    /// The options of the request, and the client without them.
    request: Option<(RequestOptions, Client)>,
}

impl Client {
    /// Creates a client from the `HATCHET_CLIENT_*` environment variables. The client connects on the first call.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if variables are invalid (the error lists all problems), or if the caller is not within a Tokio runtime with
    /// timers and I/O.
    pub fn from_env() -> Result<Self> {
        Self::new(Config::from_env()?)
    }

    /// Creates a client with this configuration. The client connects on the first call.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a certificate cannot be used, or if the caller is not within a Tokio runtime with timers and I/O.
    pub fn new(config: Config) -> Result<Self> {
        let runtime = runtime::current("a client", Needs::TimersAndSockets)?;
        let rpc = Rpc::connect(&config)?;
        Ok(Self::assemble(config, rpc, Clock::System, runtime))
    }

    /// Creates a client for two in-process services.
    #[cfg(feature = "embedded")]
    pub(crate) fn over(config: Config, grpc: Wire, rest: Wire, clock: Clock) -> Result<Self> {
        let runtime = runtime::current("a client", Needs::Timers)?;
        let rpc = Rpc::over(&config, grpc, rest)?;
        Ok(Self::assemble(config, rpc, clock, runtime))
    }

    fn assemble(config: Config, rpc: Rpc, clock: Clock, runtime: Handle) -> Self {
        let feed = Arc::new(Feed::new(&rpc, runtime, &config, clock.clone()));
        Self(Arc::new(Inner { config, rpc, clock, feed, request: None }))
    }

    /// Returns the configuration of this client.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Returns the id of the tenant that the token belongs to.
    pub fn tenant_id(&self) -> TenantId {
        self.0.config.tenant_id()
    }

    /// Returns the namespace, including its trailing underscore, or `None` if the client has no namespace.
    ///
    /// On the server, the names of workflows, events and actions begin with the namespace.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// println!("{:?} in tenant {}", hatchet.namespace(), hatchet.tenant_id());
    /// # Ok(())
    /// # }
    /// ```
    pub fn namespace(&self) -> Option<&str> {
        self.0.config.namespace()
    }

    /// Closes this client and all of its clones, and waits until the streams and tasks that they share have ended.
    ///
    /// Pending waits and [`RunWatch`](crate::stream::RunWatch) streams, and all later calls, return [`ErrorKind::Closed`]. Calls that have
    /// been sent still complete. Shut down the workers of the client first: otherwise, they can no longer report their results. Dropping
    /// the last clone closes the client without waiting.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// let run = hatchet.run_handle("7c0b6d4e-9a43-4f6e-8a3b-0c6f0a3a5f11".parse()?);
    /// println!("{}", run.outcome().await?);
    /// hatchet.close().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// If the future is dropped after its first poll, the client is closed, but its streams and tasks may still be ending.
    /// Call the method again to wait for them.
    pub async fn close(&self) {
        self.0.rpc.close();
        self.0.feed.close().await;
    }

    pub(crate) fn rpc(&self) -> &Rpc {
        &self.0.rpc
    }

    /// The same client for one request, with its options.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the options are invalid.
    pub(crate) fn with(&self, options: RequestOptions) -> Result<Self> {
        if options.is_default() {
            return Ok(self.clone());
        }
        options.check()?;
        let Inner { config, rpc, clock, feed, .. } = &*self.0;
        let (config, rpc, clock, feed) = (config.clone(), rpc.with(options), clock.clone(), Arc::clone(feed));
        let request = Some((options, self.clone()));
        Ok(Self(Arc::new(Inner { config, rpc, clock, feed, request })))
    }

    /// The same client, whose retries are limited by a rate, too.
    #[cfg(feature = "archive")]
    pub(crate) fn with_retry_rate(&self, rate: &RateLimit) -> Self {
        let Inner { config, rpc, clock, feed, request } = &*self.0;
        let (config, rpc, clock, feed) = (config.clone(), rpc.with_retry_rate(rate), clock.clone(), Arc::clone(feed));
        let request = request.clone().unwrap_or_else(|| (RequestOptions::default(), self.clone()));
        Self(Arc::new(Inner { config, rpc, clock, feed, request: Some(request) }))
    }

    /// The client without the options of a request, for handles.
    pub(crate) fn without_options(&self) -> Self {
        self.0.request.as_ref().map_or(self, |(_, client)| client).clone()
    }

    /// The deadline of a call.
    pub(crate) fn rpc_timeout(&self) -> Duration {
        let timeout = self.0.request.as_ref().and_then(|(options, _)| options.timeout);
        timeout.unwrap_or_else(|| self.0.config.rpc_timeout())
    }

    pub(crate) fn feed(&self) -> &Feed {
        &self.0.feed
    }

    pub(crate) fn clock(&self) -> Clock {
        self.0.clock.clone()
    }

    /// The name on the server.
    pub(crate) fn prefixed(&self, name: &str) -> String {
        format!("{}{name}", self.namespace().unwrap_or_default())
    }

    /// Whether a name on the server is in the namespace of the client, if it has one.
    pub(crate) fn is_own(&self, name: &str) -> bool {
        name.starts_with(self.namespace().unwrap_or_default())
    }

    /// Checks that a workflow whose name was read without its namespace is in the namespace of the client. If it is not, the name
    /// would mean another workflow.
    pub(crate) async fn check_own(&self, name: &str, workflow: Option<WorkflowId>) -> Result<()> {
        if self.namespace().is_none() || workflow == Some(self.feed().workflows.id_of(name).await?) {
            return Ok(());
        }
        let namespace = self.namespace().unwrap_or_default();
        let text = format!("expected a workflow in the namespace {namespace:?}, got {name:?} from another namespace");
        Err(Error::invalid("workflow", text))
    }

    /// The name without the namespace.
    pub(crate) fn unprefixed(&self, name: &str) -> String {
        self.namespace().and_then(|namespace| name.strip_prefix(namespace)).unwrap_or(name).to_owned()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.0.config).finish_non_exhaustive()
    }
}
