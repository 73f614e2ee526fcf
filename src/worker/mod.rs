//! Executing tasks: registration, the stream of assignments, heartbeats, running attempts, graceful shutdown.

mod builder;
mod driver;
mod guard;
mod heartbeat;
mod job;
mod registered;
mod report;

pub use builder::{Worker, WorkerBuilder};
pub use driver::RunningWorker;
pub use report::{UnfinishedTask, WorkerReport};
