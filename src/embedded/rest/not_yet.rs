//! Operations of the REST contract that are not implemented. Each answers 501 with its operation id, so that a missing feature
//! does not look like a missing route.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{MethodFilter, on};

use super::api::RestApi;
use super::response::{Rejection, RestResult};

const DELETE: MethodFilter = MethodFilter::DELETE;
const GET: MethodFilter = MethodFilter::GET;
const PATCH: MethodFilter = MethodFilter::PATCH;
const POST: MethodFilter = MethodFilter::POST;

/// By the operation ids of the contract.
const OPERATIONS: &[(&str, MethodFilter, &str)] = &[
    ("alert-email-group:create", POST, "/api/v1/tenants/{tenant}/alerting-email-groups"),
    ("alert-email-group:delete", DELETE, "/api/v1/alerting-email-groups/{alert-email-group}"),
    ("alert-email-group:list", GET, "/api/v1/tenants/{tenant}/alerting-email-groups"),
    ("alert-email-group:update", PATCH, "/api/v1/alerting-email-groups/{alert-email-group}"),
    ("api-token:create", POST, "/api/v1/tenants/{tenant}/api-tokens"),
    ("api-token:list", GET, "/api/v1/tenants/{tenant}/api-tokens"),
    ("api-token:update:revoke", POST, "/api/v1/api-tokens/{api-token}"),
    ("event-data:get", GET, "/api/v1/events/{event}/data"),
    ("event-data:get-with-tenant", GET, "/api/v1/tenants/{tenant}/events/{event-with-tenant}/data"),
    ("event:get", GET, "/api/v1/events/{event}"),
    ("metadata:list:integrations", GET, "/api/v1/meta/integrations"),
    ("monitoring:post:runProbe", POST, "/api/v1/monitoring/{tenant}/probe"),
    ("slack-webhook:delete", DELETE, "/api/v1/slack/{slack}"),
    ("slack-webhook:list", GET, "/api/v1/tenants/{tenant}/slack"),
    ("sns:create", POST, "/api/v1/tenants/{tenant}/sns"),
    ("sns:delete", DELETE, "/api/v1/sns/{sns}"),
    ("sns:list", GET, "/api/v1/tenants/{tenant}/sns"),
    ("sns:update", POST, "/api/v1/sns/{tenant}/{event}"),
    ("tenant-alerting-settings:get", GET, "/api/v1/tenants/{tenant}/alerting/settings"),
    ("tenant-invite:accept", POST, "/api/v1/users/invites/accept"),
    ("tenant-invite:create", POST, "/api/v1/tenants/{tenant}/invites"),
    ("tenant-invite:delete", DELETE, "/api/v1/tenants/{tenant}/invites/{tenant-invite}"),
    ("tenant-invite:list", GET, "/api/v1/tenants/{tenant}/invites"),
    ("tenant-invite:reject", POST, "/api/v1/users/invites/reject"),
    ("tenant-invite:update", PATCH, "/api/v1/tenants/{tenant}/invites/{tenant-invite}"),
    ("tenant-member:delete", DELETE, "/api/v1/tenants/{tenant}/members/{member}"),
    ("tenant-member:list", GET, "/api/v1/tenants/{tenant}/members"),
    ("tenant-member:update", PATCH, "/api/v1/tenants/{tenant}/members/{member}"),
    ("tenant-memberships:list", GET, "/api/v1/users/memberships"),
    ("tenant-resource-policy:get", GET, "/api/v1/tenants/{tenant}/resource-policy"),
    ("tenant:create", POST, "/api/v1/tenants"),
    ("tenant:feature-flag:evaluate", GET, "/api/v1/tenants/{tenant}/feature-flags"),
    ("tenant:get:prometheus-metrics", GET, "/api/v1/tenants/{tenant}/prometheus-metrics"),
    ("tenant:get:step-run-queue-metrics", GET, "/api/v1/tenants/{tenant}/step-run-queue-metrics"),
    ("tenant:get:task-stats", GET, "/api/v1/tenants/{tenant}/task-stats"),
    ("tenant:update", PATCH, "/api/v1/tenants/{tenant}"),
    ("user:create", POST, "/api/v1/users/register"),
    ("user:get:current", GET, "/api/v1/users/current"),
    ("user:list:tenant-invites", GET, "/api/v1/users/invites"),
    ("user:update:github-oauth-callback", GET, "/api/v1/users/github/callback"),
    ("user:update:github-oauth-start", GET, "/api/v1/users/github/start"),
    ("user:update:google-oauth-callback", GET, "/api/v1/users/google/callback"),
    ("user:update:google-oauth-start", GET, "/api/v1/users/google/start"),
    ("user:update:login", POST, "/api/v1/users/login"),
    ("user:update:logout", POST, "/api/v1/users/logout"),
    ("user:update:password", POST, "/api/v1/users/password"),
    ("user:update:slack-oauth-callback", GET, "/api/v1/users/slack/callback"),
    ("user:update:slack-oauth-start", GET, "/api/v1/tenants/{tenant}/slack/start"),
    ("v1-dag:list:tasks", GET, "/api/v1/stable/dags/tasks"),
    ("v1-durable-task:branch", POST, "/api/v1/stable/tenants/{tenant}/durable-tasks/branch"),
    ("v1-durable-task:event-log:list", GET, "/api/v1/stable/tenants/{tenant}/durable-tasks/{durable-task}"),
    ("v1-http-operator:create", POST, "/api/v1/stable/tenants/{tenant}/operators/http"),
    ("v1-http-operator:delete", DELETE, "/api/v1/stable/operators/http/{v1-http-operator}"),
    ("v1-http-operator:get", GET, "/api/v1/stable/operators/http/{v1-http-operator}"),
    ("v1-http-operator:list", GET, "/api/v1/stable/tenants/{tenant}/operators/http"),
    ("v1-http-operator:update", PATCH, "/api/v1/stable/operators/http/{v1-http-operator}"),
    ("v1-observability:get-trace", GET, "/api/v1/stable/tenants/{tenant}/traces"),
    ("v1-task:get:point-metrics", GET, "/api/v1/stable/tenants/{tenant}/task-point-metrics"),
    ("v1-task:restore", POST, "/api/v1/stable/tasks/{task}/restore"),
    ("v1-tenant-log-line:get:point-metrics", GET, "/api/v1/stable/tenants/{tenant}/log-point-metrics"),
    ("v1-tenant-log-line:list", GET, "/api/v1/stable/tenants/{tenant}/logs"),
    ("v1-webhook:create", POST, "/api/v1/stable/tenants/{tenant}/webhooks"),
    ("v1-webhook:delete", DELETE, "/api/v1/stable/tenants/{tenant}/webhooks/{v1-webhook}"),
    ("v1-webhook:get", GET, "/api/v1/stable/tenants/{tenant}/webhooks/{v1-webhook}"),
    ("v1-webhook:list", GET, "/api/v1/stable/tenants/{tenant}/webhooks"),
    ("v1-webhook:receive", POST, "/api/v1/stable/tenants/{tenant}/webhooks/{v1-webhook}"),
    ("v1-webhook:update", PATCH, "/api/v1/stable/tenants/{tenant}/webhooks/{v1-webhook}"),
    ("v1-workflow-run:display-names:list", GET, "/api/v1/stable/tenants/{tenant}/workflow-runs/display-names"),
    ("v1-workflow-run:external-ids:list", GET, "/api/v1/stable/tenants/{tenant}/workflow-runs/external-ids"),
    ("workflow-version:get", GET, "/api/v1/workflows/{workflow}/versions"),
];

pub(super) fn routes() -> Router<RestApi> {
    OPERATIONS.iter().fold(Router::new(), |router, (operation, method, path)| {
        router.route(path, on(*method, async || -> RestResult { Err(rejection(operation)) }))
    })
}

/// The response of an operation that is not implemented.
fn rejection(operation: &str) -> Rejection {
    let text = format!("the embedded engine does not implement {operation} yet");
    Rejection::message(StatusCode::NOT_IMPLEMENTED, text)
}
