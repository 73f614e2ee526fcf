//! Calls each documented REST operation and each RPC on the embedded engine. Each must respond like the server, or report that it is not
//! implemented, with its name. None may respond like a missing route or method.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use hatchet::embedded::Engine;
use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, Task};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

/// The REST operations with their documented statuses.
const REST: &str = include_str!("data/rest.tsv");
const GRPC: &str = include_str!("data/wire.tsv");

/// Operations of v0, which the server rejects.
const DEPRECATED: &[&str] = &[
    "event-key:list",
    "event:create",
    "event:create:bulk",
    "event:list",
    "event:update:cancel",
    "event:update:replay",
    "step-run:get",
    "step-run:get:schema",
    "step-run:list:archives",
    "step-run:list:events",
    "step-run:update:cancel",
    "step-run:update:rerun",
    "tenant:get:queue-metrics",
    "webhook-requests:list",
    "webhook:create",
    "webhook:delete",
    "webhook:list",
    "workflow-run:cancel",
    "workflow-run:create",
    "workflow-run:get",
    "workflow-run:get:input",
    "workflow-run:get:metrics",
    "workflow-run:get:shape",
    "workflow-run:list",
    "workflow-run:list:step-run-events",
    "workflow-run:update:replay",
];
/// Operations to which the server responds with 500.
const BROKEN: &[&str] = &["workflow:get:metrics", "workflow:get:workers-count"];

#[derive(Debug)]
struct Operation {
    id: &'static str,
    method: Method,
    path: &'static str,
    statuses: BTreeSet<u16>,
}

fn operations() -> Vec<Operation> {
    let mut statuses: BTreeMap<_, BTreeSet<u16>> = BTreeMap::new();
    let mut operations = Vec::new();
    for line in REST.lines() {
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["operation", id, method, path] => operations.push((id, method, path)),
            ["response", id, status, ..] => {
                statuses.entry(id).or_default().insert(status.parse().unwrap());
            }
            _ => panic!("{line}"),
        }
    }
    let operation = |(id, method, path): (&'static str, &str, &'static str)| Operation {
        id,
        method: method.parse().unwrap(),
        path,
        statuses: statuses.remove(id).unwrap_or_default(),
    };
    operations.into_iter().map(operation).collect()
}

impl Operation {
    /// The parameters of the path.
    fn parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('{').skip(1).map(|rest| rest.split_once('}').unwrap().0)
    }

    /// Whether the path has the name of a workflow and not its id.
    fn is_by_name(&self) -> bool {
        self.path.ends_with("/{workflow}/crons") || self.path.ends_with("/{workflow}/scheduled")
    }

    fn query(&self) -> &'static str {
        match self.id {
            "v1-workflow-run:list" => "?since=2020-01-01T00:00:00Z&only_tasks=false",
            "rate-limit:delete" => "?key=k",
            "v1-task:list:status-metrics" => "?since=2020-01-01T00:00:00Z",
            _ => "",
        }
    }

    fn body(&self, setup: &Setup) -> Option<Value> {
        let at = "2100-01-01T00:00:00Z";
        Some(match self.id {
            "cron-workflow-trigger:create" => {
                json!({"cronName": "other", "cronExpression": "0 3 * * *", "input": {}, "additionalMetadata": {}})
            }
            "scheduled-workflow-run:create" => json!({"triggerAt": at, "input": {}, "additionalMetadata": {}}),
            "v1-cel:debug" => json!({"expression": "input.n == 1", "input": {"n": 1}}),
            "v1-filter:create" => json!({"workflowId": setup.workflow, "scope": "other", "expression": "true"}),
            "v1-filter:update" => json!({"expression": "false"}),
            "v1-task:cancel" | "v1-task:replay" => json!({"externalIds": []}),
            "v1-workflow-run:create" => json!({"workflowName": "work", "input": {}}),
            "worker:update" => json!({"isPaused": false}),
            "workflow-cron:update" => json!({"enabled": true}),
            "workflow:update" => json!({"pause": {"action": "unpause"}}),
            "workflow-scheduled:bulk-delete" => json!({"scheduledWorkflowRunIds": []}),
            "workflow-scheduled:bulk-update" => json!({"updates": []}),
            "workflow-scheduled:update" => json!({"triggerAt": at}),
            _ => return None,
        })
    }
}

/// An engine with one of each resource.
struct Setup {
    client: Client,
    workflow: String,
    ids: BTreeMap<&'static str, String>,
    _worker: RunningWorker,
    _engine: Engine,
}

