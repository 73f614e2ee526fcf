//! The parameters of a request, parsed and rejected as by the server.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use chrono::DateTime;
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::response::Rejection;
use crate::embedded::core::format::uuid::go_uuid;
use crate::embedded::core::store::At;

/// The maximum number of rows of a page. The real engine has no known limit: it accepts 5000, and 10,000 for log lines.
const MAX_PAGE: usize = 10_000;

/// Parameters in order. A repeated parameter is a list.
pub(super) struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::parse(parts.uri.query()))
    }
}

impl Query {
    fn parse(text: Option<&str>) -> Self {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// A number that is not negative. For a negative one, the server returns 500.
    pub(super) fn number(&self, name: &str) -> Result<Option<usize>, Rejection> {
        let Some(text) = self.first(name) else { return Ok(None) };
        match text.parse::<i64>() {
            Ok(number) => usize::try_from(number).map(Some).map_err(|_| Rejection::INTERNAL),
            Err(_) => Err(bad(
                name,
                &format!("error binding string parameter: strconv.ParseInt: parsing \"{text}\": invalid syntax"),
            )),
        }
    }

    /// The requested number of rows. It is limited, so that a list cannot use unlimited memory and time.
    pub(super) fn limit(&self) -> Result<Option<usize>, Rejection> {
        let limit = self.number("limit")?;
        match limit {
            Some(limit) if limit > MAX_PAGE => Err(Rejection::description(
                StatusCode::BAD_REQUEST,
                format!("expected a limit of at most {MAX_PAGE} rows per page of the embedded engine, got {limit}"),
            )),
            _ => Ok(limit),
        }
    }

    /// A boolean, in all of Go's spellings.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Rejection> {
        match self.first(name) {
            None => Ok(None),
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(Some(false)),
            Some(text) => Err(bad(
                name,
                &format!("error binding string parameter: strconv.ParseBool: parsing \"{text}\": invalid syntax"),
            )),
        }
    }

    pub(super) fn time(&self, name: &str) -> Result<Option<At>, Rejection> {
        let Some(text) = self.first(name) else { return Ok(None) };
        let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
        match DateTime::parse_from_rfc3339(&full) {
            Ok(at) => Ok(Some(at.to_utc())),
            Err(_) => {
                Err(bad(name, &format!("error parsing '{text}' as RFC3339 or 2006-01-02 time: {}", date_problem(text))))
            }
        }
    }

    pub(super) fn ids(&self, name: &str) -> Result<Vec<Uuid>, Rejection> {
        let parse = |text: &str| {
            go_uuid(text).map_err(|problem| {
                bad(
                    name,
                    &format!("error setting array element: error unmarshaling '{text}' text as *uuid.UUID: {problem}"),
                )
            })
        };
        self.all(name).map(parse).collect()
    }
}

pub(super) fn bad(name: &str, problem: &str) -> Rejection {
    Rejection::message(StatusCode::BAD_REQUEST, format!("Invalid format for parameter {name}: {problem}"))
}

/// Go's error message for a string that is not a date.
fn date_problem(text: &str) -> String {
    let mut rest = text;
    for (part, digits) in [("2006", 4), ("-", 0), ("01", 2), ("-", 0), ("02", 2)] {
        let is_part =
            |head: &str| if digits == 0 { head == part } else { head.bytes().all(|byte| byte.is_ascii_digit()) };
        match rest.split_at_checked(part.len()).filter(|(head, _)| is_part(head)) {
            Some((_, tail)) => rest = tail,
            None => return format!("parsing time \"{text}\" as \"2006-01-02\": cannot parse \"{rest}\" as \"{part}\""),
        }
    }
    match rest {
        "" => format!("parsing time \"{text}\": day out of range"),
        rest => format!("parsing time \"{text}\": extra text: \"{rest}\""),
    }
}
