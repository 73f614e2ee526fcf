//! Removing the results of attempts that the engine shows as ended.

use std::collections::{BTreeMap, btree_map};

use super::{Entry, Outbox, Place, Resolution};
use crate::rpc::convert::ReportKind;
use crate::worker::key::Key;

/// The end of an attempt whose report is in flight, as the engine shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShownEnd {
    /// The engine has ended the attempt.
    Other,
    /// An end of this kind, which the worker has reported.
    Reported(ReportKind),
}

impl ShownEnd {
    pub(super) fn resolution(self, entry: &Entry) -> Resolution {
        if self == Self::Reported(entry.report.kind) { Resolution::Accepted } else { Resolution::Withdrawn }
    }
}

/// What has happened to the result of an attempt that the engine shows as ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Confirmed {
    /// It is accepted, and was removed.
    Removed,
    /// It is in flight, and counts as accepted also if the call fails.
    InFlight,
    /// There is no such result.
    No,
}

impl Outbox {
    /// Removes the result of an attempt that the engine has ended. Returns `false` if it is in flight, or not here: if the call fails, it is
    /// resolved as withdrawn.
    pub(in crate::worker) fn withdraw(&mut self, key: Key) -> bool {
        !self.ended_in_flight(key) && self.remove_if(key, |entry| !entry.is_recovered)
    }

    /// The same for the result of an attempt of an earlier process. An attempt of this one can have the same key.
    pub(in crate::worker) fn withdraw_recovered(&mut self, key: Key) -> bool {
        !self.ended_in_flight(key) && self.remove_if(key, |entry| entry.is_recovered)
    }

    /// Removes the result of an attempt that the engine shows with an end of this kind, if it is the worker's own: the response to its report
    /// was lost, or is on the way.
    pub(in crate::worker) fn confirm(&mut self, key: Key, kind: ReportKind) -> Confirmed {
        if self.note_in_flight(key, ShownEnd::Reported(kind)) {
            return Confirmed::InFlight;
        }
        if self.remove_if(key, |entry| entry.report.kind == kind) { Confirmed::Removed } else { Confirmed::No }
    }

    /// The engine shows that an attempt has ended, and not how. Returns whether its result is in flight: then the response to the call counts,
    /// and if there is none, it is resolved as withdrawn.
    pub(in crate::worker) fn ended_in_flight(&mut self, key: Key) -> bool {
        self.note_in_flight(key, ShownEnd::Other)
    }

    /// Notes what the engine shows of an attempt whose result is in flight. Returns whether it is.
    fn note_in_flight(&mut self, key: Key, shown: ShownEnd) -> bool {
        let is_in_flight = matches!(self.places.get(&key), Some(Place::Away));
        if is_in_flight {
            self.shown_ends.insert(key, shown);
        }
        is_in_flight
    }

    /// Removes the result of an attempt if it is the one that is meant. Returns `false` if it is another one, in flight, or not here.
    fn remove_if(&mut self, key: Key, is_meant: impl FnOnce(&Entry) -> bool) -> bool {
        let entry = match self.places.get(&key).copied() {
            Some(Place::Unsaved(number)) => take_if(&mut self.unsaved, number, is_meant),
            Some(Place::Unchecked(number)) => take_if(&mut self.unchecked, number, is_meant),
            Some(Place::Held) => self.starting.get_mut(&key).and_then(|end| end.take_if(|entry| is_meant(entry))),
            Some(Place::Ready(lane, number)) => {
                self.ready.get_mut(&lane).and_then(|queue| take_if(queue, number, is_meant))
            }
            Some(Place::Delayed(at, number)) => take_if(&mut self.delayed, (at, number), is_meant),
            Some(Place::Away) | None => None,
        };
        if let Some(entry) = &entry {
            self.forget(entry, true);
        }
        entry.is_some()
    }
}

fn take_if<K: Ord>(entries: &mut BTreeMap<K, Entry>, at: K, is_meant: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
    match entries.entry(at) {
        btree_map::Entry::Occupied(found) if is_meant(found.get()) => Some(found.remove()),
        _ => None,
    }
}
