//! `Dispatcher`: workers, and the streams about runs.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::{GrpcApi, Stream, not_yet, respond, sized, time};
use crate::embedded::actor::Messages;
use crate::embedded::core::Core;
use crate::embedded::core::format::uuid::go_uuid;
use crate::embedded::core::store::{
    Action, BatchAction, EventKind, Label, Message, Registration, Report, ReportKind, Resource, RunEvent, RunResult,
    Runtime, StatusError,
};
use crate::model::engine_version::EngineVersion;
use crate::rpc::pb::dispatcher_server::Dispatcher;
use crate::rpc::pb::{
    ActionEventResponse, ActionType, AssignedAction, BatchActionEvent, BatchStartPayload, GetVersionRequest,
    GetVersionResponse, GroupKeyActionEvent, HeartbeatRequest, HeartbeatResponse, OverridesData, OverridesDataResponse,
    RefreshTimeoutRequest, RefreshTimeoutResponse, ReleaseSlotRequest, ReleaseSlotResponse, ResourceEventType,
    ResourceType, RestoreEvictedTaskRequest, RestoreEvictedTaskResponse, RuntimeInfo, Sdks, StepActionEvent,
    StepActionEventType, StepRunResult, SubscribeToWorkflowEventsRequest, SubscribeToWorkflowRunsRequest,
    UpsertWorkerLabelsRequest, UpsertWorkerLabelsResponse, WorkerLabels, WorkerListenRequest, WorkerRegisterRequest,
    WorkerRegisterResponse, WorkerUnsubscribeRequest, WorkerUnsubscribeResponse, WorkflowEvent, WorkflowRunEvent,
    WorkflowRunEventType,
};
use crate::time::to_proto;

impl GrpcApi {
    /// The delay of a retry. Older engines ignore it.
    fn retry_after(&self, millis: Option<i64>) -> Option<Duration> {
        let millis = millis.filter(|_| self.core.version >= EngineVersion::RETRY_DELAYS)?;
        u64::try_from(millis).ok().map(Duration::from_millis)
    }
}

#[tonic::async_trait]
impl Dispatcher for GrpcApi {
    type ListenStream = Stream<AssignedAction>;
    type ListenV2Stream = Stream<AssignedAction>;
    type SubscribeToWorkflowEventsStream = Stream<WorkflowEvent>;
    type SubscribeToWorkflowRunsStream = Stream<WorkflowRunEvent>;

    async fn register(
        &self,
        request: Request<WorkerRegisterRequest>,
    ) -> Result<Response<WorkerRegisterResponse>, Status> {
        let request = sized(request)?;
        if request.slots.is_some() && !request.slot_config.is_empty() {
            return Err(Status::invalid_argument(
                "either slot_config or slots (deprecated) must be provided, not both",
            ));
        }
        let runtime = runtime(request.runtime_info.unwrap_or_default())?;
        Core::check_services(&request.services)?;
        let slots = match request.slots {
            Some(slots) => BTreeMap::from([("default".to_owned(), slots)]),
            None if request.slot_config.is_empty() => BTreeMap::from([("default".to_owned(), 100)]),
            None => request.slot_config.into_iter().collect(),
        };
        let worker_name = request.worker_name.clone();
        let registration = Registration {
            name: request.worker_name,
            actions: request.actions,
            slots,
            labels: labels(request.labels),
            runtime,
        };
        let id = self.core.call(move |core, turn| core.register(turn, registration)).await??;
        respond(WorkerRegisterResponse { tenant_id: self.tenant.to_string(), worker_id: id.to_string(), worker_name })
    }

    async fn listen(&self, _: Request<WorkerListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        not_yet("the older Listen")
    }

