//! The erased service that every call goes through.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;
use tower::util::BoxCloneSyncService;

use super::auth::Authorized;
use super::connect::{self, Connector};
use super::grpc_answer::{AnswerBody, Answering};
use crate::config::Config;
use crate::error::{BoxError, Result};

/// Requests in, responses out; what is beneath is nobody's business above.
pub(crate) type Wire = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The wire under all gRPC calls.
pub(crate) struct GrpcWire {
    wire: Authorized<Under>,
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
        Ok(Self::on(Under::Network(channel, connector), token))
    }

    /// A wire over any service.
    #[cfg(feature = "embedded")]
    pub(crate) fn over(wire: Wire, token: HeaderValue) -> Self {
        Self::on(Under::Service(wire), token)
    }

    fn on(under: Under, token: HeaderValue) -> Self {
        Self { wire: Authorized::new(under, token), not_ready: None }
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

impl Service<Request<Body>> for GrpcWire {
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

/// What is under the wire. The channel is not erased, because that would take a box for each clone and for each call.
#[derive(Clone)]
enum Under {
    Network(Channel, Connector),
    #[cfg(feature = "embedded")]
    Service(Wire),
}

impl Service<Request<Body>> for Under {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Calling;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Network(channel, _) => channel.poll_ready(cx).map_err(BoxError::from),
            #[cfg(feature = "embedded")]
            Self::Service(wire) => wire.poll_ready(cx),
        }
    }

    fn call(&mut self, request: Request<Body>) -> Calling {
        match self {
            Self::Network(channel, connector) => Calling::Network(channel.call(request), connector.clone()),
            #[cfg(feature = "embedded")]
            Self::Service(wire) => Calling::Service(wire.call(request)),
        }
    }
}

/// The future of a response, or of an error with its reason.
pub(super) enum Calling {
    Network(<Channel as Service<Request<Body>>>::Future, Connector),
    /// Boxed, because most calls do not need it.
    Explaining(Boxed<BoxError>),
    #[cfg(feature = "embedded")]
    Service(Boxed<Result<Response<Body>, BoxError>>),
}

impl Future for Calling {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut *self {
                Self::Network(call, connector) => match ready!(Pin::new(call).poll(cx)) {
                    Ok(answer) => return Poll::Ready(Ok(answer)),
                    Err(error) => {
                        let connector = connector.clone();
                        *self = Self::Explaining(Box::pin(async move { connector.explain(error.into()).await }));
                    }
                },
                Self::Explaining(reason) => return Poll::Ready(Err(ready!(reason.as_mut().poll(cx)))),
                #[cfg(feature = "embedded")]
                Self::Service(call) => return call.as_mut().poll(cx),
            }
        }
    }
}
