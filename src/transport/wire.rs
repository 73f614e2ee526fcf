//! The erased service that every call goes through.

use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response};
use tonic::body::Body;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::auth::Authorized;
use super::connect::{self, Connector};
use super::grpc_answer::{AnswerBody, Answering};
use crate::config::Config;
use crate::error::{BoxError, Result};

/// Requests in, responses out; what is beneath is nobody's business above.
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
    /// A wire to the server of a configuration. Nothing is dialled before the first call.
    pub(crate) fn connect(config: &Config, token: HeaderValue) -> Result<Self> {
        let (channel, connector) = connect::grpc(config)?;
        let explained = channel.map_err(BoxError::from).then(move |answer| explain(connector.clone(), answer));
        Ok(Self::over(Wire::new(explained), token))
    }

    /// A wire over any service.
    pub(crate) fn over(wire: Wire, token: HeaderValue) -> Self {
        Self { wire: Authorized::new(wire, token), not_ready: None }
    }
}

/// Returns a response unchanged, and an error with its reason.
pub(super) async fn explain<T>(connector: Connector, answer: Result<T, BoxError>) -> Result<T, BoxError> {
    match answer {
        Ok(answer) => Ok(answer),
        // Boxed, because most calls do not need it.
        Err(error) => Err(Box::pin(connector.explain(error)).await),
    }
}

impl tower::Service<Request<Body>> for GrpcWire {
    type Response = Response<AnswerBody>;
    type Error = BoxError;
    type Future = Answering;

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
            None => Answering::new(self.wire.call(request)),
            Some(error) => Answering::failed(error),
        }
    }
}
