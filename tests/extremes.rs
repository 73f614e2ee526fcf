//! The embedded engine handles any integer in a request: it stores, clamps or rejects it, and keeps running.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use hatchet::Client;
use hatchet::embedded::{Engine, Quirks};
use hatchet::raw::RawChannel;
use hatchet::raw::pb::dispatcher_client::DispatcherClient;
use hatchet::raw::pb::events_service_client::EventsServiceClient;
use hatchet::raw::pb::v1::admin_service_client::AdminServiceClient;
use hatchet::raw::pb::v1::{
    Action, BaseMatchCondition, CancelTasksRequest, CreateTaskOpts, CreateWorkflowVersionRequest, DesiredWorkerLabels,
    GetRunDetailsRequest, IdempotencyConfig, ReplayTasksRequest, SleepMatchCondition, TaskConditions, TasksFilter,
    TriggerWorkflowRequest,
};
use hatchet::raw::pb::workflow_service_client::WorkflowServiceClient;
use hatchet::raw::pb::{
    BulkTriggerWorkflowRequest, HeartbeatRequest, PutLogRequest, PutStreamEventRequest, ScheduleWorkflowRequest,
    StepActionEvent, WorkerListenRequest, WorkerRegisterRequest,
};
use http::Method;
use prost_types::Timestamp;
use serde_json::Value;
use tonic::{Code, Status};

const INTEGERS: [i32; 5] = [i32::MIN, -1, 0, i32::MAX - 1, i32::MAX];
const TIMES: [Timestamp; 5] = [
    Timestamp { seconds: i64::MIN, nanos: i32::MIN },
    Timestamp { seconds: i64::MAX, nanos: i32::MAX },
    // The smallest and the largest timestamp, and a time before the year 1.
    Timestamp { seconds: -62_135_596_800, nanos: 0 },
    Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 },
    Timestamp { seconds: -62_135_596_801, nanos: 0 },
];

struct TestEngine {
    inner: Engine,
    client: Client,
    tenant: String,
}

impl TestEngine {
    async fn new() -> Self {
        let engine = Engine::builder().quirks(Quirks::all()).seed(7).start().await.unwrap();
        let (client, tenant) = (engine.client(), engine.tenant_id().to_string());
        Self { inner: engine, client, tenant }
    }

    fn dispatcher(&self) -> DispatcherClient<RawChannel> {
        DispatcherClient::new(self.client.raw_channel())
    }

    fn workflows(&self) -> WorkflowServiceClient<RawChannel> {
        WorkflowServiceClient::new(self.client.raw_channel())
    }

    fn admin(&self) -> AdminServiceClient<RawChannel> {
        AdminServiceClient::new(self.client.raw_channel())
    }

    async fn put(&self, workflow: CreateWorkflowVersionRequest) -> Result<(), Status> {
        self.admin().put_workflow(workflow).await.map(drop)
    }

    async fn start(&self, workflow: &str) -> String {
        let trigger = TriggerWorkflowRequest { name: workflow.into(), input: "{}".into(), ..Default::default() };
        self.workflows().trigger_workflow(trigger).await.unwrap().into_inner().workflow_run_id
    }

