//! What must work, row by row, on the embedded engine with all its quirks, and on a real Hatchet when
//! `HATCHET_CLIENT_TOKEN` is set. The names begin with the rows' ids: `cargo test --test conformance -- --list` is the
//! table.
//!
//! With `HATCHET_TEST_THREADS=4`, the rows run on the embedded engine in real time, on a runtime with four threads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may stop on what it did not expect"
)]

mod cancelling;
mod creating;
mod dag_lists;
mod dags;
mod details;
mod events;
mod following;
mod grpc_only;
mod lineage;
mod placing;
mod promises;
mod replaying;
mod schedules;
mod searching;
mod status;
mod tasks;
mod workers;
mod world;
