//! Establishes connections over TCP, with TLS if the configuration enables it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::Instant;
#[cfg(feature = "__tls")]
use tokio::time::timeout_at;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint};

use super::connect_error::{ConnectError, causes};
use super::connections::Connections;
use super::dial::{Resolve, SystemResolver, dial};
use super::probe::speaks_tls;
use super::protocol::{Api, Mismatch, Protocol};
use super::stream::{EarlyEnd, LastConnection, Stream};
#[cfg(feature = "__tls")]
use super::tls::{HandshakeError, TlsLayer};
use crate::config::Config;
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::runtime::{self, Needs};

/// The name of this crate in the `user-agent` header.
pub(super) const USER_AGENT_NAME: &str = concat!("hatchet-rs/", env!("CARGO_PKG_VERSION"));
/// The flow-control window of a stream in bytes: large enough for outputs of 1 MiB.
const STREAM_WINDOW: u32 = 1 << 20;
/// The flow-control window of a connection in bytes, so that streams with many messages do not block each other.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// The channel to the gRPC address. It connects at the first call, and reconnects after a connection was lost.
pub(super) fn grpc(config: &Config) -> Result<(Channel, Connector)> {
    let connector = Connector::grpc(config)?;
    let authority = config.authority();
    let invalid = |error: BoxError| {
        Error::new(ErrorKind::Config, format!("invalid address {authority}")).with_source(error).without_side_effects()
    };
    // The connector handles TLS. tonic only adds the scheme to requests.
    let origin: Uri = format!("{}://{authority}", if config.tls().is_enabled() { "https" } else { "http" })
        .parse()
        .map_err(|error: http::uri::InvalidUri| invalid(error.into()))?;
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .and_then(|endpoint| endpoint.user_agent(USER_AGENT_NAME))
        .map_err(|error| invalid(error.into()))?
        .origin(origin)
        .http2_keep_alive_interval(config.keepalive_interval())
        .keep_alive_timeout(config.keepalive_timeout())
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    Ok((endpoint.connect_with_connector_lazy(connector.clone()), connector))
}

/// A connector to one address, for one of the two APIs.
#[derive(Clone)]
pub(super) struct Connector(Arc<Inner>);

struct Inner {
    api: Api,
    host: String,
    port: u16,
    timeout: Duration,
    resolver: Box<dyn Resolve>,
    /// The runtime on which the client was created. Connections live on it, independent of the runtime of the caller.
    runtime: Handle,
    #[cfg(feature = "__tls")]
    tls: Option<TlsLayer>,
    last: LastConnection,
    open: Connections,
}

impl Connector {
    fn grpc(config: &Config) -> Result<Self> {
        let tls = config.tls();
        let name = tls.server_name().filter(|_| tls.is_enabled());
        Self::new(config, Api::Grpc, (config.host(), config.port()), name, SystemResolver)
    }

    /// A connector to the server URL, with TLS if its scheme is `https`.
    pub(super) fn rest(config: &Config, server_url: &Uri) -> Result<Self> {
        let is_https = server_url.scheme_str() == Some("https");
        let host = server_url.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = server_url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let name = config.tls().rest_server_name().or(Some(host)).filter(|_| is_https);
        Self::new(config, Api::Rest, (host, port), name, SystemResolver)
    }

    /// `server_name`: the name that the certificate must have, if TLS is used.
    fn new(
        config: &Config,
        api: Api,
        (host, port): (&str, u16),
        server_name: Option<&str>,
        resolver: impl Resolve + 'static,
    ) -> Result<Self> {
        #[cfg(not(feature = "__tls"))]
        if server_name.is_some() {
            return Err(Error::new(
                ErrorKind::Config,
                "the configuration requires TLS, but this crate was built without it: enable the feature tls-ring or tls-aws-lc",
            )
            .without_side_effects());
        }
        Ok(Self(Arc::new(Inner {
            api,
            host: host.to_owned(),
            port,
            timeout: config.connect_timeout(),
            resolver: Box::new(resolver),
            runtime: runtime::current("a client", Needs::TimersAndSockets)?,
            #[cfg(feature = "__tls")]
            tls: match server_name {
                Some(name) => Some(TlsLayer::new(config.tls(), name, api.protocol())?),
                None => None,
            },
            last: LastConnection::default(),
            open: Connections::default(),
        })))
    }

    /// The runtime of the connections.
    pub(super) fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    /// Closes the connections that were established at least this long ago. The next call establishes another one. Returns
    /// whether there were any.
    pub(super) fn close_older_than(&self, age: Duration) -> bool {
        self.0.open.close_older_than(age)
    }

    /// Replaces the error of a call if the connection has a more precise reason. hyper and h2 report only that the connection was
    /// lost.
    pub(super) async fn explain(&self, error: BoxError) -> BoxError {
        let inner = &self.0;
        let Some(ended) = inner.last.get().filter(|_| ended_early(error.as_ref())) else { return error };
        match ended {
            EarlyEnd::OtherProtocol(actual) => inner.mismatch(inner.api.protocol(), actual).with_source(error).into(),
            EarlyEnd::Rejected(alert) => {
                let text = format!(
                    "{} rejected the connection after the TLS handshake: {alert}; check ConfigBuilder::tls_cert and tls_key",
                    inner.address()
                );
                ConnectError::permanent(text).with_source(error).into()
            }
            EarlyEnd::NoResponse => {
                inner.last.set(None);
                if inner.is_encrypted() || !self.probe().await {
                    return error;
                }
                inner.last.set(Some(EarlyEnd::OtherProtocol(Protocol::Tls)));
                inner.mismatch(inner.api.protocol(), Protocol::Tls).with_source(error).possibly_sent().into()
            }
        }
    }

