//! Schedules.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use serde_json::{Value, json};
use uuid::Uuid;

use super::api::RestApi;
use super::body::{body, given};
use super::paging::{Page, bad_request, metadata_filter, millis};
use super::query::Query;
use super::request::{OfOne, OfTenant};
use super::response::{Rejection, RestResult, respond};
use crate::embedded::core::format::uuid::go_uuid;
use crate::embedded::core::store::{At, Schedule, ScheduledRun};
use crate::embedded::core::{Core, MetadataFilter};

const NOT_FOUND: Rejection =
    Rejection::Message(StatusCode::NOT_FOUND, Cow::Borrowed("scheduled workflow run not found"));
const NO_TIME: &str = "ERROR: null value in column \"triggerAt\" of relation \"WorkflowTriggerScheduledRef\" violates not-null constraint (SQLSTATE 23502)";

pub(super) fn routes() -> Router<RestApi> {
    Router::new()
        .route("/api/v1/tenants/{tenant}/workflows/{workflow}/scheduled", post(create))
        .route("/api/v1/tenants/{tenant}/workflows/scheduled", get(list))
        .route("/api/v1/tenants/{tenant}/workflows/scheduled/bulk-delete", post(bulk_delete))
        .route("/api/v1/tenants/{tenant}/workflows/scheduled/bulk-update", post(bulk_update))
        .route(
            "/api/v1/tenants/{tenant}/workflows/scheduled/{schedule}",
            get(one).patch(reschedule).delete(delete).post(start),
        )
}

/// The parts of a schedule that a response shows.
struct Row {
    tenant: Uuid,
    schedule: Arc<Schedule>,
    /// The workflow and its latest version.
    version: Option<(Uuid, Uuid)>,
}

impl Row {
    fn new(core: &Core, schedule: &Arc<Schedule>) -> Self {
        let version = core.latest(&schedule.run.workflow).map(|version| (version.workflow, version.id));
        Self { tenant: core.tenant, schedule: Arc::clone(schedule), version }
    }

    fn render(&self) -> Value {
        let Self { tenant, schedule, version } = self;
        json!({
            "metadata": {"id": schedule.id.to_string(), "createdAt": millis(schedule.created), "updatedAt": millis(schedule.created)},
            "additionalMetadata": schedule.run.metadata,
            "input": if schedule.run.input.is_object() { schedule.run.input.clone() } else { json!({}) },
            "method": "API",
            "priority": schedule.run.priority.unwrap_or(1),
            "tenantId": tenant.to_string(),
            "triggerAt": millis(schedule.at),
            "workflowId": version.map(|(workflow, _)| workflow.to_string()),
            "workflowName": schedule.run.workflow,
            "workflowRunCreatedAt": "0001-01-01T00:00:00Z",
            "workflowRunName": "",
            "workflowVersionId": version.map(|(_, version)| version.to_string()),
        })
    }
}

/// The time in a body, if it has one.
fn time(body: &Value) -> Result<Option<At>, Rejection> {
    let Some(text) = given(body, "triggerAt") else { return Ok(None) };
    let text = text.as_str().unwrap_or_default();
    let problem = || {
        Rejection::message(
            StatusCode::BAD_REQUEST,
            format!("parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{text}\" as \"2006\""),
        )
    };
    let at = text.parse::<chrono::DateTime<chrono::FixedOffset>>();
    // The server ignores the time zone.
    at.ok().map(|at| at.naive_local().and_utc()).filter(crate::time::is_representable).map(Some).ok_or_else(problem)
}

async fn create(OfTenant(api): OfTenant, Path((_, workflow)): Path<(String, String)>, bytes: Bytes) -> RestResult {
    let body = body(&bytes)?;
    let at = time(&body)?;
    let priority = body.get("priority").and_then(Value::as_i64);
    let run = ScheduledRun {
        workflow,
        input: given(&body, "input").unwrap_or_else(|| json!({})),
        metadata: given(&body, "additionalMetadata"),
        priority: priority.and_then(|priority| i32::try_from(priority).ok()),
    };
    let created = api
        .core
        .call(move |core, turn| {
            if core.latest(&run.workflow).is_none() {
                return Err(bad_request("workflow not found"));
            }
            check_priority(priority)?;
            let created = core.schedule(turn, &run, &[at.ok_or_else(|| bad_request(NO_TIME))?])?;
            let created = created.first().and_then(|(id, _)| core.find_schedule(*id));
            Ok(created.map(|schedule| Row::new(core, schedule)))
        })
        .await?;
    Ok(respond(&created?.ok_or(Rejection::INTERNAL)?.render()))
}

fn check_priority(priority: Option<i64>) -> Result<(), Rejection> {
    let (limit, number) = match priority {
        Some(..1) => ("min", 1),
        Some(4..) => ("max", 3),
        _ => return Ok(()),
    };
    Err(bad_request(format!(
        "error 400: 1 error occurred:\n\t* validation failed on field 'CreateScheduledWorkflowRunForWorkflowOpts.Priority': on condition '{limit}' [ {number} ]: got invalid type\n\n"
    )))
}

