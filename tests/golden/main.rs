//! Recordings of the real engine, played again to the embedded one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop on what it did not expect"
)]

mod accepted;
mod bulks;
mod compare;
mod dags;
mod errors;
mod families;
mod lists;
mod measured;
mod not_yet;
mod parallel;
mod pushed;
mod recording;
mod replay;
mod rest_only;
mod restarted;
mod routes;
mod scheduled;
mod settled;
mod stage;
mod tokens;
mod tokens_refused;
mod triggers;
mod wire;

use hatchet::embedded::{Quirk, Quirks};
use serde_json::{Value, json};

use not_yet::NOT_YET;
use replay::{Scenario, replay};

const SEED: u64 = 7;
/// How often a recording of which chance decides is played until it falls as it was recorded.
const MOST_TRIES: usize = 32;

/// What any two machines differ by.
const SLACK: i64 = 160;

/// Plays a recording with the defects that it shows, and with all but those that it does not show. Those that it shows
/// must make a difference.
async fn check(scenario: Scenario, shows: &[Quirk], shows_not: &[Quirk]) {
    let minimal: Quirks = shows.iter().copied().collect();
    let full = shows_not.iter().fold(Quirks::all(), |quirks, quirk| quirks.without(*quirk));
    let seeds = || (SEED..).take(if scenario.by_chance { MOST_TRIES } else { 1 });
    for quirks in [minimal, full] {
        let mut differences = Vec::new();
        for seed in seeds() {
            differences = replay(&scenario, quirks, seed).await;
            if differences.is_empty() {
                break;
            }
        }
        assert!(differences.is_empty(), "{} with {quirks:?}:\n{}", scenario.name, differences.join("\n"));
    }
    for quirk in shows {
        for seed in seeds() {
            let differences = replay(&scenario, minimal.without(*quirk), seed).await;
            assert!(!differences.is_empty(), "{} does not show {quirk:?}", scenario.name);
        }
    }
}

fn usual(name: &'static str) -> Scenario {
    Scenario { name, task: Value::Null, slack_ms: SLACK, worker_at: None, by_chance: false }
}

fn dag(name: &'static str, task: Value) -> Scenario {
    Scenario { task, ..usual(name) }
}

/// What comes after what in most of the recorded DAGs.
fn diamond() -> Value {
    json!({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]})
}

macro_rules! scenarios {
    ($($function:ident: $scenario:expr, shows $shows:expr, not $not:expr;)*) => {
        $(#[tokio::test(start_paused = true)]
        async fn $function() {
            check($scenario, &$shows, &$not).await;
        })*

        /// The recordings that are played here.
        fn played() -> Vec<&'static str> {
            vec![$($scenario.name),*]
        }
    };
}

use Quirk::{EarlyDagEnd, EarlyEnd, IdleQueue, LateAttach, LateTimeouts, RestLag, SlowHistory, TwoFinalRows};

scenarios! {
    completed: usual("completed"), shows [], not [];
    completed_fast: usual("completed-fast"), shows [LateAttach], not [RestLag];
    completed_v1_trigger: usual("completed-v1-trigger"), shows [], not [];
    failed_no_retry: usual("failed-no-retry"), shows [], not [];
    failed_after_retry: usual("failed-after-retry"), shows [EarlyEnd], not [SlowHistory];
    failed_then_completed: Scenario { task: json!({"retries": 1}), ..usual("failed-then-completed") }, shows [EarlyEnd], not [SlowHistory];
    // The recorded attempt lay in its queue for longer than those here do.
    failed_backoff_completed: Scenario { task: json!({"retries": 1, "backoff_factor": 2.0}), slack_ms: 1500, ..usual("failed-backoff-completed") },
        shows [IdleQueue], not [SlowHistory];
    failed_non_retryable: Scenario { task: json!({"retries": 3}), ..usual("failed-non-retryable") }, shows [], not [];
    completed_bad_json_output: usual("completed-bad-json-output"), shows [], not [];
    completed_empty_output: usual("completed-empty-output"), shows [], not [];
    completed_array_output: usual("completed-array-output"), shows [], not [];
    timed_out: usual("timed-out"), shows [], not [RestLag, LateTimeouts];
    timed_out_noticed_late: Scenario { slack_ms: 1100, ..usual("timed-out") }, shows [], not [RestLag];
    timed_out_then_retried: Scenario { task: json!({"timeout": "2s", "retries": 1}), slack_ms: 1100, ..usual("timed-out-then-retried") },
        shows [], not [];
    schedule_timed_out: Scenario { slack_ms: 1100, ..usual("schedule-timed-out") }, shows [], not [];
    cancelled_queued: Scenario { worker_at: Some(1986), ..usual("cancelled-queued") }, shows [], not [];
    cancelled_running: usual("cancelled-running"), shows [], not [];
    cancelled_then_late_completed: usual("cancelled-then-late-completed"), shows [TwoFinalRows], not [];
    completed_then_cancelled: Scenario { by_chance: true, ..usual("completed-then-cancelled") }, shows [TwoFinalRows, LateAttach], not [];
    bulk_3: usual("bulk-3"), shows [], not [];
    stream_events: usual("stream-events"), shows [], not [];
    logs: usual("logs"), shows [LateAttach], not [];
    replayed_completed: usual("replayed-completed"), shows [], not [LateAttach];
    replayed_failed: usual("replayed-failed"), shows [], not [SlowHistory];
    child_runs: usual("child-runs"), shows [LateAttach], not [];
    dag_completed: usual("dag-completed"), shows [], not [EarlyDagEnd, LateAttach];
    dag_failed: dag("dag-failed", json!({"parents": diamond()})), shows [EarlyDagEnd, LateAttach], not [];
    dag_on_failure: usual("dag-on-failure"), shows [EarlyDagEnd, LateAttach], not [];
    dag_on_failure_skipped: dag("dag-on-failure-skipped", json!({"parents": {"a": [], "b": ["a"]}, "on_failure": "cleanup"})), shows [], not [];
    dag_cancelled_middle: Scenario { by_chance: true, ..dag("dag-cancelled-middle", json!({"parents": diamond()})) }, shows [TwoFinalRows], not [EarlyDagEnd, LateAttach];
}

/// Recordings with a test of their own shape.
const OTHERS: &[&str] = &["error-bodies", "list-page", "task-metrics"];

#[test]
fn every_recording_is_played_or_named_as_not_yet() {
    let mut names: Vec<_> = std::fs::read_dir(recording::folder())
        .unwrap()
        .filter_map(|file| Some(file.unwrap().file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .collect();
    names.sort();
    let played = played();
    let mut known: Vec<_> = played.iter().chain(NOT_YET).chain(OTHERS).map(|name| (*name).to_owned()).collect();
    known.sort();
    known.dedup();
    assert_eq!(names, known);
    assert!(NOT_YET.iter().all(|name| !played.contains(name)), "played, and named as not yet");
}
