//! Definitions, as they are stored.

use super::condition;
use super::limit::rate_limit;
use crate::model::batch::BatchOptions;
use crate::model::{Concurrency, Conditions, DesiredLabels, EventFilter, Idempotency, RateLimit};
use crate::rpc::pb::v1::{
    CreateTaskOpts, CreateWorkflowVersionRequest, DefaultFilter, IdempotencyConfig, IdempotencyMethod, StickyStrategy,
    TaskBatchConfig,
};

/// A workflow's definition. Names and actions have their namespace.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewWorkflow {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) default_priority: Option<i32>,
    pub(crate) tasks: Vec<NewTask>,
    /// The one that runs when another has failed.
    pub(crate) on_failure: Option<NewTask>,
    /// The keys of events that start it, and the cron expressions.
    pub(crate) events: Vec<String>,
    pub(crate) filters: Vec<EventFilter>,
    pub(crate) crons: Vec<String>,
    /// What the runs of a cron get, as JSON text.
    pub(crate) cron_input: Option<String>,
    /// Whether its tasks stay on one worker; then, whether they wait for it.
    pub(crate) sticky: Option<bool>,
    pub(crate) idempotency: Option<Idempotency>,
    pub(crate) concurrency: Vec<Concurrency>,
    /// A JSON schema, as JSON text.
    pub(crate) input_schema: Option<String>,
}

/// A task's definition.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewTask {
    pub(crate) name: String,
    pub(crate) action: String,
    /// In the engine's grammar, as the schedule timeout.
    pub(crate) timeout: String,
    pub(crate) schedule_timeout: String,
    pub(crate) retries: i32,
    pub(crate) backoff_factor: Option<f32>,
    pub(crate) backoff_max_seconds: Option<i32>,
    /// The names of the tasks that it follows.
    pub(crate) parents: Vec<String>,
    pub(crate) labels: DesiredLabels,
    pub(crate) concurrency: Vec<Concurrency>,
    pub(crate) rate_limits: Vec<RateLimit>,
    pub(crate) conditions: Conditions,
    /// The number of slots by kind. Empty for one default slot.
    pub(crate) slots: Vec<(String, i32)>,
    pub(crate) batch: Option<BatchOptions>,
}

impl From<NewWorkflow> for CreateWorkflowVersionRequest {
    fn from(workflow: NewWorkflow) -> Self {
        Self {
            name: workflow.name,
            description: workflow.description,
            default_priority: workflow.default_priority,
            tasks: workflow.tasks.into_iter().map(Into::into).collect(),
            on_failure_task: workflow.on_failure.map(Into::into),
            event_triggers: workflow.events,
            default_filters: workflow.filters.into_iter().map(Into::into).collect(),
            cron_triggers: workflow.crons,
            cron_input: workflow.cron_input,
            sticky: workflow.sticky.map(|hard| if hard { StickyStrategy::Hard } else { StickyStrategy::Soft } as i32),
            idempotency: workflow.idempotency.map(Into::into),
            // The older field for one limit is not needed: all engines that know this call read the list.
            concurrency_arr: workflow.concurrency.into_iter().map(Into::into).collect(),
            input_json_schema: workflow.input_schema.map(String::into_bytes),
            ..Default::default()
        }
    }
}

impl From<Idempotency> for IdempotencyConfig {
    fn from(idempotency: Idempotency) -> Self {
        let method = if idempotency.ends_with_run { IdempotencyMethod::Status } else { IdempotencyMethod::Ttl };
        Self {
            expression: idempotency.expression,
            ttl_ms: i64::try_from(idempotency.ttl.as_millis()).unwrap_or(i64::MAX),
            method: Some(method as i32),
        }
    }
}

impl From<EventFilter> for DefaultFilter {
    fn from(filter: EventFilter) -> Self {
        let payload = filter.payload_text().map(|text| text.as_bytes().to_vec());
        Self { payload, expression: filter.expression, scope: filter.scope }
    }
}

impl From<BatchOptions> for TaskBatchConfig {
    fn from(batch: BatchOptions) -> Self {
        Self {
            batch_max_size: batch.max_size.cast_signed(),
            batch_max_interval_ms: batch.max_interval.and_then(|interval| interval.as_millis().try_into().ok()),
            batch_group_key: batch.key,
            batch_group_max_runs: batch.max_batches.map(u32::cast_signed),
            // Only SDKs read it, and here the code returns all outputs.
            broadcast_output: None,
        }
    }
}

impl From<NewTask> for CreateTaskOpts {
    fn from(task: NewTask) -> Self {
        Self {
            readable_id: task.name,
            action: task.action,
            timeout: task.timeout,
            schedule_timeout: Some(task.schedule_timeout),
            retries: task.retries,
            backoff_factor: task.backoff_factor,
            backoff_max_seconds: task.backoff_max_seconds,
            conditions: condition::conditions(&task.conditions, &task.parents),
            parents: task.parents,
            worker_labels: task.labels.into_iter().map(|(key, label)| (key, label.into())).collect(),
            concurrency: task.concurrency.into_iter().map(Into::into).collect(),
            rate_limits: task.rate_limits.iter().map(rate_limit).collect(),
            slot_requests: task.slots.into_iter().collect(),
            batch: task.batch.map(Into::into),
            ..Default::default()
        }
    }
}
