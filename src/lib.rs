//! A Rust SDK for [Hatchet](https://hatchet.run).
//!
//! ```
//! use hatchet::{Context, Task};
//! use hatchet::embedded::Engine;
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
//! // An in-process engine. For a real one: `let hatchet = hatchet::Client::from_env()?;`
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
//! # Overview
//!
//! | goal | API |
//! |---|---|
//! | connect | [`Client`], [`Config`] |
//! | define tasks and workflows | [`Task`], [`Workflow`], [`Context`], [`TaskError`] |
//! | start runs | [`Client::run`], [`Client::run_many`]; from inside a task, [`Context::run`] |
//! | wait for a run and watch it | [`RunHandle::result`], [`RunHandle::outcome`], [`RunHandle::until`], [`RunHandle::watch`], [`RunHandle::details`] |
//! | wait for many runs and watch them | [`Client::results`], [`Client::outcomes`], [`Client::watch_many`], [`Client::watch_matching`] |
//! | find runs | [`Client::runs`], [`RunFilter`], [`RunHandle::children`], [`RunHandle::reruns`] |
//! | change runs | [`RunHandle::cancel`], [`RunHandle::replay`], [`RunHandle::rerun`], [`RunQuery`](builder::RunQuery) |
//! | limit runs | [`Concurrency`](workflow::Concurrency), [`RateLimit`](workflow::RateLimit), [`Client::rate_limit`] |
//! | wait for, skip and cancel tasks of a workflow | [`Condition`](workflow::Condition), [`Task::wait_for`] |
//! | start runs by events, schedules and crons | [`Client::push`], [`Client::schedule`], [`Client::cron`], [`Task::on_event`] |
//! | start only one run per key | [`Idempotency`](model::Idempotency), [`Error::existing_run_id`] |
//! | keep runs for longer than the engine does | the `archive` module (feature `archive`) |
//! | execute tasks | [`Client::worker`], [`Worker`] |
//! | test without a server | the `testing` and `embedded` modules (feature `embedded`) |
//!
//! The most used types are at the root of the crate. The others are in modules by role: [`builder`] for requests, [`handle`] for
//! handles to runs, events, schedules, crons and rate limits, [`stream`] for streams, [`model`] for data, [`telemetry`] for spans, events
//! and metrics, `archive` for archives, `testing` for tests, and [`config`], [`error`], [`worker`] and [`workflow`].
//!
//! # Requests
//!
//! Most methods that call the server return a builder. The method that ends the chain sends the request:
//!
//! | final method | request |
//! |---|---|
//! | `start()` | starts runs, a worker, a collector, or an engine |
//! | `start_or_existing()` | starts a run, or returns the run that has its [idempotency key](model::Idempotency) |
//! | `result()`, `outcome()`, `watch()`, `chunks()` | starts a [run](Client::run) or a [rerun](RunHandle::rerun), and waits for its end or follows it |
//! | `results()`, `outcomes()` | starts [many runs](Client::run_many), and waits for all of them |
//! | `send()` | changes something: cancel, replay, push, cron, schedule, pause … |
//! | `reports()`, `batches()`, `partitions()` | like `send()`, but returns a stream that makes the changes while it is polled: commands on the runs of a query, or on an archive |
//! | `get()`, `page(n)`, `items()`, `count()`, `counts_by_status()` | reads what a query selects |
//! | `.await` | reads what a handle refers to, such as [`run.details()`](RunHandle::details) |
//!
//! Builders of requests to the engine have `timeout(..)` and `retry(..)`. Their defaults are set in [`Config`]. There are two
//! exceptions: the calls of a [worker](Client::worker) always use the defaults, and the queries of an archive and the commands on its files
//! (compact, expire, sweep) send nothing to the engine.
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | workflow | a definition of one or more tasks |
//! | task | one step of a workflow, executed by a worker |
//! | run | one execution of a workflow |
//! | single-task run | a run of a workflow with one task |
//! | DAG run | a run of a workflow with several tasks, which form a directed acyclic graph |
//! | attempt | one execution of a task, counted from 1. A failed attempt is not the end of the run if retries are left |
//! | status | the state of a run or an attempt at one moment, for example [`RunStatus::Running`] |
//! | outcome | how a run ended. A failed run is data, not an error |
//! | replay | a new attempt of the same run |
//! | rerun | a new run with the input of another run |
//! | child | a run that was started by a task of another run, its parent |
//! | trigger | what started a run: a call, an event, a cron, a schedule, or a task |
//! | event | a message that starts a run of each workflow that listens to its key |
//! | run event | a message of the engine about a run: a change of its status, or a chunk. Run events can be lost |
//! | cron | recurring times at which the engine starts runs |
//! | schedule | a single time at which the engine starts a run |
//! | tag | a key and a value in the metadata of a run, by which it can be found |
//! | worker | a process that executes tasks |
//! | slot | a unit of a worker's capacity. An attempt occupies one slot by default; a batch occupies one |
//! | batch | the attempts of a batch task that the engine assigns together; their function is called once |
//! | outbox | the results of attempts that the engine has not accepted yet, kept by the worker in memory or in a file |
//! | chunk | a piece of text or bytes that a task sends while it runs; it is not stored |
//! | gap | an item of a stream that stands for missing status changes or chunks |
//! | engine | the part of Hatchet that stores definitions and assigns attempts to workers; also the embedded engine |
//! | server | what a client connects to: an engine with its gRPC and REST APIs |
//! | API view | one of the ways in which the server shows a run: gRPC, REST, and its streams |
//! | history | the record of changes that the engine returns over REST; it lags behind the changes |
//! | retention period | the time after which the engine drops a run |
//! | archive | copies of runs that outlive the retention period, in Parquet files |
//! | collection | one pass that copies all due runs to an archive |
//! | collector | a background task that repeats collections at an interval |
//! | quirk | a defect of the real engine that the embedded engine reproduces |
//! | fault | a failure that a test injects into a call to the embedded engine |
//!
//! # Features
//!
//! | feature | purpose |
//! |---|---|
//! | `tls-ring` (default) | TLS, with ring |
//! | `tls-aws-lc` | TLS, with aws-lc; used instead of ring if both are enabled |
//! | `archive` | the `archive` module: runs in Parquet files, in a local directory or in memory |
//! | `archive-s3`, `archive-gcs`, `archive-azure` | archives in Amazon S3 and compatible stores, in Google Cloud Storage, and in Azure Blob Storage |
//! | `schemars` | `input_schema` of tasks and workflows: the JSON schema of the input, generated by the `schemars` crate (version 1) |
//! | `embedded` | the `embedded` module, an in-process engine, and the `testing` module, which tests tasks with this engine |
//! | `health` | an HTTP server that reports the health and the metrics of a worker |
//! | `metrics` | a recorder that passes [measurements](telemetry) on to the `metrics` crate |
//! | `otel` | OpenTelemetry: one trace connects the start of a run with its attempts and child runs |
//! | `tracing-subscriber` | a layer that writes what a task logs with `tracing` to its log in Hatchet |
//! | `unstable-raw` | the generated stubs, for calls that this crate does not support yet, without a stability guarantee |

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "archive")]
pub mod archive;
#[cfg(feature = "__benches")]
#[doc(hidden)]
pub mod bench;
mod boxed;
mod client;
pub mod config;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod error;
mod feed;
#[cfg(feature = "__fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod list;
pub mod model;
mod observe;
#[cfg(feature = "unstable-raw")]
pub mod raw;
mod request;
mod rpc;
mod run;
mod runtime;
#[cfg(test)]
mod scripted;
mod sync;
pub mod telemetry;
#[cfg(feature = "embedded")]
pub mod testing;
mod time;
mod transport;
mod trigger;
mod value;
mod watch;
pub mod worker;
pub mod workflow;

