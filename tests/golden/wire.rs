//! gRPC by the name of the call and in JSON, as the recordings have it; REST by its path. All over the client's own wires.

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
const LARGEST: usize = 64 << 20;

#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) client: Client,
    contract: DescriptorPool,
}

impl Wire {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, contract: DescriptorPool::decode(DESCRIPTORS).unwrap() }
    }

    /// What a call takes and gives; for a call that the contract does not have, anything.
    fn types(&self, rpc: &str) -> (MessageDescriptor, MessageDescriptor) {
        let (service, method) = rpc.rsplit_once('.').unwrap();
        let known = self.contract.get_service_by_name(service).and_then(|service| {
            let method = service.methods().find(|known| known.name() == method)?;
            Some((method.input(), method.output()))
        });
        known.unwrap_or_else(|| {
            let any = self.contract.get_message_by_name("v1.GetRunDetailsRequest").unwrap();
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

    /// Opens a stream and writes down what it says. Its headers come with its first message, so nothing waits for them.
    pub(crate) fn listen(&self, rpc: &'static str, request: &Value) -> Heard {
        let (heard, wire, request) = (Heard::default(), self.clone(), self.message(rpc, request));
        let notes = heard.clone();
        heard.keep(tokio::spawn(async move {
            let answer = wire.grpc().await.server_streaming(Request::new(request), path(rpc), wire.codec(rpc)).await;
            notes.follow(answer.map(tonic::Response::into_inner)).await;
        }));
        heard
    }

    /// Opens the stream of results. Runs are asked for later.
    pub(crate) fn results(&self) -> Results {
        const RPC: &str = "Dispatcher.SubscribeToWorkflowRuns";
        let (heard, wire) = (Heard::default(), self.clone());
        let (asks, mut asked) = mpsc::unbounded_channel();
        let questions = futures_util::stream::poll_fn(move |cx| asked.poll_recv(cx));
        let notes = heard.clone();
        heard.keep(tokio::spawn(async move {
            let answer = wire.grpc().await.streaming(Request::new(questions), path(RPC), wire.codec(RPC)).await;
            notes.follow(answer.map(tonic::Response::into_inner)).await;
        }));
        Results { heard, asks, wire: self.clone() }
    }

    async fn grpc(&self) -> Grpc<hatchet::raw::RawChannel> {
        let channel = self.client.raw_channel();
        let mut grpc = Grpc::new(channel).max_decoding_message_size(LARGEST).max_encoding_message_size(LARGEST);
        grpc.ready().await.unwrap();
        grpc
    }

    pub(crate) fn codec(&self, rpc: &str) -> Dynamic {
        Dynamic(self.types(rpc).1)
    }

    pub(crate) async fn rest(&self, method: Method, target: &str, body: Option<Bytes>) -> (StatusCode, Value) {
        let (status, body) = self.client.raw_rest(method, target, body).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_else(|_| format!("no JSON: {body:?}").into()))
    }

    pub(crate) async fn get(&self, target: &str) -> Value {
        let (status, body) = self.rest(Method::GET, target, None).await;
        assert_eq!(status, StatusCode::OK, "{target}: {body}");
        body
    }
}

/// A query as the recordings have it: one value for a name, or several.
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

/// The stream of results, both ways.
pub(crate) struct Results {
    pub(crate) heard: Heard,
    asks: mpsc::UnboundedSender<DynamicMessage>,
    wire: Wire,
}

impl Results {
    pub(crate) fn ask(&self, request: &Value) {
        // A stream that has ended hears no more questions.
        let _ = self.asks.send(self.wire.message("Dispatcher.SubscribeToWorkflowRuns", request));
    }
}

/// What came on a stream, and when. Dropping the last hand on it closes the stream.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Notes>>);

#[derive(Default)]
struct Notes {
    messages: Vec<(Instant, Value)>,
    end: Option<(Instant, Code, String)>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Heard {
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

/// With the contract's own names, and all fields that are always there.
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
