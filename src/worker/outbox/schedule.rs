//! When reports are sent, and which of them next.

use std::time::Duration;

use tokio::time::Instant;

use super::call::{Call, collect};
use super::{Entry, Outbox, Place, Queue};
use crate::rpc::convert::ReportKind;

/// The number of calls of one kind that are in flight at the same time, so that a report rarely waits for another.
const MAX_CALLS: usize = 2;
/// Calls that take longer than this do not keep others from being sent.
pub(super) const SLOW_CALL: Duration = Duration::from_millis(250);
/// The maximum number of calls in flight if some are slow, or have one report each.
pub(super) const MAX_SLOW_CALLS: usize = 64;
/// The maximum number of calls in flight with results of an earlier process. The others do not wait for them.
const MAX_RECOVERED_CALLS: usize = 16;

/// Reports of one kind that may share calls, or that may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) kind: ReportKind,
    pub(super) is_alone: bool,
    pub(super) is_recovered: bool,
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) lane: Lane,
    pub(super) since: Instant,
}

impl Entry {
    pub(super) fn lane(&self) -> Lane {
        // The engine may not know the task of an earlier process any longer, which it does not say about one of several reports.
        let is_alone = self.is_alone || self.is_recovered;
        Lane { kind: self.report.kind, is_alone, is_recovered: self.is_recovered }
    }
}

impl Outbox {
    /// Whether results may be sent by the next call.
    pub(in crate::worker) fn has_ready_results(&self) -> bool {
        let is_ready = |(lane, queue): (&Lane, &Queue)| lane.kind != ReportKind::Started && !queue.is_empty();
        !self.delayed.is_empty() || self.ready.iter().any(is_ready)
    }

    pub(in crate::worker) fn is_full(&self) -> bool {
        let (count, bytes) = self.recovered;
        self.count.saturating_sub(count) >= self.limits.reports || self.bytes.saturating_sub(bytes) >= self.limits.bytes
    }

    /// The next call to be made now.
    pub(in crate::worker) fn next_call(&mut self, now: Instant) -> Option<Call> {
        while let Some(delayed) = self.delayed.first_entry().filter(|entry| entry.key().0 <= now) {
            let entry = delayed.remove();
            self.push(entry);
        }
        if let Some(outage) = self.outage {
            // One call finds out whether the engine can be reached again.
            if outage.until > now || !self.in_flight.is_empty() {
                return None;
            }
        }
        let first = |(lane, queue): (&Lane, &Queue)| Some((*queue.first_key_value()?.0, *lane));
        let may_send = |(_, lane): &(u64, Lane)| self.may_send(*lane, now);
        let (_, lane) = self.ready.iter().filter_map(first).filter(may_send).min()?;
        let can_share = !lane.is_alone && self.has_batches(now);
        let entries = collect(self.ready.get_mut(&lane)?, can_share);
        self.calls += 1;
        if lane.kind != ReportKind::Started {
            self.places.extend(entries.iter().map(|entry| (entry.key, Place::Away)));
        }
        self.in_flight.insert(self.calls, InFlight { lane, since: now });
        let at = entries.iter().map(|entry| entry.report.at).max().unwrap_or_default();
        Some(Call { number: self.calls, entries, at })
    }

    fn may_send(&self, lane: Lane, now: Instant) -> bool {
        if self.in_flight.len() >= MAX_SLOW_CALLS {
            return false;
        }
        if lane.is_recovered {
            return self.in_flight.values().filter(|call| call.lane.is_recovered).count() < MAX_RECOVERED_CALLS;
        }
        if lane.is_alone {
            return true;
        }
        let is_recent = |call: &&InFlight| call.lane == lane && now < call.since + SLOW_CALL;
        !self.has_batches(now) || self.in_flight.values().filter(is_recent).count() < MAX_CALLS
    }

    /// Whether the engine accepts several reports in one call, as far as is known, and may be sent them.
    fn has_batches(&self, now: Instant) -> bool {
        self.may_batch && self.no_batches_until.is_none_or(|until| until <= now)
    }

    /// When [`next_call`](Self::next_call) may return a call again, without anything having happened. It has returned `None` now.
    pub(in crate::worker) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let delayed = self.delayed.first_key_value().map(|((at, _), _)| *at);
        let waiting = |lane| self.ready.get(lane).is_some_and(|queue| !queue.is_empty());
        let ready = match self.outage {
            _ if self.ready.values().all(Queue::is_empty) => None,
            Some(outage) => Some(outage.until).filter(|_| self.in_flight.is_empty()),
            None if self.in_flight.len() >= MAX_SLOW_CALLS => None,
            None => {
                let calls = self.in_flight.values().filter(|call| !call.lane.is_alone && waiting(&call.lane));
                calls.map(|call| call.since + SLOW_CALL).filter(|at| *at > now).min()
            }
        };
        delayed.into_iter().chain(ready).min()
    }
}
