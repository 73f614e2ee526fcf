//! Errors of calls that failed without a response.

use std::error::Error as StdError;

use crate::error::{BoxError, Error, ErrorKind};

use super::connect_error::{ConnectError, causes};
use super::status_source::Interrupted;

/// Converts the failure of a call without a response to an error.
///
/// The call was not processed if there was no connection, if it was not sent, or if the server refused the stream: HTTP/2 has one
/// code for a stream that was not processed. With all other codes, and if the connection is lost, the server may have processed
/// the call.
pub(super) fn no_response(call: &str, error: BoxError) -> Error {
    let lost = |what: &str| Error::new(ErrorKind::Unavailable, format!("{call}: {what}"));
    let cause: &(dyn StdError + 'static) = error.as_ref();
    if let Some(connecting) = find::<ConnectError>(cause) {
        let lost = Error::new(connecting.kind(), format!("{call}: {connecting}"));
        let lost = if connecting.may_be_sent() { lost } else { lost.without_side_effects() };
        let lost = if connecting.is_transient() { lost.transient() } else { lost };
        return lost.with_source(error);
    }
    let lost = if find::<tower::buffer::error::Closed>(cause).is_some() {
        // The task that owns the channel has ended without receiving this call.
        lost("the Tokio runtime that the client was created on has shut down: create another client")
            .with_kind(ErrorKind::Closed)
            .without_side_effects()
    } else if find::<hyper::Error>(cause).is_some_and(hyper::Error::is_canceled) {
        lost("the connection was closed before the call was sent").without_side_effects().transient()
    } else if is_refused(cause) {
        lost("the server refused the stream without processing it").without_side_effects().transient()
    } else {
        lost("the connection was lost before the response was complete").transient()
    };
    lost.with_source(error)
}

/// Whether the server reset the stream with `REFUSED_STREAM` before it sent a response.
fn is_refused(error: &(dyn StdError + 'static)) -> bool {
    let is_reset =
        |reset: &h2::Error| reset.is_reset() && reset.is_remote() && reset.reason() == Some(h2::Reason::REFUSED_STREAM);
    find::<Interrupted>(error).is_none() && find::<h2::Error>(error).is_some_and(is_reset)
}

/// The first source of an error that is a `T`.
pub(super) fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}
