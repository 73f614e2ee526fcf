//! `v1.AdminService`.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{GrpcApi, conditions, limits, not_yet, respond, rules, sized, time};
use crate::embedded::core::format::json::jsonb_text;
use crate::embedded::core::store::{
    At, BatchOptions, Definition, Run, RunOptions, State, StatusError, Task, TaskDefinition, Trigger,
};
use crate::embedded::core::{Core, RestStatus, RunFilter, Selection, TaskView};
use crate::model::engine_version::EngineVersion;
use crate::rpc::pb::v1::admin_service_server::AdminService;
use crate::rpc::pb::v1::{
    BranchDurableTaskRequest, BranchDurableTaskResponse, CancelTasksRequest, CancelTasksResponse, CreateTaskOpts,
    CreateWorkflowVersionRequest, CreateWorkflowVersionResponse, DesiredWorkerLabels, GetRunDetailsRequest,
    GetRunDetailsResponse, ReplayTasksRequest, ReplayTasksResponse, RunStatus, TaskBatchConfig, TaskRunDetail,
    TasksFilter, TriggerWorkflowRunRequest, TriggerWorkflowRunResponse,
};

#[tonic::async_trait]
impl AdminService for GrpcApi {
    async fn put_workflow(
        &self,
        request: Request<CreateWorkflowVersionRequest>,
    ) -> Result<Response<CreateWorkflowVersionResponse>, Status> {
        let definition = definition(sized(request)?, self.core.version)?;
        let version = self.core.call(move |core, turn| core.put_workflow(turn, definition)).await??;
        respond(CreateWorkflowVersionResponse { id: version.id.to_string(), workflow_id: version.workflow.to_string() })
    }

    async fn trigger_workflow_run(
        &self,
        request: Request<TriggerWorkflowRunRequest>,
    ) -> Result<Response<TriggerWorkflowRunResponse>, Status> {
        let request = sized(request)?;
        if let Some(priority) = request.priority.filter(|priority| !(1..=3).contains(priority)) {
            let text = format!(
                "could not create trigger opt: rpc error: code = InvalidArgument desc = priority must be between 1 and 3, got {priority}"
            );
            return Err(Status::invalid_argument(text));
        }
        // This call does not validate input and metadata: invalid JSON is ignored.
        let trigger = Trigger {
            workflow: request.workflow_name,
            input: serde_json::from_slice(&request.input).unwrap_or_default(),
            metadata: serde_json::from_slice(&request.additional_metadata).unwrap_or_default(),
            priority: request.priority,
            parent: None,
            options: run_options(None, request.desired_worker_labels),
        };
        let ids = self.core.call(move |core, turn| core.trigger(turn, vec![trigger])).await??;
        respond(TriggerWorkflowRunResponse { external_id: ids.first().map(Uuid::to_string).unwrap_or_default() })
    }

    async fn get_run_details(
        &self,
        request: Request<GetRunDetailsRequest>,
    ) -> Result<Response<GetRunDetailsResponse>, Status> {
        let id = external_id(&sized(request)?.external_id)?;
        let details = self.core.call(move |core, turn| details_of(core, id, turn.now)).await?;
        respond(details.ok_or_else(|| Status::not_found("workflow run not found"))?)
    }

    async fn cancel_tasks(
        &self,
        request: Request<CancelTasksRequest>,
    ) -> Result<Response<CancelTasksResponse>, Status> {
        let request = sized(request)?;
        let by_filter = request.filter.is_some();
        let selection = selection(&request.external_ids, request.filter)?;
        let ids = self
            .core
            .call(move |core, turn| {
                let ids = core.selected_to_cancel(selection, turn.now);
                core.cancel(turn, &ids);
                ids
            })
            .await?;
        // The requested ids are returned as they were written, whatever the effect.
        let found = || ids.iter().map(Uuid::to_string).collect();
        respond(CancelTasksResponse { cancelled_tasks: if by_filter { found() } else { request.external_ids } })
    }

