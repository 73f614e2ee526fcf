//! The names of all calls, for fault injection.

/// The gRPC methods, by their names in the `.proto` files.
pub(super) const GRPC: &[&str] = &[
    "BranchDurableTask",
    "BulkPush",
    "BulkTriggerWorkflow",
    "CancelTasks",
    "DurableTask",
    "GetRunDetails",
    "GetVersion",
    "Heartbeat",
    "Listen",
    "ListenForDurableEvent",
    "ListenV2",
    "PauseRateLimit",
    "Push",
    "PutLog",
    "PutOverridesData",
    "PutRateLimit",
    "PutStreamEvent",
    "PutWorkflow",
    "RefreshTimeout",
    "Register",
    "RegisterDurableEvent",
    "ReleaseSlot",
    "ReplaySingleEvent",
    "ReplayTasks",
    "RestoreEvictedTask",
    "ScheduleWorkflow",
    "SendBatchActionEvent",
    "SendGroupKeyActionEvent",
    "SendStepActionEvent",
    "SubscribeToWorkflowEvents",
    "SubscribeToWorkflowRuns",
    "TriggerWorkflow",
    "TriggerWorkflowRun",
    "Unsubscribe",
    "UpsertWorkerLabels",
];

/// The methods that return a stream.
pub(super) const STREAMS: [&str; 6] = [
    "Listen",
    "ListenV2",
    "SubscribeToWorkflowEvents",
    "SubscribeToWorkflowRuns",
    "DurableTask",
    "ListenForDurableEvent",
];

/// Those of them whose request is a stream, too. Its client may be idle without a limit.
pub(super) const CLIENT_STREAMS: [&str; 3] = ["SubscribeToWorkflowRuns", "DurableTask", "ListenForDurableEvent"];

/// The REST routes.
pub(super) const REST: &[&str] = &[
    "GET /api/live",
    "GET /api/ready",
    "GET /api/v1/cloud/metadata",
    "GET /api/v1/meta",
    "GET /api/v1/stable/tasks/{task}",
    "GET /api/v1/stable/tasks/{task}/logs",
    "GET /api/v1/stable/tasks/{task}/task-events",
    "POST /api/v1/stable/tenants/{tenant}/cel/debug",
    "GET /api/v1/stable/tenants/{tenant}/events",
    "GET /api/v1/stable/tenants/{tenant}/events/keys",
    "GET /api/v1/stable/tenants/{tenant}/events/{event}",
    "GET /api/v1/stable/tenants/{tenant}/filters",
    "POST /api/v1/stable/tenants/{tenant}/filters",
    "DELETE /api/v1/stable/tenants/{tenant}/filters/{filter}",
    "GET /api/v1/stable/tenants/{tenant}/filters/{filter}",
    "PATCH /api/v1/stable/tenants/{tenant}/filters/{filter}",
    "GET /api/v1/stable/tenants/{tenant}/task-metrics",
    "POST /api/v1/stable/tenants/{tenant}/tasks/cancel",
    "POST /api/v1/stable/tenants/{tenant}/tasks/replay",
    "GET /api/v1/stable/tenants/{tenant}/workflow-runs",
    "POST /api/v1/stable/tenants/{tenant}/workflow-runs/trigger",
    "GET /api/v1/stable/workflow-runs/{run}",
    "GET /api/v1/stable/workflow-runs/{run}/status",
    "GET /api/v1/stable/workflow-runs/{run}/task-events",
    "GET /api/v1/stable/workflow-runs/{run}/task-timings",
    "GET /api/v1/tenants/{tenant}",
    "DELETE /api/v1/tenants/{tenant}/rate-limits",
    "GET /api/v1/tenants/{tenant}/rate-limits",
    "GET /api/v1/tenants/{tenant}/worker",
    "GET /api/v1/tenants/{tenant}/workflows",
    "GET /api/v1/tenants/{tenant}/workflows/crons",
    "DELETE /api/v1/tenants/{tenant}/workflows/crons/{cron}",
    "GET /api/v1/tenants/{tenant}/workflows/crons/{cron}",
    "PATCH /api/v1/tenants/{tenant}/workflows/crons/{cron}",
    "POST /api/v1/tenants/{tenant}/workflows/crons/{cron}",
    "GET /api/v1/tenants/{tenant}/workflows/scheduled",
    "POST /api/v1/tenants/{tenant}/workflows/scheduled/bulk-delete",
    "POST /api/v1/tenants/{tenant}/workflows/scheduled/bulk-update",
    "DELETE /api/v1/tenants/{tenant}/workflows/scheduled/{schedule}",
    "GET /api/v1/tenants/{tenant}/workflows/scheduled/{schedule}",
    "PATCH /api/v1/tenants/{tenant}/workflows/scheduled/{schedule}",
    "POST /api/v1/tenants/{tenant}/workflows/scheduled/{schedule}",
    "POST /api/v1/tenants/{tenant}/workflows/{workflow}/crons",
    "POST /api/v1/tenants/{tenant}/workflows/{workflow}/scheduled",
    "GET /api/v1/version",
    "GET /api/v1/workers/{worker}",
    "PATCH /api/v1/workers/{worker}",
    "DELETE /api/v1/workflows/{workflow}",
    "GET /api/v1/workflows/{workflow}",
    "PATCH /api/v1/workflows/{workflow}",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use http::Method;

    use super::*;
    use crate::embedded::Engine;

    /// The calls in the source of a file: each `.route(` is followed by a path and by the handlers of its methods. Operations that are
    /// always rejected have their paths in tables, and need no faults.
    fn routes(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for route in text.split(".route(").skip(1) {
            let Some(rest) = route.trim_start().strip_prefix('"') else { continue };
            let (path, rest) = rest.split_once('"').unwrap();
            let handlers = rest.split_once(")\n").map_or(rest, |(handlers, _)| handlers);
            for method in ["get", "post", "patch", "delete"] {
                let has_method = [" ", "."].iter().any(|before| handlers.contains(&format!("{before}{method}(")));
                found.extend(has_method.then(|| format!("{} {path}", method.to_uppercase())));
            }
        }
        found
    }

    #[test]
    fn the_list_has_each_route_of_the_source() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/embedded/rest");
        let mut all = BTreeSet::new();
        for file in std::fs::read_dir(directory).unwrap() {
            all.extend(routes(&std::fs::read_to_string(file.unwrap().path()).unwrap()));
        }
        let listed: BTreeSet<_> = REST.iter().map(|call| (*call).to_owned()).collect();
        assert_eq!(all, listed);
    }

    #[tokio::test(start_paused = true)]
    async fn each_listed_route_is_served() {
        let engine = Engine::start().await.unwrap();
        for call in REST {
            let (method, route) = call.split_once(' ').unwrap();
            let tenant = engine.tenant_id().to_string();
            let mut target = route.replace("{tenant}", &tenant);
            while let Some((head, tail)) = target.split_once('{') {
                target = format!("{head}{tenant}{}", tail.split_once('}').unwrap().1);
            }
            let method: Method = method.parse().unwrap();
            let (status, body) = engine.client().raw_rest(method, &target, None).await.unwrap();
            // An operation that is not served is 501, or 403 without a message.
            assert!(status != 501 && !(status == 403 && body == "null"), "{call}: {status}");
        }
        engine.shutdown().await;
    }
}
