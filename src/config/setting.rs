//! The table of settings: what each is called, in code and in the environment, and what it accepts.

/// One setting.
pub(super) struct Setting {
    /// The builder's method.
    pub(super) field: &'static str,
    /// Its variables, the official one first; none if it is set in code only.
    pub(super) variables: &'static [&'static str],
    /// What is accepted, in words for the user.
    pub(super) accepted: &'static str,
}

impl Setting {
    /// The name by which the documentation calls it: the variable, if it has one.
    pub(super) fn official(&self) -> &'static str {
        self.variables.first().copied().unwrap_or(self.field)
    }
}

macro_rules! settings {
    ($($name:ident = $field:literal [$($variable:literal),*] $accepted:literal;)*) => {
        $(pub(super) const $name: Setting = Setting {
            field: $field,
            variables: &[$(concat!("HATCHET_CLIENT_", $variable)),*],
            accepted: $accepted,
        };)*

        #[cfg(test)]
        pub(super) const ALL: &[Setting] = &[$($name),*];
    };
}

settings! {
    TOKEN = "token" ["TOKEN"] "an API token (a JWT: three base64url parts joined by dots)";
    TENANT_ID = "tenant_id" ["TENANT_ID"] "the tenant of the token (letters, digits, '-', '_'), or nothing";
    HOST_PORT = "host_port" ["HOST_PORT"]
        "host:port, plain or after http://, https://, grpc:// or grpcs://, an IPv6 host in brackets";
    SERVER_URL = "server_url" ["SERVER_URL", "API_URL"]
        "http:// or https://, a host, and if need be a port and a path";
    NAMESPACE = "namespace" ["NAMESPACE"] "letters, digits, '.', '-' and '_'";
    TLS_STRATEGY = "tls_strategy" ["TLS_STRATEGY"] "none, tls, mtls";
    TLS_SERVER_NAME = "tls_server_name" ["TLS_SERVER_NAME"] "a host name or an IP address, without a port";
    TLS_REST_SERVER_NAME = "tls_rest_server_name" ["TLS_REST_SERVER_NAME"]
        "a host name or an IP address, without a port";
    TLS_MIN_VERSION = "tls_min_version" ["TLS_MIN_VERSION"] "1.2, 1.3";
    TLS_ROOT_CA = "tls_root_ca" ["TLS_ROOT_CA"] "one or more PEM certificates";
    TLS_ROOT_CA_FILE = "tls_root_ca_file" ["TLS_ROOT_CA_FILE"] "a readable file with one or more PEM certificates";
    TLS_CERT = "tls_identity (certificate)" ["TLS_CERT"] "a PEM certificate, with its chain";
    TLS_CERT_FILE = "tls_identity_files (certificate)" ["TLS_CERT_FILE"]
        "a readable file with a PEM certificate and its chain";
    TLS_KEY = "tls_identity (key)" ["TLS_KEY"] "a PEM private key without a passphrase";
    TLS_KEY_FILE = "tls_identity_files (key)" ["TLS_KEY_FILE"]
        "a readable file with a PEM private key without a passphrase";
    KEEPALIVE_INTERVAL = "keepalive_interval" []
        "6s to 24h (the engine hangs up on clients that ping more often than each 5s)";
    KEEPALIVE_TIMEOUT = "keepalive_timeout" [] "1s to 24h";
    CONNECT_TIMEOUT = "connect_timeout" [] "1ms to 24h";
    RPC_TIMEOUT = "rpc_timeout" [] "1ms to 24h";
    MAX_SEND = "max_send_message_length" ["GRPC_MAX_SEND_MESSAGE_LENGTH"] "a whole number of bytes, 1 to 4294967295";
    MAX_RECV = "max_recv_message_length" ["GRPC_MAX_RECV_MESSAGE_LENGTH"] "a whole number of bytes, 1 to 4294967295";
    COMPRESSION = "compression" ["GRPC_COMPRESSION"] "none, gzip";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variable_is_in_the_table_of_config() {
        let docs = include_str!("resolved.rs");
        for variable in ALL.iter().flat_map(|setting| setting.variables) {
            let short = variable.strip_prefix("HATCHET_CLIENT_").unwrap();
            assert!(docs.contains(&format!("`{short}`")), "{variable}");
        }
    }
}
