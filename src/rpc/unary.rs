//! Unary calls: what one is, and how it is made with deadline and retries.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::OnceLock;

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::{EncodeError, Message};

use super::exchange::{Limits, exchange};
use crate::config::RequestOptions;
use crate::error::Result;
use crate::transport::{Call, Caller, GrpcWire};

/// A method of a service, with the types of its request and of its response.
pub(super) struct Method<Q, A> {
    call: Call,
    path: &'static str,
    /// The path, parsed at the first call.
    parsed: OnceLock<PathAndQuery>,
    types: PhantomData<fn(Q) -> A>,
}

impl<Q, A> Method<Q, A> {
    /// A method that changes nothing, or the same thing each time.
    pub(super) const fn idempotent(name: &'static str, path: &'static str) -> Self {
        Self::new(Call::idempotent(name), path)
    }

    /// A method that does something each time it is called.
    pub(super) const fn once(name: &'static str, path: &'static str) -> Self {
        Self::new(Call::once(name), path)
    }

    pub(super) const fn new(call: Call, path: &'static str) -> Self {
        Self { call, path, parsed: OnceLock::new(), types: PhantomData }
    }

    fn path(&self) -> PathAndQuery {
        self.parsed.get_or_init(|| PathAndQuery::from_static(self.path)).clone()
    }
}

/// Makes the unary calls of a service.
#[derive(Clone)]
pub(super) struct Unary {
    wire: GrpcWire,
    limits: Limits,
    caller: Caller,
}

impl Unary {
    pub(super) fn new(wire: &GrpcWire, limits: Limits, caller: Caller) -> Self {
        Self { wire: wire.clone(), limits, caller }
    }

    /// The same for one request, with its options.
    pub(super) fn with(&self, options: RequestOptions) -> Self {
        Self { caller: self.caller.with(options), ..self.clone() }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Encodes the request of a method, which has this size and is written by a function.
    pub(super) fn encode<Q, A>(
        &self,
        method: &Method<Q, A>,
        size: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<Bytes> {
        self.limits.frame(method.call.name, size, write)
    }

    /// Calls a method. The request is encoded here, so it need not live as long as the call.
    pub(super) fn call<Q: Message, A: Message + Default + 'static>(
        &self,
        method: &'static Method<Q, A>,
        request: &Q,
    ) -> impl Future<Output = Result<A>> + Send {
        self.send(method, self.encode(method, request.encoded_len(), |message| request.encode(message)))
    }

    /// Calls a method with a request that is encoded.
    ///
    /// The call is boxed: it is large, and its caller usually stays for much longer, or has several of them.
    pub(super) fn send<Q, A: Message + Default + 'static>(
        &self,
        method: &'static Method<Q, A>,
        frame: Result<Bytes>,
    ) -> impl Future<Output = Result<A>> + Send + use<'_, Q, A> {
        Box::pin(async move {
            let frame = frame?;
            let attempt = || exchange(self.wire.clone(), method.path(), frame.clone(), self.limits);
            self.caller.grpc(method.call, attempt).await
        })
    }
}
