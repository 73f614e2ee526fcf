//! S and B: watches of runs, and misleading ends.

use std::time::Duration;

use hatchet::model::{RunDetails, TimeoutKind};
use hatchet::raw::pb::events_service_client::EventsServiceClient;
use hatchet::raw::pb::{PutLogRequest, StepActionEventType};
use hatchet::{Context, Outcome, RunStatus, Task, Workflow};

use crate::setup::{Setup, rows, states, until};
use crate::status::{cancel, report};
use crate::tasks::{Doubled, Number, double, endless, shaky};

rows! {
    s5_cancelled_runs_become_cancelled,
    s6_all_api_views_distinguish_timed_out,
    s7_queued_runs_time_out_after_the_schedule_timeout,
    s9_timestamps_match_those_of_the_worker,
    s11_watches_return_all_states_in_order,
    s11_watches_return_all_states_of_a_dag,
    s11_watches_return_all_states_of_a_replay,
    s11_watches_of_a_dag_return_all_states_whenever_they_start,
    s11_watches_return_all_states_of_a_replayed_dag,
    s11_watches_that_start_the_run_return_all_states_of_retries,
    s12_conflicting_api_views_are_resolved_to_the_permanent_status,
    m6_the_retry_count_grows_and_attempts_are_listed,
    m8_outputs_too_large_for_the_stream_are_fetched,
    m8_dag_outputs_too_large_for_grpc_are_fetched,
    m9_each_log_line_is_read_once,
    b1_outcomes_distinguish_failures_from_empty_outputs,
    b1_large_results_and_lost_streams_have_an_outcome,
}

const ONE: Number = Number { n: 1 };
const SECOND: Duration = Duration::from_secs(1);