    async fn listen_v2(&self, request: Request<WorkerListenRequest>) -> Result<Response<Self::ListenV2Stream>, Status> {
        let worker = worker_id(&sized(request)?.worker_id)?;
        let messages = self.core.open(move |core, _, stream| core.listen(worker, stream)).await?;
        let tenant = self.tenant.to_string();
        open(messages, move |message| match message {
            Message::Action(action) => Some(assigned(&tenant, *action)),
            Message::Batch(batch) => Some(batch_started(&tenant, *batch)),
            _ => None,
        })
        .await
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        let worker = worker_id(&sized(request)?.worker_id)?;
        self.core.heartbeat(move |core, turn| core.heartbeat(turn, worker)).await??;
        respond(HeartbeatResponse {})
    }

    async fn unsubscribe(
        &self,
        request: Request<WorkerUnsubscribeRequest>,
    ) -> Result<Response<WorkerUnsubscribeResponse>, Status> {
        let worker = worker_id(&sized(request)?.worker_id)?;
        self.core.call(move |core, _| core.unsubscribe(worker)).await??;
        respond(WorkerUnsubscribeResponse { tenant_id: self.tenant.to_string(), worker_id: worker.to_string() })
    }

    async fn upsert_worker_labels(
        &self,
        request: Request<UpsertWorkerLabelsRequest>,
    ) -> Result<Response<UpsertWorkerLabelsResponse>, Status> {
        let request = sized(request)?;
        let worker = worker_id(&request.worker_id)?;
        let labels = labels(request.labels);
        self.core.call(move |core, _| core.upsert_labels(worker, labels)).await??;
        respond(UpsertWorkerLabelsResponse { tenant_id: self.tenant.to_string(), worker_id: worker.to_string() })
    }

    async fn subscribe_to_workflow_runs(
        &self,
        request: Request<Streaming<SubscribeToWorkflowRunsRequest>>,
    ) -> Result<Response<Self::SubscribeToWorkflowRunsStream>, Status> {
        let requests = request.into_inner();
        let messages = self
            .core
            .open(|core, turn, stream| {
                core.open_results(turn, stream);
                Ok(())
            })
            .await?;
        let (id, core) = (messages.id(), self.core.clone());
        // Both directions are one stream: the responses end when the requests do.
        let lookups = requests.filter_map(move |request| {
            let core = core.clone();
            async move {
                // An invalid id is ignored.
                let run: Uuid = request.ok()?.workflow_run_id.parse().ok()?;
                core.call(move |core, turn| core.ask_result(turn, id, run))
                    .await
                    .err()
                    .map(|error| Err(Status::from(error)))
            }
        });
        let responses = messages.into_stream().filter_map(|message| async move {
            match message {
                Ok(Message::Result(result)) => Some(Ok(run_result(result))),
                Ok(_) => None,
                Err(error) => Some(Err(error.into())),
            }
        });
        with_first(until_either_ends(responses, lookups)).await
    }

    async fn subscribe_to_workflow_events(
        &self,
        request: Request<SubscribeToWorkflowEventsRequest>,
    ) -> Result<Response<Self::SubscribeToWorkflowEventsStream>, Status> {
        let request = sized(request)?;
        let messages = match (request.workflow_run_id, request.additional_meta_key, request.additional_meta_value) {
            (Some(text), _, _) => {
                let run = go_uuid(&text).map_err(|problem| {
                    Status::invalid_argument(format!("invalid workflow run id {text}: {problem}"))
                })?;
                self.core
                    .open(move |core, turn, stream| {
                        core.watch_run(turn, stream, run);
                        Ok(())
                    })
                    .await?
            }
            (None, Some(key), Some(value)) => {
                self.core
                    .open(move |core, _, stream| {
                        core.watch_tag(stream, &key, &value);
                        Ok(())
                    })
                    .await?
            }
            _ => {
                return Err(Status::invalid_argument(
                    "either workflow run id or additional meta key-value must be provided",
                ));
            }
        };
        open(messages, |message| match message {
            Message::Event(event) => Some(run_event(&event)),
            _ => None,
        })
        .await
    }

