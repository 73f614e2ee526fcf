//! Removing the results of attempts that the engine shows as ended.

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
        if matches!(self.places.get(&key), Some(Place::Away)) {
            self.shown_ends.insert(key, ShownEnd::Other);
        }
        self.remove(key)
    }

    /// Removes the result of an attempt that the engine shows with an end of this kind, if it is the worker's own: the response to its report
    /// was lost, or is on the way.
    pub(in crate::worker) fn confirm(&mut self, key: Key, kind: ReportKind) -> Confirmed {
        if matches!(self.places.get(&key), Some(Place::Away)) {
            self.shown_ends.insert(key, ShownEnd::Reported(kind));
            return Confirmed::InFlight;
        }
        if self.entry_of(key).is_some_and(|entry| entry.report.kind == kind) && self.remove(key) {
            return Confirmed::Removed;
        }
        Confirmed::No
    }

    /// The result of an attempt that is not in flight.
    fn entry_of(&self, key: Key) -> Option<&Entry> {
        match self.places.get(&key)? {
            Place::Unsaved(number) => self.unsaved.get(number),
            Place::Unchecked(number) => self.unchecked.get(number),
            Place::Held => self.starting.get(&key)?.as_ref(),
            Place::Ready(kind, number) => self.ready.get(kind)?.get(number),
            Place::Delayed(at, number) => self.delayed.get(&(*at, *number)),
            Place::Away => None,
        }
    }

    /// Removes the result of an attempt. Returns `false` if it is in flight, or not here.
    fn remove(&mut self, key: Key) -> bool {
        let entry = match self.places.get(&key).copied() {
            Some(Place::Unsaved(number)) => self.unsaved.remove(&number),
            Some(Place::Unchecked(number)) => self.unchecked.remove(&number),
            Some(Place::Held) => self.starting.get_mut(&key).and_then(Option::take),
            Some(Place::Ready(kind, number)) => self.ready.get_mut(&kind).and_then(|queue| queue.remove(&number)),
            Some(Place::Delayed(at, number)) => self.delayed.remove(&(at, number)),
            Some(Place::Away) | None => None,
        };
        if let Some(entry) = &entry {
            self.forget(entry, true);
        }
        entry.is_some()
    }
}
