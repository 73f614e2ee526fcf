//! What workers report about attempts.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::embedded::core::runs::lifecycle::{Completion, Failure, Retry};
use crate::embedded::core::runs::{late, lifecycle};
use crate::embedded::core::store::{
    At, Core, End, EventKind, Report, ReportKind, Resource, RunEvent, State, StatusError, TaskEventKind, TaskKey, Turn,
};
use crate::embedded::core::streams::{chunks, events};
use crate::embedded::quirks::Quirk;
use crate::model::payload::has_nul;

/// A worker's report about an attempt.
pub(crate) fn report(core: &mut Core, turn: &mut Turn<'_>, report: Report) -> Result<(), StatusError> {
    let Some(key) = core.runs.task_key(report.task) else {
        let text = format!("invalid task external run id {}: no rows in result set", report.task);
        return Err(StatusError::invalid(text));
    };
    let Some((_, task)) = core.runs.task(key) else { return Ok(()) };
    let retry_count = report.retry_count.unwrap_or(task.retry_count);
    let current = retry_count == task.retry_count;
    let at = report.at.unwrap_or(turn.now);
    match report.kind {
        ReportKind::Acknowledged => {}
        ReportKind::Started => core.record_for(key, retry_count, TaskEventKind::Started, at, report.worker, None),
        ReportKind::Completed => match problem_of(&report.payload) {
            Some(problem) => {
                let report = Report { payload: problem.into(), should_not_retry: false, ..report };
                failed(core, turn, key, &report, retry_count);
            }
            None => completed(core, turn, key, report, retry_count, at),
        },
        ReportKind::Failed => failed(core, turn, key, &report, retry_count),
        ReportKind::Cancelled if current => lifecycle::cancel(core, turn, key),
        ReportKind::Cancelled => core.record_for(key, retry_count, TaskEventKind::Cancelled, at, None, None),
    }
    Ok(())
}

fn completed(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, report: Report, retry_count: i32, at: At) {
    let Some((_, task)) = core.runs.task(key) else { return };
    let (current, ended) = (retry_count == task.retry_count, task.state == State::Ended);
    let Report { worker, batch: quiet, .. } = report;
    let output: Arc<str> = report.payload.into();
    if current && !ended {
        lifecycle::complete(core, turn, key, Completion { at, worker, output, quiet });
        return;
    }
    core.record_for(key, retry_count, TaskEventKind::Finished, at, worker, None);
    if current {
        late::end_again(core, turn, key, End::Completed(output), quiet);
    } else {
        late::end_early(core, turn, key, End::Completed(output), retry_count);
    }
}

fn failed(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, report: &Report, retry_count: i32) {
    let Some((_, task)) = core.runs.task(key) else { return };
    let (current, ended) = (retry_count == task.retry_count, task.state == State::Ended);
    let error: Arc<str> = report.payload.as_str().into();
    if current && !ended {
        let retry = if report.should_not_retry { Retry::Never } else { Retry::After(report.retry_after) };
        let failure = Failure { error, retry, quiet: report.batch };
        lifecycle::fail(core, turn, key, failure);
        return;
    }
    // Unlike other reports, a failure gets the time of its arrival.
    core.record_for(key, retry_count, TaskEventKind::Failed, turn.now, None, Some(&error));
    if current {
        late::end_again(core, turn, key, End::Failed(error), report.batch);
    } else {
        late::end_early(core, turn, key, End::Failed(error), retry_count);
    }
}

/// A chunk that a task puts into its stream. It is not stored.
pub(crate) fn chunk(
    core: &mut Core,
    turn: &mut Turn<'_>,
    task: Uuid,
    message: &[u8],
    index: Option<i64>,
    at: Option<At>,
) -> Result<(), StatusError> {
    let key = core.known_task(task)?;
    let Some(run) = core.runs.get(key.run).map(|run| run.id) else { return Ok(()) };
    let text = String::from_utf8_lossy(message);
    if core.has(Quirk::BrokenChunks) && matches!(text, Cow::Owned(_)) {
        events::break_watchers(core, run, &StatusError::not_utf8());
        return Ok(());
    }
    let event = RunEvent {
        run,
        resource: Resource::Task(task),
        kind: EventKind::Stream,
        at: at.unwrap_or(turn.now),
        payload: text.into(),
        retry_count: None,
        index,
        hangup: false,
    };
    chunks::publish(core, turn, &event);
    Ok(())
}

/// Why the engine rejects an output, if it does. An empty one is accepted.
fn problem_of(output: &str) -> Option<&'static str> {
    if output.is_empty() {
        None
    } else if serde_json::from_str::<&RawValue>(output).is_err() {
        Some("invalid json in field `taskOutput`")
    } else if has_nul(output) {
        Some("encoded jsonb contains invalid null character \\u0000 in field `taskOutput`")
    } else {
        None
    }
}
