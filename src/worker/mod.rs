//! Executing tasks: registration, the stream of assignments, heartbeats, running attempts, graceful shutdown.

mod assignments;
mod builder;
mod driver;
mod guard;
mod heartbeat;
mod job;
mod registered;
mod report;
mod running;

pub use builder::{Worker, WorkerBuilder};
pub use report::{UnfinishedTask, WorkerReport};
pub use running::RunningWorker;
