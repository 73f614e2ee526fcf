//! The calls: a thin struct for each service, and a function for each call, which takes and returns types of the model.

mod admin;
pub(crate) mod convert;
mod dispatcher;
mod events;
mod exchange;
mod method;
#[cfg(not(feature = "unstable-raw"))]
pub(crate) mod pb;
#[cfg(feature = "unstable-raw")]
pub mod pb;
mod rest;
mod rest_events_and_crons;
mod streams;
mod unary;
mod version;
mod workflows;

use std::sync::Arc;

pub(crate) use admin::Admin;
pub(crate) use dispatcher::Dispatcher;
pub(crate) use events::{Events, NewLogLine};
pub(crate) use rest::Rest;
#[cfg(test)]
pub(crate) use version::MAX_VERSION_AGE;
pub(crate) use workflows::Workflows;

use crate::config::{Compression, Config, RequestOptions};
use crate::error::Result;
use crate::time::RateLimit;
#[cfg(feature = "embedded")]
use crate::transport::Wire;
use crate::transport::{Caller, GrpcWire, RestWire, bearer};
use exchange::Limits;
use method::Method;
use streams::Streams;
use unary::Unary;

/// All services of one server.
#[derive(Clone)]
pub(crate) struct Rpc(Arc<Services>);

impl std::fmt::Debug for Rpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rpc")
    }
}

pub(crate) struct Services {
    pub(crate) admin: Admin,
    pub(crate) workflows: Workflows,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) events: Events,
    pub(crate) rest: Rest,
    caller: Caller,
    /// For those who make calls of their own.
    #[cfg(feature = "unstable-raw")]
    pub(crate) wire: GrpcWire,
}

impl Rpc {
    /// The server of a configuration. Nothing is dialled before the first call.
    pub(crate) fn connect(config: &Config) -> Result<Self> {
        let token = bearer(config.token().expose())?;
        Ok(Self::new(config, &GrpcWire::connect(config, token.clone())?, RestWire::connect(config, token)?))
    }

    /// A server behind two services in process.
    #[cfg(feature = "embedded")]
    pub(crate) fn over(config: &Config, grpc: Wire, rest: Wire) -> Result<Self> {
        let token = bearer(config.token().expose())?;
        let rest = RestWire::over(rest, config.server_url(), token.clone());
        Ok(Self::new(config, &GrpcWire::over(grpc, token), rest))
    }

    fn new(config: &Config, wire: &GrpcWire, rest: RestWire) -> Self {
        let caller = Caller::new(config.rpc_timeout(), config.retry());
        let limits = Limits {
            send: config.max_send_message_length(),
            receive: config.max_recv_message_length(),
            gzip: config.compression() == Compression::Gzip,
        };
        let unary = Unary::new(wire, limits, caller.clone());
        Self(Arc::new(Services {
            admin: Admin::new(unary.clone()),
            workflows: Workflows::new(unary.clone()),
            dispatcher: Dispatcher::new(unary.clone(), Streams::new(wire, limits, caller.token())),
            events: Events::new(unary),
            rest: Rest::new(rest, caller.for_other_api(), config.tenant_id().to_string()),
            caller,
            #[cfg(feature = "unstable-raw")]
            wire: wire.clone(),
        }))
    }

    /// Whether the server has ever accepted a gRPC call.
    pub(crate) fn has_responded(&self) -> bool {
        self.caller.token().was_accepted()
    }

    /// The same services for one request, with its options.
    pub(crate) fn with(&self, options: RequestOptions) -> Self {
        if options.is_default() {
            return self.clone();
        }
        self.with_callers(|caller| caller.with(options))
    }

    /// The same services, whose retries are limited by a rate, too.
    pub(crate) fn with_retry_rate(&self, rate: &RateLimit) -> Self {
        self.with_callers(|caller| caller.with_retry_rate(rate.clone()))
    }

    fn with_callers(&self, change: impl Fn(&Caller) -> Caller) -> Self {
        Self(Arc::new(Services {
            admin: self.admin.with(&change),
            workflows: self.workflows.with(&change),
            dispatcher: self.dispatcher.with(&change),
            events: self.events.with(&change),
            rest: self.rest.with(&change),
            caller: change(&self.caller),
            #[cfg(feature = "unstable-raw")]
            wire: self.wire.clone(),
        }))
    }

    /// Fails all later calls.
    pub(crate) fn close(&self) {
        self.0.caller.close();
    }
}

impl std::ops::Deref for Rpc {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}
