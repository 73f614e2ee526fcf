//! The values that the program sets, which take precedence over all other sources.

use std::path::PathBuf;
use std::time::Duration;

use super::layers::Pem;
use super::{Compression, RetryPolicy, Secret, TlsStrategy, TlsVersion};
use crate::value::TenantId;

/// A builder for a [`Config`](super::Config).
///
/// The values of the builder take precedence over the environment and over the claims of the token.
///
/// [`Config::builder`](super::Config::builder) ignores the environment, and [`ConfigBuilder::from_env`] reads it. If a value is set
/// twice, the last one is used. [`build`](Self::build) validates all values, and reports all problems in one error.
///
/// `Debug` hides the token, certificates and keys.
///
/// ```
/// use std::time::Duration;
/// use hatchet::Config;
///
/// # const TOKEN: &str = concat!("eyJhbGciOiJFUzI1NiJ9.", "eyJzdWIiOiI3MDdkMDg1NS04MGFiLTRlMWYtYTE1Ni1mMWM0NTQ2Y2JmNTIifQ", ".c2ln");
/// let config = Config::builder()
///     .token(TOKEN)
///     .host_port("grpcs://engine.example.com")
///     .server_url("https://api.example.com")
///     .rpc_timeout(Duration::from_secs(10))
///     .build()?;
/// assert_eq!(config.authority(), "engine.example.com:443");
/// # Ok::<(), hatchet::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct ConfigBuilder {
    /// Whether to read environment variables.
    pub(super) use_env: bool,
    pub(super) token: Option<Secret>,
    pub(super) tenant_id: Option<TenantId>,
    pub(super) host_port: Option<String>,
    pub(super) server_url: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) tls_strategy: Option<TlsStrategy>,
    pub(super) tls_server_name: Option<String>,
    pub(super) tls_rest_server_name: Option<String>,
    pub(super) tls_min_version: Option<TlsVersion>,
    pub(super) tls_root_ca: Option<Pem>,
    pub(super) tls_cert: Option<Pem>,
    pub(super) tls_key: Option<Pem>,
    pub(super) keepalive_interval: Option<Duration>,
    pub(super) keepalive_timeout: Option<Duration>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) rpc_timeout: Option<Duration>,
    pub(super) retry: Option<RetryPolicy>,
    pub(super) watch_request_rate: Option<u32>,
    pub(super) wait_request_rate: Option<u32>,
    pub(super) max_send_message_length: Option<usize>,
    pub(super) max_recv_message_length: Option<usize>,
    pub(super) compression: Option<Compression>,
}

impl ConfigBuilder {
    /// Creates a builder that takes values that are not set in code from the environment variables `HATCHET_CLIENT_*`.
    ///
    /// [`build`](Self::build) reads the variables.
    ///
    /// ```no_run
    /// use hatchet::config::ConfigBuilder;
    ///
    /// // All values are from the environment, except the namespace.
    /// let config = ConfigBuilder::from_env().namespace("nightly").build()?;
    /// # Ok::<(), hatchet::config::ConfigError>(())
    /// ```
    pub fn from_env() -> Self {
        Self { use_env: true, ..Self::default() }
    }

