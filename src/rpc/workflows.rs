//! `WorkflowService`: starting runs, and rate limits.

use chrono::{DateTime, Utc};

use super::convert::limit::window;
use super::convert::new_run::{bulk_len, encode_bulk};
use super::convert::{NewRun, Triggered, TriggeredMany, collision};
use super::pb::v1::TriggerWorkflowRequest;
use super::pb::{
    BulkTriggerWorkflowRequest, BulkTriggerWorkflowResponse, PutRateLimitRequest, PutRateLimitResponse,
    ScheduleWorkflowRequest, TriggerWorkflowResponse, WorkflowVersion,
};
use super::{Method, Unary};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Priority, RateLimitWindow, ScheduleId, parse_id};
use crate::time::to_proto;
use crate::transport::Caller;

static TRIGGER: Method<TriggerWorkflowRequest, TriggerWorkflowResponse> =
    Method::once("TriggerWorkflow", "/WorkflowService/TriggerWorkflow");
/// The idempotency key of the run makes it the same run each time.
static TRIGGER_WITH_KEY: Method<TriggerWorkflowRequest, TriggerWorkflowResponse> =
    Method::idempotent("TriggerWorkflow", "/WorkflowService/TriggerWorkflow");
static BULK_TRIGGER: Method<BulkTriggerWorkflowRequest, BulkTriggerWorkflowResponse> =
    Method::once("BulkTriggerWorkflow", "/WorkflowService/BulkTriggerWorkflow");
static SCHEDULE: Method<ScheduleWorkflowRequest, WorkflowVersion> =
    Method::once("ScheduleWorkflow", "/WorkflowService/ScheduleWorkflow");
/// The same limit again changes nothing.
static PUT_RATE_LIMIT: Method<PutRateLimitRequest, PutRateLimitResponse> =
    Method::idempotent("PutRateLimit", "/WorkflowService/PutRateLimit");

pub(crate) struct Workflows {
    unary: Unary,
}

impl Workflows {
    pub(super) fn new(unary: Unary) -> Self {
        Self { unary }
    }

    pub(super) fn with(&self, change: impl Fn(&Caller) -> Caller) -> Self {
        Self { unary: self.unary.with(change) }
    }

    /// The maximum size of a message in bytes.
    pub(crate) fn max_send(&self) -> usize {
        self.unary.limits().send
    }

    /// Starts a run, and returns its id. The run is encoded here, so it need not live as long as the call. `has_key`: the workflow has an
    /// idempotency key, with which the call can be repeated.
    pub(crate) fn trigger(
        &self,
        run: &NewRun,
        has_key: bool,
    ) -> impl Future<Output = Result<Triggered>> + Send + use<'_> {
        let method = if has_key { &TRIGGER_WITH_KEY } else { &TRIGGER };
        let frame = self.unary.encode(method, run.encoded_len(), |message| run.encode(message));
        let call = self.unary.send(method, frame);
        async move {
            match call.await {
                Ok(response) => parse_id(&response.workflow_run_id).map(Triggered::Run),
                Err(error) => collision::taken(error),
            }
        }
    }

    /// Starts many runs, and returns their ids: one for each, in order. The caller checks their
    /// number.
    pub(crate) async fn bulk_trigger(&self, runs: Vec<NewRun>) -> Result<TriggeredMany> {
        let frame = self.unary.encode(&BULK_TRIGGER, bulk_len(&runs), |message| encode_bulk(&runs, message));
        match self.unary.send(&BULK_TRIGGER, frame).await {
            Ok(response) => Ok(TriggeredMany::Runs(response.workflow_run_ids.iter().map(|id| parse_id(id)).collect())),
            Err(error) => Ok(TriggeredMany::Some { ids: collision::some_taken(error)?, runs }),
        }
    }

    /// Creates a schedule of one run, and returns its id. The input and the metadata are JSON objects.
    pub(crate) async fn schedule(
        &self,
        workflow: String,
        at: DateTime<Utc>,
        input: String,
        metadata: String,
        priority: Option<Priority>,
    ) -> Result<ScheduleId> {
        let request = ScheduleWorkflowRequest {
            name: workflow,
            schedules: vec![to_proto(at)],
            input,
            additional_metadata: Some(metadata),
            priority: priority.map(Priority::number),
            ..Default::default()
        };
        let made = self.unary.call(&SCHEDULE, request).await?.scheduled_workflows;
        match made.first() {
            Some(schedule) => parse_id(&schedule.id),
            None => Err(Error::new(ErrorKind::Server, "the response to ScheduleWorkflow has no schedule")),
        }
    }
    /// Creates or changes a rate limit.
    pub(crate) async fn put_rate_limit(&self, key: String, limit: i32, length: RateLimitWindow) -> Result<()> {
        // Both of the contract's enums have the same numbers.
        let request = PutRateLimitRequest { key, limit, duration: window(length).into() };
        self.unary.call(&PUT_RATE_LIMIT, request).await.map(drop)
    }
}
