//! Tests of tasks and workflows: in this process, on virtual time, without a server.
//!
//! A [`Harness`] has an embedded engine and a worker. It executes runs of tasks and workflows as a real engine would, with retries,
//! timeouts and conditions; faults can be injected, and runs can be inspected. On Tokio's paused clock, hours of backoff take milliseconds:
//!
//! ```
//! # use std::time::Duration;
//! # use hatchet::{Context, Task, TaskError};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> hatchet::Result<()> {
//! # tokio::time::pause(); // in a test: #[tokio::test(start_paused = true)]
//! use hatchet::testing::Harness;
//!
//! let flaky: Task<(), u32> = Task::new("flaky", async |(): (), context: Context| match context.attempt() {
//!     1 | 2 => Err(TaskError::new("not yet")),
//!     attempt => Ok(attempt),
//! });
//! let flaky = flaky.retries(5).backoff(60.0, Duration::from_secs(3600));
//!
//! assert_eq!(Harness::start(&flaky).await?.run(&flaky, &()).result().await?, 3);
//! # Ok(())
//! # }
//! ```
//!
//! [`call()`] calls the function of a task alone, with a context that the test provides, and returns what it has logged, streamed and started.

mod call;
mod harness;

pub use call::{Call, CallRecord, LoggedLine, SentChunk, StartedRun, call};
pub use harness::{Harness, HarnessBuilder};
