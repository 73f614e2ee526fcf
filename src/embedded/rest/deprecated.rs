//! Operations of Hatchet v0. The server still has their routes and rejects all of them.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{MethodFilter, on};

use super::api::RestApi;
use super::request::OfTenant;
use super::response::{Rejection, RestResult};
use super::workflows::KnownWorkflow;

const DELETE: MethodFilter = MethodFilter::DELETE;
const GET: MethodFilter = MethodFilter::GET;
const POST: MethodFilter = MethodFilter::POST;

/// Rejected after the tenant and the token were checked, with these messages.
const OF_TENANT: &[(MethodFilter, &str, &str)] = &[
    (GET, "/api/v1/tenants/{tenant}/events", "EventList is deprecated"),
    (POST, "/api/v1/tenants/{tenant}/events", "EventCreate is deprecated"),
    (POST, "/api/v1/tenants/{tenant}/events/bulk", "EventCreateBulk is deprecated"),
    (
        POST,
        "/api/v1/tenants/{tenant}/events/cancel",
        "EventUpdateCancel is deprecated; please use V1TaskCancel instead",
    ),
    (GET, "/api/v1/tenants/{tenant}/events/keys", "EventKeyList is deprecated"),
    (POST, "/api/v1/tenants/{tenant}/events/replay", "EventUpdateReplay is deprecated"),
    (GET, "/api/v1/tenants/{tenant}/queue-metrics", "TenantGetQueueMetrics is deprecated"),
    (GET, "/api/v1/tenants/{tenant}/webhook-workers", "WebhookList is deprecated"),
    (POST, "/api/v1/tenants/{tenant}/webhook-workers", "WebhookCreate is deprecated"),
    (
        POST,
        "/api/v1/tenants/{tenant}/workflow-runs/replay",
        "WorkflowRunUpdateReplay is deprecated; please use V1TaskReplay instead",
    ),
    (
        GET,
        "/api/v1/tenants/{tenant}/workflow-runs/{workflow-run}/step-run-events",
        "WorkflowRunListStepRunEvents is deprecated",
    ),
    (
        POST,
        "/api/v1/tenants/{tenant}/workflows/cancel",
        "WorkflowRunCancel is deprecated; please use V1TaskCancel instead",
    ),
    (
        GET,
        "/api/v1/tenants/{tenant}/workflows/runs",
        "WorkflowRunList is deprecated; please use V1WorkflowRunList instead",
    ),
    (GET, "/api/v1/tenants/{tenant}/workflows/runs/metrics", "WorkflowRunGetMetrics is deprecated"),
];

/// About runs, steps and webhooks of v0: rejected without a lookup, and before the token is checked.
const OF_NOTHING: &[(MethodFilter, &str)] = &[
    (GET, "/api/v1/step-runs/{step-run}/archives"),
    (GET, "/api/v1/step-runs/{step-run}/events"),
    (GET, "/api/v1/tenants/{tenant}/step-runs/{step-run}"),
    (POST, "/api/v1/tenants/{tenant}/step-runs/{step-run}/cancel"),
    (POST, "/api/v1/tenants/{tenant}/step-runs/{step-run}/rerun"),
    (GET, "/api/v1/tenants/{tenant}/step-runs/{step-run}/schema"),
    (GET, "/api/v1/tenants/{tenant}/workflow-runs/{workflow-run}"),
    (GET, "/api/v1/tenants/{tenant}/workflow-runs/{workflow-run}/input"),
    (GET, "/api/v1/tenants/{tenant}/workflow-runs/{workflow-run}/shape"),
    (DELETE, "/api/v1/webhook-workers/{webhook}"),
    (GET, "/api/v1/webhook-workers/{webhook}/requests"),
];

/// Rejected after the workflow was found. Without a message, the server answers 500.
const OF_WORKFLOW: &[(MethodFilter, &str, Option<&str>)] = &[
    (GET, "/api/v1/tenants/{tenant}/workflows/{workflow}/worker-count", None),
    (GET, "/api/v1/workflows/{workflow}/metrics", None),
    (
        POST,
        "/api/v1/workflows/{workflow}/trigger",
        Some("WorkflowRunCreate is deprecated; please use V1WorkflowRunCreate instead"),
    ),
];

pub(super) fn routes() -> Router<RestApi> {
    let mut router = Router::new();
    for (method, path, text) in OF_TENANT {
        router = router.route(path, on(*method, async |_: OfTenant| rejected(text)));
    }
    for (method, path) in OF_NOTHING {
        router = router.route(path, on(*method, of_nothing));
    }
    for (method, path, text) in OF_WORKFLOW {
        let reject = async |_: KnownWorkflow| text.map_or(Err(Rejection::INTERNAL), rejected);
        router = router.route(path, on(*method, reject));
    }
    router
}

fn rejected(text: &'static str) -> RestResult {
    Err(Rejection::description(StatusCode::BAD_REQUEST, text))
}

async fn of_nothing(State(api): State<RestApi>, Path(names): Path<BTreeMap<String, String>>) -> RestResult {
    if let Some(tenant) = names.get("tenant") {
        api.find_tenant(tenant)?;
    }
    Err(Rejection::message(StatusCode::BAD_REQUEST, "This endpoint is deprecated."))
}
