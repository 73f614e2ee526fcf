//! What an attempt and the attempts of a batch have in common: their context, their end, and their report.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::assignments::End;
use super::key::Key;
use super::registered::RegisteredTask;
use crate::client::Client;
use crate::error::ErrorKind;
use crate::model::engine_version::EngineVersion;
use crate::model::payload::cut;
use crate::model::{TaskId, WorkerId};
use crate::rpc::convert::{Action, Report, ReportKind};
use crate::telemetry::{self, AttemptResult, Measurement};
use crate::transport::retry_delay;
use crate::workflow::{
    AttemptContext, Context, FullSlots, Stop, TaskError, TaskOutput, TaskResult, WorkerLabels,
    version_without_retry_delays,
};

/// The maximum size of an error message in bytes. A longer text may not fit into a message, and is of no use to a reader.
const MAX_ERROR_BYTES: usize = 1 << 20;
/// The maximum size of an error message in the log of this process, in bytes.
const MAX_LOGGED_BYTES: usize = 1000;

/// The result of an attempt.
#[derive(Debug)]
pub(super) struct JobEnd {
    pub(super) key: Key,
    pub(super) end: End,
    /// The report of the end, if it must be reported.
    pub(super) report: Option<Report>,
}

/// An attempt that is to be run.
pub(super) struct Attempt {
    pub(super) key: Key,
    pub(super) action: Arc<Action>,
    /// When it was assigned: its execution timeout begins then.
    pub(super) assigned_at: Instant,
    pub(super) stop: Stop,
}

/// What an attempt needs of its worker.
pub(super) struct Environment {
    pub(super) client: Client,
    /// The worker's id when the attempt was assigned.
    pub(super) worker: WorkerId,
    /// The current labels of the worker.
    pub(super) labels: WorkerLabels,
    pub(super) cancel_grace: Duration,
    /// For log lines and chunks.
    pub(super) output: TaskOutput,
    /// Receives attempts that release their slots.
    pub(super) released: mpsc::UnboundedSender<(TaskId, u32)>,
    pub(super) full_slots: FullSlots,
}

impl Environment {
    pub(super) fn context(&self, task: &RegisteredTask, attempt: &Attempt) -> Context {
        Context::new(AttemptContext {
            client: self.client.clone(),
            worker: self.worker,
            run: attempt.key.run,
            task: attempt.key.task,
            action: Arc::clone(&attempt.action),
            workflow: task.workflow.short_name(),
            retries: task.definition.max_retries(),
            parents: task.parents.clone(),
            output: self.output.clone(),
            stop: attempt.stop.clone(),
            worker_labels: WorkerLabels::clone(&self.labels),
            released: self.released.clone(),
            full_slots: self.full_slots.clone(),
            timeout_at: attempt.assigned_at.checked_add(task.definition.timeout()),
        })
    }

    /// How an attempt has ended whose function has returned this result in time, or has not.
    pub(super) async fn end(&self, attempt: &Attempt, result: Option<TaskResult<String>>) -> JobEnd {
        let key = attempt.key;
        // The engine has already ended a cancelled attempt: a second end would corrupt the run.
        if attempt.stop.is_ended() {
            return JobEnd { key, end: End::Cancelled, report: None };
        }
        let report = match result {
            Some(result) => self.report(attempt, result).await,
            None => None,
        };
        let end = match &report {
            Some(_) => End::Finished,
            None if attempt.stop.is_ended() => End::Cancelled,
            None => End::Dropped,
        };
        JobEnd { key, end, report }
    }

