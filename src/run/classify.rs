//! The one place that decides how a run ended.
//!
//! No stream alone is believed. The result stream is enough where it cannot mislead: one entry for each task, all with an
//! output, or one with an error's text that can only be a failure's. Everything else is settled by REST's view of the run,
//! which is the steady one, and by the tasks' events, which alone know a timeout; unless REST has not heard of the last
//! attempt after all the time that it was given: then gRPC is believed.

use super::behind::{agrees, has_failed, has_that_error, is_behind, lacks_attempt};
use super::evidence::{Evidence, TaskEnd, TaskEvidence};
use crate::model::convert::grpc::{GrpcRun, GrpcTask};
use crate::model::{
    Attempt, Cancellation, Completed, Conflict, Failure, Outcome, Payload, RunId, RunStatus, Timeout, TimeoutKind,
};

/// How the engine begins the text of an execution timeout. A task can end with such a text of its own, so it is only a
/// reason to look at the events.
const TIMEOUT_TEXT: &str = "Task exceeded timeout of ";

/// What evidence comes to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Finding {
    /// The run goes on.
    Going(RunStatus),
    /// One surface says that it has ended, the steady one does not know it yet: look again.
    Lagging,
    /// It ended.
    Ended(Outcome, Vec<Conflict>),
}

/// What the result stream alone is enough for.
pub(crate) fn quick(run: RunId, workflow: Option<&str>, results: &[TaskEnd]) -> Option<Outcome> {
    match results {
        // The one task of a run has the id of the run; of a run of several, one entry is not all.
        [one] if run.is(&one.id) => match &one.end {
            // If the workflow is unknown, so is the shape of its output.
            Ok(output) => Some(completed(wrap_output(&one.task, workflow?, output.clone()))),
            Err(text) if text.is_empty() || text.starts_with(TIMEOUT_TEXT) => None,
            Err(text) => Some(failed(Some(&one.task), text)),
        },
        [_] => None,
        // Two entries of one task are two ends of it: not without a look.
        several => {
            let once = |end: &TaskEnd| several.iter().filter(|other| other.id == end.id).count() == 1;
            let outputs: Option<Vec<_>> = several
                .iter()
                .map(|end| Some((end.task.as_str(), end.end.as_ref().ok().filter(|_| once(end))?)))
                .collect();
            outputs.filter(|outputs| !outputs.is_empty()).map(|outputs| completed(object(&outputs)))
        }
    }
}

/// What all of the evidence comes to. `patient`: REST may still catch up, so its silence is no answer yet.
///
/// That a run has ended, only the result stream and gRPC's `done` tell: REST shows it as failed for a moment after every
/// failed attempt. How it ended, REST tells, which is the steady one.
pub(crate) fn settled(run: RunId, evidence: &Evidence, patient: bool) -> Finding {
    let tasks = evidence.tasks(run);
    let grpc = evidence.grpc.as_ref().map(by_grpc);
    if tasks.iter().any(TaskEvidence::is_to_begin_anew) {
        return match grpc.filter(|grpc| grpc.is_final() && evidence.is_of_one_task(run)) {
            // A replay of several tasks is under way from the first to the last, though all surfaces show the old end in between.
            None => Finding::Going(RunStatus::Running),
            // One task begins anew before REST hears of the replay. So it has ended again, and REST does not know.
            Some(_) if patient => Finding::Lagging,
            Some(grpc) => Finding::Ended(outcome(run, &grpc, evidence, &tasks), Vec::new()),
        };
    }
    let steady = evidence.steady();
    let ended_by_rest = steady.clone().filter(RunStatus::is_final);
    let ended = match &grpc {
        Some(grpc) => evidence.results.is_some() || grpc.is_final(),
        None => evidence.results.is_some() || ended_by_rest.is_some(),
    };
    match (ended, ended_by_rest, grpc) {
        (true, Some(steady), grpc) if !patient || tasks.iter().all(agrees) => {
            // REST has had its time. If it still knows less than gRPC, that one is believed.
            let ahead = grpc.clone().filter(|grpc| grpc.is_final() && tasks.iter().any(is_behind));
            let status = ahead.unwrap_or(steady);
            let conflicts = conflicts(run, grpc.as_ref(), &status, evidence, &tasks);
            Finding::Ended(outcome(run, &status, evidence, &tasks), conflicts)
        }
        (true, None, Some(grpc)) if !patient && grpc.is_final() => {
            Finding::Ended(outcome(run, &grpc, evidence, &tasks), Vec::new())
        }
        (true, ..) => Finding::Lagging,
        // Of two that are both under way, the one that is further is newer.
        (false, _, Some(grpc)) if grpc == RunStatus::Running || steady.is_none() => Finding::Going(grpc),
        (false, ended, Some(grpc)) => Finding::Going(steady.filter(|_| ended.is_none()).unwrap_or(grpc)),
        (false, _, None) => steady.map_or(Finding::Lagging, Finding::Going),
    }
}