    /// Whether the server responds to a separate connection in TLS.
    async fn probe(&self) -> bool {
        let inner = Arc::clone(&self.0);
        let probe = async move {
            match inner.tcp(Instant::now() + inner.timeout).await {
                Ok(tcp) => speaks_tls(tcp).await,
                Err(_) => false,
            }
        };
        self.0.runtime.spawn(probe).await.unwrap_or(false)
    }
}

/// Whether a call failed because its connection ended early, or because there was no connection.
fn ended_early(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error).any(|cause| {
        let io = cause.downcast_ref::<io::Error>().or_else(|| cause.downcast_ref::<h2::Error>()?.get_io());
        io.is_some_and(EarlyEnd::is_reason)
            || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
    })
}

impl Inner {
    fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    #[cfg(feature = "__tls")]
    fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    #[cfg(not(feature = "__tls"))]
    #[expect(clippy::unused_self, reason = "with TLS, it depends on the configuration")]
    fn is_encrypted(&self) -> bool {
        false
    }

    fn mismatch(&self, expected: Protocol, actual: Protocol) -> ConnectError {
        ConnectError::permanent(Mismatch { api: self.api, address: &self.address(), expected, actual }.to_string())
    }

    async fn tcp(&self, deadline: Instant) -> std::result::Result<TcpStream, ConnectError> {
        let tcp = dial(self.resolver.as_ref(), &self.host, self.port, deadline).await.map_err(|error| {
            let detail = error.detail.map(|detail| format!(" ({detail})")).unwrap_or_default();
            ConnectError::failed(format!("failed to connect to {}{detail}", self.address()), error.source)
        })?;
        // Small messages must be sent immediately.
        tcp.set_nodelay(true).map_err(|error| {
            ConnectError::failed(format!("failed to set up the connection to {}", self.address()), error)
        })?;
        Ok(tcp)
    }

    async fn connect(&self) -> std::result::Result<Stream, ConnectError> {
        let deadline = Instant::now() + self.timeout;
        let tcp = self.tcp(deadline).await?;
        let (protocol, last) = (self.api.protocol(), self.last.clone());
        #[cfg(feature = "__tls")]
        if let Some(tls) = &self.tls {
            let failed = |error: io::Error| {
                let text = format!("TLS handshake with {} failed", self.address());
                ConnectError::failed(text, error).transient_if(self.last.has_worked())
            };
            return match timeout_at(deadline, tls.handshake(tcp)).await {
                Ok(Ok(stream)) => Ok(Stream::new(stream, protocol, true, last, self.open.add())),
                Ok(Err(HandshakeError::NotTls(error))) => {
                    let mismatch = self.mismatch(Protocol::Tls, protocol).with_source(error);
                    Err(mismatch.transient_if(self.last.has_worked()))
                }
                Ok(Err(HandshakeError::Config(error))) => {
                    Err(ConnectError::permanent(error.to_string()).with_kind(ErrorKind::Config).with_source(error))
                }
                Ok(Err(HandshakeError::Failed(error))) => Err(failed(error)),
                Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
            };
        }
        Ok(Stream::new(tcp, protocol, false, last, self.open.add()))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let inner = Arc::clone(&self.0);
        let connecting = self.0.runtime.spawn(async move { inner.connect().await });
        Box::pin(async move {
            match AbortOnDropHandle::new(connecting).await {
                Ok(connected) => connected.map(TokioIo::new),
                Err(error) => {
                    let text = "the Tokio runtime that the client was created on has shut down: create another client";
                    Err(ConnectError::permanent(text).with_kind(ErrorKind::Closed).with_source(error))
                }
            }
        })
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::super::dial::Resolving;
    use super::*;
    use std::net::SocketAddr;
    use tokio::net::{TcpListener, TcpSocket};

    /// A resolver that returns these addresses for any host name.
    struct Name(Vec<SocketAddr>);

    impl Resolve for Name {
        fn resolve(&self, _: &str, _: u16) -> Resolving {
            let addresses = self.0.clone();
            Box::pin(async move { Ok(addresses) })
        }
    }

    fn connector(addresses: Vec<SocketAddr>, timeout: Duration) -> Connector {
        let config = Config::builder().connect_timeout(timeout).embedded(uuid::Uuid::nil().into(), "token").unwrap();
        Connector::new(&config, Api::Grpc, ("engine.example.com", 7077), None, Name(addresses)).unwrap()
    }

    /// A listener whose backlog is full, so that Linux does not accept further connections, and the connections that fill it.
    async fn black_hole() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(connected) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            queued.push(connected.unwrap());
        }
        (address, listener, queued)
    }

    async fn refusing() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    /// Uses real time, because it uses a real socket.
    #[tokio::test]
    async fn unresponsive_addresses_do_not_delay_the_next_one() {
        let (silent, _listener, _queued) = black_hole().await;
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = vec![silent, refusing().await, good.local_addr().unwrap()];
        let start = Instant::now();
        connector(addresses, Duration::from_secs(5)).0.connect().await.map_err(|error| error.to_string()).unwrap();
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn the_error_names_all_addresses() {
        let (silent, _listener, _queued) = black_hole().await;
        let refusing = refusing().await;
        let connector = connector(vec![silent, refusing], Duration::from_millis(500));
        let error = connector.0.connect().await.err().unwrap();
        let text = error.to_string();
        assert!(text.starts_with("failed to connect to engine.example.com:7077 (tried "), "{text}");
        assert!(text.contains(&silent.to_string()) && text.contains(&refusing.to_string()), "{text}");
        let source = std::error::Error::source(&error).unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.is_transient());
    }
}
