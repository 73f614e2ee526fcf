//! Replays recordings of the real engine with the embedded one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

mod accepted;
mod batches;
mod bulks;
mod compare;
mod dags;
mod errors;
mod events_and_crons;
mod families;
mod final_state;
mod limits;
mod lists;
mod measured;
mod not_yet;
mod parallel;
mod pauses;
mod pushed;
mod rates;
mod recording;
mod replay;
mod rest_only;
mod restarted;
mod retention;
mod routes;
mod scheduled;
mod setup;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
mod tokens_rejected;
mod wire;

use hatchet::embedded::{Quirk, Quirks};
use serde_json::{Value, json};

use replay::{Scenario, replay};

const SEED: u64 = 7;
/// The maximum number of seeds for a recording with random behavior.
const MAX_SEEDS: usize = 32;

/// The tolerance of times in milliseconds, because the speed of machines differs.
const TOLERANCE_MS: i64 = 160;

/// Replays a recording with the quirks that it shows, and with all quirks except those that it does not show. Without a quirk that it
/// shows, the replay must differ.
async fn check(scenario: Scenario, shows: &[Quirk], shows_not: &[Quirk]) {
    let minimal: Quirks = shows.iter().copied().collect();
    let full = shows_not.iter().fold(Quirks::all(), |quirks, quirk| quirks.without(*quirk));
    let seeds = || (SEED..).take(if scenario.is_random { MAX_SEEDS } else { 1 });
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

fn scenario(name: &'static str) -> Scenario {
    Scenario { name, task: Value::Null, tolerance_ms: TOLERANCE_MS, worker_at: None, is_random: false }
}

fn dag(name: &'static str, task: Value) -> Scenario {
    Scenario { task, ..scenario(name) }
}

/// The dependencies in most of the recorded DAGs.
fn diamond() -> Value {
    json!({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]})
}

macro_rules! scenarios {
    ($($function:ident: $scenario:expr, shows $shows:expr, not $not:expr;)*) => {
        $(#[tokio::test(start_paused = true)]
        async fn $function() {
            check($scenario, &$shows, &$not).await;
        })*

        /// The recordings that are replayed.
        fn replayed() -> Vec<&'static str> {
            vec![$($scenario.name),*]
        }
    };
}

use Quirk::{
    EarlyDagEnd, EarlyEnd, LateSubscription, LateTimeouts, RestLag, SlowBackoffQueue, SlowHistory, TwoFinalRows,
};

scenarios! {
    completed: scenario("completed"), shows [], not [];
    completed_fast: scenario("completed-fast"), shows [LateSubscription], not [RestLag];
    completed_v1_trigger: scenario("completed-v1-trigger"), shows [], not [];
    failed_no_retry: scenario("failed-no-retry"), shows [], not [];
    failed_after_retry: scenario("failed-after-retry"), shows [EarlyEnd], not [SlowHistory];
    failed_then_completed: Scenario { task: json!({"retries": 1}), ..scenario("failed-then-completed") }, shows [EarlyEnd], not [SlowHistory];
    // The recorded attempt was queued for longer than in the embedded engine.
    failed_backoff_completed: Scenario { task: json!({"retries": 1, "backoff_factor": 2.0}), tolerance_ms: 1500, ..scenario("failed-backoff-completed") },
        shows [SlowBackoffQueue], not [SlowHistory];
    failed_non_retryable: Scenario { task: json!({"retries": 3}), ..scenario("failed-non-retryable") }, shows [], not [];
    completed_bad_json_output: scenario("completed-bad-json-output"), shows [], not [];
    completed_empty_output: scenario("completed-empty-output"), shows [], not [];
    completed_array_output: scenario("completed-array-output"), shows [], not [];
    timed_out: scenario("timed-out"), shows [], not [RestLag, LateTimeouts];
    timed_out_detected_late: Scenario { tolerance_ms: 1100, ..scenario("timed-out") }, shows [], not [RestLag];
    timed_out_then_retried: Scenario { task: json!({"timeout": "2s", "retries": 1}), tolerance_ms: 1100, ..scenario("timed-out-then-retried") },
        shows [], not [];
    schedule_timed_out: Scenario { tolerance_ms: 1100, ..scenario("schedule-timed-out") }, shows [], not [];
    cancelled_queued: Scenario { worker_at: Some(1986), ..scenario("cancelled-queued") }, shows [], not [];
    cancelled_running: scenario("cancelled-running"), shows [], not [];
    cancelled_then_late_completed: scenario("cancelled-then-late-completed"), shows [TwoFinalRows], not [];
    completed_then_cancelled: Scenario { is_random: true, ..scenario("completed-then-cancelled") }, shows [TwoFinalRows, LateSubscription], not [];
    bulk_3: scenario("bulk-3"), shows [], not [];
    stream_events: scenario("stream-events"), shows [], not [];
    logs: scenario("logs"), shows [LateSubscription], not [];
    replayed_completed: scenario("replayed-completed"), shows [], not [LateSubscription];
    replayed_failed: scenario("replayed-failed"), shows [], not [SlowHistory];
    child_runs: scenario("child-runs"), shows [LateSubscription], not [];
    dag_completed: scenario("dag-completed"), shows [], not [EarlyDagEnd, LateSubscription];
    dag_failed: dag("dag-failed", json!({"parents": diamond()})), shows [EarlyDagEnd, LateSubscription], not [];
    dag_on_failure: scenario("dag-on-failure"), shows [EarlyDagEnd, LateSubscription], not [];
    dag_on_failure_skipped: dag("dag-on-failure-skipped", json!({"parents": {"a": [], "b": ["a"]}, "on_failure": "cleanup"})), shows [], not [];
    dag_cancelled_middle: Scenario { is_random: true, ..dag("dag-cancelled-middle", json!({"parents": diamond()})) }, shows [TwoFinalRows], not [EarlyDagEnd, LateSubscription];
}

/// Recordings with separate tests.
const OTHERS: &[&str] = &["error-bodies", "list-page", "task-metrics"];

#[test]
fn all_recordings_are_tested() {
    let mut names: Vec<_> = std::fs::read_dir(recording::directory())
        .unwrap()
        .filter_map(|file| Some(file.unwrap().file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .collect();
    names.sort();
    let replayed = replayed();
    let mut known: Vec<_> = replayed.iter().chain(OTHERS).map(|name| (*name).to_owned()).collect();
    known.sort();
    known.dedup();
    assert_eq!(names, known);
}
