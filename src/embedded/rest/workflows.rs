//! Workflows.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse as _;
use axum::routing::get;
use serde_json::{Value, json};
use uuid::Uuid;

use super::api::{Authorization, RestApi, id};
use super::body::{body, given};
use super::json::{extend, meta};
use super::query::Query;
use super::request::{OfTenant, names};
use super::response::{Rejection, RestResult, respond};
use crate::embedded::core::format::duration;
use crate::embedded::core::store::{Pause, PausedRuns};
use crate::embedded::core::{Core, WorkflowView};

pub(super) fn routes() -> Router<RestApi> {
    Router::new()
        .route("/api/v1/tenants/{tenant}/workflows", get(list))
        .route("/api/v1/workflows/{workflow}", get(one).patch(update).delete(delete))
}

/// An authorized request about an existing workflow. The checks are in the server's order: the tenant if the route names it,
/// the workflow, the token.
pub(super) struct KnownWorkflow {
    api: RestApi,
    id: Uuid,
}

impl FromRequestParts<RestApi> for KnownWorkflow {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, api: &RestApi) -> Result<Self, Rejection> {
        let names = names(parts, api).await?;
        if let Some(tenant) = names.get("tenant") {
            api.find_tenant(tenant)?;
        }
        let id = id(names.get("workflow").map_or("", String::as_str), "workflow")?;
        let authorization = Authorization::of(&parts.headers);
        api.find_and_authorize(&authorization, Rejection::NOT_FOUND, move |core, _| core.find_workflow(id).map(drop))
            .await?;
        Ok(Self { api: api.clone(), id })
    }
}

/// A workflow as a row of a list.
fn row(view: &WorkflowView<'_>) -> Value {
    let mut row = json!({
        "metadata": meta(view.workflow.id, view.workflow.created),
        "name": view.name,
        "description": view.workflow.latest.description,
        "isPaused": view.workflow.pause.is_some(),
        "tenantId": "",
    });
    if let Some(pause) = &view.workflow.pause {
        let name = |runs: PausedRuns| match runs {
            PausedRuns::Queue => "QUEUE",
            PausedRuns::Drop => "DROP",
        };
        let behaviors = json!({
            "pausedWorkflowCronRunQueueBehavior": name(pause.crons),
            "pausedWorkflowScheduledRunQueueBehavior": name(pause.schedules),
        });
        extend(&mut row, behaviors);
    }
    row
}

async fn list(OfTenant(api): OfTenant, query: Query) -> RestResult {
    let name = query.first("name").unwrap_or_default().to_lowercase();
    let (offset, limit) =
        (query.number("offset")?.unwrap_or(0), query.limit()?.filter(|limit| *limit > 0).unwrap_or(50));
    let body = api
        .core
        .call(move |core, _| {
            let found = || core.workflows().filter(|view| view.name.to_lowercase().contains(&name));
            let rows: Vec<_> = found().skip(offset).take(limit).map(|view| row(&view)).collect();
            let pages = found().count().div_ceil(limit);
            let page = offset.checked_div(limit).unwrap_or_default().saturating_add(1);
            json!({"pagination": {"current_page": page, "next_page": page.saturating_add(1).min(pages), "num_pages": pages}, "rows": rows})
        })
        .await?;
    Ok(respond(&body))
}

async fn one(State(api): State<RestApi>, Path(workflow): Path<String>, authorization: Authorization) -> RestResult {
    let workflow = id(&workflow, "workflow")?;
    let read = move |core: &Core, _| {
        let found = core.find_workflow(workflow)?;
        let latest = &found.workflow.latest;
        let version = json!({
            "metadata": meta(latest.id, latest.created),
            "order": latest.order,
            "version": "",
            "workflowId": found.workflow.id.to_string(),
        });
        let mut shown = row(&found);
        extend(&mut shown, json!({"tenantId": core.tenant.to_string(), "versions": [version]}));
        Some(shown)
    };
    Ok(respond(&api.find_and_authorize(&authorization, Rejection::NOT_FOUND, read).await?))
}

/// Pauses a workflow, or ends its pause. For an invalid request, the server returns 500.
async fn update(known: KnownWorkflow, bytes: Bytes) -> RestResult {
    let request = given(&body(&bytes)?, "pause").ok_or(Rejection::INTERNAL)?;
    let text = |name: &str| request.get(name).and_then(Value::as_str).unwrap_or_default();
    let behavior = |name: &str| match text(name) {
        "QUEUE" => Ok(PausedRuns::Queue),
        "DROP" => Ok(PausedRuns::Drop),
        _ => Err(Rejection::INTERNAL),
    };
    let ttl = interval(text("pausedWorkflowQueueTTL"));
    let behaviors = match text("action") {
        "unpause" => None,
        "pause" => Some((
            behavior("pausedWorkflowCronRunQueueBehavior")?,
            behavior("pausedWorkflowScheduledRunQueueBehavior")?,
        )),
        _ => return Err(Rejection::INTERNAL),
    };
    let updated = known
        .api
        .core
        .call(move |core, turn| {
            match behaviors {
                Some((crons, schedules)) => {
                    let pause = Pause { from: turn.now, crons, schedules, ttl };
                    core.pause_workflow(turn, known.id, pause);
                }
                None => core.unpause_workflow(turn, known.id),
            }
            core.find_workflow(known.id).map(|view| row(&view))
        })
        .await?;
    Ok(respond(&updated.ok_or(Rejection::NOT_FOUND)?))
}

/// A duration of the database, which is five minutes if it is invalid.
fn interval(text: &str) -> Duration {
    duration::parse(text).unwrap_or(Duration::from_secs(300))
}

async fn delete(known: KnownWorkflow) -> RestResult {
    let deleted = known.api.core.call(move |core, turn| core.delete_workflow(turn, known.id)).await?;
    deleted.then_some(()).ok_or(Rejection::NOT_FOUND)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