impl Setup {
    async fn new() -> Self {
        let engine = Engine::builder().seed(7).start().await.unwrap();
        let client = engine.client();
        let work = Task::new("work", async |_: Value, _: Context| Ok(())).on_event("key");
        let worker = client.worker("worker").register(&work).build().unwrap().start().await.unwrap();
        let run = client.run(&work, &json!({})).start().await.unwrap();
        run.result().await.unwrap();
        client.push("key", &json!({})).send().await.unwrap();
        let tenant = engine.tenant_id().to_string();
        let first = async |path: &str| {
            let path = format!("/api/v1/{}", path.replace("{t}", &tenant));
            let (_, body) = client.raw_rest(Method::GET, &path, None).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            body["rows"][0]["metadata"]["id"].as_str().unwrap_or_else(|| panic!("{path}: {body}")).to_owned()
        };
        let (event, workflow) =
            (first("stable/tenants/{t}/events").await, first("tenants/{t}/workflows?name=work").await);
        let run = run.id().to_string();
        let ids = BTreeMap::from([
            ("task", run.clone()),
            ("v1-event", event),
            ("v1-workflow-run", run),
            ("worker", first("tenants/{t}/worker").await),
            ("workflow", workflow.clone()),
            ("tenant", tenant),
        ]);
        Self { client, workflow, ids, _worker: worker, _engine: engine }
    }

    async fn send(&self, method: &Method, path: &str, body: Option<&Value>) -> (StatusCode, Bytes) {
        let body = body.map(|body| Bytes::from(body.to_string()));
        self.client.raw_rest(method.clone(), path, body).await.unwrap()
    }

    /// Creates a resource that an operation may delete, and returns its id.
    async fn create(&self, what: &str, body: Value) -> String {
        let path = format!("/api/v1/{}", what.replace("{t}", &self.ids["tenant"]));
        let (status, body) = self.send(&Method::POST, &path, Some(&body)).await;
        let created: Value = serde_json::from_slice(&body).unwrap();
        created["metadata"]["id"].as_str().unwrap_or_else(|| panic!("{path}: {status} {created}")).to_owned()
    }

    /// The path of an operation with ids of existing resources, except for `other`.
    async fn path(&self, operation: &Operation, other: Option<(&str, &str)>) -> String {
        let mut path = operation.path.to_owned();
        for name in operation.parameters() {
            let id = match name {
                _ if other.is_some_and(|(parameter, _)| parameter == name) => other.unwrap().1.to_owned(),
                "workflow" if operation.is_by_name() => "work".to_owned(),
                "cron-workflow" => {
                    let body = json!({"cronName": fastrand::u64(..).to_string(), "cronExpression": "0 2 * * *"});
                    self.create("tenants/{t}/workflows/work/crons", body).await
                }
                "scheduled-workflow-run" => {
                    let body = json!({"triggerAt": "2100-01-01T00:00:00Z"});
                    self.create("tenants/{t}/workflows/work/scheduled", body).await
                }
                "v1-filter" => {
                    let scope = fastrand::u64(..).to_string();
                    let body = json!({"workflowId": self.workflow, "scope": scope, "expression": "true"});
                    self.create("stable/tenants/{t}/filters", body).await
                }
                name => self.ids.get(name).cloned().unwrap_or_else(|| "1c2d3e4f-0000-4000-8000-000000000001".into()),
            };
            path = path.replace(&format!("{{{name}}}"), &id);
        }
        path + operation.query()
    }

    async fn call(&self, operation: &Operation, other: Option<(&str, &str)>) -> (u16, Value) {
        let path = self.path(operation, other).await;
        let (status, body) = self.send(&operation.method, &path, operation.body(self).as_ref()).await;
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        (status.as_u16(), body)
    }
}

fn is_not_implemented(operation: &Operation, status: u16, body: &Value) -> bool {
    status == 501 && body["message"] == format!("the embedded engine does not implement {} yet", operation.id)
}

#[tokio::test(start_paused = true)]
async fn each_rest_operation_responds_or_is_not_implemented() {
    let setup = Setup::new().await;
    let mut operations = operations();
    assert_eq!(operations.len(), 148);
    // Deletions are last.
    operations.sort_by_key(|operation| operation.method == Method::DELETE);
    let (mut works, mut missing) = (0, 0);
    for operation in &operations {
        let (status, body) = setup.call(operation, None).await;
        let context = format!("{}: {status} {body}", operation.id);
        if DEPRECATED.contains(&operation.id) {
            let text = if body.is_object() { body.to_string() } else { String::new() };
            assert!(status == 400 && text.contains(" is deprecated"), "{context}");
        } else if BROKEN.contains(&operation.id) {
            assert_eq!((status, &body), (500, &json!({"message": "Internal Server Error"})), "{context}");
        } else if is_not_implemented(operation, status, &body) {
            missing += 1;
        } else {
            works += 1;
            assert!((200..300).contains(&status) && operation.statuses.contains(&status), "{context}");
        }
    }
    assert_eq!(works + missing + DEPRECATED.len() + BROKEN.len(), operations.len());
    assert!(works >= 49, "only {works} operations work, {missing} are not implemented");
}