async fn s5_cancelled_runs_become_cancelled(setup: Setup) {
    let task = endless(setup.name("endless"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    until(&run, RunStatus::Running).await;
    run.cancel().send().await.unwrap();
    assert_eq!(states(&run).await, ["QUEUED (attempt 1)", "RUNNING (attempt 1)", "CANCELLED (attempt 1)"]);
    worker.shutdown().await;
}

async fn s6_all_api_views_distinguish_timed_out(setup: Setup) {
    let task = endless(setup.name("endless")).timeout(2 * SECOND);
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    let Outcome::TimedOut(timeout) = run.outcome().await.unwrap() else { panic!() };
    assert_eq!(
        (timeout.kind, timeout.message.as_deref()),
        (TimeoutKind::Execution, Some("Task exceeded timeout of 2s"))
    );
    assert_eq!(states(&run).await.last().unwrap(), "TIMED_OUT (attempt 1)");
    let details = run.details().await.unwrap();
    assert_eq!((details.status.clone(), details.conflicts.len()), (RunStatus::TimedOut, 0));
    let filter = hatchet::RunFilter::new(setup.window()).workflow(task.name()).status(RunStatus::TimedOut);
    setup.eventually(async || setup.hatchet.runs(filter.clone()).page(10).await.unwrap().items.len() == 1).await;
    worker.shutdown().await;
}

async fn s7_queued_runs_time_out_after_the_schedule_timeout(setup: Setup) {
    let task = double(setup.name("double")).schedule_timeout(2 * SECOND);
    setup.worker(&task).await.shutdown().await;
    let run = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    let Outcome::TimedOut(timeout) = run.outcome().await.unwrap() else { panic!() };
    assert_eq!(timeout.kind, TimeoutKind::Schedule);
    assert_eq!(states(&run).await, ["QUEUED (attempt 1)", "TIMED_OUT (attempt 1)"]);
    let details = run.details().await.unwrap();
    assert_eq!(
        (details.started_at(), details.conflicts.len()),
        (None, 0),
        "gRPC shows it as cancelled, which is not a conflict"
    );
}

#[expect(clippy::disallowed_methods, reason = "the engine's clock is compared with the system clock")]
fn system_time() -> chrono::DateTime<chrono::Utc> {
    std::time::SystemTime::now().into()
}

async fn s9_timestamps_match_those_of_the_worker(setup: Setup) {
    let measured = Task::new(setup.name("measured"), async |_: Number, _: Context| {
        let start = system_time();
        tokio::time::sleep(2 * SECOND).await;
        Ok([start, system_time()])
    });
    let worker = setup.worker(&measured).await;
    let run = setup.hatchet.run(&measured, &ONE).start().await.unwrap();
    let [start, end] = run.result().await.unwrap();
    let details = run.details().await.unwrap();
    let attempt = &details.tasks[0].attempts[0];
    let (queued, started, finished) =
        (attempt.queued_at.unwrap(), attempt.started_at.unwrap(), attempt.finished_at.unwrap());
    assert!(details.created_at.unwrap() <= started && started <= finished);
    assert!((queued - started).num_milliseconds().abs() < 1000);
    assert_eq!(attempt.ran_for().unwrap().as_millis() / 100, 20, "{attempt:?}");
    // With a paused clock, the engine's time differs from the system's.
    if setup.engine.is_none() {
        assert!((started - start).num_milliseconds().abs() < 1000 && (finished - end).num_milliseconds().abs() < 1000);
    }
    worker.shutdown().await;
}

async fn s11_watches_return_all_states_in_order(setup: Setup) {
    let task = shaky(setup.name("shaky")).retries(2);
    let worker = setup.worker(&task).await;
    let handle = setup.hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    let expected: Vec<_> =
        [("QUEUED", 1), ("RUNNING", 1), ("FAILED", 1), ("QUEUED", 2), ("RUNNING", 2), ("COMPLETED", 2)]
            .map(|(status, attempt)| format!("{status} (attempt {attempt})"))
            .into();
    // Watches from the start, from the middle, and after the end return the same states.
    let middle = async {
        tokio::time::sleep(Duration::from_millis(60)).await;
        states(&handle).await
    };
    let (first, second) = tokio::join!(states(&handle), middle);
    assert_eq!((&first, &second, &states(&handle).await), (&expected, &expected, &expected));
    worker.shutdown().await;
}

/// The states of a run or a task that completes in each of some attempts.
fn completed(attempts: u32) -> Vec<String> {
    let of = |attempt| ["QUEUED", "RUNNING", "COMPLETED"].map(|status| format!("{status} (attempt {attempt})"));
    (1..=attempts).flat_map(of).collect()
}

/// A workflow of which the task `b` follows `a`.
pub(crate) fn flow(setup: &Setup, millis: u64) -> Workflow<Number> {
    let step = |name: &str| {
        Task::new(name, move |_: Number, _: Context| async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Ok(1)
        })
    };
    Workflow::new(setup.name("flow")).task(&step("a")).task_after(&step("b"), ["a"])
}

/// All states of the run and of each of its tasks, once and in order, with the end of the run as the last one.
pub(crate) fn check_flow(all: &[String], attempts: u32) {
    let of = |prefix: &str| -> Vec<_> {
        all.iter().filter_map(|state| state.strip_prefix(prefix)).map(str::to_owned).collect()
    };
    let own: Vec<_> = all.iter().filter(|state| !state.contains(": ")).cloned().collect();
    let expected = completed(attempts);
    assert_eq!((of("a: "), of("b: "), &own), (expected.clone(), expected.clone(), &expected), "{all:?}");
    assert_eq!(all.last(), expected.last(), "the end of the run is the last state");
}

async fn s11_watches_return_all_states_of_a_dag(setup: Setup) {
    let flow = flow(&setup, 0);
    let worker = setup.worker(&flow).await;
    let run = setup.hatchet.run(&flow, &ONE).start().await.unwrap();
    check_flow(&states(&run).await, 1);
    worker.shutdown().await;
}

/// A watch that starts the run, and others that begin in the middle and after the end, of a client that knows only its id.
async fn s11_watches_of_a_dag_return_all_states_whenever_they_start(setup: Setup) {
    let flow = flow(&setup, 400);
    let worker = setup.worker(&flow).await;
    let mut first = setup.hatchet.run(&flow, &ONE).watch();
    let change = first.next().await.unwrap().unwrap();
    let id = change.run_id();
    let rest = async {
        let mut all = vec![change.to_string()];
        while let Some(change) = first.next().await {
            all.push(change.unwrap().to_string());
        }
        all
    };
    let other = setup.client_with(|config| config);
    let middle = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        states(&other.run_handle(id)).await
    };
    let (first, middle) = tokio::join!(rest, middle);
    for all in [first, middle, states(&other.run_handle(id)).await] {
        check_flow(&all, 1);
    }
    worker.shutdown().await;
}

async fn s11_watches_return_all_states_of_a_replayed_dag(setup: Setup) {
    let flow = flow(&setup, 200);
    let worker = setup.worker(&flow).await;
    let run = setup.hatchet.run(&flow, &ONE).start().await.unwrap();
    run.result().await.unwrap();
    let again = run.replay().send().await.unwrap();
    check_flow(&states(&again.run).await, 2);
    check_flow(&states(&run).await, 2);
    worker.shutdown().await;
}

