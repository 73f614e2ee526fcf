//! Connections: TCP, with TLS over it if the configuration says so.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

#[cfg(feature = "tls")]
use super::tls::TlsLayer;
use crate::config::Config;
use crate::error::{BoxError, Error, ErrorKind, Result};

/// A megabyte: outputs of that size arrive in one piece, and a hundred thousand small messages are not held up.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// The channel to the gRPC address. It dials at the first call, and again whenever it has lost its connection.
pub(super) fn grpc(config: &Config) -> Result<Channel> {
    let tls = encrypted(config);
    let connector = Connector::new(config, tls, config.tls().server_name().map(ToOwned::to_owned), b"h2")?;
    let authority = config.authority();
    let bad = |error: BoxError| {
        Error::new(ErrorKind::Config, format!("{authority} is no address")).with_source(error).unsent()
    };
    // The connector does the TLS; tonic is only told what the requests should say about it.
    let origin: Uri = format!("{}://{authority}", if tls { "https" } else { "http" })
        .parse()
        .map_err(|error: http::uri::InvalidUri| bad(error.into()))?;
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .and_then(|endpoint| endpoint.user_agent(concat!("hatchet-rs/", env!("CARGO_PKG_VERSION"))))
        .map_err(|error| bad(error.into()))?
        .origin(origin)
        .http2_keep_alive_interval(config.keepalive_interval())
        .keep_alive_timeout(config.keepalive_timeout())
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// A connector for REST, which takes the address from each request.
pub(super) fn rest(config: &Config, tls: bool) -> Result<Connector> {
    Connector::new(config, tls, None, b"http/1.1")
}

fn encrypted(config: &Config) -> bool {
    config.tls().is_enabled()
}

/// Dials the host and port of a URI.
#[derive(Clone)]
pub(super) struct Connector {
    timeout: Duration,
    #[cfg(feature = "tls")]
    tls: Option<Arc<TlsLayer>>,
    server_name: Option<Arc<str>>,
}

impl Connector {
    fn new(config: &Config, tls: bool, server_name: Option<String>, alpn: &'static [u8]) -> Result<Self> {
        #[cfg(not(feature = "tls"))]
        if tls {
            let _ = alpn;
            return Err(Error::new(
                ErrorKind::Config,
                "the configuration asks for TLS, and the crate was built without it: turn on the feature tls-ring or tls-aws-lc",
            )
            .unsent());
        }
        Ok(Self {
            timeout: config.connect_timeout(),
            #[cfg(feature = "tls")]
            tls: if tls { Some(Arc::new(TlsLayer::new(config.tls(), alpn)?)) } else { None },
            server_name: server_name.map(Into::into),
        })
    }

    async fn dial(self, uri: Uri) -> std::result::Result<TokioIo<Stream>, ConnectError> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let open = async {
            let tcp = TcpStream::connect((host.as_str(), port))
                .await
                .map_err(|error| ConnectError::new("connect to", error))?;
            // Small messages must not wait for company.
            tcp.set_nodelay(true).map_err(|error| ConnectError::new("set up the connection to", error))?;
            #[cfg(feature = "tls")]
            if let Some(tls) = &self.tls {
                let name = self.server_name.as_deref().unwrap_or(&host);
                let stream =
                    tls.handshake(name, tcp).await.map_err(|error| ConnectError::new("agree on TLS with", error))?;
                return Ok(Stream::new(stream));
            }
            let _ = &self.server_name;
            Ok(Stream::new(tcp))
        };
        match timeout(self.timeout, open).await {
            Ok(opened) => opened.map(TokioIo::new),
            Err(_) => Err(ConnectError::new("connect in time to", io::ErrorKind::TimedOut.into())),
        }
        .map_err(|error| error.with_address(format!("{host}:{port}")))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial(uri))
    }
}

/// No connection came about, so nothing was sent over it. Found again in the causes of a call's error.
#[derive(Debug)]
pub(super) struct ConnectError {
    doing: &'static str,
    address: String,
    source: io::Error,
}

impl ConnectError {
    pub(super) fn new(doing: &'static str, source: io::Error) -> Self {
        Self { doing, address: String::new(), source }
    }

    fn with_address(mut self, address: String) -> Self {
        self.address = address;
        self
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {} {}", self.doing, self.address)
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// That no connection came about, if it is among the causes of a call's error.
pub(super) fn never_left<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a ConnectError> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Whether another try cannot end otherwise: both sides were there and did not agree on TLS. With TLS 1.3 a client that
/// is refused hears of it only after the handshake.
pub(super) fn is_hopeless(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::InvalidData)
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection of either kind.
pub(super) struct Stream(Box<dyn Io>);

impl Stream {
    fn new(io: impl Io + 'static) -> Self {
        Self(Box::new(io))
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