    async fn send_step_action_event(
        &self,
        request: Request<StepActionEvent>,
    ) -> Result<Response<ActionEventResponse>, Status> {
        let request = sized(request)?;
        let task = task_id(&request.task_run_external_id)?;
        let kind = report_kind(request.event_type)
            .ok_or_else(|| Status::invalid_argument(format!("invalid task external run id {task}")))?;
        let report = Report {
            task,
            worker: request.worker_id.parse().ok(),
            kind,
            at: time(request.event_timestamp),
            retry_count: request.retry_count,
            payload: request.event_payload,
            should_not_retry: request.should_not_retry.unwrap_or(false),
            retry_after: self.retry_after(request.retry_after_ms),
            batch: false,
        };
        self.core.call(move |core, turn| core.report(turn, report)).await??;
        respond(ActionEventResponse { tenant_id: self.tenant.to_string(), worker_id: request.worker_id })
    }

    async fn send_batch_action_event(
        &self,
        request: Request<BatchActionEvent>,
    ) -> Result<Response<ActionEventResponse>, Status> {
        let request = sized(request)?;
        let (at, worker) = (time(request.event_timestamp), request.worker_id.parse().ok());
        let kind = report_kind(request.event_type).filter(|kind| *kind != ReportKind::Acknowledged);
        let reports = request.items.into_iter().map(|item| {
            let task = task_id(&item.task_run_external_id)?;
            let kind = kind.ok_or_else(|| Status::invalid_argument(format!("invalid task external run id {task}")))?;
            Ok(Report {
                task,
                worker,
                kind,
                at,
                retry_count: item.retry_count.filter(|_| kind != ReportKind::Cancelled),
                payload: item.event_payload,
                should_not_retry: item.should_not_retry.unwrap_or(false),
                retry_after: self.retry_after(item.retry_after_ms),
                batch: true,
            })
        });
        // With one invalid id, nothing of the batch is applied.
        let reports = reports.collect::<Result<Vec<_>, Status>>()?;
        self.core
            .call(move |core, turn| {
                for report in reports {
                    // Tasks that do not exist are ignored.
                    let _ = core.report(turn, report);
                }
            })
            .await?;
        respond(ActionEventResponse { tenant_id: self.tenant.to_string(), worker_id: request.worker_id })
    }

    async fn get_version(&self, _: Request<GetVersionRequest>) -> Result<Response<GetVersionResponse>, Status> {
        respond(GetVersionResponse { version: self.core.version.to_string() })
    }

    async fn put_overrides_data(&self, _: Request<OverridesData>) -> Result<Response<OverridesDataResponse>, Status> {
        respond(OverridesDataResponse {})
    }

    async fn send_group_key_action_event(
        &self,
        _: Request<GroupKeyActionEvent>,
    ) -> Result<Response<ActionEventResponse>, Status> {
        Err(Status::unimplemented("SendGroupKeyActionEvent is not implemented in engine version v1"))
    }

    async fn refresh_timeout(
        &self,
        request: Request<RefreshTimeoutRequest>,
    ) -> Result<Response<RefreshTimeoutResponse>, Status> {
        let request = sized(request)?;
        let task = task_id(&request.task_run_external_id)?;
        let end =
            self.core.call(move |core, turn| core.refresh_timeout(turn, task, &request.increment_timeout_by)).await??;
        respond(RefreshTimeoutResponse { timeout_at: Some(to_proto(end)) })
    }

    async fn release_slot(
        &self,
        request: Request<ReleaseSlotRequest>,
    ) -> Result<Response<ReleaseSlotResponse>, Status> {
        let task = task_id(&sized(request)?.task_run_external_id)?;
        self.core.call(move |core, turn| core.release_slot(turn, task)).await??;
        respond(ReleaseSlotResponse {})
    }

