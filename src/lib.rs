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
//! | task | API |
//! |---|---|
//! | connect | [`Client`], [`Config`] |
//! | define tasks and workflows | [`Task`], [`Workflow`], [`Context`], [`TaskError`] |
//! | start runs | [`Client::run`], [`Client::run_many`]; from inside a task, [`Context::run`] |
//! | wait for a run and watch it | [`RunHandle::result`], [`RunHandle::outcome`], [`RunHandle::watch`], [`RunHandle::details`] |
//! | find runs | [`Client::runs`], [`RunFilter`], [`RunHandle::children`], [`RunHandle::reruns`] |
//! | change runs | [`RunHandle::cancel`], [`RunHandle::replay`], [`RunHandle::rerun`], [`RunQuery::cancel`], [`RunQuery::replay`] |
//! | start runs by events, schedules and crons | [`Client::push_event`], [`Client::schedule`], [`Client::cron`], [`Task::on_event`] |
//! | start only one run per key | [`Idempotency`], [`Error::existing_run`] |
//! | execute tasks | [`Client::worker`], [`WorkerReport`] |
//! | test without a server | the module `embedded` (a feature) |
//!
//! # Terms
//!
//! A *run* is one execution of a *workflow*, which is a definition of *tasks*. A task may take several *attempts*, counted
//! from 1. An *outcome* is the result of a run that has ended; a failed run is data, not an error. A *worker* executes tasks, as many
//! at a time as it has *slots*. A *replay* is a new attempt of the same run; a *rerun* is a new run with the same input.
//!
//! # Features
//!
//! | feature | purpose |
//! |---|---|
//! | `tls-ring` (default) | TLS, with ring |
//! | `tls-aws-lc` | TLS, with aws-lc; used instead of ring when both are on |
//! | `embedded` | the module `embedded`: an in-process engine |
//! | `unstable-raw` | the generated stubs, for calls that this crate does not support yet, without a stability guarantee |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
pub mod config;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod error;
mod feed;
mod list;
pub mod model;
mod observe;
#[cfg(feature = "unstable-raw")]
pub mod raw;
mod rpc;
mod run;
mod runtime;
mod time;
mod transport;
mod trigger;
mod value;
mod watch;
pub mod worker;
pub mod workflow;

/// Builders of requests, and queries.
pub mod builder {
    pub use crate::list::{BulkCancel, BulkReplay, RunQuery};
    pub use crate::observe::DetailsBuilder;
    pub use crate::run::{
        CancelBuilder, CancelManyBuilder, ReplayBuilder, ReplayManyBuilder, RerunBuilder, RunBuilder, RunManyBuilder,
    };
    pub use crate::trigger::{CronBuilder, CronQuery, EventBuilder, EventManyBuilder, ScheduleBuilder, ScheduleQuery};
}

/// Handles to what exists on the server.
pub mod handle {
    pub use crate::run::{Replayed, RunHandle};
    pub use crate::trigger::{CronHandle, EventHandle, ScheduleHandle};
}

/// Streams of runs, changes, log lines and reports.
pub mod stream {
    pub use crate::list::{RunItems, RunReports};
    pub use crate::observe::LogItems;
    pub use crate::watch::RunWatch;
}

pub use client::Client;
pub use config::Config;
pub use error::{Error, ErrorKind, Result};
pub use model::{Outcome, Priority, RunFilter, RunId, RunStatus};
pub use run::RunHandle;
pub use worker::Worker;
pub use workflow::{Context, Task, TaskError, Workflow};

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
