//! The one place that decides how a run ended.
//!
//! The result stream is sufficient only if its message is unambiguous: one entry for each task, and all entries have an output, or the
//! only entry has an error message that only a failure can have. In all other cases, REST's run decides, which is stable, and the events of
//! the tasks, which alone show timeouts. If REST does not have the last attempt within the read timeout, gRPC decides.

use std::collections::HashSet;

use super::outcome::{completed, failed, object, outcome, wrap_output};
use super::staleness::{BATCH_TIMEOUT_TEXT, agrees, is_behind, may_be_retried, status_lags_events};
use super::view::{RunView, TaskView};
use crate::model::{Conflict, Outcome, RunId, RunStatus};
use crate::rpc::convert::{GrpcRun, GrpcTask, TaskEventKind, TaskResult};

/// How the engine's error messages of an execution timeout begin. A task can fail with the same text, so the events decide.
const TIMEOUT_TEXTS: [&str; 2] = ["Task exceeded timeout of ", BATCH_TIMEOUT_TEXT];

/// What the evidence shows.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Resolution {
    Running(RunStatus),
    /// One API view shows that the run has ended, and REST does not show it yet.
    Lagging,
    Ended(Outcome, Vec<Conflict>),
}

/// Resolves a run from a message of the result stream alone. `None` if the message is ambiguous.
pub(crate) fn resolve_from_stream(run: RunId, workflow: Option<&str>, results: &[TaskResult]) -> Option<Outcome> {
    match results {
        // For a DAG run, one entry is not complete.
        [one] if one.task.is_single_task_of(run) => match &one.result {
            // Without the workflow's name, it is not known whether the output must be wrapped.
            Ok(output) => Some(completed(wrap_output(&one.name, workflow?, output.clone()))),
            Err(text) if text.is_empty() || may_be_timeout(text) => None,
            Err(text) => Some(failed(&one.name, text)),
        },
        [_] => None,
        // Two entries of one task are two final rows of it.
        several => {
            let mut tasks = HashSet::new();
            let outputs: Option<Vec<_>> = several
                .iter()
                .map(|entry| {
                    Some((entry.name.as_str(), entry.result.as_ref().ok().filter(|_| tasks.insert(entry.task))?))
                })
                .collect();
            outputs.filter(|outputs| !outputs.is_empty()).map(|outputs| completed(object(&outputs)))
        }
    }
}

/// Whether an error message can be the engine's for an execution timeout.
pub(crate) fn may_be_timeout(text: &str) -> bool {
    TIMEOUT_TEXTS.iter().any(|begin| text.starts_with(begin))
}