    async fn restore_evicted_task(
        &self,
        _: Request<RestoreEvictedTaskRequest>,
    ) -> Result<Response<RestoreEvictedTaskResponse>, Status> {
        not_yet("RestoreEvictedTask")
    }
}

/// The responses, until the end of the requests: a client that ends its requests gets no more responses.
fn until_either_ends(
    responses: impl futures_util::Stream<Item = Result<WorkflowRunEvent, Status>> + Send,
    lookups: impl futures_util::Stream<Item = Result<WorkflowRunEvent, Status>> + Send,
) -> impl futures_util::Stream<Item = Result<WorkflowRunEvent, Status>> + Send {
    let end = || stream::once(async { None });
    let both = stream::select(responses.map(Some).chain(end()), lookups.map(Some).chain(end()));
    both.take_while(|item| std::future::ready(item.is_some())).filter_map(std::future::ready)
}

type Open<T> = Result<Response<Stream<T>>, Status>;

async fn open<T: Send + 'static>(
    messages: Messages,
    convert: impl Fn(Message) -> Option<T> + Send + 'static,
) -> Open<T> {
    let stream = messages.into_stream().filter_map(move |message| {
        std::future::ready(match message {
            Ok(message) => convert(message).map(Ok),
            Err(error) => Some(Err(error.into())),
        })
    });
    with_first(stream).await
}

/// Opens a stream as the engine does: the headers are sent with the first message, not before.
async fn with_first<T: Send + 'static>(
    stream: impl futures_util::Stream<Item = Result<T, Status>> + Send + 'static,
) -> Open<T> {
    let mut stream: Stream<T> = Box::pin(stream);
    match stream.next().await {
        None => Ok(Response::new(Box::pin(stream::empty()))),
        Some(first) => Ok(Response::new(Box::pin(stream::once(std::future::ready(Ok(first?))).chain(stream)))),
    }
}

fn worker_id(text: &str) -> Result<Uuid, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("invalid worker ID format: {text}")))
}

fn task_id(text: &str) -> Result<Uuid, Status> {
    go_uuid(text).map_err(|problem| Status::invalid_argument(format!("invalid task external run id {text}: {problem}")))
}

fn labels(labels: HashMap<String, WorkerLabels>) -> BTreeMap<String, Label> {
    let label = |label: WorkerLabels| match (label.str_value, label.int_value) {
        (Some(text), _) => Label::Text(text),
        (None, Some(number)) => Label::Number(number),
        (None, None) => Label::Nothing,
    };
    labels.into_iter().map(|(key, value)| (key, label(value))).collect()
}

/// Parses the runtime information of a worker. The language must be one of the four in the contract.
fn runtime(info: RuntimeInfo) -> Result<Runtime, StatusError> {
    let language = info.language.map(|number| match Sdks::try_from(number) {
        Ok(Sdks::Go) => Ok("GOLANG"),
        Ok(Sdks::Python) => Ok("PYTHON"),
        Ok(Sdks::Typescript) => Ok("TYPESCRIPT"),
        Ok(Sdks::Ruby) => Ok("RUBY"),
        Ok(Sdks::Unknown) | Err(_) => Err(StatusError::internal()),
    });
    Ok(Runtime {
        language: language.transpose()?,
        language_version: info.language_version.unwrap_or_default(),
        os: info.os.unwrap_or_default(),
        extra: info.extra.unwrap_or_default(),
        sdk_version: info.sdk_version.unwrap_or_default(),
    })
}

fn report_kind(number: i32) -> Option<ReportKind> {
    match StepActionEventType::try_from(number).ok()? {
        StepActionEventType::StepEventTypeUnknown => None,
        StepActionEventType::StepEventTypeStarted => Some(ReportKind::Started),
        StepActionEventType::StepEventTypeCompleted => Some(ReportKind::Completed),
        StepActionEventType::StepEventTypeFailed => Some(ReportKind::Failed),
        StepActionEventType::StepEventTypeAcknowledged => Some(ReportKind::Acknowledged),
        StepActionEventType::StepEventTypeCancelled => Some(ReportKind::Cancelled),
    }
}

