//! HTTP responses that do not come from the Hatchet server, probably from a proxy, and the meaning of HTTP statuses.

use std::fmt;

use http::header::{CONTENT_TYPE, HeaderName, LOCATION, SERVER};
use http::{HeaderMap, StatusCode};

use super::retry_after::retry_after;
use crate::error::{Error, ErrorKind, RetryAfter, ServerStatus};

/// A response that is neither gRPC nor JSON, probably from a proxy.
#[derive(Debug)]
pub(super) struct ProxyResponse {
    status: StatusCode,
    content_type: Option<String>,
    server: Option<String>,
    location: Option<String>,
    excerpt: Option<String>,
    retry_after: Option<RetryAfter>,
}

impl ProxyResponse {
    /// `start`: the start of the body.
    pub(super) fn new(status: StatusCode, headers: &HeaderMap, start: &[u8]) -> Self {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(shortened);
        Self {
            status,
            content_type: text(CONTENT_TYPE),
            server: text(SERVER),
            location: text(LOCATION).filter(|_| status.is_redirection()),
            excerpt: excerpt(start),
            retry_after: retry_after(headers),
        }
    }

    /// The error of a call with this response.
    pub(super) fn error(&self, call: &str) -> Error {
        let error = Error::new(ErrorKind::Server, format!("{call} failed: received {self}"));
        let error = error.with_status(ServerStatus::Http(self.status.as_u16())).with_retry_after(self.retry_after);
        match meaning(self.status) {
            _ if self.status.is_success() => error.with_kind(ErrorKind::Decode),
            // The sender does not know about runs: 404 means that the route does not exist.
            Meaning { kind: ErrorKind::NotFound, .. } => {
                error.with_kind(ErrorKind::Unimplemented).without_side_effects()
            }
            meaning => meaning.apply(error),
        }
    }
}

