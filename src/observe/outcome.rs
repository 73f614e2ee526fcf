//! How a run or a task ended, when its status is known.

use super::staleness::{has_failed, has_known_error, is_behind, lacks_attempt};
use super::view::{RunView, TaskView};
use crate::model::{Cancellation, Completed, Failure, Outcome, Payload, RunStatus, Timeout, TimeoutKind};
use crate::rpc::convert::TaskEventKind;

pub(super) fn outcome(view: &RunView<'_>, status: &RunStatus) -> Outcome {
    match (&view.tasks[..], status) {
        ([one], _) if view.is_single_task => match task_outcome(one, status) {
            Outcome::Completed(Completed { output }) => {
                let workflow = view.evidence.workflow.as_deref().unwrap_or(one.name);
                completed(wrap_output(one.name, workflow, output))
            }
            other => other,
        },
        (tasks, RunStatus::Completed) => {
            let outputs: Vec<_> = tasks.iter().map(|task| (task.name, output(task))).collect();
            let outputs: Vec<_> = outputs.iter().map(|(name, output)| (*name, output)).collect();
            completed(object(&outputs))
        }
        (tasks, RunStatus::Cancelled) => {
            let messages = tasks.iter().filter_map(|task| task.event_text(&TaskEventKind::Cancelled));
            cancelled(messages.into_iter().find(|text| !text.is_empty()))
        }
        // The run failed because of the first task that failed. The others were cancelled after it, or ran because of it.
        (tasks, _) => {
            if let Some(task) =
                tasks.iter().find(|task| task.was_cancelled()).filter(|_| !tasks.iter().any(may_have_failed))
            {
                return cancelled(task.event_text(&TaskEventKind::Cancelled));
            }
            let failed = |task: &&TaskView<'_>| !is_behind(task) && task.attempts.last().is_some_and(has_failed);
            // If REST lacks the last failure of a task, its time is not known.
            let ended =
                |task: &&TaskView<'_>| (lacks_attempt(task), task.attempts.last().and_then(|last| last.finished_at));
            let first = tasks.iter().filter(failed).min_by_key(ended);
            let text = || view.evidence.rest.as_ref()?.run.error_message.clone();
            let by_grpc = || {
                let has_failed = |task: &&TaskView<'_>| task.grpc.is_some_and(|task| task.status == RunStatus::Failed);
                let mut failed = tasks.iter().filter(has_failed).filter(|_| view.evidence.rest.is_none());
                // If several tasks failed, gRPC does not show which one was the first.
                failed.next().filter(|_| failed.next().is_none())
            };
            first.or_else(by_grpc).map_or_else(|| failed_by(None, text()), failure)
        }
    }
}

/// Whether a task of a failed run may be the reason for the failure.
fn may_have_failed(task: &TaskView<'_>) -> bool {
    is_behind(task) || task.attempts.last().is_none_or(|last| has_failed(last) || !last.status.is_final())
}

/// How a task ended.
pub(super) fn task_outcome(task: &TaskView<'_>, status: &RunStatus) -> Outcome {
    match status {
        RunStatus::Completed => completed(output(task)),
        RunStatus::Cancelled => cancelled(task.event_text(&TaskEventKind::Cancelled)),
        _ => failure(task),
    }
}

/// How a failed task ended: its events distinguish a timeout from a failure.
fn failure(task: &TaskView<'_>) -> Outcome {
    let name = Some(task.name.to_owned()).filter(|name| !name.is_empty());
    // The events are those of an earlier attempt.
    if !has_known_error(task) {
        return failed_by(name, error_text(task));
    }
    // REST shows a cancelled task as failed when its schedule timeout passes later.
    if task.was_cancelled() {
        return cancelled(task.event_text(&TaskEventKind::Cancelled));
    }
    for (kind, event) in
        [(TimeoutKind::Execution, TaskEventKind::TimedOut), (TimeoutKind::Schedule, TaskEventKind::SchedulingTimedOut)]
    {
        if let Some(message) = task.event_text(&event) {
            return Outcome::TimedOut(Timeout { kind, task_name: name, message: present(message) });
        }
    }
    failed_by(
        name,
        task.event_text(&TaskEventKind::Failed).filter(|text| !text.is_empty()).or_else(|| error_text(task)),
    )
}

pub(super) fn completed(output: Payload) -> Outcome {
    Outcome::Completed(Completed { output })
}

fn cancelled(text: Option<String>) -> Outcome {
    Outcome::Cancelled(Cancellation { message: text.and_then(present), request: None })
}

pub(super) fn failed(task: Option<&str>, text: &str) -> Outcome {
    failed_by(task.map(Into::into), Some(text.to_owned()))
}

fn failed_by(task: Option<String>, text: Option<String>) -> Outcome {
    Outcome::Failed(Failure { task_name: task, message: text.and_then(present) })
}

/// A text of the engine, which has an empty one where there is none.
fn present(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// The output of a single-task run. A task that was registered by itself has the name of its workflow; other outputs are wrapped.
pub(super) fn wrap_output(task: &str, workflow: &str, output: Payload) -> Payload {
    if task == workflow { output } else { object(&[(task, &output)]) }
}

/// The outputs of several tasks as one JSON object, by task name. A task without an output has `null`.
pub(super) fn object(outputs: &[(&str, &Payload)]) -> Payload {
    let mut text = String::from("{");
    for (at, (name, output)) in outputs.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&serde_json::Value::from(*name).to_string());
        text.push(':');
        let value = output.unwrapped();
        text.push_str(if value.is_empty() { "null" } else { value });
    }
    text.push('}');
    Payload::output(&text)
}

/// The output of a task. The result stream and gRPC have it as it was sent, REST only if it is an object.
fn output(task: &TaskView<'_>) -> Payload {
    let streamed = task.results.iter().find_map(|end| end.as_ref().ok()).cloned();
    let by_grpc = || task.grpc?.output.clone();
    let by_rest = || Some(Payload::output(task.rest?.output.as_ref()?.get()));
    streamed.or_else(by_grpc).or_else(by_rest).unwrap_or_else(|| Payload::output(""))
}

fn error_text(task: &TaskView<'_>) -> Option<String> {
    let present = |text: &&String| !text.is_empty();
    let streamed = task.results.iter().find_map(|end| end.as_ref().err().filter(present)).cloned();
    let by_grpc = || task.grpc?.error.as_ref().filter(present).cloned();
    let by_rest = || task.rest?.error_message.as_ref().filter(present).cloned();
    streamed.or_else(by_grpc).or_else(by_rest)
}
