//! Sends the reports of a call.

use super::Call;
use crate::error::{Error, ErrorKind};
use crate::rpc::Rpc;

/// The result of a call.
#[derive(Debug)]
pub(in crate::worker) struct Sent {
    pub(super) call: Call,
    pub(super) result: CallResult,
}

#[derive(Debug)]
pub(in crate::worker) enum CallResult {
    Accepted,
    /// The engine cannot be reached, or does not accept anything now.
    Unavailable(Error),
    /// The engine does not accept several reports in one call.
    NoBatches,
    /// The engine will never accept these reports.
    Rejected(Error),
    /// The engine may accept these reports later.
    InternalError(Error),
}

pub(in crate::worker) async fn send(rpc: Rpc, mut call: Call) -> Sent {
    let sent = match &mut call.entries[..] {
        [entry] => rpc.dispatcher.report(&entry.report).await,
        entries => rpc.dispatcher.report_batch(entries.iter_mut().map(|entry| &mut entry.report).collect()).await,
    };
    let result = sent.map_or_else(|error| CallResult::of(error, call.entries.len() > 1), |()| CallResult::Accepted);
    Sent { call, result }
}

impl CallResult {
    fn of(error: Error, is_batch: bool) -> Self {
        match error.kind() {
            ErrorKind::Unimplemented if is_batch => Self::NoBatches,
            _ if error.is_transient() => Self::Unavailable(error),
            ErrorKind::Rejected | ErrorKind::TooLarge | ErrorKind::Closed => Self::Rejected(error),
            _ if error.is_not_found() => Self::Rejected(error),
            ErrorKind::Server => Self::InternalError(error),
            // They are not about the report: a proxy may reject a token or a path for a while. If the worker cannot continue, its streams
            // and heartbeats find out.
            _ => Self::Unavailable(error),
        }
    }
}
