//! Filters of events.

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};
use uuid::Uuid;

use super::api::RestApi;
use super::body::Typed;
use super::json::{extend, meta, timestamp};
use super::paging::bad_request;
use super::query::Query;
use super::request::{OfOne, OfTenant};
use super::response::{Rejection, RestResult, respond};
use super::rows::RowPage;
use crate::embedded::core::store::{Code, EventFilter, Filter, StatusError};

/// The default limit of a list.
const DEFAULT_LIMIT: usize = 20_000;

pub(super) fn routes() -> Router<RestApi> {
    Router::new()
        .route("/api/v1/stable/tenants/{tenant}/filters", get(list).post(create))
        .route("/api/v1/stable/tenants/{tenant}/filters/{filter}", get(one).patch(update).delete(delete))
}

fn show(tenant: Uuid, filter: &EventFilter) -> Value {
    let mut metadata = meta(filter.id, filter.created);
    extend(&mut metadata, json!({"updatedAt": timestamp(filter.updated)}));
    json!({
        "metadata": metadata,
        "expression": filter.content.expression.text,
        "isDeclarative": filter.from_definition,
        "payload": filter.content.payload,
        "scope": filter.content.scope,
        "tenantId": tenant.to_string(),
        "workflowId": filter.workflow.to_string(),
    })
}

/// Unsupported expressions are reported as such. For everything else, the server returns 500.
fn rejection(error: StatusError) -> Rejection {
    match error.code {
        Code::Unimplemented => Rejection::message(StatusCode::NOT_IMPLEMENTED, error.message),
        _ => Rejection::INTERNAL,
    }
}

async fn create(OfTenant(api): OfTenant, bytes: Bytes) -> RestResult {
    let body = Typed::parse(&bytes, "gen.V1CreateFilterRequest")?;
    let text = |name: &str| body.text(name).map(Option::unwrap_or_default);
    let payload = body.object("payload")?.unwrap_or_default();
    let workflow = body.id("workflowId")?.unwrap_or_default();
    let content = Filter::new(text("expression")?, text("scope")?, payload.into()).map_err(rejection)?;
    let tenant = api.tenant;
    let created = api
        .core
        .call(move |core, turn| core.create_filter(turn, workflow, content).map(|filter| show(tenant, filter)))
        .await?;
    Ok(respond(&created.map_err(rejection)?))
}

async fn list(OfTenant(api): OfTenant, query: Query) -> RestResult {
    let (offset, limit) = (query.number("offset")?.unwrap_or(0), query.limit()?.unwrap_or(DEFAULT_LIMIT));
    let page = offset.checked_div(limit).ok_or_else(|| bad_request("failed to list filters"))?;
    let (workflows, scopes) = (query.ids("workflowIds")?, query.all("scopes").map(str::to_owned).collect::<Vec<_>>());
    let tenant = api.tenant;
    let found = api
        .core
        .call(move |core, _| {
            let mut all = core.all_filters();
            all.retain(|filter| {
                (workflows.is_empty() || workflows.contains(&filter.workflow))
                    && (scopes.is_empty() || scopes.contains(&filter.content.scope))
            });
            // Pages are counted from zero, and there is always one more after the last.
            let pagination =
                json!({"current_page": page, "next_page": page.saturating_add(1), "num_pages": all.len().div_ceil(limit)});
            RowPage { pagination, rows: all.into_iter().skip(offset).take(limit).cloned().collect() }
        })
        .await?;
    Ok(found.render(move |filter| show(tenant, &filter)))
}

/// Checks that a filter exists, and then the token.
async fn find(request: &OfOne) -> Result<(Uuid, EventFilter), Rejection> {
    request.find("filter", Rejection::NOT_FOUND, |core, id, _| core.find_filter(id).cloned()).await
}

async fn one(request: OfOne) -> RestResult {
    Ok(respond(&show(request.api.tenant, &find(&request).await?.1)))
}

async fn update(request: OfOne, bytes: Bytes) -> RestResult {
    let (id, _) = find(&request).await?;
    let body = Typed::parse(&bytes, "gen.V1UpdateFilterRequest")?;
    let (expression, scope, payload) = (body.text("expression")?, body.text("scope")?, body.object("payload")?);
    let change = |old: Filter| {
        Filter::new(
            expression.unwrap_or(old.expression.text),
            scope.unwrap_or(old.scope),
            payload.map_or(old.payload, Value::Object),
        )
    };
    let tenant = request.api.tenant;
    let changed = request
        .api
        .core
        .call(move |core, turn| {
            core.update_filter(turn, id, change).map(|changed| changed.map(|filter| show(tenant, filter)))
        })
        .await?;
    Ok(respond(&changed.ok_or(Rejection::NOT_FOUND)?.map_err(rejection)?))
}

async fn delete(request: OfOne) -> RestResult {
    let (id, ..) = find(&request).await?;
    let tenant = request.api.tenant;
    let deleted =
        request.api.core.call(move |core, _| core.delete_filter(id).map(|filter| show(tenant, &filter))).await?;
    Ok(respond(&deleted.ok_or(Rejection::NOT_FOUND)?))
}
