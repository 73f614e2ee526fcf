//! Entry functions of `benches/instructions`, for code that no public function calls alone.

use crate::client::Client;
use crate::watch::bench;

/// Takes the steps of watches of this many short runs, [`STEPS`] for each. Returns the number of changes.
pub fn steps(runs: usize) -> usize {
    bench::steps(runs)
}

/// The number of steps for each run in [`steps`].
pub const STEPS: usize = bench::STEPS;

/// Passes messages of the subscription to results to their waiters, while this many wait. Returns how many were answered.
pub fn dispatch_results(client: &Client, waiting: usize, messages: usize) -> usize {
    client.feed().results.dispatch(waiting, messages)
}

/// Passes messages of the subscription to run events to their watches, while this many runs are watched. Returns how many have arrived.
pub fn dispatch_events(client: &Client, watched: usize, messages: usize) -> usize {
    client.feed().events.dispatch(client.feed().tag(), watched, messages)
}
