//! One error for the whole crate: a kind to match on, questions to ask, and the cause in `source()`.
//!
//! A run that failed is not an error: it is an [`Outcome`](crate::Outcome). An `Err` means that something could not be
//! done or could not be found out. The one exception is [`RunHandle::result`](crate::RunHandle::result), which is for
//! callers who only want the output; its error then carries the outcome.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What the crate's fallible functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// Why something could not be done, or could not be found out.
///
/// The text does not repeat its cause, which is in [`source`](StdError::source). Cheap to clone.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), ()>) -> hatchet::Result<()> {
/// use hatchet::ErrorKind;
///
/// match hatchet.run(&greet, &()).start().await {
///     Ok(run) => println!("{}", run.id()),
///     Err(error) if error.kind() == ErrorKind::WorkflowNotFound => println!("is its worker there?"),
///     Err(error) if error.never_reached_server() => println!("nothing was started: {error}"),
///     Err(error) => return Err(error), // it may have been started
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    text: String,
    /// Set when it is known that the call did nothing on the server.
    never_reached_server: bool,
    transient: bool,
    /// Set when the REST API could not be reached, and never has been.
    rest_unreached: bool,
    retry_after: Option<Duration>,
    answer: Option<Answer>,
    /// What a later room has to say about it, in that room's types.
    about: Option<Arc<dyn Any + Send + Sync>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The classes of errors. More may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration is wrong; the text lists all that is wrong with it.
    Config,
    /// What was asked for breaks a rule, so nothing was sent. The text names the field and the limit.
    InvalidInput,
    /// A message or a payload is over a size limit, here or at the server.
    TooLarge,
    /// A value could not be turned into JSON.
    Encode,
    /// An answer or a payload could not be read.
    Decode,
    /// No connection, or it broke.
    Unavailable,
    /// The deadline passed first.
    Timeout,
    /// The token is missing, wrong, expired, or of another tenant.
    Unauthenticated,
    /// The server asks for fewer calls.
    RateLimited,
    /// No run has this id. The engine hands out ids of runs that it then never creates, so this is also what waiting
    /// for such a run ends with.
    RunNotFound,
    /// No workflow has this name.
    WorkflowNotFound,
    /// Something else that was named does not exist.
    NotFound,
    /// Something with this key exists already: a run with the same idempotency key
    /// ([`Error::existing_run`](crate::Error::existing_run)), a cron with the same name and expression.
    AlreadyExists,
    /// The server refused the request as it is: trying again is of no use.
    Rejected,
    /// The server does not know this call.
    Unimplemented,
    /// The server failed, or answered what it should not.
    Server,
    /// The run ended otherwise than with an output; see [`Error::outcome`](crate::Error::outcome). Only from
    /// [`RunHandle::result`](crate::RunHandle::result).
    RunFailed,
    /// The run is in a state in which this cannot be done to it; see [`Error::run_status`](crate::Error::run_status).
    RunState,
    /// This side was shut down.
    Closed,
}