    /// The report of a result. `None` if the attempt had to stop before it was known how it can be reported.
    async fn report(&self, attempt: &Attempt, result: TaskResult<String>) -> Option<Report> {
        let Attempt { key, action, stop, .. } = attempt;
        let report = |kind, text| Report::new(self.worker, action, kind, self.client.clock().now(), text);
        Some(match result {
            Ok(output) => report(ReportKind::Completed, output),
            Err(error) => {
                // The engine cannot store a NUL, and would lose the failure.
                let text = error.message().replace('\0', "\u{fffd}");
                let attempt = key.attempt();
                tracing::info!(worker_id = %self.worker, run_id = %key.run, task_id = %key.task, task_name = action.task_name(), attempt, error = %cut(text.clone(), MAX_LOGGED_BYTES), "attempt failed");
                let failed = report(ReportKind::Failed, cut(text, MAX_ERROR_BYTES));
                match error.retry_delay() {
                    _ if !error.is_retryable() => failed.without_retry(),
                    None => failed,
                    // Boxed, because it is rarely needed.
                    Some(delay) => Box::pin(stop.run_until_requested(self.delayed(failed, delay))).await?,
                }
            }
        })
    }

    /// The report of a failure whose retry has a delay. A retry without it could be harmful, so an engine that ignores it gets none. In an
    /// outage, it waits for the engine: the report could not be sent earlier, either.
    async fn delayed(&self, failed: Report, delay: Duration) -> Report {
        let mut failures = 0;
        let found = loop {
            match version_without_retry_delays(&self.client).await {
                Err(error)
                    if error.is_transient()
                        || error.is_by_proxy()
                        || matches!(error.kind(), ErrorKind::Server | ErrorKind::Unauthenticated) =>
                {
                    failures += 1;
                    sleep(retry_delay(failures, fastrand::f64())).await;
                }
                found => break found,
            }
        };
        match found {
            Ok(None) => failed.with_retry_after(delay),
            Err(error) => {
                let text = format!(
                    "{} (the retry after {delay:?} needs engine {} or later, got an unknown version: {error})",
                    failed.text(),
                    EngineVersion::RETRY_DELAYS
                );
                failed.into_failure(text)
            }
            Ok(Some(found)) => {
                let needed = EngineVersion::RETRY_DELAYS;
                let text = failed.text().to_owned();
                failed.into_failure(format!(
                    "{text} (the retry after {delay:?} needs engine {needed} or later, got {found})"
                ))
            }
        }
    }
}

/// The error of an attempt whose action the worker does not have.
pub(super) fn unknown_action(action: &Action) -> TaskError {
    TaskError::non_retryable(format_args!("this worker has no task for the action {}", action.name()))
}

/// Measures attempts of a task. Those whose end is not passed to it count as dropped, such as when their runtime is shut down.
pub(super) struct Measured {
    action: Arc<Action>,
    start: Instant,
    /// The number of attempts that have not ended.
    open: usize,
}

impl Measured {
    pub(super) fn start(action: &Arc<Action>, attempts: usize) -> Self {
        for _ in 0..attempts {
            telemetry::record(&Measurement::AttemptStarted { task_name: action.task_name() });
        }
        Self { action: Arc::clone(action), start: Instant::now(), open: attempts }
    }

    pub(super) fn end(&mut self, ended: &JobEnd) {
        self.record(match (&ended.end, &ended.report) {
            (End::Finished, Some(report)) if report.kind == ReportKind::Completed => AttemptResult::Completed,
            (End::Finished, _) => AttemptResult::Failed,
            (End::Cancelled, _) => AttemptResult::Cancelled,
            (End::Dropped, _) => AttemptResult::Dropped,
        });
    }

    fn record(&mut self, result: AttemptResult) {
        self.open = self.open.saturating_sub(1);
        let (task_name, duration) = (self.action.task_name(), self.start.elapsed());
        telemetry::record(&Measurement::AttemptEnded { task_name, result, duration });
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        for _ in 0..self.open {
            self.record(AttemptResult::Dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_text_is_cut_between_characters_and_says_so() {
        let cut = |text: String| cut(text, MAX_ERROR_BYTES);
        assert_eq!(cut("it broke".into()), "it broke");
        let text = cut("ä".repeat(3_000_000));
        assert!(text.ends_with("ä… (6000000 bytes, cut at 1048576)"), "{}", &text[text.len() - 60..]);
        let odd = cut(format!("x{}", "ä".repeat(MAX_ERROR_BYTES)));
        assert_eq!(odd.find('…'), Some(MAX_ERROR_BYTES - 1));
    }
}
