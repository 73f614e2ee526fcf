//! The effects of commands: what they have in common, and waiting for those of a cancellation.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::model::{Effect, RunDetails, RunId, RunStatus};
use crate::observe::RunFetch;
use crate::sync::lock;
use crate::transport::Polling;

/// The number of concurrent calls if each run has a call of its own.
pub(super) const MAX_CONCURRENT_CALLS: usize = 16;
/// The maximum interval between fetches of a run after its cancellation or replay.
pub(super) const MAX_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Each of the runs once, in order.
pub(super) fn distinct(runs: &[RunId]) -> Vec<RunId> {
    let mut known = HashSet::new();
    runs.iter().copied().filter(|run| known.insert(*run)).collect()
}

/// The effect on a run whose fetch failed before the command was sent.
pub(super) fn effect_if_not_sent(error: Error) -> Effect {
    if error.is_not_found() { Effect::NotFound } else { Effect::Unknown(error.without_side_effects()) }
}

/// The effect on a run whose fetch failed after the command was sent.
pub(super) fn effect_if_unconfirmed(error: Error) -> Effect {
    Effect::Unknown(error.with_possible_side_effects())
}

/// When a run of a command last ended. The batches of a command share it: the engine cancels one run after the other, so the last batch
/// has an effect long after it was sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<Mutex<Option<Instant>>>);

impl Progress {
    fn record(&self) {
        *lock(&self.0) = Some(Instant::now());
    }

    fn last(&self) -> Option<Instant> {
        *lock(&self.0)
    }
}

/// Fetches the runs until all have ended, or no run of the command has ended for the time that an effect may take.
pub(super) async fn wait_for_cancels(
    client: &Client,
    runs: Vec<RunId>,
    within: Duration,
    progress: &Progress,
) -> BTreeMap<RunId, Effect> {
    let sent_at = Instant::now();
    let deadline = || progress.last().map_or(sent_at, |last| last.max(sent_at)) + within;
    let (mut pending, mut effects) = (runs, BTreeMap::new());
    let mut polling = Polling::backoff(MAX_POLL_INTERVAL, deadline());
    loop {
        let reads = stream::iter(std::mem::take(&mut pending)).map(|run| async move {
            let effect = current_effect(client, run).await;
            if matches!(effect, Ok(Effect::Applied | Effect::FinishedFirst(_))) {
                progress.record();
            }
            (run, effect)
        });
        let fetched: Vec<_> = reads.buffered(MAX_CONCURRENT_CALLS).collect().await;
        for (run, effect) in fetched {
            effects.insert(
                run,
                effect.unwrap_or_else(|current| {
                    pending.push(run);
                    current
                }),
            );
        }
        polling.set_deadline(deadline());
        if pending.is_empty() || !polling.again().await {
            return effects;
        }
    }
}

/// Fetches the effect of a cancellation on a run. `Err` contains the effect so far, which a later fetch may change.
async fn current_effect(client: &Client, run: RunId) -> std::result::Result<Effect, Effect> {
    let unknown = |error: Error| {
        let may_change = error.may_recover();
        let effect = effect_if_unconfirmed(error);
        if may_change { Err(effect) } else { Ok(effect) }
    };
    // The final status in gRPC. `None` if the run is too large for gRPC.
    let grpc = match client.rpc().admin.run_details(run).await {
        Ok(details) if details.done && details.status.is_final() => Some(details.status),
        Ok(details) => return Err(Effect::NoEffect(details.status)),
        // The run is too large for this call: its details show whether it has ended.
        Err(error) if error.kind() == ErrorKind::TooLarge => None,
        Err(error) => return unknown(error),
    };
    match RunFetch::new(run).fetch(client).await {
        Ok(RunDetails { outcome: Some(outcome), .. }) if outcome.status() == RunStatus::Cancelled => {
            Ok(Effect::Applied)
        }
        Ok(RunDetails { outcome: Some(outcome), .. }) => Ok(Effect::FinishedFirst(outcome.status())),
        Ok(details) => Err(Effect::NoEffect(details.status)),
        // Without REST, gRPC decides: the run had not ended when it was cancelled.
        Err(error) if error.is_rest_unreached() => match grpc {
            Some(RunStatus::Cancelled) => Ok(Effect::Applied),
            Some(status) => Ok(Effect::FinishedFirst(status)),
            None => unknown(error),
        },
        Err(error) => unknown(error),
    }
}
