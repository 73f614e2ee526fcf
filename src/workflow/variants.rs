//! Tasks whose function has a state, or blocks its thread.

use std::panic::resume_unwind;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;
use tracing::Span;

use super::context::Context;
use super::handler::{TaskError, TaskResult, Typed};
use super::task::Task;

impl<I, O> Task<I, O>
where
    I: DeserializeOwned + 'static,
    O: Serialize + 'static,
{
    /// Creates a task whose function gets a clone of the state, such as a connection pool, for each attempt.
    ///
    /// In all other respects, the task is like one that [`new`](Self::new) creates.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use hatchet::{Context, Task};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Order { id: String }
    /// # struct Pool;
    /// # impl Pool { async fn charge(&self, id: &str) -> std::io::Result<u32> { Ok(id.len() as u32) } }
    ///
    /// let pool = Arc::new(Pool);
    /// let charge = Task::with_state("charge", pool, async |pool: Arc<Pool>, order: Order, _: Context| {
    ///     Ok(pool.charge(&order.id).await?)
    /// });
    /// ```
    pub fn with_state<S, F, R>(name: impl Into<String>, state: S, function: F) -> Self
    where
        S: Clone + Send + Sync + 'static,
        F: Fn(S, I, Context) -> R + Send + Sync + 'static,
        R: Future<Output = TaskResult<O>> + Send + 'static,
    {
        Self::new(name, move |input, context| function(state.clone(), input, context))
    }

    /// Creates a task whose function blocks its thread, because it is CPU-bound or calls blocking functions.
    ///
    /// The function runs on Tokio's [blocking thread pool](spawn_blocking), so that it does not keep other tasks from running. In all other
    /// respects, the task is like one that [`new`](Self::new) creates.
    ///
    /// Blocking code cannot be stopped from outside: the function should check [`Context::is_cancelled`] from time to time. If it does not,
    /// a cancelled attempt keeps its slot until the function returns, and the next attempt of the task waits for that long, because the
    /// thread is still busy. The worker logs a warning after its [grace period](crate::worker::WorkerBuilder::cancel_grace_period), ignores
    /// the result, and counts the attempt as cancelled. A shutdown waits for such an attempt only until its own grace period is over.
    ///
    /// Set the worker's [slots](crate::worker::WorkerBuilder::slots) according to the number of processors. By default, Tokio starts up to
    /// 512 blocking threads, which it also uses to resolve host names: while all of them are busy, a worker cannot connect to a host by its
    /// name.
    ///
    /// ```
    /// use hatchet::{Context, Task, TaskError};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Limit { below: u64 }
    ///
    /// let sum = Task::blocking("sum", |limit: Limit, context: Context| {
    ///     let mut sum = 0_u64;
    ///     for number in 0..limit.below {
    ///         if number % 1_000_000 == 0 && context.is_cancelled() {
    ///             return Err(TaskError::new("cancelled"));
    ///         }
    ///         sum = sum.wrapping_add(number);
    ///     }
    ///     Ok(sum)
    /// });
    /// ```
    pub fn blocking<F>(name: impl Into<String>, function: F) -> Self
    where
        F: Fn(I, Context) -> TaskResult<O> + Send + Sync + 'static,
        I: Send,
        O: Send,
    {
        let function = Arc::new(function);
        let function = move |input, context: Context| {
            let (function, span) = (Arc::clone(&function), Span::current());
            async move {
                let run = move || {
                    // It may have waited for a thread in the meantime.
                    if context.is_cancelled() {
                        return Err(TaskError::new("the attempt was cancelled before it started"));
                    }
                    span.in_scope(|| function(input, context))
                };
                match spawn_blocking(run).await {
                    Ok(result) => result,
                    // The worker reports it, like any panic of a task.
                    Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                    Err(_) => Err(TaskError::new("the runtime was shut down before the task started")),
                }
            }
        };
        Self::with_handler(name.into(), Arc::new(Typed::<_, I, O>::blocking(function)))
    }
}
