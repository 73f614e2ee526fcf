//! The architecture of the crate: modules depend on each other in one direction, files are short, and the public API contains no type
//! of a crate that is an implementation detail.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

#[path = "../support/files.rs"]
mod files;
mod guards;
mod language;
mod public_api;
mod sections;
mod source;

use std::fs;
use std::path::PathBuf;

use source::{Sources, Target};

/// The children of each module in order: each uses only itself and those before it.
const MODULE_ORDERS: &[(&[&str], &[&str])] = &[
    (
        &[],
        &[
            "sync",
            "value",
            "error",
            "runtime",
            "telemetry",
            "boxed",
            "time",
            "model",
            "config",
            "transport",
            "rpc",
            "feed",
            "client",
            "request",
            "observe",
            "run",
            "list",
            "trigger",
            "watch",
            "workflow",
            "worker",
            "archive",
            "raw",
            "embedded",
            "testing",
            "bench",
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
    (
        &["embedded", "core", "expression"],
        &[
            "ast",
            "error",
            "budget",
            "value",
            "compare",
            "convert",
            "operators",
            "strings",
            "checksum",
            "functions",
            "eval",
            "types",
            "signatures",
            "environment",
            "check",
            "oracle",
        ],
    ),
    (
        &["embedded", "core", "store"],
        &[
            "turn",
            "ids",
            "labels",
            "status_error",
            "requests",
            "cel",
            "concurrency",
            "conditions",
            "options",
            "effects",
            "timers",
            "rate_limits",
            "batches",
            "definition",
            "pauses",
            "versions",
            "task",
            "run",
            "outputs",
            "runs",
            "families",
            "keys",
            "queues",
            "slots",
            "workers",
            "streams",
            "events",
            "filters",
            "schedules",
            "crons",
            "state",
        ],
    ),
    (
        &["archive"],
        &[
            "text",
            "crash",
            "retention",
            "manifest",
            "open",
            "unfinished",
            "store",
            "log",
            "schema",
            "exact",
            "convert",
            "encode",
            "decode",
            "paging",
            "filter",
            "reading",
            "handle",
            "progress",
            "report",
            "lookup",
            "query",
            "days",
            "compare",
            "writing",
            "collection",
            "collect",
            "collector",
            "compactor",
            "compact",
            "expire",
            "sweep",
            "history_stream",
            "history",
            "tests",
        ],
    ),
    (&["list"], &["cursor", "statuses", "selection", "derive", "reader", "items", "query", "lineage", "bulk"]),
    (
        &["rpc", "convert"],
        &[
            "condition",
            "fields",
            "task_event",
            "rest_run",
            "rest_events_and_crons",
            "limit",
            "run_event",
            "event",
            "definition",
            "summary",
            "worker",
            "results",
            "label",
            "new_run",
            "collision",
            "run",
        ],
    ),
    (&["feed"], &["tasks", "sharing", "fetcher", "parents", "rejection", "results", "events", "workflows"]),
    (&["feed", "events"], &["schedule", "slot", "chunk_event", "early", "chunks", "group", "driver", "bench", "tests"]),
    (
        &["watch"],
        &[
            "step",
            "reorder",
            "watch_failure",
            "announced",
            "beginning",
            "lateness",
            "continuity",
            "family",
            "outage",
            "lookup",
            "follower",
            "changes",
            "chunk_group",
            "chunk_reader",
            "chunks",
            "sse",
            "until",
            "many",
            "matching",
            "wait",
            "results",
            "rerun",
        ],
    ),
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
    (
        &["run"],
        &[
            "batch",
            "placement",
            "options",
            "inputs",
            "handle",
            "cancel_reason",
            "effect",
            "resend",
            "cancel",
            "replay",
            "start",
            "reconcile",
            "many",
            "rerun",
        ],
    ),
    (&["embedded", "core", "streams"], &["results", "events", "chunks"]),
    (&["embedded", "core", "definitions"], &["expressions", "graph", "options", "check", "versions"]),
    (
        &["embedded", "core", "runs"],
        &[
            "retention",
            "idempotency",
            "availability",
            "children",
            "payload",
            "announce",
            "expressions",
            "concurrency",
            "rates",
            "batches",
            "queue",
            "attempts",
            "finals",
            "admission",
            "placement",
            "delivery",
            "conditions",
            "waits",
            "dag",
            "progress",
            "flushes",
            "retries",
            "late",
            "lifecycle",
            "pauses",
            "wakes",
            "cancels",
            "slots",
            "replays",
            "start",
        ],
    ),
    (&["embedded", "core", "triggers"], &["pattern", "filters", "events", "stored", "schedules", "crons"]),
    (&["embedded", "core", "workers"], &["sessions", "registration", "logs", "refresh", "release", "reports"]),
    (
        &["embedded", "core", "views"],
        &["status", "grpc", "rest", "workers", "lookup", "events", "metadata", "rate_limits", "selection"],
    ),
    (
        &["embedded", "core", "engine"],
        &["turns", "streams", "definitions", "trigger_commands", "workers", "limits", "commands"],
    ),
    (
        &["config"],
        &[
            "env",
            "error",
            "explain",
            "secret",
            "setting",
            "pem",
            "layers",
            "address",
            "namespace",
            "token",
            "request",
            "compression",
            "tls",
            "builder",
            "tuning",
            "resolved",
            "tls_layers",
            "resolve",
            "fixtures",
        ],
    ),
    (
        &["transport"],
        &[
            "auth",
            "budget",
            "token_health",
            "retry",
            "poll",
            "connect_error",
            "connections",
            "dial",
            "protocol",
            "probe",
            "stream",
            "roots",
            "tls",
            "connect",
            "service",
            "status_source",
            "retry_after",
            "proxy_response",
            "failure",
            "status",
            "messages",
            "grpc_response",
            "wire",
            "prefixed_body",
            "request",
            "rest",
            "caller",
            "reconnect",
        ],
    ),
    (
        &["workflow"],
        &[
            "stop",
            "full_slots",
            "output",
            "context",
            "current",
            "context_control",
            "context_output",
            "probe",
            "handler",
            "sticky",
            "task_options",
            "start_options",
            "workflow_options",
            "definition",
            "graph",
            "check",
            "engine",
            "task",
            "variants",
            "batch",
            "context_parents",
            "parents",
            "defaults",
            "dag",
            "setters",
        ],
    ),
    (
        &["worker"],
        &[
            "key",
            "report",
            "status",
            "signals",
            "guard",
            "assignments",
            "registered",
            "attempt",
            "ownership",
            "job",
            "batch_job",
            "delivery",
            "outputs",
            "outbox",
            "connection",
            "heartbeat_thread",
            "heartbeat",
            "setup",
            "driver",
            "running",
            "health",
            "builder",
            "log_layer",
        ],
    ),
    (
        &["embedded", "rest"],
        &[
            "response",
            "api",
            "request",
            "rows",
            "query",
            "paging",
            "body",
            "json",
            "config",
            "task",
            "dag",
            "run",
            "list",
            "bulk",
            "start",
            "events",
            "filters",
            "schedules",
            "crons",
            "workflows",
            "workers",
            "rate_limits",
            "cel",
            "server",
            "deprecated",
            "not_yet",
            "tests",
        ],
    ),
    (
        &["rpc"],
        &[
            "pb",
            "convert",
            "exchange",
            "method",
            "unary",
            "streams",
            "version",
            "rest",
            "rest_events_and_crons",
            "dispatcher",
            "events",
            "workflows",
            "admin",
        ],
    ),
    (
        &["model"],
        &[
            "name",
            "change",
            "engine_version",
            "cel",
            "strict",
            "payload",
            "expression",
            "batch",
            "metadata",
            "window",
            "filter",
            "cron",
            "task_name",
            "condition",
            "until",
            "counts",
            "page",
            "id",
            "sse",
            "event_details",
            "log",
            "trigger",
            "details",
            "timeline",
            "chunk",
            "priority",
            "summary",
            "schedule_details",
            "error",
            "label",
            "cron_details",
            "report",
            "idempotency",
            "timeout_kind",
            "rate_limit",
            "concurrency",
            "event_filter",
        ],
    ),
    (&["model", "cel"], &["ast", "lexer", "parser"]),
    (&["value"], &["id", "payload", "status", "outcome"]),
    (&["time"], &["idle", "duration", "clock", "server", "alarm", "timestamp", "rate"]),
    (&["testing"], &["call", "harness"]),
    (&["trigger"], &["correlation", "cron", "event", "schedule", "query", "push", "rate_limit"]),
    (&["embedded", "core", "format"], &["cron", "duration", "validation", "json", "uuid"]),
];

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
