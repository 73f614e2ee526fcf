//! The validated configuration.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::tuning::Tuning;
use super::{Compression, ConfigBuilder, Entry, Explanation, RetryPolicy, Secret, Tls};
use crate::value::TenantId;

/// The configuration of a client.
///
/// A `Config` is validated, immutable, and cheap to clone.
///
/// Each value is taken from the first of these sources that has it:
///
/// 1. the [`ConfigBuilder`],
/// 2. the environment, if the builder was created by [`ConfigBuilder::from_env`],
/// 3. a claim of the API token,
/// 4. the default.
///
/// Only that value is validated. For example, an invalid variable is not an error if the builder has a value.
///
/// ```
/// use hatchet::Config;
/// use hatchet::config::TlsStrategy;
///
/// # const TOKEN: &str = concat!("eyJhbGciOiJFUzI1NiJ9.", "eyJzdWIiOiI3MDdkMDg1NS04MGFiLTRlMWYtYTE1Ni1mMWM0NTQ2Y2JmNTIiLCJzZXJ2ZXJfdXJsIjoiaHR0cDovL2xvY2FsaG9zdDo4MDgwIiwiZ3JwY19icm9hZGNhc3RfYWRkcmVzcyI6ImxvY2FsaG9zdDo3MDc3IiwiZXhwIjoxOTAwMDAwMDAwfQ", ".c2ln");
/// let config = Config::builder()
///     .token(TOKEN)
///     .tls_strategy(TlsStrategy::None)
///     .namespace("Staging")
///     .build()?;
///
/// assert_eq!(config.authority(), "localhost:7077"); // from the token
/// assert_eq!(config.namespace(), Some("staging_"));
/// println!("{}", config.explain()); // a table of all values with their sources
/// # Ok::<(), hatchet::config::ConfigError>(())
/// ```
///
/// # Settings
///
/// | variable, after `HATCHET_CLIENT_` | builder | token claim | default | accepted |
/// |---|---|---|---|---|
/// | `TOKEN` | [`token`](ConfigBuilder::token) | | required | an API token (a JWT) |
/// | `TENANT_ID` (deprecated) | [`tenant_id`](ConfigBuilder::tenant_id) | `sub` | required | the token's tenant (a UUID) |
/// | `HOST_PORT` | [`host_port`](ConfigBuilder::host_port) | `grpc_broadcast_address` | required | `host:port`, optionally with a scheme |
/// | `SERVER_URL`, `API_URL` | [`server_url`](ConfigBuilder::server_url) | `server_url` | required | `http://…` or `https://…` |
/// | `NAMESPACE` | [`namespace`](ConfigBuilder::namespace) | | none | letters, digits, `.`, `-`, `_` |
/// | `TLS_STRATEGY` | [`tls_strategy`](ConfigBuilder::tls_strategy) | | `tls` | `none`, `tls`, `mtls` |
/// | `TLS_SERVER_NAME` | [`tls_server_name`](ConfigBuilder::tls_server_name) | | the host | a host name or IP address |
/// | `TLS_REST_SERVER_NAME` (this SDK only) | [`tls_rest_server_name`](ConfigBuilder::tls_rest_server_name) | | `TLS_SERVER_NAME` or the host of the URL | a host name or IP address |
/// | `TLS_MIN_VERSION` | [`tls_min_version`](ConfigBuilder::tls_min_version) | | `1.3` | `1.2`, `1.3` |
/// | `TLS_ROOT_CA` or `TLS_ROOT_CA_FILE` | [`tls_root_ca`](ConfigBuilder::tls_root_ca), [`…_file`](ConfigBuilder::tls_root_ca_file) | | those of the operating system | PEM certificates |
/// | `TLS_CERT` or `TLS_CERT_FILE` | [`tls_cert`](ConfigBuilder::tls_cert), [`…_file`](ConfigBuilder::tls_cert_file) | | none | a PEM certificate and its chain |
/// | `TLS_KEY` or `TLS_KEY_FILE` | [`tls_key`](ConfigBuilder::tls_key), [`…_file`](ConfigBuilder::tls_key_file) | | none | a PEM key without a passphrase |
/// | `GRPC_MAX_SEND_MESSAGE_LENGTH` | [`max_send_message_length`](ConfigBuilder::max_send_message_length) | | 4194304 | 1 to 4294967295 bytes |
/// | `GRPC_MAX_RECV_MESSAGE_LENGTH` | [`max_recv_message_length`](ConfigBuilder::max_recv_message_length) | | 4194304 | 1 to 4294967295 bytes |
/// | `GRPC_COMPRESSION` (this SDK only) | [`compression`](ConfigBuilder::compression) | | `none` | `none`, `gzip` |
/// | | [`keepalive_interval`](ConfigBuilder::keepalive_interval) | | 10 s | 6 s to 24 h |
/// | | [`keepalive_timeout`](ConfigBuilder::keepalive_timeout) | | 20 s | 1 s to 24 h |
/// | | [`connect_timeout`](ConfigBuilder::connect_timeout) | | 5 s | 1 ms to 24 h |
/// | | [`rpc_timeout`](ConfigBuilder::rpc_timeout) | | 30 s | 1 ms to 24 h |
/// | | [`retry`](ConfigBuilder::retry) | | until the deadline | a [`RetryPolicy`](super::RetryPolicy) |
/// | | [`watch_request_rate`](ConfigBuilder::watch_request_rate) | | 200 per second | 1 to 100000 per second |
/// | | [`wait_request_rate`](ConfigBuilder::wait_request_rate) | | 1000 per second | 1 to 100000 per second |
///
/// * A variable that is empty or only whitespace is treated as unset, because `NAME=${UNSET}` in a compose file sets an empty
///   value. Whitespace around a value is removed, such as the newline at the end of a mounted secret.
/// * Other `HATCHET_CLIENT_*` variables are for other SDKs, and are ignored.
/// * `HOST_PORT` may have a scheme and trailing slashes. If no TLS strategy is set, the scheme determines it: `http` and `grpc` mean
///   `none`, `https` and `grpcs` mean `tls`. The scheme of an address in the token is ignored, so that the issuer of a token cannot
///   disable encryption. The default port is 443 with TLS, and 7070 (the engine's default) without.
/// * A claim `server_url` that begins with `http://` is rejected if gRPC uses TLS, because REST requests
///   contain the same token. To send the token without TLS, set `SERVER_URL`.
/// * `TLS_SERVER_NAME` also applies to REST if `SERVER_URL` has the same host as `HOST_PORT`. If the
///   hosts or their certificates differ, set the name for REST with `TLS_REST_SERVER_NAME`. (The other
///   SDKs have no such setting and use the host of the URL.)
/// * PEM is the value of the variable itself, in which line breaks may be written as `\n`, or the content of the file that the other
///   variable names. Setting both is an error. A certificate requires a key, and a key requires a certificate.
/// * Certificates, keys and the minimum version also apply to REST if the server URL is `https`. If neither
///   gRPC nor REST uses TLS, certificates and keys have no effect: they are ignored if the TLS strategy was set, and an error if it was
///   derived from the scheme.
///
/// `Debug` hides the token and keys.
#[derive(Clone)]
pub struct Config {
    values: Arc<Values>,
}