fn assigned(tenant: &str, action: Action) -> AssignedAction {
    AssignedAction {
        tenant_id: tenant.to_owned(),
        workflow_run_id: action.run.to_string(),
        job_id: action.step.to_string(),
        job_name: action.readable_id.to_string(),
        job_run_id: action.task.to_string(),
        task_id: action.step.to_string(),
        task_run_external_id: action.task.to_string(),
        action_id: action.name.to_string(),
        action_type: if action.cancel { ActionType::CancelStepRun } else { ActionType::StartStepRun } as i32,
        action_payload: action.payload,
        task_name: action.readable_id.to_string(),
        retry_count: action.retry_count,
        additional_metadata: Some(action.metadata),
        priority: action.priority,
        parent_workflow_run_id: action.parent.as_ref().map(|parent| parent.task.to_string()),
        child_workflow_index: action.parent.as_ref().and_then(|parent| parent.index),
        child_workflow_key: action.parent.and_then(|parent| parent.key).map(Into::into),
        workflow_id: Some(action.workflow.to_string()),
        workflow_version_id: Some(action.version.to_string()),
        triggering_event_external_id: action.event.as_ref().map(|event| event.id.to_string()),
        triggering_event_key: action.event.map(|event| event.key.to_string()),
        ..Default::default()
    }
}

fn batch_started(tenant: &str, batch: BatchAction) -> AssignedAction {
    AssignedAction {
        tenant_id: tenant.to_owned(),
        action_type: ActionType::StartBatch as i32,
        action_id: batch.name.to_string(),
        action_payload: batch.payload,
        batch_id: Some(batch.id.to_string()),
        batch_key: Some(batch.key.into_string()).filter(|key| !key.is_empty()),
        batch_start_payload: Some(BatchStartPayload {
            trigger_reason: batch.reason,
            trigger_time: Some(to_proto(batch.at)),
            expected_size: i32::try_from(batch.size).unwrap_or(i32::MAX),
        }),
        ..Default::default()
    }
}

fn run_result(result: RunResult) -> WorkflowRunEvent {
    let results = result.tasks.into_iter().map(|task| {
        let (output, error) = match task.end {
            Ok(output) => (Some(output.to_string()), None),
            Err(error) => (None, Some(error.to_string())),
        };
        StepRunResult {
            task_run_external_id: task.task.to_string(),
            task_name: task.readable_id.to_string(),
            job_run_id: task.task.to_string(),
            error,
            output,
        }
    });
    WorkflowRunEvent {
        workflow_run_id: result.run.to_string(),
        event_type: WorkflowRunEventType::Finished as i32,
        event_timestamp: Some(to_proto(result.at)),
        results: results.collect(),
    }
}

fn run_event(event: &RunEvent) -> WorkflowEvent {
    let (resource_type, resource_id) = match event.resource {
        Resource::Run => (ResourceType::WorkflowRun, event.run),
        Resource::Task(task) => (ResourceType::StepRun, task),
    };
    let event_type = match event.kind {
        EventKind::Started => ResourceEventType::Started,
        EventKind::Completed => ResourceEventType::Completed,
        EventKind::Failed => ResourceEventType::Failed,
        EventKind::Cancelled => ResourceEventType::Cancelled,
        EventKind::Stream => ResourceEventType::Stream,
    };
    WorkflowEvent {
        workflow_run_id: event.run.to_string(),
        resource_type: resource_type as i32,
        event_type: event_type as i32,
        resource_id: resource_id.to_string(),
        event_timestamp: Some(to_proto(event.at)),
        event_payload: event.payload.to_string(),
        hangup: event.hangup,
        task_retries: None,
        retry_count: event.retry_count,
        event_index: event.index,
    }
}
