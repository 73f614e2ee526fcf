//! Measures how much a query reads, how much memory a collection needs, and how much it slows down a worker.
//!
//! ```text
//! cargo bench --bench archive --features archive
//! cargo bench --bench archive --features archive -- 100000   # with another number of runs
//! ```
//!
//! The first part archives runs of ten workflows, created over a hundred days, through the embedded engine, and queries them. The
//! last part runs a worker on an engine with 100 000 runs, with and without a collection at the same time.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a command-line program, which exits on a failure, and which measures real time"
)]

mod memory;
mod queries;
mod workers;

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn main() {
    let runs = std::env::args().find_map(|argument| argument.parse::<usize>().ok()).unwrap_or(1_000_000);
    queries::run(runs);
    memory::run();
    workers::run();
}
