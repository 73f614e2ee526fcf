//! What users hold: ids, states, payloads, runs. `convert/` alone sees protobuf and the server's JSON.

pub(crate) mod convert;
pub(crate) mod cron;
mod details;
mod error;
mod filter;
mod id;
pub(crate) mod idempotency;
pub(crate) mod label;
pub(crate) mod metadata;
pub(crate) mod name;
mod outcome;
pub(crate) mod payload;
mod priority;
mod status;
mod window;

pub use details::{Attempt, Conflict, RunDetails, RunSummary, TaskDetails};
pub use filter::RunFilter;
pub use id::{CronId, EventId, RunId, ScheduleId, TaskId, TenantId, WorkerId, WorkflowId, WorkflowVersionId};
pub use idempotency::Idempotency;
pub use label::{DesiredLabel, LabelValue};
pub use outcome::{Cancellation, Completed, Failure, Outcome, Timeout, TimeoutKind};
pub use payload::Payload;
pub use priority::Priority;
pub use status::{AttemptStatus, InvalidTransition, RunStatus, TRANSITIONS, Verdict, judge};
pub use window::Window;
