//! S and B: following runs, and ends that mislead.

use std::time::Duration;

use hatchet::model::{RunDetails, TimeoutKind};
use hatchet::raw::pb::events_service_client::EventsServiceClient;
use hatchet::raw::pb::{PutLogRequest, StepActionEventType};
use hatchet::{Context, Outcome, RunHandle, RunStatus, Task, Workflow};

use crate::status::{cancel, report};
use crate::tasks::{Doubled, Number, double, endless, shaky};
use crate::world::{World, rows, until};

rows! {
    s5_cancelled_when_cancelled,
    s6_timed_out_is_told_apart_on_every_path,
    s7_timed_out_while_it_waited_for_a_worker,
    s9_stamps_agree_with_what_the_worker_measured,
    s11_every_state_in_order,
    s11_every_state_of_a_dag,
    s11_every_state_of_a_replay,
    s12_where_surfaces_disagree_the_one_that_lasts_is_told,
    m6_the_retry_count_grows_and_attempts_are_listed,
    m8_an_output_too_big_for_the_stream,
    m8_two_outputs_of_a_dag_too_big_for_grpc,
    m9_log_lines,
    b1_an_outcome_that_cannot_lie,
}

const ONE: Number = Number { n: 1 };
const SECOND: Duration = Duration::from_secs(1);

async fn states<O>(run: &RunHandle<O>) -> Vec<String> {
    let (mut watch, mut states) = (run.watch(), Vec::new());
    while let Some(change) = watch.next().await {
        let change = change.unwrap();
        let task = change.task_name.as_ref().map(|task| format!("{task}: ")).unwrap_or_default();
        states.push(format!("{task}{}", change.state));
    }
    states
}

async fn s5_cancelled_when_cancelled(world: World) {
    let task = endless(world.name("endless"));
    let worker = world.worker(&task).await;
    let run = world.hatchet.run(&task, &ONE).start().await.unwrap();
    until(&run, RunStatus::Running).await;
    run.cancel().send().await.unwrap();
    assert_eq!(states(&run).await, ["QUEUED (attempt 1)", "RUNNING (attempt 1)", "CANCELLED (attempt 1)"]);
    worker.shutdown().await;
}

async fn s6_timed_out_is_told_apart_on_every_path(world: World) {
    let task = endless(world.name("endless")).timeout(2 * SECOND);
    let worker = world.worker(&task).await;
    let run = world.hatchet.run(&task, &ONE).start().await.unwrap();
    let Outcome::TimedOut(timeout) = run.outcome().await.unwrap() else { panic!() };
    assert_eq!((timeout.kind, timeout.message.as_str()), (TimeoutKind::Execution, "Task exceeded timeout of 2s"));
    assert_eq!(states(&run).await.last().unwrap(), "TIMED_OUT (attempt 1)");
    let details = run.details().await.unwrap();
    assert_eq!((details.status.clone(), details.conflicts.len()), (RunStatus::TimedOut, 0));
    let filter = hatchet::RunFilter::new(world.window()).workflow(task.name()).status(RunStatus::TimedOut);
    world.eventually(async || world.hatchet.runs(filter.clone()).page(10).await.unwrap().items.len() == 1).await;
    worker.shutdown().await;
}

async fn s7_timed_out_while_it_waited_for_a_worker(world: World) {
    let task = double(world.name("double")).schedule_timeout(2 * SECOND);
    world.worker(&task).await.shutdown().await;
    let run = world.hatchet.run(&task, &ONE).start().await.unwrap();
    let Outcome::TimedOut(timeout) = run.outcome().await.unwrap() else { panic!() };
    assert_eq!(timeout.kind, TimeoutKind::Schedule);
    assert_eq!(states(&run).await, ["QUEUED (attempt 1)", "TIMED_OUT (attempt 1)"]);
    let details = run.details().await.unwrap();
    assert_eq!((details.started_at(), details.conflicts.len()), (None, 0), "by design, gRPC calls it cancelled");
}

#[expect(clippy::disallowed_methods, reason = "a real clock is what the engine's is compared with")]
fn machine() -> chrono::DateTime<chrono::Utc> {
    std::time::SystemTime::now().into()
}

