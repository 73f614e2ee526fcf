//! The reports that the engine has not accepted yet: a state machine without I/O.
//!
//! A report that comes alone leaves alone and at once. Reports that have accumulated while calls were in flight leave as one. The end of
//! an attempt leaves after its start was accepted. What the engine cannot accept now is kept, and sent again.

mod call;
mod journal;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use chrono::TimeDelta;
use tokio::time::Instant;

use super::key::Key;
use crate::error::Error;
use crate::rpc::convert::{Report, ReportKind};
use crate::transport::retry_delay;

pub(super) use call::{Sent, Verdict, send};
pub(super) use journal::{Journal, Saved, save};

/// The maximum number of reports in one call.
const MAX_BATCH: usize = 200;
/// The maximum size of the payloads in one call, unless it has a single report.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// The engine stores one time for all reports of a call.
const MAX_TIME_DIFFERENCE: TimeDelta = TimeDelta::milliseconds(100);
/// The number of calls of one kind that are in flight at the same time, so that a report rarely waits for another.
const MAX_CALLS: usize = 2;
/// Calls that take longer than this do not keep others from being sent.
const SLOW_CALL: Duration = Duration::from_millis(250);
/// The maximum number of calls in flight if some are slow, or if each report is sent alone.
const MAX_SLOW_CALLS: usize = 64;
/// For how long a report is sent again to which the engine responds with an internal error.
const MAX_INTERNAL_ERRORS: Duration = Duration::from_secs(120);

/// The limits of an outbox. When one is reached, the worker starts no further attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) reports: usize,
    pub(super) bytes: usize,
}

/// A report that the engine has not accepted yet.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) report: Report,
    /// Its place in the order of all reports.
    number: u64,
    /// Whether it must not share a call with others, because the engine may refuse the others with it.
    is_alone: bool,
    /// Since when the engine has responded with internal errors, and how often.
    internal_errors: Option<(Instant, u32)>,
    /// Its number in the journal.
    saved_as: Option<u64>,
}

/// What must be written to the journal.
#[derive(Debug)]
pub(super) struct Unsaved {
    entries: Vec<Entry>,
    /// The numbers of ends that the engine has accepted.
    accepted: Vec<u64>,
}

/// Reports to be sent in one call. All have the same kind and the same worker.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) number: u64,
    pub(super) entries: Vec<Entry>,
}

/// The end of an attempt whose report is not waiting any longer.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) key: Key,
    pub(super) report: Report,
    /// The error if the engine has refused the report.
    pub(super) result: Result<(), Error>,
}

#[derive(Debug)]
pub(super) struct Outbox {
    limits: Limits,
    /// Whether the engine accepts several reports in one call, and may be sent them.
    has_batches: bool,
    /// Whether ends are written to a journal before they are sent.
    has_journal: bool,
    unsaved: Vec<Entry>,
    /// Ends that can be removed from the journal.
    accepted: Vec<u64>,
    /// Reports that can be sent, by kind, in their order.
    ready: BTreeMap<ReportKind, VecDeque<Entry>>,
    /// The attempts whose start was not accepted yet, and their ends.
    starting: HashMap<Key, Option<Entry>>,
    /// Reports that are sent again later.
    delayed: BTreeMap<(Instant, u64), Entry>,
    in_flight: HashMap<u64, InFlight>,
    count: usize,
    bytes: usize,
    entries: u64,
    calls: u64,
    /// How often in succession the engine could not be reached, and until when nothing is sent.
    outage: Option<(u32, Instant)>,
}

#[derive(Debug)]
struct InFlight {
    kind: ReportKind,
    since: Instant,
}

impl Outbox {
    pub(super) fn new(limits: Limits, has_batches: bool, has_journal: bool) -> Self {
        Self {
            limits,
            has_batches,
            has_journal,
            unsaved: Vec::new(),
            accepted: Vec::new(),
            ready: BTreeMap::new(),
            starting: HashMap::new(),
            delayed: BTreeMap::new(),
            in_flight: HashMap::new(),
            count: 0,
            bytes: 0,
            entries: 0,
            calls: 0,
            outage: None,
        }
    }

    /// Adds a report. An attempt's start is added before its end.
    pub(super) fn add(&mut self, key: Key, report: Report) {
        let entry = self.entry(key, report, None);
        if self.has_journal && entry.report.kind != ReportKind::Started {
            self.unsaved.push(entry);
        } else {
            self.queue(entry);
        }
    }

    /// Adds an end from the journal of an earlier process.
    pub(super) fn add_saved(&mut self, number: u64, key: Key, report: Report) {
        let entry = self.entry(key, report, Some(number));
        self.queue(entry);
    }

