//! TLS, from PEM texts to handshakes.
//!
//! The provider is named here and nowhere taken from the process: where two are linked, rustls would panic at its first use.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, version};

use crate::config::{Tls, TlsVersion};
use crate::error::{BoxError, Error, ErrorKind, Result};

pub(super) struct TlsLayer(TlsConnector);

impl TlsLayer {
    pub(super) fn new(tls: &Tls, alpn: &'static [u8]) -> Result<Self> {
        let versions = match tls.min_version() {
            TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12][..],
            _ => &[&version::TLS13][..],
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(|error| bad("the TLS versions", error))?
            .with_root_certificates(roots(tls)?);
        let mut config = match tls.identity() {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = certificates("the client certificate", identity.cert_pem())?;
                let key =
                    PrivateKeyDer::from_pem_slice(identity.key_pem()).map_err(|error| bad("the client key", error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| bad("the client certificate", error))?
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(Self(Arc::new(config).into()))
    }

    pub(super) async fn handshake(&self, name: &str, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.0.connect(name, tcp).await
    }
}

fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "tls-aws-lc")]
    return Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc")))]
    return Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc")))]
    compile_error!("the feature tls has no provider of its own: turn on tls-ring or tls-aws-lc");
}

/// The certificates to trust: those of the configuration, or else those of the machine.
fn roots(tls: &Tls) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = tls.root_ca_pem() {
        for certificate in certificates("the root CA", pem)? {
            roots.add(certificate).map_err(|error| bad("the root CA", error))?;
        }
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    // A machine's store may well have a few that nobody can read: the others still count.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found
            .errors
            .into_iter()
            .next()
            .map_or_else(|| "there are none".into(), |error| Box::new(error) as BoxError);
        return Err(bad("the machine's root certificates", why));
    }
    Ok(roots)
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<std::result::Result<_, _>>().map_err(|error| bad(what, error))?;
    if found.is_empty() { Err(bad(what, "there is no certificate in the PEM text")) } else { Ok(found) }
}

fn bad(what: &str, error: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::Config, format!("cannot use {what}")).with_source(error).unsent()
}
