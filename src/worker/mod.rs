//! Executing tasks: registration, the stream of assignments, beats, running attempts, draining.

mod beats;
mod builder;
mod driver;
mod guard;
mod job;
mod registered;
mod report;

pub use builder::{Worker, WorkerBuilder};
pub use driver::RunningWorker;
pub use report::{UnfinishedTask, WorkerReport};
