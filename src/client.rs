//! The client: a configuration, the calls, and what the later rooms share through it.

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

/// A client of one Hatchet server, for one tenant. Cheap to clone; clones share their connections.
///
/// It belongs to the Tokio runtime that it was made on: when that ends, so do its connections and its waits. It can be used from
/// other runtimes as long as that one runs.
///
/// ```no_run
/// # async fn example() -> hatchet::Result<()> {
/// let hatchet = hatchet::Client::from_env()?; // nothing is dialled yet
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    config: Config,
    rpc: Rpc,
    clock: Clock,
    /// Where its connections run, and what its callers share.
    runtime: Handle,
    shared: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Client {
    /// A client set up by the environment's `HATCHET_CLIENT_*` variables. Nothing is dialled before the first call.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with all that is wrong with the variables, or if this is not called within a Tokio runtime that
    /// has timers and I/O.
    pub fn from_env() -> Result<Self> {
        Self::new(Config::from_env()?)
    }

    /// A client with a configuration of its own. Nothing is dialled before the first call.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a certificate cannot be used, or if this is not called within a Tokio runtime that has timers
    /// and I/O.
    pub fn new(config: Config) -> Result<Self> {
        let runtime = runtime::current("a client", Needs::TimersAndSockets)?;
        let rpc = Rpc::connect(&config)?;
        Ok(Self::with(config, rpc, Clock::Machine, runtime))
    }

    /// A client of two services in process.
    #[cfg(feature = "embedded")]
    pub(crate) fn over(config: Config, grpc: Wire, rest: Wire, clock: Clock) -> Result<Self> {
        let runtime = runtime::current("a client", Needs::Timers)?;
        let rpc = Rpc::over(&config, grpc, rest)?;
        Ok(Self::with(config, rpc, clock, runtime))
    }

    fn with(config: Config, rpc: Rpc, clock: Clock, runtime: Handle) -> Self {
        Self(Arc::new(Inner { config, rpc, clock, runtime, shared: Mutex::default() }))
    }

    /// What this client was set up with.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The tenant that the token belongs to.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if the token names none that is a UUID.
    pub fn tenant(&self) -> Result<TenantId> {
        crate::model::convert::id(self.0.config.tenant_id())
    }

    /// The namespace, with its underscore, that names of workflows, events and actions get on their way out.
    pub fn namespace(&self) -> Option<&str> {
        self.0.config.namespace()
    }

    pub(crate) fn rpc(&self) -> &Rpc {
        &self.0.rpc
    }

    /// The runtime that the client belongs to. What its callers share runs here, and not on the runtime of who came first.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    pub(crate) fn clock(&self) -> Clock {
        self.0.clock.clone()
    }

    /// The one value of a type that all clones of this client share, made when it is first asked for.
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