pub(super) struct Values {
    pub(super) token: Secret,
    pub(super) token_expires_at: Option<DateTime<Utc>>,
    pub(super) tenant_id: TenantId,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) authority: String,
    pub(super) server_url: String,
    pub(super) namespace: Option<String>,
    pub(super) tls: Tls,
    pub(super) tuning: Tuning,
    pub(super) entries: Vec<Entry>,
}

impl Config {
    pub(super) fn new(values: Values) -> Self {
        Self { values: Arc::new(values) }
    }

    /// Creates a builder that ignores the environment: values that are not set in code are claims of the token or defaults.
    ///
    /// [`ConfigBuilder::from_env`] creates a builder that reads the environment.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// Returns the API token, which is sent as `authorization: Bearer …`.
    #[must_use]
    pub fn token(&self) -> &Secret {
        &self.values.token
    }

    /// Returns when the token expires, if it has the `exp` claim.
    ///
    /// An expired token is a valid configuration, because the engine checks the expiry by its own clock.
    #[must_use]
    pub fn token_expires_at(&self) -> Option<DateTime<Utc>> {
        self.values.token_expires_at
    }

    /// Returns the id of the tenant that the token belongs to.
    #[must_use]
    pub fn tenant_id(&self) -> TenantId {
        self.values.tenant_id
    }

