//! The generated code, for calls that this crate does not have. No promise of stability: not of the types, not of tonic's
//! version.
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

/// The messages and clients of the contract.
pub use crate::rpc::pb;

use crate::client::Client;
use crate::error::Result;
use crate::transport::GrpcWire;

/// The client's own connection, with its token on each request. Neither deadlines nor retries.
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
        let answer = self.0.call(request);
        Box::pin(async move { Ok(answer.await?.map(Body::new)) })
    }
}

impl Client {
    /// The connection under this client, to call the generated stubs with.
    pub fn raw_channel(&self) -> RawChannel {
        RawChannel(self.rpc().wire.clone())
    }

    /// Makes one REST call, with the token on it: the path from `/api` on, with its query, both as they are to be sent.
    /// The answer comes as it is, whatever its status. Neither deadlines nor retries.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if no answer came.
    pub async fn raw_rest(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Bytes>,
    ) -> Result<(StatusCode, Bytes)> {
        self.rpc().rest.wire().raw(&method, path_and_query, body).await
    }
}
