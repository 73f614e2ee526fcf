//! Calls: which reports are sent in one, and what becomes of it.

use std::collections::HashSet;
use std::collections::btree_map::OccupiedEntry;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Entry, Queue};
use crate::error::{Error, ErrorKind};
use crate::model::WorkerId;
use crate::rpc::Rpc;

/// The maximum number of reports in one call. A real engine accepted 5000, but a call that fails is sent again report by report.
pub(super) const MAX_BATCH: usize = 200;
/// The maximum size of the payloads in one call, unless it has a single report.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// The engine stores one time for all reports of a call: that of the call if they are starts or outputs, and that of its receipt if they are
/// failures or cancellations.
const MAX_TIME_DIFFERENCE: TimeDelta = TimeDelta::milliseconds(100);

/// Reports to be sent in one call. All have the same kind and the same worker.
#[derive(Debug)]
pub(in crate::worker) struct Call {
    pub(in crate::worker) number: u64,
    pub(in crate::worker) entries: Vec<Entry>,
    /// The time that the engine stores for all of them: that of the last one, so that no attempt starts before it is assigned.
    pub(super) at: DateTime<Utc>,
}

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
        entries => {
            let reports = entries.iter_mut().map(|entry| &mut entry.report).collect();
            rpc.dispatcher.report_batch(reports, call.at).await
        }
    };
    let result = sent.map_or_else(|error| CallResult::of(error, call.entries.len() > 1), |()| CallResult::Accepted);
    Sent { call, result }
}

impl CallResult {
    fn of(error: Error, is_batch: bool) -> Self {
        match error.kind() {
            // Also a proxy that does not know the call.
            ErrorKind::Unimplemented if is_batch => Self::NoBatches,
            _ if error.is_transient() => Self::Unavailable(error),
            ErrorKind::TooLarge | ErrorKind::Closed => Self::Rejected(error),
            ErrorKind::Rejected if is_final(&error) => Self::Rejected(error),
            _ if error.is_not_found() => Self::Rejected(error),
            ErrorKind::Server | ErrorKind::Rejected => Self::InternalError(error),
            // They are not about the report: a proxy may reject a token or a path for a while. If the worker cannot continue, its streams
            // and heartbeats find out.
            _ => Self::Unavailable(error),
        }
    }
}

/// Whether the engine will reject a report whenever it is sent. Its status is the same if its database fails as if it does not know the
/// task, and only the text distinguishes them. A proxy rejects calls only for a while.
pub(super) fn is_final(error: &Error) -> bool {
    const PREFIX: &str = "invalid task external run id ";
    let text = error.to_string();
    let Some((_, rest)) = text.split_once(PREFIX).filter(|_| error.grpc_code().is_some()) else { return false };
    // Without a cause, the engine does not know the kind of the report.
    let cause = rest.split_once(": ").map(|(_, cause)| cause);
    cause.is_none_or(|cause| cause.ends_with("no rows in result set") || cause.starts_with("invalid UUID"))
}

/// Takes the reports of the next call from a queue. `can_share`: whether there can be several.
pub(super) fn collect(queue: &mut Queue, can_share: bool) -> Vec<Entry> {
    let Some((_, first)) = queue.pop_first() else { return Vec::new() };
    let (worker, at, mut bytes) = (first.report.worker, first.report.at, first.report.size());
    if !can_share || queue.is_empty() {
        return vec![first];
    }
    let mut keys = HashSet::from([first.key.task]);
    let mut entries = vec![first];
    while entries.len() < MAX_BATCH {
        let fits = |entry: &Entry| {
            entry.report.worker == worker
                && (entry.report.at - at).abs() <= MAX_TIME_DIFFERENCE
                && bytes + entry.report.size() <= MAX_BATCH_BYTES
                // The engine keeps one report for each task of a call.
                && !keys.contains(&entry.key.task)
        };
        let Some(entry) = queue.first_entry().filter(|entry| fits(entry.get())).map(OccupiedEntry::remove) else {
            break;
        };
        bytes += entry.report.size();
        keys.insert(entry.key.task);
        entries.push(entry);
    }
    entries
}

/// The worker of the reports of a call: all have the same.
pub(super) fn worker_of(entries: &[Entry]) -> Option<WorkerId> {
    entries.first().map(|entry| entry.report.worker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ServerStatus;

    const GRPC_INVALID: ServerStatus = ServerStatus::Grpc(3);

    fn result(kind: ErrorKind, status: ServerStatus, text: &str, is_batch: bool) -> &'static str {
        let error = Error::new(kind, format!("SendStepActionEvent failed: {text}")).with_status(status);
        match CallResult::of(error, is_batch) {
            CallResult::Accepted => "accepted",
            CallResult::Unavailable(_) => "unavailable",
            CallResult::NoBatches => "no batches",
            CallResult::Rejected(_) => "rejected",
            CallResult::InternalError(_) => "internal error",
        }
    }

    #[test]
    fn only_what_the_engine_says_about_a_report_is_final() {
        let id = "invalid task external run id 00000000-0000-4000-8001-000000000001";
        for (text, expected) in [
            (format!("{id}: no rows in result set"), "rejected"),
            (format!("{id}: could not get task: no rows in result set"), "rejected"),
            (format!("{id}: invalid UUID length: 2"), "rejected"),
            (format!("{id}: invalid UUID format"), "rejected"),
            (id.to_owned(), "rejected"),
            ("rejected by a gateway".to_owned(), "internal error"),
            (format!("{id}: failed to connect to `host=postgres`: dial error"), "internal error"),
            (format!("{id}: timeout: context deadline exceeded"), "internal error"),
            (format!("{id}: conn closed"), "internal error"),
        ] {
            assert_eq!(result(ErrorKind::Rejected, GRPC_INVALID, &text, false), expected, "{text}");
        }
    }

    #[test]
    fn a_proxy_neither_rejects_a_report_for_good_nor_disables_batches() {
        for status in [400, 405, 421, 426] {
            let found = result(ErrorKind::Rejected, ServerStatus::Http(status), "received HTTP 4xx", false);
            assert_eq!(found, "internal error", "{status}");
        }
        assert_eq!(result(ErrorKind::TooLarge, ServerStatus::Http(413), "received HTTP 413", false), "rejected");
        for (status, is_batch, expected) in [
            (ServerStatus::Http(404), true, "no batches"),
            (ServerStatus::Http(501), true, "no batches"),
            (ServerStatus::Grpc(12), true, "no batches"),
            (ServerStatus::Grpc(12), false, "unavailable"),
        ] {
            assert_eq!(result(ErrorKind::Unimplemented, status, "no", is_batch), expected, "{status:?}");
        }
    }
}
