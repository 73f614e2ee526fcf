//! Builds the details of a run from its evidence and its resolution.

use std::collections::BTreeMap;

use serde_json::Value;

use super::attempts::end_of;
use super::evidence::Evidence;
use super::outcome::task_outcome;
use super::resolve::Resolution;
use super::staleness::{is_behind, lacks_attempt};
use super::view::{RunView, TaskView};
use crate::model::{Attempt, Outcome, Payload, RunDetails, RunStatus, TaskDetails, metadata, trigger};
use crate::rpc::convert::{Envelope, RestRun};

/// The details, or `None` if the state of the run is not known yet.
pub(super) fn details(view: &RunView<'_>, resolution: Resolution, namespace: Option<&str>) -> Option<RunDetails> {
    let (status, outcome, conflicts) = match resolution {
        Resolution::Ended(outcome, conflicts) => (outcome.status(), Some(outcome), conflicts),
        Resolution::Running(status) => (status, None, Vec::new()),
        Resolution::Lagging => return None,
    };
    let tasks = view.tasks.iter().map(|task| task_details(view, task, &status, outcome.as_ref())).collect();
    let (user, mut engine) = metadata::split(all_metadata(view.evidence));
    trigger::remove_namespace(&mut engine, namespace);
    let rest = view.evidence.rest.as_ref().map(|rest| &rest.run);
    Some(RunDetails {
        id: view.run,
        workflow_id: rest.and_then(|run| run.workflow_id),
        workflow_name: view.evidence.workflow.as_deref().map(ToOwned::to_owned),
        workflow_version_id: rest.and_then(|run| run.workflow_version_id),
        status,
        outcome,
        trigger: trigger::read(&engine, view.evidence.rest.as_ref().and_then(RestRun::parent_task)),
        input: input(view),
        metadata: user,
        engine_metadata: engine,
        // The run's own `createdAt` is its start.
        created_at: rest.and_then(|run| run.metadata.created_at),
        tasks,
        logs: Vec::new(),
        conflicts,
    })
}

fn task_details(view: &RunView<'_>, task: &TaskView<'_>, status: &RunStatus, outcome: Option<&Outcome>) -> TaskDetails {
    let has_ended = outcome.is_some();
    let (status, outcome) = if view.is_single_task {
        // The outcome of the run is that of its task, except for the wrapped output.
        let own = outcome.map(|outcome| match outcome {
            Outcome::Completed(_) => task_outcome(task, status),
            other => other.clone(),
        });
        (status.clone(), own)
    } else {
        // Before the run has ended, gRPC's statuses of tasks are not reliable.
        let by_grpc = || task.grpc.map(|task| task.status.clone()).filter(|_| has_ended);
        let by_rest = task.rest_status().cloned().filter(|_| !has_ended || !is_behind(task));
        let status = by_rest.or_else(by_grpc).unwrap_or(RunStatus::Queued);
        match status.is_final().then(|| task_outcome(task, &status)) {
            Some(outcome) => (outcome.status(), Some(outcome)),
            None => (status, None),
        }
    };
    TaskDetails {
        id: task.id,
        name: task.name.to_owned(),
        status,
        attempts: attempts_of(task, outcome.as_ref(), has_ended),
        replayed_after: task.replayed_after.clone(),
        outcome,
    }
}

/// The attempts, made consistent with the retry count and the outcome of the task: if the run has ended, an attempt whose events REST
/// does not have yet is added without its times; if the last attempt has two ends, it shows the one that counts, and if
/// the run has ended, an attempt that REST lacks is added without its times.
pub(super) fn attempts_of(task: &TaskView<'_>, outcome: Option<&Outcome>, has_ended: bool) -> Vec<Attempt> {
    let mut attempts = task.attempts.clone();
    let newest = task.rest_attempt().unwrap_or(0);
    if has_ended
        && let Some(last) = attempts.last()
        && last.number < newest
        && let Some(status) = task.rest_status()
    {
        attempts.push(without_times(newest, status.clone()));
    }
    let (Some(outcome), Some(last)) = (outcome, attempts.last_mut()) else { return attempts };
    if has_ended && lacks_attempt(task) {
        let error = match outcome {
            Outcome::Failed(failure) => failure.message.clone(),
            _ => None,
        };
        let missing = without_times(last.number.saturating_add(1), outcome.status());
        attempts.push(Attempt { error, ..missing });
    } else if last.status != outcome.status() {
        let end = end_of(&task.events, last.number, &outcome.status());
        // While the run continues, it may be the end of an attempt whose events follow.
        if !has_ended && (end.is_none() || last.number < newest) {
            return attempts;
        }
        last.status = outcome.status();
        (last.finished_at, last.error) = end.unzip();
        last.error = last.error.take().filter(|text: &String| !text.is_empty());
    }
    attempts
}

