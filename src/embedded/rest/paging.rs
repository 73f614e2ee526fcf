//! What the older lists have in common: pages, filters by metadata, stamps.

use axum::http::StatusCode;
use chrono::SecondsFormat;
use serde_json::{Value, json};

use super::Refusal;
use super::query::Query;
use super::rows::Found;
use crate::embedded::core::store::At;

pub(super) fn bad_request(description: impl Into<String>) -> Refusal {
    Refusal::Description(StatusCode::BAD_REQUEST, description.into())
}

/// A stamp to the millisecond, without the zeros at its end.
pub(super) fn millis(at: At) -> String {
    let text = at.to_rfc3339_opts(SecondsFormat::Millis, true);
    format!("{}Z", text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.'))
}

/// Pairs of a key and a value, all of which must be there.
pub(super) struct Tags(Vec<(String, String)>);

impl Tags {
    pub(super) fn parse<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, Refusal> {
        let pair = |text: &str| match text.split(':').collect::<Vec<_>>()[..] {
            [key, value] => Ok((key.to_owned(), value.to_owned())),
            _ => Err(bad_request("Additional metadata filters must be in the format key:value.")),
        };
        texts.map(pair).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn are_in(&self, metadata: Option<&Value>) -> bool {
        self.0.iter().all(|(key, value)| {
            metadata.and_then(|metadata| metadata.get(key)).is_some_and(|found| found.as_str() == Some(value))
        })
    }
}

/// Which part of a list is wanted.
pub(super) struct Page {
    offset: usize,
    limit: usize,
}

impl Page {
    pub(super) fn parse(query: &Query) -> Result<Self, Refusal> {
        Ok(Self { offset: query.number("offset")?.unwrap_or(0), limit: query.limit()?.unwrap_or(50) })
    }

    /// The page, with its place among the others. Only what is on it is taken.
    pub(super) fn of<T, R>(&self, all: &[T], take: impl Fn(&T) -> R) -> Found<R> {
        let Some(before) = self.offset.checked_div(self.limit) else {
            // The server divides by it all the same.
            let pagination = json!({"current_page": i64::MIN + 1, "next_page": i64::MIN + 2, "num_pages": i64::MIN});
            return Found { pagination, rows: Vec::new() };
        };
        let (page, pages) = (before.saturating_add(1), all.len().div_ceil(self.limit));
        let next = if page == pages { page } else { page.saturating_add(1) };
        Found {
            pagination: json!({"current_page": page, "next_page": next, "num_pages": pages}),
            rows: all.iter().skip(self.offset).take(self.limit).map(take).collect(),
        }
    }
}
