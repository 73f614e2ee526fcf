//! How a call gets to the server and back: one erased wire under gRPC and one under REST, the same over TCP, over TLS,
//! and directly into the embedded engine.

mod auth;
mod budget;
mod connect;
mod rest;
mod retry;
mod status;
#[cfg(feature = "tls")]
mod tls;
mod unary;
mod wire;

pub(crate) use auth::bearer;
pub(crate) use rest::{RestCall, RestWire};
pub(crate) use retry::delay as retry_delay;
#[cfg(feature = "embedded")]
pub(crate) use status::PUSHBACK;
pub(crate) use status::from_status;
pub(crate) use unary::{Call, Caller};
pub(crate) use wire::GrpcWire;
#[cfg(feature = "embedded")]
pub(crate) use wire::Wire;