/// Resolves a run from all evidence. `is_last`: this is the last fetch, so REST is not expected to catch up.
///
/// Only the result stream and gRPC's `done` show that a run has ended, because REST shows it as failed for a moment after each failed
/// attempt. REST shows how it ended.
pub(super) fn resolve(view: &RunView<'_>, is_last: bool) -> Resolution {
    let evidence = view.evidence;
    let grpc = evidence.grpc.as_ref().map(grpc_status);
    if view.tasks.iter().any(TaskView::awaits_replay) {
        return match grpc {
            Some(grpc) if !grpc.is_final() => Resolution::Running(grpc),
            // The new attempt of a single task starts before REST has the replay. So the new attempt has ended, too.
            Some(_) if view.is_single_task && !is_last => Resolution::Lagging,
            Some(grpc) if view.is_single_task => Resolution::Ended(outcome(view, &grpc), Vec::new()),
            // The replay of a DAG run continues until all tasks have ended, although all API views show the old end in between. A task
            // of it waits.
            _ => Resolution::Running(RunStatus::Queued),
        };
    }
    let rest = view.rest_status().cloned();
    let ended_in_rest = rest.clone().filter(RunStatus::is_final);
    let ended = match &grpc {
        // The message of the result stream may be late: the run may already be running again.
        Some(grpc) => {
            let is_ended_in_rest = || ended_in_rest.is_some() && !view.tasks.iter().any(may_be_retried);
            grpc.is_final() || evidence.results.is_some() && is_ended_in_rest()
        }
        None => evidence.results.is_some() || ended_in_rest.is_some(),
    };
    match (ended, ended_in_rest, grpc) {
        // Without gRPC and the result stream, a failure may be that of an attempt that another one follows.
        (true, Some(_), None) if !is_last && evidence.results.is_none() && view.tasks.iter().any(may_be_retried) => {
            Resolution::Lagging
        }
        (true, Some(rest), grpc)
            if is_last || view.tasks.iter().all(|task| agrees(task) && !status_lags_events(task)) =>
        {
            // If REST still shows the status of an earlier attempt, gRPC decides.
            let is_outdated = |task: &TaskView<'_>| is_behind(task) || status_lags_events(task);
            let ahead = grpc.clone().filter(|grpc| grpc.is_final() && view.tasks.iter().any(is_outdated));
            let status = ahead.unwrap_or(rest);
            let conflicts = conflicts(view, grpc.as_ref(), &status);
            Resolution::Ended(outcome(view, &status), conflicts)
        }
        (true, None, Some(grpc)) if is_last && grpc.is_final() => Resolution::Ended(outcome(view, &grpc), Vec::new()),
        (true, ..) => Resolution::Lagging,
        // If neither has ended, the one that has progressed further is newer.
        (false, _, Some(grpc)) if grpc == RunStatus::Running || rest.is_none() => Resolution::Running(grpc),
        (false, ended, Some(grpc)) => Resolution::Running(rest.filter(|_| ended.is_none()).unwrap_or(grpc)),
        (false, _, None) => rest.map_or(Resolution::Lagging, Resolution::Running),
    }
}

/// Resolves a run from gRPC alone. `None` if REST is needed.
///
/// gRPC does not distinguish a cancellation from a schedule timeout, nor an execution timeout from a failure with the same error message.
pub(super) fn resolve_from_grpc(view: &RunView<'_>) -> Option<Resolution> {
    let grpc = view.evidence.grpc.as_ref().filter(|grpc| grpc_suffices(grpc, view.evidence.results.as_deref()))?;
    Some(match grpc_status(grpc) {
        ended if ended.is_final() => Resolution::Ended(outcome(view, &ended), Vec::new()),
        running => Resolution::Running(running),
    })
}

/// Whether gRPC alone shows that a run has not ended, or how it ended. `results`: the message of the result stream.
pub(super) fn grpc_suffices(run: &GrpcRun, results: Option<&[TaskResult]>) -> bool {
    let mut tasks = HashSet::new();
    // A task with two ends: gRPC shows the one that was recorded last, and REST the first.
    if results.into_iter().flatten().any(|result| !tasks.insert(result.task)) {
        return false;
    }
    let is_clear = |task: &GrpcTask| {
        let error = task.error.as_deref().unwrap_or_default();
        task.status != RunStatus::Failed || !error.is_empty() && !may_be_timeout(error)
    };
    match grpc_status(run) {
        RunStatus::Failed => run.tasks.values().all(is_clear),
        status => status != RunStatus::Cancelled,
    }
}

/// The status in gRPC, which is final only if the run is done.
fn grpc_status(run: &GrpcRun) -> RunStatus {
    if run.done || !run.status.is_final() { run.status.clone() } else { RunStatus::Running }
}

