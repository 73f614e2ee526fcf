//! The gRPC services of the core: they validate and convert requests. Methods that are not implemented return `UNIMPLEMENTED` with their
//! names.

// Numbers in requests are untrusted.
#![warn(clippy::arithmetic_side_effects)]

mod admin;
mod collisions;
mod conditions;
mod dispatcher;
mod events;
mod limits;
mod rules;
mod schedules;
mod v1_dispatcher;
mod workflows;

use std::convert::Infallible;
use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::{self, FutureExt as _, TryFutureExt as _};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, Uri};
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::{Code as GrpcCode, Status};
use tower::Service;
use uuid::Uuid;

use super::actor::Handle;
use super::calls::STREAMS;
use super::core::store::{Code, StatusError};
use super::faults::{self, Faults};
use super::interrupt;
use crate::rpc::pb::dispatcher_server::DispatcherServer;
use crate::rpc::pb::events_service_server::EventsServiceServer;
use crate::rpc::pb::v1::admin_service_server::AdminServiceServer;
use crate::rpc::pb::v1::v1_dispatcher_server::V1DispatcherServer;
use crate::rpc::pb::workflow_service_server::WorkflowServiceServer;
use crate::transport::PUSHBACK;

/// The maximum size of requests and responses in bytes.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// The limit of tonic. It is above the engine's own limit, so that the engine's error text is used.
const MAX_ENCODED_BYTES: usize = 64 << 20;

/// The maximum length of a status text, as encoded in headers. Clients accept at least 8 KiB of headers, and lose the code if the
/// text does not fit.
const MAX_STATUS_TEXT_BYTES: usize = 4096;

/// The state that all services share.
#[derive(Clone)]
pub(super) struct GrpcApi {
    pub(super) core: Handle,
    pub(super) tenant: Uuid,
    token: Arc<str>,
}

type Stream<T> = Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

/// Routes requests to the services, after a check of the token.
#[derive(Clone)]
pub(crate) struct Services {
    token: Arc<str>,
    core: Handle,
    faults: Faults,
    admin: AdminServiceServer<GrpcApi>,
    dispatcher: DispatcherServer<GrpcApi>,
    events: EventsServiceServer<GrpcApi>,
    v1_dispatcher: V1DispatcherServer<GrpcApi>,
    workflows: WorkflowServiceServer<GrpcApi>,
}

macro_rules! server {
    ($server:ident, $api:expr) => {
        $server::new($api.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_ENCODED_BYTES)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip)
    };
}

impl Services {
    pub(crate) fn new(core: Handle, tenant: Uuid, token: Arc<str>, faults: Faults) -> Self {
        let api = GrpcApi { core, tenant, token };
        Self {
            token: Arc::clone(&api.token),
            core: api.core.clone(),
            faults,
            admin: server!(AdminServiceServer, api),
            dispatcher: server!(DispatcherServer, api),
            events: server!(EventsServiceServer, api),
            v1_dispatcher: server!(V1DispatcherServer, api),
            workflows: server!(WorkflowServiceServer, api),
        }
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    fn is_authorized<B>(&self, request: &Request<B>) -> bool {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        header
            .and_then(|header| header.split_once(' '))
            .is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && token == &*self.token)
    }
}

impl Service<Request<Body>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // A clone of a URI shares its string.
        let uri = request.uri().clone();
        let method = uri.path().rsplit('/').next().unwrap_or_default();
        let response: Self::Future = match self.faults.next(|| method.to_owned()) {
            None => self.route(request),
            Some(fault) => {
                let mut this = self.clone();
                let call = async move { this.route(request).await };
                let name = method.to_owned();
                let rejected = move |code| Ok(faults::status(&name, code).into_http());
                let core = self.core.clone();
                async move { fault.apply(&core, call, rejected, || Ok(faults::lost().into_http())).await }.boxed()
            }
        };
        if !STREAMS.contains(&method) {
            return response;
        }
        let open = self.faults.opened(method);
        let closed = open.closed();
        let (faults, method, runtime) = (self.faults.clone(), method.to_owned(), self.core.runtime().clone());
        async move {
            tokio::select! {
                biased;
                response = response => {
                    response.map(|response| interrupt::with_faults(response, open, faults, &method, &runtime))
                }
                status = closed => Ok(status.into_http()),
            }
        }
        .boxed()
    }
}

