//! The layer on top: what the program itself says.

use std::path::PathBuf;
use std::time::Duration;

use super::env::Process;
use super::layers::Pem;
use super::{Compression, Config, ConfigError, RetryPolicy, Secret, TlsStrategy, TlsVersion, resolve};

/// Builds a [`Config`]. What is set here wins over the environment and the token.
///
/// Made by [`Config::builder`] (code only) or [`ConfigBuilder::from_env`] (environment beneath).
/// Setting a value twice keeps the last. Values are judged by [`build`](Self::build), all at once.
///
/// `Debug` hides the token and everything about certificates and keys.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct ConfigBuilder {
    pub(super) environment: bool,
    pub(super) token: Option<Secret>,
    pub(super) tenant_id: Option<String>,
    pub(super) host_port: Option<String>,
    pub(super) server_url: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) tls_strategy: Option<TlsStrategy>,
    pub(super) tls_server_name: Option<String>,
    pub(super) tls_rest_server_name: Option<String>,
    pub(super) tls_min_version: Option<TlsVersion>,
    pub(super) tls_root_ca: Option<Pem>,
    pub(super) tls_identity: Option<(Pem, Pem)>,
    pub(super) keepalive_interval: Option<Duration>,
    pub(super) keepalive_timeout: Option<Duration>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) rpc_timeout: Option<Duration>,
    pub(super) retry: Option<RetryPolicy>,
    pub(super) max_send_message_length: Option<usize>,
    pub(super) max_recv_message_length: Option<usize>,
    pub(super) compression: Option<Compression>,
}

impl ConfigBuilder {
    /// A builder with the environment beneath it: what isn't set here is taken from the variables
    /// `HATCHET_CLIENT_*`, which are read by [`build`](Self::build).
    ///
    /// ```no_run
    /// use hatchet::config::ConfigBuilder;
    ///
    /// // Everything as the environment has it, but for this program's own namespace.
    /// let config = ConfigBuilder::from_env().namespace("nightly").build()?;
    /// # Ok::<(), hatchet::config::ConfigError>(())
    /// ```
    pub fn from_env() -> Self {
        Self { environment: true, ..Self::default() }
    }

