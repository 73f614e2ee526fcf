//! The type-erased service that sends all calls.

use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response};
use tonic::body::Body;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::auth::Authorized;
use super::connect::{self, Connector};
use super::grpc_response::{ResponseBody, ResponseFuture};
use crate::config::Config;
use crate::error::{BoxError, Result};

/// A type-erased HTTP service: a connection to a server, or the embedded engine.
pub(crate) type Wire = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// The wire under the generated gRPC clients.
pub(crate) struct GrpcWire {
    wire: Authorized<Wire>,
    /// The error of `poll_ready`. The generated clients keep only the text of that error, so the call returns it instead.
    not_ready: Option<BoxError>,
}

impl Clone for GrpcWire {
    fn clone(&self) -> Self {
        Self { wire: self.wire.clone(), not_ready: None }
    }
}

impl GrpcWire {
    /// Creates a wire to the server of a configuration. It connects at the first call.
    pub(crate) fn connect(config: &Config, token: HeaderValue) -> Result<Self> {
        let (channel, connector) = connect::grpc(config)?;
        let explained = channel.map_err(BoxError::from).then(move |response| explain(connector.clone(), response));
        Ok(Self::over(Wire::new(explained), token))
    }

    /// A wire over any service.
    pub(crate) fn over(wire: Wire, token: HeaderValue) -> Self {
        Self { wire: Authorized::new(wire, token), not_ready: None }
    }
}

/// Returns a response unchanged, and an error with its reason.
pub(super) async fn explain<T>(connector: Connector, response: Result<T, BoxError>) -> Result<T, BoxError> {
    match response {
        Ok(response) => Ok(response),
        // Boxed, because most calls do not need it.
        Err(error) => Err(Box::pin(connector.explain(error)).await),
    }
}

impl tower::Service<Request<Body>> for GrpcWire {
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