    /// Returns the engine's gRPC host: a host name or an IP address, IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.values.host
    }

    /// Returns the engine's gRPC port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.values.port
    }

    /// Returns the engine's gRPC address as `host:port`, with IPv6 in brackets.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.values.authority
    }

    /// Returns the base URL of the REST API, without a trailing slash. Paths such as `/api/v1/…` are appended to it.
    #[must_use]
    pub fn server_url(&self) -> &str {
        &self.values.server_url
    }

    /// Returns the namespace, in lower case and with `_` at the end, or `None` if there is none.
    ///
    /// The namespace is the prefix of the names of workflows, events and actions.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.values.namespace.as_deref()
    }

    /// Returns how connections are encrypted, for gRPC and REST: strategy, server names, certificates and minimum version.
    #[must_use]
    pub fn tls(&self) -> &Tls {
        &self.values.tls
    }

    /// Returns the time without received data after which a connection is pinged, even if no call is open.
    #[must_use]
    pub fn keepalive_interval(&self) -> Duration {
        self.values.tuning.keepalive_interval
    }

    /// Returns the time to wait for the response to a ping before the connection is closed.
    #[must_use]
    pub fn keepalive_timeout(&self) -> Duration {
        self.values.tuning.keepalive_timeout
    }

    /// Returns the timeout for establishing a connection, including name resolution and the TLS handshake.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        self.values.tuning.connect_timeout
    }

    /// Returns the default timeout of a call with all its retries. Streams have no timeout.
    #[must_use]
    pub fn rpc_timeout(&self) -> Duration {
        self.values.tuning.rpc_timeout
    }

    /// Returns the retry policy of the calls of a client. A request can have its own.
    pub fn retry(&self) -> RetryPolicy {
        self.values.tuning.retry
    }

    /// Returns the maximum number of requests per second of all watches of a client together.
    pub fn watch_request_rate(&self) -> u32 {
        self.values.tuning.watch_request_rate
    }

    /// Returns the maximum number of requests per second of all waits of a client together.
    pub fn wait_request_rate(&self) -> u32 {
        self.values.tuning.wait_request_rate
    }

    /// Returns the maximum size of a sent message in bytes, before compression.
    #[must_use]
    pub fn max_send_message_length(&self) -> usize {
        self.values.tuning.max_send_message_length
    }

    /// Returns the maximum size of a received message in bytes, after decompression.
    #[must_use]
    pub fn max_recv_message_length(&self) -> usize {
        self.values.tuning.max_recv_message_length
    }

    /// Returns the compression of gRPC messages.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.values.tuning.compression
    }

    /// Returns all values with their sources, without secrets.
    #[must_use]
    pub fn explain(&self) -> Explanation<'_> {
        Explanation::new(&self.values.entries)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Values { token, token_expires_at, tenant_id, authority, server_url, namespace, tls, tuning, .. } =
            &*self.values;
        f.debug_struct("Config")
            .field("token", token)
            .field("token_expires_at", token_expires_at)
            .field("tenant_id", tenant_id)
            .field("authority", authority)
            .field("server_url", server_url)
            .field("namespace", namespace)
            .field("tls", tls)
            .field("tuning", tuning)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{CERT, FakeEnv, KEY, KEY_BODY, claims, jwt};
    use super::super::resolve::resolve;
    use super::super::{TlsStrategy, setting};
    use super::*;

    /// Asserts that a printed string contains no part of the token or the key.
    fn assert_no_secret(printed: &str) {
        let token = jwt(&claims());
        let parts: Vec<_> = token.split('.').filter(|part| part.len() > 20).collect();
        assert!(!parts.is_empty());
        for secret in parts.into_iter().chain([token.as_str(), "c2lnbmF0dXJl", KEY_BODY, "PRIVATE KEY-"]) {
            assert!(!printed.contains(secret), "{secret} in {printed}");
        }
    }

    #[test]
    fn debug_and_display_contain_no_secrets() {
        let builder = ConfigBuilder::from_env()
            .token(jwt(&claims()))
            .tls_cert(format!("{CERT}{KEY}"))
            .tls_key(KEY)
            .tls_strategy(TlsStrategy::Mtls);
        assert_no_secret(&format!("{builder:?} {builder:#?}"));
        assert_no_secret(&format!(
            "{:?}",
            ConfigBuilder::from_env().tls_cert_file(KEY).tls_key_file(KEY).tls_root_ca_file(KEY)
        ));
        let config = resolve(&builder, &FakeEnv::default()).unwrap();
        assert_no_secret(&format!("{config:?} {config:#?} {} {:?}", config.explain(), config.explain()));
    }

    #[test]
    fn secrets_in_the_wrong_variable_are_hidden() {
        let der = format!("MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0w{KEY_BODY}");
        for variable in setting::ALL.iter().flat_map(|setting| setting.variables) {
            let name = variable.trim_start_matches("HATCHET_CLIENT_");
            for secret in [KEY.to_owned(), jwt(&claims()), der.clone(), format!("https://me:{KEY_BODY}@example.com")] {
                for env in [
                    FakeEnv::with_token().var(name, &secret),
                    FakeEnv::with_token().var(name, &secret).var("TLS_STRATEGY", "mtls"),
                ] {
                    let printed = match resolve(&ConfigBuilder::from_env(), &env) {
                        Ok(config) => format!("{config:?} {}", config.explain()),
                        Err(error) => format!("{error} {error:?}"),
                    };
                    assert_no_secret(&printed);
                }
            }
        }
    }

    #[test]
    fn explanations_are_tables() {
        let env =
            FakeEnv::with_token().var("NAMESPACE", "Blue").var("TLS_STRATEGY", "none").var("SERVER_URL", "http://a");
        let config = resolve(&ConfigBuilder::from_env().rpc_timeout(Duration::from_secs(3)), &env).unwrap();
        let expected = "\
token                    (hidden)                              environment variable HATCHET_CLIENT_TOKEN
token_expires_at         2030-03-17T17:46:40+00:00             token claim exp
tenant_id                707d0855-80ab-4e1f-a156-f1c4546cbf52  token claim sub
host_port                localhost:7077                        token claim grpc_broadcast_address
server_url               http://a                              environment variable HATCHET_CLIENT_SERVER_URL
namespace                blue_                                 environment variable HATCHET_CLIENT_NAMESPACE
tls_strategy             none                                  environment variable HATCHET_CLIENT_TLS_STRATEGY
tls_server_name          (not used)                            derived from tls_strategy
tls_rest_server_name     (not used)                            derived from server_url
tls_min_version          (not used)                            derived from tls_strategy
tls_root_ca              (not used)                            derived from tls_strategy
tls_cert                 (not used)                            derived from tls_strategy
tls_key                  (not used)                            derived from tls_strategy
keepalive_interval       10s                                   default
keepalive_timeout        20s                                   default
connect_timeout          5s                                    default
rpc_timeout              3s                                    builder
retry                    retries until the deadline            default
watch_request_rate       200                                   default
wait_request_rate        1000                                  default
max_send_message_length  4194304 bytes                         default
max_recv_message_length  4194304 bytes                         default
compression              none                                  default";
        assert_eq!(config.explain().to_string(), expected);
    }
}
