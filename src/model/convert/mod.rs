//! From protobuf and the server's JSON to what users hold. Nothing here can fail on an unknown value; what cannot be read
//! at all is an error that says so.

pub(crate) mod grpc;
pub(crate) mod rest;

use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// Reads an id that the server sent.
pub(crate) fn id<T: FromStr<Err = Error>>(text: &str) -> Result<T> {
    text.parse().map_err(|error: Error| error.with_kind(ErrorKind::Decode))
}