async fn list(OfTenant(api): OfTenant, query: Query) -> RestResult {
    let (page, metadata) = (Page::parse(&query)?, metadata_filter(query.all("additionalMetadata"))?);
    let workflow = query.ids("workflowId")?.first().copied();
    // The server compares it with the schedule's own id, so it has no effect.
    let parent = query.ids("parentWorkflowRunId")?.first().copied();
    let statuses: Vec<_> = query.all("statuses").map(str::to_owned).collect();
    let by_creation = query.first("orderByField") == Some("createdAt");
    let ascending = query.first("orderByDirection") == Some("ASC");
    let found = api
        .core
        .call(move |core, _| {
            let mut all = matching(core, workflow, &metadata);
            all.retain(|schedule| parent.is_none_or(|parent| schedule.id == parent));
            all.retain(|_| statuses.is_empty() || statuses.iter().any(|status| status == "SCHEDULED"));
            all.sort_by_key(|schedule| Reverse(if by_creation { schedule.created } else { schedule.at }));
            if ascending {
                all.reverse();
            }
            page.of(&all, |schedule| Row::new(core, schedule))
        })
        .await?;
    Ok(found.render(|row| row.render()))
}

fn matching<'a>(core: &'a Core, workflow: Option<Uuid>, metadata: &MetadataFilter) -> Vec<&'a Arc<Schedule>> {
    let mut all = core.all_schedules();
    all.retain(|schedule| {
        let own = core.latest(&schedule.run.workflow).map(|version| version.workflow);
        metadata.matches(schedule.run.metadata.as_ref()) && workflow.is_none_or(|workflow| own == Some(workflow))
    });
    all
}

/// Checks in the server's order: the tenant, the id, the schedule.
async fn find(request: &OfOne) -> Result<(Uuid, Row), Rejection> {
    request
        .find("scheduled workflow run", NOT_FOUND, |core, id, _| {
            core.find_schedule(id).map(|found| Row::new(core, found))
        })
        .await
}

async fn one(request: OfOne) -> RestResult {
    Ok(respond(&find(&request).await?.1.render()))
}

async fn reschedule(request: OfOne, bytes: Bytes) -> RestResult {
    let (schedule, _) = find(&request).await?;
    let at = time(&body(&bytes)?)?.ok_or(Rejection::INTERNAL)?;
    let moved = request
        .api
        .core
        .call(move |core, turn| {
            core.reschedule(turn, schedule, at);
            core.find_schedule(schedule).map(|found| Row::new(core, found))
        })
        .await?;
    Ok(respond(&moved.ok_or(NOT_FOUND)?.render()))
}

async fn delete(request: OfOne) -> RestResult {
    let (schedule, _) = find(&request).await?;
    request.api.core.call(move |core, _| core.delete_schedule(schedule)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn start(request: OfOne) -> RestResult {
    let (schedule, _) = find(&request).await?;
    let run = request.api.core.call(move |core, turn| core.start_scheduled(turn, schedule)).await?;
    Ok(respond(&json!({"externalId": run.ok_or(Rejection::INTERNAL)?.to_string()})))
}

async fn bulk_delete(OfTenant(api): OfTenant, bytes: Bytes) -> RestResult {
    let body = body(&bytes)?;
    let ids = given(&body, "scheduledWorkflowRunIds").map(|ids| uuids(&ids)).transpose()?;
    let filter = given(&body, "filter");
    let ids = match (ids, filter) {
        (Some(_), Some(_)) => {
            return Err(bad_request("Provide either scheduledWorkflowRunIds or filter, not both."));
        }
        (None, None) => return Err(bad_request("Provide scheduledWorkflowRunIds or filter.")),
        (Some(ids), None) => Ok(ids),
        (None, Some(filter)) => {
            let workflow = given(&filter, "workflowId").map(|id| uuids(&json!([id]))).transpose()?;
            let metadata = given(&filter, "additionalMetadata").unwrap_or_default();
            let metadata = metadata_filter(metadata.as_array().into_iter().flatten().filter_map(Value::as_str))?;
            Err((workflow.and_then(|ids| ids.first().copied()), metadata))
        }
    };
    let (deleted, missing) = api
        .core
        .call(move |core, _| {
            let ids = ids.unwrap_or_else(|(workflow, metadata)| {
                matching(core, workflow, &metadata).into_iter().map(|schedule| schedule.id).collect()
            });
            ids.into_iter().partition::<Vec<_>, _>(|id| core.delete_schedule(*id))
        })
        .await?;
    Ok(respond(
        &json!({"deletedIds": texts(&deleted), "errors": errors(&missing, "Failed to delete scheduled workflow.")}),
    ))
}

async fn bulk_update(OfTenant(api): OfTenant, bytes: Bytes) -> RestResult {
    let body = body(&bytes)?;
    let mut updates = Vec::new();
    for update in body.get("updates").and_then(Value::as_array).into_iter().flatten() {
        let ids = uuids(&json!([update.get("id")]))?;
        updates.push((ids.first().copied().unwrap_or_default(), time(update)?.ok_or(Rejection::INTERNAL)?));
    }
    let (moved, missing): (Vec<_>, Vec<_>) = api
        .core
        .call(move |core, turn| updates.into_iter().partition(|(id, at)| core.reschedule(turn, *id, *at)))
        .await?;
    let ids = |updates: Vec<(Uuid, At)>| updates.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    Ok(respond(&json!({
        "updatedIds": texts(&ids(moved)), "errors": errors(&ids(missing), "Scheduled workflow not found."),
    })))
}

fn uuids(ids: &Value) -> Result<Vec<Uuid>, Rejection> {
    let parse = |id: &Value| {
        go_uuid(id.as_str().unwrap_or_default()).map_err(|problem| Rejection::message(StatusCode::BAD_REQUEST, problem))
    };
    ids.as_array().into_iter().flatten().map(parse).collect()
}

fn texts(ids: &[Uuid]) -> Vec<String> {
    ids.iter().map(Uuid::to_string).collect()
}

fn errors(ids: &[Uuid], error: &str) -> Vec<Value> {
    ids.iter().map(|id| json!({"id": id.to_string(), "error": error})).collect()
}
