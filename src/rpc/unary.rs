//! Makes unary calls, with deadline and retries.

use std::future::Future;
use std::time::Duration;

use prost::{EncodeError, Message};

use super::exchange::{Limits, exchange};
use super::method::{Frame, Method};
use crate::error::Result;
use crate::transport::{Caller, GrpcWire};

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

    /// The same for one request, with its own caller.
    pub(super) fn with(&self, change: impl Fn(&Caller) -> Caller) -> Self {
        Self { caller: change(&self.caller), ..self.clone() }
    }

    /// Closes the connections that were established at least this long ago. The next call establishes another one. Returns
    /// whether there were any.
    pub(super) fn close_connections(&self, age: Duration) -> bool {
        self.wire.close_connections(age)
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
    ) -> Result<Frame<Q>> {
        method.encode_with(self.limits, size, write)
    }

    /// Calls a method. The request is encoded and dropped before the call is made, so that the call does not hold both.
    pub(super) fn call<Q: Message, A: Message + Default + 'static>(
        &self,
        method: &'static Method<Q, A>,
        request: Q,
    ) -> impl Future<Output = Result<A>> + Send + use<'_, Q, A> {
        let frame = method.encode(self.limits, &request);
        drop(request);
        self.send(method, frame)
    }

    /// Calls a method with a request that is encoded.
    ///
    /// The call is boxed: it is large, and its caller usually stays for much longer, or has several of them.
    pub(super) fn send<Q, A: Message + Default + 'static>(
        &self,
        method: &'static Method<Q, A>,
        frame: Result<Frame<Q>>,
    ) -> impl Future<Output = Result<A>> + Send + use<'_, Q, A> {
        Box::pin(async move {
            let frame = frame?.bytes;
            let attempt = |sent| exchange(self.wire.clone(), method.path(), frame.clone(), self.limits, sent);
            self.caller.grpc(method.call, attempt).await
        })
    }
}
