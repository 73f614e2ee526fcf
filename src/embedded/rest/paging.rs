//! Pages, metadata filters and timestamps of the older lists.

use axum::http::StatusCode;
use chrono::SecondsFormat;
use serde_json::json;

use super::query::Query;
use super::response::Rejection;
use super::rows::RowPage;
use crate::embedded::core::MetadataFilter;
use crate::embedded::core::store::At;

pub(super) fn bad_request(description: impl Into<String>) -> Rejection {
    Rejection::description(StatusCode::BAD_REQUEST, description.into())
}

/// A timestamp in milliseconds, without trailing zeros.
pub(super) fn millis(at: At) -> String {
    let text = at.to_rfc3339_opts(SecondsFormat::Millis, true);
    format!("{}Z", text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.'))
}

/// Pairs of a key and a value, all of which must match.
pub(super) fn metadata_filter<'a>(texts: impl Iterator<Item = &'a str>) -> Result<MetadataFilter, Rejection> {
    MetadataFilter::with_one_colon(texts)
        .map_err(|_| bad_request("Additional metadata filters must be in the format key:value."))
}

/// The requested page of a list.
pub(super) struct Page {
    offset: usize,
    limit: usize,
}

impl Page {
    pub(super) fn parse(query: &Query) -> Result<Self, Rejection> {
        Ok(Self { offset: query.number("offset")?.unwrap_or(0), limit: query.limit()?.unwrap_or(50) })
    }

    /// The page with its number and the number of pages. Only its rows are taken from the list.
    pub(super) fn of<T, R>(&self, all: &[T], row: impl Fn(&T) -> R) -> RowPage<R> {
        let Some(before) = self.offset.checked_div(self.limit) else {
            // The server divides by zero.
            let pagination = json!({"current_page": i64::MIN + 1, "next_page": i64::MIN + 2, "num_pages": i64::MIN});
            return RowPage { pagination, rows: Vec::new() };
        };
        let (page, pages) = (before.saturating_add(1), all.len().div_ceil(self.limit));
        let next = if page == pages { page } else { page.saturating_add(1) };
        RowPage {
            pagination: json!({"current_page": page, "next_page": next, "num_pages": pages}),
            rows: all.iter().skip(self.offset).take(self.limit).map(row).collect(),
        }
    }
}
