//! Sending a request of one message, which is encoded already.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Version};
use hyper::body::{Body as HttpBody, Frame};
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;

use super::grpc_response::ResponseBody;
use super::wire::GrpcWire;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const GZIP_OR_NONE: HeaderValue = HeaderValue::from_static("gzip,identity");

impl GrpcWire {
    /// Sends a frame, and returns the response, unless it is a status.
    pub(crate) async fn send(
        mut self,
        path: PathAndQuery,
        frame: Bytes,
        gzip: bool,
    ) -> Result<Response<ResponseBody>, Status> {
        poll_fn(|cx| self.poll_ready(cx)).await.map_err(Status::from_error)?;
        self.call(request(path, frame, gzip)).await.map_err(Status::from_error)
    }
}

/// The request, as tonic sends it.
fn request(path: PathAndQuery, frame: Bytes, gzip: bool) -> Request<Body> {
    let mut request = Request::new(Body::new(OneFrame(frame)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.into();
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(TE, TRAILERS);
    headers.insert(CONTENT_TYPE, GRPC);
    if gzip {
        headers.insert("grpc-encoding", GZIP);
        headers.insert("grpc-accept-encoding", GZIP_OR_NONE);
    }
    request
}

/// The body of a request: one frame. It is known to be the last one, so that the stream ends with it.
struct OneFrame(Bytes);

impl HttpBody for OneFrame {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = std::mem::take(&mut self.0);
        Poll::Ready(if frame.is_empty() { None } else { Some(Ok(Frame::data(frame))) })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}
