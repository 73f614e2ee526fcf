//! What was gathered about a run, put together for its user.

use std::collections::BTreeMap;

use serde_json::Value;

use super::behind::is_behind;
use super::classify::{Finding, attempts_of, task_outcome};
use super::evidence::{Evidence, TaskEvidence};
use crate::error::Result;
use crate::model::{Outcome, Payload, RunDetails, RunId, RunStatus, TaskDetails, TaskId, convert, metadata, trigger};
use crate::rpc::rest_types::Envelope;

pub(super) fn details(run: RunId, evidence: &Evidence, finding: &Finding) -> Result<RunDetails> {
    let (outcome, conflicts) = match finding {
        Finding::Ended(outcome, conflicts) => (Some(outcome.clone()), conflicts.clone()),
        _ => (None, Vec::new()),
    };
    let status = match finding {
        Finding::Ended(outcome, _) => outcome.status(),
        Finding::Going(status) => status.clone(),
        Finding::Lagging => RunStatus::Running,
    };
    let tasks = evidence.tasks(run).iter().map(|task| task_details(run, task, &status, outcome.as_ref())).collect();
    let (user, engine) = metadata::split(all_metadata(evidence));
    let rest = evidence.rest.as_ref();
    let body = rest.map(|rest| &rest.run);
    Ok(RunDetails {
        id: run,
        workflow: convert::optional_id(body.map(|body| body.workflow_id.as_str()))?,
        workflow_name: evidence.workflow.as_deref().map(ToOwned::to_owned),
        workflow_version: convert::optional_id(body.and_then(|body| body.workflow_version_id.as_deref()))?,
        status,
        outcome,
        trigger: trigger::read(&engine, parent_task(evidence)?),
        input: input(run, evidence),
        metadata: user,
        engine_metadata: engine,
        // The run's own `createdAt` is its start.
        created_at: body.and_then(|body| body.metadata.created_at),
        tasks,
        logs: evidence.log.clone().unwrap_or_default(),
        conflicts,
    })
}

fn task_details(run: RunId, task: &TaskEvidence<'_>, status: &RunStatus, outcome: Option<&Outcome>) -> TaskDetails {
    let is_over = outcome.is_some();
    let (status, outcome) = if task.id.is_of_its_own(run) {
        // The outcome of the run is that of its only task, except for the shape of the output.
        let own = outcome.map(|outcome| match outcome {
            Outcome::Completed(_) => task_outcome(task, status),
            other => other.clone(),
        });
        (status.clone(), own)
    } else {
        // Before the run has ended, gRPC says nothing about a task that is to be believed.
        let by_grpc = || task.grpc.map(|task| task.status.clone()).filter(|_| is_over);
        let steady = task.steady().filter(|_| !is_over || !is_behind(task));
        let status = steady.or_else(by_grpc).unwrap_or(RunStatus::Queued);
        match status.is_final().then(|| task_outcome(task, &status)) {
            Some(outcome) => (outcome.status(), Some(outcome)),
            None => (status, None),
        }
    };
    TaskDetails {
        id: task.id,
        name: task.name.clone(),
        status,
        attempts: attempts_of(task, outcome.as_ref(), is_over),
        replayed_after: task.replayed_after.clone(),
        outcome,
    }
}

/// gRPC has the input bare; what is too big for it is in REST, and there in an envelope if the run is of one task.
fn input(run: RunId, evidence: &Evidence) -> Payload {
    let by_grpc = evidence.grpc.as_ref().map(|run| run.input.clone()).filter(|input| !input.as_str().is_empty());
    let by_rest = || {
        let text = evidence.rest.as_ref()?.run.input.as_ref()?.get();
        let enveloped = || serde_json::from_str::<Envelope>(text).ok()?.input;
        let inner = evidence.is_of_one_task(run).then(enveloped).flatten();
        Some(Payload::input(inner.as_deref().map_or(text, |inner| inner.get())))
    };
    by_grpc.or_else(by_rest).unwrap_or_else(|| Payload::input(""))
}

fn all_metadata(evidence: &Evidence) -> BTreeMap<String, Value> {
    let by_grpc = evidence.grpc.as_ref().map(|run| run.metadata.clone());
    by_grpc.or_else(|| evidence.rest.as_ref()?.run.additional_metadata.clone()).unwrap_or_default()
}

/// The task that started the run: each of the run's tasks names it, and of a run of one task the run does not.
fn parent_task(evidence: &Evidence) -> Result<Option<TaskId>> {
    let tasks = evidence.rest.iter().flat_map(|run| &run.tasks);
    let named = tasks.filter_map(|task| task.parent_task_external_id.as_deref());
    convert::optional_id(named.into_iter().next())
}
