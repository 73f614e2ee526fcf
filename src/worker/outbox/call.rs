//! Sends the reports of a call.

use super::Call;
use crate::error::{Error, ErrorKind};
use crate::rpc::Rpc;

/// What has become of a call.
#[derive(Debug)]
pub(in crate::worker) struct Sent {
    pub(super) call: Call,
    pub(super) verdict: Verdict,
}

#[derive(Debug)]
pub(in crate::worker) enum Verdict {
    Accepted,
    /// The engine cannot be reached, or does not accept anything now.
    Unavailable(Error),
    /// The engine does not accept several reports in one call.
    NoBatches,
    /// The engine will never accept these reports.
    Refused(Error),
    /// The engine may accept these reports later.
    InternalError(Error),
}

pub(in crate::worker) async fn send(rpc: Rpc, mut call: Call) -> Sent {
    let sent = match &mut call.entries[..] {
        [entry] => rpc.dispatcher.report(&entry.report).await,
        entries => rpc.dispatcher.report_batch(entries.iter_mut().map(|entry| &mut entry.report).collect()).await,
    };
    let verdict = sent.map_or_else(|error| Verdict::of(error, call.entries.len() > 1), |()| Verdict::Accepted);
    Sent { call, verdict }
}

impl Verdict {
    fn of(error: Error, is_batch: bool) -> Self {
        match error.kind() {
            _ if error.forbids_retries() || error.is_not_found() => Self::Refused(error),
            // A token that was accepted before is accepted again, or refused for good.
            _ if error.is_transient() => Self::Unavailable(error),
            ErrorKind::Unimplemented if is_batch => Self::NoBatches,
            ErrorKind::Rejected
            | ErrorKind::TooLarge
            | ErrorKind::Unauthenticated
            | ErrorKind::Unimplemented
            | ErrorKind::Closed => Self::Refused(error),
            _ => Self::InternalError(error),
        }
    }
}
