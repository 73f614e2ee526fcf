//! The erased service that every call goes through.

use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response};
use tonic::body::Body;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::auth::Authorized;
use super::connect;
use crate::config::Config;
use crate::error::{BoxError, Result};

/// Requests in, responses out; what is beneath is nobody's business above.
pub(crate) type Wire = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// The wire under the generated gRPC clients.
#[derive(Clone)]
pub(crate) struct GrpcWire(Authorized<Wire>);

impl GrpcWire {
    /// A wire to the server of a configuration. Nothing is dialled before the first call.
    pub(crate) fn connect(config: &Config, token: HeaderValue) -> Result<Self> {
        Ok(Self::over(Wire::new(connect::grpc(config)?.map_err(Into::into)), token))
    }

    /// A wire over any service.
    pub(crate) fn over(wire: Wire, token: HeaderValue) -> Self {
        Self(Authorized::new(wire, token))
    }
}

impl tower::Service<Request<Body>> for GrpcWire {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = <Wire as tower::Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}
