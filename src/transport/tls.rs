//! TLS configuration and handshakes.
//!
//! The crypto provider is set explicitly, because rustls panics if it has to choose between two linked providers.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, InvalidMessage, RootCertStore, SupportedProtocolVersion, version};

use super::protocol::Protocol;
use super::roots::NATIVE_ROOTS;
use crate::config::{Tls, TlsVersion};
use crate::error::{BoxError, Error, ErrorKind, Result};

const TLS12_OR_NEWER: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
const TLS13_OR_NEWER: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// The TLS settings for one server.
pub(super) struct TlsLayer {
    server_name: ServerName<'static>,
    versions: &'static [&'static SupportedProtocolVersion],
    /// The client's certificate with its chain, and its key.
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    alpn: &'static [u8],
    /// Created at the first handshake if it needs the root certificates of the machine.
    connector: OnceCell<TlsConnector>,
}

/// The error of a TLS handshake.
pub(super) enum HandshakeError {
    /// The configuration of the client is invalid.
    Config(Error),
    /// The server did not respond in TLS.
    NotTls(io::Error),
    /// Any other failure.
    Failed(io::Error),
}

impl TlsLayer {
    /// Checks all settings that can be checked without reading files.
    pub(super) fn new(tls: &Tls, server_name: &str, protocol: Protocol) -> Result<Self> {
        let identity = match tls.identity() {
            None => None,
            Some(identity) => {
                let chain = certificates("the client certificate", identity.cert_pem())?;
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem())
                    .map_err(|error| unusable("the client key", error))?;
                Some((chain, key))
            }
        };
        let layer = Self {
            server_name: ServerName::try_from(server_name.to_owned())
                .map_err(|error| unusable(&format!("the TLS server name {server_name:?}"), error))?,
            versions: if tls.min_version() == TlsVersion::Tls12 { TLS12_OR_NEWER } else { TLS13_OR_NEWER },
            identity,
            alpn: if protocol == Protocol::Http2 { b"h2" } else { b"http/1.1" },
            connector: OnceCell::new(),
        };
        match tls.root_ca_pem() {
            Some(pem) => {
                Ok(Self { connector: OnceCell::new_with(Some(layer.connector(custom_roots(pem)?)?)), ..layer })
            }
            // Used only to check the other settings.
            None => layer.connector(RootCertStore::empty()).map(|_| layer),
        }
    }

    fn connector(&self, roots: impl Into<Arc<RootCertStore>>) -> Result<TlsConnector> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(self.versions)
            .map_err(|error| unusable("the TLS versions", error))?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(|error| unusable("the client certificate", error))?,
        };
        config.alpn_protocols = vec![self.alpn.to_vec()];
        Ok(Arc::new(config).into())
    }

    pub(super) async fn handshake(&self, tcp: TcpStream) -> std::result::Result<TlsStream<TcpStream>, HandshakeError> {
        let connector = self.connector.get_or_try_init(|| async {
            let roots =
                NATIVE_ROOTS.get().await.map_err(|error| unusable("the root certificates of this machine", error))?;
            self.connector(roots)
        });
        let connector = connector.await.map_err(HandshakeError::Config)?;
        connector.connect(self.server_name.clone(), tcp).await.map_err(|error| {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
            match cause {
                Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
                    HandshakeError::NotTls(error)
                }
                _ => HandshakeError::Failed(error),
            }
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "tls-aws-lc")]
    return Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc")))]
    return Arc::new(rustls::crypto::ring::default_provider());
    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc")))]
    compile_error!("TLS requires a crypto provider: enable the feature tls-ring or tls-aws-lc");
}

fn custom_roots(pem: &[u8]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the root CA", pem)? {
        roots.add(certificate).map_err(|error| unusable("the root CA", error))?;
    }
    Ok(roots)
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| unusable(what, error))?;
    if found.is_empty() { Err(unusable(what, "expected a PEM certificate, got none")) } else { Ok(found) }
}

fn unusable(what: &str, error: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::Config, format!("cannot use {what}")).with_source(error).without_side_effects()
}
