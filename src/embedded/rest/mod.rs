//! The REST routes. Each response is read from the core in one turn, so that it is consistent.

// Numbers in requests are untrusted.
#![warn(clippy::arithmetic_side_effects)]

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
mod rows;
mod schedules;
mod server;
mod start;
#[cfg(test)]
mod tests;
mod workers;
mod workflows;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{CONTENT_TYPE, DATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use uuid::Uuid;

use self::query::Query;
use self::request::{Authorization, OfTenant};
use super::actor::Handle;
use super::core::Core;
use super::core::store::RunIx;
use super::core::store::{At, StatusError};
use super::faults::{self, Faults};
use crate::time::Clock;
use crate::transport::PUSHBACK;

/// The maximum size of a request body. It is above the limits of the routes, which have error texts of their own.
const MAX_BODY_BYTES: usize = 16 << 20;

/// The state that all routes share.
#[derive(Clone)]
struct RestApi {
    core: Handle,
    tenant: Uuid,
    token: Arc<str>,
    /// When the engine was started.
    started: At,
}

/// All routes. The order of checks is the engine's: the path's ids, then whether they exist, and only then the token.
pub(super) fn router(core: Handle, tenant: Uuid, token: Arc<str>, faults: Faults) -> Router {
    let started = core.clock.now();
    let tenant_routes = Router::new()
        .route("/api/v1/stable/tenants/{tenant}/workflow-runs", get(runs))
        .route("/api/v1/stable/tenants/{tenant}/task-metrics", get(metrics))
        .route("/api/v1/stable/tenants/{tenant}/tasks/cancel", post(bulk::cancel))
        .route("/api/v1/stable/tenants/{tenant}/tasks/replay", post(bulk::replay))
        .route("/api/v1/stable/tenants/{tenant}/workflow-runs/trigger", post(start::start));
    let api = RestApi { core: core.clone(), tenant, token, started };
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

/// An error response in one of the engine's two formats: a message, or a list of descriptions.
enum Rejection {
    Message(StatusCode, Cow<'static, str>),
    Description(StatusCode, Cow<'static, str>),
    /// The engine has stopped.
    Stopped(String),
}

impl Rejection {
    const NOT_FOUND: Self = Self::Message(StatusCode::NOT_FOUND, Cow::Borrowed("not found"));
    const INTERNAL: Self = Self::Message(StatusCode::INTERNAL_SERVER_ERROR, Cow::Borrowed("Internal Server Error"));

    fn message(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self::Message(status, text.into())
    }

    fn description(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self::Description(status, text.into())
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let (status, body) = match self {
            Self::Message(status, message) => (status, json!({ "message": message })),
            Self::Description(status, description) => (status, json!({ "errors": [{ "description": description }] })),
            Self::Stopped(message) => {
                let body = json!({ "message": message }).to_string();
                return (StatusCode::SERVICE_UNAVAILABLE, [(PUSHBACK, "-1")], body).into_response();
            }
        };
        (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
    }
}

impl From<StatusError> for Rejection {
    fn from(error: StatusError) -> Self {
        Self::Stopped(error.message)
    }
}

type RestResult = Result<Response, Rejection>;

fn respond(body: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

impl RestApi {
    /// Reads what a request is about, and then checks the token: whether something exists is answered without a valid token, too.
    async fn find_and_authorize<T: Send + 'static>(
        &self,
        authorization: &Authorization,
        missing: Rejection,
        read: impl FnOnce(&Core, At) -> Option<T> + Send + 'static,
    ) -> Result<T, Rejection> {
        let found = self.core.call(move |core, turn| read(core, turn.now)).await?.ok_or(missing)?;
        self.check(authorization)?;
        Ok(found)
    }

    /// The response to a request about a known run. It is rendered from a snapshot of the run, outside of the core's task.
    async fn of_run(
        &self,
        authorization: &Authorization,
        run: impl FnOnce(&Core, At) -> Option<RunIx> + Send + 'static,
        render: impl FnOnce(&Core, At) -> Option<Value>,
    ) -> RestResult {
        let read = move |core: &Core, now| Some((core.snapshot([run(core, now)?]), now));
        let (snapshot, now) = self.find_and_authorize(authorization, Rejection::NOT_FOUND, read).await?;
        Ok(respond(&render(&snapshot, now).ok_or(Rejection::NOT_FOUND)?))
    }

    fn check(&self, authorization: &Authorization) -> Result<(), Rejection> {
        let token = authorization.0.as_deref().and_then(|header| header.strip_prefix("Bearer "));
        if token == Some(&*self.token) {
            Ok(())
        } else {
            Err(Rejection::message(StatusCode::FORBIDDEN, faults::INVALID_CREDENTIALS))
        }
    }

    /// The tenant of a path.
    fn find_tenant(&self, text: &str) -> Result<(), Rejection> {
        if id(text, "tenant")? == self.tenant { Ok(()) } else { Err(Rejection::NOT_FOUND) }
    }
}

fn id(text: &str, what: &str) -> Result<Uuid, Rejection> {
    text.parse().map_err(|_| Rejection::message(StatusCode::BAD_REQUEST, format!("invalid {what} id")))
}

async fn run(State(api): State<RestApi>, Path(run): Path<String>, authorization: Authorization) -> RestResult {
    let run = id(&run, "workflow run")?;
    let details = move |core: &Core, now| Some(json::run_details(core, core.rest_run(run, now)?, now));
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
    let timings = move |core: &Core, now| Some(json::timings(core, core.rest_run(run, now)?, depth));
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
        Ordering::Equal => Ok(respond(&json::task_details(&snapshot, run, task, children))),
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
        Some(json!({"pagination": {}, "rows": json::events(core, run, task, now, offset, limit)}))
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
