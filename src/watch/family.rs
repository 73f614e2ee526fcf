//! Which runs descend from a run: the pure core of a stream with the chunks of children.
//!
//! Events do not contain the parent of a run. So the parent of each run that sends chunks is looked up once, and its chunks wait for that.
//! A run is looked up only if one of its chunks can wait, so the number of lookups is limited, too.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::feed::MAX_DEPTH;
use crate::model::{Chunk, RunId};

/// The number and the bytes of chunks that wait for the parent of their run. More are dropped and counted.
const MAX_HELD: usize = 8192;
const MAX_HELD_BYTES: usize = 16 << 20;
/// The number of runs whose parents are remembered.
const MAX_KNOWN: usize = 10_000;

#[derive(Debug)]
pub(super) struct Family {
    root: RunId,
    /// The parent of each run that was looked up.
    parents: HashMap<RunId, Option<RunId>>,
    looked_up: HashSet<RunId>,
    /// The chunks that wait, each with its number, by the run whose parent decides about them.
    held: HashMap<RunId, Vec<(u64, Chunk)>>,
    count: usize,
    bytes: usize,
    /// The number of chunks that have waited.
    last: u64,
    dropped: u64,
}

/// What becomes of a chunk.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Taken {
    /// The chunk, if its run descends from the root.
    pub(super) chunk: Option<Chunk>,
    /// The run whose parent must be looked up.
    pub(super) lookup: Option<RunId>,
}

/// What follows from the parent of a run.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    pub(super) chunks: Vec<Chunk>,
    /// The run whose parent must be looked up next.
    pub(super) lookup: Option<RunId>,
}

enum Relation {
    Descendant,
    Unrelated,
    /// It depends on the parent of this run.
    Unknown(RunId),
}

impl Family {
    pub(super) fn new(root: RunId) -> Self {
        let (parents, looked_up) = (HashMap::new(), HashSet::new());
        Self { root, parents, looked_up, held: HashMap::new(), count: 0, bytes: 0, last: 0, dropped: 0 }
    }

    /// Whether a run is the root or descends from it, as far as is known.
    pub(super) fn contains(&self, run: RunId) -> bool {
        matches!(self.relation(run), Relation::Descendant)
    }

    /// The runs whose parents are being looked up, and of which a chunk waits that was sent until a time.
    pub(super) fn unknown(&self, until: Option<DateTime<Utc>>) -> HashSet<RunId> {
        let was_sent = |(_, chunk): &(u64, Chunk)| chunk.sent_at.zip(until).is_none_or(|(sent, until)| sent <= until);
        self.held.iter().filter(|(_, chunks)| chunks.iter().any(was_sent)).map(|(run, _)| *run).collect()
    }

