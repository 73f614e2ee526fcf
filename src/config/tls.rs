//! What is known about TLS, for whoever makes the channel.

use std::fmt;

use super::Secret;

/// Who proves who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsStrategy {
    /// Nobody: the connection is not encrypted. For an engine on this machine or in this cluster.
    None,
    /// The server. A client certificate, if there is one, is shown when the server asks for it.
    #[default]
    Tls,
    /// The server and the client; the client needs a certificate and a key.
    Mtls,
}

impl TlsStrategy {
    /// The name in `HATCHET_CLIENT_TLS_STRATEGY`: `none`, `tls` or `mtls`.
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

impl fmt::Display for TlsStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2, for servers and proxies that have nothing newer.
    Tls12,
    /// TLS 1.3.
    #[default]
    Tls13,
}

impl TlsVersion {
    /// The name in `HATCHET_CLIENT_TLS_MIN_VERSION`: `1.2` or `1.3`.
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

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How connections are encrypted; part of a [`Config`](super::Config).
///
/// The strategy is that of gRPC. Certificates, key and version count for REST as well, whenever the
/// server URL is `https`, so they may be there though the strategy is [`None`](TlsStrategy::None).
/// `Debug` doesn't print certificates or keys.
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

    /// Who proves who they are.
    #[must_use]
    pub const fn strategy(&self) -> TlsStrategy {
        self.strategy
    }

    /// Whether gRPC is encrypted.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.strategy != TlsStrategy::None
    }

    /// PEM certificates of the authorities to trust *instead of* the usual ones.
    #[must_use]
    pub fn root_ca_pem(&self) -> Option<&[u8]> {
        self.root_ca.as_deref().map(str::as_bytes)
    }

    /// What the client shows when the server asks who it is. Always there with
    /// [`Mtls`](TlsStrategy::Mtls).
    #[must_use]
    pub const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The name that the gRPC server's certificate must have: a host name or an IP address (IPv6
    /// without brackets). Always there when gRPC is encrypted, never when it isn't.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Returns the server name for REST. It is `Some` if and only if the server URL is `https`.
    #[must_use]
    pub fn rest_server_name(&self) -> Option<&str> {
        self.rest_server_name.as_deref()
    }

    /// The oldest version of TLS to speak.
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

/// A client certificate and its key.
#[derive(Clone)]
pub struct Identity {
    pub(super) cert: String,
    pub(super) key: Secret,
}

impl Identity {
    /// The certificate and its chain, as PEM.
    #[must_use]
    pub fn cert_pem(&self) -> &[u8] {
        self.cert.as_bytes()
    }

    /// The private key, as PEM. Keep it out of logs and error messages.
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
