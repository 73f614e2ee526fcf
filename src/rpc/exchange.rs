//! One unary exchange over the gRPC wire: a message that is encoded already, and the message of the response.
//!
//! The generated clients encode each request for each try, from a clone of it, in a buffer of 8 KiB; they end the request with a frame
//! of its own, and parse the path each time. Here the request is one frame, which retries send again.
//!
//! Most responses are one frame, too: one message, not compressed, that arrived whole. It is decoded where it is. Anything else, valid or
//! not, goes to tonic's own decoder from its start, so that what tonic accepts, and the texts of its errors, are not defined twice.

use bytes::{BufMut as _, Bytes};
use futures_util::FutureExt as _;
use futures_util::stream;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::BodyExt as _;
use prost::{EncodeError, Message};
use tonic::Status;
use tonic::codec::{BufferSettings, CompressionEncoding, EncodeBody, EncodeBuf, Encoder, Streaming};
use tonic_prost::ProstDecoder;

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{GrpcWire, Reread, ResponseBody};

/// Before each message: whether it is compressed, and its length.
const HEADER: usize = 5;

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// What all messages of a connection have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The maximum size of a message that is sent, before compression.
    pub(super) send: usize,
    /// The maximum size of a message that is received.
    pub(super) receive: usize,
    pub(super) gzip: bool,
}

impl Limits {
    /// Encodes the request of a call, which has this size and is written by a function. A message that the server would refuse is
    /// refused here.
    pub(super) fn frame(
        &self,
        call: &str,
        size: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<Bytes> {
        let length = u32::try_from(size).ok().filter(|_| size <= self.send).ok_or_else(|| {
            let limit = self.send;
            let text = format!("the message of {call} is too large: expected at most {limit} bytes, got {size}");
            Error::new(ErrorKind::TooLarge, text).without_side_effects()
        })?;
        let text = || format!("cannot encode the message of {call}");
        let failed = || Error::new(ErrorKind::Encode, text()).without_side_effects();
        let mut frame = Vec::with_capacity(HEADER + size);
        frame.put_u8(0);
        frame.put_u32(length);
        write(&mut frame).map_err(|error| failed().with_source(error))?;
        let frame = Bytes::from(frame);
        if self.gzip { compressed(frame.slice(HEADER..)).ok_or_else(failed) } else { Ok(frame) }
    }
}

/// The frame of a message, compressed by tonic.
fn compressed(message: Bytes) -> Option<Bytes> {
    let messages = stream::iter([Ok(message)]);
    let frame = EncodeBody::new_client(Unchanged, messages, Some(CompressionEncoding::Gzip), None);
    // Nothing in it waits.
    frame.collect().now_or_never()?.ok().map(http_body_util::Collected::to_bytes)
}

/// Writes messages that are encoded already.
struct Unchanged;

impl Encoder for Unchanged {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

/// Sends a frame, and returns the message of the response.
pub(super) async fn exchange<T: Message + Default + 'static>(
    wire: GrpcWire,
    path: PathAndQuery,
    frame: Bytes,
    limits: Limits,
) -> Result<T, Status> {
    let mut response = wire.send(path, frame, limits.gzip).await?;
    let compression = compression(response.headers(), limits.gzip)?;
    let first = match response.body_mut().data().await {
        Ok(Some(first)) => first,
        Ok(None) => return Err(Status::internal("Missing response message.")),
        Err(status) => return Err(with_headers(status, response.headers_mut())),
    };
    let mut second = None;
    if let Some(message) = whole(&first, limits.receive).and_then(|message| T::decode(message).ok()) {
        second = response.body_mut().data().await?;
        if second.is_none() {
            return Ok(message);
        }
    }
    // Boxed, because it is large and few responses need it.
    Box::pin(decode(response, [Some(first), second], compression, limits.receive)).await
}

/// The message of a frame, if it is all of the frame and not compressed.
fn whole(frame: &Bytes, limit: usize) -> Option<Bytes> {
    let (header, message) = frame.split_first_chunk::<HEADER>()?;
    let [0, length @ ..] = *header else { return None };
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    (length == message.len() && length <= limit).then(|| frame.slice(HEADER..))
}

/// Decodes any response, with what has been read of it.
async fn decode<T: Message + Default + 'static>(
    response: Response<ResponseBody>,
    read: [Option<Bytes>; 2],
    compression: Option<CompressionEncoding>,
    limit: usize,
) -> Result<T, Status> {
    let (mut head, body) = response.into_parts();
    let decoder = ProstDecoder::<T>::new(BufferSettings::default());
    let has_status = body.has_status();
    let body = Reread::new(read, body);
    let mut messages = if has_status {
        Streaming::new_empty(decoder, body)
    } else {
        Streaming::new_response(decoder, body, head.status, compression, Some(limit))
    };
    let message = messages.message().await.map_err(|status| with_headers(status, &mut head.headers))?;
    let message = message.ok_or_else(|| Status::internal("Missing response message."))?;
    // The status comes after the message.
    messages.trailers().await?;
    Ok(message)
}

/// Adds the headers of a response to a status: the server's delay may be in either.
fn with_headers(mut status: Status, headers: &mut HeaderMap) -> Status {
    status.metadata_mut().as_mut().extend(std::mem::take(headers));
    status
}

/// The compression of a response.
fn compression(headers: &HeaderMap, gzip: bool) -> Result<Option<CompressionEncoding>, Status> {
    match headers.get(GRPC_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(b"gzip") if gzip => Ok(Some(CompressionEncoding::Gzip)),
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            Err(Status::unimplemented(format!("Content is compressed with `{other}` which isn't supported")))
        }
    }
}
