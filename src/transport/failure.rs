//! What is known when a call failed and no answer came.

use std::error::Error as StdError;

use crate::error::{BoxError, Error, ErrorKind};

use super::connect_error::{ConnectError, causes, is_hopeless};
use super::grpc_answer::Interrupted;

/// Turns the end of a call without an answer into an error about `call`.
///
/// Nothing was done if there was no connection, if the call was not handed to it, or if the server refused the stream:
/// HTTP/2 has a code that says that a stream was not processed, and only that one. All other codes, and all ends of the
/// connection, may come after the server has done what it was asked for.
pub(super) fn no_answer(call: &str, error: BoxError) -> Error {
    let lost = |what: &str| Error::new(ErrorKind::Unavailable, format!("{call}: {what}"));
    let cause: &(dyn StdError + 'static) = error.as_ref();
    if let Some(connecting) = find::<ConnectError>(cause) {
        let lost = Error::new(connecting.kind(), format!("{call}: {connecting}")).unsent();
        let lost = if connecting.is_transient() { lost.transient() } else { lost };
        return lost.with_source(error);
    }
    let lost = if find::<tower::buffer::error::Closed>(cause).is_some() {
        // The task that owns the channel is gone, and it took this call from nobody.
        lost("the Tokio runtime that the client was created on has shut down").with_kind(ErrorKind::Closed).unsent()
    } else if find::<hyper::Error>(cause).is_some_and(hyper::Error::is_canceled) {
        lost("the connection was closed before the call was sent").unsent().transient()
    } else if is_refused(cause) {
        lost("the server refused the stream without processing it").unsent().transient()
    } else if is_hopeless(cause) {
        lost("the connection was lost")
    } else {
        lost("the connection was lost before the response was complete").transient()
    };
    lost.with_source(error)
}

/// Whether the server reset the stream with `REFUSED_STREAM`, and before it answered anything.
fn is_refused(error: &(dyn StdError + 'static)) -> bool {
    let is_reset =
        |reset: &h2::Error| reset.is_reset() && reset.is_remote() && reset.reason() == Some(h2::Reason::REFUSED_STREAM);
    find::<Interrupted>(error).is_none() && find::<h2::Error>(error).is_some_and(is_reset)
}

/// The first of an error's causes that is a `T`.
pub(super) fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}
