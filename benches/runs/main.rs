//! What does it cost to look at runs, one or many, and to start many? The SDK beside raw calls for the same, in one process
//! and on one thread, against the embedded engine.
//!
//! ```text
//! cargo bench --bench runs
//! ```
//!
//! Wall time on a single thread is the processor's time of all that takes part: SDK, wire and engine. Both sides are
//! measured in turn, and the medians of the pairs are told. The allocator counts, which takes its time on both sides.
//!
//! The floors, each a caller who does nothing that is not needed:
//!
//! - *lists*: `Client::raw_rest`, whose answer is not decoded. A page with its total is the SDK's two requests at the same
//!   time. A walk is by offset, as REST has it; the SDK's is by key.
//! - *details*: the calls that the SDK makes of one, all at the same time, as if the ids of the tasks were known before; none
//!   is decoded but the one of gRPC. Of a DAG without the events of its tasks, which are in the run.
//! - *many starts*: one `BulkTriggerWorkflow` after the other with a thousand runs each, that are written as JSON.
#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for the terminal, which can do nothing better with a failure than to end"
)]

mod bed;
mod details;
#[path = "../interleaved.rs"]
mod interleaved;
mod lists;
mod pairs;
mod starts;

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use self::bed::Bed;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Runs of a list, and of the walk through it.
    listed: usize,
    /// Runs that are many.
    many: usize,
    rounds: usize,
}

async fn all(sizes: Sizes) {
    lists::far_head();
    let few = Bed::filled(sizes.listed).await;
    let few_walks = lists::far(&few, sizes, sizes.listed).await;
    let many = Bed::filled(sizes.many).await;
    let many_walks = lists::far(&many, Sizes { rounds: sizes.rounds.div_ceil(3), ..sizes }, sizes.many).await;

    pairs::head("µs, or as it says");
    few_walks.print(&format!("run of a walk through {}", sizes.listed), sizes.listed);
    many_walks.print(&format!("run of a walk through {} of {}", sizes.listed, sizes.many), sizes.listed);
    lists::allocations(&few, sizes).await;
    lists::page(&many, sizes).await;
    many.end().await;
    lists::query(&few, sizes).await;
    details::all(&few, sizes).await;
    few.end().await;
    starts::all(sizes).await;
}

fn main() {
    // Without `--bench` it is only tried out, as tests do with benchmarks.
    let sizes = if std::env::args().any(|argument| argument == "--bench") {
        Sizes { listed: 10_000, many: 100_000, rounds: 21 }
    } else {
        Sizes { listed: 1000, many: 2000, rounds: 1 }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(all(sizes));
}
