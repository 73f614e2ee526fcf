//! The architecture of the crate: modules depend on each other in one direction, files are short, and the public API contains no type
//! of a crate that is an implementation detail.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

#[path = "../support/files.rs"]
mod files;
mod guards;
mod language;
mod orders;
mod public_api;
mod sections;
mod source;

use std::fs;
use std::path::PathBuf;

use orders::MODULE_ORDERS;
use source::{Sources, Target};

/// The crates that only some modules may use.
const RESTRICTED: &[(&str, &[&str])] = &[
    ("prost", &["rpc", "raw", "embedded", "scripted"]),
    ("prost_types", &["time", "rpc", "embedded"]),
    ("hyper_util", &["transport", "worker", "embedded"]),
    ("hyper", &["transport", "worker", "embedded", "scripted"]),
    ("h2", &["transport", "embedded"]),
    ("tonic", &["transport", "rpc", "raw", "embedded", "fuzzing", "scripted"]),
    ("axum", &["embedded"]),
];

#[test]
fn no_module_uses_a_later_one() {
    let sources = Sources::read();
    let mut violations = Vec::new();
    for source in &sources.files {
        for (parent, order) in MODULE_ORDERS {
            let position = |path: &[String]| {
                let inside = path.len() > parent.len() && path.iter().zip(*parent).all(|(a, b)| a == b);
                let child = path.get(parent.len()).filter(|_| inside)?;
                let index = order.iter().position(|name| name == child);
                // Items of the parent itself are after its children, which must not use them.
                Some((index.unwrap_or(order.len()), child.clone()))
            };
            let Some((own, _)) = position(&source.module) else { continue };
            assert!(own < order.len(), "expected {} in MODULE_ORDERS, got no entry", source.file.display());
            for used in sources.used(source).into_iter().filter(|used| !used.in_test) {
                let Target::Crate(path) = &used.target else { continue };
                if position(path).is_some_and(|(other, _)| other > own) {
                    violations.push(format!("{} uses {}", source.file.display(), path.join("::")));
                }
            }
        }
    }
    violations.sort();
    violations.dedup();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn no_file_is_longer_than_600_lines_of_code() {
    // Unit tests are at the end. Earlier items may also be for tests only.
    let code = |text: &str| {
        let lines: Vec<_> = text.lines().collect();
        let is_start =
            |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
        lines.windows(2).position(is_start).unwrap_or(lines.len())
    };
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "rs");
    let files = ["src", "tests", "benches", "examples"].into_iter().flat_map(files::in_directory).filter(is_rust);
    let texts: Vec<_> = files.map(|path| (fs::read_to_string(&path).unwrap(), path)).collect();
    assert!(texts.len() > 500, "{}", texts.len());
    let long: Vec<_> = texts.iter().filter(|(text, _)| code(text) > 600).map(|(_, path)| path).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn implementation_crates_stay_in_their_modules() {
    let sources = Sources::read();
    let mut violations = Vec::new();
    for source in sources.files.iter().filter(|source| !source.module.is_empty()) {
        for used in sources.used(source).into_iter().filter(|used| !used.in_test) {
            let name = match &used.target {
                Target::External(path) => path[0].clone(),
                Target::Crate(path) if path.len() > 1 && path[0] == "rpc" && path[1] == "pb" => "pb".into(),
                Target::Crate(_) => continue,
            };
            let modules: &[&str] = match RESTRICTED.iter().find(|(restricted, _)| *restricted == name) {
                Some((_, modules)) => modules,
                None if name == "pb" => &["rpc", "raw", "embedded", "scripted"],
                None => continue,
            };
            if !modules.contains(&source.module[0].as_str()) {
                violations.push(format!("{} uses {name}", source.file.display()));
            }
        }
    }
    violations.sort();
    violations.dedup();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn the_public_api_has_no_types_of_implementation_crates() {
    let violations = public_api::leaks(&Sources::read());
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn documentation_says_more_than_names() {
    let repeated = language::docs_that_repeat_names(&Sources::read());
    assert!(repeated.is_empty(), "{}", repeated.join("\n"));
}

#[test]
fn comments_and_guides_avoid_banned_words() {
    let found = language::avoided_words();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Those who do not enable the archive do not build its crates.
#[test]
fn the_crates_of_the_archive_are_optional() {
    let manifest = include_str!("../../Cargo.toml");
    let dependencies = manifest.split("\n[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    for name in ["object_store", "parquet", "url"] {
        let line =
            dependencies.lines().find(|line| line.split_once(" = ").is_some_and(|(found, _)| found == name)).unwrap();
        assert!(line.contains("optional = true"), "{line}");
    }
    assert!(manifest.contains("\ndefault = [\"tls-ring\"]\n"));
}
