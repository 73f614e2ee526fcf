//! Looks up a run that is only known by an event.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::outage::Outage;
use crate::client::Client;
use crate::error::Result;
use crate::model::RunId;
use crate::observe::if_found;
use crate::rpc::convert::RestRun;
use crate::transport::Polling;

/// For how long a run is fetched that REST does not have yet, and the longest pause before the next time. Usually, it has a run 0.1 s after
/// its start; under load, up to eight seconds later.
const MAX_LAG: Duration = Duration::from_secs(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// What is read from a run.
pub(super) type Lookup<T> = BoxFuture<'static, (RunId, Result<Option<T>>)>;

/// Fetches a run with one request, and reads something from it. `None` if REST does not have the run. The requests are limited together
/// with those of all watches.
pub(super) fn lookup<T: Send + 'static>(
    client: &Client,
    run: RunId,
    read: impl FnOnce(RestRun) -> T + Send + 'static,
) -> Lookup<T> {
    let (owned, fetcher) = (client.clone(), client.feed().fetcher.clone());
    let request = async move {
        let mut outage = Outage::default();
        let mut missing: Option<Polling> = None;
        loop {
            let permit = owned.feed().fetcher.gate().pass(1).await;
            let found = if_found(owned.rpc().rest.run(run).await);
            drop(permit);
            match found {
                Ok(Some(found)) => return Ok(Some(read(found))),
                Ok(None) => {
                    let polling = || Polling::backoff(MAX_PAUSE, Instant::now() + MAX_LAG);
                    if !missing.get_or_insert_with(polling).again().await {
                        return Ok(None);
                    }
                }
                Err(error) => {
                    missing = None;
                    outage.pause(&owned, error).await?;
                }
            }
        }
    };
    Box::pin(async move { (run, fetcher.spawn(request).await.map_err(|error| error.of_run(run))) })
}
