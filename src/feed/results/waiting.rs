//! The waiters of the pool by run, and when to probe each run: the pure core of the pool.
//!
//! The result stream sends nothing for a run that does not exist. So a run that was not observed yet is probed over gRPC, a few times
//! at growing intervals.

use std::collections::{BTreeSet, HashMap, VecDeque, hash_map};
use std::num::NonZero;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::RunId;

/// The intervals between the probes of a run. The driver decides when the first one is due.
///
/// The last one is 14 seconds after the first: if many runs are triggered at once, a run may be created a few seconds later.
const PROBE_INTERVALS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// The interval between probes of a run that exists, in case the stream has lost it. With very many runs it is longer, so that all of them
/// together are probed at most 20 times per second.
const KNOWN_RUN_INTERVAL: Duration = Duration::from_secs(300);
const INTERVAL_PER_KNOWN_RUN: Duration = Duration::from_millis(50);

/// The maximum interval between probes that fail.
const MAX_FAILED_INTERVAL: Duration = Duration::from_secs(60);

/// The result of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probed {
    Running,
    Ended,
    Missing,
    /// The call failed.
    Unknown,
}

/// What a probe means for the waiters of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Wait,
    /// They must fetch the run: it has ended, or gRPC does not find a run that was observed earlier.
    Fetch,
    /// The run does not exist.
    Missing,
}

/// The waiters by run.
#[derive(Debug)]
pub(super) struct Waiting<W> {
    runs: HashMap<RunId, Entry<W>>,
    /// When the runs are probed next.
    probes: BTreeSet<(Due, RunId)>,
    since: Instant,
}

/// A time in nanoseconds since the creation of the [`Waiting`], and one more. An [`Instant`] needs twice the memory, and there can be very many.
type Due = NonZero<u64>;

#[derive(Debug)]
struct Entry<W> {
    /// Those that are gone are removed when they can be half of them.
    waiters: Waiters<W>,
    /// The number of waiters that have left since then, or more.
    gone: u32,
    /// Whether the run was observed. A run that was not found once may be there again.
    was_observed: bool,
    /// How often in succession it was not found.
    missing: u8,
    /// How often in succession the probe failed.
    failures: u8,
    due: Option<Due>,
}

/// The waiters of a run: nearly always one.
#[derive(Debug)]
enum Waiters<W> {
    One(W),
    Several(Vec<W>),
}

impl<W> Default for Waiting<W> {
    fn default() -> Self {
        Self { runs: HashMap::new(), probes: BTreeSet::new(), since: Instant::now() }
    }
}

impl<W> Waiters<W> {
    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Several(all) => all.len(),
        }
    }

    fn push(&mut self, waiter: W) {
        *self = match std::mem::replace(self, Self::Several(Vec::new())) {
            Self::One(first) => Self::Several(vec![first, waiter]),
            Self::Several(mut all) => {
                all.push(waiter);
                Self::Several(all)
            }
        };
    }

    fn retain(&mut self, mut keep: impl FnMut(&W) -> bool) {
        match self {
            Self::Several(all) => all.retain(keep),
            Self::One(one) if keep(one) => {}
            Self::One(_) => *self = Self::Several(Vec::new()),
        }
    }

    fn into_vec(self) -> Vec<W> {
        match self {
            Self::One(one) => vec![one],
            Self::Several(all) => all,
        }
    }
}

impl<W> Waiting<W> {
    /// Adds a waiter, which has observed the run or not. Returns whether the run is new here, so that the stream must be asked about it.
    pub(super) fn add(&mut self, run: RunId, first_probe: Instant, was_observed: bool, waiter: W) -> bool {
        match self.runs.entry(run) {
            hash_map::Entry::Occupied(entry) => {
                let entry = entry.into_mut();
                entry.was_observed |= was_observed;
                entry.waiters.push(waiter);
                false
            }
            hash_map::Entry::Vacant(entry) => {
                let waiters = Waiters::One(waiter);
                entry.insert(Entry { waiters, gone: 0, was_observed, missing: 0, failures: 0, due: None });
                self.schedule(run, first_probe);
                true
            }
        }
    }

