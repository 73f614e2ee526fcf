//! The attempts of a batch, from assignment to report.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tracing::Instrument as _;

use super::attempt::{Attempt, Environment, JobEnd, Measured, unknown_action};
use super::guard::CatchPanic;
use super::ownership;
use super::registered::RegisteredTask;
use crate::rpc::convert::{Action, ReportKind};
use crate::telemetry;
use crate::workflow::{TaskError, TaskResult};

/// How long the retry counts of failed attempts may take to be found out.
const RETRY_COUNTS_TIMEOUT: Duration = Duration::from_secs(2);
/// The number of calls in flight for that.
const MAX_CALLS: usize = 8;

/// A batch, and all that it needs to run.
pub(super) struct BatchJob {
    pub(super) environment: Environment,
    pub(super) batch: Arc<Action>,
    pub(super) attempts: Vec<Attempt>,
    /// `None` if the worker has no such task.
    pub(super) task: Option<RegisteredTask>,
}

impl BatchJob {
    /// Runs the code once, and returns the end of each attempt.
    pub(super) async fn run(self) -> Vec<JobEnd> {
        let Some(first) = self.attempts.first() else { return Vec::new() };
        let mut measured = Measured::start(&first.action, self.attempts.len());
        let mut results = self.work().await.into_iter().flatten();
        let mut ends = Vec::with_capacity(self.attempts.len());
        for attempt in &self.attempts {
            let ended = self.environment.end(attempt, results.next()).await;
            measured.end(&ended);
            ends.push(ended);
        }
        self.add_retry_counts(&mut ends).await;
        ends
    }

    /// Runs the code until it ends, or until all attempts must stop. There is a result for each attempt.
    async fn work(&self) -> Option<Vec<TaskResult<String>>> {
        yield_now().await;
        let all = |error: &TaskError| self.attempts.iter().map(|_| Err(error.clone())).collect::<Vec<_>>();
        let Some(task) = &self.task else { return Some(all(&unknown_action(&self.batch))) };
        let contexts: Vec<_> = self.attempts.iter().map(|attempt| self.environment.context(task, attempt)).collect();
        let span = tracing::info_span!(
            target: telemetry::TARGET, telemetry::BATCH_SPAN,
            batch_id = self.batch.batch(), size = self.attempts.len(), task_name = task.definition.name,
            workflow_name = &*task.workflow.short_name(), worker_id = %self.environment.worker,
        );
        let code = CatchPanic::new(async {
            let payloads = self.attempts.iter().map(|attempt| attempt.action.payload());
            let attempts = payloads.zip(contexts.iter().cloned()).collect();
            task.definition.handler.run_batch(attempts, task.has_dependents).await
        });
        let code = async {
            let ended = code.instrument(span).await;
            for context in &contexts {
                context.flush_chunks().await;
            }
            ended
        };
        let unwanted = async {
            for attempt in &self.attempts {
                attempt.stop.requested().await;
            }
            sleep(self.environment.cancel_grace).await;
        };
        tokio::select! {
            biased;
            ended = code => Some(ended.unwrap_or_else(|panic| all(&TaskError::new(panic)))),
            () = unwanted => None,
        }
    }

    /// Adds the retry counts to the reports of failures. A failure that is sent again without one, because the response to it was lost,
    /// would fail the next attempt, too.
    async fn add_retry_counts(&self, ends: &mut [JobEnd]) {
        let is_failure =
            |end: &&mut JobEnd| end.report.as_ref().is_some_and(|report| report.kind == ReportKind::Failed);
        let failures = ends.iter_mut().filter(is_failure);
        let rpc = self.environment.client.rpc();
        let found = iter(failures).for_each_concurrent(MAX_CALLS, |end| async move {
            let retry_count = ownership::retry_count_in_batch(rpc, end.key.task, self.batch.batch()).await;
            if let Ok(Some(retry_count)) = retry_count {
                end.report = end.report.take().map(|report| report.with_retry_count(retry_count));
            }
        });
        // They are sent without it, as other SDKs do.
        drop(timeout(RETRY_COUNTS_TIMEOUT, found).await);
    }
}