async fn s9_stamps_agree_with_what_the_worker_measured(world: World) {
    let measured = Task::new(world.name("measured"), async |_: Number, _: Context| {
        let begun = machine();
        tokio::time::sleep(2 * SECOND).await;
        Ok([begun, machine()])
    });
    let worker = world.worker(&measured).await;
    let run = world.hatchet.run(&measured, &ONE).start().await.unwrap();
    let [begun, ended] = run.result().await.unwrap();
    let details = run.details().await.unwrap();
    let attempt = &details.tasks[0].attempts[0];
    let (queued, started, finished) =
        (attempt.queued_at.unwrap(), attempt.started_at.unwrap(), attempt.finished_at.unwrap());
    assert!(details.created_at.unwrap() <= started && started <= finished);
    assert!((queued - started).num_milliseconds().abs() < 1000);
    assert_eq!(attempt.ran_for().unwrap().as_millis() / 100, 20, "{attempt:?}");
    // Under a paused clock, the engine's time is not the machine's.
    if world.engine.is_none() {
        assert!(
            (started - begun).num_milliseconds().abs() < 1000 && (finished - ended).num_milliseconds().abs() < 1000
        );
    }
    worker.shutdown().await;
}

async fn s11_every_state_in_order(world: World) {
    let task = shaky(world.name("shaky")).retries(2);
    let worker = world.worker(&task).await;
    let handle = world.hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    let expected: Vec<_> =
        [("QUEUED", 1), ("RUNNING", 1), ("FAILED", 1), ("QUEUED", 2), ("RUNNING", 2), ("COMPLETED", 2)]
            .map(|(status, attempt)| format!("{status} (attempt {attempt})"))
            .into();
    // From its beginning, from the middle, and after the end.
    let middle = async {
        tokio::time::sleep(Duration::from_millis(60)).await;
        states(&handle).await
    };
    let (first, second) = tokio::join!(states(&handle), middle);
    assert_eq!((&first, &second, &states(&handle).await), (&expected, &expected, &expected));
    worker.shutdown().await;
}

async fn s11_every_state_of_a_dag(world: World) {
    let step = |name: &str| Task::new(name, async |_: Number, _: Context| Ok(1));
    let flow: Workflow<Number> = Workflow::new(world.name("flow")).task(&step("a")).task_after(&step("b"), ["a"]);
    let worker = world.worker(&flow).await;
    let run = world.hatchet.run(&flow, &ONE).start().await.unwrap();
    let all = states(&run).await;
    let of =
        |prefix: &str| all.iter().filter_map(|state| state.strip_prefix(prefix)).map(str::to_owned).collect::<Vec<_>>();
    let three = ["QUEUED (attempt 1)", "RUNNING (attempt 1)", "COMPLETED (attempt 1)"];
    assert_eq!((of("a: "), of("b: ")), (three.map(str::to_owned).to_vec(), three.map(str::to_owned).to_vec()));
    let own: Vec<_> = all.iter().filter(|state| !state.contains(": ")).collect();
    assert_eq!(own, three.iter().collect::<Vec<_>>());
    assert_eq!(all.last().unwrap(), three[2], "the run's end comes last");
    worker.shutdown().await;
}

async fn s11_every_state_of_a_replay(world: World) {
    let task = double(world.name("double"));
    let worker = world.worker(&task).await;
    let run = world.hatchet.run(&task, &ONE).start().await.unwrap();
    run.result().await.unwrap();
    let again = run.replay().send().await.unwrap();
    let expected: Vec<_> = (1..=2)
        .flat_map(|attempt| ["QUEUED", "RUNNING", "COMPLETED"].map(|status| format!("{status} (attempt {attempt})")))
        .collect();
    assert_eq!(states(&again.run).await, expected, "while it goes on");
    assert_eq!(states(&run).await, expected, "and after its end");
    worker.shutdown().await;
}

