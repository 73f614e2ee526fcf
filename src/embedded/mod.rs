//! An engine in process: the same services, the same answers, no server.
//!
//! For tests, examples and development. It keeps everything in memory and nothing on disk. Time is Tokio's: under a paused
//! clock, hours pass in moments, and [`Engine::now`] returns its time, which starts at [a date of yours](EngineBuilder::now) or
//! at the machine's. Days with an idle worker cost a fraction of a second. `tokio::time::advance` takes them in one step, and
//! then all that was due meanwhile is late: a cron fires once, however often its time has come.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> hatchet::Result<()> {
//! use hatchet::{Context, Task, embedded::Engine};
//!
//! let engine = Engine::start().await?;
//! let hatchet = engine.client();
//! let work = Task::new("work", async |(): (), _: Context| Ok("done".to_owned()));
//! let worker = hatchet.worker("worker").register(&work).build()?.start().await?;
//!
//! assert_eq!(hatchet.run(&work, &()).start().await?.result().await?, "done");
//! # worker.shutdown().await;
//! # engine.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # A panic in the engine
//! is a defect of it, and fails the test that met it at once: the caller whose call it was panics with the same message, and so
//! do all later calls, and [`Engine::shutdown`]. Streams that are open end with an error that has the message. Programs in other
//! processes get it as the text of each answer (of gRPC `INTERNAL`, of REST 500).

mod actor;
mod calls;
mod core;
mod cut;
mod engine;
mod failure;
mod faults;
mod grpc;
mod listen;
#[cfg(test)]
mod panic_tests;
mod quirks;
mod rest;
mod token;

/// The version of the engine whose behaviour is modelled.
const VERSION: &str = "v0.104.7";

pub use engine::{Engine, EngineBuilder};
pub use faults::{Fault, Faults};
pub use quirks::{Quirk, Quirks};
