//! The messages of gRPC, as far as they are sent and read, without the generated code: that is named in this room only.

pub(super) mod collision;
mod definition;
mod event;
mod label;
mod run;
mod worker;

pub(crate) use collision::{Triggered, TriggeredMany};
pub(crate) use definition::{NewIdempotency, NewTask, NewWorkflow};
pub(crate) use event::NewEvent;
pub(crate) use label::{Comparator, DesiredLabel, LabelValue};
pub(crate) use run::{NewRun, RunEnd, RunState, TaskState};
pub(crate) use worker::{Action, ActionKind, NewWorker, Report, ReportKind};
