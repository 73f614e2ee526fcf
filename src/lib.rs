//! A Rust SDK for [Hatchet](https://hatchet.run).
//!
//! ```
//! use hatchet::{Context, Task, embedded::Engine};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Greeting { name: String }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Reply { text: String }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> hatchet::Result<()> {
//! // An engine in process; for a real one: `let hatchet = hatchet::Client::from_env()?;`
//! let engine = Engine::start().await?;
//! let hatchet = engine.client();
//!
//! let greet = Task::new("greet", async |input: Greeting, _: Context| {
//!     Ok(Reply { text: format!("Hello, {}!", input.name) })
//! });
//! let worker = hatchet.worker("greeter").register(&greet).build()?.start().await?;
//!
//! let run = hatchet.run(&greet, &Greeting { name: "Ada".into() }).metadata("tenant", "acme").start().await?;
//! assert_eq!(run.result().await?.text, "Hello, Ada!");
//! # worker.shutdown().await;
//! # engine.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is where
//!
//! | to | look at |
//! |---|---|
//! | connect | [`Client`], [`Config`] |
//! | define what can be run | [`Task`], [`Workflow`], [`Context`], [`TaskError`] |
//! | start runs | [`Client::run`], [`Client::run_many`]; from inside a task, [`Context::run`] |
//! | follow a run | [`RunHandle::result`], [`RunHandle::outcome`], [`RunHandle::watch`], [`RunHandle::details`] |
//! | find runs | [`Client::runs`], [`RunFilter`], [`RunHandle::children`], [`RunHandle::reruns`] |
//! | change runs | [`RunHandle::cancel`], [`RunHandle::replay`], [`RunHandle::rerun`], [`RunQuery::cancel`], [`RunQuery::replay`] |
//! | start them by events, at times, again and again | [`Client::push_event`], [`Client::schedule`], [`Client::cron`], [`Task::on_event`] |
//! | start only one for a key | [`Idempotency`], [`Error::existing_run`] |
//! | execute tasks | [`Client::worker`], [`WorkerReport`] |
//! | test without a server | the module `embedded` (a feature) |
//!
//! # Words
//!
//! A *run* is one execution of a *workflow*, which is a definition of *tasks*. A task may take several *attempts*, counted
//! from 1. An *outcome* is how a run ended; a run that failed is data, not an error. A *worker* executes tasks, as many at
//! a time as it has *slots*. A *replay* is the same run again, as its next attempt; a *rerun* is a new run with the same
//! input.
//!
//! # Features
//!
//! | feature | what for |
//! |---|---|
//! | `tls-ring` (default) | TLS, with ring |
//! | `tls-aws-lc` | TLS, with aws-lc; used instead of ring when both are on |
//! | `embedded` | the module `embedded`: an engine in process |
//! | `unstable-raw` | the generated stubs, for calls that this crate does not have; no promise of stability |

mod client;
mod config;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod list;
mod model;
#[cfg(feature = "unstable-raw")]
pub mod raw;
mod rpc;
mod run;
mod runtime;
mod time;
mod transport;
mod trigger;
mod watch;
mod worker;
mod workflow;

pub use client::Client;
pub use config::{
    Compression, Config, ConfigBuilder, ConfigError, Entry, Explanation, Identity, Problem, Secret, Source, Tls,
    TlsStrategy, TlsVersion,
};
pub use error::{Answer, Error, ErrorKind, Result};
pub use list::{BulkCancel, BulkReplay, Page, RunItems, RunQuery, RunReports, StatusCounts, Total};
pub use model::{
    Attempt, AttemptStatus, BulkReport, CancelRequest, Cancellation, ChildTrigger, Completed, Conflict, CronId,
    CronTrigger, DesiredLabel, EventId, EventTrigger, Failure, Idempotency, InvalidTransition, LabelValue, LogLevel,
    LogLine, Outcome, Payload, Priority, RunAction, RunDetails, RunFilter, RunId, RunReport, RunStatus, RunSummary,
    ScheduleId, ScheduleTrigger, Seen, TRANSITIONS, TaskDetails, TaskId, TenantId, Timeout, TimeoutKind, Trigger,
    Verdict, Window, WorkerId, WorkflowId, WorkflowVersionId, judge,
};
pub use run::{
    CancelBuilder, CancelManyBuilder, LogItems, ReplayBuilder, ReplayManyBuilder, Replayed, RerunBuilder, RunBuilder,
    RunHandle, RunManyBuilder, Runnable, WorkflowRef,
};
pub use trigger::{
    CronBuilder, CronDetails, CronHandle, CronQuery, EventBuilder, EventDetails, EventHandle, EventsBuilder,
    ScheduleBuilder, ScheduleDetails, ScheduleHandle, ScheduleQuery,
};
pub use watch::{Change, RunWatch};
pub use worker::{RunningWorker, UnfinishedTask, Worker, WorkerBuilder, WorkerReport};
pub use workflow::{Context, Definition, Sticky, Task, TaskError, TaskResult, Workflow};

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
