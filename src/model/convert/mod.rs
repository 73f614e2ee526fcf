//! From what the server sends to what users hold. Nothing here can fail on an unknown value; what cannot be read
//! at all is an error that says so.

pub(crate) mod grpc;
pub(crate) mod rest;

use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// Reads an id that the server sent.
pub(crate) fn id<T: FromStr<Err = Error>>(text: &str) -> Result<T> {
    text.parse().map_err(|error: Error| error.with_kind(ErrorKind::Decode))
}

/// Reads an id that the server may not have sent; it writes none as an empty text, or as zeros.
pub(crate) fn optional_id<T: FromStr<Err = Error>>(text: Option<&str>) -> Result<Option<T>> {
    let is_one = |text: &&str| text.bytes().any(|byte| !matches!(byte, b'0' | b'-'));
    text.filter(is_one).map(id).transpose()
}
