//! The type-erased function of a task.

use std::error::Error as StdError;
use std::fmt;
use std::future::{self, Future};
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::context::Context;
use super::probe::never_an_object;
use crate::error::Error;
use crate::model::Payload;
use crate::model::payload::encode_output;

/// The result of a task's function.
pub type TaskResult<O> = Result<O, TaskError>;

/// The error of a task.
///
/// Everything that converts to `Box<dyn Error + Send + Sync>` converts to it with `?`: error types, boxed errors, errors of the `anyhow`
/// crate, and strings. Its message includes the messages of the causes.
///
/// `TaskError` does not implement [`Error`](std::error::Error), because that would conflict with this conversion.
///
/// ```
/// use hatchet::{Context, Task, TaskError};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct File { path: String }
///
/// let read: Task<File, String> = Task::new("read", async |file: File, _: Context| {
///     if file.path.is_empty() {
///         return Err(TaskError::non_retryable("there is no path")); // a retry would fail, too
///     }
///     Ok(std::fs::read_to_string(file.path)?) // retried
/// });
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TaskError {
    message: String,
    retry: bool,
    /// The delay before the retry.
    delay: Option<Duration>,
}

impl TaskError {
    /// Creates an error after which the task is retried, if it has retries left.
    ///
    /// The message is formatted with `{:#}`. For an error, use `?` or [`From`]: most error types do not write their causes.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: format!("{message:#}"), retry: true, delay: None }
    }

    fn of(error: &(dyn StdError + 'static)) -> Self {
        let chain = || std::iter::successors(Some(error), |&error| error.source());
        let message = chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
        let is_permanent =
            |error: &(dyn StdError + 'static)| error.downcast_ref::<Error>().is_some_and(Error::is_deterministic);
        Self { message, retry: !chain().any(is_permanent), delay: None }
    }

    /// Creates an error after which the task is retried after a delay, if it has retries left.
    ///
    /// The delay replaces the [backoff](crate::Task::backoff) of the task. The delay is rounded down to milliseconds.
    ///
    /// Engines before v0.111.0 ignore the delay. On such an engine, the task fails with a message that names both versions, and is not
    /// retried, because a retry without the delay could be harmful. A client remembers the version of the engine for five minutes. During
    /// that time, an upgraded engine may be mistaken for the earlier one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use hatchet::{Context, Task, TaskError};
    ///
    /// let ask: Task<(), ()> = Task::new("ask", async |(): (), _: Context| {
    ///     Err(TaskError::retry_after("the model is overloaded", Duration::from_secs(30)))
    /// });
    /// let ask = ask.retries(10);
    /// ```
    pub fn retry_after(message: impl fmt::Display, delay: Duration) -> Self {
        Self { delay: Some(delay), ..Self::new(message) }
    }

    /// Creates an error after which the task is not retried, because a retry would fail, too.
    ///
    /// ```
    /// use hatchet::{Context, Task, TaskError};
    ///
    /// let parse: Task<(), u32> = Task::new("parse", async |(): (), _: Context| {
    ///     "x".parse().map_err(TaskError::non_retryable)
    /// });
    /// ```
    pub fn non_retryable(message: impl fmt::Display) -> Self {
        Self { retry: false, ..Self::new(message) }
    }

    /// Returns the message with which the attempt fails, including the messages of the causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns whether the engine may retry the task.
    pub fn is_retryable(&self) -> bool {
        self.retry
    }

    /// Returns the delay before the retry, if [`retry_after`](Self::retry_after) created this error.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.delay
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for TaskError {
    /// The task is retried, unless the error or one of its causes is an error of this crate that would recur in each attempt, such as that of
    /// [`Context::output_of`](crate::Context::output_of) for a task that is not a parent.
    ///
    /// ```
    /// use std::error::Error;
    /// use hatchet::{Context, Task, TaskError};
    ///
    /// fn parse(text: &str) -> Result<u32, Box<dyn Error + Send + Sync>> {
    ///     Ok(text.parse()?)
    /// }
    ///
    /// let task: Task<(), u32> = Task::new("parse", async |(): (), _: Context| {
    ///     let number = parse("7")?;
    ///     // A retry would fail, too.
    ///     parse("8").map_err(|error| TaskError::non_retryable(TaskError::from(error)))
    /// });
    /// ```
    fn from(error: E) -> Self {
        Self::of(&*error.into())
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("TaskError");
        shown.field("message", &self.message).field("retry", &self.retry).field("delay", &self.delay).finish()
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

pub(crate) type Running = Pin<Box<dyn Future<Output = TaskResult<String>> + Send>>;
pub(crate) type RunningBatch = Pin<Box<dyn Future<Output = Vec<TaskResult<String>>> + Send>>;

/// The function of a task, which takes and returns JSON.
pub(crate) trait Handler: Send + Sync {
    /// Runs the function on the payload of an assignment. `has_dependents`: whether other tasks receive its output.
    fn run(&self, payload: &str, context: Context, has_dependents: bool) -> Running;

    /// Runs the function once for several attempts. There is a result for each, in order.
    fn run_batch(&self, attempts: Vec<(&str, Context)>, _has_dependents: bool) -> RunningBatch {
        let error = TaskError::new("expected an attempt, got a batch: this worker's task is not a batch task");
        let results = std::iter::repeat_with(|| Err(error.clone())).take(attempts.len()).collect();
        Box::pin(future::ready(results))
    }

    /// Whether the function blocks a thread, so that it continues when its future is dropped.
    fn is_blocking(&self) -> bool {
        false
    }

    /// The kind of value that the input type deserializes from, if it is never a JSON object.
    fn non_object_input(&self) -> Option<&'static str>;

    /// Why the input type does not deserialize from an empty object, if it does not.
    fn empty_input_error(&self) -> Option<String>;
}

pub(super) struct Typed<F, I, O> {
    function: F,
    is_blocking: bool,
    types: PhantomData<fn(I) -> O>,
}

impl<F, I, O> Typed<F, I, O> {
    pub(super) fn new(function: F) -> Self {
        Self { function, is_blocking: false, types: PhantomData }
    }

    /// The function only waits for code that blocks a thread.
    pub(super) fn blocking(function: F) -> Self {
        Self { is_blocking: true, ..Self::new(function) }
    }
}

impl<F, I, O, R> Handler for Typed<F, I, O>
where
    F: Fn(I, Context) -> R + Send + Sync,
    R: Future<Output = TaskResult<O>> + Send + 'static,
    I: DeserializeOwned,
    O: Serialize,
{
    fn run(&self, payload: &str, context: Context, has_dependents: bool) -> Running {
        match input(payload) {
            Ok(input) => {
                let result = (self.function)(input, context);
                Box::pin(async move { output(&result.await?, has_dependents) })
            }
            Err(error) => Box::pin(future::ready(Err(error))),
        }
    }

    fn is_blocking(&self) -> bool {
        self.is_blocking
    }

    fn non_object_input(&self) -> Option<&'static str> {
        never_an_object::<I>()
    }

    fn empty_input_error(&self) -> Option<String> {
        empty_input_error::<I>()
    }
}

pub(super) fn empty_input_error<I: DeserializeOwned>() -> Option<String> {
    // This is user code. If it panics, it panics again when it deserializes an input, where it fails the task.
    let read = || Payload::input("{}").parse::<I>().map(drop);
    let error = std::panic::catch_unwind(read).ok()?.err()?;
    Some(error.source().map_or_else(|| error.to_string(), ToString::to_string))
}

#[derive(serde::Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

/// Deserializes the input of an assignment. If that fails, a retry would fail, too.
pub(super) fn input<I: DeserializeOwned>(payload: &str) -> TaskResult<I> {
    let envelope: Envelope<'_> = serde_json::from_str(payload)
        .map_err(|error| TaskError::non_retryable(format_args!("failed to parse the assignment: {error}")))?;
    // The engine has replaced an input that is not an object by null.
    let text = envelope.input.map_or("{}", RawValue::get);
    // The message of a task error includes the causes.
    Payload::input(text).parse_as(&"the input").map_err(|error| TaskError::non_retryable(TaskError::from(error)))
}

/// Serializes an output. If that fails, a retry would fail, too.
pub(super) fn output<O: Serialize>(output: &O, has_dependents: bool) -> TaskResult<String> {
    encode_output(output, has_dependents).map_err(|error| TaskError::non_retryable(TaskError::from(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize, PartialEq)]
    struct Greeting {
        name: String,
    }

    #[test]
    fn the_input_is_taken_out_of_the_payload() {
        let payload = r#"{"input":{"name":"Ada"},"triggered_by":"manual","parents":{}}"#;
        assert_eq!(input::<Greeting>(payload).unwrap(), Greeting { name: "Ada".into() });
        input::<()>(r#"{"input":null}"#).unwrap();
        input::<()>(r#"{"input":{}}"#).unwrap();
    }

    #[test]
    fn a_task_whose_input_does_not_match_the_type_is_not_retried() {
        let error = input::<Greeting>(r#"{"input":{"nom":"Ada"}}"#).unwrap_err();
        assert!(!error.is_retryable());
        assert!(error.message().contains("missing field `name`"), "{error}");
        assert!(!input::<Greeting>("no json").unwrap_err().is_retryable());
    }

    #[test]
    fn the_message_of_an_error_includes_its_causes() {
        let cause = crate::Error::new(crate::ErrorKind::Decode, "outer").with_source("inner");
        assert_eq!(TaskError::from(cause).message(), "outer: inner");
    }

    #[test]
    fn everything_that_converts_to_a_boxed_error_converts_with_a_question_mark() {
        let error = || crate::Error::new(crate::ErrorKind::Decode, "outer").with_source("inner").deterministic();
        let boxed = || -> TaskResult<()> { Ok(Err::<(), Box<dyn StdError + Send + Sync>>(error().into())?) };
        let anyhow = || -> TaskResult<()> { Ok(Err(anyhow::Error::new(error()).context("outermost"))?) };
        let text = || -> TaskResult<()> { Ok(Err("a string")?) };
        let own = || -> TaskResult<()> {
            let rejected: TaskResult<()> = Err(TaskError::non_retryable("own"));
            rejected?;
            Ok(())
        };
        let io = || -> TaskResult<()> { Ok(Err(std::io::Error::other("inner"))?) };
        let described = [boxed(), anyhow(), text(), own(), io()].map(|result| {
            let error = result.unwrap_err();
            (error.message().to_owned(), error.is_retryable())
        });
        let expected = [
            ("outer: inner", false),
            ("outermost: outer: inner", false),
            ("a string", true),
            ("own", false),
            ("inner", true),
        ];
        assert_eq!(described, expected.map(|(message, retry)| (message.to_owned(), retry)));
        assert_eq!(TaskError::new(anyhow::anyhow!("inner").context("outer")).message(), "outer: inner");
    }

    #[test]
    fn errors_that_each_attempt_would_get_are_not_retried() {
        let error = || crate::Error::new(crate::ErrorKind::NotFound, "no parent");
        assert!(TaskError::from(error()).is_retryable());
        assert!(!TaskError::from(error().deterministic()).is_retryable());
        let wrapped = crate::Error::new(crate::ErrorKind::Decode, "outer").with_source(error().deterministic());
        assert!(!TaskError::from(wrapped).is_retryable());
    }
}
