//! The operations over the generated stubs, with only the necessary work: no deadlines, no retries, no checks.

use std::hint::black_box;

use hatchet::config::Config;
use hatchet::raw::pb::dispatcher_client::DispatcherClient;
use hatchet::raw::pb::v1::TriggerWorkflowRequest;
use hatchet::raw::pb::workflow_service_client::WorkflowServiceClient;
use hatchet::raw::pb::{
    AssignedAction, BulkTriggerWorkflowRequest, HeartbeatRequest, ResourceEventType, SubscribeToWorkflowEventsRequest,
    SubscribeToWorkflowRunsRequest, WorkerListenRequest, WorkerRegisterRequest,
};
use tokio::sync::mpsc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::raw_report;
use crate::work::{Output, WORKFLOW, input};

const BULK: usize = 1000;

/// Puts the token on each request.
#[derive(Clone)]
pub(crate) struct Token(MetadataValue<Ascii>);

impl tonic::service::Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Authorized = InterceptedService<Channel, Token>;

#[derive(Clone)]
pub(crate) struct Raw {
    workflows: WorkflowServiceClient<Authorized>,
    dispatcher: DispatcherClient<Authorized>,
}

impl Raw {
    pub(crate) async fn connect() -> Self {
        let config = Config::from_env().unwrap();
        let address = format!("http://{}", std::env::var("HATCHET_CLIENT_HOST_PORT").unwrap());
        let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
        let token = Token(format!("Bearer {}", config.token().expose()).parse().unwrap());
        Self {
            workflows: WorkflowServiceClient::with_interceptor(channel.clone(), token.clone()),
            dispatcher: DispatcherClient::with_interceptor(channel, token),
        }
    }
}

fn request() -> TriggerWorkflowRequest {
    TriggerWorkflowRequest {
        name: WORKFLOW.into(),
        input: serde_json::to_string(&input()).unwrap(),
        ..Default::default()
    }
}

pub(crate) async fn triggers(mut raw: Raw, count: usize) {
    for _ in 0..count {
        raw.workflows.trigger_workflow(request()).await.unwrap();
    }
}

pub(crate) async fn bulk(mut raw: Raw, count: usize) {
    // The SDK returns the runs, too.
    let mut ids = Vec::new();
    for _ in 0..count / BULK {
        let workflows = std::iter::repeat_with(request).take(BULK).collect();
        let answer = raw.workflows.bulk_trigger_workflow(BulkTriggerWorkflowRequest { workflows }).await.unwrap();
        ids.extend(answer.into_inner().workflow_run_ids);
    }
    assert_eq!(black_box(ids).len(), count);
}

/// One stream for all results.
pub(crate) async fn waits(mut raw: Raw, count: usize) {
    let (ids, mut queue) = mpsc::channel(1);
    let ids_of_runs = futures_util::stream::poll_fn(move |cx| queue.poll_recv(cx));
    let mut dispatcher = raw.dispatcher.clone();
    // The headers come with the first result.
    let mut opening = Some(tokio::spawn(async move { dispatcher.subscribe_to_workflow_runs(ids_of_runs).await }));
    let mut results = None;
    for _ in 0..count {
        let workflow_run_id = raw.workflows.trigger_workflow(request()).await.unwrap().into_inner().workflow_run_id;
        ids.send(SubscribeToWorkflowRunsRequest { workflow_run_id }).await.unwrap();
        if let Some(opening) = opening.take() {
            results = Some(opening.await.unwrap().unwrap().into_inner());
        }
        let event = results.as_mut().unwrap().message().await.unwrap().unwrap();
        let output: Output = serde_json::from_str(event.results.first().unwrap().output()).unwrap();
        assert!(output.ok);
    }
}

/// A stream of events for each run, by a tag. It is requested before the run, and ends with it.
pub(crate) async fn watches(raw: Raw, count: usize) {
    let (mut workflows, mut dispatcher) = (raw.workflows, raw.dispatcher);
    for number in 0..count {
        let subscription = SubscribeToWorkflowEventsRequest {
            additional_meta_key: Some("watch".into()),
            additional_meta_value: Some(number.to_string()),
            ..Default::default()
        };
        let additional_metadata = Some(format!(r#"{{"watch":"{number}"}}"#));
        let request = TriggerWorkflowRequest { additional_metadata, ..request() };
        // The headers come with the first event.
        let opened = dispatcher.subscribe_to_workflow_events(subscription);
        let (events, run) = tokio::join!(opened, workflows.trigger_workflow(request));
        run.unwrap();
        let (mut events, mut is_completed) = (events.unwrap().into_inner(), false);
        while let Some(event) = events.message().await.unwrap() {
            is_completed |= event.event_type() == ResourceEventType::Completed;
        }
        assert!(is_completed);
    }
}

/// A heartbeat, and for each assignment a task that reports its start and its end.
pub(crate) async fn worker(mut raw: Raw, end: impl Future<Output = ()>) {
    let registration = WorkerRegisterRequest {
        worker_name: "measured".into(),
        actions: vec![format!("{WORKFLOW}:{WORKFLOW}")],
        slot_config: [("default".to_owned(), 100)].into(),
        ..Default::default()
    };
    let worker_id = raw.dispatcher.register(registration).await.unwrap().into_inner().worker_id;
    let heartbeats = async {
        let mut dispatcher = raw.dispatcher.clone();
        let mut is_ready = false;
        loop {
            let heartbeat = HeartbeatRequest { worker_id: worker_id.clone(), heartbeat_at: None };
            // The first heartbeats may be rejected, because the stream is not open yet.
            let accepted = dispatcher.heartbeat(heartbeat).await.is_ok();
            if accepted && !std::mem::replace(&mut is_ready, true) {
                println!("ready");
            }
            tokio::time::sleep(std::time::Duration::from_millis(if accepted { 4000 } else { 20 })).await;
        }
    };
    let work = async {
        let mut dispatcher = raw.dispatcher.clone();
        let request = WorkerListenRequest { worker_id: worker_id.clone() };
        let mut actions = dispatcher.listen_v2(request).await.unwrap().into_inner();
        while let Some(action) = actions.message().await.unwrap() {
            tokio::spawn(task(raw.dispatcher.clone(), worker_id.clone(), action));
        }
    };
    tokio::select! {
        () = work => {}
        () = heartbeats => {}
        () = end => {}
    }
}

async fn task(mut dispatcher: DispatcherClient<Authorized>, worker_id: String, action: AssignedAction) {
    let started = raw_report::started(worker_id, action);
    let completed = raw_report::completed(&started, serde_json::to_string(&Output { ok: true }).unwrap());
    dispatcher.send_step_action_event(started).await.unwrap();
    dispatcher.send_step_action_event(completed).await.unwrap();
}
