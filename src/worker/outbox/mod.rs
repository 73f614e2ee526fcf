//! The reports that the engine has not accepted yet: a state machine without I/O.
//!
//! A single report is sent immediately and by itself. Reports that accumulated while calls were in flight are sent in one call. The result
//! of an attempt is sent after its start was accepted. What the engine cannot accept now is kept, and sent again.

mod call;
mod doubt;
mod failures;
mod journal;
mod removal;
mod schedule;
mod writer;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::delivery::MAX_PUSHBACK;
use super::key::{Key, KeyMap, KeySet};
use crate::error::{Error, ErrorKind};
use crate::model::WorkerId;
use crate::rpc::convert::{Report, ReportKind};
use crate::transport::retry_delay;

pub(super) use call::{Call, CallResult, Sent, send};
pub(super) use doubt::Doubt;
use failures::Failures;
pub(super) use removal::Confirmed;
use removal::ShownEnd;
use schedule::{InFlight, Lane};
pub(super) use writer::{JournalWriter, Recovered, Saved};

/// For how long a report is sent again to which the engine responds with an internal error while it accepts others.
const MAX_INTERNAL_ERRORS: Duration = Duration::from_secs(120);
/// How long ago the engine has accepted another result if it accepts them now: longer than the pauses of a report.
const RECENTLY: Duration = Duration::from_secs(10);
/// How long the engine is not asked again whether it accepts several reports in one call. It can be upgraded, or replaced by another one.
const NO_BATCHES_FOR: Duration = Duration::from_secs(300);

/// The limits of an outbox. When one is reached, the worker starts no further attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) reports: usize,
    pub(super) bytes: usize,
}

/// A report that the engine has not accepted yet.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) report: Report,
    /// Its place in the order of all reports.
    number: u64,
    /// Whether it must not share a call with others, because the engine may reject the others with it.
    is_alone: bool,
    /// Since when the engine has not accepted it.
    failing_since: Option<Instant>,
    /// How often the engine has responded with an internal error.
    failures: u32,
    /// Its number in the journal.
    saved_as: Option<u64>,
    /// Whether it is from an earlier process.
    is_recovered: bool,
    /// Whether the engine was asked if the attempt still belongs to the worker, after the last outage.
    is_checked: bool,
}

/// What must be written to the journal.
#[derive(Debug)]
pub(super) struct Unsaved {
    entries: Vec<Entry>,
    /// The numbers of ends that the engine has accepted.
    accepted: Vec<u64>,
}

/// The result of an attempt that is not in the outbox any longer.
#[derive(Debug)]
pub(super) struct ResolvedReport {
    pub(super) key: Key,
    pub(super) report: Report,
    pub(super) resolution: Resolution,
    /// Whether it is from an earlier process. An attempt of this worker can have the same key.
    pub(super) is_recovered: bool,
}

#[derive(Debug)]
pub(super) enum Resolution {
    Accepted,
    /// The engine will not accept the report.
    Rejected(Error),
    /// The attempt was cancelled before its report was accepted.
    Withdrawn,
}

/// An outage of the engine.
#[derive(Debug, Clone, Copy)]
struct Outage {
    /// How often in succession the engine could not be reached.
    failures: u32,
    last_failure: Instant,
    /// Until when nothing is sent.
    until: Instant,
}

#[derive(Debug)]
pub(super) struct Outbox {
    limits: Limits,
    /// Whether several reports may be sent in one call.
    may_batch: bool,
    /// Until when the engine is not asked again whether it accepts them.
    no_batches_until: Option<Instant>,
    /// Whether ends are written to a journal before they are sent.
    has_journal: bool,
    unsaved: BTreeMap<u64, Entry>,
    doubt: Doubt,
    /// The attempts that the engine may have ended, if not all are in doubt.
    doubtful: KeySet<Key>,
    /// Results in doubt, by their place in the order. They are not sent before it is known that their attempts are not over.
    unchecked: BTreeMap<u64, Entry>,
    /// Ends that can be removed from the journal.
    accepted: Vec<u64>,
    /// Reports that can be sent, by their place in the order.
    ready: BTreeMap<Lane, Queue>,
    /// The attempts whose start was not accepted yet, and their ends.
    starting: KeyMap<Key, Option<Entry>>,
    /// Reports that are sent again later.
    delayed: BTreeMap<(Instant, u64), Entry>,
    in_flight: KeyMap<u64, InFlight>,
    /// Where the result of each attempt is.
    places: KeyMap<Key, Place>,
    /// The times of the starts that were accepted while their ends were being written to the journal.
    started_at: KeyMap<Key, DateTime<Utc>>,
    /// What is known of attempts whose reports are in flight or being written. It counts if the call fails.
    shown_ends: KeyMap<Key, ShownEnd>,
    /// The number and the size of the results.
    count: usize,
    bytes: usize,
    /// Those of an earlier process among them. They do not keep the worker from starting attempts: the engine may not accept them for as long
    /// as it accepts nothing else.
    recovered: (usize, usize),
    entries: u64,
    calls: u64,
    outage: Option<Outage>,
    /// For the log.
    failures: Failures,
    /// When the engine last accepted a result.
    accepted_at: Option<Instant>,
}