    fn entry(&mut self, key: Key, report: Report, saved_as: Option<u64>) -> Entry {
        self.entries += 1;
        self.count += 1;
        self.bytes += report.size();
        Entry { key, report, number: self.entries, is_alone: false, internal_errors: None, saved_as }
    }

    /// Takes what must be written to the journal now.
    pub(super) fn take_unsaved(&mut self) -> Option<Unsaved> {
        let (entries, accepted) = (std::mem::take(&mut self.unsaved), std::mem::take(&mut self.accepted));
        (!entries.is_empty() || !accepted.is_empty()).then_some(Unsaved { entries, accepted })
    }

    /// Sends the ends that are in the journal now, or that could not be written to it.
    pub(super) fn saved(&mut self, Saved { journal, entries, numbers }: Saved) -> Option<Journal> {
        self.has_journal = journal.is_some();
        let numbers = numbers.into_iter().map(Some).chain(std::iter::repeat(None));
        for (entry, saved_as) in entries.into_iter().zip(numbers) {
            self.queue(Entry { saved_as, ..entry });
        }
        if !self.has_journal {
            std::mem::take(&mut self.unsaved).into_iter().for_each(|entry| self.queue(entry));
        }
        journal
    }

    fn queue(&mut self, entry: Entry) {
        let key = entry.key;
        match (entry.report.kind, self.starting.get_mut(&key)) {
            (ReportKind::Started, _) => {
                self.starting.insert(key, None);
                self.push(entry);
            }
            (_, Some(end)) => *end = Some(entry),
            _ => self.push(entry),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= self.limits.reports || self.bytes >= self.limits.bytes
    }

    /// Removes the reports of an attempt that the engine has ended. Returns `false` if its end is in flight, or not here.
    pub(super) fn withdraw(&mut self, key: Key) -> bool {
        let unsaved = self.unsaved.iter().position(|entry| entry.key == key).map(|place| self.unsaved.remove(place));
        let held = unsaved.or_else(|| self.starting.get_mut(&key).and_then(Option::take));
        let place = |queue: &VecDeque<Entry>| queue.iter().position(|entry| entry.key == key);
        let mut ready = self.ready.iter_mut().filter(|(kind, _)| **kind != ReportKind::Started);
        let removed = held.or_else(|| ready.find_map(|(_, queue)| queue.remove(place(queue)?))).or_else(|| {
            let is_end = |(_, entry): &(_, &Entry)| entry.key == key && entry.report.kind != ReportKind::Started;
            let place = self.delayed.iter().find(is_end).map(|(place, _)| *place)?;
            self.delayed.remove(&place)
        });
        if let Some(entry) = &removed {
            self.forget(entry);
        }
        removed.is_some()
    }

    /// The next call to be made now.
    pub(super) fn next_call(&mut self, now: Instant) -> Option<Call> {
        while let Some(delayed) = self.delayed.first_entry().filter(|entry| entry.key().0 <= now) {
            let entry = delayed.remove();
            self.push(entry);
        }
        if let Some((_, until)) = self.outage {
            // One call finds out whether the engine is back.
            if until > now || !self.in_flight.is_empty() {
                return None;
            }
        }
        let first = |(kind, queue): (&ReportKind, &VecDeque<Entry>)| Some((queue.front()?.number, *kind));
        let kinds = self.ready.iter().filter_map(first).collect::<BTreeMap<_, _>>();
        let kind = kinds.into_values().find(|kind| self.may_send(*kind, now))?;
        let entries = collect(self.ready.get_mut(&kind)?, self.has_batches);
        self.calls += 1;
        self.in_flight.insert(self.calls, InFlight { kind, since: now });
        Some(Call { number: self.calls, entries })
    }

    fn may_send(&self, kind: ReportKind, now: Instant) -> bool {
        if self.in_flight.len() >= MAX_SLOW_CALLS {
            return false;
        }
        let is_recent = |call: &&InFlight| call.kind == kind && now < call.since + SLOW_CALL;
        !self.has_batches || self.in_flight.values().filter(is_recent).count() < MAX_CALLS
    }

    /// When [`next_call`](Self::next_call) may return a call again, without anything having happened.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let delayed = self.delayed.first_key_value().map(|((at, _), _)| *at);
        if self.ready.values().all(VecDeque::is_empty) {
            return delayed;
        }
        let outage = self.outage.map(|(_, until)| until).filter(|_| self.in_flight.is_empty());
        let slow = self.in_flight.values().map(|call| call.since + SLOW_CALL).max();
        let ready = if self.outage.is_some() { outage } else { slow };
        delayed.into_iter().chain(ready).min()
    }

