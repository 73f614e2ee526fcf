//! The details of schedules.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Payload, Priority, ScheduleId, WorkflowId};

/// A schedule that has not started its run, with the workflow, the time and the input of the run; see
/// [`ScheduleHandle::details`](crate::handle::ScheduleHandle::details).
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// for schedule in hatchet.schedules().workflow("remind").get().await? {
///     println!("{} at {}", schedule.workflow_name, schedule.scheduled_at);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScheduleDetails {
    /// The id, for [`Client::schedule_handle`](crate::Client::schedule_handle).
    pub id: ScheduleId,
    /// The id of the workflow that is run at this time.
    pub workflow_id: WorkflowId,
    /// The name of the workflow, without the namespace.
    pub workflow_name: String,
    /// When the run will be started.
    pub scheduled_at: DateTime<Utc>,
    /// The input with which the run will be started.
    pub input: Payload,
    /// The user's metadata.
    pub metadata: BTreeMap<String, Value>,
    /// The metadata that this crate added.
    pub engine_metadata: BTreeMap<String, Value>,
    /// The priority of the run. `None` if the server does not report one.
    pub priority: Option<Priority>,
    /// When the schedule was created, by the engine's clock.
    pub created_at: Option<DateTime<Utc>>,
}
