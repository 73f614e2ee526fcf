//! Executing tasks: registration, the stream of assignments, heartbeats, running attempts, graceful shutdown.

mod assignments;
mod attempt;
mod batch_job;
mod builder;
mod connection;
mod delivery;
mod driver;
mod guard;
#[cfg(feature = "health")]
mod health;
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
mod setup;
mod signals;
mod status;

pub use builder::WorkerBuilder;
#[cfg(feature = "health")]
pub use health::{HealthBuilder, HealthServer};
#[cfg(feature = "tracing-subscriber")]
pub use log_layer::TaskLogLayer;
pub use report::{UnfinishedAttempt, WorkerReport};
pub use running::RunningWorker;
pub use setup::Worker;
pub use status::{WorkerState, WorkerStatus, WorkerStatuses};
