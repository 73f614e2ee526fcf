//! Executing tasks: registration, the stream of assignments, heartbeats, running attempts, graceful shutdown.

mod assignments;
mod builder;
mod driver;
mod guard;
mod heartbeat;
mod heartbeat_thread;
mod job;
mod key;
#[cfg(feature = "tracing-subscriber")]
mod log_layer;
mod outbox;
mod outputs;
mod ownership;
mod registered;
mod report;
mod running;
mod status;

pub use builder::{Worker, WorkerBuilder};
#[cfg(feature = "tracing-subscriber")]
pub use log_layer::TaskLogLayer;
pub use report::{UnfinishedTask, WorkerReport};
pub use running::RunningWorker;

pub use status::{WorkerState, WorkerStatus, WorkerStatuses};
