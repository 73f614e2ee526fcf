//! Measures how much a query reads, how much memory a collection needs, and how much it slows down a worker.
//!
//! ```text
//! cargo bench --bench archive --features archive
//! cargo bench --bench archive --features archive -- queries 100000   # one part, with another number of runs
//! ```
//!
//! | part | what it does |
//! |---|---|
//! | `queries` | archives 1,000,000 runs of ten workflows, created over a hundred days, through the embedded engine, and queries them |
//! | `memory` | collects 1000, 10,000 and 50,000 runs, or one other number |
//! | `workers` | runs a worker on an engine with 100,000 runs, with and without a collection at the same time |
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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runs = arguments.iter().find_map(|argument| argument.parse::<usize>().ok());
    let parts = ["queries", "memory", "workers"];
    let selected: Vec<_> = parts.into_iter().filter(|part| arguments.iter().any(|argument| argument == part)).collect();
    for part in if selected.is_empty() { parts.to_vec() } else { selected } {
        match part {
            "queries" => queries::run(runs.unwrap_or(1_000_000)),
            "memory" => memory::run(&runs.map_or_else(|| vec![1000, 10_000, 50_000], |runs| vec![runs])),
            _ => workers::run(runs.unwrap_or(100_000)),
        }
    }
}