    /// The API token: a JWT, without `Bearer`. Required, here or as `HATCHET_CLIENT_TOKEN`.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Secret::new(token.into()));
        self
    }

    /// The tenant. Deprecated in Hatchet: it is in the token (claim `sub`), and a different one is
    /// refused. Only for a token that doesn't say it.
    pub fn tenant_id(mut self, tenant_id: impl Into<String>) -> Self {
        self.tenant_id = Some(tenant_id.into());
        self
    }

    /// The engine's gRPC address, `host:port`. Default: the token's claim `grpc_broadcast_address`.
    ///
    /// A scheme and slashes at the end are accepted; `http://` and `grpc://` mean no TLS, `https://`
    /// and `grpcs://` mean TLS, unless a strategy is given. Without a port it is 443 with TLS and
    /// 7070 without. IPv6 addresses stand in brackets.
    pub fn host_port(mut self, host_port: impl Into<String>) -> Self {
        self.host_port = Some(host_port.into());
        self
    }

    /// The base URL of the REST API, `http://…` or `https://…`, a path included if a proxy wants one.
    /// Default: the token's claim `server_url`. An `http://` claim is refused if gRPC uses TLS, so that the issuer of a token
    /// cannot make this program send it without encryption.
    pub fn server_url(mut self, server_url: impl Into<String>) -> Self {
        self.server_url = Some(server_url.into());
        self
    }

    /// What the names of workflows, events and actions begin with, so that several deployments can
    /// share a tenant. Letters, digits, `.`, `-` and `_`; made lower case, with a `_` at the end.
    /// Empty: none, even if the environment has one. Default: none.
    ///
    /// The server knows only the whole names: `prod` has the workflows of `prod_eu` among its own. So let none of your
    /// namespaces be the beginning of another one.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Whether the connection is encrypted, and who proves who they are. Default: as the scheme of
    /// the address has it, else [`TlsStrategy::Tls`].
    pub const fn tls_strategy(mut self, strategy: TlsStrategy) -> Self {
        self.tls_strategy = Some(strategy);
        self
    }

    /// The name that the server's certificate must have, when it isn't the host that is dialled.
    ///
    /// It applies to gRPC, and also to REST if the server URL has the same host and
    /// [`tls_rest_server_name`](Self::tls_rest_server_name) is not set.
    pub fn tls_server_name(mut self, name: impl Into<String>) -> Self {
        self.tls_server_name = Some(name.into());
        self
    }

    /// The name that the certificate of the REST server must have. Default: the
    /// [`tls_server_name`](Self::tls_server_name) if the server URL has the same host as gRPC, else the host of the
    /// server URL.
    pub fn tls_rest_server_name(mut self, name: impl Into<String>) -> Self {
        self.tls_rest_server_name = Some(name.into());
        self
    }

    /// The oldest version of TLS to speak. Default: [`TlsVersion::Tls13`].
    pub const fn tls_min_version(mut self, version: TlsVersion) -> Self {
        self.tls_min_version = Some(version);
        self
    }

    /// The authorities to trust instead of the usual ones: one or more PEM certificates.
    /// Replaces [`tls_root_ca_file`](Self::tls_root_ca_file).
    pub fn tls_root_ca(mut self, pem: impl Into<String>) -> Self {
        self.tls_root_ca = Some(Pem::Text(Secret::new(pem.into())));
        self
    }

    /// The same, read from a file by [`build`](Self::build).
    pub fn tls_root_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls_root_ca = Some(Pem::File(path.into()));
        self
    }

    /// The client's certificate (with its chain) and private key, as PEM. The key must have no
    /// passphrase. Needed for [`TlsStrategy::Mtls`].
    ///
    /// The two belong together, so this replaces both of the environment's. Replaces
    /// [`tls_identity_files`](Self::tls_identity_files).
    pub fn tls_identity(mut self, cert_pem: impl Into<String>, key_pem: impl Into<String>) -> Self {
        let text = |pem: String| Pem::Text(Secret::new(pem));
        self.tls_identity = Some((text(cert_pem.into()), text(key_pem.into())));
        self
    }

    /// The same, read from two files by [`build`](Self::build).
    pub fn tls_identity_files(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls_identity = Some((Pem::File(cert.into()), Pem::File(key.into())));
        self
    }

    /// How long a connection may be silent before it is pinged: 6 s to 24 h, by default 10 s.
    ///
    /// Less is refused, because the engine hangs up (GOAWAY `too_many_pings`) on clients that ping
    /// more often than each 5 s.
    pub const fn keepalive_interval(mut self, interval: Duration) -> Self {
        self.keepalive_interval = Some(interval);
        self
    }

    /// How long a ping may stay unanswered before the connection counts as dead: 1 s to 24 h, by
    /// default 20 s.
    pub const fn keepalive_timeout(mut self, timeout: Duration) -> Self {
        self.keepalive_timeout = Some(timeout);
        self
    }

    /// How long making a connection may take: 1 ms to 24 h, by default 5 s.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// The deadline of a call that is given no other: 1 ms to 24 h, by default 30 s. Streams have no
    /// deadline.
    pub const fn rpc_timeout(mut self, timeout: Duration) -> Self {
        self.rpc_timeout = Some(timeout);
        self
    }

    /// Sets how often failed calls are retried. By default they are retried until their deadline; see [`RetryPolicy`].
    pub const fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Sets the maximum size of a sent message in bytes. The default is 4 MiB, which is the engine's default limit
    /// (`SERVER_GRPC_MAX_MSG_SIZE`).
    pub const fn max_send_message_length(mut self, bytes: usize) -> Self {
        self.max_send_message_length = Some(bytes);
        self
    }

    /// The largest message to accept, in bytes: by default 4 MiB.
    pub const fn max_recv_message_length(mut self, bytes: usize) -> Self {
        self.max_recv_message_length = Some(bytes);
        self
    }

    /// Whether messages are compressed. Default: [`Compression::None`].
    pub const fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Reads the layers beneath and the PEM files, and checks everything. Dials nothing.
    ///
    /// # Errors
    ///
    /// All that is missing or bad, at once.
    pub fn build(self) -> Result<Config, ConfigError> {
        resolve::resolve(&self, &Process)
    }

    /// The configuration of a client of the embedded engine: host `embedded`, no TLS, this tenant
    /// and token. What the builder says about those is not used; its namespace, sizes and lengths
    /// of time are.
    #[cfg(any(test, feature = "embedded"))]
    pub(crate) fn embedded(self, tenant: &str, token: impl Into<String>) -> Result<Config, ConfigError> {
        resolve::embedded(&self, tenant, token.into(), &Process)
    }
}
