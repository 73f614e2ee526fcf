//! The validated result.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::tuning::Tuning;
use super::{Compression, ConfigBuilder, ConfigError, Entry, Explanation, RetryPolicy, Secret, Tls};

/// Everything a client needs to know before it connects: validated, immutable, cheap to clone.
///
/// Made from the environment, in code, or both. A value is taken from the first that has it of
///
/// 1. the [`ConfigBuilder`],
/// 2. the environment, when the builder was made by [`ConfigBuilder::from_env`],
/// 3. a claim of the API token,
/// 4. the default,
///
/// and only the one that is taken is looked at: a bad variable under a builder's value is no error.
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
/// assert_eq!(config.authority(), "localhost:7077"); // the token says so
/// assert_eq!(config.namespace(), Some("staging_"));
/// println!("{}", config.explain()); // a table of all values and where they come from
/// # Ok::<(), hatchet::config::ConfigError>(())
/// ```
///
/// # Settings
///
/// | variable, after `HATCHET_CLIENT_` | builder | token claim | default | accepted |
/// |---|---|---|---|---|
/// | `TOKEN` | [`token`](ConfigBuilder::token) | | required | an API token (a JWT) |
/// | `TENANT_ID` (deprecated) | [`tenant_id`](ConfigBuilder::tenant_id) | `sub` | required | the token's tenant |
/// | `HOST_PORT` | [`host_port`](ConfigBuilder::host_port) | `grpc_broadcast_address` | required | `host:port`, see below |
/// | `SERVER_URL`, `API_URL` | [`server_url`](ConfigBuilder::server_url) | `server_url` | required | `http://…` or `https://…` |
/// | `NAMESPACE` | [`namespace`](ConfigBuilder::namespace) | | none | letters, digits, `.`, `-`, `_` |
/// | `TLS_STRATEGY` | [`tls_strategy`](ConfigBuilder::tls_strategy) | | `tls` | `none`, `tls`, `mtls` |
/// | `TLS_SERVER_NAME` | [`tls_server_name`](ConfigBuilder::tls_server_name) | | the host | a host name or IP address |
/// | `TLS_REST_SERVER_NAME` (this SDK only) | [`tls_rest_server_name`](ConfigBuilder::tls_rest_server_name) | | see below | a host name or IP address |
/// | `TLS_MIN_VERSION` | [`tls_min_version`](ConfigBuilder::tls_min_version) | | `1.3` | `1.2`, `1.3` |
/// | `TLS_ROOT_CA` or `TLS_ROOT_CA_FILE` | [`tls_root_ca`](ConfigBuilder::tls_root_ca), [`…_file`](ConfigBuilder::tls_root_ca_file) | | the usual roots | PEM certificates |
/// | `TLS_CERT` or `TLS_CERT_FILE` | [`tls_identity`](ConfigBuilder::tls_identity), [`…_files`](ConfigBuilder::tls_identity_files) | | none | a PEM certificate and its chain |
/// | `TLS_KEY` or `TLS_KEY_FILE` | the same | | none | a PEM key without a passphrase |
/// | `GRPC_MAX_SEND_MESSAGE_LENGTH` | [`max_send_message_length`](ConfigBuilder::max_send_message_length) | | 4194304 | 1 to 4294967295 bytes |
/// | `GRPC_MAX_RECV_MESSAGE_LENGTH` | [`max_recv_message_length`](ConfigBuilder::max_recv_message_length) | | 4194304 | 1 to 4294967295 bytes |
/// | `GRPC_COMPRESSION` (this SDK only) | [`compression`](ConfigBuilder::compression) | | `none` | `none`, `gzip` |
/// | | [`keepalive_interval`](ConfigBuilder::keepalive_interval) | | 10 s | 6 s to 24 h |
/// | | [`keepalive_timeout`](ConfigBuilder::keepalive_timeout) | | 20 s | 1 s to 24 h |
/// | | [`connect_timeout`](ConfigBuilder::connect_timeout) | | 5 s | 1 ms to 24 h |
/// | | [`rpc_timeout`](ConfigBuilder::rpc_timeout) | | 30 s | 1 ms to 24 h |
///
/// * A variable that is empty, or nothing but white space, counts as not set: that is what
///   `NAME=${UNSET}` leaves behind in a compose file. White space around a value is dropped, for
///   the newline at the end of a mounted secret.
/// * Other `HATCHET_CLIENT_*` variables belong to other SDKs and are ignored.
/// * `HOST_PORT` may have a scheme and slashes at the end. When no TLS strategy is given, the
///   scheme chooses it: `http` and `grpc` mean `none`, `https` and `grpcs` mean `tls`. A scheme in
///   the token's address chooses nothing, so that who issues a token cannot switch encryption off.
///   Without a port it is 443 with TLS and 7070 (the engine's own default) without.
/// * A claim `server_url` that begins with `http://` is refused if gRPC uses TLS, because REST sends
///   the same token. To send it without TLS, set `SERVER_URL`.
/// * `TLS_SERVER_NAME` also applies to REST if `SERVER_URL` has the same host as `HOST_PORT`. If the
///   hosts or their certificates differ, set the name for REST with `TLS_REST_SERVER_NAME`. (The other
///   SDKs have no such setting and use the host of the URL.)
/// * PEM stands in the variable itself (lines may be joined by `\n`) or in the file that the other
///   variable names; both at once are refused. A certificate needs its key and the other way round.
/// * Certificates, keys and the version count for REST as well, when the server URL is `https`.
///   When it isn't, and the strategy is `none`, certificates and keys have no use: they are not
///   looked at, or refused if it is only a scheme that says `none`, because one is then a mistake.
///
/// Its `Debug` hides the token and keys.
#[derive(Clone)]
pub struct Config {
    values: Arc<Values>,
}

