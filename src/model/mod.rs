//! What users hold: ids, states, payloads, runs. `convert/` alone sees protobuf and the server's JSON.

pub(crate) mod convert;
mod details;
mod error;
mod filter;
mod id;
mod log;
pub(crate) mod metadata;
pub(crate) mod name;
mod outcome;
pub(crate) mod payload;
mod priority;
mod report;
mod status;
mod summary;
pub(crate) mod trigger;
mod window;

pub use details::{Attempt, Conflict, RunDetails, TaskDetails};
pub use filter::RunFilter;
pub use id::{EventId, RunId, TaskId, TenantId, WorkerId, WorkflowId, WorkflowVersionId};
pub use log::{LogLevel, LogLine};
pub use outcome::{CancelRequest, Cancellation, Completed, Failure, Outcome, Timeout, TimeoutKind};
pub use payload::Payload;
pub use priority::Priority;
pub use report::{BulkReport, RunReport, Seen};
pub use status::{AttemptStatus, InvalidTransition, RunStatus, TRANSITIONS, Verdict, judge};
pub use summary::RunSummary;
pub use trigger::{ChildTrigger, CronTrigger, EventTrigger, ScheduleTrigger, Trigger};
pub use window::Window;
