//! The waiters of the pool by run, and when to probe each run: the pure core of the pool.
//!
//! The result stream sends nothing for a run that does not exist. So a run that has not been seen yet is probed over gRPC, a few times
//! at growing intervals.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::RunId;

/// The intervals between the probes of a run. The driver decides when the first one is due.
///
/// The last one is 14 seconds after the first: if many runs are triggered at once, a run may be created some seconds later.
const PROBE_INTERVALS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// The interval between probes of a run that exists, in case the stream has lost it.
const KNOWN_RUN_INTERVAL: Duration = Duration::from_secs(300);

/// The result of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probed {
    Running,
    Ended,
    Missing,
    /// The call failed.
    Unknown,
}

/// The waiters by run.
#[derive(Debug)]
pub(super) struct Waiting<W> {
    runs: HashMap<RunId, Entry<W>>,
    /// When the runs are probed next.
    probes: BTreeMap<(Instant, u64), RunId>,
    count: u64,
}

#[derive(Debug)]
struct Entry<W> {
    /// Nearly always one.
    waiters: Vec<W>,
    probes: u8,
    due: Option<(Instant, u64)>,
}

impl<W> Default for Waiting<W> {
    fn default() -> Self {
        Self { runs: HashMap::new(), probes: BTreeMap::new(), count: 0 }
    }
}

impl<W> Waiting<W> {
    /// Adds a waiter. Returns whether the run is new, so that the stream must be asked about it.
    pub(super) fn add(&mut self, run: RunId, first_probe: Instant, waiter: W) -> bool {
        let entry = self.runs.entry(run).or_insert(Entry { waiters: Vec::with_capacity(1), probes: 0, due: None });
        entry.waiters.push(waiter);
        let is_new = entry.waiters.len() == 1;
        if is_new {
            self.schedule(run, first_probe);
        }
        is_new
    }

    /// Removes the waiters of a run that are gone.
    pub(super) fn remove(&mut self, run: RunId, is_gone: impl Fn(&W) -> bool) {
        let Some(entry) = self.runs.get_mut(&run) else { return };
        entry.waiters.retain(|waiter| !is_gone(waiter));
        if entry.waiters.is_empty() {
            self.take(run);
        }
    }

    /// Removes a run, and returns its waiters.
    pub(super) fn take(&mut self, run: RunId) -> Vec<W> {
        let Some(entry) = self.runs.remove(&run) else { return Vec::new() };
        entry.due.map(|due| self.probes.remove(&due));
        entry.waiters
    }

    /// Removes all runs, and returns their waiters.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = W> {
        self.probes.clear();
        std::mem::take(&mut self.runs).into_values().flat_map(|entry| entry.waiters)
    }

    /// The runs that a new stream must be asked about.
    pub(super) fn runs(&self) -> Vec<RunId> {
        self.runs.keys().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// When the next probe is due.
    pub(super) fn next_probe(&self) -> Option<Instant> {
        self.probes.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes a run whose probe is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<RunId> {
        let entry = self.probes.first_entry().filter(|entry| entry.key().0 <= now)?;
        let run = entry.remove();
        if let Some(entry) = self.runs.get_mut(&run) {
            entry.due = None;
        }
        Some(run)
    }

    /// Records the result of a probe. Returns whether it ends the wait: the run has ended, or it does not exist.
    pub(super) fn probed(&mut self, now: Instant, run: RunId, probed: Probed) -> bool {
        let Some(entry) = self.runs.get_mut(&run) else { return false };
        match probed {
            // From now on the stream reports its end, unless it loses the run.
            Probed::Running => {
                self.schedule(run, now + KNOWN_RUN_INTERVAL);
                false
            }
            Probed::Ended => true,
            Probed::Unknown => {
                let at = now + interval(entry.probes);
                self.schedule(run, at);
                false
            }
            Probed::Missing => {
                entry.probes += 1;
                if usize::from(entry.probes) >= PROBE_INTERVALS.len() {
                    return true;
                }
                let at = now + interval(entry.probes);
                self.schedule(run, at);
                false
            }
        }
    }

    fn schedule(&mut self, run: RunId, at: Instant) {
        let Some(entry) = self.runs.get_mut(&run) else { return };
        self.count += 1;
        let due = (at, self.count);
        entry.due = Some(due);
        self.probes.insert(due, run);
    }
}

fn interval(probes: u8) -> Duration {
    PROBE_INTERVALS.get(usize::from(probes)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u128) -> RunId {
        uuid::Uuid::from_u128(number).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_new_for_its_first_waiter_only() {
        let mut waiting = Waiting::default();
        let probe = Instant::now() + PROBE_INTERVALS[0];
        assert!(waiting.add(run(1), probe, 'a'));
        assert!(!waiting.add(run(1), probe, 'b'));
        assert_eq!(waiting.take(run(1)), ['a', 'b']);
        assert_eq!(waiting.next_probe(), None, "the probe is removed with the run");
        assert_eq!(waiting.take(run(1)), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_never_seen_is_missing_after_four_probes() {
        let mut waiting = Waiting::default();
        let start = Instant::now();
        waiting.add(run(1), start + PROBE_INTERVALS[0], 'a');
        let mut at = Vec::new();
        loop {
            let now = waiting.next_probe().unwrap();
            at.push((now - start).as_secs());
            assert_eq!(waiting.take_due(now), Some(run(1)));
            if waiting.probed(now, run(1), Probed::Missing) {
                break;
            }
        }
        assert_eq!(at, [1, 3, 7, 15]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_was_seen_is_left_to_the_stream() {
        let mut waiting = Waiting::default();
        let now = Instant::now();
        waiting.add(run(1), now + PROBE_INTERVALS[0], 'a');
        assert_eq!(waiting.take_due(now), None, "not before its time");
        assert_eq!(waiting.take_due(now + PROBE_INTERVALS[0]), Some(run(1)));
        assert!(!waiting.probed(now, run(1), Probed::Running));
        assert_eq!(waiting.next_probe(), Some(now + KNOWN_RUN_INTERVAL), "in case the stream loses it");
        assert!(waiting.probed(now, run(1), Probed::Ended));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_does_not_count() {
        let mut waiting = Waiting::default();
        let mut now = Instant::now();
        waiting.add(run(1), now + PROBE_INTERVALS[0], 'a');
        for _ in 0..20 {
            now = waiting.next_probe().unwrap();
            waiting.take_due(now);
            assert!(!waiting.probed(now, run(1), Probed::Unknown));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_removed_with_its_last_waiter() {
        let mut waiting = Waiting::default();
        let probe = Instant::now() + PROBE_INTERVALS[0];
        waiting.add(run(1), probe, 'a');
        waiting.add(run(2), probe, 'b');
        waiting.remove(run(1), |waiter| *waiter == 'a');
        waiting.remove(run(2), |waiter| *waiter == 'a');
        assert_eq!(waiting.len(), 1);
        waiting.remove(run(2), |waiter| *waiter == 'b');
        assert!(waiting.is_empty() && waiting.next_probe().is_none());
    }
}
