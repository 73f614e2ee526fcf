//! What a gRPC status means.

use std::error::Error as StdError;
use std::time::Duration;

use http::HeaderMap;
use tonic::{Code, Status};

use super::connect;
use crate::error::{Answer, Error, ErrorKind};

/// A trailer of gRPC's, and a header of the embedded engine's.
pub(crate) const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Turns a status into an error about `call`. The status stays as its cause where it has more to say.
pub(crate) fn from_status(call: &str, status: Status) -> Error {
    let never_left = connect::never_left(&status);
    let kind = kind(&status);
    let text = match (never_left, status.message()) {
        (Some(connecting), _) => format!("{call}: {connecting}"),
        (None, "") => format!("{call} was answered with {:?}", status.code()),
        (None, message) => format!("{call} failed: {message}"),
    };
    let mut error = Error::new(kind, text).with_retry_after(pushback(status.metadata().as_ref()));
    if never_left.is_some() {
        error = error.unsent();
    } else {
        error = error.with_answer(Answer::Grpc(i32::from(status.code())));
    }
    if matches!(kind, ErrorKind::Unavailable | ErrorKind::RateLimited | ErrorKind::Timeout)
        && !connect::is_hopeless(&status)
        && !error.forbids_retries()
    {
        error = error.transient();
    }
    // A refusal is an answer: nothing was done.
    if matches!(
        kind,
        ErrorKind::Rejected
            | ErrorKind::TooLarge
            | ErrorKind::Unauthenticated
            | ErrorKind::Unimplemented
            | ErrorKind::RateLimited
    ) && status.code() != Code::OutOfRange
    {
        error = error.unsent();
    }
    if status.source().is_some() || !status.details().is_empty() { error.with_source(status) } else { error }
}

fn kind(status: &Status) -> ErrorKind {
    match status.code() {
        // This side's own limit on what it receives.
        Code::OutOfRange if status.message().contains("message length too large") => ErrorKind::TooLarge,
        Code::Unauthenticated | Code::PermissionDenied => ErrorKind::Unauthenticated,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => ErrorKind::Rejected,
        Code::Unimplemented => ErrorKind::Unimplemented,
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::Unavailable | Code::Aborted | Code::Cancelled => ErrorKind::Unavailable,
        // Two meanings share a code: «too many calls» may be tried again, «too big» may not.
        Code::ResourceExhausted if status.message().contains("larger than max") => ErrorKind::TooLarge,
        Code::ResourceExhausted => ErrorKind::RateLimited,
        // Streams that break on the way.
        Code::Internal | Code::Unknown if broken_connection(status) => ErrorKind::Unavailable,
        _ => ErrorKind::Server,
    }
}

/// Whether the status stands for a connection that broke, rather than for an answer.
fn broken_connection(status: &Status) -> bool {
    status.source().is_some()
        && chain(status).any(|cause| {
            cause.is::<tonic::transport::Error>() || cause.is::<std::io::Error>() || cause.is::<tonic::TimeoutExpired>()
        })
        || status.message().starts_with("h2 protocol error")
}

/// How long the server asks to be left alone. What is negative or no number means: for ever.
pub(super) fn pushback(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let seconds = || text("retry-after")?.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()));
    match text(PUSHBACK) {
        Some(millis) => {
            Some(millis.parse::<u32>().map_or(Duration::MAX, |millis| Duration::from_millis(millis.into())))
        }
        None => seconds(),
    }
}

fn chain(status: &Status) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(status.source(), |&cause| cause.source())
}

#[cfg(test)]
mod tests {
    use super::super::connect::ConnectError;
    use super::*;

    const CODES: [(Code, ErrorKind, bool); 16] = [
        (Code::Cancelled, ErrorKind::Unavailable, true),
        (Code::Unknown, ErrorKind::Server, false),
        (Code::InvalidArgument, ErrorKind::Rejected, false),
        (Code::DeadlineExceeded, ErrorKind::Timeout, true),
        (Code::NotFound, ErrorKind::NotFound, false),
        (Code::AlreadyExists, ErrorKind::AlreadyExists, false),
        (Code::PermissionDenied, ErrorKind::Unauthenticated, false),
        (Code::ResourceExhausted, ErrorKind::RateLimited, true),
        (Code::FailedPrecondition, ErrorKind::Rejected, false),
        (Code::Aborted, ErrorKind::Unavailable, true),
        (Code::OutOfRange, ErrorKind::Rejected, false),
        (Code::Unimplemented, ErrorKind::Unimplemented, false),
        (Code::Internal, ErrorKind::Server, false),
        (Code::Unavailable, ErrorKind::Unavailable, true),
        (Code::DataLoss, ErrorKind::Server, false),
        (Code::Unauthenticated, ErrorKind::Unauthenticated, false),
    ];

    #[test]
    fn every_code_has_a_kind() {
        for (code, kind, transient) in CODES {
            let error = from_status("Trigger", Status::new(code, "text"));
            assert_eq!((error.kind(), error.is_transient()), (kind, transient), "{code:?}");
            assert_eq!(error.answer(), Some(Answer::Grpc(code as i32)));
            assert_eq!(error.to_string(), "Trigger failed: text");
        }
    }

    #[test]
    fn too_big_is_not_too_many() {
        let big = "grpc: received message larger than max (4194335 vs. 4194304)";
        let error = from_status("Trigger", Status::resource_exhausted(big));
        assert_eq!((error.kind(), error.is_transient()), (ErrorKind::TooLarge, false));
    }

    #[test]
    fn an_answer_that_this_side_refuses_was_given_all_the_same() {
        let status =
            Status::out_of_range("Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes");
        let error = from_status("Trigger", status);
        assert_eq!((error.kind(), error.never_reached_server()), (ErrorKind::TooLarge, false));
    }

    #[test]
    fn the_servers_delay_is_read() {
        let mut status = Status::unavailable("");
        status.metadata_mut().insert("grpc-retry-pushback-ms", "1500".parse().unwrap());
        assert_eq!(from_status("Push", status.clone()).retry_after(), Some(Duration::from_millis(1500)));
        status.metadata_mut().insert("grpc-retry-pushback-ms", "-1".parse().unwrap());
        let error = from_status("Push", status);
        assert_eq!((error.retry_after(), error.is_transient()), (Some(Duration::MAX), false), "do not try again");
    }

    #[test]
    fn a_call_that_never_left_says_so() {
        let status =
            Status::from_error(Box::new(ConnectError::new("dial", std::io::ErrorKind::ConnectionRefused.into())));
        assert!(from_status("Trigger", status).never_reached_server());
        assert!(!from_status("Trigger", Status::unavailable("gone")).never_reached_server());
    }
}
