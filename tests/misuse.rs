//! The compiler errors for common mistakes, as users see them.
//!
//! The expected errors are those of the compiler version in `tests/misuse/RUSTC`. With another version, the test is skipped. After a
//! change, or to update the version, run `TRYBUILD=overwrite cargo test --test misuse -- --ignored` and review the diff.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests may panic")]

use std::process::Command;

const VERSION: &str = include_str!("misuse/RUSTC");

#[test]
#[ignore = "it builds the crate and its dependencies again, which takes minutes; the lane `misuse` of .ci/run runs it"]
fn compiler_errors_match_the_recorded_ones() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = String::from_utf8(Command::new(rustc).arg("--version").output().unwrap().stdout).unwrap();
    if version.split(' ').nth(1) != Some(VERSION.trim()) {
        eprintln!("skipped: the texts are those of rustc {}, this is {}", VERSION.trim(), version.trim());
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/misuse/*.rs");
}
