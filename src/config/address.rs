//! `host:port` and base URLs, taken apart by hand.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Why a text is not an address, in words for the user.
pub(super) type Malformed = &'static str;

/// What stands before `://`: whether it means TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// `http` or `grpc`.
    Plain,
    /// `https` or `grpcs`.
    Secure,
}

/// The gRPC address as it was written: the port may be missing, the scheme usually is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    pub(super) scheme: Option<Scheme>,
    /// Without brackets, also when it is an IPv6 address.
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl HostPort {
    /// Takes `[scheme://]host[:port][/]` apart.
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        let (scheme, rest) = match text.split_once("://") {
            None => (None, text),
            Some((name, rest)) => (Some(scheme(name)?), rest),
        };
        let rest = rest.trim_end_matches('/');
        if rest.contains('/') {
            return Err("a path, where only host and port belong");
        }
        let (host, port) = host_and_port(rest)?;
        Ok(Self { scheme, host: host.to_owned(), port })
    }
}

/// The host and port as they stand in a URI.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A base URL in its canonical form: scheme in lower case, no slash at the end.
pub(super) fn base_url(text: &str) -> Result<String, Malformed> {
    const UNSAFE: &str = "\"<>\\^`{|}";
    let (name, rest) = text.split_once("://").ok_or("no http:// or https://")?;
    let scheme = match name.to_ascii_lowercase().as_str() {
        "http" => "http",
        "https" => "https",
        _ => return Err("a scheme that is not http or https"),
    };
    if rest.contains(['?', '#']) {
        return Err("a query or fragment, where only a base belongs");
    }
    let rest = rest.trim_end_matches('/');
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    host_and_port(authority)?;
    if path.chars().any(|c| !c.is_ascii_graphic() || UNSAFE.contains(c)) {
        return Err("a character that a URL has to escape");
    }
    Ok(format!("{scheme}://{rest}"))
}

/// The host of a base URL, without the brackets of IPv6 addresses.
pub(super) fn url_host(base_url: &str) -> Option<&str> {
    let (_, rest) = base_url.split_once("://")?;
    let authority = rest.split('/').next()?;
    host_and_port(authority).ok().map(|(host, _)| host)
}

/// Whether a text can be the name in a server's certificate: a host name or an IP address.
pub(super) fn is_host(text: &str) -> bool {
    if is_dotted_number(text) {
        text.parse::<Ipv4Addr>().is_ok()
    } else {
        is_name(text) || text.parse::<Ipv6Addr>().is_ok()
    }
}

fn scheme(name: &str) -> Result<Scheme, Malformed> {
    match name.to_ascii_lowercase().as_str() {
        "http" | "grpc" => Ok(Scheme::Plain),
        "https" | "grpcs" => Ok(Scheme::Secure),
        _ => Err("an unknown scheme"),
    }
}

fn host_and_port(text: &str) -> Result<(&str, Option<u16>), Malformed> {
    if text.contains('@') {
        return Err("credentials, which have no place in an address");
    }
    if let Some(inner) = text.strip_prefix('[') {
        let (host, tail) = inner.split_once(']').ok_or("a bracket that is not closed")?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err("brackets around something that is not an IPv6 address");
        }
        return match tail.strip_prefix(':') {
            Some(digits) => Ok((host, Some(port(digits)?))),
            None if tail.is_empty() => Ok((host, None)),
            None => Err("text between the bracket and the port"),
        };
    }
    let (host, port) = match text.rsplit_once(':') {
        None => (text, None),
        Some((host, _)) if host.contains(':') => return Err("an IPv6 address without brackets, or a second port"),
        Some((host, digits)) => (host, Some(port(digits)?)),
    };
    match host {
        "" => Err("no host"),
        // The resolver would parse it as an IPv4 address: `7077` as 0.0.27.165.
        number if number.bytes().all(|b| b.is_ascii_digit()) => Err("a number without a host; a port follows `host:`"),
        number if is_dotted_number(number) && number.parse::<Ipv4Addr>().is_err() => {
            Err("numbers that are not an IPv4 address")
        }
        name if is_name(name) => Ok((name, port)),
        _ => Err("a host with a character that no host name has"),
    }
}

