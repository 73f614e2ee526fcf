//! Clients with misbehaving servers. Uses real time, because real sockets are the subject.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop on what it did not expect"
)]

mod mismatch;
mod pages;
mod resets;
mod roots;
mod runtimes;
mod servers;
