//! Parses `host:port` and base URLs.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Why a string is not an address, for the error message.
pub(super) type Reason = &'static str;

/// Whether the scheme of an address enables TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// `http` or `grpc`.
    Plain,
    /// `https` or `grpcs`.
    Secure,
}

/// A gRPC address. The scheme and the port are optional.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    pub(super) scheme: Option<Scheme>,
    /// A host name or an IP address. IPv6 has no brackets.
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl HostPort {
    /// Parses `[scheme://]host[:port][/]`.
    pub(super) fn parse(text: &str) -> Result<Self, Reason> {
        let (scheme, rest) = match text.split_once("://") {
            None => (None, text),
            Some((name, rest)) => (Some(scheme(name)?), rest),
        };
        let rest = rest.trim_end_matches('/');
        if rest.contains('/') {
            return Err("a path is not allowed");
        }
        let (host, port) = host_and_port(rest)?;
        Ok(Self { scheme, host: host.to_owned(), port })
    }
}

/// The authority of a URI: `host:port`, with IPv6 in brackets.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Parses a base URL. The canonical form has a lower-case scheme and no trailing slash.
pub(super) fn base_url(text: &str) -> Result<String, Reason> {
    const UNSAFE: &str = "\"<>\\^`{|}";
    let (name, rest) = text.split_once("://").ok_or("missing http:// or https://")?;
    let scheme = match name.to_ascii_lowercase().as_str() {
        "http" => "http",
        "https" => "https",
        _ => return Err("the scheme is not http or https"),
    };
    if rest.contains(['?', '#']) {
        return Err("a query or fragment is not allowed");
    }
    let rest = rest.trim_end_matches('/');
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    host_and_port(authority)?;
    if path.chars().any(|c| !c.is_ascii_graphic() || UNSAFE.contains(c)) {
        return Err("a character that must be percent-encoded");
    }
    Ok(format!("{scheme}://{rest}"))
}

/// The host of a base URL, without the brackets of IPv6 addresses.
pub(super) fn url_host(base_url: &str) -> Option<&str> {
    let (_, rest) = base_url.split_once("://")?;
    let authority = rest.split('/').next()?;
    host_and_port(authority).ok().map(|(host, _)| host)
}

/// Whether a string can be the name in a server's certificate: a host name or an IP address.
pub(super) fn is_host(text: &str) -> bool {
    if is_dotted_number(text) {
        text.parse::<Ipv4Addr>().is_ok()
    } else {
        is_name(text) || text.parse::<Ipv6Addr>().is_ok()
    }
}

fn scheme(name: &str) -> Result<Scheme, Reason> {
    match name.to_ascii_lowercase().as_str() {
        "http" | "grpc" => Ok(Scheme::Plain),
        "https" | "grpcs" => Ok(Scheme::Secure),
        _ => Err("unknown scheme"),
    }
}

fn host_and_port(text: &str) -> Result<(&str, Option<u16>), Reason> {
    if text.contains('@') {
        return Err("credentials are not allowed");
    }
    if let Some(inner) = text.strip_prefix('[') {
        let (host, tail) = inner.split_once(']').ok_or("unclosed bracket")?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err("invalid IPv6 address in brackets");
        }
        return match tail.strip_prefix(':') {
            Some(digits) => Ok((host, Some(port(digits)?))),
            None if tail.is_empty() => Ok((host, None)),
            None => Err("unexpected text after the bracket"),
        };
    }
    let (host, port) = match text.rsplit_once(':') {
        None => (text, None),
        Some((host, _)) if host.contains(':') => return Err("an IPv6 address without brackets, or more than one port"),
        Some((host, digits)) => (host, Some(port(digits)?)),
    };
    match host {
        "" => Err("missing host"),
        // The resolver would parse it as an IPv4 address: `7077` as 0.0.27.165.
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => Err("a port without a host"),
        digits if is_dotted_number(digits) && digits.parse::<Ipv4Addr>().is_err() => Err("invalid IPv4 address"),
        name if is_name(name) => Ok((name, port)),
        _ => Err("invalid character in the host name"),
    }
}

fn is_dotted_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

fn port(digits: &str) -> Result<u16, Reason> {
    // `parse` also accepts "+7070".
    let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if all_digits && port > 0 => Ok(port),
        _ => Err("port out of range 1 to 65535"),
    }
}

