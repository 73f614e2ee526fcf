//! The error type of the crate: a kind, predicates, and the cause as its source.
//!
//! A run that failed is not an error, but an [`Outcome`]. An error means that something could not be done or could not be
//! determined. Methods that return only outputs, such as [`RunHandle::result`](crate::RunHandle::result), are exceptions: their errors have
//! the outcome.

mod kind;
mod stored;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::value::{Outcome, RunId, RunStatus};

pub use kind::ErrorKind;

/// The result of fallible functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// The error of an operation that failed, or whose result could not be determined.
///
/// An `Error` is cheap to clone.
///
/// The message does not contain the cause, which is the [`source`](StdError::source). The [`Debug`](fmt::Debug) output contains both.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), ()>) -> hatchet::Result<()> {
/// use hatchet::ErrorKind;
///
/// match hatchet.run(&greet, &()).start().await {
///     Ok(run) => println!("{}", run.id()),
///     Err(error) if error.kind() == ErrorKind::WorkflowNotFound => println!("does a worker register it?"),
///     Err(error) if error.has_no_side_effects() => println!("nothing was started: {error}"),
///     Err(error) => return Err(error), // a run may have been started
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
struct Inner {
    kind: ErrorKind,
    message: String,
    /// Whether it is certain that the call had no effect on the server.
    has_no_side_effects: bool,
    transient: bool,
    /// Whether the REST API has never been reached.
    rest_unreached: bool,
    /// Whether each attempt of the same task would get this error.
    deterministic: bool,
    /// When the server allows a retry, if it specified that.
    retry_after: Option<RetryAfter>,
    status: Option<ServerStatus>,
    run: Option<RunDetail>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What an error contains about runs.
#[derive(Debug, Clone)]
pub(crate) enum RunDetail {
    /// The run that the error is about.
    Of(RunId),
    /// A run that has a status which the request does not allow.
    InStatus(RunId, RunStatus),
    /// A run that ended without an output.
    Ended(RunId, Arc<Outcome>, RunStatus),
    /// The run that has the idempotency key of a run that was not started.
    Existing(RunId),
}

/// When the server allows a retry; see [`Error::retry_after`].
///
/// ```
/// use hatchet::Error;
/// use hatchet::error::RetryAfter;
///
/// fn may_retry(error: &Error) -> bool {
///     error.is_transient() && error.retry_after() != Some(RetryAfter::Never)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetryAfter {
    /// Retry after this delay, which the server requested.
    Delay(Duration),
    /// The server asks not to retry.
    Never,
}

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delay(delay) => write!(f, "after {delay:?}"),
            Self::Never => f.write_str("never"),
        }
    }
}