    async fn get(&self, target: &str) -> (u16, Value) {
        let target = target.replace("{t}", &self.tenant);
        let (status, body) = self.client.raw_rest(Method::GET, &target, None).await.unwrap();
        (status.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Reads a run in all API views.
    async fn read_everywhere(&self, run: &str) {
        for path in ["", "/status", "/task-events", "/task-timings?depth=10"] {
            let (status, _) = self.get(&format!("/api/v1/stable/workflow-runs/{run}{path}")).await;
            assert_eq!(status, 200, "{path}");
        }
        for path in ["", "/task-events?limit=10000", "/logs?limit=10000"] {
            let (status, _) = self.get(&format!("/api/v1/stable/tasks/{run}{path}")).await;
            assert_eq!(status, 200, "{path}");
        }
        for tasks in [true, false] {
            let list = format!("/api/v1/stable/tenants/{{t}}/workflow-runs?since=2000-01-01&only_tasks={tasks}");
            let (status, body) = self.get(&format!("{list}&include_payloads=true")).await;
            assert!(status == 200 && body["rows"].as_array().is_some_and(|rows| !rows.is_empty()), "{body}");
        }
        let details = GetRunDetailsRequest { external_id: run.into() };
        self.admin().get_run_details(details).await.unwrap();
    }

    /// Asserts that the engine still runs and has not panicked.
    async fn end(self) {
        let (status, _) = self.get("/api/v1/stable/tenants/{t}/workflow-runs?only_tasks=false").await;
        assert_eq!(status, 200);
        self.inner.shutdown().await;
    }
}

fn task(name: &str) -> CreateTaskOpts {
    CreateTaskOpts { readable_id: name.into(), action: "w:t".into(), ..Default::default() }
}

fn workflow(name: &str, tasks: Vec<CreateTaskOpts>) -> CreateWorkflowVersionRequest {
    CreateWorkflowVersionRequest { name: name.into(), tasks, ..Default::default() }
}

#[tokio::test(start_paused = true)]
async fn reports_and_log_lines_may_have_any_attempt_and_time() {
    let engine = TestEngine::new().await;
    engine.put(workflow("w", vec![task("t")])).await.unwrap();
    for event_type in 1..=5 {
        let run = engine.start("w").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (retry_count, at) in INTEGERS.into_iter().zip(TIMES) {
            let report = StepActionEvent {
                task_run_external_id: run.clone(),
                event_type,
                event_payload: "{}".into(),
                retry_count: Some(retry_count),
                event_timestamp: Some(at),
                ..Default::default()
            };
            engine.dispatcher().send_step_action_event(report).await.unwrap();
            let line = PutLogRequest {
                task_run_external_id: run.clone(),
                message: "x".into(),
                task_retry_count: Some(retry_count),
                created_at: Some(at),
                ..Default::default()
            };
            EventsServiceClient::new(engine.client.raw_channel()).put_log(line).await.unwrap();
            let chunk = PutStreamEventRequest {
                task_run_external_id: run.clone(),
                created_at: Some(at),
                event_index: Some(i64::from(retry_count).wrapping_mul(i64::MAX)),
                ..Default::default()
            };
            EventsServiceClient::new(engine.client.raw_channel()).put_stream_event(chunk).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        engine.read_everywhere(&run).await;
        let (_, body) = engine.get(&format!("/api/v1/stable/tasks/{run}/logs?limit=100")).await;
        let attempts: Vec<_> = body["rows"].as_array().unwrap().iter().map(|row| row["attempt"].as_i64()).collect();
        // The numbers of a report are stored, although no attempt has them.
        assert_eq!(attempts, INTEGERS.map(|number| Some(i64::from(number) + 1)));
        for attempt in ["2147483648", "9223372036854775807"] {
            let (status, _) = engine.get(&format!("/api/v1/stable/tasks/{run}/logs?attempt={attempt}")).await;
            assert_eq!(status, 200);
        }
    }
    engine.end().await;
}

#[tokio::test(start_paused = true)]
async fn definitions_may_have_any_integer() {
    let engine = TestEngine::new().await;
    let worker = WorkerRegisterRequest {
        worker_name: "worker".into(),
        actions: vec!["w:t".into()],
        slots: Some(i32::MAX),
        ..Default::default()
    };
    let worker_id = engine.dispatcher().register(worker).await.unwrap().into_inner().worker_id;
    let listen = WorkerListenRequest { worker_id: worker_id.clone() };
    let mut dispatcher = engine.dispatcher();
    let mut actions = tokio::spawn(async move { dispatcher.listen_v2(listen).await });
    let _ = tokio::time::timeout(Duration::from_millis(1), &mut actions).await;
    let max_duration = "2562047h";
    let mut started = Vec::new();
    for (at, number) in INTEGERS.into_iter().enumerate() {
        let heartbeat = HeartbeatRequest { worker_id: worker_id.clone(), heartbeat_at: Some(TIMES[at]) };
        engine.dispatcher().heartbeat(heartbeat).await.unwrap();
        let name = format!("w{at}");
        let label = DesiredWorkerLabels { weight: Some(number), int_value: Some(number), ..Default::default() };
        let put = |task: CreateTaskOpts| engine.put(workflow(&name, vec![task]));
        let retries = CreateTaskOpts {
            retries: number,
            timeout: "0s".into(),
            schedule_timeout: Some(max_duration.into()),
            worker_labels: HashMap::from([("a".into(), label.clone()), ("b".into(), label)]),
            ..task("t")
        };
        let stored = put(retries.clone()).await.map_err(|status| status.code());
        assert_eq!(stored, if number < 0 { Err(Code::InvalidArgument) } else { Ok(()) });
        let backoff =
            CreateTaskOpts { backoff_max_seconds: Some(number), backoff_factor: Some(2.0), ..retries.clone() };
        assert_eq!(put(backoff).await.unwrap_err().code(), Code::InvalidArgument);
        if number >= 0 {
            started.push(engine.start(&name).await);
        }
    }
    for factor in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE] {
        let task = CreateTaskOpts { backoff_factor: Some(factor), retries: 3, ..task("t") };
        // The result does not matter, as long as the engine does not panic.
        let _ = engine.put(workflow("factor", vec![task])).await;
    }
    for ttl_ms in [i64::MIN, -1, 0, i64::MAX] {
        let idempotency = IdempotencyConfig { expression: "input.id".into(), ttl_ms, method: None };
        let keyed =
            CreateWorkflowVersionRequest { idempotency: Some(idempotency), ..workflow("keyed", vec![task("t")]) };
        assert_eq!(engine.put(keyed).await.is_ok(), ttl_ms > 0, "{ttl_ms}");
    }
    let trigger = TriggerWorkflowRequest { name: "keyed".into(), input: r#"{"id": "a"}"#.into(), ..Default::default() };
    engine.workflows().trigger_workflow(trigger.clone()).await.unwrap();
    let again = engine.workflows().trigger_workflow(trigger).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists, "the key is held for the maximum time");
    for priority in INTEGERS {
        let urgent = TriggerWorkflowRequest { name: "w2".into(), priority: Some(priority), ..Default::default() };
        assert_eq!(engine.workflows().trigger_workflow(urgent).await.unwrap_err().code(), Code::InvalidArgument);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for run in &started {
        engine.read_everywhere(run).await;
    }
    for index in INTEGERS {
        let child = TriggerWorkflowRequest {
            name: "w2".into(),
            input: "{}".into(),
            parent_id: Some(started[0].clone()),
            parent_task_run_external_id: Some(started[0].clone()),
            child_index: Some(index),
            ..Default::default()
        };
        let first = engine.workflows().trigger_workflow(child.clone()).await.unwrap().into_inner();
        assert_eq!(engine.workflows().trigger_workflow(child).await.unwrap().into_inner(), first, "{index}");
    }
    for at in TIMES {
        let times = ScheduleWorkflowRequest {
            name: "w2".into(),
            schedules: vec![at],
            input: "{}".into(),
            ..Default::default()
        };
        let _ = engine.workflows().schedule_workflow(times).await;
        let filter = TasksFilter { since: Some(at), until: Some(at), ..Default::default() };
        let cancel = CancelTasksRequest { external_ids: vec![], filter: Some(filter.clone()) };
        engine.admin().cancel_tasks(cancel).await.unwrap();
        let replay = ReplayTasksRequest { external_ids: vec![], filter: Some(filter) };
        engine.admin().replay_tasks(replay).await.unwrap();
    }
    let (status, _) = engine.get("/api/v1/tenants/{t}/workflows/scheduled").await;
    assert_eq!(status, 200);
    tokio::time::sleep(Duration::from_secs(100)).await;
    engine.end().await;
}

#[tokio::test(start_paused = true)]
async fn queries_may_have_any_integer() {
    let engine = TestEngine::new().await;
    engine.put(workflow("w", vec![task("a"), task("b")])).await.unwrap();
    let run = engine.start("w").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lists = [
        "/api/v1/stable/tenants/{t}/workflow-runs?only_tasks=false&since=2000-01-01",
        "/api/v1/stable/tenants/{t}/workflow-runs?only_tasks=true&since=2000-01-01",
        "/api/v1/stable/tenants/{t}/task-metrics?since=2000-01-01",
        "/api/v1/stable/tenants/{t}/events?",
        "/api/v1/stable/tenants/{t}/filters?",
        "/api/v1/tenants/{t}/workflows?",
        "/api/v1/tenants/{t}/workflows/crons?",
        "/api/v1/tenants/{t}/workflows/scheduled?",
        &format!("/api/v1/stable/workflow-runs/{run}/task-timings?"),
        &format!("/api/v1/stable/workflow-runs/{run}/task-events?"),
    ];
    for list in lists {
        for name in ["limit", "offset", "depth", "attempt"] {
            for number in ["-9223372036854775808", "-1", "0", "1", "9223372036854775807", "18446744073709551616"] {
                for more in ["", "&limit=1", "&offset=9223372036854775807"] {
                    let (status, _) = engine.get(&format!("{list}&{name}={number}{more}")).await;
                    assert!([200, 400, 500].contains(&status), "{list} {name} {number}: {status}");
                }
            }
        }
        for name in ["since", "until"] {
            for at in
                ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999-23:59", "0001-01-01T00:00:00%2B23:59", "x"]
            {
                let (status, _) = engine.get(&format!("{list}&{name}={at}")).await;
                assert!([200, 400].contains(&status), "{list} {name} {at}: {status}");
            }
        }
    }
    engine.end().await;
}

#[tokio::test(start_paused = true)]
async fn messages_may_have_the_maximum_number_of_items() {
    /// The number of items that fit into a message.
    const MAX_ITEMS: usize = 70_000;
    let engine = TestEngine::new().await;
    engine.put(workflow("w", vec![task("t")])).await.unwrap();
    let trigger = TriggerWorkflowRequest { name: "w".into(), input: "{}".into(), ..Default::default() };
    let bulk = BulkTriggerWorkflowRequest { workflows: vec![trigger; MAX_ITEMS] };
    let ids = engine.workflows().bulk_trigger_workflow(bulk).await.unwrap().into_inner().workflow_run_ids;
    assert_eq!((ids.len(), engine.inner.run_count().await), (MAX_ITEMS, MAX_ITEMS));
    let tasks = (0..MAX_ITEMS).map(|at| task(&at.to_string())).collect();
    assert_eq!(engine.put(workflow("tasks", tasks)).await.unwrap_err().code(), Code::Unimplemented);
    let base = BaseMatchCondition { action: Action::Queue.into(), readable_data_key: "k".into(), ..Default::default() };
    let condition = SleepMatchCondition { base: Some(base), sleep_for: "1s".into() };
    let conditions = TaskConditions { sleep_conditions: vec![condition; MAX_ITEMS], ..Default::default() };
    let tasks = vec![task("a"), CreateTaskOpts { conditions: Some(conditions), ..task("b") }];
    assert_eq!(engine.put(workflow("conditions", tasks)).await.unwrap_err().code(), Code::Unimplemented);
    let events = (0..MAX_ITEMS).map(|at| at.to_string()).collect();
    let triggers = CreateWorkflowVersionRequest { event_triggers: events, ..workflow("events", vec![task("t")]) };
    engine.put(triggers).await.unwrap();
    engine.end().await;
}

/// The page is rendered outside of the core's task, which serves other requests meanwhile.
#[tokio::test(start_paused = true)]
async fn large_pages_do_not_delay_other_requests() {
    let engine = TestEngine::new().await;
    engine.put(workflow("w", vec![task("t")])).await.unwrap();
    let input = format!(r#"{{"text": "{}"}}"#, "x".repeat(1000));
    let trigger = TriggerWorkflowRequest { name: "w".into(), input, ..Default::default() };
    let bulk = BulkTriggerWorkflowRequest { workflows: vec![trigger; 2000] };
    engine.workflows().bulk_trigger_workflow(bulk).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let list = "/api/v1/stable/tenants/{t}/workflow-runs?only_tasks=false&since=2000-01-01&limit=2000";
    let list = format!("{list}&include_payloads=true");
    let (status, body) = {
        let (mut page, count) = (pin!(engine.get(&list)), pin!(engine.inner.run_count()));
        // The page is requested first, and polled first whenever both are ready.
        let Either::Right((count, page)) = select(&mut page, count).await else {
            panic!("the page delayed the other call")
        };
        assert_eq!(count, 2000);
        page.await
    };
    let rows = body["rows"].as_array().unwrap();
    assert_eq!((status, rows.len()), (200, 2000));
    assert!(rows.iter().all(|row| row["input"]["input"]["text"].as_str().is_some_and(|text| text.len() == 1000)));
    engine.end().await;
}
