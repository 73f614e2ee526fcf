//! The parents of runs, which never change: looked up once for all streams of a client that have the chunks of children.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use crate::model::RunId;
use crate::sync::lock;

/// The number of runs whose parents are remembered: those that were looked up last.
const MAX_KNOWN: usize = 10_000;
/// The maximum number of generations.
pub(crate) const MAX_DEPTH: usize = 100;

/// The parent of a run, which may have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ParentRun(pub(crate) Option<RunId>);

/// The known parents. It is cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parents(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    by_run: HashMap<RunId, Option<RunId>>,
    /// In the order in which they were added.
    order: VecDeque<RunId>,
}

impl Parents {
    /// The parent of a run. `None` if it is not known.
    pub(crate) fn get(&self, run: RunId) -> Option<ParentRun> {
        lock(&self.0).by_run.get(&run).copied().map(ParentRun)
    }

    pub(crate) fn insert(&self, run: RunId, parent: Option<RunId>) {
        let mut known = lock(&self.0);
        if known.by_run.insert(run, parent).is_none() {
            known.order.push_back(run);
        }
        if known.order.len() > MAX_KNOWN
            && let Some(oldest) = known.order.pop_front()
        {
            known.by_run.remove(&oldest);
        }
    }

    /// A run and all of its ancestors. `None` if they are not all known.
    pub(super) fn lineage(&self, run: RunId) -> Option<Vec<RunId>> {
        let known = lock(&self.0);
        let mut lineage = vec![run];
        let mut last = run;
        while let Some(parent) = *known.by_run.get(&last)? {
            if lineage.len() >= MAX_DEPTH {
                return None;
            }
            lineage.push(parent);
            last = parent;
        }
        Some(lineage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: usize) -> RunId {
        uuid::Uuid::from_u128(number as u128).into()
    }

    #[test]
    fn a_lineage_is_known_to_its_root_or_not_at_all() {
        let parents = Parents::default();
        parents.insert(run(3), Some(run(2)));
        parents.insert(run(2), Some(run(1)));
        assert_eq!((parents.lineage(run(3)), parents.get(run(1))), (None, None));
        parents.insert(run(1), None);
        assert_eq!(parents.lineage(run(3)), Some(vec![run(3), run(2), run(1)]));
        assert_eq!(parents.lineage(run(1)), Some(vec![run(1)]));
        parents.insert(run(4), Some(run(5)));
        parents.insert(run(5), Some(run(4)));
        assert_eq!(parents.lineage(run(4)), None, "a cycle");
    }

    #[test]
    fn the_newest_runs_are_remembered() {
        let parents = Parents::default();
        for number in 0..=MAX_KNOWN {
            parents.insert(run(number), None);
            parents.insert(run(number), None);
        }
        assert_eq!((parents.get(run(0)), parents.get(run(1))), (None, Some(ParentRun(None))));
        let known = lock(&parents.0);
        assert_eq!((known.by_run.len(), known.order.len()), (MAX_KNOWN, MAX_KNOWN));
    }
}
