//! Detects the protocol of a server by its first bytes, and describes a mismatch.

use std::fmt;

/// The protocol of a connection, inside TLS if it is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tls,
    Http1,
    Http2,
}

/// The protocol of the server if it is not `expected`. `first`: the first bytes that it sent, inside TLS if the connection is
/// encrypted.
pub(super) fn unexpected(expected: Protocol, is_encrypted: bool, first: &[u8]) -> Option<Protocol> {
    let actual = match first.first()? {
        // TLS starts with the type of a record: an alert or a handshake.
        0x15 | 0x16 if !is_encrypted => Protocol::Tls,
        // Some TLS servers respond to plain text with an HTTP error that names TLS.
        b'H' if !is_encrypted && requires_tls(first) => Protocol::Tls,
        b'H' => Protocol::Http1,
        // HTTP/2 servers start with a SETTINGS frame, whose first three bytes are its length.
        0 => Protocol::Http2,
        _ => return None,
    };
    Some(actual).filter(|actual| *actual != expected)
}

/// Whether this is the response of Go, nginx or Apache to plain text on a TLS port.
fn requires_tls(response: &[u8]) -> bool {
    const ANSWERS: [&[u8]; 3] = [b"to an HTTPS server", b"sent to HTTPS port", b"to an SSL-enabled server port"];
    let is_bad_request = response.get(8..12) == Some(b" 400");
    is_bad_request && ANSWERS.iter().any(|words| response.windows(words.len()).any(|part| part == *words))
}

/// The API that a connection is for. The two addresses have different settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Grpc,
    Rest,
}

impl Api {
    pub(super) const fn protocol(self) -> Protocol {
        match self {
            Self::Grpc => Protocol::Http2,
            Self::Rest => Protocol::Http1,
        }
    }
}

/// The error message if the server at an address speaks another protocol.
pub(super) struct Mismatch<'a> {
    pub(super) api: Api,
    pub(super) address: &'a str,
    /// The protocol that the connection was opened for, including TLS.
    pub(super) expected: Protocol,
    pub(super) actual: Protocol,
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server at {} ", self.address)?;
        f.write_str(match (self.api, self.expected, self.actual) {
            (Api::Grpc, Protocol::Tls, _) => {
                "does not speak TLS: it answered in plain text; for a server without TLS set \
                HATCHET_CLIENT_TLS_STRATEGY=none or ConfigBuilder::tls_strategy"
            }
            (Api::Rest, Protocol::Tls, _) => {
                "does not speak TLS: it answered in plain text; for a server without TLS set ConfigBuilder::server_url or \
                HATCHET_CLIENT_SERVER_URL to an http:// URL"
            }
            (Api::Grpc, _, Protocol::Tls) => {
                "expects TLS, but the configuration disables it for gRPC: set HATCHET_CLIENT_TLS_STRATEGY=tls or ConfigBuilder::tls_strategy"
            }
            (Api::Rest, _, Protocol::Tls) => {
                "expects TLS, but the server URL is http://: set ConfigBuilder::server_url or HATCHET_CLIENT_SERVER_URL to an https:// URL"
            }
            (Api::Grpc, ..) => {
                "speaks HTTP/1.1 and not gRPC: set ConfigBuilder::host_port or HATCHET_CLIENT_HOST_PORT to the address of gRPC, not that of REST"
            }
            (Api::Rest, ..) => {
                "speaks HTTP/2 only, as gRPC does: set ConfigBuilder::server_url or HATCHET_CLIENT_SERVER_URL to the address of \
                REST, not that of gRPC"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn protocols_are_detected_by_their_first_bytes() {
        use Protocol::{Http1, Http2, Tls};
        let alert: &[u8] = &[0x15, 3, 1, 0, 2, 2, 40];
        let settings: &[u8] = &[0, 0, 18, 4, 0, 0, 0, 0, 0];
        for (first, as_http2, as_http1) in [
            (alert, Some(Tls), Some(Tls)),
            (&[0x16, 3, 3], Some(Tls), Some(Tls)),
            (settings, None, Some(Http2)),
            (&[0], None, Some(Http2)),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", Some(Http1), None),
            (b"H", Some(Http1), None),
            (b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.", Some(Tls), Some(Tls)),
            // The phrases have no meaning in a successful response.
            (b"HTTP/1.1 200 OK\r\n\r\nsent to HTTPS port", Some(Http1), None),
            (b"HTTP/1.1 400 Bad Request\r\n\r\nan HTTPS URL is needed", Some(Http1), None),
            (b"SSH-2.0-OpenSSH", None, None),
            (b"", None, None),
        ] {
            let actual = (unexpected(Http2, false, first), unexpected(Http1, false, first));
            assert_eq!(actual, (as_http2, as_http1), "{first:?}");
            // TLS inside TLS is not detected.
            assert_ne!(unexpected(Http2, true, first), Some(Tls), "{first:?}");
        }
    }

    #[test]
    fn each_mismatch_names_the_setting_to_change() {
        use Protocol::{Http1, Http2, Tls};
        for (api, expected, actual, setting) in [
            (Api::Grpc, Tls, Http2, "HATCHET_CLIENT_TLS_STRATEGY=none"),
            (Api::Rest, Tls, Http1, "HATCHET_CLIENT_SERVER_URL to an http:// URL"),
            (Api::Grpc, Http2, Tls, "HATCHET_CLIENT_TLS_STRATEGY=tls"),
            (Api::Rest, Http1, Tls, "HATCHET_CLIENT_SERVER_URL to an https:// URL"),
            (Api::Grpc, Http2, Http1, "HATCHET_CLIENT_HOST_PORT to the address of gRPC"),
            (Api::Rest, Http1, Http2, "HATCHET_CLIENT_SERVER_URL to the address of REST"),
        ] {
            let text = Mismatch { api, address: "a:1", expected, actual }.to_string();
            assert!(text.starts_with("the server at a:1 ") && text.contains(setting), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_expected_protocol_is_never_a_mismatch(first in any::<Vec<u8>>()) {
            for expected in [Protocol::Http1, Protocol::Http2] {
                prop_assert_ne!(unexpected(expected, false, &first), Some(expected));
            }
        }
    }
}
