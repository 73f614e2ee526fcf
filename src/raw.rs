//! The generated gRPC clients and messages, for calls that this crate does not support yet. Neither the types nor the version of tonic
//! are covered by semantic versioning.
//!
//! ```no_run
//! # async fn example(hatchet: hatchet::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use hatchet::raw::pb::GetVersionRequest;
//! use hatchet::raw::pb::dispatcher_client::DispatcherClient;
//!
//! let mut dispatcher = DispatcherClient::new(hatchet.raw_channel());
//! let version = dispatcher.get_version(GetVersionRequest {}).await?.into_inner().version;
//! # Ok(())
//! # }
//! ```

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use tonic::body::Body;
use tower::Service;

/// The generated messages and clients.
pub use crate::rpc::pb;

use crate::client::Client;
use crate::error::Result;
use crate::transport::GrpcWire;

/// The gRPC connection of a client.
///
/// The connection adds the token to each request; its calls have neither deadlines nor retries.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchet::raw::pb::ReplayEventRequest;
/// use hatchet::raw::pb::events_service_client::EventsServiceClient;
///
/// let mut events = EventsServiceClient::new(hatchet.raw_channel());
/// let event = events.replay_single_event(ReplayEventRequest { event_id: "…".into() }).await?;
/// # let _ = event;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RawChannel(GrpcWire);

impl std::fmt::Debug for RawChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawChannel")
    }
}

impl Service<Request<Body>> for RawChannel {
    type Response = Response<Body>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let response = self.0.call(request);
        Box::pin(async move { Ok(response.await?.map(Body::new)) })
    }
}

impl Client {
    /// Returns the gRPC connection of this client, for the generated clients. [`close`](Client::close) does not close this connection.
    pub fn raw_channel(&self) -> RawChannel {
        RawChannel(self.rpc().wire.clone())
    }

    /// Sends a REST request with the token of this client, and returns the status and the body of the response.
    ///
    /// The path starts with `/api`. Path and query must be percent-encoded. The call has neither a deadline nor retries, and is also
    /// possible after [`close`](Client::close).
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if there is no response. An HTTP error status is not an error.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the server may have processed the request.
    pub async fn raw_rest(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Bytes>,
    ) -> Result<(StatusCode, Bytes)> {
        self.rpc().rest.wire().raw(&method, path_and_query, body).await
    }
}
