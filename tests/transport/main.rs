//! Clients with misbehaving servers. Uses real time, because it uses real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

mod assignments;
#[path = "../../benches/dispatcher.rs"]
mod dispatcher;
mod mismatch;
mod pages;
mod resets;
mod roots;
mod runtimes;
mod servers;
#[path = "../support/mod.rs"]
mod support;