/// Less strict than the RFC: names that Docker creates contain `_`.
fn is_name(text: &str) -> bool {
    const MAX_HOST_NAME_LEN: usize = 253;
    (1..=MAX_HOST_NAME_LEN).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<(Option<Scheme>, String, Option<u16>), Reason> {
        HostPort::parse(text).map(|a| (a.scheme, a.host, a.port))
    }

    #[test]
    fn valid_addresses_are_parsed() {
        use Scheme::{Plain, Secure};
        for (text, scheme, host, port) in [
            ("localhost:7070", None, "localhost", Some(7070)),
            ("localhost", None, "localhost", None),
            ("localhost/", None, "localhost", None),
            ("http://localhost:7070/", Some(Plain), "localhost", Some(7070)),
            ("grpc://localhost:7070", Some(Plain), "localhost", Some(7070)),
            ("HTTPS://Engine.Example.com", Some(Secure), "Engine.Example.com", None),
            ("grpcs://engine.example.com:443//", Some(Secure), "engine.example.com", Some(443)),
            ("hatchet_engine_1:7070", None, "hatchet_engine_1", Some(7070)),
            ("127.0.0.1:1", None, "127.0.0.1", Some(1)),
            ("[::1]:65535", None, "::1", Some(65535)),
            ("https://[2001:db8::1]/", Some(Secure), "2001:db8::1", None),
        ] {
            assert_eq!(parsed(text), Ok((scheme, host.to_owned(), port)), "{text}");
        }
    }

    #[test]
    fn invalid_addresses_are_rejected() {
        for (text, reason) in [
            ("", "missing host"),
            ("http://", "missing host"),
            (":7070", "missing host"),
            ("ftp://localhost:21", "unknown scheme"),
            ("localhost:7070/api", "a path is not allowed"),
            ("localhost:0", "port out of range 1 to 65535"),
            ("localhost:65536", "port out of range 1 to 65535"),
            ("localhost:+70", "port out of range 1 to 65535"),
            ("localhost:", "port out of range 1 to 65535"),
            ("::1", "an IPv6 address without brackets, or more than one port"),
            ("a:1:2", "an IPv6 address without brackets, or more than one port"),
            ("[::1", "unclosed bracket"),
            ("[localhost]:1", "invalid IPv6 address in brackets"),
            ("[::1]7070", "unexpected text after the bracket"),
            ("me:word@localhost:1", "credentials are not allowed"),
            ("local host:1", "invalid character in the host name"),
            ("münchen.example:1", "invalid character in the host name"),
            ("-x:1", "invalid character in the host name"),
            ("7077", "a port without a host"),
            ("http://7077/", "a port without a host"),
            ("7077:7077", "a port without a host"),
            ("127.1:7077", "invalid IPv4 address"),
            ("10.0.0.256:7077", "invalid IPv4 address"),
        ] {
            assert_eq!(parsed(text), Err(reason), "{text}");
        }
    }

    #[test]
    fn base_urls_are_normalized() {
        for (text, expected) in [
            ("http://localhost:8080", Ok("http://localhost:8080")),
            ("HTTPS://example.com//", Ok("https://example.com")),
            ("https://example.com/hatchet/", Ok("https://example.com/hatchet")),
            ("https://[::1]:8080/", Ok("https://[::1]:8080")),
            ("localhost:8080", Err("missing http:// or https://")),
            ("grpc://localhost", Err("the scheme is not http or https")),
            ("https://", Err("missing host")),
            ("https://a/?b=c", Err("a query or fragment is not allowed")),
            ("https://a#b", Err("a query or fragment is not allowed")),
            ("https://me:word@a", Err("credentials are not allowed")),
            ("https://a:port", Err("port out of range 1 to 65535")),
            ("https://a/b c", Err("a character that must be percent-encoded")),
            ("http://8080", Err("a port without a host")),
            ("http://1.2.3", Err("invalid IPv4 address")),
        ] {
            assert_eq!(base_url(text), expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn base_urls_have_a_host() {
        for (url, host) in [
            ("http://localhost:8080", "localhost"),
            ("https://example.com/hatchet", "example.com"),
            ("https://[::1]:8080", "::1"),
        ] {
            assert_eq!(url_host(url), Some(host));
        }
    }

    proptest! {
        #[test]
        fn parsed_addresses_round_trip(text in any::<String>(), more in "[a-z:/@.\\[\\]0-9]{0,40}") {
            for text in [&text, &more] {
                if let Ok(HostPort { host, port: Some(port), .. }) = HostPort::parse(text) {
                    // An accepted address can be formatted and parsed again.
                    prop_assert_eq!(HostPort::parse(&authority(&host, port)).map(|a| (a.host, a.port)), Ok((host, Some(port))));
                }
                if let Ok(url) = base_url(text) {
                    prop_assert_eq!(base_url(&url), Ok(url));
                }
            }
        }

        #[test]
        fn schemes_and_trailing_slashes_do_not_change_host_and_port(
            scheme in prop::sample::select(vec!["", "http://", "HTTP://", "https://", "grpc://", "grpcs://"]),
            host in prop_oneof!["[a-z][a-zA-Z0-9_.-]{0,60}", any::<Ipv4Addr>().prop_map(|ip| ip.to_string()), any::<Ipv6Addr>().prop_map(|ip| ip.to_string())],
            port in 1..=u16::MAX,
            slashes in "/{0,3}",
        ) {
            let text = format!("{scheme}{}{slashes}", authority(&host, port));
            let address = HostPort::parse(&text).map(|a| (a.host, a.port));
            prop_assert_eq!(address, Ok((host, Some(port))));
        }
    }
}
