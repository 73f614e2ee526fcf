//! The JSON of public types, which users may store.

use std::fmt::Debug;

use hatchet::config::{Compression, RetryPolicy, TlsStrategy, TlsVersion};
use hatchet::embedded::Engine;
use hatchet::model::{
    BulkReport, Change, ChangeKind, ChunkItem, CronDetails, CronSpec, Effect, EventDetails, LabelValue, LogLevel,
    LogLine, Page, RunDetails, RunSummary, ScheduleDetails, SseEvent, TaskSummary, Trigger, Until, Window,
};
use hatchet::worker::WorkerReport;
use hatchet::{Context, Outcome, RunFilter, RunId, RunStatus, Task, TaskError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const ID: &str = "7c0b6d4e-9a43-4f6e-8a3b-0c6f0a3a5f11";
const AT: &str = "2028-02-29T12:00:00.123456Z";

/// Deserializes a value, and serializes it to the same JSON. The value is the same after another round.
#[track_caller]
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(json: &Value) -> T {
    let value: T = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&value).unwrap(), *json);
    let text = serde_json::to_string(&value).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), value);
    value
}

fn outcomes() -> Vec<Value> {
    vec![
        json!({ "status": "COMPLETED", "output": { "n": 1 } }),
        json!({ "status": "COMPLETED", "output": 7.5 }),
        json!({ "status": "COMPLETED", "output": null }),
        json!({ "status": "FAILED", "task_name": "a", "message": "out of paper" }),
        json!({ "status": "FAILED", "task_name": null, "message": "" }),
        json!({ "status": "CANCELLED", "message": "", "request": null }),
        json!({
            "status": "CANCELLED", "message": "m",
            "request": { "reason": "customer asked", "by": "ada", "requested_at": AT },
        }),
        json!({ "status": "TIMED_OUT", "kind": "execution", "task_name": "a", "message": "Task exceeded timeout of 2s" }),
        json!({ "status": "TIMED_OUT", "kind": "schedule", "task_name": null, "message": "" }),
    ]
}

fn triggers() -> Vec<Value> {
    vec![
        json!({ "kind": "manual" }),
        json!({ "kind": "event", "event_id": ID, "key": "k", "payload": { "a": [1] }, "scope": "s" }),
        json!({ "kind": "event", "event_id": ID, "key": "k", "payload": null, "scope": null }),
        json!({ "kind": "event", "event_id": ID, "key": null, "payload": null, "scope": null }),
        json!({ "kind": "cron", "name": "nightly", "expression": "0 2 * * *", "scheduled_at": AT }),
        json!({ "kind": "cron", "name": null, "expression": "0 2 * * *", "scheduled_at": null }),
        json!({ "kind": "schedule", "key": "0123" }),
        json!({ "kind": "child", "parent_task_id": ID, "parent_run_id": ID }),
        json!({ "kind": "child", "parent_task_id": ID, "parent_run_id": null }),
    ]
}

fn log_line() -> Value {
    json!({ "task_id": ID, "attempt": 2, "created_at": AT, "level": "WARN", "message": "m", "metadata": { "k": [true] } })
}

fn summary() -> Value {
    json!({
        "id": ID, "parent_task_id": ID, "workflow_id": ID, "workflow_name": "w",
        "status": "TIMED_OUT", "attempt": 3, "error": "e", "metadata": { "k": "v" },
        "engine_metadata": { "hatchet__x": 1 }, "created_at": AT, "started_at": AT, "finished_at": null,
    })
}

#[test]
fn settings_can_be_read_from_files_of_users() {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    for value in [Compression::None, Compression::Gzip] {
        assert_eq!(text(&serde_json::to_value(value).unwrap()), Some(value.to_string()));
    }
    for value in [TlsStrategy::None, TlsStrategy::Tls, TlsStrategy::Mtls] {
        assert_eq!(text(&serde_json::to_value(value).unwrap()), Some(value.to_string()));
    }
    for value in [TlsVersion::Tls12, TlsVersion::Tls13] {
        assert_eq!(text(&serde_json::to_value(value).unwrap()), Some(value.to_string()));
    }
    let policy: RetryPolicy = round_trip(&serde_json::json!({"max_retries": 3}));
    assert_eq!(policy, RetryPolicy::max_retries(3));
}

#[test]
fn filters_and_reports_have_a_stable_form() {
    let filter = RunFilter::new(Window::last(std::time::Duration::from_secs(60))).workflow("greet");
    let json = serde_json::to_value(&filter).unwrap();
    assert_eq!(json["window"], serde_json::json!({"start": {"ago": {"secs": 60, "nanos": 0}}, "until": null}));
    assert_eq!(serde_json::from_value::<RunFilter>(json).unwrap(), filter);
    let error = "x".parse::<RunId>().unwrap_err();
    let json = serde_json::to_value(Effect::Unknown(error.clone())).unwrap();
    assert_eq!(json["unknown"]["message"], error.to_string());
    assert_eq!(serde_json::from_value::<Effect>(json).unwrap(), Effect::Unknown(error.clone()));
    assert_eq!(Effect::Unknown(error.clone()), Effect::Unknown(error));
    assert_eq!(
        serde_json::to_value(Effect::Skipped(RunStatus::Failed)).unwrap(),
        serde_json::json!({"skipped": "FAILED"})
    );
}

