//! The runs since a time in the past: a change of each is returned before those of newer runs.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::model::RunId;

/// The number of runs that events announce meanwhile and that are remembered. A list finds the others.
const MAX_DELAYED: usize = 10_000;

/// The time of the event that has announced a run.
pub(super) type Announced = Option<DateTime<Utc>>;

/// Newer runs do not wait any longer if no listed run was returned for this time: the fetch of one can fail again and again.
const MAX_SILENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Past {
    /// The runs that were listed, and of which no change was returned yet.
    listed: HashSet<RunId>,
    /// The runs that have started since: events have announced them, or a list has shown them.
    delayed: HashMap<RunId, Announced>,
    /// When a run was last listed or returned.
    progressed_at: Instant,
}

impl Past {
    pub(super) fn new() -> Self {
        Self { listed: HashSet::new(), delayed: HashMap::new(), progressed_at: Instant::now() }
    }

    /// A list has shown a run, which is watched from now on.
    pub(super) fn listed(&mut self, run: RunId) {
        self.delayed.remove(&run);
        self.listed.insert(run);
        self.progressed_at = Instant::now();
    }

    /// A run is not watched.
    pub(super) fn rejected(&mut self, run: RunId) {
        self.delayed.remove(&run);
    }

    /// A change of a run was returned, or its error.
    pub(super) fn returned(&mut self, run: RunId) {
        if self.listed.remove(&run) {
            self.progressed_at = Instant::now();
        }
    }

    /// Remembers a run, unless there are too many.
    pub(super) fn delay(&mut self, run: RunId, at: Announced) -> bool {
        let has_space = self.delayed.len() < MAX_DELAYED;
        if has_space {
            self.delayed.entry(run).or_insert(at);
        }
        has_space
    }

    pub(super) fn has_delayed(&self, run: RunId) -> bool {
        self.delayed.contains_key(&run)
    }

    /// Whether a change of each listed run was returned, or none for long.
    pub(super) fn is_over(&self) -> bool {
        self.listed.is_empty() || self.over_at() <= Instant::now()
    }

    /// When newer runs do not wait any longer, unless a listed run is returned.
    pub(super) fn over_at(&self) -> Instant {
        self.progressed_at + MAX_SILENCE
    }

    pub(super) fn into_delayed(self) -> impl Iterator<Item = (RunId, Announced)> {
        self.delayed.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: usize) -> RunId {
        uuid::Uuid::from_u128(number as u128).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_never_returned_ends_the_wait_of_newer_ones() {
        let mut past = Past::new();
        (1..=2).for_each(|number| past.listed(run(number)));
        tokio::time::sleep(MAX_SILENCE.saturating_sub(Duration::from_millis(1))).await;
        past.returned(run(1));
        past.returned(run(3));
        tokio::time::sleep(MAX_SILENCE.saturating_sub(Duration::from_millis(1))).await;
        assert!(!past.is_over());
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(past.is_over());
    }

    #[test]
    fn a_run_that_is_announced_and_then_listed_is_not_delayed() {
        let mut past = Past::new();
        assert!(past.is_over() && past.delay(run(1), None) && past.delay(run(2), None));
        past.listed(run(1));
        assert!(!past.is_over() && !past.has_delayed(run(1)) && past.has_delayed(run(2)));
        past.returned(run(1));
        assert!(past.is_over());
        assert_eq!(past.into_delayed().collect::<Vec<_>>(), [(run(2), None)]);
    }

    #[test]
    fn the_first_announcement_counts_and_their_number_is_limited() {
        let mut past = Past::new();
        let (first, second) = (DateTime::from_timestamp(1, 0), DateTime::from_timestamp(2, 0));
        assert!(past.delay(run(0), first) && past.delay(run(0), second));
        assert!((1..MAX_DELAYED).all(|number| past.delay(run(number), None)));
        assert!(!past.delay(run(MAX_DELAYED), None) && !past.has_delayed(run(MAX_DELAYED)));
        assert_eq!(past.into_delayed().find(|(delayed, _)| *delayed == run(0)), Some((run(0), first)));
    }
}
