//! The service that sends all gRPC calls.

use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use tonic::body::Body;
use tower::Service;

use super::auth::Authorized;
use super::connect;
use super::grpc_response::{ResponseBody, ResponseFuture};
use super::service::Transport;
#[cfg(feature = "embedded")]
use super::service::Wire;
use crate::config::Config;
use crate::error::{BoxError, Result};

/// The wire under all gRPC calls.
pub(crate) struct GrpcWire {
    wire: Authorized<Transport>,
    /// The error of `poll_ready`. The generated clients keep only the text of that error, so the call returns it instead.
    not_ready: Option<BoxError>,
    /// Whether the server is in this process. It has a request as soon as it is called, before it reads the body.
    is_in_process: bool,
}

impl Clone for GrpcWire {
    fn clone(&self) -> Self {
        Self { wire: self.wire.clone(), not_ready: None, is_in_process: self.is_in_process }
    }
}

impl GrpcWire {
    pub(super) fn is_in_process(&self) -> bool {
        self.is_in_process
    }

    /// Creates a wire to the server of a configuration. It connects at the first call.
    pub(crate) fn connect(config: &Config, token: HeaderValue) -> Result<Self> {
        let (channel, connector) = connect::grpc(config)?;
        Ok(Self::on(Transport::Network(channel, connector), token, false))
    }

    /// Closes the connections that were established at least this long ago. The next call establishes another one. Returns
    /// whether there were any.
    pub(crate) fn close_connections(&self, age: Duration) -> bool {
        match self.wire.inner() {
            Transport::Network(_, connector) => connector.close_older_than(age),
            #[cfg(feature = "embedded")]
            Transport::Service(_) => false,
        }
    }

    /// A wire over any service.
    #[cfg(feature = "embedded")]
    pub(crate) fn over(wire: Wire, token: HeaderValue) -> Self {
        Self::on(Transport::Service(wire), token, true)
    }

    fn on(under: Transport, token: HeaderValue, is_in_process: bool) -> Self {
        Self { wire: Authorized::new(under, token), not_ready: None, is_in_process }
    }
}

impl Service<Request<Body>> for GrpcWire {
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self.wire.poll_ready(cx) {
            Poll::Ready(Err(error)) => {
                self.not_ready = Some(error);
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.not_ready.take() {
            None => ResponseFuture::new(self.wire.call(request)),
            Some(error) => ResponseFuture::failed(error),
        }
    }
}
