//! One unary exchange over the gRPC wire: a message that is encoded already, and the message of the response.
//!
//! The generated clients encode each request for each try, from a clone of it, in a buffer of 8 KiB; they end the request with a frame
//! of its own, and parse the path each time. Here the request is one frame, which retries send again.
//!
//! Most responses are one frame, too: one message, not compressed, that arrived whole. It is decoded where it is. Anything else, valid or
//! not, goes to tonic's own decoder from its start, so that what tonic accepts, and the messages of its errors, are not defined twice.

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

use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::transport::{GrpcWire, PrefixedBody, ResponseBody, Sent};

/// Before each message: whether it is compressed, and its length.
const HEADER: usize = 5;

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// The limits and the compression of all messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The maximum size of a message that is sent, before compression.
    pub(super) send: usize,
    /// The maximum size of a message that is received.
    pub(super) receive: usize,
    pub(super) gzip: bool,
}

impl Limits {
    /// Encodes the request of a call, which has this size and is written by a function. A message that the server would reject is
    /// rejected here.
    pub(super) fn frame(
        &self,
        call: &str,
        size: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<Bytes> {
        let length = u32::try_from(size).ok().filter(|_| size <= self.send).ok_or_else(|| {
            let limit = self.send;
            let text = format!(
                "the message of {call} is too large: expected at most {limit} bytes (max_send_message_length), got {size}"
            );
            Error::new(ErrorKind::TooLarge, text).without_side_effects()
        })?;
        let text = || format!("cannot encode the message of {call}");
        let failed = || Error::new(ErrorKind::Encode, text()).without_side_effects();
        let mut frame = Vec::with_capacity(HEADER + size);
        frame.put_u8(0);
        frame.put_u32(length);
        write(&mut frame).map_err(|error| failed().with_source(error))?;
        if frame.len() != HEADER + size {
            // The server would read the next message from the wrong place.
            let written = frame.len().saturating_sub(HEADER);
            return Err(failed().with_source(format!("expected {size} bytes, got {written}")));
        }
        let frame = Bytes::from(frame);
        if !self.gzip {
            return Ok(frame);
        }
        compressed(frame.slice(HEADER..)).map_err(|error| failed().with_source(error))
    }
}

/// The frame of a message, compressed by tonic.
fn compressed(message: Bytes) -> Result<Bytes, BoxError> {
    let messages = stream::iter([Ok(message)]);
    let frame = EncodeBody::new_client(Unchanged, messages, Some(CompressionEncoding::Gzip), None);
    // Nothing in it waits.
    let frame = frame.collect().now_or_never().ok_or("the compression waits")?;
    Ok(frame?.to_bytes())
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
    sent: Sent,
) -> Result<T, Status> {
    let mut response = wire.send(path, frame, limits.gzip, sent).await?;
    let compression = compression(response.headers(), limits.gzip)?;
    let Some(first) = response.body_mut().data().await? else { return Err(no_message()) };
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

/// The error for a response that has a status, but no message.
fn no_message() -> Status {
    Status::internal("Missing response message.")
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
    let status = response.status();
    let body = PrefixedBody::new(read, response.into_body());
    let mut messages = Streaming::new_response(
        ProstDecoder::<T>::new(BufferSettings::default()),
        body,
        status,
        compression,
        Some(limit),
    );
    let message = messages.message().await?.ok_or_else(no_message)?;
    // The status comes after the message.
    messages.trailers().await?;
    Ok(message)
}

/// The messages of a response that is a stream.
pub(super) fn messages<T: Message + Default + 'static>(
    response: Response<ResponseBody>,
    limits: Limits,
) -> Result<Streaming<T>, Status> {
    let compression = compression(response.headers(), limits.gzip)?;
    let (status, decoder) = (response.status(), ProstDecoder::<T>::new(BufferSettings::default()));
    Ok(Streaming::new_response(decoder, response.into_body(), status, compression, Some(limits.receive)))
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Request;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use proptest::prelude::*;
    use tonic::body::Body;
    use tonic::client::Grpc;
    use tonic_prost::ProstCodec;
    use tower::ServiceExt as _;

    use super::*;
    use crate::rpc::pb::v1::GetRunDetailsRequest as Text;
    use crate::transport::{Wire, bearer};

    const LIMIT: usize = 64;
    const LIMITS: Limits = Limits { send: 1000, receive: LIMIT, gzip: true };
    const PATH: &str = "/service/method";

    /// A response: its headers, its data in frames, and its trailers.
    #[derive(Debug, Clone, Default)]
    struct Scripted {
        headers: Vec<(&'static str, &'static str)>,
        data: Vec<Bytes>,
        trailers: Option<Vec<(&'static str, &'static str)>>,
    }

    fn header_map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn wire(script: &Scripted) -> GrpcWire {
        let script = script.clone();
        let service = tower::service_fn(move |_: Request<Body>| {
            let data = script.data.clone().into_iter().map(Frame::data);
            let trailers = script.trailers.as_deref().map(|trailers| Frame::trailers(header_map(trailers)));
            let frames = data.chain(trailers).map(Ok::<_, Infallible>).collect::<Vec<_>>();
            let mut response = Response::new(Body::new(StreamBody::new(stream::iter(frames))));
            *response.headers_mut() = header_map(&script.headers);
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            async move { Ok::<_, Infallible>(response) }
        });
        GrpcWire::over(Wire::new(service.map_err(|never| match never {})), bearer("a.b.c").unwrap())
    }

    type Outcome = Result<String, (tonic::Code, String)>;

    fn outcome(result: Result<Text, Status>) -> Outcome {
        result.map(|text| text.external_id).map_err(|status| (status.code(), status.message().to_owned()))
    }

    fn ours(script: &Scripted) -> Outcome {
        let path = PathAndQuery::from_static(PATH);
        outcome(exchange(wire(script), path, Bytes::new(), LIMITS, Sent::default()).now_or_never().unwrap())
    }

    /// The generated client, on the same wire.
    fn generated(script: &Scripted) -> Outcome {
        let mut client = Grpc::new(wire(script))
            .max_decoding_message_size(LIMIT)
            .send_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Gzip);
        let call = async {
            client.ready().await.unwrap();
            let request = tonic::Request::new(Text::default());
            client.unary(request, PathAndQuery::from_static(PATH), ProstCodec::<Text, Text>::default()).await
        };
        outcome(call.now_or_never().unwrap().map(tonic::Response::into_inner))
    }

