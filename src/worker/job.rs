//! One attempt, from assignment to report.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::guard::CatchPanic;
use super::registered::RegisteredTask;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::payload::cut;
use crate::model::{RunId, TaskId, WorkerId, attempt_number, parse_id};
use crate::rpc::convert::{Action, Report, ReportKind};
use crate::transport::retry_delay;
use crate::workflow::{Context, TaskError, TaskResult};

/// How long a report is retried. By then the engine has assigned the attempt to another worker anyway.
const REPORT_TIMEOUT: Duration = Duration::from_secs(120);

/// The maximum size of an error message in bytes. A longer text may not fit into a message, and is of no use to a reader.
const MAX_ERROR_BYTES: usize = 1 << 20;

/// How long a report is retried when the worker's grace period is over.
const SHUTDOWN_REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Identifies one attempt: a result is sent for exactly that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) run: RunId,
    pub(super) task: TaskId,
    pub(super) retry_count: u32,
}

impl Key {
    pub(super) fn read(action: &Action) -> Result<Self> {
        Ok(Self { run: parse_id(action.run())?, task: parse_id(action.task())?, retry_count: action.retry_count() })
    }
}

/// The result of an attempt on this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    Completed,
    Failed,
    Cancelled,
    /// The worker stopped, and the attempt did not end in time.
    Dropped,
    /// The attempt ended, and its end could not be reported.
    Unreported,
}

/// Why an attempt must stop.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    /// The engine has ended the attempt.
    pub(super) cancelled: CancellationToken,
    /// The worker shuts down.
    pub(super) dropped: CancellationToken,
}

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
}

impl Job {
    pub(super) async fn run(self) -> Done {
        let started = async {
            tokio::select! {
                reported = self.report(ReportKind::Started, String::new(), false) => reported,
                () = self.stop.cancelled.cancelled() => Ok(()),
            }
        };
        // The code does not wait until the start is reported. The end is reported after the start.
        let (reported, result) = join(started, self.work()).await;
        if let Err(error) = reported {
            tracing::debug!(run = %self.key.run, %error, "failed to report the start of an attempt");
        }
        let Some(result) = result else {
            return if self.stop.cancelled.is_cancelled() { Done::Cancelled } else { Done::Dropped };
        };
        // The engine has already ended a cancelled attempt: a second end would corrupt the run.
        if self.stop.cancelled.is_cancelled() {
            return Done::Cancelled;
        }
        self.finish(result).await
    }

    /// Runs the code until it ends or must stop.
    async fn work(&self) -> Option<TaskResult<String>> {
        // Tasks that were just woken on this thread run first: other threads cannot take them over if the code blocks this one.
        yield_now().await;
        let Some(task) = &self.task else {
            let text = format!("this worker has no task for the action {}", self.action.name());
            return Some(Err(TaskError::new(text)));
        };
        let cancelled = CancellationToken::new();
        let action = Arc::clone(&self.action);
        let context = Context::new(self.key.run, self.key.task, action, self.client.clone(), cancelled.clone());
        // Both halves can panic: making the future reads the input.
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
        let unwanted = async {
            tokio::select! {
                () = self.stop.cancelled.cancelled() => {}
                () = self.stop.dropped.cancelled() => {}
            }
            cancelled.cancel();
            sleep(self.cancel_grace).await;
        };
        tokio::select! {
            biased;
            ended = code => Some(ended.unwrap_or_else(|panic| Err(TaskError::new(panic)))),
            () = unwanted => None,
        }
    }

    async fn finish(&self, result: TaskResult<String>) -> Done {
        let (done, kind, text, final_failure) = match result {
            Ok(output) => (Done::Completed, ReportKind::Completed, output, false),
            Err(error) => {
                // The engine cannot store a NUL, and would lose the failure.
                let text = error.message().replace('\0', "\u{fffd}");
                (Done::Failed, ReportKind::Failed, cut(text, MAX_ERROR_BYTES), !error.is_retryable())
            }
        };
        match self.report(kind, text, final_failure).await {
            Ok(()) => done,
            // If the result is too large to be sent, the task fails with an error message.
            Err(error) if error.kind() == ErrorKind::TooLarge => {
                let text = format!(
                    "the task's {} could not be sent: {error}",
                    if done == Done::Completed { "output" } else { "error" }
                );
                match self.report(ReportKind::Failed, text, true).await {
                    Ok(()) => Done::Failed,
                    Err(error) => self.unreported(&error),
                }
            }
            Err(_) if self.stop.cancelled.is_cancelled() => Done::Cancelled,
            Err(error) => self.unreported(&error),
        }
    }

    fn unreported(&self, error: &Error) -> Done {
        tracing::error!(run = %self.key.run, attempt = attempt_number(self.key.retry_count), %error, "failed to report the end of an attempt");
        Done::Unreported
    }

    /// Reports to the engine, with retries as long as they are useful. A worker that shuts down has only a few seconds for it.
    async fn report(&self, kind: ReportKind, payload: String, final_failure: bool) -> Result<()> {
        let mut report = Report::new(self.worker, &self.action, kind, self.client.clock().now(), payload);
        if final_failure {
            report = report.without_retry();
        }
        let out_of_time = async {
            self.stop.dropped.cancelled().await;
            sleep(SHUTDOWN_REPORT_TIMEOUT).await;
        };
        tokio::select! {
            reported = self.send(&report) => reported,
            () = out_of_time => Err(Error::closed("the worker")),
        }
    }

    async fn send(&self, report: &Report) -> Result<()> {
        let deadline = Instant::now() + REPORT_TIMEOUT;
        let mut failures = 0;
        loop {
            let Err(error) = self.client.rpc().dispatcher.report(report).await else { return Ok(()) };
            failures += 1;
            let pause = retry_delay(failures, fastrand::f64());
            // Internal errors are retried, too, so that completed work is not lost. So is the refusal of a token that was accepted before.
            let refused = !error.is_transient()
                && matches!(
                    error.kind(),
                    ErrorKind::Rejected
                        | ErrorKind::TooLarge
                        | ErrorKind::Unauthenticated
                        | ErrorKind::Unimplemented
                        | ErrorKind::Closed
                );
            // An attempt that was cancelled meanwhile has already ended: a second end would corrupt the run.
            let over = self.stop.cancelled.is_cancelled() || Instant::now() + pause > deadline;
            if refused || error.forbids_retries() || error.is_not_found() || over {
                return Err(error);
            }
            tracing::warn!(run = %self.key.run, failures, %error, "retrying a report");
            sleep(pause).await;
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