type Queue = BTreeMap<u64, Entry>;

/// Where the result of an attempt is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// It must be written to the journal.
    Unsaved(u64),
    Unchecked(u64),
    /// It waits for the start of the attempt to be accepted.
    Held,
    Ready(Lane, u64),
    Delayed(Instant, u64),
    /// It is being sent, or written to the journal.
    Away,
}

impl Outbox {
    pub(super) fn new(limits: Limits, may_batch: bool, has_journal: bool) -> Self {
        Self {
            limits,
            may_batch,
            no_batches_until: None,
            has_journal,
            unsaved: BTreeMap::new(),
            doubt: Doubt::None,
            doubtful: KeySet::default(),
            unchecked: BTreeMap::new(),
            accepted: Vec::new(),
            ready: BTreeMap::new(),
            starting: KeyMap::default(),
            delayed: BTreeMap::new(),
            in_flight: KeyMap::default(),
            places: KeyMap::default(),
            started_at: KeyMap::default(),
            shown_ends: KeyMap::default(),
            count: 0,
            bytes: 0,
            recovered: (0, 0),
            entries: 0,
            calls: 0,
            outage: None,
            failures: Failures::default(),
            accepted_at: None,
        }
    }

    /// Adds a report. An attempt's start is added before its end.
    pub(super) fn add(&mut self, key: Key, report: Report) {
        let entry = self.entry(key, report, None);
        self.add_entry(entry);
    }

    /// Adds a report in place of one that was rejected.
    pub(super) fn replace(&mut self, key: Key, report: Report, is_recovered: bool) {
        let entry = self.entry(key, report, None);
        let entry = if is_recovered { self.recovered(entry) } else { entry };
        self.add_entry(entry);
    }

    fn add_entry(&mut self, entry: Entry) {
        let key = entry.key;
        if self.has_journal && entry.report.kind != ReportKind::Started {
            self.places.insert(key, Place::Unsaved(entry.number));
            self.unsaved.insert(entry.number, entry);
        } else {
            self.queue(entry);
        }
    }

    /// Adds an end from the journal of an earlier process.
    pub(super) fn add_saved(&mut self, number: u64, key: Key, report: Report) {
        let entry = self.entry(key, report, Some(number));
        let entry = self.recovered(entry);
        self.queue(entry);
    }

    /// Counts an entry as one of an earlier process.
    fn recovered(&mut self, entry: Entry) -> Entry {
        self.recovered = (self.recovered.0 + 1, self.recovered.1 + entry.report.size());
        Entry { is_recovered: true, ..entry }
    }

    fn entry(&mut self, key: Key, report: Report, saved_as: Option<u64>) -> Entry {
        self.entries += 1;
        self.count += usize::from(report.kind != ReportKind::Started);
        self.bytes += report.size();
        Entry {
            key,
            report,
            number: self.entries,
            is_alone: false,
            failing_since: None,
            failures: 0,
            saved_as,
            is_recovered: false,
            is_checked: false,
        }
    }

    /// Takes what must be written to the journal now.
    pub(super) fn take_unsaved(&mut self) -> Option<Unsaved> {
        let entries: Vec<_> = std::mem::take(&mut self.unsaved).into_values().collect();
        let accepted = std::mem::take(&mut self.accepted);
        self.places.extend(entries.iter().map(|entry| (entry.key, Place::Away)));
        (!entries.is_empty() || !accepted.is_empty()).then_some(Unsaved { entries, accepted })
    }

    /// Sends the results that are in the journal now, or that could not be written to it.
    pub(super) fn saved(&mut self, saved: Saved) -> (Option<JournalWriter>, Vec<ResolvedReport>) {
        let Saved { journal, entries, numbers } = saved;
        let numbers = numbers.into_iter().map(Some).chain(std::iter::repeat(None));
        let entries = entries.into_iter().zip(numbers).map(|(entry, saved_as)| Entry { saved_as, ..entry });
        let resolved = self.queue_all(entries.collect());
        if journal.is_none() {
            self.disable_journal();
        }
        (journal, resolved)
    }

    /// Sends results without writing them to the journal.
    pub(super) fn disable_journal(&mut self) {
        self.has_journal = false;
        for entry in std::mem::take(&mut self.unsaved).into_values() {
            self.queue(entry);
        }
    }

