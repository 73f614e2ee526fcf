//! What users hold: ids, states, payloads, runs. `convert/` alone sees protobuf and the server's JSON.

pub(crate) mod convert;
pub(crate) mod cron;
mod details;
mod error;
mod filter;
mod id;
pub(crate) mod idempotency;
pub(crate) mod label;
mod log;
pub(crate) mod metadata;
pub(crate) mod name;
mod outcome;
pub(crate) mod payload;
mod priority;
mod report;
mod status;
pub(crate) mod strict;
mod summary;
pub(crate) mod trigger;
mod window;

pub(crate) use details::attempt_number;
pub use details::{Attempt, Conflict, RunDetails, TaskDetails};
pub use filter::RunFilter;
pub use id::{CronId, EventId, RunId, ScheduleId, TaskId, TenantId, WorkerId, WorkflowId, WorkflowVersionId};
pub use idempotency::Idempotency;
pub use label::{DesiredLabel, LabelValue};
pub use log::{LogLevel, LogLine};
pub use outcome::{CancelRequest, Cancellation, Completed, Failure, Outcome, Timeout, TimeoutKind};
pub use payload::Payload;
pub use priority::Priority;
pub use report::{BulkReport, RunAction, RunReport, Seen};
pub use status::{AttemptStatus, InvalidTransition, RunStatus, TRANSITIONS, Verdict, judge};
pub use summary::RunSummary;
pub use trigger::{ChildTrigger, CronTrigger, EventTrigger, ScheduleTrigger, Trigger};
pub use window::Window;