/// The status of a response of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerStatus {
    /// A gRPC status code.
    Grpc(i32),
    /// An HTTP status.
    Http(u16),
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            has_no_side_effects: false,
            transient: false,
            rest_unreached: false,
            deterministic: false,
            retry_after: None,
            status: None,
            run: None,
            source: None,
        }))
    }

    /// The error for a request that is not sent.
    pub(crate) fn invalid(field: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self::new(ErrorKind::InvalidInput, format!("invalid {field}: {problem}")).without_side_effects()
    }

    pub(crate) fn closed(what: &str) -> Self {
        Self::new(ErrorKind::Closed, format!("{what} is shut down"))
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    pub(crate) fn with_status(mut self, status: ServerStatus) -> Self {
        self.0.status = Some(status);
        self
    }

    /// Sets when the server allows a retry. An error of a call that must not be retried is not transient.
    pub(crate) fn with_retry_after(mut self, retry_after: Option<RetryAfter>) -> Self {
        self.0.retry_after = retry_after;
        if self.forbids_retries() { self.permanent() } else { self }
    }

    pub(crate) fn with_run(mut self, run: RunDetail) -> Self {
        self.0.run = Some(run);
        self
    }

    pub(crate) fn run_detail(&self) -> Option<&RunDetail> {
        self.0.run.as_ref()
    }

    /// Prepends a context to the message.
    pub(crate) fn within(mut self, context: &str) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Marks that the call had no effect on the server.
    pub(crate) fn without_side_effects(mut self) -> Self {
        self.0.has_no_side_effects = true;
        self
    }

    /// Marks that an earlier call may have had an effect on the server.
    pub(crate) fn with_possible_side_effects(mut self) -> Self {
        self.0.has_no_side_effects = false;
        self
    }

    pub(crate) fn transient(mut self) -> Self {
        self.0.transient = true;
        self
    }

    pub(crate) fn permanent(mut self) -> Self {
        self.0.transient = false;
        self
    }

    /// Marks that the REST API has never been reached.
    pub(crate) fn rest_unreached(mut self) -> Self {
        self.0.rest_unreached = true;
        self
    }

    /// Marks that each attempt of the same task would get this error.
    pub(crate) fn deterministic(mut self) -> Self {
        self.0.deterministic = true;
        self
    }

    pub(crate) fn is_deterministic(&self) -> bool {
        self.0.deterministic
    }

    /// Whether the REST API has never been reached: some services can reach only gRPC.
    pub(crate) fn is_rest_unreached(&self) -> bool {
        self.0.rest_unreached
    }

    /// The delay that the server requests before a retry.
    pub(crate) fn pushback(&self) -> Option<Duration> {
        match self.0.retry_after {
            Some(RetryAfter::Delay(delay)) => Some(delay),
            Some(RetryAfter::Never) | None => None,
        }
    }

    pub(crate) fn forbids_retries(&self) -> bool {
        self.0.retry_after == Some(RetryAfter::Never)
    }

    pub(crate) fn status(&self) -> Option<ServerStatus> {
        self.0.status
    }

    /// Returns what went wrong, as a value that a program can compare.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, id: hatchet::RunId) -> hatchet::Result<()> {
    /// use hatchet::ErrorKind;
    ///
    /// if let Err(error) = hatchet.run_handle(id).details().await
    ///     && error.kind() == ErrorKind::RunNotFound
    /// {
    ///     println!("no run {id}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns whether a later retry of the same call may succeed: the server could not be reached, a deadline has passed, the server
    /// limits the rate of calls, or the server has been rejecting a previously accepted token for less than five minutes.
    ///
    /// *What to do:* This crate has already retried the call where that was safe. Retry it after a pause. If the call has side effects,
    /// check [`has_no_side_effects`](Self::has_no_side_effects) first.
    pub fn is_transient(&self) -> bool {
        self.0.transient
    }

    /// Returns whether it is certain that the call had no effect on the server, because it was not processed or because the server
    /// rejected it.
    ///
    /// *What to do:* If this method returns `true`, make the call again. If it returns `false`, the call may have been processed: before
    /// you make the call again, search for its effect, for example for a run with a tag.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, charge: hatchet::Task<(), ()>) -> hatchet::Result<()> {
    /// match hatchet.run(&charge, &()).start().await {
    ///     Ok(run) => println!("{}", run.id()),
    ///     Err(error) if error.has_no_side_effects() => println!("it can be sent again"),
    ///     Err(error) => println!("the run may have been started: {error}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn has_no_side_effects(&self) -> bool {
        self.0.has_no_side_effects
    }

    /// Returns when the server allows a retry, or `None` if the server did not specify it.
    ///
    /// *What to do:* For a [`Delay`](RetryAfter::Delay), wait at least that long before you retry. For [`Never`](RetryAfter::Never), do not
    /// retry.
    pub fn retry_after(&self) -> Option<RetryAfter> {
        self.0.retry_after
    }

    /// Returns whether a deadline has passed. The [`source`](StdError::source) is the error of the last try, if there were several.
    ///
    /// *What to do:* The call may have been processed; see [`has_no_side_effects`](Self::has_no_side_effects). If calls are often slow,
    /// set a longer [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn is_timeout(&self) -> bool {
        self.0.kind == ErrorKind::Timeout
    }

    /// Returns whether something does not exist: a run, a workflow, or anything else.
    ///
    /// *What to do:* For a workflow, check that a worker has registered it. For a run, check whether the engine has dropped it after its
    /// retention period.
    pub fn is_not_found(&self) -> bool {
        matches!(self.0.kind, ErrorKind::NotFound | ErrorKind::RunNotFound | ErrorKind::WorkflowNotFound)
    }

    /// Whether the error may be gone at the next try: the server restarts, or has a problem with its database.
    pub(crate) fn may_recover(&self) -> bool {
        self.is_transient() || self.0.kind == ErrorKind::Server && !self.forbids_retries()
    }

    /// Whether the error is probably that of a proxy, which rejects a path or a token. The engine uses HTTP statuses only in REST, and no
    /// `PERMISSION_DENIED`.
    pub(crate) fn is_by_proxy(&self) -> bool {
        const PERMISSION_DENIED: i32 = 7;
        matches!(self.0.status, Some(ServerStatus::Http(_) | ServerStatus::Grpc(PERMISSION_DENIED)))
    }

    /// Returns the gRPC status code of the response, if the server sent one: 5 is `NOT_FOUND`.
    pub fn grpc_code(&self) -> Option<i32> {
        match self.0.status {
            Some(ServerStatus::Grpc(code)) => Some(code),
            _ => None,
        }
    }

    /// Returns the HTTP status of the response, if the server sent one.
    pub fn http_status(&self) -> Option<u16> {
        match self.0.status {
            Some(ServerStatus::Http(status)) => Some(status),
            _ => None,
        }
    }
}

