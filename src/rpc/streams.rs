//! Opens server streams.

use std::fmt::Display;
use std::sync::Arc;

use futures_core::Stream;
use futures_util::StreamExt as _;
use http::Response;
use prost::Message;
use tonic::Status;
use tracing::Instrument as _;

use super::exchange::{Limits, messages};
use super::method::Method;
use crate::error::Result;
use crate::telemetry;
use crate::transport::{GrpcWire, Messages, ResponseBody, Sent, TokenHealth};

/// Opens the streams of a service, over the same wire and with the same limits as the unary calls.
///
/// Streams are opened without a deadline. The server sends its headers only with the first message, so the future of an
/// opening is pending until there is one: it must never be awaited before anything else goes on.
#[derive(Clone)]
pub(super) struct Streams {
    wire: GrpcWire,
    limits: Limits,
    token: Arc<TokenHealth>,
}

impl Streams {
    pub(super) fn new(wire: &GrpcWire, limits: Limits, token: &Arc<TokenHealth>) -> Self {
        Self { wire: wire.clone(), limits, token: Arc::clone(token) }
    }

    /// Opens the stream of a method with one request.
    pub(super) async fn open<Q: Message, A, T: Send + 'static>(
        &self,
        method: &'static Method<Q, A>,
        request: Q,
        sent: Sent,
    ) -> Result<Messages<T>>
    where
        A: Message + Default + TryInto<T, Error: Display> + 'static,
    {
        let frame = method.encode(self.limits, &request)?.bytes;
        let response = self.wire.clone().send(method.path(), frame, self.limits.gzip, sent);
        self.opened(method, response).await
    }

    /// Opens the stream of a method with a stream of requests.
    pub(super) async fn open_with<Q: Message + 'static, A, T: Send + 'static>(
        &self,
        method: &'static Method<Q, A>,
        requests: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Messages<T>>
    where
        A: Message + Default + TryInto<T, Error: Display> + 'static,
    {
        let limits = self.limits;
        let frames = requests.map(move |request| Ok(method.encode(limits, &request)?.bytes));
        self.opened(method, self.wire.clone().send_stream(method.path(), frames, limits.gzip)).await
    }

    /// The messages of a stream, once the server has sent its headers.
    async fn opened<Q, A, T: Send + 'static>(
        &self,
        method: &'static Method<Q, A>,
        response: impl Future<Output = Result<Response<ResponseBody>, Status>>,
    ) -> Result<Messages<T>>
    where
        A: Message + Default + TryInto<T, Error: Display> + 'static,
    {
        let span = telemetry::stream_span(method.call.name);
        let response = response.instrument(span.clone()).await;
        let stream = response.and_then(|response| messages::<A>(response, self.limits));
        let opened = Messages::opened(method.call.name, stream, &self.token);
        if !span.is_disabled() {
            telemetry::record_result(&span, &opened);
        }
        opened
    }
}