/// Builders for requests, and queries.
pub mod builder {
    pub use crate::list::{BulkCancelBuilder, BulkReplayBuilder, RunQuery, TaskQuery};
    pub use crate::observe::DetailsBuilder;
    pub use crate::request::{CommandBuilder, ReadBuilder};
    pub use crate::run::{
        CancelBuilder, CancelManyBuilder, CancelReason, ReplayBuilder, ReplayManyBuilder, ReplayOptions, RerunBuilder,
        RunBuilder, RunManyBuilder, RunOptions,
    };
    pub use crate::trigger::{
        CronBuilder, CronQuery, EventBuilder, EventManyBuilder, EventOptions, RateLimitBuilder, RateLimitQuery,
        ScheduleBuilder, ScheduleQuery,
    };
}

/// Handles to runs, events, schedules, crons and rate limits.
pub mod handle {
    pub use crate::run::{Replayed, RunHandle};
    pub use crate::trigger::{CronHandle, EventHandle, RateLimitHandle, ScheduleHandle};
}

/// Streams of runs, tasks, changes, chunks, results, log lines, reports and worker statuses.
pub mod stream {
    pub use crate::list::{RunItems, RunReports, TaskItems};
    pub use crate::observe::LogItems;
    pub use crate::watch::{ChunkSse, RunChunks, RunOutcomes, RunResults, RunWatch, RunsWatch, TagWatch};
    #[doc(no_inline)]
    pub use crate::worker::WorkerStatuses;
}

pub use client::Client;
pub use config::Config;
pub use error::{Error, ErrorKind, Result};
pub use model::{Outcome, Priority, RunFilter, RunId, RunStatus};
pub use run::RunHandle;
pub use worker::Worker;
pub use workflow::{Context, Task, TaskError, Workflow};

/// The code in the README and in the guide is compiled with the tests of the documentation.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/start.md")]
    struct Start;
    #[doc = include_str!("../docs/tasks.md")]
    struct Tasks;
    #[doc = include_str!("../docs/workflows.md")]
    struct Workflows;
    #[doc = include_str!("../docs/limits-and-batches.md")]
    struct LimitsBatches;
    #[doc = include_str!("../docs/starting-runs.md")]
    struct StartingRuns;
    #[doc = include_str!("../docs/following-runs.md")]
    struct FollowingRuns;
    #[doc = include_str!("../docs/status-changes.md")]
    struct StatusChanges;
    #[doc = include_str!("../docs/chunks.md")]
    struct Chunks;
    #[doc = include_str!("../docs/searching.md")]
    struct Searching;
    #[doc = include_str!("../docs/cancelling-and-replaying.md")]
    struct CancellingReplaying;
    #[doc = include_str!("../docs/errors-and-retries.md")]
    struct ErrorsRetries;
    #[doc = include_str!("../docs/testing.md")]
    struct Testing;
    #[doc = include_str!("../docs/configuration.md")]
    struct Configuration;
    #[doc = include_str!("../docs/operations.md")]
    struct Operations;
    #[doc = include_str!("../docs/outages.md")]
    struct Outages;
    #[doc = include_str!("../docs/observability.md")]
    struct Observability;
    #[cfg(feature = "archive")]
    #[doc = include_str!("../docs/archive.md")]
    struct Archive;
    #[cfg(feature = "archive")]
    #[doc = include_str!("../docs/archive-queries.md")]
    struct ArchiveQueries;
    #[cfg(feature = "archive")]
    #[doc = include_str!("../docs/archive-operations.md")]
    struct ArchiveOperations;
}
