//! Bulk cancels and replays.

use axum::body::Bytes;
use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::request::OfTenant;
use super::{Refusal, RestResult, respond};
use crate::embedded::core::RunFilter;
use crate::embedded::core::format::uuid::go_uuid;
use crate::embedded::core::store::At;

/// The maximum number of runs that a filter selects.
const MAX_CANCELLED: usize = 20_000;
const MAX_REPLAYED: usize = 1000;

/// The runs or tasks of a request.
#[derive(Default)]
struct Selection {
    ids: Vec<Uuid>,
    filter: Option<RunFilter>,
}

fn bad(message: String) -> Refusal {
    Refusal::Text(StatusCode::BAD_REQUEST, message)
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn ids(value: Option<&Value>) -> Result<Vec<Uuid>, Refusal> {
    texts(value).iter().map(|text| go_uuid(text).map_err(bad)).collect()
}

fn time(value: Option<&Value>) -> Result<Option<At>, Refusal> {
    let Some(text) = value.and_then(Value::as_str) else { return Ok(None) };
    let problem = || bad(format!("parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\""));
    text.parse().map(Some).map_err(|_| problem())
}

impl Selection {
    fn parse(body: &[u8]) -> Result<Self, Refusal> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let body: Value = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
        let external_ids = ids(body.get("externalIds"))?;
        let filter = match body.get("filter").filter(|filter| !filter.is_null()) {
            None => None,
            Some(filter) => Some(parse_filter(filter)?),
        };
        if !external_ids.is_empty() && filter.is_some() {
            return Err(Refusal::INTERNAL);
        }
        Ok(Self { ids: external_ids, filter })
    }
}

fn parse_filter(filter: &Value) -> Result<RunFilter, Refusal> {
    RunFilter {
        since: time(filter.get("since"))?,
        until: time(filter.get("until"))?,
        workflows: ids(filter.get("workflowIds"))?,
        ..RunFilter::default()
    }
    .with_texts(&texts(filter.get("statuses")), &texts(filter.get("additionalMetadata")))
    .map_err(|_| Refusal::INTERNAL)
}

pub(super) async fn cancel(OfTenant(engine): OfTenant, body: Bytes) -> RestResult {
    let selection = Selection::parse(&body)?;
    let ids = engine
        .core
        .call(move |core, turn| {
            let ids = selection.filter.map_or(selection.ids, |filter| core.filtered(&filter, MAX_CANCELLED, turn.now));
            core.cancel(turn, &ids);
            ids
        })
        .await?;
    Ok(respond(&json!({ "ids": ids })))
}

pub(super) async fn replay(OfTenant(engine): OfTenant, body: Bytes) -> RestResult {
    let selection = Selection::parse(&body)?;
    let ids = engine
        .core
        .call(move |core, turn| {
            let ids = selection.filter.map_or(selection.ids, |filter| core.filtered(&filter, MAX_REPLAYED, turn.now));
            core.replay(turn, &ids)
        })
        .await?;
    Ok(respond(&json!({ "ids": ids })))
}