    /// The number of chunks that were dropped because too many waited.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn take(&mut self, chunk: Chunk) -> Taken {
        match self.relation(chunk.run_id) {
            Relation::Descendant => Taken { chunk: Some(chunk), lookup: None },
            Relation::Unrelated => Taken::default(),
            Relation::Unknown(run) => {
                let size = chunk.content.len();
                if self.count >= MAX_HELD || self.bytes.saturating_add(size) > MAX_HELD_BYTES {
                    self.dropped += 1;
                    return Taken::default();
                }
                self.count += 1;
                self.bytes = self.bytes.saturating_add(size);
                self.last += 1;
                self.held.entry(run).or_default().push((self.last, chunk));
                Taken { chunk: None, lookup: self.looked_up.insert(run).then_some(run) }
            }
        }
    }

    /// The run does not exist, or not yet. Its chunks are dropped. It is looked up again for the next one.
    pub(super) fn not_found(&mut self, run: RunId) {
        self.looked_up.remove(&run);
        let chunks = self.held.remove(&run).unwrap_or_default();
        self.dropped += chunks.len() as u64;
        self.no_longer_held(&chunks);
    }

    /// The parent of a run cannot be found, whatever is tried. The run may be of somebody else. Its chunks are dropped, from now on without
    /// being counted.
    pub(super) fn failed(&mut self, run: RunId) -> Found {
        self.not_found(run);
        self.found(run, None)
    }

    /// The parent of a run was found, or the run has none.
    pub(super) fn found(&mut self, run: RunId, parent: Option<RunId>) -> Found {
        self.looked_up.remove(&run);
        if self.parents.len() >= MAX_KNOWN {
            self.parents.clear();
        }
        self.parents.insert(run, parent);
        let Some(mut chunks) = self.held.remove(&run) else { return Found::default() };
        // They wait together, so that what holds for the run holds for all of them.
        match self.relation(run) {
            Relation::Unknown(ancestor) => {
                self.held.entry(ancestor).or_default().append(&mut chunks);
                Found { chunks: Vec::new(), lookup: self.looked_up.insert(ancestor).then_some(ancestor) }
            }
            Relation::Unrelated => {
                self.no_longer_held(&chunks);
                Found::default()
            }
            Relation::Descendant => {
                self.no_longer_held(&chunks);
                chunks.sort_unstable_by_key(|(number, _)| *number);
                Found { chunks: chunks.into_iter().map(|(_, chunk)| chunk).collect(), lookup: None }
            }
        }
    }

    fn no_longer_held(&mut self, chunks: &[(u64, Chunk)]) {
        self.count -= chunks.len();
        self.bytes -= chunks.iter().map(|(_, chunk)| chunk.content.len()).sum::<usize>();
    }

    fn relation(&self, run: RunId) -> Relation {
        let mut ancestor = run;
        for _ in 0..MAX_DEPTH {
            if ancestor == self.root {
                return Relation::Descendant;
            }
            match self.parents.get(&ancestor) {
                Some(Some(parent)) => ancestor = *parent,
                Some(None) => return Relation::Unrelated,
                None => return Relation::Unknown(ancestor),
            }
        }
        Relation::Unrelated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ChunkContent;

    fn run(number: u128) -> RunId {
        uuid::Uuid::from_u128(number).into()
    }

    fn chunk(number: u128, text: &str) -> Chunk {
        let task_id = uuid::Uuid::from_u128(number).into();
        Chunk { run_id: run(number), task_id, index: None, sent_at: None, content: ChunkContent::Text(text.into()) }
    }

    fn texts(chunks: &[Chunk]) -> Vec<String> {
        chunks.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn chunks_wait_for_the_ancestors_of_their_run() {
        let mut family = Family::new(run(1));
        assert_eq!(family.take(chunk(1, "a")), Taken { chunk: Some(chunk(1, "a")), lookup: None });
        assert_eq!(family.take(chunk(3, "b")), Taken { chunk: None, lookup: Some(run(3)) });
        assert_eq!(family.take(chunk(3, "c")), Taken::default());
        assert_eq!(family.take(chunk(4, "d")), Taken { chunk: None, lookup: Some(run(4)) });
        // Run 3 is a child of run 2, which is a child of the root. Run 4 is not.
        assert_eq!(family.found(run(3), Some(run(2))), Found { chunks: Vec::new(), lookup: Some(run(2)) });
        assert_eq!(family.found(run(4), None), Found::default());
        assert_eq!(texts(&family.found(run(2), Some(run(1))).chunks), ["b", "c"]);
        assert_eq!(family.take(chunk(3, "e")).chunk, Some(chunk(3, "e")));
        assert_eq!(family.take(chunk(4, "f")), Taken::default());
        assert!(family.held.is_empty() && family.looked_up.is_empty() && family.dropped() == 0);
    }

    #[test]
    fn the_chunks_of_a_run_that_is_not_found_are_counted() {
        let mut family = Family::new(run(1));
        assert_eq!(family.take(chunk(2, "a")).lookup, Some(run(2)));
        assert_eq!(family.take(chunk(3, "b")).lookup, Some(run(3)));
        family.not_found(run(2));
        assert_eq!((family.dropped(), family.count, family.bytes), (1, 1, 1));
        assert_eq!(family.take(chunk(2, "c")).lookup, Some(run(2)), "it may exist by now");
        assert_eq!(texts(&family.found(run(2), Some(run(1))).chunks), ["c"]);
    }

    #[test]
    fn a_run_whose_lookup_fails_is_not_looked_up_again() {
        let mut family = Family::new(run(1));
        assert_eq!(family.take(chunk(2, "a")).lookup, Some(run(2)));
        assert_eq!(family.take(chunk(3, "b")).lookup, Some(run(3)));
        assert_eq!(family.failed(run(2)), Found::default());
        assert_eq!((family.dropped(), family.bytes), (1, 1));
        assert_eq!(family.take(chunk(2, "c")), Taken::default());
        assert_eq!(texts(&family.found(run(3), Some(run(1))).chunks), ["b"], "others are not affected");
    }

    /// Those of several runs that wait for the same ancestor.
    #[test]
    fn chunks_are_in_order_after_they_have_waited() {
        let mut family = Family::new(run(1));
        for (number, text) in [(3, "a"), (4, "b"), (3, "c"), (2, "d"), (4, "e"), (5, "f")] {
            family.take(chunk(number, text));
        }
        assert_eq!(family.found(run(4), Some(run(2))), Found::default(), "it is looked up already");
        assert_eq!(family.found(run(3), Some(run(2))), Found::default());
        assert_eq!((family.count, family.bytes), (6, 6));
        assert_eq!(texts(&family.found(run(2), Some(run(1))).chunks), ["a", "b", "c", "d", "e"]);
        assert_eq!(family.found(run(5), None), Found::default());
        assert_eq!((family.count, family.bytes, family.dropped()), (0, 0, 0));
    }

    #[test]
    fn a_cycle_of_parents_has_no_root() {
        let mut family = Family::new(run(1));
        family.take(chunk(2, "a"));
        family.found(run(2), Some(run(3)));
        assert_eq!(family.found(run(3), Some(run(2))), Found::default());
        assert!(family.held.is_empty());
    }

    /// What is sent by runs that begin after the end does not delay it.
    #[test]
    fn the_end_waits_for_the_runs_that_have_sent_something_before_it() {
        let mut family = Family::new(run(1));
        let at = |second| DateTime::from_timestamp(second, 0);
        for (number, second) in [(2, 5), (3, 20), (3, 21), (4, 10)] {
            family.take(Chunk { sent_at: at(second), ..chunk(number, "x") });
        }
        family.take(chunk(5, "x"));
        assert_eq!(family.unknown(at(10)), [run(2), run(4), run(5)].into());
        assert_eq!(family.unknown(None), [run(2), run(3), run(4), run(5)].into());
        // Its parent is looked up next.
        family.found(run(2), Some(run(6)));
        assert_eq!(family.unknown(at(10)), [run(6), run(4), run(5)].into());
    }

    #[test]
    fn the_lookups_are_limited_with_the_chunks_that_wait() {
        let mut family = Family::new(run(1));
        for number in 0..MAX_HELD as u128 + 2 {
            let is_looked_up = family.take(chunk(10 + number, "x")).lookup.is_some();
            assert_eq!(is_looked_up, number < MAX_HELD as u128);
        }
        assert_eq!((family.looked_up.len(), family.dropped()), (MAX_HELD, 2));
    }

    #[test]
    fn the_chunks_that_wait_are_limited() {
        let mut family = Family::new(run(1));
        for _ in 0..MAX_HELD + 2 {
            family.take(chunk(2, "x"));
        }
        assert_eq!(family.dropped(), 2);
        assert_eq!(family.found(run(2), Some(run(1))).chunks.len(), MAX_HELD);
        family.take(chunk(3, &"x".repeat(MAX_HELD_BYTES)));
        family.take(chunk(3, "x"));
        assert_eq!(family.dropped(), 3);
    }
}
