//! Events that were pushed.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{EventDetails, EventId, RunId, RunStatus, StatusCounts, metadata};
use crate::request::ReadBuilder;
use crate::rpc::convert::rest_events_and_crons::Event;
use crate::rpc::convert::rest_input;
use crate::run::RunHandle;
use crate::transport::Polling;

/// How long to wait for an event that this client pushed. The engine's history usually lags by a tenth of a second, under load by up
/// to eight seconds.
const PUSHED_EVENT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for any other event.
const EVENT_TIMEOUT: Duration = Duration::from_secs(1);
/// For how long the number of runs must not change. The server shows an event before its runs, and the runs one after the other.
const STABLE_FOR: Duration = Duration::from_millis(300);
/// How long to wait for runs if there are none.
const NO_RUNS_TIMEOUT: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A handle to an event.
///
/// A handle is cheap to clone.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, id: hatchet::model::EventId) -> hatchet::Result<()> {
/// let event = hatchet.event_handle(id);
/// for run in event.runs().await? {
///     println!("{} {}", run.id(), run.outcome().await?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EventHandle {
    client: Client,
    id: EventId,
    /// The key without the namespace, if this client pushed the event.
    key: Option<String>,
}

impl Client {
    /// Returns a handle to an existing event.
    ///
    /// Nothing is sent, so this does not check that the event exists; the methods of the handle report a missing event.
    pub fn event_handle(&self, id: EventId) -> EventHandle {
        EventHandle { client: self.clone(), id, key: None }
    }
}

impl EventHandle {
    pub(super) fn pushed(client: Client, id: EventId, key: String) -> Self {
        Self { client, id, key: Some(key) }
    }

    /// Returns the id. Another process can pass it to [`Client::event_handle`].
    pub fn id(&self) -> EventId {
        self.id
    }

    /// Returns the key without the namespace if this client pushed the event, and `None` otherwise.
    ///
    /// [`details`](Self::details) always contains the key.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns the client that this handle uses.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns a request for the details of the event: its key, its payload, its metadata, and its runs with their statuses.
    ///
    /// The engine's history contains an event about a tenth of a second after it was pushed. The request waits for the event: up to 10
    /// seconds if this client pushed it, otherwise up to 1 second. The runs appear later: [`runs`](Self::runs) waits for them.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the server has no such event.
    ///
    /// # Cancel safety
    /// The request is cancel safe: it only reads.
    pub fn details(&self) -> ReadBuilder<EventDetails> {
        let (id, timeout) = (self.id, self.creation_timeout());
        ReadBuilder::new(&self.client, move |client| async move { fetch(&client, id, timeout).await })
    }

    /// Returns a request for the runs that the event started. The result is empty if no workflow listens to the key of the event.
    ///
    /// The request waits until the engine's history contains the event, and then until the number of the event's runs has not changed for
    /// 300 ms, or for 1 second while there are none. If the history lags by seconds, runs may be missing.
    ///
    /// ```no_run
    /// # async fn example(event: hatchet::handle::EventHandle) -> hatchet::Result<()> {
    /// for run in event.runs().await? {
    ///     println!("{}", run.outcome().await?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`details`](Self::details).
    ///
    /// # Cancel safety
    /// The request is cancel safe: it only reads.
    pub fn runs(&self) -> ReadBuilder<Vec<RunHandle>> {
        let (id, timeout) = (self.id, self.creation_timeout());
        ReadBuilder::new(&self.client, move |client| async move { fetch_runs(&client, id, timeout).await })
    }

    /// How long to wait for the event if the engine's history does not contain it.
    fn creation_timeout(&self) -> Duration {
        if self.key.is_some() { PUSHED_EVENT_TIMEOUT } else { EVENT_TIMEOUT }
    }
}

async fn fetch(client: &Client, id: EventId, timeout: Duration) -> Result<EventDetails> {
    let mut polling = Polling::every(POLL_INTERVAL, Instant::now() + timeout);
    loop {
        match client.rpc().rest.event(id).await {
            Ok(event) => return Ok(details(client, event)),
            Err(error) if error.is_not_found() => {
                if !polling.again().await {
                    let text = format!("the server has no event {id}");
                    return Err(Error::new(ErrorKind::NotFound, text).with_source(error));
                }
            }
            Err(error) => return Err(error),
        }
    }
}

async fn fetch_runs(client: &Client, id: EventId, timeout: Duration) -> Result<Vec<RunHandle>> {
    let mut runs = fetch(client, id, timeout).await?.run_ids;
    let stable_at = |runs: &[RunId]| Instant::now() + if runs.is_empty() { NO_RUNS_TIMEOUT } else { STABLE_FOR };
    let mut polling = Polling::every(POLL_INTERVAL, stable_at(&runs));
    while polling.again().await {
        let now = fetch(client, id, timeout).await?.run_ids;
        if now.len() != runs.len() {
            polling.set_deadline(stable_at(&now));
            runs = now;
        }
    }
    Ok(runs.into_iter().map(|run| client.without_options().run_handle(run)).collect())
}

impl fmt::Debug for EventHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventHandle").field("id", &self.id).field("key", &self.key).finish_non_exhaustive()
    }
}

fn details(client: &Client, event: Event) -> EventDetails {
    let (user, engine) = metadata::split(event.additional_metadata.unwrap_or_default());
    let runs = event.triggered_runs.unwrap_or_default();
    let counts = event.workflow_run_summary;
    EventDetails {
        id: event.metadata.id,
        key: client.unprefixed(&event.key),
        payload: rest_input(event.payload.as_deref()),
        metadata: user,
        engine_metadata: engine,
        scope: event.scope,
        created_at: event.seen_at.or(event.metadata.created_at),
        run_ids: runs.iter().map(|run| run.workflow_run_id).collect(),
        counts: StatusCounts::new([
            (RunStatus::Queued, counts.queued),
            (RunStatus::Running, counts.running),
            (RunStatus::Completed, counts.succeeded),
            (RunStatus::Failed, counts.failed),
            (RunStatus::Cancelled, counts.cancelled),
        ]),
    }
}
