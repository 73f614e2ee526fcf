//! The TLS settings.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Secret;
use crate::error::Error;

/// Whether gRPC connections are encrypted, and which side authenticates with a certificate.
///
/// ```
/// use hatchet::Config;
/// use hatchet::config::TlsStrategy;
///
/// // An engine on the same machine, without TLS.
/// let builder = Config::builder().host_port("localhost:7077").tls_strategy(TlsStrategy::None);
/// # let _ = builder;
/// assert_eq!(TlsStrategy::Mtls.as_str(), "mtls");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TlsStrategy {
    /// The connection is not encrypted. For an engine on the same machine or in the same cluster.
    None,
    /// The server authenticates. If the server requests a client certificate, and one is set, the client sends it.
    #[default]
    Tls,
    /// Both sides authenticate. The client needs a certificate and a key.
    Mtls,
}

impl TlsStrategy {
    /// Returns the value of `HATCHET_CLIENT_TLS_STRATEGY`: `none`, `tls` or `mtls`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tls => "tls",
            Self::Mtls => "mtls",
        }
    }

    pub(super) fn from_name(text: &str) -> Option<Self> {
        [Self::None, Self::Tls, Self::Mtls].into_iter().find(|strategy| strategy.as_str().eq_ignore_ascii_case(text))
    }
}

impl FromStr for TlsStrategy {
    type Err = Error;

    /// Parses the value of its environment variable: `none`, `tls` or `mtls`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for any other string.
    fn from_str(text: &str) -> Result<Self, Error> {
        let problem = || Error::invalid("TLS strategy", format_args!("expected none, tls or mtls, got {text:?}"));
        Self::from_name(text).ok_or_else(problem)
    }
}

impl fmt::Display for TlsStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A minimum version of TLS.
///
/// ```
/// use hatchet::config::TlsVersion;
///
/// assert!(TlsVersion::Tls12 < TlsVersion::Tls13);
/// assert_eq!(TlsVersion::default().as_str(), "1.3");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 or later, for servers and proxies that do not support TLS 1.3.
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 or later.
    #[default]
    #[serde(rename = "1.3")]
    Tls13,
}

impl TlsVersion {
    /// Returns the value of `HATCHET_CLIENT_TLS_MIN_VERSION`: `1.2` or `1.3`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }

    pub(super) fn from_name(text: &str) -> Option<Self> {
        [Self::Tls12, Self::Tls13].into_iter().find(|version| version.as_str() == text)
    }
}

impl FromStr for TlsVersion {
    type Err = Error;

    /// Parses the value of its environment variable: `1.2` or `1.3`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for any other string.
    fn from_str(text: &str) -> Result<Self, Error> {
        let problem = || Error::invalid("TLS version", format_args!("expected 1.2 or 1.3, got {text:?}"));
        Self::from_name(text).ok_or_else(problem)
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The TLS settings of a [`Config`](super::Config).
///
/// The strategy applies to gRPC. Certificates, key and minimum version also apply to REST if the server URL is `https`, so they may
/// be set even if the strategy is [`None`](TlsStrategy::None). `Debug` does not print certificates and keys.
///
/// ```
/// # use hatchet::Config;
/// use hatchet::config::TlsVersion;
///
/// # const TOKEN: &str = concat!("eyJhbGciOiJFUzI1NiJ9.", "eyJzdWIiOiI3MDdkMDg1NS04MGFiLTRlMWYtYTE1Ni1mMWM0NTQ2Y2JmNTIifQ", ".c2ln");
/// # let config = Config::builder().token(TOKEN).host_port("engine.example.com").server_url("https://api.example.com").build()?;
/// let tls = config.tls();
/// assert_eq!((tls.server_name(), tls.rest_server_name()), (Some("engine.example.com"), Some("api.example.com")));
/// assert_eq!(tls.min_version(), TlsVersion::Tls13);
/// # Ok::<(), hatchet::config::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Tls {
    pub(super) strategy: TlsStrategy,
    pub(super) root_ca: Option<String>,
    pub(super) identity: Option<Identity>,
    pub(super) server_name: Option<String>,
    pub(super) rest_server_name: Option<String>,
    pub(super) min_version: TlsVersion,
}

impl Tls {
    pub(super) const fn plain() -> Self {
        Self {
            strategy: TlsStrategy::None,
            root_ca: None,
            identity: None,
            server_name: None,
            rest_server_name: None,
            min_version: TlsVersion::Tls13,
        }
    }

    /// Returns whether gRPC connections are encrypted, and which side authenticates.
    #[must_use]
    pub const fn strategy(&self) -> TlsStrategy {
        self.strategy
    }

    /// Returns whether gRPC connections are encrypted: the strategy is not [`TlsStrategy::None`].
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.strategy != TlsStrategy::None
    }

    /// Returns the root certificates to trust, in PEM. `None` means the root certificates of the operating system.
    #[must_use]
    pub fn root_ca_pem(&self) -> Option<&[u8]> {
        self.root_ca.as_deref().map(str::as_bytes)
    }

    /// Returns the client's certificate and key. It is `Some` if the strategy is [`Mtls`](TlsStrategy::Mtls).
    #[must_use]
    pub const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Returns the name that the certificate of the gRPC server must have: a host name or an IP address (IPv6 without brackets).
    ///
    /// The name is `Some` if and only if gRPC is encrypted.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Returns the name that the certificate of the REST server must have. It is `Some` if and only if the server URL is `https`.
    #[must_use]
    pub fn rest_server_name(&self) -> Option<&str> {
        self.rest_server_name.as_deref()
    }

    /// Returns the lowest version of TLS with which a connection is accepted.
    #[must_use]
    pub const fn min_version(&self) -> TlsVersion {
        self.min_version
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("strategy", &self.strategy)
            .field("root_ca", &self.root_ca.as_ref().map(|_| format_args!("PEM")))
            .field("identity", &self.identity)
            .field("server_name", &self.server_name)
            .field("rest_server_name", &self.rest_server_name)
            .field("min_version", &self.min_version)
            .finish()
    }
}

/// The client's certificate and its private key.
///
/// ```no_run
/// let config = hatchet::Config::from_env()?;
/// if let Some(identity) = config.tls().identity() {
///     println!("{}", String::from_utf8_lossy(identity.cert_pem()));
/// }
/// # Ok::<(), hatchet::config::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Identity {
    pub(super) cert: String,
    pub(super) key: Secret,
}

impl Identity {
    /// Returns the certificate and its chain, in PEM.
    #[must_use]
    pub fn cert_pem(&self) -> &[u8] {
        self.cert.as_bytes()
    }

    /// Returns the private key, in PEM. Do not log it.
    #[must_use]
    pub fn key_pem(&self) -> &[u8] {
        self.key.expose().as_bytes()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(hidden)")
    }
}