    async fn replay_tasks(
        &self,
        request: Request<ReplayTasksRequest>,
    ) -> Result<Response<ReplayTasksResponse>, Status> {
        let request = sized(request)?;
        let selection = selection(&request.external_ids, request.filter)?;
        let replayed = self
            .core
            .call(move |core, turn| {
                let ids = core.selected_to_replay(selection, turn.now);
                core.replay(turn, &ids)
            })
            .await?;
        respond(ReplayTasksResponse { replayed_tasks: replayed.iter().map(Uuid::to_string).collect() })
    }

    async fn branch_durable_task(
        &self,
        _: Request<BranchDurableTaskRequest>,
    ) -> Result<Response<BranchDurableTaskResponse>, Status> {
        not_yet("BranchDurableTask")
    }
}

fn external_id(text: &str) -> Result<Uuid, Status> {
    text.parse().map_err(|_| Status::invalid_argument("invalid external id"))
}

fn ids(texts: &[String]) -> Result<Vec<Uuid>, Status> {
    texts.iter().map(|text| external_id(text)).collect()
}

/// The runs or tasks of a request.
fn selection(external_ids: &[String], filter: Option<TasksFilter>) -> Result<Selection, Status> {
    let ids = ids(external_ids)?;
    let Some(filter) = filter else { return Ok(Selection::Ids(ids)) };
    if !ids.is_empty() {
        return Err(Status::invalid_argument("cannot provide both external ids and filter"));
    }
    let workflow = |text: &String| text.parse().map_err(|_| Status::invalid_argument("invalid workflow id"));
    let selected = RunFilter {
        since: time(filter.since),
        until: time(filter.until),
        workflows: filter.workflow_ids.iter().map(workflow).collect::<Result<_, _>>()?,
        ..RunFilter::default()
    };
    let selected = selected.with_texts(&filter.statuses, &filter.additional_metadata).map_err(StatusError::from)?;
    Ok(Selection::Filter(selected))
}

/// A run with its tasks; or one task of a DAG, as if it were a run.
fn details_of(core: &Core, id: Uuid, now: At) -> Option<GetRunDetailsResponse> {
    if let Some(run) = core.find_run(id) {
        if core.is_queued_trigger(run, now) {
            return None;
        }
        return Some(details(run, run.grpc_views(now), run.is_shown_as_ended()));
    }
    let (run, task) = core.find_task(id)?;
    Some(details(run, vec![(task, task.grpc_view(now))], task.state == State::Ended))
}

