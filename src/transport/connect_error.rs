//! Errors of connection attempts.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::error::{BoxError, ErrorKind};

/// The error if a connection could not be established. It is one of the sources of the error of a call.
#[derive(Debug)]
pub(super) struct ConnectError {
    kind: ErrorKind,
    transient: bool,
    may_be_sent: bool,
    text: String,
    source: Option<BoxError>,
}

impl ConnectError {
    /// An error after which a retry may succeed, unless the source rules that out.
    pub(super) fn failed(text: impl Into<String>, source: impl Into<BoxError>) -> Self {
        let source = source.into();
        Self {
            kind: ErrorKind::Unavailable,
            transient: !is_permanent(source.as_ref()),
            may_be_sent: false,
            text: text.into(),
            source: Some(source),
        }
    }

    /// An error after which a retry would fail in the same way.
    pub(super) fn permanent(text: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unavailable, transient: false, may_be_sent: false, text: text.into(), source: None }
    }

    pub(super) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Marks the error as transient if the connector has worked before.
    #[cfg(feature = "__tls")]
    pub(super) fn transient_if(mut self, has_worked: bool) -> Self {
        self.transient |= has_worked;
        self
    }

    /// Records that the server may have read a call before it closed the connection.
    pub(super) fn possibly_sent(mut self) -> Self {
        self.may_be_sent = true;
        self
    }

    pub(super) fn may_be_sent(&self) -> bool {
        self.may_be_sent
    }

    pub(super) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    pub(super) fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(super) fn is_transient(&self) -> bool {
        self.transient
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for ConnectError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Whether a retry would fail in the same way, because the TLS handshake failed on one side. With TLS 1.3, a rejected client receives
/// the alert after the handshake.
pub(super) fn is_permanent(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| io_kind(cause) == Some(io::ErrorKind::InvalidData))
}

fn io_kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    // h2 does not expose the error of its connection as a source.
    let of_h2 = || error.downcast_ref::<h2::Error>()?.get_io();
    error.downcast_ref::<io::Error>().or_else(of_h2).map(io::Error::kind)
}

/// An error and its sources.
pub(super) fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}
