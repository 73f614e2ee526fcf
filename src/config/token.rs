//! Reads the claims of an API token, without verifying it. The engine verifies it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

/// The claims of a token.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// Parses a JWT. The error describes the value without quoting it.
    ///
    /// All three parts are checked, although only the second one is used. So a truncated token is rejected here, and an accepted one is
    /// a valid HTTP header value.
    pub(super) fn parse(token: &str) -> Result<Self, String> {
        if token.is_empty() {
            return Err("an empty value".to_owned());
        }
        if token.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer ")) {
            return Err("a value with \"Bearer \" before the token".to_owned());
        }
        if token.starts_with(['"', '\'']) {
            return Err("a value in quotes".to_owned());
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(match token.split('.').count() {
                1 => "a value without dots".to_owned(),
                parts => format!("a value in {parts} parts"),
            });
        };
        object("header", header)?;
        let claims = object("payload", payload)?;
        if signature.is_empty() {
            return Err("a token whose third part (signature) is empty".to_owned());
        }
        if !signature.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
            return Err("a token whose third part (signature) is not base64url".to_owned());
        }
        Ok(Self(claims))
    }

    /// A claim that is a string, without whitespace at its ends. `None` if it is empty.
    pub(super) fn string(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str().map(str::trim).filter(|text| !text.is_empty())
    }

    /// The time in the `exp` claim. Fractions of a second, which RFC 7519 allows, are dropped.
    pub(super) fn expires_at(&self) -> Option<DateTime<Utc>> {
        let exp = self.0.get("exp")?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "`as` saturates, and chrono rejects values out of its range"
        )]
        let seconds = exp.as_i64().or_else(|| exp.as_f64().map(|seconds| seconds as i64))?;
        DateTime::from_timestamp(seconds, 0)
    }
}

fn object(name: &str, part: &str) -> Result<Map<String, Value>, String> {
    let ordinal = if name == "header" { "first" } else { "second" };
    let wrong = |what: &str| format!("a token whose {ordinal} part ({name}) is not {what}");
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| wrong("base64url"))?;
    // The error of serde_json may quote the token.
    serde_json::from_slice(&bytes).map_err(|_| wrong("a JSON object"))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{TENANT, claims, jwt};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn claims_are_read() {
        let claims = Claims::parse(&jwt(&claims())).unwrap();
        assert_eq!(claims.string("sub"), Some(TENANT));
        assert_eq!(claims.string("grpc_broadcast_address"), Some("localhost:7077"));
        assert_eq!(claims.string("server_url"), Some("https://localhost:8080"));
        assert_eq!(claims.string("no_such_claim"), None);
        assert_eq!(claims.expires_at().unwrap().to_rfc3339(), "2030-03-17T17:46:40+00:00");
    }

    #[test]
    fn claims_of_other_types_are_ignored() {
        let claims = Claims::parse(&jwt(&json!({"sub": 5, "server_url": " ", "exp": "soon"}))).unwrap();
        assert_eq!((claims.string("sub"), claims.string("server_url"), claims.expires_at()), (None, None, None));
        for (exp, expected) in [
            (json!(0.9), Some(0)),
            (json!(-1), Some(-1)),
            (json!(1e300), None),
            (json!(i64::MAX), None),
            (json!(null), None),
        ] {
            let claims = Claims::parse(&jwt(&json!({"exp": exp}))).unwrap();
            assert_eq!(claims.expires_at().map(|at| at.timestamp()), expected, "{exp}");
        }
    }

    #[test]
    fn errors_name_the_invalid_part() {
        let good = jwt(&claims());
        let (head, _) = good.split_once('.').unwrap();
        for (token, found) in [
            (String::new(), "an empty value"),
            (format!("Bearer {good}"), "a value with \"Bearer \" before the token"),
            (format!("\"{good}\""), "a value in quotes"),
            ("hello".to_owned(), "a value without dots"),
            (format!("{good}.x"), "a value in 4 parts"),
            (format!("?{good}"), "a token whose first part (header) is not base64url"),
            ("aGVsbG8.e30.x".to_owned(), "a token whose first part (header) is not a JSON object"),
            (format!("{head}.!.x"), "a token whose second part (payload) is not base64url"),
            (format!("{head}.WzFd.x"), "a token whose second part (payload) is not a JSON object"),
            (format!("{head}.e30."), "a token whose third part (signature) is empty"),
            (format!("{head}.e30.a b"), "a token whose third part (signature) is not base64url"),
        ] {
            assert_eq!(Claims::parse(&token), Err(found.to_owned()), "{token}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text in any::<String>(), payload in any::<Vec<u8>>()) {
            let framed = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(payload));
            for text in [text, framed] {
                if let Ok(claims) = Claims::parse(&text) {
                    let _ = (claims.string("sub"), claims.expires_at());
                    prop_assert!(text.is_ascii());
                }
            }
        }
    }
}
