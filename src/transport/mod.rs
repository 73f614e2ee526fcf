//! Sends calls to the server: one type-erased service for gRPC and one for REST, over TCP, over TLS, or directly to the embedded
//! engine. Adds deadlines, retries, and streams that reconnect.

mod auth;
mod budget;
mod caller;
mod connect;
mod connect_error;
mod connections;
mod dial;
mod failure;
mod grpc_response;
mod messages;
mod poll;
mod prefixed_body;
mod probe;
mod protocol;
mod proxy_response;
mod reconnect;
mod request;
mod rest;
mod retry;
mod retry_after;
#[cfg(feature = "__tls")]
mod roots;
mod service;
mod status;
mod status_source;
mod stream;
#[cfg(feature = "__tls")]
mod tls;
mod token_health;
mod wire;

pub(crate) use auth::bearer;
pub(crate) use caller::{Call, Caller};
pub(crate) use grpc_response::ResponseBody;
pub(crate) use messages::Messages;
pub(crate) use poll::Polling;
pub(crate) use prefixed_body::PrefixedBody;
pub(crate) use reconnect::{ReconnectingStream, StreamEvent, StreamPolicy, Twins};
pub(crate) use request::Sent;
pub(crate) use rest::{RestCall, RestWire};
pub(crate) use retry::delay as retry_delay;
#[cfg(feature = "embedded")]
pub(crate) use retry_after::PUSHBACK;
#[cfg(feature = "embedded")]
pub(crate) use service::Wire;
#[cfg(test)]
pub(crate) use status::from_status;
#[cfg(test)]
pub(crate) use status::sent_by_server;
pub(crate) use token_health::{REJECTIONS_TRANSIENT_FOR, TokenHealth};
pub(crate) use wire::GrpcWire;
