//! `EventsService`, as far as it takes log lines.

use tonic::codec::CompressionEncoding;

use super::pb::events_service_client::EventsServiceClient;
use super::pb::{PutLogRequest, PutLogResponse};
use super::{Limits, stub, unary};
use crate::error::Result;
use crate::transport::{Call, Caller, GrpcWire};

pub(crate) struct Logs {
    stub: EventsServiceClient<GrpcWire>,
    caller: Caller,
    max_send: usize,
}

impl Logs {
    pub(super) fn new(wire: &GrpcWire, limits: &Limits, caller: Caller) -> Self {
        Self { stub: stub!(EventsServiceClient<GrpcWire>, wire, limits), caller, max_send: limits.send }
    }

    /// Adds a line to a task's log, in whatever state the task is. The metadata is the text of a JSON object.
    pub(crate) async fn put(&self, task: String, level: &str, message: String, metadata: String) -> Result<()> {
        let request = PutLogRequest {
            task_run_external_id: task,
            message,
            level: Some(level.to_owned()),
            metadata,
            ..Default::default()
        };
        self.send_put_log(&request).await.map(drop)
    }

    unary! {
        /// A line that comes twice does little harm; one that is lost does.
        send_put_log, put_log, idempotent, "PutLog", PutLogRequest => PutLogResponse
    }
}