#[test]
fn outcomes_have_a_stable_form() {
    for json in outcomes() {
        let outcome: Outcome = round_trip(&json);
        assert_eq!(outcome.status().as_str(), json["status"]);
    }
}

#[test]
fn triggers_have_a_stable_form() {
    for json in triggers() {
        let trigger: Trigger = round_trip(&json);
        assert_eq!(trigger.to_string().split(' ').next().unwrap(), json["kind"]);
    }
}

#[test]
fn details_have_a_stable_form() {
    for (outcome, trigger) in outcomes().into_iter().zip(triggers().into_iter().cycle()) {
        let attempt = json!({
            "number": 2, "status": "FAILED", "queued_at": AT, "started_at": AT, "finished_at": AT, "worker_id": ID,
            "error": "e",
        });
        let task = json!({
            "id": ID, "name": "a", "status": outcome["status"], "outcome": outcome, "attempts": [attempt],
            "replayed_after": [1, 2],
        });
        let details: RunDetails = round_trip(&json!({
            "id": ID, "workflow_id": ID, "workflow_name": "w", "workflow_version_id": ID, "status": outcome["status"],
            "outcome": outcome, "trigger": trigger, "input": { "n": 1 }, "metadata": { "k": "v" },
            "engine_metadata": { "hatchet__x": null }, "created_at": AT, "tasks": [task], "logs": [log_line()],
            "conflicts": [{ "task_name": "a", "grpc": "CANCELLED", "rest": "FAILED" }],
        }));
        assert_eq!((details.tasks.len(), details.logs.len(), details.conflicts.len()), (1, 1, 1));
    }
}

#[test]
fn lists_changes_and_logs_have_a_stable_form() {
    round_trip::<RunSummary>(&summary());
    round_trip::<TaskSummary>(&json!({
        "id": ID, "name": "a", "run_id": ID, "workflow_id": ID, "workflow_name": "w", "status": "TIMED_OUT", "attempt": 3,
        "error": "e", "metadata": { "k": "v" }, "engine_metadata": {}, "created_at": AT, "started_at": AT,
        "finished_at": null,
    }));
    for total in [json!({ "exactly": 7 }), json!({ "at_least": 7 }), json!({ "at_most": 7 }), json!("unknown")] {
        let page: Page<RunSummary> =
            round_trip(&json!({ "items": [summary(), summary()], "total": total, "next": null }));
        assert_eq!(page.items.len(), 2);
    }
    for outcome in outcomes().into_iter().chain([Value::Null]) {
        let change: Change = round_trip(&json!({ "run": {
            "run_id": ID, "state": { "attempt": 2, "status": "RUNNING" }, "changed_at": AT, "error": "e", "outcome": outcome,
        }}));
        assert_eq!(change.is_final(), !outcome.is_null());
    }
    let change: Change = round_trip(&json!({ "task": {
        "run_id": ID, "task_id": ID, "task_name": "a", "state": { "attempt": 2, "status": "RUNNING" }, "changed_at": AT,
        "error": "e",
    }}));
    assert_eq!((change.task_name(), change.is_final()), (Some("a"), false));
    let gap: Change =
        round_trip(&json!({ "gap": { "run_id": ID, "task_name": null, "first_attempt": 1, "last_attempt": 2 } }));
    assert_eq!((gap.status(), gap.attempt()), (None, 2));
    round_trip::<ChunkItem>(&json!({ "chunk": {
        "run_id": ID, "task_id": ID, "index": 7, "sent_at": AT, "text": "t",
    }}));
    round_trip::<ChunkItem>(&json!({ "chunk": {
        "run_id": ID, "task_id": ID, "index": null, "sent_at": null, "base64": "/w==",
    }}));
    round_trip::<ChunkItem>(&json!({ "gap": { "run_id": ID, "task_id": ID, "first_index": 1, "last_index": 2 } }));
    for kind in ["run", "task", "gap"] {
        round_trip::<ChangeKind>(&json!(kind));
    }
    for until in [json!({ "status": "RUNNING" }), json!({ "attempt": 2 }), json!("ended")] {
        round_trip::<Until>(&json!({ "all": [{ "any": [until, { "task": ["a", "COMPLETED"] }] }] }));
    }
    round_trip::<LogLine>(&log_line());
    for level in ["DEBUG", "INFO", "WARN", "ERROR", "TRACE"] {
        assert_eq!(round_trip::<LogLevel>(&json!(level)).as_str(), level);
    }
    for status in RunStatus::KNOWN.iter().map(RunStatus::as_str).chain(["PAUSED"]) {
        assert_eq!(round_trip::<RunStatus>(&json!(status)).as_str(), status);
    }
}

