//! Looks up a run that is only known by an event.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::outage::Outage;
use crate::client::Client;
use crate::error::Result;
use crate::model::RunId;
use crate::observe::if_found;
use crate::rpc::convert::RestRun;

/// How often a run is fetched that REST does not have yet, and the pause before the next time. It has a run 0.1 s after its start.
const MAX_FETCHES: u32 = 10;
const FETCH_INTERVAL: Duration = Duration::from_millis(200);

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
        let (mut outage, mut missing) = (Outage::default(), 0);
        loop {
            let permit = owned.feed().fetcher.gate().pass(1).await;
            let found = if_found(owned.rpc().rest.run(run).await);
            drop(permit);
            let pause = match found {
                Ok(Some(found)) => return Ok(Some(read(found))),
                Ok(None) if missing >= MAX_FETCHES => return Ok(None),
                Ok(None) => {
                    missing += 1;
                    FETCH_INTERVAL
                }
                Err(error) => match outage.failed(Instant::now(), &error, fastrand::f64()) {
                    Some(pause) => pause,
                    None => return Err(error),
                },
            };
            sleep(pause).await;
        }
    };
    Box::pin(async move { (run, fetcher.spawn(request).await.map_err(|error| error.of_run(run))) })
}
