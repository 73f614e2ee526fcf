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
    let name = present(task.name.to_owned());
    // The events are those of an earlier attempt.
    if !has_known_error(task) || task.awaits_replay() {
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

pub(super) fn failed(task: &str, text: &str) -> Outcome {
    failed_by(present(task.to_owned()), Some(text.to_owned()))
}

fn failed_by(task: Option<String>, text: Option<String>) -> Outcome {
    Outcome::Failed(Failure { task_name: task, message: text.and_then(present) })
}

/// A string of the engine, which has an empty one where there is none.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::evidence::Evidence;
    use super::super::fixtures::{evidence, run};
    use super::*;
    use crate::model::TaskId;

    fn text(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Completed(end) => end.output.as_str().to_owned(),
            Outcome::Failed(end) => format!("{:?} failed: {:?}", end.task_name, end.message),
            Outcome::TimedOut(end) => format!("{:?} {:?}", end.kind, end.message),
            Outcome::Cancelled(end) => format!("cancelled: {:?}", end.message),
        }
    }

    fn ended(evidence: &Evidence, status: &RunStatus) -> String {
        text(&outcome(&RunView::new(run(), evidence), status))
    }

    #[test]
    fn an_output_is_the_one_that_was_sent_if_an_api_view_has_it() {
        let mut evidence = evidence("COMPLETED", "COMPLETED", &[("FINISHED", "")], &[Ok("1")]);
        evidence.grpc.as_mut().unwrap().tasks.get_mut("work").unwrap().output = Some(Payload::output("2"));
        assert_eq!(ended(&evidence, &RunStatus::Completed), "1");
        evidence.results = None;
        assert_eq!(ended(&evidence, &RunStatus::Completed), "2");
        evidence.grpc = None;
        assert_eq!(ended(&evidence, &RunStatus::Completed), "{}", "REST has only objects");
    }

    #[test]
    fn a_task_whose_workflow_has_another_name_is_a_field_of_the_output() {
        let mut evidence = evidence("", "COMPLETED", &[("FINISHED", "")], &[Ok(r#""done""#)]);
        evidence.workflow = Some("mail".into());
        assert_eq!(ended(&evidence, &RunStatus::Completed), r#"{"work":"done"}"#);
    }

    #[test]
    fn a_task_without_an_output_is_null_among_several() {
        let (given, none) = (Payload::output("[1]"), Payload::output(""));
        assert_eq!(object(&[(r#"a"b"#, &given), ("c", &none)]).as_str(), r#"{"a\"b":[1],"c":null}"#);
    }

    #[test]
    fn events_distinguish_a_timeout_and_a_cancellation_from_a_failure() {
        for (events, expected) in [
            (&[("FAILED", "no")][..], r#"Some("work") failed: Some("no")"#),
            (&[("TIMED_OUT", "late")], r#"Execution Some("late")"#),
            (&[("SCHEDULING_TIMED_OUT", "")], "Schedule None"),
            (&[("CANCELLED", "stop"), ("SCHEDULING_TIMED_OUT", "")], r#"cancelled: Some("stop")"#),
        ] {
            assert_eq!(ended(&evidence("", "FAILED", events, &[]), &RunStatus::Failed), expected, "{events:?}");
        }
        let only_streamed = evidence("", "", &[], &[Err("no")]);
        assert_eq!(ended(&only_streamed, &RunStatus::Failed), r#"Some("work") failed: Some("no")"#);
    }

    /// A run of the tasks `first` and `second`, with their statuses in REST and the events at which they ended.
    fn of_two(ends: [(&str, &str, &str); 2]) -> Evidence {
        let mut evidence = evidence("", "FAILED", &[], &[]);
        let rest = evidence.rest.as_mut().unwrap();
        let id = |number: usize| TaskId::from(uuid::Uuid::from_u128(number as u128 + 1));
        let named = ["first", "second"].into_iter().zip(ends).enumerate();
        let tasks = named.map(|(at, (name, (status, event, ended_at)))| {
            let shape = json!({"taskExternalId": id(at), "taskName": name});
            let task = json!({"taskExternalId": id(at), "status": status});
            let event = json!({
                "taskId": id(at), "eventType": event, "timestamp": ended_at, "retryCount": 0, "message": "", "errorMessage": name,
            });
            (shape, task, event)
        });
        let (mut shapes, mut rows, mut events) = (Vec::new(), Vec::new(), Vec::new());
        for (shape, task, event) in tasks {
            shapes.push(shape);
            rows.push(task);
            events.push(event);
        }
        rest.shape = serde_json::from_value(shapes.into()).unwrap();
        rest.tasks = serde_json::from_value(rows.into()).unwrap();
        rest.task_events = serde_json::from_value(events.into()).unwrap();
        evidence
    }

    #[test]
    fn a_run_failed_because_of_the_task_that_failed_first() {
        let (earlier, later) = ("2026-11-23T14:00:01Z", "2026-11-23T14:00:02Z");
        let both = of_two([("FAILED", "FAILED", later), ("FAILED", "FAILED", earlier)]);
        assert_eq!(ended(&both, &RunStatus::Failed), r#"Some("second") failed: Some("second")"#);
        let one = of_two([("CANCELLED", "CANCELLED", earlier), ("FAILED", "FAILED", later)]);
        assert_eq!(ended(&one, &RunStatus::Failed), r#"Some("second") failed: Some("second")"#);
        let none = of_two([("COMPLETED", "FINISHED", earlier), ("CANCELLED", "CANCELLED", later)]);
        assert_eq!(ended(&none, &RunStatus::Failed), r#"cancelled: Some("second")"#);
    }
}