    /// A message with this flag, and with a length that differs by `extra`.
    fn message(text: &str, flag: u8, extra: u8) -> Vec<u8> {
        let message = Text { external_id: text.into() }.encode_to_vec();
        let message = match flag {
            1 => compressed(message.into()).unwrap().slice(HEADER..).to_vec(),
            _ => message,
        };
        let mut frame = vec![flag];
        frame.put_u32(u32::try_from(message.len() + usize::from(extra)).unwrap());
        frame.extend(message);
        frame
    }

    /// Cuts data at these positions. Positions that are equal result in an empty frame.
    fn cut(data: &[u8], at: &[usize]) -> Vec<Bytes> {
        let mut at: Vec<_> = at.iter().map(|at| at % (data.len() + 1)).collect();
        at.extend([0, data.len()]);
        at.sort_unstable();
        at.windows(2).map(|ends| Bytes::copy_from_slice(&data[ends[0]..ends[1]])).collect()
    }

    fn ok(data: Vec<Bytes>) -> Scripted {
        Scripted { data, trailers: Some(vec![("grpc-status", "0")]), ..Scripted::default() }
    }

    #[test]
    fn responses_in_one_or_more_frames_are_decoded() {
        let whole = message("text", 0, 0);
        let gzip = Scripted { headers: vec![("grpc-encoding", "gzip")], ..ok(vec![message("text", 1, 0).into()]) };
        for script in [
            ok(vec![whole.clone().into()]),
            ok(cut(&whole, &[2])),
            ok(cut(&whole, &[HEADER, HEADER])),
            ok(cut(&whole, &[0, 0, 7, whole.len()])),
            gzip,
        ] {
            assert_eq!(ours(&script), Ok("text".into()), "{script:?}");
        }
    }