/// The kind, the message, the causes, and what is known of the call, for programs that return the error from `main` or unwrap it. `{:#?}`
/// prints a struct.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            write!(f, "{:?}: {self}", self.0.kind)?;
            let causes = std::iter::successors(self.source(), |&cause| cause.source());
            causes
                .map(ToString::to_string)
                .filter(|cause| !self.0.message.contains(cause))
                .try_for_each(|cause| write!(f, ": {cause}"))?;
            return match (self.0.status, self.0.has_no_side_effects) {
                (Some(status), true) => write!(f, " [{status:?}, no side effects]"),
                (Some(status), false) => write!(f, " [{status:?}]"),
                (None, true) => f.write_str(" [no side effects]"),
                (None, false) => Ok(()),
            };
        }
        let mut shown = f.debug_struct("Error");
        shown.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(status) = &self.0.status {
            shown.field("status", status);
        }
        if self.0.has_no_side_effects {
            shown.field("has_no_side_effects", &true);
        }
        if let Some(source) = &self.0.source {
            shown.field("source", source);
        }
        shown.finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_not_repeated_in_the_cause() {
        let error = Error::new(ErrorKind::Decode, "cannot read the response").with_source("bad byte");
        assert_eq!(error.to_string(), "cannot read the response");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("bad byte"));
        let copy = error.clone();
        assert_eq!(copy.source().map(ToString::to_string).as_deref(), Some("bad byte"));
        assert_eq!(format!("{copy:?}"), "Decode: cannot read the response: bad byte");
        assert!(format!("{copy:#?}").starts_with("Error {"));
        let same = Error::new(ErrorKind::Config, "1 problem").with_source("1 problem");
        assert_eq!(format!("{same:?}"), "Config: 1 problem", "a cause with the same text is shown once");
    }

    #[test]
    fn an_invalid_input_names_the_field_and_has_no_side_effects() {
        let error = Error::invalid("priority", "expected 1 to 3, got 9");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "invalid priority: expected 1 to 3, got 9");
        assert!(error.has_no_side_effects());
        assert!(format!("{error:?}").ends_with("got 9 [no side effects]"));
    }
}
