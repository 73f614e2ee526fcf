//! The operations that are measured.

use serde::{Deserialize, Serialize};

pub(crate) const WORKFLOW: &str = "noop";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Input {
    customer: String,
    number: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(crate) ok: bool,
}

pub(crate) fn input() -> Input {
    Input { customer: "acme".into(), number: 42 }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Starting one run, with 50 tasks that do so at the same time.
    Trigger,
    /// Starting one of the runs of a bulk.
    Bulk,
    /// Starting a run and waiting for its result, one after the other.
    Wait,
    /// Starting a run and watching it until its end, one after the other.
    Watch,
    /// A task of a worker with 100 slots.
    Task,
    /// The same, if the worker sends each report in a call of its own, as the raw loop does. The difference is the dispatch: from the
    /// assignment to the start of the code, and from its end to the report.
    Dispatch,
}

impl Work {
    pub(crate) const ALL: [Self; 6] = [Self::Trigger, Self::Bulk, Self::Wait, Self::Watch, Self::Task, Self::Dispatch];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Bulk => "bulk",
            Self::Wait => "wait",
            Self::Watch => "watch",
            Self::Task => "task",
            Self::Dispatch => "dispatch",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|work| work.name() == name)
    }

    /// Whether a worker in the other process runs the tasks, and the operations mostly wait for it.
    pub(crate) fn waits(self) -> bool {
        matches!(self, Self::Wait | Self::Watch)
    }

    /// Whether the other process is a worker.
    pub(crate) fn is_worker(self) -> bool {
        matches!(self, Self::Task | Self::Dispatch)
    }

    /// The number of operations that are measured; twice this many are done for it.
    pub(crate) fn operations(self) -> usize {
        match self {
            Self::Trigger | Self::Task | Self::Dispatch => 1000,
            Self::Bulk => 5000,
            Self::Wait | Self::Watch => 200,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Raw,
    Sdk,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Sdk => "sdk",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Raw, Self::Sdk].into_iter().find(|side| side.name() == name)
    }
}
