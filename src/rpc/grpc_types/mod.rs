//! The messages of gRPC, as far as they are sent and read, without the generated code: that is named in this room only.

mod definition;
mod run;
mod worker;

pub(crate) use definition::{NewTask, NewWorkflow};
pub(crate) use run::{NewRun, RunEnd, RunState, TaskState};
pub(crate) use worker::{Action, ActionKind, NewWorker, Report, ReportKind};
