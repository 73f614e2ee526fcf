//! Makes gRPC calls by name and with JSON messages, and REST calls by path, through the connection of a client.

use std::sync::{Arc, Mutex};

use bytes::{Buf, BufMut, Bytes};
use hatchet::Client;
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status, Streaming};

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hatchet.fds"));
const MAX_MESSAGE_BYTES: usize = 64 << 20;

#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) client: Client,
    descriptors: DescriptorPool,
}

impl Wire {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, descriptors: DescriptorPool::decode(DESCRIPTORS).unwrap() }
    }

    /// The request and response types of a call. For an unknown call, any type.
    fn types(&self, rpc: &str) -> (MessageDescriptor, MessageDescriptor) {
        let (service, method) = rpc.rsplit_once('.').unwrap();
        let known = self.descriptors.get_service_by_name(service).and_then(|service| {
            let method = service.methods().find(|known| known.name() == method)?;
            Some((method.input(), method.output()))
        });
        known.unwrap_or_else(|| {
            let any = self.descriptors.get_message_by_name("v1.GetRunDetailsRequest").unwrap();
            (any.clone(), any)
        })
    }

    pub(crate) fn message(&self, rpc: &str, json: &Value) -> DynamicMessage {
        DynamicMessage::deserialize(self.types(rpc).0, json).unwrap_or_else(|error| panic!("{rpc} {json}: {error}"))
    }

    pub(crate) async fn call(&self, rpc: &str, request: &Value) -> Result<Value, Status> {
        self.send(rpc, self.message(rpc, request)).await
    }

    pub(crate) async fn send(&self, rpc: &str, request: DynamicMessage) -> Result<Value, Status> {
        let mut grpc = self.grpc().await;
        Ok(json(grpc.unary(Request::new(request), path(rpc), self.codec(rpc)).await?.get_ref()))
    }

    /// Opens a stream, and records its messages. It does not wait for the headers, which are sent with the first message.
    pub(crate) fn listen(&self, rpc: &'static str, request: &Value) -> Received {
        let (received, wire, request) = (Received::default(), self.clone(), self.message(rpc, request));
        let writer = received.clone();
        received.keep(tokio::spawn(async move {
            let response = wire.grpc().await.server_streaming(Request::new(request), path(rpc), wire.codec(rpc)).await;
            writer.follow(response.map(tonic::Response::into_inner)).await;
        }));
        received
    }

    /// Opens the stream of results. Runs are subscribed to later.
    pub(crate) fn results(&self) -> Results {
        const RPC: &str = "Dispatcher.SubscribeToWorkflowRuns";
        let (received, wire) = (Received::default(), self.clone());
        let (requests, mut queue) = mpsc::unbounded_channel();
        let stream = futures_util::stream::poll_fn(move |cx| queue.poll_recv(cx));
        let writer = received.clone();
        received.keep(tokio::spawn(async move {
            let response = wire.grpc().await.streaming(Request::new(stream), path(RPC), wire.codec(RPC)).await;
            writer.follow(response.map(tonic::Response::into_inner)).await;
        }));
        Results { received, requests, wire: self.clone() }
    }

    async fn grpc(&self) -> Grpc<hatchet::raw::RawChannel> {
        let channel = self.client.raw_channel();
        let mut grpc = Grpc::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        grpc.ready().await.unwrap();
        grpc
    }

    pub(crate) fn codec(&self, rpc: &str) -> Dynamic {
        Dynamic(self.types(rpc).1)
    }

    pub(crate) async fn rest(&self, method: Method, target: &str, body: Option<Bytes>) -> (StatusCode, Value) {
        let (status, body) = self.client.raw_rest(method, target, body).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_else(|_| format!("expected JSON, got {body:?}").into()))
    }

    pub(crate) async fn get(&self, target: &str) -> Value {
        let (status, body) = self.rest(Method::GET, target, None).await;
        assert_eq!(status, StatusCode::OK, "{target}: {body}");
        body
    }
}

/// Encodes a recorded query, in which a name has one value or several.
pub(crate) fn query(parameters: &Value) -> String {
    let encode =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let pairs = parameters.as_object().into_iter().flatten().flat_map(|(name, value)| {
        let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        values.into_iter().map(move |value| format!("{name}={}", encode(&text(&value))))
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// A stream of results, to which requests can be sent.
pub(crate) struct Results {
    pub(crate) received: Received,
    requests: mpsc::UnboundedSender<DynamicMessage>,
    wire: Wire,
}

impl Results {
    pub(crate) fn subscribe(&self, request: &Value) {
        // A stream that has ended accepts no more requests.
        let _ = self.requests.send(self.wire.message("Dispatcher.SubscribeToWorkflowRuns", request));
    }
}

/// The messages received on a stream, with their times.
#[derive(Clone, Default)]
pub(crate) struct Received(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    messages: Vec<(Instant, Value)>,
    end: Option<(Instant, Code, String)>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Received {
    fn keep(&self, task: tokio::task::JoinHandle<()>) {
        self.0.lock().unwrap().task = Some(task);
    }

    async fn follow(&self, stream: Result<Streaming<DynamicMessage>, Status>) {
        let end = match stream {
            Err(status) => status,
            Ok(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(message)) => self.0.lock().unwrap().messages.push((Instant::now(), json(&message))),
                    Ok(None) => break Status::ok(""),
                    Err(status) => break status,
                }
            },
        };
        self.0.lock().unwrap().end = Some((Instant::now(), end.code(), end.message().to_owned()));
    }

    pub(crate) fn messages(&self) -> Vec<(Instant, Value)> {
        self.0.lock().unwrap().messages.clone()
    }

    pub(crate) fn end(&self) -> Option<(Instant, Code, String)> {
        self.0.lock().unwrap().end.clone()
    }

    pub(crate) fn close(&self) {
        if let Some(task) = self.0.lock().unwrap().task.take() {
            task.abort();
        }
    }
}

pub(crate) fn path(rpc: &str) -> PathAndQuery {
    let (service, method) = rpc.rsplit_once('.').unwrap();
    format!("/{service}/{method}").parse().unwrap()
}

/// Serializes a message with the names of the `.proto` files, and with default values.
pub(crate) fn json(message: &DynamicMessage) -> Value {
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}

#[derive(Clone)]
pub(crate) struct Dynamic(MessageDescriptor);

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        self.clone()
    }

    fn decoder(&mut self) -> Self {
        self.clone()
    }
}

impl Encoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message.encode_to_vec().as_slice());
        Ok(())
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        DynamicMessage::decode(self.0.clone(), bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
