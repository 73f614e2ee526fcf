//! The methods of the gRPC services, and encoded requests.

use std::marker::PhantomData;
use std::sync::OnceLock;

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::{EncodeError, Message};

use super::exchange::Limits;
use crate::error::Result;
use crate::transport::Call;

/// A method of a service, with the types of its request and of its response.
pub(super) struct Method<Q, A> {
    pub(super) call: Call,
    path: &'static str,
    /// The path, parsed at the first call.
    parsed: OnceLock<PathAndQuery>,
    types: PhantomData<fn(Q) -> A>,
}

/// An encoded request of type `Q`, which retries send again.
pub(super) struct Frame<Q> {
    pub(super) bytes: Bytes,
    request: PhantomData<fn(Q)>,
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

    /// A method that is never retried here; see [`Call::single`].
    pub(super) const fn single(name: &'static str, path: &'static str) -> Self {
        Self::new(Call::single(name), path)
    }

    pub(super) const fn new(call: Call, path: &'static str) -> Self {
        Self { call, path, parsed: OnceLock::new(), types: PhantomData }
    }

    pub(super) fn path(&self) -> PathAndQuery {
        self.parsed.get_or_init(|| PathAndQuery::from_static(self.path)).clone()
    }

    /// Encodes a request, which has this size and is written by a function.
    pub(super) fn encode_with(
        &self,
        limits: Limits,
        size: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<Frame<Q>> {
        Ok(Frame { bytes: limits.frame(self.call.name, size, write)?, request: PhantomData })
    }
}

impl<Q: Message, A> Method<Q, A> {
    pub(super) fn encode(&self, limits: Limits, request: &Q) -> Result<Frame<Q>> {
        self.encode_with(limits, request.encoded_len(), |message| request.encode(message))
    }
}
