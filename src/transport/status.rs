//! Converts gRPC statuses to errors.

use std::error::Error as StdError;

use tonic::{Code, Status};

use super::failure::{find, no_response};
use super::proxy_response::ProxyResponse;
use super::retry_after::retry_after;
use super::status_source::SentByServer;
use crate::error::{Error, ErrorKind, ServerStatus};

/// Converts a status to an error of `call`. A status with details is the source of the error.
pub(crate) fn from_status(call: &str, status: Status) -> Error {
    if let Some(response) = find::<ProxyResponse>(&status) {
        return response.error(call);
    }
    let retry_after = retry_after(status.metadata().as_ref());
    let error = match status.source() {
        Some(source) if source.is::<SentByServer>() => from_server(call, status),
        // A status that tonic created from another error has that error as its source.
        Some(_) => no_response(call, status.into()),
        None => unreadable(call, &status),
    };
    error.with_retry_after(retry_after)
}

/// A status that the server sent.
fn from_server(call: &str, mut status: Status) -> Error {
    let kind = kind(&status);
    let text = match status.message() {
        "" => format!("{call} failed with status {:?}", status.code()),
        message => format!("{call} failed: {message}"),
    };
    let mut error = Error::new(kind, text).with_status(ServerStatus::Grpc(i32::from(status.code())));
    if matches!(kind, ErrorKind::Unavailable | ErrorKind::RateLimited | ErrorKind::Timeout) {
        error = error.transient();
    }
    // The server does not process a rejected call.
    let is_rejection = matches!(
        kind,
        ErrorKind::Rejected
            | ErrorKind::TooLarge
            | ErrorKind::Unauthenticated
            | ErrorKind::Unimplemented
            | ErrorKind::RateLimited
    );
    if is_rejection && !is_response_too_large(&status) {
        error = error.without_side_effects();
    }
    if status.details().is_empty() {
        return error;
    }
    let (code, message, details) = (status.code(), status.message().to_owned(), status.details().to_vec());
    let metadata = std::mem::take(status.metadata_mut());
    error.with_source(Status::with_details_and_metadata(code, message, details.into(), metadata))
}

/// A response was received, but cannot be decoded. The server has processed the call.
fn unreadable(call: &str, status: &Status) -> Error {
    let kind = match status.code() {
        // The limits of this client on received messages, before and after decompression.
        Code::OutOfRange | Code::ResourceExhausted => ErrorKind::TooLarge,
        _ => ErrorKind::Decode,
    };
    Error::new(kind, format!("failed to decode the response of {call}: {}", status.message()))
}

fn kind(status: &Status) -> ErrorKind {
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => ErrorKind::Unauthenticated,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => ErrorKind::Rejected,
        Code::Unimplemented => ErrorKind::Unimplemented,
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::Unavailable | Code::Aborted | Code::Cancelled => ErrorKind::Unavailable,
        // The code has two meanings: a rate limit, and a message that is too large.
        Code::ResourceExhausted if status.message().contains("larger than max") => ErrorKind::TooLarge,
        Code::ResourceExhausted => ErrorKind::RateLimited,
        _ => ErrorKind::Server,
    }
}

/// Whether the server processed the call, but its response was too large to send.
fn is_response_too_large(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted && status.message().contains("trying to send message larger than max")
}

/// Marks a status as sent by the server, for tests.
#[cfg(test)]
pub(crate) fn sent_by_server(mut status: Status) -> Status {
    status.set_source(std::sync::Arc::new(SentByServer));
    status
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::connect_error::ConnectError;
    use super::*;
    use crate::error::RetryAfter;

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
            let error = from_status("Trigger", sent_by_server(Status::new(code, "text")));
            assert_eq!((error.kind(), error.is_transient()), (kind, transient), "{code:?}");
            assert_eq!(error.status(), Some(ServerStatus::Grpc(code as i32)));
            assert_eq!(error.to_string(), "Trigger failed: text");
        }
    }

    #[test]
    fn messages_that_are_too_large_are_not_rate_limited() {
        let big = "grpc: received message larger than max (4194335 vs. 4194304)";
        let error = from_status("Trigger", sent_by_server(Status::resource_exhausted(big)));
        assert_eq!((error.kind(), error.is_transient()), (ErrorKind::TooLarge, false));
        assert!(error.has_no_side_effects());
        let response = "grpc: trying to send message larger than max (4194361 vs. 4194304)";
        let error = from_status("Trigger", sent_by_server(Status::resource_exhausted(response)));
        assert_eq!(
            (error.kind(), error.has_no_side_effects()),
            (ErrorKind::TooLarge, false),
            "the server processed the call"
        );
    }

    #[test]
    fn undecodable_responses_may_have_side_effects() {
        for (status, kind) in [
            (Status::out_of_range("Error, decoded message length too large"), ErrorKind::TooLarge),
            (Status::resource_exhausted("Error decompressing: size limit exceeded"), ErrorKind::TooLarge),
            (Status::unimplemented("Content is compressed with `br` which isn't supported"), ErrorKind::Decode),
            (Status::internal("invalid wire type"), ErrorKind::Decode),
            (Status::unknown("anything else"), ErrorKind::Decode),
        ] {
            let error = from_status("Trigger", status);
            let properties = (error.kind(), error.has_no_side_effects(), error.is_transient(), error.status());
            assert_eq!(properties, (kind, false, false, None), "{error}");
        }
    }

    #[test]
    fn the_servers_delay_is_read() {
        let mut status = Status::unavailable("");
        status.metadata_mut().insert("grpc-retry-pushback-ms", "1500".parse().unwrap());
        assert_eq!(from_status("Push", sent_by_server(status.clone())).pushback(), Some(Duration::from_millis(1500)));
        status.metadata_mut().insert("grpc-retry-pushback-ms", "-1".parse().unwrap());
        let error = from_status("Push", sent_by_server(status));
        assert_eq!((error.retry_after(), error.is_transient()), (Some(RetryAfter::Never), false));
    }

    #[test]
    fn calls_that_were_not_sent_have_no_side_effects() {
        let refused: std::io::Error = std::io::ErrorKind::ConnectionRefused.into();
        let status = Status::from_error(Box::new(ConnectError::failed("failed to connect to a:1", refused)));
        let error = from_status("Trigger", status);
        assert!(error.has_no_side_effects() && error.is_transient());
        assert_eq!(error.to_string(), "Trigger: failed to connect to a:1");
        assert!(!from_status("Trigger", sent_by_server(Status::unavailable("gone"))).has_no_side_effects());
    }

    #[test]
    fn details_are_kept_without_the_internal_source() {
        let status = Status::with_details(Code::AlreadyExists, "taken", vec![1, 2].into());
        let error = from_status("Trigger", sent_by_server(status));
        let cause = StdError::source(&error).unwrap().downcast_ref::<Status>().unwrap();
        assert_eq!((cause.details(), cause.source().is_none()), (&[1, 2][..], true));
        assert!(StdError::source(&from_status("Trigger", sent_by_server(Status::internal("x")))).is_none());
    }
}
