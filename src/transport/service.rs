//! The services that the wires send requests to: a connection to a server, or the embedded engine.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;
use tower::util::BoxCloneSyncService;

use super::connect::Connector;
use crate::error::BoxError;

/// A type-erased HTTP service: a connection to a server, or the embedded engine.
pub(crate) type Wire = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Returns a response unchanged, and an error with its reason.
pub(super) async fn explain<T>(connector: Connector, response: Result<T, BoxError>) -> Result<T, BoxError> {
    match response {
        Ok(response) => Ok(response),
        // Boxed, because most calls do not need it.
        Err(error) => Err(Box::pin(connector.explain(error)).await),
    }
}

/// The service under the wire of gRPC calls. The channel is not type-erased, because that needs a box for each clone and for each call.
#[derive(Clone)]
pub(super) enum Transport {
    Network(Channel, Connector),
    #[cfg(feature = "embedded")]
    Service(Wire),
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = CallFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Network(channel, _) => channel.poll_ready(cx).map_err(BoxError::from),
            #[cfg(feature = "embedded")]
            Self::Service(wire) => wire.poll_ready(cx),
        }
    }

    fn call(&mut self, request: Request<Body>) -> CallFuture {
        match self {
            Self::Network(channel, connector) => CallFuture::Network(channel.call(request), connector.clone()),
            #[cfg(feature = "embedded")]
            Self::Service(wire) => CallFuture::Service(wire.call(request)),
        }
    }
}

/// The future of a response, or of an error with its reason.
pub(super) enum CallFuture {
    Network(<Channel as Service<Request<Body>>>::Future, Connector),
    /// Boxed, because most calls do not need it.
    Explaining(Boxed<BoxError>),
    #[cfg(feature = "embedded")]
    Service(Boxed<Result<Response<Body>, BoxError>>),
}

impl Future for CallFuture {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut *self {
                Self::Network(call, connector) => match ready!(Pin::new(call).poll(cx)) {
                    Ok(response) => return Poll::Ready(Ok(response)),
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