    /// Removes a result from the journal that was found there, and must not be sent.
    pub(super) fn discard_saved(&mut self, number: u64) {
        self.accepted.push(number);
    }

    fn queue(&mut self, mut entry: Entry) {
        let key = entry.key;
        if entry.report.kind != ReportKind::Started
            && let Some(at) = self.started_at.remove(&key)
        {
            entry.report = entry.report.not_before(at);
        }
        match (entry.report.kind, self.starting.get_mut(&key)) {
            (ReportKind::Started, _) => {
                self.starting.insert(key, None);
                self.push(entry);
            }
            // The end of an attempt of an earlier process can have the same key. It does not wait.
            (_, Some(end)) if end.is_none() && !entry.is_recovered => {
                self.places.insert(key, Place::Held);
                *end = Some(entry);
            }
            _ => self.push(entry),
        }
    }

    /// Records the result of a call. `jitter`: from 0 to 1.
    pub(super) fn sent(&mut self, now: Instant, sent: Sent, jitter: f64) -> Vec<ResolvedReport> {
        let Sent { call: Call { number, entries, at }, result } = sent;
        let call = self.in_flight.remove(&number);
        let since = call.as_ref().map_or(now, |call| call.since);
        let is_start = call.is_some_and(|call| call.lane.kind == ReportKind::Started);
        match result {
            CallResult::Accepted => {
                self.outage = None;
                // The engine stores an accepted start later: it proves nothing about results.
                if !is_start {
                    self.accepted_at = Some(now);
                }
                let worker = call::worker_of(&entries);
                let stored = |entry: Entry| Entry { report: entry.report.not_before(at), ..entry };
                let resolve = |entry| self.resolve(stored(entry), Resolution::Accepted);
                let resolved = entries.into_iter().filter_map(resolve).collect();
                self.failures.accepted(now, worker);
                resolved
            }
            CallResult::Unavailable(error) => {
                let is_first = self.outage.is_none();
                self.add_failure(now, since, call::worker_of(&entries), &error, jitter);
                if is_first {
                    self.hold_back();
                }
                // Others are tried first, in case the problem is one of these.
                let entries = entries.into_iter().map(|entry| self.failed(now, entry)).collect();
                self.queue_all(entries)
            }
            CallResult::NoBatches => {
                tracing::info!(retry_after = ?NO_BATCHES_FOR, "the engine does not accept several reports in one call");
                self.no_batches_until = Some(now + NO_BATCHES_FOR);
                self.queue_all(entries)
            }
            // It may be only one of them. A start is not sent again after an internal error, so it needs no pause.
            CallResult::Rejected(_) if entries.len() > 1 => self.queue_all(alone(entries)),
            CallResult::InternalError(_) if entries.len() > 1 && is_start => self.queue_all(alone(entries)),
            CallResult::InternalError(error) if entries.len() > 1 => {
                self.outage = None;
                alone(entries).into_iter().filter_map(|entry| self.delay(now, entry, &error, jitter)).collect()
            }
            CallResult::Rejected(error) => {
                self.outage = None;
                let resolve = |entry| self.resolve(entry, Resolution::Rejected(error.clone()));
                entries.into_iter().filter_map(resolve).collect()
            }
            CallResult::InternalError(error) => {
                self.outage = None;
                entries.into_iter().filter_map(|entry| self.delay(now, entry, &error, jitter)).collect()
            }
        }
    }

    /// Counts a failure. Calls that were in flight together fail together, and count once.
    fn add_failure(&mut self, now: Instant, since: Instant, worker: Option<WorkerId>, error: &Error, jitter: f64) {
        let is_new = self.outage.is_none_or(|outage| since > outage.last_failure);
        let failures = self.outage.map_or(0, |outage| outage.failures).saturating_add(u32::from(is_new));
        let pushback = error.pushback().unwrap_or_default().min(MAX_PUSHBACK);
        let pause = retry_delay(failures, jitter).max(pushback);
        self.outage = Some(Outage { failures, last_failure: now, until: now + pause });
        if is_new {
            self.failures.add(now, worker, self.count, error);
        }
    }

    /// A report that could not be sent. If others were accepted in the meantime, it is sent alone from now on.
    fn failed(&mut self, now: Instant, entry: Entry) -> Entry {
        self.entries += 1;
        let since = self.failing_since(now, &entry);
        let is_alone = entry.is_alone || self.accepted_at.is_some_and(|at| at > since);
        Entry { number: self.entries, failing_since: Some(since), is_alone, is_checked: false, ..entry }
    }

    /// Since when a report has been failing that fails now.
    fn failing_since(&mut self, now: Instant, entry: &Entry) -> Instant {
        entry.failing_since.unwrap_or_else(|| {
            self.failures.first_of_report();
            now
        })
    }

