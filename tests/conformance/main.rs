//! The rows of `docs/acceptance.md`, on the embedded engine with all quirks, and on a real Hatchet server if `HATCHET_CLIENT_TOKEN` is set.
//! The name of each test begins with the id of its row.
//!
//! With `HATCHET_TEST_THREADS=4`, the rows run on the embedded engine in real time, on a runtime with four threads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests may panic"
)]

mod archive;
mod batches;
mod cancelling;
mod chunks;
mod conditions;
#[path = "../support/cost.rs"]
mod cost;
mod creating;
mod dag_lists;
mod dags;
mod definitions;
mod details;
mod events;
mod following;
mod grpc_only;
mod limits;
mod lineage;
#[path = "../support/observing.rs"]
mod observing;
mod outages;
mod placing;
mod promises;
mod replaying;
mod schedules;
mod searching;
mod setup;
mod status;
#[path = "../support/mod.rs"]
mod support;
mod tasks;
mod telemetry;
mod watching;
mod workers;
mod working;