    /// Records what has become of a call. `jitter`: from 0 to 1.
    pub(super) fn sent(&mut self, now: Instant, sent: Sent, jitter: f64) -> Vec<Settled> {
        let Sent { call: Call { number, entries }, verdict } = sent;
        self.in_flight.remove(&number);
        match verdict {
            Verdict::Accepted => {
                self.outage = None;
                entries.into_iter().filter_map(|entry| self.settle(entry, Ok(()))).collect()
            }
            Verdict::Unavailable(error) => {
                let failures = self.outage.map_or(0, |(failures, _)| failures).saturating_add(1);
                self.outage = Some((failures, now + retry_delay(failures, jitter)));
                log(failures, self.count, &error);
                self.return_all(entries);
                Vec::new()
            }
            Verdict::NoBatches => {
                tracing::info!("the engine does not accept several reports in one call");
                self.has_batches = false;
                self.return_all(entries);
                Vec::new()
            }
            // It may be only one of them.
            Verdict::Refused(_) | Verdict::InternalError(_) if entries.len() > 1 => {
                self.return_all(entries.into_iter().map(|entry| Entry { is_alone: true, ..entry }).collect());
                Vec::new()
            }
            Verdict::Refused(error) => {
                self.outage = None;
                entries.into_iter().filter_map(|entry| self.settle(entry, Err(error.clone()))).collect()
            }
            Verdict::InternalError(error) => {
                self.outage = None;
                entries.into_iter().filter_map(|entry| self.delay(now, entry, &error, jitter)).collect()
            }
        }
    }

    /// Sends a report again later, for some time.
    fn delay(&mut self, now: Instant, mut entry: Entry, error: &Error, jitter: f64) -> Option<Settled> {
        let (since, failures) = entry.internal_errors.unwrap_or((now, 0));
        let (failures, delay) = (failures.saturating_add(1), retry_delay(failures.saturating_add(1), jitter));
        if now + delay > since + MAX_INTERNAL_ERRORS {
            return self.settle(entry, Err(error.clone()));
        }
        log(failures, 1, error);
        entry.internal_errors = Some((since, failures));
        self.delayed.insert((now + delay, entry.number), entry);
        None
    }

    fn settle(&mut self, entry: Entry, result: Result<(), Error>) -> Option<Settled> {
        self.forget(&entry);
        let Entry { key, report, .. } = entry;
        if report.kind != ReportKind::Started {
            return Some(Settled { key, report, result });
        }
        if let Err(error) = result {
            tracing::debug!(run = %key.run, %error, "failed to report the start of an attempt");
        }
        if let Some(end) = self.starting.remove(&key).flatten() {
            self.push(end);
        }
        None
    }

    fn forget(&mut self, entry: &Entry) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(entry.report.size());
        self.accepted.extend(entry.saved_as);
    }

    fn push(&mut self, entry: Entry) {
        let queue = self.ready.entry(entry.report.kind).or_default();
        // Nearly always at the end.
        let place = queue.iter().rposition(|other| other.number < entry.number).map_or(0, |before| before + 1);
        queue.insert(place, entry);
    }

    fn return_all(&mut self, entries: Vec<Entry>) {
        // From the last one, so that each is inserted at the front.
        entries.into_iter().rev().for_each(|entry| self.push_front(entry));
    }

    fn push_front(&mut self, entry: Entry) {
        let queue = self.ready.entry(entry.report.kind).or_default();
        let place = queue.iter().position(|other| other.number > entry.number).unwrap_or(queue.len());
        queue.insert(place, entry);
    }
}

/// Takes the reports of the next call from a queue.
fn collect(queue: &mut VecDeque<Entry>, has_batches: bool) -> Vec<Entry> {
    let Some(first) = queue.pop_front() else { return Vec::new() };
    let (worker, at, mut bytes) = (first.report.worker, first.report.at, first.report.size());
    let mut keys = HashSet::from([first.key.task]);
    let is_alone = first.is_alone || !has_batches;
    let mut entries = vec![first];
    while !is_alone && entries.len() < MAX_BATCH {
        let fits = |entry: &Entry| {
            !entry.is_alone
                && entry.report.worker == worker
                && (entry.report.at - at).abs() <= MAX_TIME_DIFFERENCE
                && bytes + entry.report.size() <= MAX_BATCH_BYTES
                // The engine keeps one report for each task of a call.
                && !keys.contains(&entry.key.task)
        };
        let Some(entry) = queue.front().is_some_and(fits).then(|| queue.pop_front()).flatten() else { break };
        bytes += entry.report.size();
        keys.insert(entry.key.task);
        entries.push(entry);
    }
    entries
}

/// Logs a failure: an outage must not fill the log.
fn log(failures: u32, reports: usize, error: &Error) {
    match failures {
        1..=3 => {
            tracing::warn!(%error, failures, reports, "failed to report to the engine; reports are kept and sent again")
        }
        _ => tracing::debug!(%error, failures, reports, "failed again to report to the engine"),
    }
}

#[cfg(test)]
mod tests;