#[test]
fn crons_schedules_events_and_reports_have_a_stable_form() {
    for priority in [json!("low"), json!("medium"), json!("high"), Value::Null] {
        round_trip::<CronDetails>(&json!({
            "id": ID, "name": "nightly", "expression": "0 2 * * *", "is_enabled": true, "from_definition": false,
            "workflow_id": ID, "workflow_name": "w", "input": {}, "metadata": { "k": "v" }, "engine_metadata": {},
            "priority": priority, "created_at": AT,
        }));
        round_trip::<ScheduleDetails>(&json!({
            "id": ID, "workflow_id": ID, "workflow_name": "w", "scheduled_at": AT, "input": { "n": 1 }, "metadata": {},
            "engine_metadata": { "hatchet__x": "y" }, "priority": priority, "created_at": null,
        }));
    }
    round_trip::<CronSpec>(&json!({ "name": "nightly", "expression": "0 2 * * *" }));
    let event: EventDetails = round_trip(&json!({
        "id": ID, "key": "k", "payload": { "n": 1 }, "metadata": {}, "engine_metadata": {}, "scope": "s",
        "created_at": AT, "run_ids": [ID], "counts": { "COMPLETED": 1, "FAILED": 2 },
    }));
    assert_eq!(event.counts.total(), 3);
    let report: WorkerReport = round_trip(&json!({
        "completed": 1, "failed": 2, "cancelled": 3, "unfinished": 1,
        "unfinished_attempts": [{ "run_id": ID, "task_id": ID, "attempt": 2, "is_finished": true }],
    }));
    assert_eq!(report.total(), 7);
    round_trip::<LabelValue>(&json!(7));
    round_trip::<LabelValue>(&json!("eu"));
    let error = json!({
        "kind": "timeout", "message": "m", "is_transient": true, "has_no_side_effects": false, "source": "s",
    });
    let effects =
        [json!("applied"), json!({ "skipped": "COMPLETED" }), json!("not_found"), json!({ "unknown": error })];
    let reports: Vec<_> = effects
        .iter()
        .map(|effect| json!({ "run_id": ID, "action": "cancel", "effect": effect, "attempt": null }))
        .collect();
    let report: BulkReport = round_trip(&json!({
        "action": "cancel", "applied": 1, "skipped": 1, "finished_first": 0, "no_effect": 0, "not_found": 1,
        "unknown": 1, "exceptions": reports, "stopped_by": error,
    }));
    assert!(report.stopped_by.unwrap().is_timeout());
    assert!(matches!(&report.exceptions[3].effect, Effect::Unknown(error) if error.is_transient()));
    let event: SseEvent =
        round_trip(&json!({ "name": "n", "id": "7", "retry": { "secs": 3, "nanos": 0 }, "data": "d" }));
    assert_eq!(event.retry, Some(std::time::Duration::from_secs(3)));
}

#[derive(Serialize, Deserialize)]
struct Number {
    n: u32,
}

/// What an engine reports can be stored, and is the same after that. Only the text of a payload may differ from the one of the engine.
#[tokio::test(start_paused = true)]
async fn what_the_engine_reports_can_be_stored() {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task = Task::new(
        "task",
        async |Number { n }: Number, _: Context| {
            if n == 0 { Err(TaskError::non_retryable("zero")) } else { Ok([n, n + 1]) }
        },
    );
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    for n in 0..2 {
        let run = hatchet.run(&task, &Number { n }).metadata("k", "v").start().await.unwrap();
        let mut watch = run.watch();
        while let Some(change) = watch.next().await {
            round_trip::<Change>(&serde_json::to_value(change.unwrap()).unwrap());
        }
        let details = run.details().await.unwrap();
        let again: RunDetails = round_trip(&serde_json::to_value(&details).unwrap());
        let output = |details: &RunDetails| details.output().map(|output| output.parse::<[u32; 2]>().unwrap());
        assert_eq!(output(&again), output(&details));
        assert_eq!((&again.tasks[0].attempts, &again.trigger, &again.metadata), {
            (&details.tasks[0].attempts, &details.trigger, &details.metadata)
        });
    }
    let page = hatchet.runs(Window::all()).page(10).await.unwrap();
    let again: Page<RunSummary> = round_trip(&serde_json::to_value(&page).unwrap());
    assert_eq!(again.items.len(), 2);
    round_trip::<WorkerReport>(&serde_json::to_value(worker.shutdown().await).unwrap());
    engine.shutdown().await;
}