impl fmt::Display for ProxyResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if let Some(content_type) = &self.content_type {
            write!(f, " ({content_type})")?;
        }
        let likely = if self.status.is_success() { "another server or a proxy" } else { "a proxy" };
        write!(f, ", probably from {likely}")?;
        if let Some(server) = &self.server {
            write!(f, " ({server})")?;
        }
        if let Some(location) = &self.location {
            write!(f, ", which redirects to {location}")?;
        }
        match &self.excerpt {
            Some(excerpt) => write!(f, ": {excerpt}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ProxyResponse {}

/// The meaning of an HTTP status for a call.
pub(super) struct Meaning {
    kind: ErrorKind,
    transient: bool,
    /// The call was not processed: the request was rejected or redirected.
    unsent: bool,
}

impl Meaning {
    /// Adds the meaning to the error of a call with this status. A retry pushback is already in the error.
    pub(super) fn apply(&self, error: Error) -> Error {
        let error = error.with_kind(self.kind);
        let error = if self.unsent { error.without_side_effects() } else { error };
        if self.transient && !error.forbids_retries() { error.transient() } else { error }
    }
}

/// The table of HTTP statuses for gRPC and REST.
pub(super) fn meaning(status: StatusCode) -> Meaning {
    let (kind, transient, unsent) = match status.as_u16() {
        300..=399 => (ErrorKind::Server, false, true),
        // The server responds with 403 to a missing, invalid, expired or foreign token.
        401 | 403 => (ErrorKind::Unauthenticated, false, true),
        404 => (ErrorKind::NotFound, false, true),
        408 => (ErrorKind::Timeout, true, false),
        413 => (ErrorKind::TooLarge, false, true),
        429 => (ErrorKind::RateLimited, true, true),
        501 => (ErrorKind::Unimplemented, false, true),
        400..=499 => (ErrorKind::Rejected, false, true),
        502..=504 => (ErrorKind::Unavailable, true, false),
        _ => (ErrorKind::Server, false, false),
    };
    Meaning { kind, transient, unsent }
}

/// The first line of a body with text, without tags if it is HTML.
fn excerpt(start: &[u8]) -> Option<String> {
    let body = String::from_utf8_lossy(start);
    let body = body.trim_start();
    let text = if body.starts_with('<') { without_tags(body) } else { body.to_owned() };
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(shortened)
}

fn without_tags(html: &str) -> String {
    let of_part = |part: &str| {
        let (tag, text) = part.split_once('>').unwrap_or((part, ""));
        let is_hidden = ["style", "script", "!--"].iter().any(|name| tag.starts_with(name));
        if is_hidden { String::new() } else { text.to_owned() }
    };
    html.split('<').map(of_part).collect()
}

fn shortened(text: &str) -> String {
    const MAX_HEADER_CHARS: usize = 120;
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(MAX_HEADER_CHARS).map(printable).collect();
    if text.chars().nth(MAX_HEADER_CHARS).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    const BODIES: [&[u8]; 4] = [
        b"",
        b"<html>\r\n<head><title>an error page</title></head>\r\n</html>",
        b"{\"message\":\"no healthy upstream\"}",
        b"no healthy upstream\n",
    ];

    fn answer(status: u16, body: &[u8]) -> Error {
        ProxyResponse::new(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body).error("Trigger")
    }

    #[test]
    fn the_status_determines_the_kind() {
        for (status, kind, transient, unsent) in [
            (200, ErrorKind::Decode, false, false),
            (302, ErrorKind::Server, false, true),
            (400, ErrorKind::Rejected, false, true),
            (401, ErrorKind::Unauthenticated, false, true),
            (403, ErrorKind::Unauthenticated, false, true),
            (404, ErrorKind::Unimplemented, false, true),
            (408, ErrorKind::Timeout, true, false),
            (413, ErrorKind::TooLarge, false, true),
            (429, ErrorKind::RateLimited, true, true),
            (500, ErrorKind::Server, false, false),
            (501, ErrorKind::Unimplemented, false, true),
            (502, ErrorKind::Unavailable, true, false),
            (503, ErrorKind::Unavailable, true, false),
            (504, ErrorKind::Unavailable, true, false),
            (505, ErrorKind::Server, false, false),
        ] {
            for body in BODIES {
                let error = answer(status, body);
                let properties = (error.kind(), error.is_transient(), error.has_no_side_effects());
                assert_eq!(properties, (kind, transient, unsent), "{status} {error}");
                assert_eq!(error.status(), Some(ServerStatus::Http(status)));
            }
        }
    }

    #[test]
    fn error_texts_describe_the_response() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "text/html".parse().unwrap());
        headers.insert(SERVER, "nginx/1.25".parse().unwrap());
        let shown = |status, headers: &HeaderMap, body: &[u8]| {
            ProxyResponse::new(status, headers, body).error("Trigger").to_string()
        };
        assert_eq!(
            shown(StatusCode::SERVICE_UNAVAILABLE, &headers, BODIES[1]),
            "Trigger failed: received HTTP 503 Service Unavailable (text/html), probably from a proxy (nginx/1.25): an error page"
        );
        headers.insert(LOCATION, "https://a/".parse().unwrap());
        assert_eq!(
            shown(StatusCode::FOUND, &headers, b""),
            "Trigger failed: received HTTP 302 Found (text/html), probably from a proxy (nginx/1.25), which redirects to https://a/"
        );
        assert_eq!(
            shown(StatusCode::BAD_GATEWAY, &HeaderMap::new(), BODIES[3]),
            "Trigger failed: received HTTP 502 Bad Gateway, probably from a proxy: no healthy upstream"
        );
    }

    #[test]
    fn the_retry_after_header_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "7".parse().unwrap());
        let error = ProxyResponse::new(StatusCode::SERVICE_UNAVAILABLE, &headers, b"").error("Trigger");
        assert_eq!((error.pushback(), error.is_transient()), (Some(Duration::from_secs(7)), true));
    }

    #[test]
    fn excerpts_are_the_first_line_of_text() {
        for (body, expected) in [
            ("", None),
            ("\n \n second \n third", Some("second")),
            ("<html></html>", None),
            (
                "<!-- a comment --><html><style>b { c: d }</style>\n<body>\n<h1>Bad <b>Gateway</b></h1>",
                Some("Bad Gateway"),
            ),
            ("a\u{1b}[31m < b", Some("a [31m < b")),
        ] {
            assert_eq!(excerpt(body.as_bytes()).as_deref(), expected, "{body}");
        }
        assert_eq!(excerpt("x".repeat(1000).as_bytes()).map(|text| text.chars().count()), Some(121));
    }

    proptest! {
        #[test]
        fn excerpts_are_short_and_printable(body in any::<Vec<u8>>()) {
            if let Some(text) = excerpt(&body) {
                prop_assert!(!text.contains(char::is_control) && text.chars().count() <= 121);
            }
        }
    }
}
