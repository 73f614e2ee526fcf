//! The details of events.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{EventId, Payload, RunId, StatusCounts};

/// An event in the engine's history, with the runs that it has started; see
/// [`EventHandle::details`](crate::handle::EventHandle::details).
///
/// ```no_run
/// # async fn example(event: hatchet::handle::EventHandle) -> hatchet::Result<()> {
/// let details = event.details().await?;
/// println!("{}: {} ({})", details.key, details.payload, details.counts);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EventDetails {
    /// The id, for [`Client::event_handle`](crate::Client::event_handle).
    pub id: EventId,
    /// The key, without the namespace.
    pub key: String,
    /// The payload, which is the input of the runs.
    pub payload: Payload,
    /// The user's metadata.
    pub metadata: BTreeMap<String, Value>,
    /// The metadata that the engine and this crate added.
    pub engine_metadata: BTreeMap<String, Value>,
    /// The scope, which selects the filters, if the event has one.
    pub scope: Option<String>,
    /// When the engine accepted the event, by the engine's clock.
    pub created_at: Option<DateTime<Utc>>,
    /// The runs that the event has started, in no particular order.
    pub run_ids: Vec<RunId>,
    /// The number of these runs by status. Failed runs include timed-out runs.
    pub counts: StatusCounts,
}