async fn s11_watches_that_start_the_run_return_all_states_of_retries(setup: Setup) {
    let task = shaky(setup.name("shaky")).retries(1);
    let worker = setup.worker(&task).await;
    let (mut watch, mut all) = (setup.hatchet.run(&task, &ONE).watch(), Vec::new());
    while let Some(change) = watch.next().await {
        all.push(change.unwrap().to_string());
    }
    let expected = ["QUEUED (attempt 1)", "RUNNING (attempt 1)", "FAILED (attempt 1)"];
    let expected: Vec<_> = expected.into_iter().map(str::to_owned).chain(completed(2).split_off(3)).collect();
    assert_eq!(all, expected);
    worker.shutdown().await;
}

async fn s11_watches_return_all_states_of_a_replay(setup: Setup) {
    let task = double(setup.name("double"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    run.result().await.unwrap();
    let again = run.replay().send().await.unwrap();
    assert_eq!(states(&again.run).await, completed(2), "during the run");
    assert_eq!(states(&run).await, completed(2), "after the run");
    worker.shutdown().await;
}

async fn s12_conflicting_api_views_are_resolved_to_the_permanent_status(setup: Setup) {
    let task = double(setup.name("double"));
    setup.worker(&task).await.shutdown().await;
    // A report after the cancellation of a running task: the output is permanent, and gRPC does not show it.
    let running = endless(setup.name("endless"));
    let worker = setup.worker(&running).await;
    let late = setup.hatchet.run(&running, &ONE).start().await.unwrap();
    until(&late, RunStatus::Running).await;
    cancel(&setup, &late).await;
    assert!(matches!(late.outcome().await.unwrap(), Outcome::Cancelled(_)));
    report(&setup, &late, StepActionEventType::StepEventTypeCompleted, r#"{"doubled":2}"#).await;
    setup.eventually(async || late.details().await.unwrap().status == RunStatus::Completed).await;
    let details = late.details().await.unwrap();
    assert_eq!(details.output().unwrap().parse::<Doubled>().unwrap(), Doubled { doubled: 2 });
    // A real engine may or may not show it in gRPC at each call. If it does not, the details contain the conflict.
    assert!(details.conflicts.len() == 1 || setup.engine.is_none(), "{:?}", details.conflicts);
    for conflict in &details.conflicts {
        assert_eq!((&conflict.grpc, &conflict.rest), (&RunStatus::Cancelled, &RunStatus::Completed));
    }
    worker.shutdown().await;
    // A cancellation by another client after the end: the status does not change.
    let ended = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    report(&setup, &ended, StepActionEventType::StepEventTypeCompleted, r#"{"doubled":2}"#).await;
    assert_eq!(ended.result().await.unwrap(), Doubled { doubled: 2 });
    cancel(&setup, &ended).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let details = ended.details().await.unwrap();
        assert_eq!((&details.status, details.output().is_some()), (&RunStatus::Completed, true));
    }
    assert!(matches!(ended.outcome().await.unwrap(), Outcome::Completed(_)));
}

async fn m6_the_retry_count_grows_and_attempts_are_listed(setup: Setup) {
    let task = shaky(setup.name("shaky")).retries(3);
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &Number { n: 3 }).start().await.unwrap();
    let mut attempts_seen = Vec::new();
    let mut watch = run.watch();
    while let Some(change) = watch.next().await {
        let attempt = change.unwrap().attempt();
        if attempts_seen.last() != Some(&attempt) {
            attempts_seen.push(attempt);
        }
    }
    assert_eq!(attempts_seen, [1, 2, 3, 4]);
    let details = run.details().await.unwrap();
    assert_eq!((details.retry_count(), details.attempt()), (3, 4));
    let attempts: Vec<_> =
        details.tasks[0].attempts.iter().map(|attempt| (attempt.number, attempt.status.clone())).collect();
    assert_eq!(
        attempts,
        [(1, RunStatus::Failed), (2, RunStatus::Failed), (3, RunStatus::Failed), (4, RunStatus::Completed)]
    );
    worker.shutdown().await;
}

async fn m8_outputs_too_large_for_the_stream_are_fetched(setup: Setup) {
    let size = 3_600_000;
    let big = Task::new(setup.name("big"), move |_: Number, _: Context| async move { Ok("x".repeat(size)) });
    let worker = setup.worker(&big).await;
    let run = setup.hatchet.run(&big, &ONE).start().await.unwrap();
    assert_eq!(run.result().await.unwrap().len(), size);
    assert_eq!(run.details().await.unwrap().output().unwrap().parse::<String>().unwrap().len(), size);
    worker.shutdown().await;
}

async fn m8_dag_outputs_too_large_for_grpc_are_fetched(setup: Setup) {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Text {
        text: String,
    }
    let size = 3_000_000;
    let big =
        |name: &str| Task::new(name, move |_: Number, _: Context| async move { Ok(Text { text: "x".repeat(size) }) });
    let flow: Workflow<Number> = Workflow::new(setup.name("flow")).task(&big("a")).task(&big("b"));
    let worker = setup.worker(&flow).await;
    let run = setup.hatchet.run(&flow, &ONE).start().await.unwrap();
    let Outcome::Completed(done) = run.outcome().await.unwrap() else { panic!() };
    let both: std::collections::BTreeMap<String, Text> = done.output.parse().unwrap();
    assert_eq!((both["a"].text.len(), both["b"].text.len()), (size, size));
    worker.shutdown().await;
}

async fn m9_each_log_line_is_read_once(setup: Setup) {
    let task = double(setup.name("double"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    run.result().await.unwrap();
    let count: usize = if setup.engine.is_some() { 2300 } else { 60 };
    let mut events = EventsServiceClient::new(setup.hatchet.raw_channel());
    for number in 0..count {
        let request = PutLogRequest {
            task_run_external_id: run.id().to_string(),
            message: format!("line {number}"),
            level: Some(["INFO", "WARN"][number % 2].into()),
            metadata: format!(r#"{{"number":{number}}}"#),
            ..Default::default()
        };
        events.put_log(request).await.unwrap();
    }
    let all = async || {
        let (mut items, mut lines) = (run.logs(), Vec::new());
        while let Some(line) = items.next().await {
            lines.push(line.unwrap());
        }
        lines
    };
    setup.eventually(async || all().await.len() == count).await;
    let mut numbers: Vec<_> =
        all().await.iter().map(|line| line.metadata.as_ref().unwrap()["number"].as_u64().unwrap()).collect();
    // Lines with the same timestamp have no order.
    numbers.sort_unstable();
    assert_eq!(numbers, (0..count as u64).collect::<Vec<_>>(), "each line is read once");
    let first = run.details().logs(RunDetails::MAX_LOGS).await.unwrap().logs;
    assert_eq!(first.len(), count.min(hatchet::model::RunDetails::MAX_LOGS));
    assert!(first.iter().all(|line| line.task_id == run.id().into() && line.message.starts_with("line ")));
    worker.shutdown().await;
}

async fn b1_large_results_and_lost_streams_have_an_outcome(setup: Setup) {
    // The engine cannot send this result on its stream, and sends an empty one.
    let size = 3_600_000;
    let big = Task::new(setup.name("big"), async |Number { n }: Number, _: Context| {
        tokio::time::sleep(Duration::from_millis(n.unsigned_abs())).await;
        Ok("x".repeat(3_600_000))
    });
    let worker = setup.worker(&big).await;
    let run = setup.hatchet.run(&big, &Number { n: 0 }).start().await.unwrap();
    let Outcome::Completed(done) = run.outcome().await.unwrap() else { panic!() };
    assert_eq!(done.output.parse::<String>().unwrap().len(), size);
    // The stream is lost before the result, or with it.
    if let Some(unreliable) = setup.unreliable_client().await {
        let run = unreliable.hatchet.run(&big, &Number { n: 1000 }).start().await.unwrap();
        let lost = async {
            for _ in 0..15 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                unreliable.lose_streams();
            }
        };
        let (outcome, ()) = tokio::join!(run.outcome(), lost);
        let Outcome::Completed(done) = outcome.unwrap() else { panic!() };
        assert_eq!(done.output.parse::<String>().unwrap().len(), size);
    }
    worker.shutdown().await;
}

async fn b1_outcomes_distinguish_failures_from_empty_outputs(setup: Setup) {
    // An empty error text is a failure.
    let task = double(setup.name("double"));
    setup.worker(&task).await.shutdown().await;
    let failed = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    report(&setup, &failed, StepActionEventType::StepEventTypeFailed, "").await;
    let Outcome::Failed(failure) = failed.outcome().await.unwrap() else { panic!() };
    assert_eq!(failure.message, None);
    // An empty output is not an error.
    let empty = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    report(&setup, &empty, StepActionEventType::StepEventTypeCompleted, "").await;
    let Outcome::Completed(done) = empty.outcome().await.unwrap() else { panic!() };
    assert_eq!(done.output.parse::<Option<u8>>().unwrap(), None);
    // A run that the engine has never created.
    let missing = setup.hatchet.run_handle("00000000-0000-4000-8009-000000000009".parse().unwrap());
    assert_eq!(missing.outcome().await.unwrap_err().kind(), hatchet::ErrorKind::RunNotFound);
}
