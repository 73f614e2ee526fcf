//! Events that were pushed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::list::StatusCounts;
use crate::model::{EventId, Payload, RunId, RunStatus, convert, metadata};
use crate::rpc::trigger_types;
use crate::run::RunHandle;

/// How long the server's history is waited for: it lags by a tenth of a second, and under load by up to eight.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for an event that this client did not push just now.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);
/// An event is shown before its runs are, and those one after the other.
const QUIET: Duration = Duration::from_millis(300);
/// How long runs are waited for when there are none.
const NONE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);

/// An event, by its id. Cheap to clone.
#[derive(Clone)]
pub struct EventHandle {
    client: Client,
    id: EventId,
    /// Of one that this client pushed: without the namespace.
    key: Option<String>,
}

/// All that is known about an event.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EventDetails {
    /// The event.
    pub id: EventId,
    /// Its key, without the namespace.
    pub key: String,
    /// What it carries.
    pub payload: Payload,
    /// The user's metadata.
    pub metadata: BTreeMap<String, Value>,
    /// The keys that this crate and others added.
    pub engine_metadata: BTreeMap<String, Value>,
    /// Which filters were tried, if it said so.
    pub scope: Option<String>,
    /// When the engine took it in, by the engine's clock.
    pub seen_at: Option<DateTime<Utc>>,
    /// The runs that it started, in no order.
    pub runs: Vec<RunId>,
    /// How many of those are in each state. Timed-out runs are among the failed ones.
    pub counts: StatusCounts,
}

impl Client {
    /// A handle on an event that was pushed before. No round trip: whether it exists, shows when it is asked for something.
    pub fn event_handle(&self, id: EventId) -> EventHandle {
        EventHandle { client: self.clone(), id, key: None }
    }
}

impl EventHandle {
    pub(super) fn pushed(client: Client, id: EventId, key: String) -> Self {
        Self { client, id, key: Some(key) }
    }

    /// The event's id.
    pub fn id(&self) -> EventId {
        self.id
    }

    /// Its key, without the namespace, if this client pushed it; else it is in the [`details`](Self::details).
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The client that it is asked through.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// All that is known about the event now: key, payload, metadata, runs and how they stand.
    ///
    /// The server's history has an event a tenth of a second after it was pushed; that is waited for. Its runs come a moment
    /// later: [`runs`](Self::runs) waits for them.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the server has no such event.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn details(&self) -> Result<EventDetails> {
        let patience = if self.key.is_some() { PATIENCE } else { SHORT_PATIENCE };
        let deadline = Instant::now() + patience;
        loop {
            match self.client.rpc().rest.event(&self.id.to_string()).await {
                Ok(event) => return details(&self.client, event),
                Err(error) if error.is_not_found() && Instant::now() < deadline => sleep(PAUSE).await,
                Err(error) if error.is_not_found() => {
                    let text = format!("the server has no event {}", self.id);
                    return Err(Error::new(ErrorKind::NotFound, text).with_source(error));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The runs that the event has started: none if nobody listens to it.
    ///
    /// Waits until the server's history has the event, and then until no more runs of it appear for a moment. A history that
    /// is seconds behind can show fewer.
    ///
    /// # Errors
    /// As [`details`](Self::details).
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn runs(&self) -> Result<Vec<RunHandle>> {
        let mut runs = self.details().await?.runs;
        let mut since = Instant::now();
        loop {
            let quiet = if runs.is_empty() { NONE } else { QUIET };
            if since.elapsed() >= quiet {
                return Ok(runs.into_iter().map(|run| self.client.run_handle(run)).collect());
            }
            sleep(PAUSE).await;
            let now = self.details().await?.runs;
            if now.len() != runs.len() {
                (runs, since) = (now, Instant::now());
            }
        }
    }
}

impl fmt::Debug for EventHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventHandle").field("id", &self.id).field("key", &self.key).finish_non_exhaustive()
    }
}

fn details(client: &Client, event: trigger_types::Event) -> Result<EventDetails> {
    let (user, engine) = metadata::split(event.additional_metadata.unwrap_or_default());
    let runs = event.triggered_runs.unwrap_or_default();
    let counts = event.workflow_run_summary;
    Ok(EventDetails {
        id: convert::id(&event.metadata.id)?,
        key: client.unprefixed(&event.key),
        payload: convert::rest::input(event.payload.as_deref()),
        metadata: user,
        engine_metadata: engine,
        scope: event.scope,
        seen_at: event.seen_at.or(event.metadata.created_at),
        runs: runs.iter().map(|run| convert::id(&run.workflow_run_id)).collect::<Result<_>>()?,
        counts: StatusCounts::of([
            (RunStatus::Queued, counts.queued),
            (RunStatus::Running, counts.running),
            (RunStatus::Completed, counts.succeeded),
            (RunStatus::Failed, counts.failed),
            (RunStatus::Cancelled, counts.cancelled),
        ]),
    })
}
