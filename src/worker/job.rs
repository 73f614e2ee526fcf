//! One attempt, from assignment to report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{OnceCell, mpsc};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::assignments::End;
use super::guard::CatchPanic;
use super::key::Key;
use super::registered::RegisteredTask;
use crate::client::Client;
use crate::model::engine_version::EngineVersion;
use crate::model::payload::cut;
use crate::model::{TaskId, WorkerId, attempt_number, parse_id};
use crate::rpc::convert::{Action, Report, ReportKind};
use crate::telemetry::{self, AttemptResult, Measurement};
use crate::workflow::{
    AttemptContext, Context, TaskError, TaskOutput, TaskResult, in_context, version_without_retry_delays,
};

/// The maximum size of an error message in bytes. A longer text may not fit into a message, and is of no use to a reader.
const MAX_ERROR_BYTES: usize = 1 << 20;
/// The maximum size of an error message in the log of this process, in bytes.
const MAX_LOGGED_BYTES: usize = 1000;

/// The result of an attempt.
#[derive(Debug)]
pub(super) struct JobEnd {
    pub(super) end: End,
    /// The report of the end, if it must be reported.
    pub(super) report: Option<Report>,
}

/// Ends an attempt.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    /// Whether the engine has ended the attempt. Otherwise, the worker shuts down.
    is_cancelled: Arc<AtomicBool>,
    requested: CancellationToken,
}

impl Stop {
    /// Stops the attempt, because the engine has ended it.
    pub(super) fn cancel(&self) {
        self.is_cancelled.store(true, Relaxed);
        self.requested.cancel();
    }

    /// Stops the attempt, because the worker shuts down.
    pub(super) fn abandon(&self) {
        self.requested.cancel();
    }
}

/// The version of the engine, if it does not support the delay of a retry that a task chooses.
pub(super) type RetryDelays = Arc<OnceCell<Option<String>>>;

/// An attempt, and all that it needs to run.
pub(super) struct Job {
    pub(super) client: Client,
    /// The worker's id when the attempt was assigned.
    pub(super) worker: WorkerId,
    pub(super) key: Key,
    pub(super) action: Arc<Action>,
    /// `None` if the worker has no such task.
    pub(super) task: Option<RegisteredTask>,
    pub(super) stop: Stop,
    pub(super) cancel_grace: Duration,
    /// For its log lines and chunks.
    pub(super) output: TaskOutput,
    /// Receives the attempt when it releases its slot.
    pub(super) released: mpsc::UnboundedSender<(TaskId, u32)>,
    /// Known after the first retry with a delay.
    pub(super) retry_delays: RetryDelays,
}

impl Job {
    /// Runs the code. What is reported is up to the caller.
    pub(super) async fn run(self) -> JobEnd {
        let start = Instant::now();
        let name = self.action.task_name();
        telemetry::record(&Measurement::AttemptStarted { task_name: name });
        let ended = self.run_code().await;
        let result = match (&ended.end, &ended.report) {
            (End::Finished, Some(report)) if report.kind == ReportKind::Completed => AttemptResult::Completed,
            (End::Finished, _) => AttemptResult::Failed,
            (End::Cancelled, _) => AttemptResult::Cancelled,
            (End::Dropped, _) => AttemptResult::Dropped,
        };
        telemetry::record(&Measurement::AttemptEnded { task_name: name, result, duration: start.elapsed() });
        ended
    }

    async fn run_code(&self) -> JobEnd {
        let result = self.work().await;
        // The engine has already ended a cancelled attempt: a second end would corrupt the run.
        if self.stop.is_cancelled.load(Relaxed) {
            return JobEnd { end: End::Cancelled, report: None };
        }
        // What a shutdown has cut off is not a result of the task: it runs again elsewhere.
        let Some(result) = result.filter(|_| !self.stop.requested.is_cancelled()) else {
            return JobEnd { end: End::Dropped, report: None };
        };
        JobEnd { end: End::Finished, report: Some(self.report(result).await) }
    }

