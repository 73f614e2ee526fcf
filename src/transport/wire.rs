//! The service that sends all calls.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;
use tower::util::BoxCloneSyncService;

use super::auth::Authorized;
use super::connect::{self, Connector};
use super::grpc_response::{ResponseBody, ResponseFuture};
use crate::config::Config;
use crate::error::{BoxError, Result};

/// A type-erased HTTP service: a connection to a server, or the embedded engine.
pub(crate) type Wire = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

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

/// Returns a response unchanged, and an error with its reason.
pub(super) async fn explain<T>(connector: Connector, response: Result<T, BoxError>) -> Result<T, BoxError> {
    match response {
        Ok(response) => Ok(response),
        // Boxed, because most calls do not need it.
        Err(error) => Err(Box::pin(connector.explain(error)).await),
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

/// The service under the wire. The channel is not type-erased, because that needs a box for each clone and for each call.
#[derive(Clone)]
enum Transport {
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