/// What the server answered, in its own terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// A gRPC status code, by its number (5 is `NOT_FOUND`).
    Grpc(i32),
    /// An HTTP status.
    Http(u16),
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            text: text.into(),
            never_reached_server: false,
            transient: false,
            rest_unreached: false,
            retry_after: None,
            answer: None,
            about: None,
            source: None,
        }))
    }

    /// A refusal before anything was sent.
    pub(crate) fn invalid(field: &str, problem: impl fmt::Display) -> Self {
        Self::new(ErrorKind::InvalidInput, format!("invalid {field}: {problem}")).unsent()
    }

    pub(crate) fn closed(what: &str) -> Self {
        Self::new(ErrorKind::Closed, format!("{what} is shut down"))
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    pub(crate) fn with_answer(mut self, answer: Answer) -> Self {
        self.0.answer = Some(answer);
        self
    }

    pub(crate) fn with_retry_after(mut self, delay: Option<Duration>) -> Self {
        self.0.retry_after = delay;
        self
    }

    pub(crate) fn with_about<T: Any + Send + Sync>(mut self, about: T) -> Self {
        self.0.about = Some(Arc::new(about));
        self
    }

    pub(crate) fn about<T: Any>(&self) -> Option<&T> {
        self.0.about.as_deref()?.downcast_ref()
    }

    /// Says where, before the rest of the text.
    pub(crate) fn within(mut self, place: &str) -> Self {
        self.0.text = format!("{place}: {}", self.0.text);
        self
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Marks that the call cannot have had an effect.
    pub(crate) fn unsent(mut self) -> Self {
        self.0.never_reached_server = true;
        self
    }

    /// Marks that this is about a look after something was done: what was done may have had its effect.
    pub(crate) fn after_the_act(mut self) -> Self {
        self.0.never_reached_server = false;
        self
    }

    pub(crate) fn transient(mut self) -> Self {
        self.0.transient = true;
        self
    }

    /// Marks that another try is of no use.
    pub(crate) fn permanent(mut self) -> Self {
        self.0.transient = false;
        self
    }

    /// Marks that the REST API could not be reached, and never has been.
    pub(crate) fn rest_unreached(mut self) -> Self {
        self.0.rest_unreached = true;
        self
    }

    /// Whether the REST API could not be reached, and never has been: some services reach only gRPC.
    pub(crate) fn is_rest_unreached(&self) -> bool {
        self.0.rest_unreached
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the server does not want to be asked again, though it may seem to be worth it.
    pub(crate) fn forbids_retries(&self) -> bool {
        self.0.retry_after == Some(Duration::MAX)
    }

    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may well succeed later: no connection, a deadline, a server that asks for fewer calls.
    ///
    /// What to do: the crate has already tried again where that was safe. Try again after a pause, and for calls that
    /// start something, ask [`never_reached_server`](Self::never_reached_server) first.
    pub fn is_transient(&self) -> bool {
        self.0.transient
    }

    /// Whether it is certain that the call had no effect on the server.
    ///
    /// What to do: if this is `false` and the call starts something, it **may have happened**; look for it (for a run:
    /// by a metadata tag of your own) before you call again.
    pub fn never_reached_server(&self) -> bool {
        self.0.never_reached_server
    }

    /// Whether a deadline passed. What was asked for may or may not have happened.
    pub fn is_timeout(&self) -> bool {
        self.0.kind == ErrorKind::Timeout
    }

    /// Whether something that was named does not exist: a run, a workflow, or anything else.
    pub fn is_not_found(&self) -> bool {
        matches!(self.0.kind, ErrorKind::NotFound | ErrorKind::RunNotFound | ErrorKind::WorkflowNotFound)
    }

    /// The status that the server answered with, if it answered.
    pub fn answer(&self) -> Option<Answer> {
        self.0.answer
    }
}

/// For who lets `main` return it or unwraps it: the kind, the text, its causes, and what is known of the call. With `{:#?}` as
/// a struct.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            write!(f, "{:?}: {self}", self.0.kind)?;
            let causes = std::iter::successors(self.source(), |&cause| cause.source());
            causes
                .map(ToString::to_string)
                .filter(|cause| !self.0.text.contains(cause))
                .try_for_each(|cause| write!(f, ": {cause}"))?;
            return match (self.0.answer, self.0.never_reached_server) {
                (Some(answer), true) => write!(f, " [{answer:?}, nothing was done]"),
                (Some(answer), false) => write!(f, " [{answer:?}]"),
                (None, true) => f.write_str(" [nothing was done]"),
                (None, false) => Ok(()),
            };
        }
        let mut shown = f.debug_struct("Error");
        shown.field("kind", &self.0.kind).field("text", &self.0.text);
        if let Some(answer) = &self.0.answer {
            shown.field("answer", answer);
        }
        if self.0.never_reached_server {
            shown.field("never_reached_server", &true);
        }
        if let Some(source) = &self.0.source {
            shown.field("source", source);
        }
        shown.finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
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
        let error = Error::new(ErrorKind::Decode, "cannot read the answer").with_source("bad byte");
        assert_eq!(error.to_string(), "cannot read the answer");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("bad byte"));
        let copy = error.clone();
        assert_eq!(copy.source().map(ToString::to_string).as_deref(), Some("bad byte"));
        assert_eq!(format!("{copy:?}"), "Decode: cannot read the answer: bad byte");
        assert!(format!("{copy:#?}").starts_with("Error {"));
        let same = Error::new(ErrorKind::Config, "1 problem").with_source("1 problem");
        assert_eq!(format!("{same:?}"), "Config: 1 problem", "a cause with the same text is shown once");
    }

    #[test]
    fn a_refusal_names_the_field_and_was_never_sent() {
        let error = Error::invalid("priority", "found 9, accepted 1 to 3");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "invalid priority: found 9, accepted 1 to 3");
        assert!(error.never_reached_server());
        assert!(format!("{error:?}").ends_with("accepted 1 to 3 [nothing was done]"));
    }
}
