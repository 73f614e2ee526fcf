//! The kinds of errors, and their names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Error;

/// The kind of an [`Error`], for programs that handle errors; see [`Error::kind`].
///
/// The predicates of [`Error`], such as [`is_transient`](Error::is_transient), combine several kinds and describe what to do.
///
/// ```
/// use hatchet::{ErrorKind, RunId};
///
/// let error = "not an id".parse::<RunId>().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidInput);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration is invalid, the current thread has no suitable Tokio runtime, or a worker cannot use its outbox file or receive
    /// signals. For an invalid configuration, [`Error::config_error`](crate::Error::config_error) lists all problems.
    Config,
    /// The request is invalid, and was not sent. The message names the field and the limit.
    InvalidInput,
    /// A message or a payload exceeds a size limit of the client or the server, a stream has too many runs
    /// ([`TagWatch::max_runs`](crate::stream::TagWatch::max_runs)), or the client has too many subscriptions to run events for another
    /// stream of chunks ([`RunHandle::chunks`](crate::RunHandle::chunks)).
    TooLarge,
    /// A value cannot be serialized.
    Encode,
    /// A response or a payload cannot be deserialized.
    Decode,
    /// The server cannot be reached, or the connection was lost.
    Unavailable,
    /// The deadline has passed.
    Timeout,
    /// The token is missing, invalid or expired, belongs to another tenant, or lacks a permission.
    Unauthenticated,
    /// The server limits the rate of calls.
    RateLimited,
    /// The run does not exist. The server can return the id of a run that it never creates, for example for an unknown workflow.
    RunNotFound,
    /// The workflow does not exist.
    WorkflowNotFound,
    /// Another object does not exist, such as an event, a schedule, a cron or a parent's output.
    NotFound,
    /// An object already exists: a recorder, a run with the same idempotency key
    /// ([`Error::existing_run_id`](crate::Error::existing_run_id)), a cron with the same name and expression, or a workflow whose name
    /// differs only in case.
    AlreadyExists,
    /// The server rejects the request. A retry has the same result.
    Rejected,
    /// The server does not implement the call, or is too old for an option of a definition. The message names the required version.
    Unimplemented,
    /// The server has an internal error, or its response is invalid.
    Server,
    /// The run did not complete; see [`Error::outcome`](crate::Error::outcome). Only methods that return outputs return this kind, such as
    /// [`RunHandle::result`](crate::RunHandle::result) and [`RunBuilder::result`](crate::builder::RunBuilder::result).
    RunFailed,
    /// The status of the run does not allow the action; see [`Error::run_status`](crate::Error::run_status).
    RunState,
    /// The store of an archive cannot be read or written. The [`source`](std::error::Error::source) is the error of the store, if there is one.
    Storage,
    /// A file of an archive is damaged, or its manifest was written by a newer version of this crate. The message names the file, or the column
    /// whose value is invalid.
    Corrupt,
    /// The client, the worker or the runtime has been shut down.
    Closed,
}

impl ErrorKind {
    pub(super) const ALL: [Self; 21] = [
        Self::Config,
        Self::InvalidInput,
        Self::TooLarge,
        Self::Encode,
        Self::Decode,
        Self::Unavailable,
        Self::Timeout,
        Self::Unauthenticated,
        Self::RateLimited,
        Self::RunNotFound,
        Self::WorkflowNotFound,
        Self::NotFound,
        Self::AlreadyExists,
        Self::Rejected,
        Self::Unimplemented,
        Self::Server,
        Self::RunFailed,
        Self::RunState,
        Self::Storage,
        Self::Corrupt,
        Self::Closed,
    ];

    /// Returns the name in metrics and logs, such as `too_large`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::InvalidInput => "invalid_input",
            Self::TooLarge => "too_large",
            Self::Encode => "encode",
            Self::Decode => "decode",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Unauthenticated => "unauthenticated",
            Self::RateLimited => "rate_limited",
            Self::RunNotFound => "run_not_found",
            Self::WorkflowNotFound => "workflow_not_found",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Rejected => "rejected",
            Self::Unimplemented => "unimplemented",
            Self::Server => "server",
            Self::RunFailed => "run_failed",
            Self::RunState => "run_state",
            Self::Storage => "storage",
            Self::Corrupt => "corrupt",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ErrorKind {
    type Err = Error;

    /// Parses a name such as `too_large`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for any other string.
    fn from_str(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == name);
        known.ok_or_else(|| {
            Error::invalid("error kind", format_args!("expected a name such as \"too_large\", got {name:?}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_parsed_from_its_name() {
        for kind in ErrorKind::ALL {
            assert_eq!(kind.to_string().parse::<ErrorKind>().unwrap(), kind);
        }
        assert_eq!("Timeout".parse::<ErrorKind>().unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