fn is_dotted_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

fn port(digits: &str) -> Result<u16, Malformed> {
    // `parse` alone would take "+7070".
    let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if all_digits && port > 0 => Ok(port),
        _ => Err("a port that is not 1 to 65535"),
    }
}

/// Host names as they are met, not as the RFC has them: Docker makes names with `_`.
fn is_name(text: &str) -> bool {
    const LONGEST: usize = 253;
    (1..=LONGEST).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<(Option<Scheme>, String, Option<u16>), Malformed> {
        HostPort::parse(text).map(|a| (a.scheme, a.host, a.port))
    }

    #[test]
    fn good_addresses() {
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
    fn bad_addresses() {
        for (text, reason) in [
            ("", "no host"),
            ("http://", "no host"),
            (":7070", "no host"),
            ("ftp://localhost:21", "an unknown scheme"),
            ("localhost:7070/api", "a path, where only host and port belong"),
            ("localhost:0", "a port that is not 1 to 65535"),
            ("localhost:65536", "a port that is not 1 to 65535"),
            ("localhost:+70", "a port that is not 1 to 65535"),
            ("localhost:", "a port that is not 1 to 65535"),
            ("::1", "an IPv6 address without brackets, or a second port"),
            ("a:1:2", "an IPv6 address without brackets, or a second port"),
            ("[::1", "a bracket that is not closed"),
            ("[localhost]:1", "brackets around something that is not an IPv6 address"),
            ("[::1]7070", "text between the bracket and the port"),
            ("me:word@localhost:1", "credentials, which have no place in an address"),
            ("local host:1", "a host with a character that no host name has"),
            ("münchen.example:1", "a host with a character that no host name has"),
            ("-x:1", "a host with a character that no host name has"),
            ("7077", "a number without a host; a port follows `host:`"),
            ("http://7077/", "a number without a host; a port follows `host:`"),
            ("7077:7077", "a number without a host; a port follows `host:`"),
            ("127.1:7077", "numbers that are not an IPv4 address"),
            ("10.0.0.256:7077", "numbers that are not an IPv4 address"),
        ] {
            assert_eq!(parsed(text), Err(reason), "{text}");
        }
    }

    #[test]
    fn base_urls() {
        for (text, expected) in [
            ("http://localhost:8080", Ok("http://localhost:8080")),
            ("HTTPS://example.com//", Ok("https://example.com")),
            ("https://example.com/hatchet/", Ok("https://example.com/hatchet")),
            ("https://[::1]:8080/", Ok("https://[::1]:8080")),
            ("localhost:8080", Err("no http:// or https://")),
            ("grpc://localhost", Err("a scheme that is not http or https")),
            ("https://", Err("no host")),
            ("https://a/?b=c", Err("a query or fragment, where only a base belongs")),
            ("https://a#b", Err("a query or fragment, where only a base belongs")),
            ("https://me:word@a", Err("credentials, which have no place in an address")),
            ("https://a:port", Err("a port that is not 1 to 65535")),
            ("https://a/b c", Err("a character that a URL has to escape")),
            ("http://8080", Err("a number without a host; a port follows `host:`")),
            ("http://1.2.3", Err("numbers that are not an IPv4 address")),
        ] {
            assert_eq!(base_url(text), expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn hosts_of_base_urls() {
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
        fn any_text_is_parsed_or_refused(text in any::<String>(), more in "[a-z:/@.\\[\\]0-9]{0,40}") {
            for text in [&text, &more] {
                if let Ok(HostPort { host, port: Some(port), .. }) = HostPort::parse(text) {
                    // Whatever is accepted can be written down and read again.
                    prop_assert_eq!(HostPort::parse(&authority(&host, port)).map(|a| (a.host, a.port)), Ok((host, Some(port))));
                }
                if let Ok(url) = base_url(text) {
                    prop_assert_eq!(base_url(&url), Ok(url));
                }
            }
        }

        #[test]
        fn host_and_port_survive_any_scheme_and_slashes(
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