/// Resolves the run from gRPC alone. `None` if REST is needed.
///
/// gRPC does not distinguish a cancel from a schedule timeout, nor an execution timeout from a failure with the same error text.
pub(crate) fn resolve_from_grpc(run: RunId, evidence: &Evidence) -> Option<Finding> {
    let grpc = evidence.grpc.as_ref()?;
    let status = by_grpc(grpc);
    let is_clear = |task: &GrpcTask| {
        let error = task.error.as_deref().unwrap_or_default();
        task.status != RunStatus::Failed || !error.is_empty() && !error.starts_with(TIMEOUT_TEXT)
    };
    match status {
        RunStatus::Failed if !grpc.tasks.values().all(is_clear) => None,
        RunStatus::Completed | RunStatus::Failed => {
            Some(Finding::Ended(outcome(run, &status, evidence, &evidence.tasks(run)), Vec::new()))
        }
        RunStatus::Cancelled => None,
        going => Some(Finding::Going(going)),
    }
}

/// gRPC shows the state of a run before it is done with it.
fn by_grpc(run: &GrpcRun) -> RunStatus {
    if run.done || !run.status.is_final() { run.status.clone() } else { RunStatus::Running }
}

/// Where the surfaces disagree for good, about the run and about the tasks of a run of several.
///
/// A schedule timeout is cancelled to one surface and failed to the other by design: that is no disagreement.
fn conflicts(
    run: RunId,
    grpc: Option<&RunStatus>,
    steady: &RunStatus,
    evidence: &Evidence,
    tasks: &[TaskEvidence<'_>],
) -> Vec<Conflict> {
    let is_expected_mismatch =
        |task: &TaskEvidence<'_>| has_timed_out(task) && task.last_end("SCHEDULING_TIMED_OUT").is_some();
    let differ = |task: Option<String>, grpc: Option<&RunStatus>, rest: &RunStatus| {
        let grpc = grpc.filter(|grpc| grpc.is_final() && rest.is_final() && *grpc != rest)?;
        Some(Conflict { task, grpc: grpc.clone(), rest: rest.clone() })
    };
    let of_run = differ(None, grpc, steady).filter(|_| !tasks.iter().any(is_expected_mismatch));
    let done = evidence.grpc.as_ref().is_some_and(|run| run.done) && !evidence.is_of_one_task(run);
    let of_tasks = tasks
        .iter()
        .filter(|task| done && !is_expected_mismatch(task) && !is_behind(task))
        .filter_map(|task| differ(Some(task.name.clone()), task.grpc.map(|task| &task.status), &task.steady()?));
    of_run.into_iter().chain(of_tasks).collect()
}

fn outcome(run: RunId, status: &RunStatus, evidence: &Evidence, tasks: &[TaskEvidence<'_>]) -> Outcome {
    match (tasks, status) {
        ([one], _) if one.id.is_of_its_own(run) => match task_outcome(one, status) {
            Outcome::Completed(Completed { output }) => {
                let workflow = evidence.workflow.as_deref().unwrap_or(&one.name);
                completed(wrap_output(&one.name, workflow, output))
            }
            other => other,
        },
        (tasks, RunStatus::Completed) => {
            let outputs: Vec<_> = tasks.iter().map(|task| (task.name.as_str(), output(task))).collect();
            let outputs: Vec<_> = outputs.iter().map(|(name, output)| (*name, output)).collect();
            completed(object(&outputs))
        }
        (tasks, RunStatus::Cancelled) => {
            let messages = tasks.iter().filter_map(|task| task.last_end("CANCELLED"));
            cancelled(messages.into_iter().find(|text| !text.is_empty()).unwrap_or_default())
        }
        // The first that failed is why the run did: the others were cancelled after it, or came to clear up.
        (tasks, _) => {
            if let Some(task) =
                tasks.iter().find(|task| task.was_cancelled()).filter(|_| !tasks.iter().any(may_have_failed))
            {
                return cancelled(task.last_end("CANCELLED").unwrap_or_default());
            }
            let failed = |task: &&TaskEvidence<'_>| !is_behind(task) && task.attempts.last().is_some_and(has_failed);
            // Of one that failed once more, unheard of, it is not known when.
            let ended = |task: &&TaskEvidence<'_>| {
                (lacks_attempt(task), task.attempts.last().and_then(|last| last.finished_at))
            };
            let first = tasks.iter().filter(failed).min_by_key(ended);
            let text = || evidence.rest.as_ref()?.run.error_message.clone();
            let by_grpc = || {
                let has_failed =
                    |task: &&TaskEvidence<'_>| task.grpc.is_some_and(|task| task.status == RunStatus::Failed);
                let mut failed = tasks.iter().filter(has_failed).filter(|_| evidence.rest.is_none());
                // Of several, gRPC does not show which was the first.
                failed.next().filter(|_| failed.next().is_none())
            };
            first.or_else(by_grpc).map_or_else(|| failed_by(None, text()), failure)
        }
    }
}

/// Whether a task of a failed run may be the reason for the failure.
fn may_have_failed(task: &TaskEvidence<'_>) -> bool {
    is_behind(task) || task.attempts.last().is_none_or(|last| has_failed(last) || !last.status.is_final())
}

/// How a task ended, when its state is known.
pub(super) fn task_outcome(task: &TaskEvidence<'_>, status: &RunStatus) -> Outcome {
    match status {
        RunStatus::Completed => completed(output(task)),
        RunStatus::Cancelled => cancelled(task.last_end("CANCELLED").unwrap_or_default()),
        _ => failure(task),
    }
}

/// A failed task: what its last attempt ended with says whether it was a timeout.
fn failure(task: &TaskEvidence<'_>) -> Outcome {
    let name = Some(task.name.clone()).filter(|name| !name.is_empty());
    // The events of an earlier attempt say nothing about the last.
    if !has_that_error(task) {
        return failed_by(name, error_text(task));
    }
    // REST shows a cancelled task as failed after its schedule timeout has passed.
    if task.was_cancelled() {
        return cancelled(task.last_end("CANCELLED").unwrap_or_default());
    }
    for (kind, event) in [(TimeoutKind::Execution, "TIMED_OUT"), (TimeoutKind::Schedule, "SCHEDULING_TIMED_OUT")] {
        if let Some(message) = task.last_end(event) {
            return Outcome::TimedOut(Timeout { kind, task: name, message });
        }
    }
    failed_by(name, task.last_end("FAILED").filter(|text| !text.is_empty()).or_else(|| error_text(task)))
}

fn has_timed_out(task: &TaskEvidence<'_>) -> bool {
    task.attempts.last().is_some_and(|last| last.status == RunStatus::TimedOut)
}

fn completed(output: Payload) -> Outcome {
    Outcome::Completed(Completed { output })
}

fn cancelled(message: String) -> Outcome {
    Outcome::Cancelled(Cancellation { message, request: None })
}

fn failed(task: Option<&str>, text: &str) -> Outcome {
    failed_by(task.map(Into::into), Some(text.to_owned()))
}

fn failed_by(task: Option<String>, text: Option<String>) -> Outcome {
    Outcome::Failed(Failure { task, message: text.unwrap_or_default() })
}

/// The output of a single-task run. A task that was registered by itself has the name of its workflow; other outputs are wrapped.
fn wrap_output(task: &str, workflow: &str, output: Payload) -> Payload {
    if task == workflow { output } else { object(&[(task, &output)]) }
}

/// The outputs of several tasks as one JSON object, each by its task's name. A task that ended with nothing has `null`.
fn object(outputs: &[(&str, &Payload)]) -> Payload {
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

/// An output outlives an empty error; the result stream has it as it was sent, gRPC too, and REST only if it is an object.
fn output(task: &TaskEvidence<'_>) -> Payload {
    let streamed = task.results.iter().find_map(|end| end.as_ref().ok()).cloned();
    let by_grpc = || task.grpc?.output.clone();
    let by_rest = || Some(Payload::output(task.rest?.output.as_ref()?.get()));
    streamed.or_else(by_grpc).or_else(by_rest).unwrap_or_else(|| Payload::output(""))
}

fn error_text(task: &TaskEvidence<'_>) -> Option<String> {
    let present = |text: &&String| !text.is_empty();
    let streamed = task.results.iter().find_map(|end| end.as_ref().err().filter(present)).cloned();
    let by_grpc = || task.grpc?.error.as_ref().filter(present).cloned();
    let by_rest = || task.rest?.error_message.as_ref().filter(present).cloned();
    streamed.or_else(by_grpc).or_else(by_rest)
}

/// Brings the attempts into line with how the task ended: of one with two ends, the last attempt shows the one that lasts; and
/// if the run is over, one that REST has not heard of is there without its times.
pub(super) fn attempts_of(task: &TaskEvidence<'_>, outcome: Option<&Outcome>, is_over: bool) -> Vec<Attempt> {
    let mut attempts = task.attempts.clone();
    let (Some(outcome), Some(last)) = (outcome, attempts.last_mut()) else { return attempts };
    if is_over && lacks_attempt(task) {
        let error = match outcome {
            Outcome::Failed(failure) => Some(failure.message.clone()),
            _ => None,
        };
        let unheard_of = Attempt {
            number: last.number.saturating_add(1),
            status: outcome.status(),
            queued_at: None,
            started_at: None,
            finished_at: None,
            worker: None,
            error,
        };
        attempts.push(unheard_of);
    } else {
        last.status = outcome.status();
    }
    attempts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::rpc::rest_types::{Run as RestRun, TaskEvent};

    const RUN: &str = "00000000-0000-4000-8001-000000000001";

    fn run() -> RunId {
        RUN.parse().unwrap()
    }

    /// Evidence in one line: `grpc`, `rest`, the events of the last attempt, the entries of the result stream.
    fn evidence(grpc: &str, rest: &str, events: &[(&str, &str)], results: &[Result<&str, &str>]) -> Evidence {
        let task = GrpcTask {
            id: RUN.parse().unwrap(),
            status: RunStatus::from_name(grpc),
            error: Some(String::new()),
            output: None,
        };
        Evidence {
            results: (!results.is_empty()).then(|| {
                results
                    .iter()
                    .map(|end| TaskEnd { id: RUN.into(), task: "work".into(), end: end.map(Payload::output).map_err(str::to_owned) })
                    .collect()
            }),
            grpc: (!grpc.is_empty()).then(|| GrpcRun {
                status: RunStatus::from_name(grpc),
                done: RunStatus::from_name(grpc).is_final(),
                input: Payload::input("{}"),
                metadata: BTreeMap::new(),
                tasks: [("work".to_owned(), task)].into(),
            }),
            rest: (!rest.is_empty()).then(|| {
                let body = format!(r#"{{"run":{{"metadata":{{"id":"{RUN}"}},"status":"{rest}"}},"shape":[{{"taskExternalId":"{RUN}","taskName":"work"}}],"tasks":[{{"taskExternalId":"{RUN}","status":"{rest}","output":{{}}}}]}}"#);
                serde_json::from_str::<RestRun>(&body).unwrap()
            }),
            log: None,
            grpc_suffices: false,
            without_rest: None,
            workflow: Some("work".into()),
            events: events
                .iter()
                .map(|(kind, text)| {
                    let body = format!(
                        r#"{{"eventType":"{kind}","timestamp":"2026-11-23T14:00:00Z","retryCount":0,"message":"{}","errorMessage":"{}"}}"#,
                        if *kind == "FAILED" { "" } else { text },
                        if *kind == "FAILED" { text } else { "" },
                    );
                    serde_json::from_str::<TaskEvent>(&body).unwrap()
                })
                .collect(),
        }
    }

    fn told(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Completed(completed) => format!("completed {}", completed.output),
            Outcome::TimedOut(timeout) => format!("timed out {:?} {}", timeout.kind, timeout.message),
            other => other.to_string(),
        }
    }

    #[test]
    fn what_the_result_stream_alone_is_enough_for() {
        type Row<'a> = (&'a [Result<&'a str, &'a str>], Option<&'a str>);
        let rows: [Row<'_>; 8] = [
            (&[Ok(r#"{"a":1}"#)], Some(r#"completed {"a":1}"#)),
            (&[Ok("")], Some("completed ")),
            (&[Err("it broke")], Some("failed: it broke")),
            // Cancelled, timed out while waiting, or taken from ten workers in turn.
            (&[Err("")], None),
            // A task may well fail with these words itself.
            (&[Err("Task exceeded timeout of 2s")], None),
            // Two final rows.
            (&[Ok("{}"), Err("")], None),
            (&[Err(""), Ok("{}")], None),
            // Too big for the stream.
            (&[], None),
        ];
        for (results, expected) in rows {
            let results = evidence("", "", &[], results).results.unwrap_or_default();
            assert_eq!(
                quick(run(), Some("work"), &results).map(|outcome| told(&outcome)).as_deref(),
                expected,
                "{results:?}"
            );
        }
    }

    #[test]
    fn every_ending_that_was_measured() {
        type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [Result<&'a str, &'a str>], &'a str, bool);
        let rows: [Row<'_>; 13] = [
            ("COMPLETED", "COMPLETED", &[("FINISHED", "")], &[Ok(r#"{"a":1}"#)], r#"completed {"a":1}"#, false),
            ("FAILED", "FAILED", &[("FAILED", "it broke")], &[Err("it broke")], "failed: it broke", false),
            (
                "FAILED",
                "FAILED",
                &[("TIMED_OUT", "Task exceeded timeout of 2s")],
                &[Err("Task exceeded timeout of 2s")],
                "timed out Execution Task exceeded timeout of 2s",
                false,
            ),
            // The same words from a task: its events say that it failed.
            (
                "FAILED",
                "FAILED",
                &[("FAILED", "Task exceeded timeout of 2s")],
                &[Err("Task exceeded timeout of 2s")],
                "failed: Task exceeded timeout of 2s",
                false,
            ),
            ("CANCELLED", "FAILED", &[("SCHEDULING_TIMED_OUT", "")], &[Err("")], "timed out Schedule ", false),
            ("CANCELLED", "CANCELLED", &[("CANCELLED", "")], &[Err("")], "was cancelled", false),
            // Cancelled while it was queued: the schedule timeout still passes, and REST shows the run as failed.
            (
                "CANCELLED",
                "FAILED",
                &[("SCHEDULING_TIMED_OUT", ""), ("CANCELLED", "")],
                &[Err("")],
                "was cancelled",
                true,
            ),
            (
                "CANCELLED",
                "CANCELLED",
                &[("CANCELLED", "Cancelled due to concurrency strategy")],
                &[Err("")],
                "was cancelled: Cancelled due to concurrency strategy",
                false,
            ),
            // Cancelled after its end: gRPC has changed its mind, REST has not.
            (
                "CANCELLED",
                "COMPLETED",
                &[("FINISHED", ""), ("CANCELLED", "")],
                &[Err(""), Ok("{}")],
                "completed {}",
                true,
            ),
            // Completed after its cancel.
            (
                "CANCELLED",
                "COMPLETED",
                &[("CANCELLED", ""), ("FINISHED", "")],
                &[Err(""), Ok(r#"{"late":1}"#)],
                r#"completed {"late":1}"#,
                true,
            ),
            // Failed after its cancel: both surfaces turn.
            ("FAILED", "FAILED", &[("CANCELLED", ""), ("FAILED", "late")], &[Err("late")], "failed: late", false),
            // Ten workers lost it: no text anywhere.
            ("FAILED", "FAILED", &[("REASSIGNED", "gone")], &[Err("")], "failed", false),
            // Too big for the stream: REST has the output.
            ("COMPLETED", "COMPLETED", &[("FINISHED", "")], &[], "completed {}", false),
        ];
        for (grpc, rest, events, results, expected, conflict) in rows {
            match settled(run(), &evidence(grpc, rest, events, results), true) {
                Finding::Ended(outcome, conflicts) => {
                    assert_eq!(
                        (told(&outcome).as_str(), !conflicts.is_empty()),
                        (expected, conflict),
                        "{grpc} {rest} {events:?}"
                    );
                }
                other => panic!("{grpc} {rest}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_end_that_the_steady_surface_does_not_know_is_waited_for_and_then_told_without_guessing() {
        for rest in ["", "RUNNING", "QUEUED", "SOMETHING_NEW"] {
            let lagging = evidence("FAILED", rest, &[], &[Err("Task exceeded timeout of 2s")]);
            assert_eq!(settled(run(), &lagging, true), Finding::Lagging, "{rest}");
            let Finding::Ended(outcome, _) = settled(run(), &lagging, false) else { panic!("{rest}") };
            assert_eq!(told(&outcome), "failed: Task exceeded timeout of 2s", "no event, no timeout");
        }
    }

    #[test]
    fn a_failure_that_will_be_tried_again_is_no_end() {
        let failed = evidence("RUNNING", "FAILED", &[("FAILED", "first")], &[]);
        assert_eq!(settled(run(), &failed, true), Finding::Going(RunStatus::Running));
        let queued = evidence("QUEUED", "FAILED", &[("FAILED", "first")], &[]);
        assert_eq!(settled(run(), &queued, true), Finding::Going(RunStatus::Queued));
    }

    #[test]
    fn the_failure_of_an_earlier_attempt_is_not_taken_for_the_last_one() {
        let mut behind = evidence("FAILED", "FAILED", &[("FAILED", "first")], &[]);
        for task in behind.grpc.iter_mut().flat_map(|run| run.tasks.values_mut()) {
            task.error = Some("second".into());
        }
        assert_eq!(settled(run(), &behind, true), Finding::Lagging);
        behind.events[0].error_message = Some("second".into());
        assert!(matches!(settled(run(), &behind, true), Finding::Ended(..)));
    }

    #[test]
    fn a_failure_is_not_believed_of_a_run_that_ended_otherwise() {
        for (grpc, expected) in [("COMPLETED", "completed {}"), ("CANCELLED", "was cancelled")] {
            let mut behind = evidence(grpc, "FAILED", &[("FAILED", "first")], &[]);
            behind.grpc.as_mut().unwrap().tasks.get_mut("work").unwrap().output = Some(Payload::output("{}"));
            assert_eq!(settled(run(), &behind, true), Finding::Lagging, "{grpc}");
            // There was another attempt, and REST never got to it.
            let Finding::Ended(outcome, conflicts) = settled(run(), &behind, false) else { panic!("{grpc}") };
            assert_eq!((told(&outcome).as_str(), conflicts.len()), (expected, 0));
            let attempts = attempts_of(&behind.tasks(run())[0], Some(&outcome), true);
            let attempts: Vec<_> =
                attempts.iter().map(|each| (each.number, each.status.as_str(), each.error.as_deref())).collect();
            assert_eq!(attempts, [(1, "FAILED", Some("first")), (2, grpc, None)]);
        }
    }

    #[test]
    fn another_failure_than_the_one_that_rest_knows_is_an_attempt_of_its_own() {
        let mut behind = evidence("FAILED", "FAILED", &[("FAILED", "first")], &[]);
        behind.grpc.as_mut().unwrap().tasks.get_mut("work").unwrap().error = Some("second".into());
        let Finding::Ended(outcome, _) = settled(run(), &behind, false) else { panic!() };
        assert_eq!(told(&outcome), "failed: second");
        let attempts = |is_over| {
            let attempts = attempts_of(&behind.tasks(run())[0], Some(&outcome), is_over).into_iter();
            attempts.map(|each| (each.number, each.error.unwrap_or_default())).collect::<Vec<_>>()
        };
        assert_eq!(attempts(true), [(1, "first".to_owned()), (2, "second".to_owned())]);
        // While the run goes on, no attempt is made up.
        assert_eq!(attempts(false), [(1, "first".to_owned())]);
    }

    #[test]
    fn a_failure_without_an_attempt_that_failed_is_no_attempt_before_the_last() {
        // A schedule timeout whose event has not come yet.
        let early = evidence("CANCELLED", "FAILED", &[("QUEUED", "")], &[]);
        let Finding::Ended(outcome, conflicts) = settled(run(), &early, false) else { panic!() };
        assert_eq!((told(&outcome).as_str(), conflicts.len()), ("failed", 1));
        assert_eq!(attempts_of(&early.tasks(run())[0], Some(&outcome), true).len(), 1);
    }

    #[test]
    fn of_several_tasks_the_one_that_rest_is_behind_with_is_not_blamed() {
        // `a` failed once and then completed, which REST does not know; `b` failed, and all know it.
        let mut both = evidence("FAILED", "FAILED", &[], &[]);
        let (a, b) = ("00000000-0000-4000-8002-00000000000a", "00000000-0000-4000-8002-00000000000b");
        let grpc = &mut both.grpc.as_mut().unwrap().tasks;
        grpc.clear();
        for (name, id, status, error) in [("a", a, RunStatus::Completed, ""), ("b", b, RunStatus::Failed, "broken")] {
            let task = GrpcTask { id: id.parse().unwrap(), status, error: Some(error.into()), output: None };
            grpc.insert(name.into(), task);
        }
        let rest = both.rest.as_mut().unwrap();
        rest.shape.clear();
        rest.tasks.clear();
        for (id, text) in [(a, "first"), (b, "broken")] {
            let more = evidence("", "FAILED", &[("FAILED", text)], &[]);
            let mut task = more.rest.unwrap().tasks.remove(0);
            task.task_external_id = id.into();
            rest.tasks.push(task);
            let mut event = more.events.into_iter().next().unwrap();
            event.task_id = id.into();
            // The stale failure is the earlier one.
            event.timestamp += chrono::TimeDelta::seconds(i64::from(id == b));
            rest.task_events.push(event);
        }
        assert_eq!(settled(run(), &both, true), Finding::Lagging);
        let Finding::Ended(Outcome::Failed(failure), conflicts) = settled(run(), &both, false) else { panic!() };
        assert_eq!((failure.task.as_deref(), failure.message.as_str(), conflicts.len()), (Some("b"), "broken", 0));
    }

    #[test]
    fn what_was_replayed_and_has_not_begun_anew_is_under_way() {
        let events = [("FINISHED", ""), ("RETRIED_BY_USER", "")];
        let mut of_several = evidence("COMPLETED", "COMPLETED", &[], &[]);
        let task = "00000000-0000-4000-8002-000000000001";
        of_several.grpc.as_mut().unwrap().tasks.get_mut("work").unwrap().id = task.parse().unwrap();
        let rest = of_several.rest.as_mut().unwrap();
        (rest.shape[0].task_external_id, rest.tasks[0].task_external_id) = (task.into(), task.into());
        rest.task_events = evidence("", "", &events, &[]).events;
        rest.task_events.iter_mut().for_each(|event| event.task_id = task.into());
        for patient in [true, false] {
            assert_eq!(settled(run(), &of_several, patient), Finding::Going(RunStatus::Running));
        }
        // The one task of a run has begun anew before this can be seen.
        let mut replayed = evidence("RUNNING", "COMPLETED", &events, &[]);
        assert_eq!(settled(run(), &replayed, true), Finding::Going(RunStatus::Running));
        replayed = evidence("COMPLETED", "COMPLETED", &events, &[Ok("{}")]);
        assert_eq!(settled(run(), &replayed, true), Finding::Lagging);
        assert!(matches!(settled(run(), &replayed, false), Finding::Ended(Outcome::Completed(_), _)));
        let mut again = replayed.events[0].clone();
        again.retry_count = Some(1);
        replayed.events.push(again);
        assert!(matches!(settled(run(), &replayed, true), Finding::Ended(Outcome::Completed(_), _)));
    }

    #[test]
    fn a_run_that_goes_on_is_as_far_as_the_further_surface_says() {
        assert_eq!(settled(run(), &evidence("QUEUED", "RUNNING", &[], &[]), true), Finding::Going(RunStatus::Running));
        assert_eq!(settled(run(), &evidence("RUNNING", "QUEUED", &[], &[]), true), Finding::Going(RunStatus::Running));
        assert_eq!(settled(run(), &evidence("QUEUED", "", &[], &[]), true), Finding::Going(RunStatus::Queued));
        assert_eq!(
            settled(run(), &evidence("77", "", &[], &[]), true),
            Finding::Going(RunStatus::Unknown("77".into()))
        );
        assert_eq!(settled(run(), &evidence("RUNNING", "PAUSED", &[], &[]), true), Finding::Going(RunStatus::Running));
    }
}