#[tokio::test(start_paused = true)]
async fn rest_operations_reject_malformed_and_unknown_ids() {
    let setup = Setup::new().await;
    for operation in operations().iter().filter(|operation| !operation.is_by_name()) {
        let (status, body) = setup.call(operation, None).await;
        if is_not_implemented(operation, status, &body) || operation.id == "workflow:delete" {
            continue;
        }
        for name in operation.parameters() {
            if ["step-run", "webhook", "workflow-run"].contains(&name) {
                // The server rejects these without a lookup.
                continue;
            }
            let (status, body) = setup.call(operation, Some((name, "zz"))).await;
            let message = body["message"].as_str().unwrap_or_default();
            let context = format!("{} with {name} zz: {status} {body}", operation.id);
            assert!(status == 400 && message.starts_with("invalid ") && message.ends_with(" id"), "{context}");

            let unknown = "1c2d3e4f-0000-4000-8000-00000000000f";
            let (status, body) = setup.call(operation, Some((name, unknown))).await;
            let message = body["message"].as_str().unwrap_or_default();
            let context = format!("{} with an unknown {name}: {status} {body}", operation.id);
            // For an unknown cron, the server responds with 500.
            let expected = if name == "cron-workflow" { (500, "Internal Server Error") } else { (404, "not found") };
            assert!(status == expected.0 && message.ends_with(expected.1), "{context}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_routes_and_methods_are_403() {
    let setup = Setup::new().await;
    let run = &setup.ids["v1-workflow-run"];
    for (method, path) in [
        (Method::GET, "/api/v1/stable/no-such-thing".to_owned()),
        (Method::GET, "/somewhere/else".to_owned()),
        (Method::DELETE, format!("/api/v1/stable/workflow-runs/{run}")),
        (Method::PUT, format!("/api/v1/workers/{run}")),
        // A route whose operation is not implemented.
        (Method::PUT, "/api/v1/users/login".to_owned()),
    ] {
        let (status, body) = setup.send(&method, &path, None).await;
        assert_eq!((status.as_u16(), &*body), (403, &b"null"[..]), "{method} {path}");
    }
}

/// A codec for messages without any field set, of any type.
#[derive(Clone, Copy)]
struct Empty;

impl Codec for Empty {
    type Encode = ();
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Empty {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&[]);
        Ok(())
    }
}

impl Decoder for Empty {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}

#[tokio::test(start_paused = true)]
async fn each_rpc_responds_or_is_not_implemented() {
    let setup = Setup::new().await;
    let mut missing = Vec::new();
    let rpcs: Vec<_> = GRPC.lines().filter_map(|line| line.strip_prefix("rpc\t")).collect();
    assert_eq!(rpcs.len(), 36);
    for rpc in rpcs {
        let [service, method, ..] = rpc.split('\t').collect::<Vec<_>>()[..] else { panic!("{rpc}") };
        let path = format!("/{service}/{method}").parse().unwrap();
        let mut grpc = Grpc::new(setup.client.raw_channel());
        grpc.ready().await.unwrap();
        // On the wire, a unary request is a stream of one message.
        let request = Request::new(futures_util::stream::iter([()]));
        let response = async {
            let mut responses = grpc.streaming(request, path, Empty).await?.into_inner();
            responses.message().await
        };
        let rejection = match tokio::time::timeout(Duration::from_secs(60), response).await {
            Ok(Err(rejection)) => rejection,
            Ok(Ok(Some(()))) => continue,
            // A stream without messages stays open, or ends.
            Ok(Ok(None)) | Err(_) => {
                assert!(rpc.contains("stream "), "{service}.{method} does not respond");
                continue;
            }
        };
        assert!(!rejection.message().is_empty(), "{service}.{method}: {rejection:?}");
        if rejection.code() == Code::Unimplemented {
            assert!(rejection.message().contains(method), "{service}.{method}: {rejection:?}");
            missing.push(format!("{service}.{method}"));
        }
    }
    let expected = [
        "Dispatcher.Listen",
        "Dispatcher.RestoreEvictedTask",
        // The server does not implement these three either.
        "Dispatcher.SendGroupKeyActionEvent",
        "EventsService.ReplaySingleEvent",
        "WorkflowService.PauseRateLimit",
        "WorkflowService.PutWorkflow",
        "v1.AdminService.BranchDurableTask",
        "v1.V1Dispatcher.DurableTask",
        "v1.V1Dispatcher.ListenForDurableEvent",
        "v1.V1Dispatcher.RegisterDurableEvent",
    ];
    assert_eq!(missing, expected);
}