async fn s12_where_surfaces_disagree_the_one_that_lasts_is_told(world: World) {
    let task = double(world.name("double"));
    world.worker(&task).await.shutdown().await;
    // A report after the cancel: the output lasts, and gRPC does not know of it.
    let late = world.hatchet.run(&task, &ONE).start().await.unwrap();
    cancel(&world, &late).await;
    assert!(matches!(late.outcome().await.unwrap(), Outcome::Cancelled(_)));
    report(&world, &late, StepActionEventType::StepEventTypeCompleted, r#"{"doubled":2}"#).await;
    world.eventually(async || late.details().await.unwrap().status == RunStatus::Completed).await;
    let details = late.details().await.unwrap();
    assert_eq!(details.output().unwrap().parse::<Doubled>().unwrap(), Doubled { doubled: 2 });
    // Whether gRPC shows it or not, a real engine decides anew each time; if so, that is told.
    assert!(details.conflicts.len() == 1 || world.engine.is_none(), "{:?}", details.conflicts);
    for conflict in &details.conflicts {
        assert_eq!((&conflict.grpc, &conflict.rest), (&RunStatus::Cancelled, &RunStatus::Completed));
    }
    // A cancel after the end, by another than this crate: the end stays.
    let ended = world.hatchet.run(&task, &ONE).start().await.unwrap();
    report(&world, &ended, StepActionEventType::StepEventTypeCompleted, r#"{"doubled":2}"#).await;
    assert_eq!(ended.result().await.unwrap(), Doubled { doubled: 2 });
    cancel(&world, &ended).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let details = ended.details().await.unwrap();
        assert_eq!((&details.status, details.output().is_some()), (&RunStatus::Completed, true));
    }
    assert!(matches!(ended.outcome().await.unwrap(), Outcome::Completed(_)));
}

async fn m6_the_retry_count_grows_and_attempts_are_listed(world: World) {
    let task = shaky(world.name("shaky")).retries(3);
    let worker = world.worker(&task).await;
    let run = world.hatchet.run(&task, &Number { n: 3 }).start().await.unwrap();
    let mut seen = Vec::new();
    let mut watch = run.watch();
    while let Some(change) = watch.next().await {
        let attempt = change.unwrap().state.attempt;
        if seen.last() != Some(&attempt) {
            seen.push(attempt);
        }
    }
    assert_eq!(seen, [1, 2, 3, 4]);
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

async fn m8_an_output_too_big_for_the_stream(world: World) {
    let size = 3_600_000;
    let big = Task::new(world.name("big"), move |_: Number, _: Context| async move { Ok("x".repeat(size)) });
    let worker = world.worker(&big).await;
    let run = world.hatchet.run(&big, &ONE).start().await.unwrap();
    assert_eq!(run.result().await.unwrap().len(), size);
    assert_eq!(run.details().await.unwrap().output().unwrap().parse::<String>().unwrap().len(), size);
    worker.shutdown().await;
}

async fn m8_two_outputs_of_a_dag_too_big_for_grpc(world: World) {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Text {
        text: String,
    }
    let size = 3_000_000;
    let big =
        |name: &str| Task::new(name, move |_: Number, _: Context| async move { Ok(Text { text: "x".repeat(size) }) });
    let flow: Workflow<Number> = Workflow::new(world.name("flow")).task(&big("a")).task(&big("b"));
    let worker = world.worker(&flow).await;
    let run = world.hatchet.run(&flow, &ONE).start().await.unwrap();
    let Outcome::Completed(done) = run.outcome().await.unwrap() else { panic!() };
    let both: std::collections::BTreeMap<String, Text> = done.output.parse().unwrap();
    assert_eq!((both["a"].text.len(), both["b"].text.len()), (size, size));
    worker.shutdown().await;
}

async fn m9_log_lines(world: World) {
    let task = double(world.name("double"));
    let worker = world.worker(&task).await;
    let run = world.hatchet.run(&task, &ONE).start().await.unwrap();
    run.result().await.unwrap();
    let count: usize = if world.engine.is_some() { 2300 } else { 60 };
    let mut events = EventsServiceClient::new(world.hatchet.raw_channel());
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
    world.eventually(async || all().await.len() == count).await;
    let mut numbers: Vec<_> = all().await.iter().map(|line| line.metadata["number"].as_u64().unwrap()).collect();
    // Lines of one moment have no order.
    numbers.sort_unstable();
    assert_eq!(numbers, (0..count as u64).collect::<Vec<_>>(), "none twice and none missed");
    let first = run.details().logs(RunDetails::MAX_LOGS).await.unwrap().logs;
    assert_eq!(first.len(), count.min(hatchet::model::RunDetails::MAX_LOGS));
    assert!(first.iter().all(|line| line.task_id == run.id().into() && line.message.starts_with("line ")));
    worker.shutdown().await;
}

async fn b1_an_outcome_that_cannot_lie(world: World) {
    // A worker that says nothing about why: an empty error is a failure, and no success.
    let task = double(world.name("double"));
    world.worker(&task).await.shutdown().await;
    let failed = world.hatchet.run(&task, &ONE).start().await.unwrap();
    report(&world, &failed, StepActionEventType::StepEventTypeFailed, "").await;
    let Outcome::Failed(failure) = failed.outcome().await.unwrap() else { panic!() };
    assert_eq!(failure.message, "");
    // An empty output is one, and not an error.
    let empty = world.hatchet.run(&task, &ONE).start().await.unwrap();
    report(&world, &empty, StepActionEventType::StepEventTypeCompleted, "").await;
    let Outcome::Completed(done) = empty.outcome().await.unwrap() else { panic!() };
    assert_eq!(done.output.parse::<Option<u8>>().unwrap(), None);
    // A run that the engine never made.
    let phantom = world.hatchet.run_handle("00000000-0000-4000-8009-000000000009".parse().unwrap());
    assert_eq!(phantom.outcome().await.unwrap_err().kind(), hatchet::ErrorKind::RunNotFound);
}