    /// Sends a report again later. It is given up if the engine accepts others, and not this one.
    fn delay(&mut self, now: Instant, entry: Entry, error: &Error, jitter: f64) -> Option<ResolvedReport> {
        let (since, failures) = (entry.failing_since.unwrap_or(now), entry.failures.saturating_add(1));
        let pause = retry_delay(failures, jitter);
        let accepts_others = self.accepted_at.is_some_and(|at| at > since && now < at + RECENTLY);
        let is_start = entry.report.kind == ReportKind::Started;
        if is_start || accepts_others && now + pause > since + MAX_INTERNAL_ERRORS {
            return self.resolve(entry, Resolution::Rejected(error.clone()));
        }
        if let Some(shown) = self.shown_ends.get(&entry.key).copied() {
            let resolution = shown.resolution(&entry);
            return self.resolve(entry, resolution);
        }
        self.failures.add_report(now, &entry, error);
        let entry = Entry { failing_since: Some(self.failing_since(now, &entry)), failures, ..entry };
        self.places.insert(entry.key, Place::Delayed(now + pause, entry.number));
        self.delayed.insert((now + pause, entry.number), entry);
        None
    }

    fn resolve(&mut self, entry: Entry, resolution: Resolution) -> Option<ResolvedReport> {
        let is_end = entry.report.kind != ReportKind::Started;
        let shown = is_end.then(|| self.shown_ends.remove(&entry.key)).flatten();
        // The engine has ended the attempt: whatever was wrong with its report, nothing may replace it.
        let resolution = match (resolution, shown) {
            (Resolution::Rejected(_), Some(shown)) => shown.resolution(&entry),
            (resolution, _) => resolution,
        };
        // These errors are not about the report: another process may send it.
        let is_final = match &resolution {
            Resolution::Rejected(error) => match error.kind() {
                ErrorKind::Server | ErrorKind::Closed => false,
                ErrorKind::Rejected => call::is_final(error),
                _ => true,
            },
            _ => true,
        };
        self.forget(&entry, is_final);
        let Entry { key, report, is_recovered, .. } = entry;
        if report.kind != ReportKind::Started {
            return Some(ResolvedReport { key, report, resolution, is_recovered });
        }
        if let Resolution::Rejected(error) = resolution {
            tracing::debug!(run_id = %key.run, task_id = %key.task, attempt = key.attempt(), %error, "failed to report the start of an attempt");
        }
        // The start may have the time of others that it was sent with.
        match self.starting.remove(&key).flatten() {
            Some(result) => self.push(Entry { report: result.report.not_before(report.at), ..result }),
            None if self.places.contains_key(&key) => drop(self.started_at.insert(key, report.at)),
            None => {}
        }
        None
    }

    /// Removes an entry from the counts, and from the journal if it must not be sent again.
    fn forget(&mut self, entry: &Entry, from_journal: bool) {
        if entry.report.kind != ReportKind::Started {
            self.count = self.count.saturating_sub(1);
            self.places.remove(&entry.key);
            self.started_at.remove(&entry.key);
            self.doubtful.remove(&entry.key);
        }
        if entry.failing_since.is_some() {
            self.failures.resolved();
        }
        self.bytes = self.bytes.saturating_sub(entry.report.size());
        if entry.is_recovered {
            let (count, bytes) = self.recovered;
            self.recovered = (count.saturating_sub(1), bytes.saturating_sub(entry.report.size()));
        }
        self.accepted.extend(entry.saved_as.filter(|_| from_journal));
    }

    /// Queues entries again, and returns those whose attempts have ended for the engine in the meantime.
    fn queue_all(&mut self, entries: Vec<Entry>) -> Vec<ResolvedReport> {
        let mut resolved = Vec::new();
        for entry in entries {
            if entry.report.kind == ReportKind::Started {
                self.push(entry);
            } else if let Some(shown) = self.shown_ends.get(&entry.key).copied() {
                let resolution = shown.resolution(&entry);
                resolved.extend(self.resolve(entry, resolution));
            } else {
                self.queue(entry);
            }
        }
        resolved
    }

    fn push(&mut self, entry: Entry) {
        let (lane, number) = (entry.lane(), entry.number);
        if self.needs_check(&entry) {
            self.places.insert(entry.key, Place::Unchecked(number));
            self.unchecked.insert(number, entry);
            return;
        }
        if lane.kind != ReportKind::Started {
            self.places.insert(entry.key, Place::Ready(lane, number));
        }
        self.ready.entry(lane).or_default().insert(number, entry);
    }
}

/// Reports that were sent together, and are sent one by one from now on.
fn alone(entries: Vec<Entry>) -> Vec<Entry> {
    entries.into_iter().map(|entry| Entry { is_alone: true, ..entry }).collect()
}

#[cfg(test)]
mod tests;
