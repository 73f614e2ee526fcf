//! What workers and users say about tasks.

use std::sync::Arc;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::Core;
use super::store::{End, State, TaskEventKind, TaskKey};
use super::types::{EventKind, Fault, Report, ReportKind, Resource, RunEvent, Turn};
use crate::model::payload::has_nul;

impl Core {
    /// A worker's report about an attempt.
    pub(crate) fn report(&mut self, turn: &mut Turn<'_>, report: Report) -> Result<(), Fault> {
        let Some(key) = self.runs.task_key(report.task) else {
            let text = format!("invalid task external run id {}: no rows in result set", report.task);
            return Err(Fault::invalid(text));
        };
        let Some((_, task)) = self.runs.task(key) else { return Ok(()) };
        let retry_count = report.retry_count.unwrap_or(task.retry_count);
        let current = retry_count == task.retry_count;
        let ended = task.state == State::Ended;
        let at = report.at.unwrap_or(turn.now);
        match report.kind {
            ReportKind::Acknowledged => {}
            ReportKind::Started => self.record_for(key, retry_count, TaskEventKind::Started, at, report.worker, None),
            ReportKind::Completed => match not_json(&report.payload) {
                Some(problem) => self.failed(
                    turn,
                    key,
                    &Report { payload: problem.into(), should_not_retry: false, ..report },
                    retry_count,
                ),
                None if current && !ended => {
                    self.complete(turn, key, at, report.worker, report.payload.into(), report.batch);
                }
                None => {
                    self.record_for(key, retry_count, TaskEventKind::Finished, at, report.worker, None);
                    if current {
                        self.end_again(turn, key, End::Completed(report.payload.into()), report.batch);
                    }
                }
            },
            ReportKind::Failed => self.failed(turn, key, &report, retry_count),
            ReportKind::Cancelled if current => self.cancel_task(turn, key),
            ReportKind::Cancelled => self.record_for(key, retry_count, TaskEventKind::Cancelled, at, None, None),
        }
        Ok(())
    }

    fn failed(&mut self, turn: &mut Turn<'_>, key: TaskKey, report: &Report, retry_count: i32) {
        let Some((_, task)) = self.runs.task(key) else { return };
        let (current, ended) = (retry_count == task.retry_count, task.state == State::Ended);
        let error: Arc<str> = report.payload.as_str().into();
        if current && !ended {
            self.fail(turn, key, error, !report.should_not_retry, report.batch);
            return;
        }
        // Unlike the other reports, a failure has the time at which it came.
        self.record_for(key, retry_count, TaskEventKind::Failed, turn.now, None, Some(&error));
        if current {
            self.end_again(turn, key, End::Failed(error), report.batch);
        }
    }

    /// A chunk that a task puts into its stream. Nothing is kept of it.
    pub(crate) fn chunk(
        &mut self,
        turn: &Turn<'_>,
        task: Uuid,
        text: &str,
        index: Option<i64>,
        at: Option<super::At>,
    ) -> Result<(), Fault> {
        let key = self.known_task(task)?;
        let Some(run) = self.runs.get(key.run).map(|run| run.id) else { return Ok(()) };
        self.publish(&RunEvent {
            run,
            resource: Resource::Task(task),
            kind: EventKind::Stream,
            at: at.unwrap_or(turn.now),
            payload: text.into(),
            retry_count: None,
            index,
            hangup: false,
        });
        Ok(())
    }

    pub(super) fn known_task(&self, task: Uuid) -> Result<TaskKey, Fault> {
        self.runs.task_key(task).ok_or_else(|| Fault::not_found(format!("task run not found: {task}")))
    }
}

/// What the engine has against an output, if anything. An empty one is fine.
fn not_json(output: &str) -> Option<&'static str> {
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
