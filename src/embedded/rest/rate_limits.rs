//! Rate limits.

use std::cmp::Reverse;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use serde_json::{Value, json};
use uuid::Uuid;

use super::api::RestApi;
use super::paging::{bad_request, millis};
use super::query::{self, Query};
use super::request::OfTenant;
use super::response::RestResult;
use super::rows::RowPage;
use crate::embedded::core::RateLimitView;

pub(super) fn routes() -> Router<RestApi> {
    Router::new().route("/api/v1/tenants/{tenant}/rate-limits", get(list).delete(delete))
}

fn render(tenant: Uuid, view: &RateLimitView) -> Value {
    json!({
        "key": view.key,
        "lastRefill": millis(view.last_refill),
        "limitValue": view.limit,
        "tenantId": tenant.to_string(),
        "value": view.left,
        "window": format!("1 {}", view.window.name()),
    })
}

async fn list(OfTenant(api): OfTenant, query: Query) -> RestResult {
    let (offset, limit) = (query.number("offset")?.unwrap_or(0), query.limit()?.unwrap_or(50));
    let search = query.first("search").unwrap_or_default().to_owned();
    let descending = query.first("orderByDirection").is_some_and(|order| order.eq_ignore_ascii_case("desc"));
    let mut all = api.core.call(move |core, turn| core.rate_limits(&search, turn.now)).await?;
    // Rows with the same value stay in the order of their keys.
    match (query.first("orderByField"), descending) {
        (Some("value"), false) => all.sort_by_key(|view| view.left),
        (Some("value"), true) => all.sort_by_key(|view| Reverse(view.left)),
        (Some("limitValue"), false) => all.sort_by_key(|view| view.limit),
        (Some("limitValue"), true) => all.sort_by_key(|view| Reverse(view.limit)),
        (_, true) => all.reverse(),
        (_, false) => {}
    }
    let (page, pages) = match limit {
        0 => (1, 0),
        limit => (offset.div_ceil(limit).saturating_add(1), all.len().div_ceil(limit)),
    };
    let next = if page == pages { page } else { page.saturating_add(1) };
    let rows = all.into_iter().skip(offset).take(limit).collect();
    let pagination = json!({"current_page": page, "next_page": next, "num_pages": pages});
    let tenant = api.tenant;
    Ok(RowPage { pagination, rows }.render(move |view| render(tenant, &view)))
}

async fn delete(OfTenant(api): OfTenant, query: Query) -> RestResult {
    let key = query.first("key").ok_or_else(|| query::bad("key", "query parameter 'key' is required"))?.to_owned();
    let deleted = api.core.call(move |core, _| core.delete_rate_limit(&key)).await?;
    if deleted { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(bad_request("failed to delete rate-limit")) }
}
