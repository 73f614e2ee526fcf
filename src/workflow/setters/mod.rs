//! The methods of [`Task`](super::Task) and [`Workflow`](super::Workflow) that set options.

mod conditions;
#[cfg(feature = "schemars")]
mod schema;
mod start;
mod task;
mod workflow;
