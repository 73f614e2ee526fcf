//! The keys of runs, tasks and streams in the tables.

/// The first number of a run: high enough not to be confused with an attempt or a count.
const FIRST_NUMBER: u32 = 1_001;

/// The position of a run among all runs, in the order of their creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RunIx(pub(super) u32);

impl RunIx {
    /// A number like a database id.
    pub(crate) fn number(self) -> u32 {
        self.0.saturating_add(FIRST_NUMBER)
    }
}

/// A task: its run, and its position in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TaskKey {
    pub(crate) run: RunIx,
    pub(crate) index: u16,
}

/// A group of tasks that share batches, by the number of its first task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BatchGroupId(pub(super) u64);

/// An open stream, by the number that its opener chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId(pub(crate) u64);
