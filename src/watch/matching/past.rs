//! The runs since a time in the past: a change of each is returned before those of newer runs.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::model::RunId;

/// The number of runs that events announce meanwhile and that are remembered. A list finds the others.
const MAX_DELAYED: usize = 10_000;

/// The time of the event that has announced a run.
pub(super) type Announced = Option<DateTime<Utc>>;

#[derive(Debug, Default)]
pub(super) struct Past {
    /// The runs that were listed, and of which no change was returned yet.
    listed: HashSet<RunId>,
    /// The runs that events have announced, and no list.
    delayed: HashMap<RunId, Announced>,
}

impl Past {
    /// A list has shown a run, which is watched from now on.
    pub(super) fn listed(&mut self, run: RunId) {
        self.delayed.remove(&run);
        self.listed.insert(run);
    }

    /// A run is not watched.
    pub(super) fn rejected(&mut self, run: RunId) {
        self.delayed.remove(&run);
    }

    /// A change of a run was returned, or its error.
    pub(super) fn returned(&mut self, run: RunId) {
        self.listed.remove(&run);
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

    /// Whether a change of each listed run was returned.
    pub(super) fn is_returned(&self) -> bool {
        self.listed.is_empty()
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

    #[test]
    fn a_run_that_is_announced_and_then_listed_is_not_delayed() {
        let mut past = Past::default();
        assert!(past.is_returned() && past.delay(run(1), None) && past.delay(run(2), None));
        past.listed(run(1));
        assert!(!past.is_returned() && !past.has_delayed(run(1)) && past.has_delayed(run(2)));
        past.returned(run(1));
        assert!(past.is_returned());
        assert_eq!(past.into_delayed().collect::<Vec<_>>(), [(run(2), None)]);
    }

    #[test]
    fn the_first_announcement_counts_and_their_number_is_limited() {
        let mut past = Past::default();
        let (first, second) = (DateTime::from_timestamp(1, 0), DateTime::from_timestamp(2, 0));
        assert!(past.delay(run(0), first) && past.delay(run(0), second));
        assert!((1..MAX_DELAYED).all(|number| past.delay(run(number), None)));
        assert!(!past.delay(run(MAX_DELAYED), None) && !past.has_delayed(run(MAX_DELAYED)));
        assert_eq!(past.into_delayed().find(|(delayed, _)| *delayed == run(0)), Some((run(0), first)));
    }
}