/// An attempt whose events REST does not have.
fn without_times(number: u32, status: RunStatus) -> Attempt {
    Attempt { number, status, queued_at: None, started_at: None, finished_at: None, worker_id: None, error: None }
}

/// gRPC has the input itself. If it is too large for gRPC, REST has it, for a single-task run within the payload of the worker.
fn input(view: &RunView<'_>) -> Option<Payload> {
    let by_grpc = view.evidence.grpc.as_ref().and_then(|run| run.input.clone());
    let by_rest = || {
        let text = view.evidence.rest.as_ref()?.run.input.as_ref()?.get();
        let enveloped = || serde_json::from_str::<Envelope>(text).ok()?.input;
        let inner = view.is_single_task.then(enveloped).flatten();
        Some(Payload::input(inner.as_deref().map_or(text, |inner| inner.get())))
    };
    by_grpc.or_else(by_rest)
}

fn all_metadata(evidence: &Evidence) -> BTreeMap<String, Value> {
    let by_grpc = evidence.grpc.as_ref().map(|run| run.metadata.clone());
    by_grpc.or_else(|| evidence.rest.as_ref()?.run.additional_metadata.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{evidence, run};
    use super::*;

    #[test]
    fn the_input_of_a_single_task_run_is_unwrapped_from_rest() {
        let mut evidence = evidence("", "RUNNING", &[], &[]);
        let body = &mut evidence.rest.as_mut().unwrap().run;
        body.input = serde_json::from_str(r#"{"input":{"n":1},"parents":{}}"#).unwrap();
        assert_eq!(input(&RunView::new(run(), &evidence)).unwrap().as_str(), r#"{"n":1}"#);
    }

    #[test]
    fn an_input_that_no_api_view_has_is_none() {
        let mut evidence = evidence("RUNNING", "RUNNING", &[("STARTED", "")], &[]);
        evidence.grpc.as_mut().unwrap().input = None;
        evidence.rest.as_mut().unwrap().run.input = None;
        let details = details(&RunView::new(run(), &evidence), Resolution::Running(RunStatus::Running), None).unwrap();
        assert_eq!(details.input, None);
    }

    #[test]
    fn a_running_run_has_no_outcome() {
        let evidence = evidence("RUNNING", "RUNNING", &[("STARTED", "")], &[]);
        let details = details(&RunView::new(run(), &evidence), Resolution::Running(RunStatus::Running), None).unwrap();
        assert_eq!((details.status, details.outcome), (RunStatus::Running, None));
        assert_eq!((details.tasks[0].status.clone(), details.tasks[0].attempts.len()), (RunStatus::Running, 1));
    }

    /// While a DAG run continues, REST can show the end of a task before the events of its last attempt.
    #[test]
    fn the_end_of_a_later_attempt_is_not_that_of_an_earlier_one() {
        let evidence = evidence("RUNNING", "COMPLETED", &[("STARTED", "")], &[]);
        let view = RunView::new(run(), &evidence);
        let outcome = task_outcome(&view.tasks[0], &RunStatus::Completed);
        let statuses = |has_ended| -> Vec<_> {
            attempts_of(&view.tasks[0], Some(&outcome), has_ended).into_iter().map(|attempt| attempt.status).collect()
        };
        assert_eq!(statuses(false), [RunStatus::Running]);
        assert_eq!(statuses(true), [RunStatus::Completed], "there is no later one");
    }
}