    #[test]
    fn invalid_responses_are_rejected_as_by_the_generated_client() {
        let whole = message("text", 0, 0);
        let of = |data: Vec<u8>| ok(vec![data.into()]);
        let headers = |headers: &[(&'static str, &'static str)], script: Scripted| Scripted {
            headers: headers.to_vec(),
            ..script
        };
        for script in [
            ok(Vec::new()),
            of(message(&"x".repeat(LIMIT), 0, 0)),
            of(message("text", 1, 0)),
            of(message("text", 2, 0)),
            of(message("text", 0, 3)),
            headers(&[("grpc-encoding", "br")], of(whole.clone())),
        ] {
            let rejected = ours(&script);
            assert!(rejected.is_err(), "{script:?}");
            assert_eq!(rejected, generated(&script), "{script:?}");
        }
        // The generated client does not read what follows the first message.
        for data in [[whole.clone(), vec![0, 0]].concat(), [whole.clone(), whole].concat()] {
            let script = of(data);
            assert_eq!(ours(&script), generated(&script), "{script:?}");
        }
    }

    #[test]
    fn a_status_in_the_headers_does_not_change_the_limits() {
        let in_headers = |data: Vec<u8>| Scripted {
            headers: vec![("grpc-status", "0"), ("grpc-encoding", "gzip")],
            data: vec![data.into()],
            trailers: None,
        };
        let too_large = message(&"x".repeat(LIMIT), 0, 0);
        assert_eq!(ours(&in_headers(too_large.clone())), ours(&ok(vec![too_large.into()])));
        for text in [message("text", 0, 0), message("text", 1, 0)] {
            assert_eq!(ours(&in_headers(text)), Ok("text".into()));
        }
        let empty = Scripted { data: Vec::new(), ..in_headers(Vec::new()) };
        assert_eq!(ours(&empty).unwrap_err().1, "Missing response message.");
    }

    #[test]
    fn a_message_of_another_size_than_announced_is_not_sent() {
        let limits = Limits { gzip: false, ..LIMITS };
        for size in [2, 4] {
            let error = limits
                .frame("Push", size, |message| {
                    message.extend(*b"abc");
                    Ok(())
                })
                .unwrap_err();
            assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Encode, true));
        }
        assert_eq!(
            limits
                .frame("Push", 3, |message| {
                    message.extend(*b"abc");
                    Ok(())
                })
                .unwrap()
                .len(),
            HEADER + 3
        );
    }

    proptest! {
        #[test]
        fn responses_are_decoded_as_by_the_generated_client(
            texts in prop::collection::vec(("[a-z]{0,80}", 0_u8..3, prop_oneof![9 => Just(0_u8), 1 => 1_u8..4]), 0..3),
            trailing in prop::collection::vec(any::<u8>(), 0..4),
            cuts in prop::collection::vec(any::<usize>(), 0..6),
            encoding in prop::option::of(prop::sample::select(vec!["gzip", "identity", "br"])),
            status in prop::option::of(prop::sample::select(vec!["0", "5", "14"])),
        ) {
            let messages = texts.iter().flat_map(|(text, flag, extra)| message(text, *flag, *extra));
            let data: Vec<u8> = messages.chain(trailing).collect();
            let script = Scripted {
                headers: encoding.map(|encoding| ("grpc-encoding", encoding)).into_iter().collect(),
                data: cut(&data, &cuts),
                trailers: status.map(|status| vec![("grpc-status", status)]),
            };
            prop_assert_eq!(ours(&script), generated(&script));
        }
    }
}
