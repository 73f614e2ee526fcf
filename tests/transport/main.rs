//! What the client makes of servers that do not answer as they should. Real time, since real sockets are the subject.

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