fn details(run: &Run, views: Vec<(&Task, TaskView<'_>)>, done: bool) -> GetRunDetailsResponse {
    // The input of a single task has the JSON text of Go, that of a DAG the text of the database.
    let input = match &run.dag {
        None => run.input.to_string(),
        Some(_) => jsonb_text(&serde_json::from_str(&run.input).unwrap_or_default()),
    };
    let status = overall(views.iter().map(|(_, view)| view.status));
    let task_runs: HashMap<_, _> = views
        .into_iter()
        .filter_map(|(task, view)| {
            let readable_id = run.step(task)?.readable_id.to_string();
            Some((readable_id.clone(), detail(task.id, readable_id, &view)))
        })
        .collect();
    GetRunDetailsResponse {
        input: input.into(),
        status: status as i32,
        task_runs,
        done,
        additional_metadata: run.metadata.to_string().into(),
        is_evicted: false,
    }
}

fn detail(id: Uuid, readable_id: String, view: &TaskView<'_>) -> TaskRunDetail {
    TaskRunDetail {
        external_id: id.to_string(),
        status: status(view.status) as i32,
        error: view.error.map(Into::into),
        output: view.output.map(Into::into),
        readable_id,
        is_evicted: false,
    }
}

/// The status of a run: running or queued if any task is, and otherwise the worst status of its tasks.
fn overall(tasks: impl Iterator<Item = RestStatus>) -> RunStatus {
    let rank = |status: &RestStatus| match status {
        RestStatus::Running => 5,
        RestStatus::Queued => 4,
        RestStatus::Failed => 3,
        RestStatus::Cancelled => 2,
        RestStatus::Completed => 1,
    };
    tasks.max_by_key(rank).map_or(RunStatus::Completed, status)
}

fn status(status: RestStatus) -> RunStatus {
    match status {
        RestStatus::Queued => RunStatus::Queued,
        RestStatus::Running => RunStatus::Running,
        RestStatus::Completed => RunStatus::Completed,
        RestStatus::Failed => RunStatus::Failed,
        RestStatus::Cancelled => RunStatus::Cancelled,
    }
}

/// The options of a trigger, if it has any.
pub(super) fn run_options(
    worker: Option<Uuid>,
    labels: HashMap<String, DesiredWorkerLabels>,
) -> Option<Box<RunOptions>> {
    if worker.is_none() && labels.is_empty() {
        return None;
    }
    Some(Box::new(RunOptions { worker, labels: rules::labels(labels), ..RunOptions::default() }))
}

/// Converts a definition, and rejects features that are not implemented.
fn definition(mut request: CreateWorkflowVersionRequest, version: EngineVersion) -> Result<Definition, StatusError> {
    let options = rules::options(&mut request, version)?;
    let tasks = request.tasks.into_iter().enumerate();
    let tasks = tasks.map(|(index, task)| task_definition(&format!("Tasks[{index}]"), task, version));
    let tasks = tasks.collect::<Result<_, _>>()?;
    Ok(Definition {
        name: request.name,
        description: request.description,
        default_priority: request.default_priority,
        input_json_schema: request.input_json_schema,
        tasks,
        on_failure: request.on_failure_task.map(|task| task_definition("OnFailure", task, version)).transpose()?,
        options,
    })
}

fn task_definition(field: &str, task: CreateTaskOpts, version: EngineVersion) -> Result<TaskDefinition, StatusError> {
    reject_unsupported(&[(task.is_durable, "durable tasks")])?;
    let missing = format!("CEL expression is required for concurrency (step {})", task.readable_id);
    Ok(TaskDefinition {
        concurrency: rules::concurrency(&format!("{field}."), task.concurrency, &missing, version)?,
        rate_limits: limits::of_task(task.rate_limits)?,
        slots: slots(task.slot_requests),
        readable_id: task.readable_id,
        action: task.action,
        parents: task.parents,
        conditions: task
            .conditions
            .map(|request| conditions::conditions(field, request))
            .transpose()?
            .unwrap_or_default(),
        timeout: task.timeout,
        schedule_timeout: task.schedule_timeout,
        retries: task.retries,
        backoff_factor: task.backoff_factor,
        backoff_max_seconds: task.backoff_max_seconds,
        labels: rules::labels(task.worker_labels),
        batch: task.batch.map(batch).transpose()?,
    })
}

fn batch(config: TaskBatchConfig) -> Result<BatchOptions, StatusError> {
    BatchOptions::new(
        config.batch_max_size,
        config.batch_max_interval_ms,
        config.batch_group_key,
        config.batch_group_max_runs,
        config.broadcast_output.unwrap_or(false),
    )
}

/// The requested slots. One of the default type is the same as no request.
fn slots(requests: HashMap<String, i32>) -> BTreeMap<String, i32> {
    let is_default = requests.len() == 1 && requests.get("default") == Some(&1);
    if is_default { BTreeMap::new() } else { requests.into_iter().collect() }
}

fn reject_unsupported(unsupported: &[(bool, &str)]) -> Result<(), StatusError> {
    match unsupported.iter().find(|(is_used, _)| *is_used) {
        Some((_, what)) => Err(StatusError::unimplemented(what)),
        None => Ok(()),
    }
}

/// Parses JSON that the engine can store. The errors are those of the engine.
pub(super) fn stored_json(text: &str, field: &str) -> Result<Value, Status> {
    if text.is_empty() {
        return Ok(Value::Null);
    }
    let value = serde_json::from_str(text)
        .map_err(|_| Status::invalid_argument(format!("Invalid request: invalid json in field `{field}`")))?;
    if crate::model::payload::has_nul(text) {
        let text = format!("Invalid request: encoded jsonb contains invalid null character \\u0000 in field `{field}`");
        return Err(Status::invalid_argument(text));
    }
    Ok(value)
}