    async fn report(&self, result: TaskResult<String>) -> Report {
        let report = |kind, text| Report::new(self.worker, &self.action, kind, self.client.clock().now(), text);
        match result {
            Ok(output) => report(ReportKind::Completed, output),
            Err(error) => {
                // The engine cannot store a NUL, and would lose the failure.
                let text = error.message().replace('\0', "\u{fffd}");
                let attempt = attempt_number(self.key.retry_count);
                tracing::info!(run_id = %self.key.run, task_name = self.action.task_name(), attempt, error = %cut(text.clone(), MAX_LOGGED_BYTES), "attempt failed");
                let failed = report(ReportKind::Failed, cut(text, MAX_ERROR_BYTES));
                match error.retry_delay() {
                    _ if !error.is_retryable() => failed.without_retry(),
                    None => failed,
                    // Boxed, because it is rarely needed.
                    Some(delay) => Box::pin(self.delayed(failed, delay)).await,
                }
            }
        }
    }

    /// The report of a failure whose retry has a delay. A retry without it could be harmful, so an engine that ignores it gets none.
    async fn delayed(&self, failed: Report, delay: Duration) -> Report {
        let found = self.retry_delays.get_or_try_init(|| version_without_retry_delays(&self.client)).await;
        match found {
            Ok(None) => failed.with_retry_after(delay),
            Err(error) => {
                let text = format!(
                    "{} (the version of the engine is not known, which the retry after {delay:?} needs: {error})",
                    failed.text()
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

    /// Runs the code until it ends or must stop.
    async fn work(&self) -> Option<TaskResult<String>> {
        // Tasks that were just woken on this thread run first: other threads cannot take them over if the code blocks this one.
        yield_now().await;
        let Some(task) = &self.task else {
            let text = format!("this worker has no task for the action {}", self.action.name());
            return Some(Err(TaskError::non_retryable(text)));
        };
        let context = Context::new(AttemptContext {
            client: self.client.clone(),
            worker: self.worker,
            run: self.key.run,
            task: self.key.task,
            action: Arc::clone(&self.action),
            workflow: task.workflow.short_name(),
            retries: task.definition.max_retries(),
            output: self.output.clone(),
            stopped: self.stop.requested.clone(),
            released: self.released.clone(),
        });
        // Both halves can panic: making the future reads the input.
        let (workflow, attempt) = (task.workflow.short_name(), attempt_number(self.key.retry_count));
        // Made where the context is known, for layers that need it.
        let span = || {
            tracing::info_span!(
                target: telemetry::TARGET, telemetry::ATTEMPT_SPAN,
                run_id = %self.key.run, task_id = %self.key.task, task_name = self.action.task_name(),
                workflow_name = &*workflow, attempt, worker_id = %self.worker,
            )
        };
        let (current, chunks) = (context.clone(), context.clone());
        let code = CatchPanic::new(async {
            if let Some(id) = self.action.workflow().and_then(|id| parse_id(id).ok()) {
                let is_own = match task.workflow.is_known(id) {
                    Some(is_own) => is_own,
                    // Boxed, because it is large and rarely needed.
                    None => Box::pin(task.workflow.is_own(&self.client, id)).await,
                };
                if !is_own {
                    return Err(TaskError::new(task.workflow.foreign(id)));
                }
            }
            task.definition.handler.run(self.action.payload(), context, task.has_dependents).await
        });
        let code = in_context(current, span, code);
        let unwanted = async {
            self.stop.requested.cancelled().await;
            sleep(self.cancel_grace).await;
        };
        let code = async {
            let ended = code.await;
            chunks.flush_chunks().await;
            ended
        };
        tokio::select! {
            biased;
            ended = code => Some(ended.unwrap_or_else(|panic| Err(TaskError::new(panic)))),
            () = unwanted => None,
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
