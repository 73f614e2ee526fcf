//! Compares the SDK with raw calls for details, lists and bulk starts, in one process and on one thread, with the embedded engine.
//!
//! ```text
//! cargo bench --bench runs
//! ```
//!
//! Wall time on a single thread is the CPU time of SDK, transport and engine together. Both sides are measured in turn, and the medians
//! of the pairs are printed. The allocator counts allocations, which takes time on both sides.
//!
//! The baselines do only what is necessary:
//!
//! - *lists*: `Client::raw_rest`, whose responses are not decoded. A page with its total is the two requests of the SDK, sent
//!   concurrently. All runs are listed by offset, which is the API of REST. The SDK lists by key.
//! - *details*: the calls that the SDK makes, all concurrently, with the ids of the tasks known before. Only the gRPC response is decoded.
//! - *bulk starts*: sequential `BulkTriggerWorkflow` calls with a thousand runs each, whose inputs are serialized to JSON.
#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a command-line program, which exits on a failure"
)]

mod details;
#[path = "../interleaved.rs"]
mod interleaved;
mod lists;
mod pairs;
mod setup;
mod starts;

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use self::setup::Setup;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The sizes of the measurements.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// The number of listed runs.
    listed: usize,
    /// The number of runs in the large engine.
    many: usize,
    rounds: usize,
}

async fn all(sizes: Sizes) {
    lists::far_head();
    let few = Setup::with_runs(sizes.listed).await;
    let few_pairs = lists::far(&few, sizes, sizes.listed).await;
    let many = Setup::with_runs(sizes.many).await;
    let many_pairs = lists::far(&many, Sizes { rounds: sizes.rounds.div_ceil(3), ..sizes }, sizes.many).await;

    pairs::head("µs, or the named unit");
    few_pairs.print(&format!("run of a list of {}", sizes.listed), sizes.listed);
    many_pairs.print(&format!("run of a list of {} of {}", sizes.listed, sizes.many), sizes.listed);
    lists::allocations(&few, sizes).await;
    lists::page(&many, sizes).await;
    many.end().await;
    lists::query(&few, sizes).await;
    details::all(&few, sizes).await;
    few.end().await;
    starts::all(sizes).await;
}

fn main() {
    // Without `--bench`, a small run checks that the benchmark works.
    let sizes = if std::env::args().any(|argument| argument == "--bench") {
        Sizes { listed: 10_000, many: 100_000, rounds: 21 }
    } else {
        Sizes { listed: 1000, many: 2000, rounds: 1 }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(all(sizes));
}
