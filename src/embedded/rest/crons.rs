//! Crons.

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
use crate::embedded::core::Core;
use crate::embedded::core::store::{At, Code, Cron, CronSpec};

pub(super) fn routes() -> Router<RestApi> {
    Router::new()
        .route("/api/v1/tenants/{tenant}/workflows/{workflow}/crons", post(create))
        .route("/api/v1/tenants/{tenant}/workflows/crons", get(list))
        .route("/api/v1/tenants/{tenant}/workflows/crons/{cron}", get(one).patch(enable).delete(delete).post(start))
}

/// The parts of a cron that a response shows.
struct Row {
    tenant: Uuid,
    id: Uuid,
    created: At,
    spec: Arc<CronSpec>,
    from_definition: bool,
    enabled: bool,
    /// The workflow and its latest version.
    version: Option<(Uuid, Uuid)>,
}

impl Row {
    fn new(core: &Core, cron: &Cron) -> Self {
        let Cron { id, created, from_definition, enabled, .. } = *cron;
        let version = core.latest(&cron.spec.workflow).map(|version| (version.workflow, version.id));
        Self { tenant: core.tenant, id, created, spec: Arc::clone(&cron.spec), from_definition, enabled, version }
    }

    fn render(&self) -> Value {
        let Self { tenant, id, created, spec, from_definition, enabled, version } = self;
        json!({
            "metadata": {"id": id.to_string(), "createdAt": millis(*created), "updatedAt": millis(*created)},
            "additionalMetadata": spec.metadata,
            "cron": spec.expression,
            "enabled": enabled,
            "input": spec.input.clone().filter(Value::is_object).unwrap_or_else(|| json!({})),
            "method": if *from_definition { "DEFAULT" } else { "API" },
            "name": spec.name,
            "priority": spec.priority.unwrap_or(1),
            "tenantId": tenant.to_string(),
            "workflowId": version.map(|(workflow, _)| workflow.to_string()),
            "workflowName": spec.workflow,
            "workflowVersionId": version.map(|(_, version)| version.to_string()),
        })
    }
}

async fn create(OfTenant(api): OfTenant, Path((_, workflow)): Path<(String, String)>, bytes: Bytes) -> RestResult {
    let body = body(&bytes)?;
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let priority = body.get("priority").and_then(Value::as_i64);
    let spec = CronSpec {
        workflow,
        name: text("cronName"),
        expression: text("cronExpression"),
        input: given(&body, "input"),
        metadata: given(&body, "additionalMetadata"),
        priority: priority.and_then(|priority| i32::try_from(priority).ok()),
    };
    let created = api
        .core
        .call(move |core, turn| {
            let is_known = !spec.name.is_empty() && core.latest(&spec.workflow).is_some();
            if is_known && priority.is_some_and(|priority| !(1..=3).contains(&priority)) {
                return Err(bad_request("error creating cron trigger"));
            }
            match core.create_cron(turn, spec) {
                Ok(id) => Ok(core.find_cron(id).map(|cron| Row::new(core, cron))),
                Err(error) if error.code == Code::InvalidArgument => Err(bad_request(error.message)),
                Err(error) => Err(Rejection::message(StatusCode::NOT_IMPLEMENTED, error.message)),
            }
        })
        .await?;
    Ok(respond(&created?.ok_or(Rejection::INTERNAL)?.render()))
}

async fn list(OfTenant(api): OfTenant, query: Query) -> RestResult {
    let (page, metadata) = (Page::parse(&query)?, metadata_filter(query.all("additionalMetadata"))?);
    let workflow = query.ids("workflowId")?.first().copied();
    let text = |name: &str| query.first(name).map(str::to_owned);
    let (workflow_name, name) = (text("workflowName"), text("cronName"));
    let by_name = query.first("orderByField") == Some("name");
    let ascending = query.first("orderByDirection") == Some("ASC");
    let found = api
        .core
        .call(move |core, _| {
            let mut all = core.all_crons();
            all.retain(|cron| {
                let own = core.latest(&cron.spec.workflow).map(|version| version.workflow);
                metadata.matches(cron.spec.metadata.as_ref())
                    && workflow.is_none_or(|workflow| own == Some(workflow))
                    && workflow_name.as_ref().is_none_or(|name| *name == cron.spec.workflow)
                    && name.as_ref().is_none_or(|name| *name == cron.spec.name)
            });
            if by_name {
                all.sort_by(|one, other| one.spec.workflow.cmp(&other.spec.workflow));
            }
            if !ascending {
                all.reverse();
            }
            page.of(&all, |cron| Row::new(core, cron))
        })
        .await?;
    Ok(found.render(|row| row.render()))
}

/// For an unknown cron, the server returns 500.
async fn find(request: &OfOne) -> Result<(Uuid, Row), Rejection> {
    request
        .find("cron workflow", Rejection::INTERNAL, |core, id, _| core.find_cron(id).map(|found| Row::new(core, found)))
        .await
}

async fn one(request: OfOne) -> RestResult {
    Ok(respond(&find(&request).await?.1.render()))
}

async fn enable(request: OfOne, bytes: Bytes) -> RestResult {
    let (cron, _) = find(&request).await?;
    if let Some(enabled) = body(&bytes)?.get("enabled").and_then(Value::as_bool) {
        request.api.core.call(move |core, turn| core.enable_cron(turn, cron, enabled)).await?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn delete(request: OfOne) -> RestResult {
    let (cron, _) = find(&request).await?;
    request.api.core.call(move |core, _| core.delete_cron(cron)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn start(request: OfOne) -> RestResult {
    let (cron, _) = find(&request).await?;
    let run = request.api.core.call(move |core, turn| core.start_cron(turn, cron, turn.now)).await?;
    Ok(respond(&json!({"externalId": run.ok_or(Rejection::INTERNAL)?.to_string()})))
}
