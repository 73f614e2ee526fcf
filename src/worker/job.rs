//! One attempt, from assignment to report.

use tokio::task::yield_now;
use tokio::time::sleep;
use tracing::Span;

use super::attempt::{Attempt, Environment, JobEnd, Measured, unknown_action};
use super::guard::CatchPanic;
use super::registered::RegisteredTask;
use crate::model::parse_id;
use crate::telemetry;
use crate::workflow::{TaskError, TaskResult, in_context};

/// An attempt, and all that it needs to run.
pub(super) struct Job {
    pub(super) environment: Environment,
    pub(super) attempt: Attempt,
    /// `None` if the worker has no such task.
    pub(super) task: Option<RegisteredTask>,
}

impl Job {
    /// Runs the function. What is reported is up to the caller.
    pub(super) async fn run(self) -> JobEnd {
        let mut measured = Measured::start(&self.attempt.action, 1);
        let result = self.work().await;
        let ended = self.environment.end(&self.attempt, result).await;
        measured.end(&ended);
        ended
    }

    /// Runs the function until it ends or must stop. Returns its result if it ended before it had to stop.
    async fn work(&self) -> Option<TaskResult<String>> {
        // Tasks that were just woken on this thread run first: other threads cannot take them over if the function blocks this one.
        yield_now().await;
        let (environment, Attempt { key, action, stop, .. }) = (&self.environment, &self.attempt);
        let Some(task) = &self.task else { return Some(Err(unknown_action(action))) };
        let context = environment.context(task, &self.attempt);
        // Both halves can panic: making the future reads the input.
        let (workflow, attempt) = (task.workflow.short_name(), key.attempt());
        // Made where the context is known, for layers that need it.
        let span = || {
            let span = telemetry::attempt_span(
                &key.run,
                &key.task,
                action.task_name(),
                &workflow,
                attempt,
                &environment.worker,
            );
            telemetry::continue_trace(&span, action.metadata());
            span
        };
        let (current, chunks) = (context.clone(), context.clone());
        let log_panic = |panic: &str| {
            tracing::warn!(worker_id = %environment.worker, run_id = %key.run, task_id = %key.task, attempt, panic, "task panicked while it was dropped");
        };
        let code = async {
            if let Some(id) = action.workflow().and_then(|id| parse_id(id).ok()) {
                let is_own = match task.workflow.is_known(id) {
                    Some(is_own) => is_own,
                    // Boxed, because it is large and rarely needed.
                    None => Box::pin(task.workflow.is_own(&environment.client, id, key)).await,
                };
                if !is_own {
                    return Err(TaskError::new(task.workflow.foreign(id)));
                }
            }
            task.definition.handler.run(action.payload(), context, task.has_dependents).await
        };
        let code = CatchPanic::new(code, log_panic);
        let code = in_context(current, span, async {
            let ended = code.await;
            if let Some(error) = error_of(&ended) {
                telemetry::mark_failed(&Span::current(), error);
            }
            ended
        });
        let unwanted = async {
            stop.requested().await;
            sleep(environment.cancel_grace).await;
            if task.definition.handler.is_blocking() && stop.is_ended() {
                // Boxed, because it is rarely needed.
                Box::pin(self.until_dropped()).await;
            }
        };
        let mut in_time = None;
        let code = async {
            let ended = code.await;
            // What a shutdown has cut off is not a result of the task: it runs again elsewhere. But the time of the flush is not its own.
            in_time = Some(ended).filter(|_| !stop.is_requested());
            chunks.flush_chunks().await;
        };
        tokio::select! {
            biased;
            () = code => {}
            () = unwanted => {}
        }
        in_time.map(|ended| ended.unwrap_or_else(|panic| Err(TaskError::new(panic))))
    }

    /// Waits until a cancelled attempt whose thread is busy need not be waited for. Until then, it keeps its slot: the next attempt would occupy
    /// another thread.
    async fn until_dropped(&self) {
        let Attempt { key, action, stop, .. } = &self.attempt;
        tracing::warn!(worker_id = %self.environment.worker, run_id = %key.run, task_id = %key.task, task_name = action.task_name(), attempt = key.attempt(), "cancelled attempt still runs blocking code; it keeps its slot until its function returns");
        stop.shutdown().await;
    }
}

/// The message of an attempt that has failed or panicked.
fn error_of(ended: &Result<TaskResult<String>, String>) -> Option<&str> {
    match ended {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.message()),
        Err(panic) => Some(panic),
    }
}