/// Permanent conflicts between gRPC and REST about the run, and about the tasks of a DAG run.
///
/// A schedule timeout is cancelled in gRPC and failed in REST by design, which is no conflict.
fn conflicts(view: &RunView<'_>, grpc: Option<&RunStatus>, rest: &RunStatus) -> Vec<Conflict> {
    let is_expected =
        |task: &TaskView<'_>| has_timed_out(task) && task.event_text(&TaskEventKind::SchedulingTimedOut).is_some();
    let differ = |task: Option<&str>, grpc: Option<&RunStatus>, rest: &RunStatus| {
        let grpc = grpc.filter(|grpc| grpc.is_final() && rest.is_final() && *grpc != rest)?;
        Some(Conflict { task_name: task.map(str::to_owned), grpc: grpc.clone(), rest: rest.clone() })
    };
    let of_run = differ(None, grpc, rest).filter(|_| !view.tasks.iter().any(is_expected));
    let is_done_dag = view.evidence.grpc.as_ref().is_some_and(|run| run.done) && !view.is_single_task;
    let of_tasks = view
        .tasks
        .iter()
        .filter(|task| is_done_dag && !is_expected(task) && !is_behind(task))
        .filter_map(|task| differ(Some(task.name), task.grpc.map(|task| &task.status), task.rest_status()?));
    of_run.into_iter().chain(of_tasks).collect()
}