    /// Sets the API token: a JWT, without `Bearer`. It is required, here or as `HATCHET_CLIENT_TOKEN`.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Secret::new(token.into()));
        self
    }

    /// Sets the tenant.
    ///
    /// Hatchet has deprecated this setting: the token contains the tenant (claim `sub`), and [`build`](Self::build) rejects a different
    /// tenant. The setting is needed only if the token has no such claim.
    pub fn tenant_id(mut self, tenant_id: TenantId) -> Self {
        self.tenant_id = Some(tenant_id);
        self
    }

    /// Sets the engine's gRPC address, `host:port`. The default is the token's claim `grpc_broadcast_address`.
    ///
    /// A scheme and trailing slashes are accepted. Unless a TLS strategy is set, `https://` and `grpcs://` enable TLS, and
    /// `http://` and `grpc://` disable it. The default port is 443 with TLS, and 7070 without. IPv6 addresses need brackets.
    pub fn host_port(mut self, host_port: impl Into<String>) -> Self {
        self.host_port = Some(host_port.into());
        self
    }

    /// Sets the base URL of the REST API, `http://…` or `https://…`, with a path if a proxy requires one.
    ///
    /// The default is the token's claim `server_url`. A claim with `http://` is rejected if gRPC uses TLS, so that the issuer of a token
    /// cannot make this program send the token without encryption.
    pub fn server_url(mut self, server_url: impl Into<String>) -> Self {
        self.server_url = Some(server_url.into());
        self
    }

    /// Sets the prefix of the names of workflows, events and actions, so that several deployments can share a tenant.
    ///
    /// A namespace may contain ASCII letters, digits, `.`, `-` and `_`. It is converted to lower case, and a `_` is appended if it does not
    /// end with one. An empty string means no namespace, even if the environment has one. The default is no namespace.
    ///
    /// The server stores only the prefixed names. So no namespace may be a prefix of another one: queries in `prod` also match
    /// the workflows of `prod_eu`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Sets whether gRPC connections are encrypted, and whether the client authenticates with a certificate.
    ///
    /// The default depends on the scheme of the address ([`host_port`](Self::host_port)); without a scheme, it is [`TlsStrategy::Tls`].
    pub const fn tls_strategy(mut self, strategy: TlsStrategy) -> Self {
        self.tls_strategy = Some(strategy);
        self
    }

    /// Sets the name that the server's certificate must have. The default is the host of the address.
    ///
    /// The name applies to gRPC, and also to REST if the server URL has the same host and
    /// [`tls_rest_server_name`](Self::tls_rest_server_name) is not set.
    pub fn tls_server_name(mut self, name: impl Into<String>) -> Self {
        self.tls_server_name = Some(name.into());
        self
    }

    /// Sets the name that the certificate of the REST server must have.
    ///
    /// The default is the [`tls_server_name`](Self::tls_server_name) if the server URL has the same host as gRPC, otherwise the host of the
    /// server URL.
    pub fn tls_rest_server_name(mut self, name: impl Into<String>) -> Self {
        self.tls_rest_server_name = Some(name.into());
        self
    }

    /// Sets the minimum TLS version. The default is [`TlsVersion::Tls13`].
    pub const fn tls_min_version(mut self, version: TlsVersion) -> Self {
        self.tls_min_version = Some(version);
        self
    }

    /// Sets the root certificates to trust, as one or more PEM certificates.
    ///
    /// The default is the root certificates of the operating system. Replaces the value of [`tls_root_ca_file`](Self::tls_root_ca_file).
    pub fn tls_root_ca(mut self, pem: impl Into<String>) -> Self {
        self.tls_root_ca = Some(Pem::Inline(Secret::new(pem.into())));
        self
    }

    /// Sets a file with the root certificates to trust, in PEM. [`build`](Self::build) reads it.
    ///
    /// Replaces the value of [`tls_root_ca`](Self::tls_root_ca).
    pub fn tls_root_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls_root_ca = Some(Pem::File(path.into()));
        self
    }

    /// Sets the client's certificate, with its chain, in PEM. A certificate requires a key.
    ///
    /// Required for [`TlsStrategy::Mtls`]. Replaces the value of [`tls_cert_file`](Self::tls_cert_file).
    pub fn tls_cert(mut self, pem: impl Into<String>) -> Self {
        self.tls_cert = Some(Pem::Inline(Secret::new(pem.into())));
        self
    }

    /// Sets a file with the client's certificate, in PEM. [`build`](Self::build) reads it.
    ///
    /// Replaces the value of [`tls_cert`](Self::tls_cert).
    pub fn tls_cert_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls_cert = Some(Pem::File(path.into()));
        self
    }

    /// Sets the private key of the client's certificate, in PEM and without a passphrase.
    ///
    /// A key requires a certificate. Required for [`TlsStrategy::Mtls`]. Replaces the value of [`tls_key_file`](Self::tls_key_file).
    pub fn tls_key(mut self, pem: impl Into<String>) -> Self {
        self.tls_key = Some(Pem::Inline(Secret::new(pem.into())));
        self
    }

    /// Sets a file with the private key, in PEM. [`build`](Self::build) reads it. Replaces the value of [`tls_key`](Self::tls_key).
    pub fn tls_key_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls_key = Some(Pem::File(path.into()));
        self
    }

    /// Sets the time without received data after which a connection is pinged: 6 s to 24 h. The default is 10 s.
    ///
    /// The engine closes connections (GOAWAY `too_many_pings`) that send pings more often than every 5 s.
    pub const fn keepalive_interval(mut self, interval: Duration) -> Self {
        self.keepalive_interval = Some(interval);
        self
    }

    /// Sets the time to wait for the response to a ping before the connection is closed: 1 s to 24 h. The default is 20 s.
    pub const fn keepalive_timeout(mut self, timeout: Duration) -> Self {
        self.keepalive_timeout = Some(timeout);
        self
    }

    /// Sets the timeout for establishing a connection, including name resolution and the TLS handshake: 1 ms to 24 h. The default is 5 s.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Sets the default timeout of a call with all its retries: 1 ms to 24 h. The default is 30 s. Streams have no timeout.
    pub const fn rpc_timeout(mut self, timeout: Duration) -> Self {
        self.rpc_timeout = Some(timeout);
        self
    }

    /// Sets how many times failed calls are retried. By default, they are retried until the timeout; see [`RetryPolicy`].
    pub const fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Sets the maximum number of requests per second that all watches of a client send together: 1 to 100,000.
    ///
    /// The default is 200. If the watches need more requests, they take turns, and report changes later.
    pub const fn watch_request_rate(mut self, requests_per_second: u32) -> Self {
        self.watch_request_rate = Some(requests_per_second);
        self
    }

    /// Sets the maximum number of requests per second that all waits of a client (`result`, `outcome`) send together: 1 to 100,000.
    ///
    /// The default is 1000. Waits send requests for runs whose outcome the engine's stream does not contain. If more requests are needed,
    /// waits end later.
    pub const fn wait_request_rate(mut self, requests_per_second: u32) -> Self {
        self.wait_request_rate = Some(requests_per_second);
        self
    }

    /// Sets the maximum size of a sent message in bytes.
    ///
    /// The default is 4 MiB, which is the engine's default limit (`SERVER_GRPC_MAX_MSG_SIZE`).
    pub const fn max_send_message_length(mut self, bytes: usize) -> Self {
        self.max_send_message_length = Some(bytes);
        self
    }

    /// Sets the maximum size of a received message in bytes, after decompression. The default is 4 MiB.
    pub const fn max_recv_message_length(mut self, bytes: usize) -> Self {
        self.max_recv_message_length = Some(bytes);
        self
    }

    /// Sets the compression of gRPC messages. The default is [`Compression::None`].
    pub const fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }
}
