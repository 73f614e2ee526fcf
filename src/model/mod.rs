//! Data types: ids, statuses, payloads, outcomes, details, filters and reports.

pub(crate) mod batch;
mod change;
mod chunk;
pub(crate) mod concurrency;
pub(crate) mod condition;
mod counts;
pub(crate) mod cron;
mod cron_details;
mod details;
pub(crate) mod engine_version;
mod error;
mod event_details;
pub(crate) mod event_filter;
pub(crate) mod expression;
mod filter;
mod id;
pub(crate) mod idempotency;
pub(crate) mod label;
mod log;
pub(crate) mod metadata;
pub(crate) mod name;
mod page;
pub(crate) mod payload;
mod priority;
pub(crate) mod rate_limit;
mod report;
mod schedule_details;
pub(crate) mod strict;

mod summary;
pub(crate) mod task_name;
mod timeline;
mod timeout_kind;
pub(crate) mod trigger;
mod until;
mod window;

pub(crate) use crate::value::Update;
pub use crate::value::{
    AttemptStatus, CancelRequest, Cancellation, Completed, CronId, EventId, Failure, Outcome, Payload, RunId,
    RunStatus, ScheduleId, TaskId, TenantId, Timeout, TimeoutKind, WorkerId, WorkflowId, WorkflowVersionId,
};
pub use change::{Change, ChangeKind, Gap, RunChange, TaskChange};
pub use chunk::{Chunk, ChunkGap, ChunkItem};
pub(crate) use concurrency::Concurrency;
pub(crate) use condition::{Condition, Conditions};
pub use counts::{StatusCounts, Total};
pub use cron_details::{CronDetails, CronSpec};
pub(crate) use details::attempt_number;
pub use details::{Attempt, Conflict, RunDetails, TaskDetails};
pub use event_details::EventDetails;
pub(crate) use event_filter::EventFilter;
pub use filter::RunFilter;
pub(crate) use id::parse_id;
pub use idempotency::Idempotency;
pub(crate) use label::{Comparator, DesiredLabels};
pub use label::{DesiredLabel, LabelValue};
pub use log::{LogLevel, LogLine};
pub use page::{Page, PageToken};
pub use priority::Priority;
pub(crate) use rate_limit::RateLimit;
pub use rate_limit::{RateLimitDetails, RateLimitWindow};
pub use report::{BulkReport, Effect, RunAction, RunReport};
pub use schedule_details::ScheduleDetails;
pub use summary::{RunSummary, TaskSummary};
pub use trigger::{ChildTrigger, CronTrigger, EventTrigger, ScheduleTrigger, Trigger};
pub use until::Until;
pub use window::Window;
