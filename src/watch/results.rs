//! Who waits for which run: the pure core of the pool.
//!
//! One stream answers for all runs. It is silent for ever about a run that does not exist, so a run that the engine has
//! never shown is looked for: after a moment, a few times, with growing distance.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::RunId;

/// When a run is looked for, counted from the look before. When the first is due, the driver says.
///
/// The last of them comes 14 seconds after the first: where many are triggered at once, a run appears some seconds later.
const LOOKS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// When a run that exists is looked at again, in case the stream has lost it.
const AGAIN: Duration = Duration::from_secs(300);

/// What the driver is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask the stream about these.
    Ask(Vec<RunId>),
    /// Look whether this run exists.
    Look(RunId),
    /// Nobody is waiting: the stream can go.
    Idle,
}

/// What a look has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Going,
    Ended,
    Missing,
    /// The question was not answered.
    Unknown,
}

/// Waiters, as the driver has them, by run.
#[derive(Debug)]
pub(super) struct Waiting<W> {
    runs: HashMap<RunId, Entry<W>>,
    /// When runs that were never seen are looked for.
    looks: BTreeMap<(Instant, u64), RunId>,
    count: u64,
}

#[derive(Debug)]
struct Entry<W> {
    /// One for nearly every run.
    waiters: Vec<W>,
    looks: u8,
    due: Option<(Instant, u64)>,
}

impl<W> Default for Waiting<W> {
    fn default() -> Self {
        Self { runs: HashMap::new(), looks: BTreeMap::new(), count: 0 }
    }
}

impl<W> Waiting<W> {
    /// Someone waits for a run, which is first looked for after so long.
    pub(super) fn wait(&mut self, now: Instant, run: RunId, first: Duration, waiter: W) -> Option<Step> {
        let entry = self.runs.entry(run).or_insert(Entry { waiters: Vec::with_capacity(1), looks: 0, due: None });
        entry.waiters.push(waiter);
        if entry.waiters.len() > 1 {
            return None;
        }
        self.schedule(run, now + first);
        Some(Step::Ask(vec![run]))
    }

    /// Someone has stopped to wait.
    pub(super) fn leave(&mut self, run: RunId, is_gone: impl Fn(&W) -> bool) -> Option<Step> {
        let entry = self.runs.get_mut(&run)?;
        entry.waiters.retain(|waiter| !is_gone(waiter));
        if entry.waiters.is_empty() {
            self.take(run);
        }
        self.runs.is_empty().then_some(Step::Idle)
    }

    /// The run has ended, or never was: those who waited for it.
    pub(super) fn take(&mut self, run: RunId) -> Vec<W> {
        let Some(entry) = self.runs.remove(&run) else { return Vec::new() };
        entry.due.map(|due| self.looks.remove(&due));
        entry.waiters
    }

    /// All who wait, when no stream can ever be opened.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = W> {
        self.looks.clear();
        std::mem::take(&mut self.runs).into_values().flat_map(|entry| entry.waiters)
    }

    /// What a new stream is asked about.
    pub(super) fn all(&self) -> Vec<RunId> {
        self.runs.keys().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// When the next look is due.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.looks.first_key_value().map(|((at, _), _)| *at)
    }

    /// A look that is due, if one is.
    pub(super) fn due(&mut self, now: Instant) -> Option<Step> {
        let entry = self.looks.first_entry().filter(|entry| entry.key().0 <= now)?;
        let run = entry.remove();
        if let Some(entry) = self.runs.get_mut(&run) {
            entry.due = None;
        }
        Some(Step::Look(run))
    }

    /// What a look has shown. True if it settles the wait: the run has ended, or there is none.
    pub(super) fn seen(&mut self, now: Instant, run: RunId, seen: Seen) -> bool {
        let Some(entry) = self.runs.get_mut(&run) else { return false };
        match seen {
            // It exists: from here on the stream is enough, but for what it may lose.
            Seen::Going => {
                self.schedule(run, now + AGAIN);
                false
            }
            Seen::Ended => true,
            Seen::Unknown => {
                let at = now + distance(entry.looks);
                self.schedule(run, at);
                false
            }
            Seen::Missing => {
                entry.looks += 1;
                if usize::from(entry.looks) >= LOOKS.len() {
                    return true;
                }
                let at = now + distance(entry.looks);
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
        self.looks.insert(due, run);
    }
}

fn distance(looks: u8) -> Duration {
    LOOKS.get(usize::from(looks)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u32) -> RunId {
        format!("00000000-0000-4000-8001-{number:012}").parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_asked_about_once_however_many_wait() {
        let mut waiting = Waiting::default();
        let now = Instant::now();
        assert_eq!(waiting.wait(now, run(1), LOOKS[0], 'a'), Some(Step::Ask(vec![run(1)])));
        assert_eq!(waiting.wait(now, run(1), LOOKS[0], 'b'), None);
        assert_eq!(waiting.take(run(1)), ['a', 'b']);
        assert_eq!(waiting.next_look(), None, "and with them goes the look");
        assert_eq!(waiting.take(run(1)), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_never_seen_is_missing_after_four_looks() {
        let mut waiting = Waiting::default();
        let start = Instant::now();
        waiting.wait(start, run(1), LOOKS[0], 'a');
        let mut at = Vec::new();
        loop {
            let now = waiting.next_look().unwrap();
            at.push((now - start).as_secs());
            assert_eq!(waiting.due(now), Some(Step::Look(run(1))));
            if waiting.seen(now, run(1), Seen::Missing) {
                break;
            }
        }
        assert_eq!(at, [1, 3, 7, 15]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_was_seen_is_left_to_the_stream() {
        let mut waiting = Waiting::default();
        let now = Instant::now();
        waiting.wait(now, run(1), LOOKS[0], 'a');
        assert_eq!(waiting.due(now), None, "not before its time");
        assert_eq!(waiting.due(now + LOOKS[0]), Some(Step::Look(run(1))));
        assert!(!waiting.seen(now, run(1), Seen::Going));
        assert_eq!(waiting.next_look(), Some(now + AGAIN), "but for what that may lose");
        assert!(waiting.seen(now, run(1), Seen::Ended));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unanswered_look_counts_for_nothing() {
        let mut waiting = Waiting::default();
        let mut now = Instant::now();
        waiting.wait(now, run(1), LOOKS[0], 'a');
        for _ in 0..20 {
            now = waiting.next_look().unwrap();
            waiting.due(now);
            assert!(!waiting.seen(now, run(1), Seen::Unknown));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_last_one_leaves_the_stream_can_go() {
        let mut waiting = Waiting::default();
        let now = Instant::now();
        waiting.wait(now, run(1), LOOKS[0], 'a');
        waiting.wait(now, run(2), LOOKS[0], 'b');
        assert_eq!(waiting.leave(run(1), |waiter| *waiter == 'a'), None);
        assert_eq!(waiting.leave(run(2), |waiter| *waiter == 'a'), None);
        assert_eq!(waiting.leave(run(2), |waiter| *waiter == 'b'), Some(Step::Idle));
        assert!(waiting.is_empty() && waiting.next_look().is_none());
    }
}
