//! An in-process engine for tests, examples and development. It reproduces the gRPC and REST APIs of Hatchet v0.104.7.
//!
//! All data is in memory. The clock is Tokio's: if it is paused, hours pass in milliseconds, and a day with an idle worker takes a fraction
//! of a second. [`Engine::now`] returns the engine's time, which starts at [a chosen date](EngineBuilder::start_time) or at the system's
//! time. `tokio::time::advance` skips days in one step: all timers in between are late, and a cron fires once instead of several times.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> hatchet::Result<()> {
//! use hatchet::{Context, Task};
//! use hatchet::embedded::Engine;
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
//! # Panics of the engine
//! A panic of the engine is a bug in it, and fails the test in which it happens: the call panics with the same message, and so
//! do all later calls and [`Engine::shutdown`]. Open streams end with an error that contains the message. Programs in other
//! processes get the message in each response (gRPC `INTERNAL`, REST 500).

mod actor;
mod calls;
pub(crate) mod core;
mod engine;
mod failure;
mod faults;
mod grpc;
mod interrupt;
mod listen;
#[cfg(test)]
mod panic_tests;
mod quirks;
mod rest;
mod token;

/// The version of the real engine whose behavior is reproduced.
const VERSION: EngineVersion = EngineVersion::new(0, 104, 7);

use crate::model::engine_version::EngineVersion;

pub use engine::{Engine, EngineBuilder};
pub use faults::{Fault, Faults};
pub use quirks::{Quirk, Quirks};