impl Services {
    /// Passes a request to its service, if its token is valid.
    fn route(&mut self, request: Request<Body>) -> <Self as Service<Request<Body>>>::Future {
        let uri = request.uri().clone();
        let (service, _) = names(&uri);
        let response = match service {
            _ if !self.is_authorized(&request) => reject(Status::unauthenticated(faults::INVALID_TOKEN)),
            "v1.AdminService" => self.admin.call(request),
            "Dispatcher" => self.dispatcher.call(request),
            "EventsService" => self.events.call(request),
            "v1.V1Dispatcher" => self.v1_dispatcher.call(request),
            "WorkflowService" => self.workflows.call(request),
            other => reject(Status::unimplemented(format!("unknown service {other}"))),
        };
        response
            .map_ok(move |response| {
                let rejection = is_unknown(&response).then(|| {
                    let (service, method) = names(&uri);
                    Status::unimplemented(format!("unknown method {method} for service {service}"))
                });
                let rejection = rejection.or_else(|| too_large(&response)).or_else(|| truncated_message(&response));
                rejection.map_or(response, Status::into_http)
            })
            .boxed()
    }
}

/// The service and the method in a path.
fn names(uri: &Uri) -> (&str, &str) {
    uri.path().trim_start_matches('/').split_once('/').unwrap_or_default()
}

/// The generated code responses unknown methods, and only those, without a message.
fn is_unknown(response: &Response<Body>) -> bool {
    let is_unimplemented = |code: &HeaderValue| GrpcCode::from_bytes(code.as_bytes()) == GrpcCode::Unimplemented;
    response.headers().get("grpc-status").is_some_and(is_unimplemented)
        && response.headers().get("grpc-message").is_none()
}

/// Converts tonic's status for a message that is too large to the engine's.
fn too_large(response: &Response<Body>) -> Option<Status> {
    let rejection = Status::from_header_map(response.headers())?;
    let text = rejection.message();
    match rejection.code() {
        GrpcCode::OutOfRange => {
            let (_, size) = text.split_once("found ")?;
            let (size, _) = size.split_once(" bytes")?;
            Some(larger_than_max(size))
        }
        GrpcCode::ResourceExhausted if text.starts_with("Error decompressing") => Some(Status::resource_exhausted(
            format!("grpc: received message after decompression larger than max {MAX_MESSAGE_BYTES}"),
        )),
        _ => None,
    }
}

/// Truncates the message of a status if it is too long for clients. Some messages repeat parts of the request.
fn truncated_message(response: &Response<Body>) -> Option<Status> {
    response.headers().get("grpc-message").filter(|text| text.len() > MAX_STATUS_TEXT_BYTES)?;
    let rejection = Status::from_header_map(response.headers())?;
    let text = rejection.message();
    let end = (0..=MAX_STATUS_TEXT_BYTES / 4).rev().find(|end| text.is_char_boundary(*end))?;
    let text = format!("{}… (cut)", text.get(..end)?);
    let (details, metadata) = (Bytes::copy_from_slice(rejection.details()), rejection.metadata().clone());
    Some(Status::with_details_and_metadata(rejection.code(), text, details, metadata))
}

fn larger_than_max(size: impl Display) -> Status {
    Status::resource_exhausted(format!("grpc: received message larger than max ({size} vs. {MAX_MESSAGE_BYTES})"))
}

fn reject(status: Status) -> Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>> {
    future::ready(Ok(status.into_http())).boxed()
}

impl From<StatusError> for Status {
    fn from(error: StatusError) -> Self {
        let code = match error.code {
            Code::InvalidArgument => GrpcCode::InvalidArgument,
            Code::NotFound => GrpcCode::NotFound,
            Code::AlreadyExists(found) => return collisions::single(error.message, &found),
            Code::FailedPrecondition => GrpcCode::FailedPrecondition,
            Code::Internal => GrpcCode::Internal,
            Code::Unimplemented => GrpcCode::Unimplemented,
            Code::Unavailable => GrpcCode::Unavailable,
        };
        let mut status = Self::new(code, error.message);
        if code == GrpcCode::Unavailable {
            // It never becomes available again.
            status.metadata_mut().insert(PUSHBACK, MetadataValue::from_static("-1"));
        }
        status
    }
}

/// Unwraps a request, if it is not too large.
fn sized<T: prost::Message>(request: tonic::Request<T>) -> Result<T, Status> {
    let message = request.into_inner();
    let size = message.encoded_len();
    if size > MAX_MESSAGE_BYTES {
        return Err(larger_than_max(size));
    }
    Ok(message)
}

/// Wraps a response, if it is not too large.
fn respond<T: prost::Message>(message: T) -> Result<tonic::Response<T>, Status> {
    let size = message.encoded_len();
    if size > MAX_MESSAGE_BYTES {
        return Err(Status::resource_exhausted(format!(
            "grpc: trying to send message larger than max ({size} vs. {MAX_MESSAGE_BYTES})"
        )));
    }
    Ok(tonic::Response::new(message))
}

fn not_yet<T>(what: &str) -> Result<T, Status> {
    Err(StatusError::unimplemented(what).into())
}

fn time(at: Option<prost_types::Timestamp>) -> Option<chrono::DateTime<chrono::Utc>> {
    let at = at?;
    chrono::DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).ok()?).filter(crate::time::is_representable)
}