fn has_timed_out(task: &TaskView<'_>) -> bool {
    task.attempts.last().is_some_and(|last| last.status == RunStatus::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::super::assemble::attempts_of;
    use super::super::evidence::Evidence;
    use super::super::fixtures::{evidence, run};
    use super::*;
    use crate::model::Payload;

    fn resolved(evidence: &Evidence, is_last: bool) -> Resolution {
        resolve(&RunView::new(run(), evidence), is_last)
    }

    fn text(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Completed(completed) => format!("completed {}", completed.output),
            Outcome::TimedOut(timeout) => {
                format!("timed out {:?} {}", timeout.kind, timeout.message.clone().unwrap_or_default())
            }
            other => other.to_string(),
        }
    }

    #[test]
    fn the_result_stream_alone_resolves_unambiguous_ends() {
        type Row<'a> = (&'a [Result<&'a str, &'a str>], Option<&'a str>);
        let rows: [Row<'_>; 9] = [
            (&[Ok(r#"{"a":1}"#)], Some(r#"completed {"a":1}"#)),
            (&[Ok("")], Some("completed ")),
            (&[Err("it broke")], Some("failed: it broke")),
            // Cancelled, timed out while waiting, or taken from ten workers in turn.
            (&[Err("")], None),
            // A task may well fail with these words itself.
            (&[Err("Task exceeded timeout of 2s")], None),
            (&[Err("Task failed due to batch timeout, exceeded timeout of 2s")], None),
            // Two final rows.
            (&[Ok("{}"), Err("")], None),
            (&[Err(""), Ok("{}")], None),
            // Too large for the stream.
            (&[], None),
        ];
        for (results, expected) in rows {
            let results = evidence("", "", &[], results).results.unwrap_or_default();
            assert_eq!(
                resolve_from_stream(run(), Some("work"), &results).map(|outcome| text(&outcome)).as_deref(),
                expected,
                "{results:?}"
            );
        }
    }

    #[test]
    fn a_failure_of_a_task_without_a_name_has_no_name() {
        let failed = evidence("FAILED", "FAILED", &[("FAILED", "it broke")], &[Err("it broke")]);
        let mut results = failed.results.clone().unwrap_or_default();
        results[0].name.clear();
        let Some(Outcome::Failed(failure)) = resolve_from_stream(run(), None, &results) else { panic!() };
        assert_eq!((failure.task_name, failure.message.as_deref()), (None, Some("it broke")));
    }

    #[test]
    fn all_measured_ends_are_resolved() {
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
            // Cancelled after its end: gRPC has changed, REST has not.
            (
                "CANCELLED",
                "COMPLETED",
                &[("FINISHED", ""), ("CANCELLED", "")],
                &[Err(""), Ok("{}")],
                "completed {}",
                true,
            ),
            // Completed after its cancellation.
            (
                "CANCELLED",
                "COMPLETED",
                &[("CANCELLED", ""), ("FINISHED", "")],
                &[Err(""), Ok(r#"{"late":1}"#)],
                r#"completed {"late":1}"#,
                true,
            ),
            // Failed after its cancel: both API views change.
            ("FAILED", "FAILED", &[("CANCELLED", ""), ("FAILED", "late")], &[Err("late")], "failed: late", false),
            // Ten workers lost it: no text anywhere.
            ("FAILED", "FAILED", &[("REASSIGNED", "gone")], &[Err("")], "failed", false),
            // Too large for the stream: REST has the output.
            ("COMPLETED", "COMPLETED", &[("FINISHED", "")], &[], "completed {}", false),
        ];
        for (grpc, rest, events, results, expected, conflict) in rows {
            match resolved(&evidence(grpc, rest, events, results), false) {
                Resolution::Ended(outcome, conflicts) => {
                    assert_eq!(
                        (text(&outcome).as_str(), !conflicts.is_empty()),
                        (expected, conflict),
                        "{grpc} {rest} {events:?}"
                    );
                }
                other => panic!("{grpc} {rest}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_end_that_rest_lacks_is_lagging_and_is_resolved_without_a_guess_at_last() {
        for rest in ["", "RUNNING", "QUEUED", "SOMETHING_NEW"] {
            let lagging = evidence("FAILED", rest, &[], &[Err("Task exceeded timeout of 2s")]);
            assert_eq!(resolved(&lagging, false), Resolution::Lagging, "{rest}");
            let Resolution::Ended(outcome, _) = resolved(&lagging, true) else { panic!("{rest}") };
            assert_eq!(text(&outcome), "failed: Task exceeded timeout of 2s", "no event, no timeout");
        }
    }

    #[test]
    fn a_failed_attempt_with_retries_left_is_no_end() {
        let failed = evidence("RUNNING", "FAILED", &[("FAILED", "first")], &[]);
        assert_eq!(resolved(&failed, false), Resolution::Running(RunStatus::Running));
        let queued = evidence("QUEUED", "FAILED", &[("FAILED", "first")], &[]);
        assert_eq!(resolved(&queued, false), Resolution::Running(RunStatus::Queued));
    }

    #[test]
    fn the_failure_of_an_earlier_attempt_is_not_the_last_one() {
        let mut behind = evidence("FAILED", "FAILED", &[("FAILED", "first")], &[]);
        for task in behind.grpc.iter_mut().flat_map(|run| run.tasks.values_mut()) {
            task.error = Some("second".into());
        }
        assert_eq!(resolved(&behind, false), Resolution::Lagging);
        behind.events[0].error_message = Some("second".into());
        assert!(matches!(resolved(&behind, false), Resolution::Ended(..)));
    }

    #[test]
    fn an_old_failure_does_not_hide_another_end() {
        for (grpc, expected) in [("COMPLETED", "completed {}"), ("CANCELLED", "was cancelled")] {
            let mut behind = evidence(grpc, "FAILED", &[("FAILED", "first")], &[]);
            behind.grpc.as_mut().unwrap().tasks.get_mut("work").unwrap().output = Some(Payload::output("{}"));
            assert_eq!(resolved(&behind, false), Resolution::Lagging, "{grpc}");
            // There was another attempt, and REST never got to it.
            let Resolution::Ended(outcome, conflicts) = resolved(&behind, true) else { panic!("{grpc}") };
            assert_eq!((text(&outcome).as_str(), conflicts.len()), (expected, 0));
            let attempts = attempts_of(&RunView::new(run(), &behind).tasks[0], Some(&outcome), true);
            let attempts: Vec<_> =
                attempts.iter().map(|each| (each.number, each.status.as_str(), each.error.as_deref())).collect();
            assert_eq!(attempts, [(1, "FAILED", Some("first")), (2, grpc, None)]);
        }
    }

    #[test]
    fn a_failure_that_rest_lacks_is_another_attempt() {
        let mut behind = evidence("FAILED", "FAILED", &[("FAILED", "first")], &[]);
        behind.grpc.as_mut().unwrap().tasks.get_mut("work").unwrap().error = Some("second".into());
        let Resolution::Ended(outcome, _) = resolved(&behind, true) else { panic!() };
        assert_eq!(text(&outcome), "failed: second");
        let attempts = |is_over| {
            let attempts = attempts_of(&RunView::new(run(), &behind).tasks[0], Some(&outcome), is_over).into_iter();
            attempts.map(|each| (each.number, each.error.unwrap_or_default())).collect::<Vec<_>>()
        };
        assert_eq!(attempts(true), [(1, "first".to_owned()), (2, "second".to_owned())]);
        // While the run goes on, no attempt is made up.
        assert_eq!(attempts(false), [(1, "first".to_owned())]);
    }

    #[test]
    fn without_grpc_a_failure_with_retries_left_is_no_end() {
        let mut failed = evidence("", "FAILED", &[("STARTED", ""), ("FAILED", "it broke")], &[]);
        let config = serde_json::json!({"Name": "work", "Tasks": [{"ReadableId": "work", "Retries": 1}]});
        failed.rest.as_mut().unwrap().workflow_config = serde_json::from_value(config).unwrap();
        assert_eq!(resolved(&failed, false), Resolution::Lagging);
        assert!(matches!(resolved(&failed, true), Resolution::Ended(Outcome::Failed(_), _)));
        failed.events.iter_mut().for_each(|event| event.retry_count = Some(1));
        assert!(matches!(resolved(&failed, false), Resolution::Ended(Outcome::Failed(_), _)), "no retries left");
    }

    #[test]
    fn a_failed_run_without_a_failed_attempt_has_no_other_attempt() {
        // A schedule timeout whose event has not come yet.
        let early = evidence("CANCELLED", "FAILED", &[("QUEUED", "")], &[]);
        let Resolution::Ended(outcome, conflicts) = resolved(&early, true) else { panic!() };
        assert_eq!((text(&outcome).as_str(), conflicts.len()), ("failed", 1));
        assert_eq!(attempts_of(&RunView::new(run(), &early).tasks[0], Some(&outcome), true).len(), 1);
    }

    #[test]
    fn a_task_that_rest_is_behind_with_is_not_the_reason_for_the_failure() {
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
            task.task_external_id = id.parse().unwrap();
            rest.tasks.push(task);
            let mut event = more.events.into_iter().next().unwrap();
            event.task_id = id.parse().ok();
            // The stale failure is the earlier one.
            event.timestamp += chrono::TimeDelta::seconds(i64::from(id == b));
            rest.task_events.push(event);
        }
        assert_eq!(resolved(&both, false), Resolution::Lagging);
        let Resolution::Ended(Outcome::Failed(failure), conflicts) = resolved(&both, true) else { panic!() };
        assert_eq!(
            (failure.task_name.as_deref(), failure.message.as_deref(), conflicts.len()),
            (Some("b"), Some("broken"), 0)
        );
    }

    #[test]
    fn a_replayed_run_is_running_until_its_new_attempt_ends() {
        let events = [("FINISHED", ""), ("RETRIED_BY_USER", "")];
        let mut of_several = evidence("COMPLETED", "COMPLETED", &[], &[]);
        let task = "00000000-0000-4000-8002-000000000001";
        of_several.grpc.as_mut().unwrap().tasks.get_mut("work").unwrap().id = task.parse().unwrap();
        let rest = of_several.rest.as_mut().unwrap();
        (rest.shape[0].task_external_id, rest.tasks[0].task_external_id) =
            (task.parse().unwrap(), task.parse().unwrap());
        rest.task_events = evidence("", "", &events, &[]).events;
        rest.task_events.iter_mut().for_each(|event| event.task_id = task.parse().ok());
        for is_last in [false, true] {
            assert_eq!(resolved(&of_several, is_last), Resolution::Running(RunStatus::Queued));
        }
        // The new attempt of a single task has started before REST shows the replay.
        let mut replayed = evidence("RUNNING", "COMPLETED", &events, &[]);
        assert_eq!(resolved(&replayed, false), Resolution::Running(RunStatus::Running));
        replayed = evidence("COMPLETED", "COMPLETED", &events, &[Ok("{}")]);
        assert_eq!(resolved(&replayed, false), Resolution::Lagging);
        assert!(matches!(resolved(&replayed, true), Resolution::Ended(Outcome::Completed(_), _)));
        let mut again = replayed.events[0].clone();
        again.retry_count = Some(1);
        replayed.events.push(again);
        assert!(matches!(resolved(&replayed, false), Resolution::Ended(Outcome::Completed(_), _)));
    }

    /// The responses are from different moments: gRPC and the status in REST are from before a replay, and the events from after it.
    #[test]
    fn the_end_of_an_earlier_attempt_is_not_that_of_a_later_one() {
        for status in ["FAILED", "COMPLETED"] {
            let events = [(status, "it broke"), ("RETRIED_BY_USER", ""), ("STARTED", ""), ("FINISHED", "")];
            let mut mixed = evidence(status, status, &events, &[]);
            for event in &mut mixed.events[2..] {
                event.retry_count = Some(1);
            }
            mixed.rest.as_mut().unwrap().tasks[0].retry_count = Some(0);
            assert_eq!(resolved(&mixed, false), Resolution::Lagging, "{status}");
        }
        let events = [("FAILED", "it broke"), ("RETRIED_BY_USER", ""), ("FINISHED", "")];
        let mut later = evidence("COMPLETED", "FAILED", &events, &[]);
        later.events[2].retry_count = Some(1);
        later.rest.as_mut().unwrap().tasks[0].retry_count = Some(0);
        assert_eq!(resolved(&later, false), Resolution::Lagging);
        let Resolution::Ended(Outcome::Completed(_), conflicts) = resolved(&later, true) else { panic!() };
        assert_eq!(conflicts, [], "REST has not caught up, and gRPC decides");
    }

    #[test]
    fn a_late_message_of_the_result_stream_does_not_end_a_run_that_runs_again() {
        let again = evidence("RUNNING", "RUNNING", &[("CANCELLED", ""), ("RETRIED_BY_USER", "")], &[Err("")]);
        assert_eq!(resolved(&again, false), Resolution::Running(RunStatus::Running));
        let mut failed = evidence("QUEUED", "FAILED", &[("STARTED", ""), ("FAILED", "it broke")], &[Err("")]);
        let config = serde_json::json!({"Name": "work", "Tasks": [{"ReadableId": "work", "Retries": 1}]});
        failed.rest.as_mut().unwrap().workflow_config = serde_json::from_value(config).unwrap();
        assert_eq!(resolved(&failed, true), Resolution::Running(RunStatus::Queued), "it can be retried");
        let late = evidence("RUNNING", "CANCELLED", &[("CANCELLED", "")], &[Err("")]);
        assert!(matches!(resolved(&late, false), Resolution::Ended(Outcome::Cancelled(_), _)), "REST confirms it");
    }

    #[test]
    fn a_running_run_has_the_status_that_is_further() {
        assert_eq!(resolved(&evidence("QUEUED", "RUNNING", &[], &[]), false), Resolution::Running(RunStatus::Running));
        assert_eq!(resolved(&evidence("RUNNING", "QUEUED", &[], &[]), false), Resolution::Running(RunStatus::Running));
        assert_eq!(resolved(&evidence("QUEUED", "", &[], &[]), false), Resolution::Running(RunStatus::Queued));
        assert_eq!(
            resolved(&evidence("77", "", &[], &[]), false),
            Resolution::Running(RunStatus::Unknown("77".into()))
        );
        assert_eq!(resolved(&evidence("RUNNING", "PAUSED", &[], &[]), false), Resolution::Running(RunStatus::Running));
    }
}
