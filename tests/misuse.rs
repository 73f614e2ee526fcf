//! The errors of the compiler for common mistakes, as users see them.
//!
//! The texts are those of one version of the compiler, which is in `tests/misuse/RUSTC`. With another version the test is skipped. After
//! a change, or to move on to a new version: `TRYBUILD=overwrite cargo test --test misuse`, and read the difference.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may stop on what it did not expect")]

use std::process::Command;

const VERSION: &str = include_str!("misuse/RUSTC");

#[test]
fn mistakes_are_explained() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = String::from_utf8(Command::new(rustc).arg("--version").output().unwrap().stdout).unwrap();
    if version.split(' ').nth(1) != Some(VERSION.trim()) {
        eprintln!("skipped: the texts are those of rustc {}, this is {}", VERSION.trim(), version.trim());
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/misuse/*.rs");
}