pub(super) struct Values {
    pub(super) token: Secret,
    pub(super) token_expires_at: Option<DateTime<Utc>>,
    pub(super) tenant_id: String,
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

    /// A builder without the environment: what isn't set in code is a claim of the token or a
    /// default. With the environment beneath it: [`ConfigBuilder::from_env`].
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// The configuration that the environment describes, in variables named `HATCHET_CLIENT_*`.
    /// Only `HATCHET_CLIENT_TOKEN` is always needed.
    ///
    /// # Errors
    ///
    /// All that is missing or bad, at once.
    pub fn from_env() -> Result<Self, ConfigError> {
        ConfigBuilder::from_env().build()
    }

    /// The API token. Send it as `authorization: Bearer …`, and show it to nobody.
    #[must_use]
    pub fn token(&self) -> &Secret {
        &self.values.token
    }

    /// When the token stops being valid, if it says so. A token that has expired is no error here:
    /// the engine decides, by its own clock.
    #[must_use]
    pub fn token_expires_at(&self) -> Option<DateTime<Utc>> {
        self.values.token_expires_at
    }

    /// The tenant that everything belongs to; usually a UUID.
    #[must_use]
    pub fn tenant_id(&self) -> &str {
        &self.values.tenant_id
    }

    /// The engine's host for gRPC: a name or an IP address, IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.values.host
    }

    /// The engine's port for gRPC.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.values.port
    }

    /// The engine's `host:port` for gRPC, as it stands in a URI: IPv6 in brackets.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.values.authority
    }

    /// The base URL of the REST API, without a slash at the end: append `/api/v1/…`.
    #[must_use]
    pub fn server_url(&self) -> &str {
        &self.values.server_url
    }

    /// What the names of workflows, events and actions begin with: lower case, with `_` at the end.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.values.namespace.as_deref()
    }

    /// Whether and how connections are encrypted.
    #[must_use]
    pub fn tls(&self) -> &Tls {
        &self.values.tls
    }

    /// How long a connection may be silent before it is pinged, also when no call is open.
    #[must_use]
    pub fn keepalive_interval(&self) -> Duration {
        self.values.tuning.keepalive_interval
    }

    /// How long a ping may stay unanswered before the connection counts as dead.
    #[must_use]
    pub fn keepalive_timeout(&self) -> Duration {
        self.values.tuning.keepalive_timeout
    }

    /// How long making a connection may take.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        self.values.tuning.connect_timeout
    }

    /// The deadline of a call that has no other. Streams have none.
    #[must_use]
    pub fn rpc_timeout(&self) -> Duration {
        self.values.tuning.rpc_timeout
    }

    /// Returns how often failed calls are retried.
    pub fn retry(&self) -> RetryPolicy {
        self.values.tuning.retry
    }

    /// The largest message to send, in bytes before compression.
    #[must_use]
    pub fn max_send_message_length(&self) -> usize {
        self.values.tuning.max_send_message_length
    }

    /// The largest message to accept, in bytes after decompression.
    #[must_use]
    pub fn max_recv_message_length(&self) -> usize {
        self.values.tuning.max_recv_message_length
    }

    /// Whether messages are compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.values.tuning.compression
    }

    /// Where each value came from, as a table that can be printed. Secrets are not in it.
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
    use super::super::fixtures::{CERT, Fake, KEY, KEY_BODY, claims, jwt};
    use super::super::resolve::resolve;
    use super::super::{TlsStrategy, setting};
    use super::*;

    /// Nothing that is printed may have a third of the token, or anything of the key, in it.
    fn assert_no_secret(printed: &str) {
        let token = jwt(&claims());
        let parts: Vec<_> = token.split('.').filter(|part| part.len() > 20).collect();
        assert!(!parts.is_empty());
        for secret in parts.into_iter().chain([token.as_str(), "c2lnbmF0dXJl", KEY_BODY, "PRIVATE KEY-"]) {
            assert!(!printed.contains(secret), "{secret} in {printed}");
        }
    }

    #[test]
    fn nothing_printed_has_a_secret() {
        let builder = ConfigBuilder::from_env()
            .token(jwt(&claims()))
            .tls_identity(format!("{CERT}{KEY}"), KEY)
            .tls_strategy(TlsStrategy::Mtls);
        assert_no_secret(&format!("{builder:?} {builder:#?}"));
        assert_no_secret(&format!(
            "{:?}",
            ConfigBuilder::from_env().tls_identity_files(KEY, KEY).tls_root_ca_file(KEY)
        ));
        let config = resolve(&builder, &Fake::default()).unwrap();
        assert_no_secret(&format!("{config:?} {config:#?} {} {:?}", config.explain(), config.explain()));
    }

    #[test]
    fn secrets_in_the_wrong_variable_stay_hidden() {
        let der = format!("MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0w{KEY_BODY}");
        for variable in setting::ALL.iter().flat_map(|setting| setting.variables) {
            let name = variable.trim_start_matches("HATCHET_CLIENT_");
            for secret in [KEY.to_owned(), jwt(&claims()), der.clone(), format!("https://me:{KEY_BODY}@example.com")] {
                for world in [
                    Fake::with_token().var(name, &secret),
                    Fake::with_token().var(name, &secret).var("TLS_STRATEGY", "mtls"),
                ] {
                    let printed = match resolve(&ConfigBuilder::from_env(), &world) {
                        Ok(config) => format!("{config:?} {}", config.explain()),
                        Err(error) => format!("{error} {error:?}"),
                    };
                    assert_no_secret(&printed);
                }
            }
        }
    }

    #[test]
    fn explains_itself_in_a_table() {
        let world =
            Fake::with_token().var("NAMESPACE", "Blue").var("TLS_STRATEGY", "none").var("SERVER_URL", "http://a");
        let config = resolve(&ConfigBuilder::from_env().rpc_timeout(Duration::from_secs(3)), &world).unwrap();
        let expected = "\
token                    (hidden)                              environment variable HATCHET_CLIENT_TOKEN
token_expires_at         2030-03-17T17:46:40+00:00             token claim exp
tenant_id                707d0855-80ab-4e1f-a156-f1c4546cbf52  token claim sub
host_port                localhost:7077                        token claim grpc_broadcast_address
server_url               http://a                              environment variable HATCHET_CLIENT_SERVER_URL
namespace                blue_                                 environment variable HATCHET_CLIENT_NAMESPACE
tls_strategy             none                                  environment variable HATCHET_CLIENT_TLS_STRATEGY
tls_server_name          (not used)                            follows from tls_strategy
tls_rest_server_name     (not used)                            follows from server_url
tls_min_version          (not used)                            follows from tls_strategy
tls_root_ca              (not used)                            follows from tls_strategy
tls_identity             (not used)                            follows from tls_strategy
keepalive_interval       10s                                   default
keepalive_timeout        20s                                   default
connect_timeout          5s                                    default
rpc_timeout              3s                                    builder
max_send_message_length  4194304 bytes                         default
max_recv_message_length  4194304 bytes                         default
compression              none                                  default";
        assert_eq!(config.explain().to_string(), expected);
    }
}
