//! The attempts of a batch, from assignment to report.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::iter;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tracing::{Instrument as _, Span};

use super::attempt::{Attempt, Environment, JobEnd, Measured, unknown_action};
use super::guard::CatchPanic;
use super::key::Key;
use super::ownership;
use super::registered::RegisteredTask;
use crate::rpc::convert::{Action, ReportKind};
use crate::telemetry;
use crate::workflow::{Context, TaskError, TaskResult};

/// How long the retry counts of failed attempts may take to be found out.
const RETRY_COUNTS_TIMEOUT: Duration = Duration::from_secs(2);
/// The number of calls in flight for that.
const MAX_CALLS: usize = 8;

/// A batch, and all that it needs to run.
pub(super) struct BatchJob {
    pub(super) environment: Environment,
    /// The assignment without its payload, which the attempts have.
    pub(super) batch: Action,
    pub(super) attempts: Vec<Attempt>,
    /// `None` if the worker has no such task.
    pub(super) task: Option<RegisteredTask>,
}

/// The ends of the attempts of a batch.
pub(super) struct BatchEnds {
    pub(super) ended: Vec<JobEnd>,
    /// The attempts that have failed. Their reports need calls, for which the others do not wait.
    pub(super) failed: Option<Failed>,
}

/// Attempts of a batch that have failed.
pub(super) struct Failed {
    /// The id of the batch.
    pub(super) batch: Arc<str>,
    pub(super) keys: Vec<Key>,
    pub(super) ends: BoxFuture<'static, Vec<JobEnd>>,
}

impl BatchJob {
    /// Runs the function once, and returns the end of each attempt.
    pub(super) async fn run(self) -> BatchEnds {
        let Some(first) = self.attempts.first() else { return BatchEnds { ended: Vec::new(), failed: None } };
        let mut measured = Measured::start(&first.action, self.attempts.len());
        let mut results = self.work().await.into_iter();
        let Self { environment, batch, attempts, .. } = self;
        let (mut ended, mut failed) = (Vec::with_capacity(attempts.len()), Vec::new());
        for attempt in attempts {
            match results.next().flatten() {
                Some(Err(error)) if !attempt.stop.is_ended() => failed.push((attempt, error)),
                result => {
                    let end = environment.end(&attempt, result).await;
                    measured.end(&end);
                    ended.push(end);
                }
            }
        }
        if failed.is_empty() {
            return BatchEnds { ended, failed: None };
        }
        let batch_id = batch.batch().into();
        let keys = failed.iter().map(|(attempt, _)| attempt.key).collect();
        let ends = Box::pin(async move {
            let reports = failed.into_iter().map(|(attempt, error)| {
                let environment = &environment;
                async move { environment.end(&attempt, Some(Err(error))).await }
            });
            let mut ends = join_all(reports).await;
            for end in &ends {
                measured.end(end);
            }
            add_retry_counts(&environment, batch.batch(), &mut ends).await;
            ends
        });
        BatchEnds { ended, failed: Some(Failed { batch: batch_id, keys, ends }) }
    }

    /// Runs the function until it ends, or until all attempts must stop. Returns the results of those that did not have to stop before.
    async fn work(&self) -> Vec<Option<TaskResult<String>>> {
        yield_now().await;
        let all = |error: &TaskError| self.attempts.iter().map(|_| Err(error.clone())).collect::<Vec<_>>();
        let Some(task) = &self.task else {
            return all(&unknown_action(&self.batch)).into_iter().map(Some).collect();
        };
        let contexts: Vec<_> = self.attempts.iter().map(|attempt| self.environment.context(task, attempt)).collect();
        let span = || {
            tracing::info_span!(
                target: telemetry::TARGET, telemetry::BATCH_SPAN,
                batch_id = self.batch.batch(), size = self.attempts.len(), task_name = task.definition.name,
                workflow_name = &*task.workflow.short_name(), worker_id = %self.environment.worker,
            )
        };
        let log_panic = |panic: &str| {
            let (worker, size) = (self.environment.worker, self.attempts.len());
            tracing::warn!(worker_id = %worker, batch_id = self.batch.batch(), size, panic, "batch panicked while it was dropped");
        };
        let code = async {
            let payloads = self.attempts.iter().map(|attempt| attempt.action.payload());
            let attempts = payloads.zip(contexts.iter().cloned()).collect();
            task.definition.handler.run_batch(attempts, task.has_dependents).await
        };
        let code = CatchPanic::new(code, log_panic);
        let code = async {
            let ended = code.await;
            if let Some(error) = failure(&ended) {
                telemetry::mark_failed(&Span::current(), &error);
            }
            ended
        };
        // A layer of `tracing` can panic, too, when the span is made, entered or left.
        let code = CatchPanic::new(async { code.instrument(span()).await }, log_panic);
        let mut in_time = None;
        let code = async {
            let ended = code.await.flatten();
            let results = ended.unwrap_or_else(|panic| all(&TaskError::new(panic))).into_iter().zip(&self.attempts);
            // The time of the flush is not that of the function.
            in_time =
                Some(results.map(|(result, attempt)| Some(result).filter(|_| !attempt.stop.is_requested())).collect());
            join_all(contexts.iter().map(Context::flush_chunks)).await;
        };
        let unwanted = async {
            for attempt in &self.attempts {
                attempt.stop.requested().await;
            }
            sleep(self.environment.cancel_grace).await;
        };
        tokio::select! {
            biased;
            () = code => {}
            () = unwanted => {}
        }
        in_time.unwrap_or_default()
    }
}

/// Why a batch has failed, or some of its attempts.
fn failure(ended: &Result<Vec<TaskResult<String>>, String>) -> Option<String> {
    let results = match ended {
        Ok(results) => results,
        Err(panic) => return Some(panic.clone()),
    };
    let mut errors = results.iter().filter_map(|result| result.as_ref().err());
    let first = errors.next()?;
    match errors.count() + 1 {
        count if count == results.len() => Some(first.message().to_owned()),
        count => Some(format!("{count} of {} attempts failed, the first with: {}", results.len(), first.message())),
    }
}

/// Adds the retry counts to the reports of failures. A failure that is sent again without one, because the response to it was lost,
/// would fail the next attempt, too.
async fn add_retry_counts(environment: &Environment, batch: &str, ends: &mut [JobEnd]) {
    let is_failure = |end: &&mut JobEnd| end.report.as_ref().is_some_and(|report| report.kind == ReportKind::Failed);
    let failures = ends.iter_mut().filter(is_failure);
    let rpc = environment.client.rpc();
    let found = iter(failures).for_each_concurrent(MAX_CALLS, |end| async move {
        let retry_count = ownership::retry_count_in_batch(rpc, end.key.task, batch).await;
        if let Ok(Some(retry_count)) = retry_count {
            end.report = end.report.take().map(|report| report.with_retry_count(retry_count));
        }
    });
    // They are sent without it, as other SDKs do.
    drop(timeout(RETRY_COUNTS_TIMEOUT, found).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_of_a_batch_names_the_number_of_its_failed_attempts() {
        let failed = |text| Err(TaskError::new(text));
        assert_eq!(failure(&Ok(vec![Ok("1".into())])), None);
        assert_eq!(failure(&Err("panicked".into())).as_deref(), Some("panicked"));
        assert_eq!(failure(&Ok(vec![failed("a"), failed("a")])).as_deref(), Some("a"));
        let some = failure(&Ok(vec![Ok("1".into()), failed("a"), failed("b")]));
        assert_eq!(some.as_deref(), Some("2 of 3 attempts failed, the first with: a"));
    }
}
