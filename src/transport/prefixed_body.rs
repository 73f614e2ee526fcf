//! The body of a response after data that was already read from it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use tonic::Status;

use super::grpc_response::ResponseBody;

/// A body of which some data has been read.
pub(crate) struct PrefixedBody {
    read: [Option<Bytes>; 2],
    rest: ResponseBody,
}

impl PrefixedBody {
    /// The data that has been read, and the rest.
    pub(crate) fn new(read: [Option<Bytes>; 2], rest: ResponseBody) -> Self {
        Self { read, rest }
    }
}

impl HttpBody for PrefixedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.read.iter_mut().find_map(Option::take) {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }
}
