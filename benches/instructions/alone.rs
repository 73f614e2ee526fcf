//! Code that is measured alone, without a connection: a step of a watch, and the dispatch of a message to the one that waits for it. The
//! dispatch is measured with different numbers of waiters: no message may scan all of them.

use hatchet::Client;
use hatchet::bench::{STEPS, dispatch_events, dispatch_results, steps};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alone {
    Step,
    Result,
    Event,
}

impl Alone {
    pub(crate) const ALL: [Self; 3] = [Self::Step, Self::Result, Self::Event];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Result => "result",
            Self::Event => "event",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alone| alone.name() == name)
    }

    /// The numbers of those who wait.
    pub(crate) fn waiting(self) -> &'static [usize] {
        match self {
            Self::Step => &[1],
            Self::Result | Self::Event => &[1000, 100_000],
        }
    }

    /// The number of operations that are measured; twice this many are done for it, and no more than the least number that waits.
    pub(crate) fn operations(self) -> usize {
        match self {
            Self::Step => 300,
            Self::Result | Self::Event => 500,
        }
    }

    pub(crate) fn describe(self, waiting: usize) -> String {
        match self {
            Self::Step => "a step of a watch".into(),
            Self::Result => format!("a result, of {waiting} runs that are awaited"),
            Self::Event => format!("an event, of {waiting} runs that are watched"),
        }
    }

    pub(crate) fn run(self, client: &Client, waiting: usize, count: usize) {
        match self {
            Self::Step => assert_eq!(steps(count / STEPS), count),
            Self::Result => assert_eq!(dispatch_results(client, waiting, count), count),
            Self::Event => assert_eq!(dispatch_events(client, waiting, count), count),
        }
    }
}
