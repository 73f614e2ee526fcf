//! Bulk cancels and replays.

use axum::body::Bytes;
use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::request::OfTenant;
use super::response::{Rejection, RestResult, respond};
use crate::embedded::core::format::uuid::go_uuid;
use crate::embedded::core::store::At;
use crate::embedded::core::{RunFilter, Selection};

fn bad(message: String) -> Rejection {
    Rejection::message(StatusCode::BAD_REQUEST, message)
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn ids(value: Option<&Value>) -> Result<Vec<Uuid>, Rejection> {
    texts(value).iter().map(|text| go_uuid(text).map_err(bad)).collect()
}

fn time(value: Option<&Value>) -> Result<Option<At>, Rejection> {
    let Some(text) = value.and_then(Value::as_str) else { return Ok(None) };
    let problem = || bad(format!("parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\""));
    text.parse().map(Some).map_err(|_| problem())
}

/// The runs or tasks of a request. Without any, nothing is selected.
fn selection(body: &[u8]) -> Result<Selection, Rejection> {
    if body.is_empty() {
        return Ok(Selection::Ids(Vec::new()));
    }
    let body: Value = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    let ids = ids(body.get("externalIds"))?;
    match body.get("filter").filter(|filter| !filter.is_null()) {
        None => Ok(Selection::Ids(ids)),
        Some(filter) => {
            let filter = parse_filter(filter)?;
            if ids.is_empty() { Ok(Selection::Filter(filter)) } else { Err(Rejection::INTERNAL) }
        }
    }
}

fn parse_filter(filter: &Value) -> Result<RunFilter, Rejection> {
    RunFilter {
        since: time(filter.get("since"))?,
        until: time(filter.get("until"))?,
        workflows: ids(filter.get("workflowIds"))?,
        ..RunFilter::default()
    }
    .with_texts(&texts(filter.get("statuses")), &texts(filter.get("additionalMetadata")))
    .map_err(|_| Rejection::INTERNAL)
}

pub(super) async fn cancel(OfTenant(api): OfTenant, body: Bytes) -> RestResult {
    let selection = selection(&body)?;
    let ids = api
        .core
        .call(move |core, turn| {
            let ids = core.selected_to_cancel(selection, turn.now);
            core.cancel(turn, &ids);
            ids
        })
        .await?;
    Ok(respond(&json!({ "ids": ids })))
}

pub(super) async fn replay(OfTenant(api): OfTenant, body: Bytes) -> RestResult {
    let selection = selection(&body)?;
    let ids = api
        .core
        .call(move |core, turn| {
            let ids = core.selected_to_replay(selection, turn.now);
            core.replay(turn, &ids)
        })
        .await?;
    Ok(respond(&json!({ "ids": ids })))
}