    /// A waiter of a run is gone. Returns whether it was the last one, and the run was removed. Earlier, it may be returned with the others
    /// that wait for the run, because not all of them are checked each time.
    pub(super) fn leave(&mut self, run: RunId, is_gone: impl Fn(&W) -> bool) -> bool {
        let Some(entry) = self.runs.get_mut(&run) else { return false };
        entry.gone = entry.gone.saturating_add(1);
        if (entry.gone as usize) < entry.waiters.len().div_ceil(2) {
            return false;
        }
        entry.waiters.retain(|waiter| !is_gone(waiter));
        entry.gone = 0;
        let is_empty = entry.waiters.len() == 0;
        if is_empty {
            self.take(run);
        }
        is_empty
    }

    /// Removes a run, and returns its waiters.
    pub(super) fn take(&mut self, run: RunId) -> Vec<W> {
        let Some(entry) = self.runs.remove(&run) else { return Vec::new() };
        entry.due.map(|due| self.probes.remove(&(due, run)));
        entry.waiters.into_vec()
    }

    /// Removes all runs, and returns their waiters.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = W> {
        self.probes.clear();
        std::mem::take(&mut self.runs).into_values().flat_map(|entry| entry.waiters.into_vec())
    }

    /// The runs that a new stream must be asked about.
    pub(super) fn runs(&self) -> VecDeque<RunId> {
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
        self.probes.first().map(|(due, _)| self.at(*due))
    }

    fn due(&self, at: Instant) -> Due {
        let nanos = u64::try_from(at.saturating_duration_since(self.since).as_nanos());
        NonZero::<u64>::MIN.saturating_add(nanos.unwrap_or(u64::MAX))
    }

    fn at(&self, due: Due) -> Instant {
        self.since + Duration::from_nanos(due.get() - 1)
    }

    /// Takes a run whose probe is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<RunId> {
        let latest = self.due(now);
        let (_, run) = self.probes.first().filter(|(due, _)| *due <= latest)?;
        let run = *run;
        self.probes.pop_first();
        if let Some(entry) = self.runs.get_mut(&run) {
            entry.due = None;
        }
        Some(run)
    }

    /// Records the result of a probe.
    pub(super) fn probed(&mut self, now: Instant, run: RunId, probed: Probed) -> Decision {
        let count = u32::try_from(self.runs.len()).unwrap_or(u32::MAX);
        let Some(entry) = self.runs.get_mut(&run) else { return Decision::Wait };
        if probed != Probed::Unknown {
            entry.failures = 0;
        }
        let interval = match probed {
            // From now on the stream reports its end, unless it loses the run.
            Probed::Running => {
                entry.was_observed = true;
                entry.missing = 0;
                KNOWN_RUN_INTERVAL.max(INTERVAL_PER_KNOWN_RUN.saturating_mul(count))
            }
            Probed::Ended => return Decision::Fetch,
            Probed::Unknown => {
                let doubled = PROBE_INTERVALS[0].saturating_mul(1 << entry.failures.min(16));
                entry.failures = entry.failures.saturating_add(1);
                doubled.min(MAX_FAILED_INTERVAL)
            }
            Probed::Missing => {
                entry.missing = entry.missing.saturating_add(1);
                match PROBE_INTERVALS.get(usize::from(entry.missing)) {
                    Some(interval) => *interval,
                    None if entry.was_observed => return Decision::Fetch,
                    None => return Decision::Missing,
                }
            }
        };
        self.schedule(run, now + interval);
        Decision::Wait
    }

    fn schedule(&mut self, run: RunId, at: Instant) {
        let due = self.due(at);
        let Some(entry) = self.runs.get_mut(&run) else { return };
        // A run has one probe at a time.
        if let Some(earlier) = entry.due.replace(due) {
            self.probes.remove(&(earlier, run));
        }
        self.probes.insert((due, run));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn run(number: u128) -> RunId {
        uuid::Uuid::from_u128(number).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_new_for_its_first_waiter_only() {
        let mut waiting = Waiting::default();
        let probe = Instant::now() + PROBE_INTERVALS[0];
        assert!(waiting.add(run(1), probe, false, 'a'));
        assert!(!waiting.add(run(1), probe, false, 'b'));
        assert_eq!(waiting.take(run(1)), ['a', 'b']);
        assert_eq!(waiting.next_probe(), None, "the probe is removed with the run");
        assert!(waiting.take(run(1)).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_never_seen_is_missing_after_four_probes() {
        let mut waiting = Waiting::default();
        let start = Instant::now();
        waiting.add(run(1), start + PROBE_INTERVALS[0], false, 'a');
        let mut at = Vec::new();
        loop {
            let now = waiting.next_probe().unwrap();
            at.push((now - start).as_secs());
            assert_eq!(waiting.take_due(now), Some(run(1)));
            if waiting.probed(now, run(1), Probed::Missing) == Decision::Missing {
                break;
            }
        }
        assert_eq!(at, [1, 3, 7, 15]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_was_seen_is_left_to_the_stream() {
        let mut waiting = Waiting::default();
        let now = Instant::now();
        waiting.add(run(1), now + PROBE_INTERVALS[0], false, 'a');
        assert_eq!(waiting.take_due(now), None, "not before its time");
        assert_eq!(waiting.take_due(now + PROBE_INTERVALS[0]), Some(run(1)));
        assert_eq!(waiting.probed(now, run(1), Probed::Running), Decision::Wait);
        assert_eq!(waiting.next_probe(), Some(now + KNOWN_RUN_INTERVAL), "in case the stream loses it");
        assert_eq!(waiting.probed(now, run(1), Probed::Ended), Decision::Fetch);
    }

    #[tokio::test(start_paused = true)]
    async fn very_many_runs_are_probed_less_often() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for number in 0..100_000 {
            waiting.add(run(number), now, false, 'a');
        }
        assert_eq!(waiting.probed(now, run(1), Probed::Running), Decision::Wait);
        let next = waiting.at(waiting.runs[&run(1)].due.unwrap());
        assert_eq!(next - now, Duration::from_secs(5000), "20 per second");
    }

    #[tokio::test(start_paused = true)]
    async fn failed_probes_do_not_count_and_become_rare() {
        let mut waiting = Waiting::default();
        let mut now = Instant::now();
        waiting.add(run(1), now + PROBE_INTERVALS[0], false, 'a');
        let mut pauses = Vec::new();
        for _ in 0..8 {
            now = waiting.next_probe().unwrap();
            waiting.take_due(now);
            assert_eq!(waiting.probed(now, run(1), Probed::Unknown), Decision::Wait);
            pauses.push((waiting.next_probe().unwrap() - now).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(waiting.probed(now, run(1), Probed::Missing), Decision::Wait);
        assert_eq!(waiting.next_probe(), Some(now + PROBE_INTERVALS[1]), "each run has one probe");
    }

    #[tokio::test(start_paused = true)]
    async fn an_observed_run_is_never_missing() {
        for observed_by_waiter in [true, false] {
            let mut waiting = Waiting::default();
            let now = Instant::now();
            waiting.add(run(1), now, observed_by_waiter, 'a');
            if !observed_by_waiter {
                for _ in 0..3 {
                    assert_eq!(waiting.probed(now, run(1), Probed::Missing), Decision::Wait);
                }
                assert_eq!(waiting.probed(now, run(1), Probed::Running), Decision::Wait);
            }
            for _ in 0..3 {
                assert_eq!(waiting.probed(now, run(1), Probed::Missing), Decision::Wait);
            }
            assert_eq!(waiting.probed(now, run(1), Probed::Missing), Decision::Fetch, "only a fetch can decide");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_removed_with_its_last_waiter() {
        let mut waiting = Waiting::default();
        let probe = Instant::now() + PROBE_INTERVALS[0];
        waiting.add(run(1), probe, false, 'a');
        waiting.add(run(2), probe, false, 'b');
        waiting.leave(run(1), |waiter| *waiter == 'a');
        waiting.leave(run(2), |waiter| *waiter == 'a');
        assert_eq!(waiting.len(), 1);
        waiting.leave(run(2), |waiter| *waiter == 'b');
        assert!(waiting.is_empty() && waiting.next_probe().is_none());
    }

    /// The time for all of them must not grow with the square of their number.
    #[tokio::test(start_paused = true)]
    async fn many_waiters_of_one_run_leave_one_by_one() {
        const COUNT: usize = 10_000;
        let (mut waiting, checks) = (Waiting::default(), Cell::new(0));
        let probe = Instant::now() + PROBE_INTERVALS[0];
        for number in 0..COUNT {
            waiting.add(run(1), probe, false, number);
        }
        for left in 0..COUNT {
            let is_gone = |waiter: &usize| {
                checks.set(checks.get() + 1);
                *waiter <= left
            };
            assert_eq!(waiting.leave(run(1), is_gone), left == COUNT - 1, "with the last one");
        }
        assert!(waiting.is_empty() && waiting.next_probe().is_none());
        assert!(checks.get() <= 4 * COUNT, "{}", checks.get());
    }

    /// What happens, in any order. Runs are 0 to 3.
    #[derive(Debug, Clone)]
    enum Event {
        Wait {
            run: u128,
            was_observed: bool,
        },
        Leave {
            waiter: usize,
        },
        /// The stream reports the end of a run, perhaps again.
        Result {
            run: u128,
        },
        /// Time passes. The probes that are due are sent, and their responses arrive, perhaps in another order.
        Probe {
            seconds: u64,
            responses: Vec<Probed>,
            reversed: bool,
        },
        /// The stream is opened again.
        Reopen,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let probed =
            prop_oneof![Just(Probed::Running), Just(Probed::Ended), Just(Probed::Missing), Just(Probed::Unknown)];
        let event = prop_oneof![
            (0u128..4, any::<bool>()).prop_map(|(run, was_observed)| Event::Wait { run, was_observed }),
            (0usize..40).prop_map(|waiter| Event::Leave { waiter }),
            (0u128..4).prop_map(|run| Event::Result { run }),
            (0u64..20, proptest::collection::vec(probed, 0..5), any::<bool>())
                .prop_map(|(seconds, responses, reversed)| Event::Probe { seconds, responses, reversed }),
            Just(Event::Reopen),
        ];
        proptest::collection::vec(event, 0..80)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        /// Whatever the order, what is repeated and what is lost: each waiter is answered once or has left, the stream is asked about
        /// each run that somebody waits for, and each such run is probed again some time.
        #[test]
        fn each_waiter_is_answered_once(events in events()) {
            let (mut waiting, mut now) = (Waiting::default(), Instant::now());
            // The waiters, the runs that they wait for, and what the stream was asked about.
            let (mut open, mut asked): (BTreeMap<usize, u128>, BTreeSet<u128>) = (BTreeMap::new(), BTreeSet::new());
            let mut count = 0;
            // Those that have left may be returned with others that wait for the same run.
            let left = RefCell::new(BTreeSet::new());
            let answer = |open: &mut BTreeMap<usize, u128>, run: u128, waiters: Vec<usize>| {
                for waiter in waiters.iter().filter(|waiter| !left.borrow().contains(*waiter)) {
                    prop_assert_eq!(open.remove(waiter), Some(run), "answered twice, or for another run");
                }
                prop_assert!(!open.values().any(|other| *other == run), "all who wait for a run are answered together");
                Ok(())
            };
            for event in events {
                let mut probing = Vec::new();
                match event {
                    Event::Wait { run: number, was_observed } => {
                        let is_new = waiting.add(run(number), now + PROBE_INTERVALS[0], was_observed, count);
                        prop_assert_eq!(is_new, !open.values().any(|other| *other == number));
                        if is_new {
                            asked.insert(number);
                        }
                        open.insert(count, number);
                        count += 1;
                    }
                    Event::Leave { waiter } => {
                        if let Some(number) = open.remove(&waiter) {
                            left.borrow_mut().insert(waiter);
                            let is_last = waiting.leave(run(number), |other| left.borrow().contains(other));
                            prop_assert_eq!(is_last, !open.values().any(|other| *other == number));
                        }
                    }
                    Event::Result { run: number } => {
                        let waiters = waiting.take(run(number));
                        answer(&mut open, number, waiters)?;
                    }
                    Event::Probe { seconds, responses, reversed } => {
                        now += Duration::from_secs(seconds);
                        while let Some(run) = waiting.take_due(now) {
                            probing.push(run);
                        }
                        if reversed {
                            probing.reverse();
                        }
                        let responses = responses.into_iter().chain(std::iter::repeat(Probed::Unknown));
                        for (found, probed) in probing.drain(..).zip(responses) {
                            if waiting.probed(now, found, probed) != Decision::Wait {
                                let number = (0..4).find(|number| run(*number) == found).unwrap();
                                let waiters = waiting.take(found);
                                answer(&mut open, number, waiters)?;
                            }
                        }
                    }
                    Event::Reopen => asked = (0..4).filter(|number| waiting.runs().contains(&run(*number))).collect(),
                }
                let runs: BTreeSet<_> = open.values().copied().collect();
                prop_assert_eq!(waiting.len(), runs.len());
                prop_assert!(runs.is_subset(&asked), "the stream was not asked about all of {:?}", runs);
                prop_assert_eq!(waiting.probes.len(), runs.len(), "each run has one probe");
            }
            let all = waiting.take_all().filter(|waiter| !left.borrow().contains(waiter));
            prop_assert_eq!(all.count(), open.len());
            prop_assert!(waiting.next_probe().is_none() && waiting.is_empty());
        }
    }
}
