//! The table of settings: their names in code and in the environment, and the expected values.

/// The names and the expected values of a setting.
pub(super) struct Setting {
    /// The name of the method of the builder.
    pub(super) builder_method: &'static str,
    /// The environment variables, with the preferred one first. Empty if the setting is only in code.
    pub(super) variables: &'static [&'static str],
    /// The expected values, for error messages.
    pub(super) expected: &'static str,
}

impl Setting {
    /// The preferred variable, or the method of the builder if there is no variable.
    pub(super) fn primary_name(&self) -> &'static str {
        self.variables.first().copied().unwrap_or(self.builder_method)
    }
}

macro_rules! settings {
    ($($name:ident = $builder_method:literal [$($variable:literal),*] $expected:literal;)*) => {
        $(pub(super) const $name: Setting = Setting {
            builder_method: $builder_method,
            variables: &[$(concat!("HATCHET_CLIENT_", $variable)),*],
            expected: $expected,
        };)*

        #[cfg(test)]
        pub(super) const ALL: &[Setting] = &[$($name),*];
    };
}

settings! {
    TOKEN = "token" ["TOKEN"] "an API token (a JWT: three base64url parts joined by dots)";
    TENANT_ID = "tenant_id" ["TENANT_ID"] "the tenant of the token (a UUID), or no value";
    HOST_PORT = "host_port" ["HOST_PORT"]
        "host:port, optionally after http://, https://, grpc:// or grpcs://, with an IPv6 host in brackets";
    SERVER_URL = "server_url" ["SERVER_URL", "API_URL"]
        "http:// or https://, a host, and optionally a port and a path";
    NAMESPACE = "namespace" ["NAMESPACE"] "letters, digits, '.', '-' and '_'";
    TLS_STRATEGY = "tls_strategy" ["TLS_STRATEGY"] "none, tls, mtls";
    TLS_SERVER_NAME = "tls_server_name" ["TLS_SERVER_NAME"] "a host name or an IP address, without a port";
    TLS_REST_SERVER_NAME = "tls_rest_server_name" ["TLS_REST_SERVER_NAME"]
        "a host name or an IP address, without a port";
    TLS_MIN_VERSION = "tls_min_version" ["TLS_MIN_VERSION"] "1.2, 1.3";
    TLS_ROOT_CA = "tls_root_ca" ["TLS_ROOT_CA"] "one or more PEM certificates";
    TLS_ROOT_CA_FILE = "tls_root_ca_file" ["TLS_ROOT_CA_FILE"] "a readable file with one or more PEM certificates";
    TLS_CERT = "tls_cert" ["TLS_CERT"] "a PEM certificate, with its chain";
    TLS_CERT_FILE = "tls_cert_file" ["TLS_CERT_FILE"]
        "a readable file with a PEM certificate and its chain";
    TLS_KEY = "tls_key" ["TLS_KEY"] "a PEM private key without a passphrase";
    TLS_KEY_FILE = "tls_key_file" ["TLS_KEY_FILE"]
        "a readable file with a PEM private key without a passphrase";
    KEEPALIVE_INTERVAL = "keepalive_interval" []
        "6s to 24h (the engine closes connections that send pings more often than every 5s)";
    KEEPALIVE_TIMEOUT = "keepalive_timeout" [] "1s to 24h";
    CONNECT_TIMEOUT = "connect_timeout" [] "1ms to 24h";
    RPC_TIMEOUT = "rpc_timeout" [] "1ms to 24h";
    WATCH_RATE = "watch_request_rate" [] "an integer from 1 to 100000 (requests per second)";
    WAIT_RATE = "wait_request_rate" [] "an integer from 1 to 100000 (requests per second)";
    MAX_SEND = "max_send_message_length" ["GRPC_MAX_SEND_MESSAGE_LENGTH"] "an integer from 1 to 4294967295 (bytes)";
    MAX_RECV = "max_recv_message_length" ["GRPC_MAX_RECV_MESSAGE_LENGTH"] "an integer from 1 to 4294967295 (bytes)";
    COMPRESSION = "compression" ["GRPC_COMPRESSION"] "none, gzip";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_of_config_list_every_variable() {
        let docs = include_str!("resolved.rs");
        for variable in ALL.iter().flat_map(|setting| setting.variables) {
            let short = variable.strip_prefix("HATCHET_CLIENT_").unwrap();
            assert!(docs.contains(&format!("`{short}`")), "{variable}");
        }
    }
}
