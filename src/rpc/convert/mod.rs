//! Conversions between the model and the server's messages: protobuf for gRPC, JSON for REST. Ids are parsed here, once.
//!
//! Unknown fields are ignored, unknown values are carried, and missing values have a default. What cannot be decoded at all is an
//! error.

pub(super) mod collision;
mod condition;
mod definition;
mod event;
mod fields;
mod label;
pub(in crate::rpc) mod limit;
pub(in crate::rpc) mod new_run;
pub(crate) mod rest_events_and_crons;
mod rest_run;
mod results;
mod run;
mod run_event;
mod summary;
mod task_event;
mod worker;

pub(crate) use collision::{Triggered, TriggeredMany};
pub(crate) use definition::{NewTask, NewWorkflow};
pub(crate) use event::NewEvent;
pub(crate) use new_run::{CommonRun, EncodedRun, NewRun};
pub(crate) use rest_run::{Envelope, LogRow, RestRun, RestTask, Row, Rows, StatusCount, TaskConfig, WorkflowRow};
pub(crate) use results::{RunResults, TaskResult};
pub(crate) use run::{GrpcRun, GrpcTask};
pub(crate) use run_event::{RunEvent, RunEventKind};
pub(crate) use summary::{ListRow, list_row, log_line, rest_input};
pub(crate) use task_event::{TaskEvent, TaskEventKind};
pub(crate) use worker::{Action, ActionKind, NewWorker, Report, ReportKind};
