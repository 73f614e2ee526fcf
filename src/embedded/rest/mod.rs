//! The REST routes. Each response is read from the core in one turn, so that it is consistent.

// Numbers in requests are untrusted.
#![warn(clippy::arithmetic_side_effects)]

mod api;
mod body;
mod bulk;
mod cel;
mod config;
mod crons;
mod dag;
mod deprecated;
mod events;
mod filters;
mod json;
mod list;
mod not_yet;
mod paging;
mod query;
mod rate_limits;
mod request;
mod response;
mod rows;
mod run;
mod schedules;
mod server;
mod start;
mod task;
#[cfg(test)]
mod tests;
mod workers;
mod workflows;

use std::cmp::Ordering;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{CONTENT_TYPE, DATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use uuid::Uuid;

use self::api::{Authorization, RestApi, id};
use self::query::Query;
use self::request::OfTenant;
use self::response::{Rejection, RestResult, respond};
use super::actor::Handle;
use super::core::Core;
use super::faults::{self, Faults};
use crate::time::Clock;

/// All routes. The order of checks is the engine's: the path's ids, then whether they exist, and only then the token.
pub(super) fn router(core: Handle, tenant: Uuid, token: Arc<str>, faults: Faults) -> Router {
    let tenant_routes = Router::new()
        .route("/api/v1/stable/tenants/{tenant}/workflow-runs", get(runs))
        .route("/api/v1/stable/tenants/{tenant}/task-metrics", get(metrics))
        .route("/api/v1/stable/tenants/{tenant}/tasks/cancel", post(bulk::cancel))
        .route("/api/v1/stable/tenants/{tenant}/tasks/replay", post(bulk::replay))
        .route("/api/v1/stable/tenants/{tenant}/workflow-runs/trigger", post(start::start));
    let api = RestApi::new(core.clone(), tenant, token);
    let clock = core.clock.clone();
    Router::new()
        .merge(tenant_routes)
        .merge(events::routes())
        .merge(schedules::routes())
        .merge(crons::routes())
        .merge(filters::routes())
        .merge(workflows::routes())
        .merge(workers::routes())
        .merge(rate_limits::routes())
        .merge(cel::routes())
        .merge(server::routes())
        .merge(deprecated::routes())
        .merge(not_yet::routes())
        .route("/api/v1/stable/workflow-runs/{run}", get(run))
        .route("/api/v1/stable/workflow-runs/{run}/status", get(run_status))
        .route("/api/v1/stable/workflow-runs/{run}/task-events", get(run_task_events))
        .route("/api/v1/stable/workflow-runs/{run}/task-timings", get(task_timings))
        .route("/api/v1/stable/tasks/{task}", get(task))
        .route("/api/v1/stable/tasks/{task}/task-events", get(task_events))
        .route("/api/v1/stable/tasks/{task}/logs", get(logs))
        .route_layer(middleware::from_fn_with_state(api.clone(), request::read_body))
        .route_layer(middleware::from_fn_with_state((faults, core), faults::over_rest))
        // The body has been read before.
        .layer(DefaultBodyLimit::disable())
        .method_not_allowed_fallback(unknown)
        .fallback(unknown)
        .layer(middleware::map_response_with_state(clock, dated))
        .with_state(api)
}

/// Adds the time of the engine's clock, as the engine's HTTP server does. The time of the system can be another one.
async fn dated(State(clock): State<Clock>, mut response: Response) -> Response {
    let date = clock.now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(date) = HeaderValue::try_from(date) {
        response.headers_mut().insert(DATE, date);
    }
    response
}

async fn run(State(api): State<RestApi>, Path(run): Path<String>, authorization: Authorization) -> RestResult {
    let run = id(&run, "workflow run")?;
    let details = move |core: &Core, now| Some(run::details(core, core.rest_run(run, now)?, now));
    api.of_run(&authorization, move |core, now| Some(core.rest_run(run, now)?.ix), details).await
}

async fn run_status(State(api): State<RestApi>, Path(run): Path<String>, authorization: Authorization) -> RestResult {
    let run = id(&run, "workflow run")?;
    let status = move |core: &Core, now| Some(core.rest_run_status(core.rest_run(run, now)?, now).name());
    Ok(respond(&api.find_and_authorize(&authorization, Rejection::NOT_FOUND, status).await?.into()))
}

async fn run_task_events(
    State(api): State<RestApi>,
    Path(run): Path<String>,
    authorization: Authorization,
) -> RestResult {
    let run = id(&run, "workflow run")?;
    let events = move |core: &Core, now| {
        let run = core.rest_run(run, now)?;
        // Always empty for a single-task run.
        let rows = if run.dag.is_some() { dag::events(core, run, now) } else { Vec::new() };
        Some(json!({"pagination": {}, "rows": rows}))
    };
    api.of_run(&authorization, move |core, now| Some(core.rest_run(run, now)?.ix), events).await
}

async fn task_timings(
    State(api): State<RestApi>,
    Path(run): Path<String>,
    query: Query,
    authorization: Authorization,
) -> RestResult {
    let run = id(&run, "workflow run")?;
    let depth = query.number("depth")?.unwrap_or(0);
    if depth > 10 {
        return Err(Rejection::description(StatusCode::BAD_REQUEST, "depth must be less than or equal to 10"));
    }
    let exists = move |core: &Core, now| core.rest_run(run, now).map(drop);
    api.find_and_authorize(&authorization, Rejection::NOT_FOUND, exists).await?;
    // The timings of all children can be many, so they are read only with a valid token.
    let timings = move |core: &Core, now| Some(run::timings(core, core.rest_run(run, now)?, depth));
    let found = api.core.call(move |core, turn| timings(core, turn.now)).await?;
    Ok(respond(&found.ok_or(Rejection::NOT_FOUND)?))
}

async fn task(
    State(api): State<RestApi>,
    Path(task): Path<String>,
    query: Query,
    authorization: Authorization,
) -> RestResult {
    let task = id(&task, "task")?;
    let attempt = query.number("attempt")?;
    if attempt == Some(0) {
        return Err(Rejection::message(StatusCode::BAD_REQUEST, "Attempt must be greater than 0"));
    }
    let read = move |core: &Core, now| {
        let (run, _) = core.rest_task(task, now)?;
        Some((core.snapshot([run.ix]), core.children(task).count(), now))
    };
    let (snapshot, children, now) = api.find_and_authorize(&authorization, Rejection::NOT_FOUND, read).await?;
    let (run, task) = snapshot.rest_task(task, now).ok_or(Rejection::NOT_FOUND)?;
    let last = usize::try_from(json::attempt_of(task.retry_count)).unwrap_or_default();
    match attempt.unwrap_or(last).cmp(&last) {
        Ordering::Equal => Ok(respond(&task::details(&snapshot, run, task, children))),
        Ordering::Greater => Err(Rejection::INTERNAL),
        Ordering::Less => Err(Rejection::message(
            StatusCode::NOT_IMPLEMENTED,
            "the embedded engine does not implement earlier attempts yet",
        )),
    }
}

async fn task_events(
    State(api): State<RestApi>,
    Path(task): Path<String>,
    query: Query,
    authorization: Authorization,
) -> RestResult {
    let task = id(&task, "task")?;
    // Without a limit, the server returns no rows.
    let limit = query.limit()?.unwrap_or(0);
    let offset = query.number("offset")?.unwrap_or(0);
    let events = move |core: &Core, now| {
        let (run, task) = core.rest_task(task, now)?;
        Some(json!({"pagination": {}, "rows": task::events(core, run, task, now, offset, limit)}))
    };
    api.of_run(&authorization, move |core, now| Some(core.rest_task(task, now)?.0.ix), events).await
}

async fn logs(
    State(api): State<RestApi>,
    Path(task): Path<String>,
    query: Query,
    authorization: Authorization,
) -> RestResult {
    let task = id(&task, "task")?;
    let query = list::Logs::parse(&query)?;
    let lines = move |core: &Core, now| query.respond(core, core.rest_task(task, now)?);
    api.of_run(&authorization, move |core, now| Some(core.rest_task(task, now)?.0.ix), lines).await
}

async fn runs(OfTenant(api): OfTenant, query: Query) -> RestResult {
    let query = list::Runs::parse_list(&query)?;
    let page = api.core.call(move |core, turn| query.find(core, turn.now)).await?;
    Ok(page.render())
}

async fn metrics(OfTenant(api): OfTenant, query: Query) -> RestResult {
    let query = list::Runs::parse(&query)?;
    let body = api.core.call(move |core, turn| query.count(core, turn.now)).await?;
    Ok(respond(&body))
}

/// The server's response to an unknown route or method.
async fn unknown() -> Response {
    (StatusCode::FORBIDDEN, [(CONTENT_TYPE, "application/json")], "null").into_response()
}
