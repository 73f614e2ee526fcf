//! TLS with generated certificates: trusted and untrusted authorities, client certificates, server names and versions.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use hatchet::config::{ConfigBuilder, TlsStrategy, TlsVersion};
use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::workflow::WorkflowRef;
use hatchet::{Client, Config, ErrorKind, RunFilter};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a name, and its key.
    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.0.der().to_vec())).unwrap();
        roots
    }
}

const ALL_VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

/// A TLS server in front of the engine.
struct Server<'a> {
    authority: &'a Authority,
    name: &'a str,
    clients: Option<&'a Authority>,
    versions: &'a [&'static SupportedProtocolVersion],
}

impl<'a> Server<'a> {
    fn new(authority: &'a Authority) -> Self {
        Self { authority, name: "localhost", clients: None, versions: ALL_VERSIONS }
    }

    /// Listens with TLS, and forwards connections to an address.
    async fn forward_to(&self, to: SocketAddr) -> SocketAddr {
        let (certificate, key) = self.authority.sign(self.name);
        let provider = Arc::new(default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(self.versions).unwrap();
        let builder = match self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(clients.roots()), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that does not trust the certificate closes the connection.
                    let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                    let mut plain = TcpStream::connect(to).await.unwrap();
                    let _ = copy_bidirectional(&mut tls, &mut plain).await;
                });
            }
        });
        address
    }
}

/// An engine behind TLS for both gRPC and REST, and a configuration with its addresses and token.
async fn setup(server: &Server<'_>) -> (Engine, ConfigBuilder) {
    let engine = Engine::builder().listen().start().await.unwrap();
    let (grpc, rest) = (engine.grpc_address().unwrap(), engine.rest_address().unwrap());
    let (grpc, rest) = (server.forward_to(grpc).await, server.forward_to(rest).await);
    let config = Config::builder()
        .token(support::token(&engine))
        .host_port(format!("localhost:{}", grpc.port()))
        .server_url(format!("https://localhost:{}", rest.port()))
        .tls_strategy(TlsStrategy::Tls);
    (engine, config)
}

/// One call by REST and one by gRPC.
async fn call(config: ConfigBuilder) -> [hatchet::Result<()>; 2] {
    let hatchet = Client::new(config.build().unwrap()).unwrap();
    let rest = hatchet.runs(RunFilter::new(Window::all())).count().await.map(drop);
    let unknown = WorkflowRef::<(), ()>::new("unknown");
    let grpc = match hatchet.run(&unknown, &()).start().await {
        Err(error) if error.kind() == ErrorKind::WorkflowNotFound => Ok(()),
        other => other.map(drop),
    };
    [rest, grpc]
}

async fn assert_connects(config: ConfigBuilder) {
    for result in call(config).await {
        result.unwrap();
    }
}

/// Asserts that nothing was sent, and that a cause contains a string.
async fn assert_rejected(config: ConfigBuilder, expected: &str) {
    for result in call(config).await {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.has_no_side_effects(), "{error:?}");
        let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
        let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        assert!(text.contains(expected), "expected {expected:?}, got {text:?}");
    }
}

#[tokio::test]
async fn only_the_configured_authority_is_trusted() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (_engine, config) = setup(&Server::new(&authority)).await;
    assert_connects(config.clone().tls_root_ca(authority.pem())).await;
    assert_rejected(config.clone().tls_root_ca(other.pem()), "invalid peer certificate").await;
    // The system does not trust the authority of the test. It may have no root certificates at all.
    for result in call(config).await {
        let error = result.unwrap_err();
        let cause = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
        let causes = cause.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        match error.kind() {
            ErrorKind::Unavailable => assert!(causes.contains("invalid peer certificate"), "{error:?}"),
            kind => assert_eq!(kind, ErrorKind::Config, "{error:?}"),
        }
        assert!(error.has_no_side_effects() && !error.is_transient(), "{error:?}");
    }
}

#[tokio::test]
async fn clients_send_their_certificate() {
    let (authority, clients, other) = (Authority::new(), Authority::new(), Authority::new());
    let server = Server { clients: Some(&clients), ..Server::new(&authority) };
    let (_engine, config) = setup(&server).await;
    let config = config.tls_root_ca(authority.pem());
    let with = |authority: &Authority| {
        let (certificate, key) = authority.sign("client");
        config.clone().tls_strategy(TlsStrategy::Mtls).tls_cert(certificate.pem()).tls_key(key.serialize_pem())
    };
    assert_connects(with(&clients)).await;
    for config in [config.clone(), with(&other)] {
        // With TLS 1.3, the client gets the alert after the handshake, when it may have sent its first call.
        let start = tokio::time::Instant::now();
        assert_rejected(config, "rejected the connection after the TLS handshake: received fatal alert").await;
        assert!(start.elapsed() < std::time::Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn the_server_name_can_differ_from_the_host() {
    let authority = Authority::new();
    let server = Server { name: "engine.internal", ..Server::new(&authority) };
    let (_engine, config) = setup(&server).await;
    let config = config.tls_root_ca(authority.pem());
    assert_rejected(config.clone(), "not valid for name").await;
    // REST has the same host, so the name applies to both, unless REST has a separate name.
    let config = config.tls_server_name("engine.internal");
    assert_connects(config.clone()).await;
    let [rest, grpc] = call(config.clone().tls_rest_server_name("localhost")).await;
    assert!(rest.unwrap_err().has_no_side_effects());
    grpc.unwrap();
    let [rest, grpc] = call(config.tls_server_name("localhost").tls_rest_server_name("engine.internal")).await;
    rest.unwrap();
    assert!(grpc.unwrap_err().has_no_side_effects());
}

#[tokio::test]
async fn invalid_server_names_are_rejected_by_client_new() {
    let authority = Authority::new();
    let (_engine, config) = setup(&Server::new(&authority)).await;
    let config = config.tls_root_ca(authority.pem()).tls_server_name("a..b");
    let error = Client::new(config.build().unwrap()).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Config, "cannot use the TLS server name \"a..b\"")
    );
}

#[tokio::test]
async fn tls_1_2_must_be_enabled() {
    let authority = Authority::new();
    let server = Server { versions: &[&version::TLS12], ..Server::new(&authority) };
    let (_engine, config) = setup(&server).await;
    let config = config.tls_root_ca(authority.pem());
    for result in call(config.clone()).await {
        assert!(result.unwrap_err().has_no_side_effects());
    }
    assert_connects(config.tls_min_version(TlsVersion::Tls12)).await;
}

#[tokio::test]
async fn invalid_certificates_are_rejected_by_client_new() {
    let (_engine, config) = setup(&Server::new(&Authority::new())).await;
    let broken = "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n";
    let error = Client::new(config.tls_root_ca(broken).build().unwrap()).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Config, "cannot use the root CA"));
}

#[test]
fn clients_without_a_runtime_are_rejected() {
    let engine = tokio::runtime::Runtime::new().unwrap().block_on(Engine::builder().listen().start()).unwrap();
    let config = Config::builder().token(support::token(&engine)).tls_strategy(TlsStrategy::None).build().unwrap();
    assert_eq!(Client::new(config).unwrap_err().kind(), ErrorKind::Config);
}
