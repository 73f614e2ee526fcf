//! Looks up a run that is only known by an event.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::outage::Outage;
use crate::client::Client;
use crate::error::Result;
use crate::feed::{Gate, Turns};
use crate::model::RunId;
use crate::observe::if_found;
use crate::rpc::convert::RestRun;
use crate::transport::Polling;

/// For how long a run is fetched that REST does not have yet, or not with its tasks, and the longest pause before the next time. Usually, it
/// has a run 0.1 s after its start; under load, up to eight seconds later.
pub(super) const MAX_LAG: Duration = Duration::from_secs(10);
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(1);

/// What is read from a run.
pub(super) type Lookup<T> = BoxFuture<'static, (RunId, Result<Option<T>>)>;

/// Fetches a run with one request, and reads something from it that does not change. `None` if REST does not have the run. Lookups of the
/// same run share the request. The requests are limited together with those of all watches. `turns`: those of the stream that needs it.
pub(super) fn lookup<T: Send + 'static>(
    client: &Client,
    run: RunId,
    turns: &Turns,
    read: impl FnOnce(&RestRun) -> T + Send + 'static,
) -> Lookup<T> {
    let (owned, fetcher) = (client.clone(), client.feed().fetcher.clone());
    let gate = fetcher.gate().with_turns(Some(turns.clone()));
    Box::pin(async move {
        let found = fetcher.lookup(run, fetch(owned, run, gate)).await;
        (run, found.map(|found| found.map(|found| read(&found))).map_err(|error| error.of_run(run)))
    })
}

async fn fetch(client: Client, run: RunId, gate: Gate) -> Result<Option<RestRun>> {
    let mut outage = Outage::default();
    let mut missing: Option<Polling> = None;
    loop {
        let permit = gate.pass(1).await;
        let found = if_found(client.rpc().rest.run(run).await);
        drop(permit);
        match found {
            Ok(found) if found.as_ref().is_none_or(RestRun::lacks_parent) => {
                let polling = || Polling::backoff(MAX_PAUSE, Instant::now() + MAX_LAG);
                if !missing.get_or_insert_with(polling).again().await {
                    return Ok(found);
                }
            }
            Ok(found) => return Ok(found),
            Err(error) => {
                missing = None;
                outage.pause(&client, error).await?;
            }
        }
    }
}
