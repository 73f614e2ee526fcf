//! The shape of the crate: modules depend on each other in one direction, files stay short, and the public API names no type
//! of a crate that is an implementation detail.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop on what it did not expect"
)]

mod source;
mod surface;

use source::{Sources, Target};

/// A module, and its children: each uses only itself and those before it.
const ORDERS: &[(&[&str], &[&str])] = &[
    (
        &[],
        &[
            "value",
            "error",
            "runtime",
            "time",
            "model",
            "config",
            "transport",
            "rpc",
            "feed",
            "client",
            "observe",
            "run",
            "list",
            "trigger",
            "watch",
            "workflow",
            "worker",
            "raw",
            "embedded",
            "fuzzing",
            "scripted",
        ],
    ),
    (
        &["embedded", "core"],
        &[
            "expression",
            "format",
            "store",
            "definitions",
            "streams",
            "runs",
            "triggers",
            "workers",
            "views",
            "engine",
            "tests",
        ],
    ),
    (&["embedded", "core", "expression"], &["ast", "parse", "eval"]),
    (
        &["embedded", "core", "store"],
        &[
            "turn",
            "ids",
            "labels",
            "fault",
            "requests",
            "conditions",
            "options",
            "definition",
            "effects",
            "timers",
            "versions",
            "task",
            "run",
            "outputs",
            "runs",
            "families",
            "keys",
            "queues",
            "workers",
            "streams",
            "events",
            "filters",
            "schedules",
            "crons",
            "state",
        ],
    ),
    (&["feed"], &["tasks", "results", "run_events", "workflows"]),
    (
        &["observe"],
        &[
            "evidence",
            "attempts",
            "view",
            "staleness",
            "outcome",
            "resolve",
            "assemble",
            "fetch",
            "logs",
            "details",
            "fixtures",
        ],
    ),
    (&["run"], &["batch", "placement", "handle", "cancel", "replay", "start", "reconcile", "many", "rerun"]),
    (&["embedded", "core", "streams"], &["results", "events"]),
    (&["embedded", "core", "definitions"], &["problems", "graph", "options", "check", "versions"]),
    (
        &["embedded", "core", "runs"],
        &[
            "idempotency",
            "children",
            "payload",
            "announce",
            "queue",
            "attempts",
            "finals",
            "placement",
            "delivery",
            "conditions",
            "waits",
            "dag",
            "progress",
            "retries",
            "late",
            "lifecycle",
            "wakes",
            "cancels",
            "replays",
            "start",
        ],
    ),
    (&["embedded", "core", "triggers"], &["pattern", "filters", "events", "stored", "schedules", "crons"]),
    (&["embedded", "core", "workers"], &["sessions", "registration", "logs", "refresh", "reports"]),
    (&["embedded", "core", "views"], &["status", "grpc", "rest", "lookup", "events", "selection"]),
    (&["embedded", "core", "engine"], &["turns", "streams", "definitions", "triggers", "workers", "commands"]),
];

/// The crates that only some modules may name.
const CONFINED: &[(&str, &[&str])] = &[
    ("prost", &["rpc", "raw", "embedded", "scripted"]),
    ("prost_types", &["time", "rpc", "embedded"]),
    ("hyper_util", &["transport", "embedded"]),
    ("hyper", &["transport", "embedded", "scripted"]),
    ("h2", &["transport", "embedded"]),
    ("tonic", &["transport", "rpc", "raw", "embedded", "fuzzing", "scripted"]),
    ("axum", &["embedded"]),
];

#[test]
fn no_module_uses_a_later_one() {
    let sources = Sources::read();
    let mut wrong = Vec::new();
    for source in &sources.files {
        for (parent, order) in ORDERS {
            let place = |path: &[String]| {
                let inside = path.len() > parent.len() && path.iter().zip(*parent).all(|(a, b)| a == b);
                let child = path.get(parent.len()).filter(|_| inside)?;
                let place = order.iter().position(|name| name == child);
                // What a parent defines itself comes after its children: they must not use it.
                Some((place.unwrap_or(order.len()), child.clone()))
            };
            let Some((own, _)) = place(&source.module) else { continue };
            assert!(own < order.len(), "{} has no place in the order of modules", source.file.display());
            for used in sources.used(source).into_iter().filter(|used| !used.in_test) {
                let Target::Crate(path) = &used.target else { continue };
                if place(path).is_some_and(|(other, _)| other > own) {
                    wrong.push(format!("{} uses {}", source.file.display(), path.join("::")));
                }
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_600_lines_of_code() {
    let code = |text: &str| text.lines().take_while(|line| *line != "#[cfg(test)]").count();
    let sources = Sources::read();
    let long: Vec<_> =
        sources.files.iter().filter(|source| code(&source.text) > 600).map(|source| &source.file).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn implementation_crates_stay_in_their_modules() {
    let sources = Sources::read();
    let mut wrong = Vec::new();
    for source in sources.files.iter().filter(|source| !source.module.is_empty()) {
        for used in sources.used(source) {
            let name = match &used.target {
                Target::External(path) => path[0].clone(),
                Target::Crate(path) if path.len() > 1 && path[0] == "rpc" && path[1] == "pb" => "pb".into(),
                Target::Crate(_) => continue,
            };
            let modules: &[&str] = match CONFINED.iter().find(|(confined, _)| *confined == name) {
                Some((_, modules)) => modules,
                None if name == "pb" => &["rpc", "raw", "embedded"],
                None => continue,
            };
            if !modules.contains(&source.module[0].as_str()) {
                wrong.push(format!("{} uses {name}", source.file.display()));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_public_api_names_no_implementation_crate() {
    let wrong = surface::leaks(&Sources::read());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
