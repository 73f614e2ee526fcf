//! The plain data that errors can contain: ids, statuses, payloads and outcomes. Everything that can fail on them is in `model`.

mod id;
mod outcome;
mod payload;
mod status;

pub use id::{CronId, EventId, RunId, ScheduleId, TaskId, TenantId, WorkerId, WorkflowId, WorkflowVersionId};
pub use outcome::{CancelRequest, Cancellation, Completed, Failure, Outcome, Timeout, TimeoutKind};
pub use payload::Payload;
pub(crate) use payload::{WRAPPER, read, unwrapped};
pub(crate) use status::Update;
pub use status::{AttemptStatus, RunStatus};
