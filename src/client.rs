//! The client: a configuration, the calls, and the state that later modules share through it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

use crate::config::Config;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::model::TenantId;
use crate::rpc::Rpc;
use crate::runtime::{self, Needs};
use crate::time::Clock;
#[cfg(feature = "embedded")]
use crate::transport::Wire;

/// A client for one tenant of a Hatchet server. It is cheap to clone; clones share their connections.
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
    /// The runtime of its connections and of the tasks that its callers share.
    runtime: Handle,
    shared: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Client {
    /// Creates a client from the `HATCHET_CLIENT_*` environment variables. It connects at the first call.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] with all problems of the variables, or if the caller is not within a Tokio runtime with timers and I/O.
    pub fn from_env() -> Result<Self> {
        Self::new(Config::from_env()?)
    }

    /// Creates a client with this configuration. It connects at the first call.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a certificate cannot be used, or if the caller is not within a Tokio runtime with timers and I/O.
    pub fn new(config: Config) -> Result<Self> {
        let runtime = runtime::current("a client", Needs::TimersAndSockets)?;
        let rpc = Rpc::connect(&config)?;
        Ok(Self::with(config, rpc, Clock::Machine, runtime))
    }

    /// Creates a client for two in-process services.
    #[cfg(feature = "embedded")]
    pub(crate) fn over(config: Config, grpc: Wire, rest: Wire, clock: Clock) -> Result<Self> {
        let runtime = runtime::current("a client", Needs::Timers)?;
        let rpc = Rpc::over(&config, grpc, rest)?;
        Ok(Self::with(config, rpc, clock, runtime))
    }

    fn with(config: Config, rpc: Rpc, clock: Clock, runtime: Handle) -> Self {
        Self(Arc::new(Inner { config, rpc, clock, runtime, shared: Mutex::default() }))
    }

    /// Returns the configuration of this client.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Returns the tenant that the token belongs to.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if the tenant in the token is not a UUID.
    pub fn tenant(&self) -> Result<TenantId> {
        crate::model::convert::id(self.0.config.tenant_id())
    }

    /// Returns the namespace, with its trailing underscore. It is the prefix of the names of workflows, events and actions on the server.
    pub fn namespace(&self) -> Option<&str> {
        self.0.config.namespace()
    }

    pub(crate) fn rpc(&self) -> &Rpc {
        &self.0.rpc
    }

    /// The runtime on which the client was created. Shared tasks run on it, and not on the runtime of the first caller.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    pub(crate) fn clock(&self) -> Clock {
        self.0.clock.clone()
    }

    /// The value of a type that all clones of this client share, created at the first call.
    pub(crate) fn shared<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut shared = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let known = shared.get(&TypeId::of::<T>()).and_then(|value| Arc::clone(value).downcast().ok());
        known.unwrap_or_else(|| {
            let value = Arc::new(make());
            shared.insert(TypeId::of::<T>(), Arc::clone(&value) as _);
            value
        })
    }

    /// A name as the server knows it.
    pub(crate) fn prefixed(&self, name: &str) -> String {
        format!("{}{name}", self.namespace().unwrap_or_default())
    }

    /// A name as the user knows it.
    pub(crate) fn unprefixed(&self, name: &str) -> String {
        self.namespace().and_then(|namespace| name.strip_prefix(namespace)).unwrap_or(name).to_owned()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.0.config).finish_non_exhaustive()
    }
}
