//! A connection, encrypted or not, that checks the first bytes from the server.
//!
//! If a server speaks another protocol, or closes the connection because it expects another one, hyper and h2 fail
//! without that reason. So the reason is stored here, and the connector reads it after a call has failed.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connections::Closing;
use super::protocol::{Protocol, unexpected};

use crate::sync::lock;

/// Why a connection ended without a byte of the expected protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EarlyEnd {
    /// The server uses another protocol.
    OtherProtocol(Protocol),
    /// The server rejected the client after the TLS handshake. With TLS 1.3, this happens if it requires a client certificate.
    Rejected(String),
    /// The server closed the connection before it sent anything. It may have read a call.
    NoResponse,
}

/// How the last connection of a connector ended, if it ended early. It is ignored if a connection has worked before, because then the
/// configuration is correct, and the server has restarted or a proxy has responded.
#[derive(Debug, Clone, Default)]
pub(super) struct LastConnection(Arc<State>);

#[derive(Debug, Default)]
struct State {
    ended: Mutex<Option<EarlyEnd>>,
    has_worked: AtomicBool,
}

impl LastConnection {
    pub(super) fn get(&self) -> Option<EarlyEnd> {
        if self.has_worked() {
            return None;
        }
        lock(&self.0.ended).clone()
    }

    pub(super) fn set(&self, ended: Option<EarlyEnd>) {
        *lock(&self.0.ended) = ended;
    }

    /// Whether the server has ever sent something of the expected protocol.
    pub(super) fn has_worked(&self) -> bool {
        self.0.has_worked.load(Relaxed)
    }

    fn mark_working(&self) {
        self.0.has_worked.store(true, Relaxed);
    }
}

/// The prefix of these errors. h2 keeps only the text of a connection error.
const EARLY_END: &str = "the server did not use the expected protocol: ";

impl EarlyEnd {
    /// Whether a call failed with an error with this prefix.
    pub(super) fn is_reason(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.to_string().starts_with(EARLY_END))
    }
}

/// The alerts by which a server rejects the client for its certificate, or for having none. Any other may come after the server has
/// read a call.
const CERTIFICATE_ALERTS: [&str; 11] = [
    "DecryptError",
    "HandshakeFailure",
    "CertificateRequired",
    "NoCertificate",
    "BadCertificate",
    "UnsupportedCertificate",
    "CertificateRevoked",
    "CertificateExpired",
    "CertificateUnknown",
    "UnknownCA",
    "AccessDenied",
];

/// Whether the server rejects the client's certificate. rustls reports an alert as an error of the next read. The type of that error
/// depends on the reader, so its text is checked.
fn rejects_certificate(error: &io::Error) -> bool {
    let text = error.to_string();
    let alert = text.strip_prefix("received fatal alert: ");
    alert.is_some_and(|alert| CERTIFICATE_ALERTS.contains(&alert))
}

/// Checks the first bytes of a connection.
#[derive(Debug)]
struct ProtocolCheck {
    expected: Protocol,
    is_encrypted: bool,
    last: LastConnection,
}

impl ProtocolCheck {
    /// Checks the result of the first read, and replaces it with an error if the protocol is not the expected one.
    fn on_read(&self, read: io::Result<&[u8]>) -> io::Result<()> {
        let (ended, kind, detail) = match read {
            Ok([]) => (EarlyEnd::NoResponse, io::ErrorKind::ConnectionReset, "it closed the connection".to_owned()),
            Ok(first) => match unexpected(self.expected, self.is_encrypted, first) {
                None => {
                    self.last.mark_working();
                    return Ok(());
                }
                Some(actual) => {
                    (EarlyEnd::OtherProtocol(actual), io::ErrorKind::InvalidData, format!("it speaks {actual:?}"))
                }
            },
            Err(error) if rejects_certificate(&error) => {
                (EarlyEnd::Rejected(error.to_string()), error.kind(), error.to_string())
            }
            Err(error) => (EarlyEnd::NoResponse, error.kind(), error.to_string()),
        };
        self.last.set(Some(ended));
        Err(io::Error::new(kind, format!("{EARLY_END}{detail}")))
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection of either kind.
pub(super) struct Stream {
    io: Box<dyn Io>,
    /// `Some` until the server has sent bytes of the expected protocol.
    check: Option<ProtocolCheck>,
    closing: Closing,
}

impl Stream {
    pub(super) fn new(
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        expected: Protocol,
        is_encrypted: bool,
        last: LastConnection,
        closing: Closing,
    ) -> Self {
        Self { io: Box::new(io), check: Some(ProtocolCheck { expected, is_encrypted, last }), closing }
    }

    /// Maps the error of a write. The server may have sent a reason before it closed the connection, so that is read first.
    fn write_error(&mut self, cx: &mut Context<'_>, error: io::Error) -> io::Error {
        let Some(check) = &self.check else { return error };
        let mut space = [0; 512];
        let mut buf = ReadBuf::new(&mut space);
        let read = Pin::new(&mut self.io).poll_read(cx, &mut buf);
        let checked = match read {
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => check.on_read(Ok(buf.filled())),
            Poll::Ready(Err(rejection)) if rejection.kind() == io::ErrorKind::InvalidData => {
                check.on_read(Err(rejection))
            }
            _ => check.on_read(Err(io::Error::new(error.kind(), error.to_string()))),
        };
        checked.err().unwrap_or(error)
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let polled = polled.map_err(|error| self.write_error(cx, error));
        self.closing.check(cx, polled)
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let polled = self.closing.check(cx, polled);
        let (Some(check), Poll::Ready(read)) = (&self.check, &polled) else { return polled };
        if buf.capacity() == before {
            return polled;
        }
        let first = match read {
            Ok(()) => Ok(buf.filled().get(before..).unwrap_or_default()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        let checked = check.on_read(first);
        if checked.is_ok() {
            self.check = None;
        }
        Poll::Ready(checked)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.written(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
