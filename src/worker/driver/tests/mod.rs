mod batches;
mod faults;
mod streams;
mod version;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::super::heartbeat_thread::LastHeartbeat;
use super::super::running::READY_TIMEOUT;
use super::super::status::Life;
use super::shutdown::{PAUSED_ASSIGNMENT_DELAY, UNPAUSED_ASSIGNMENT_DELAY};
use super::stopping::SHUTDOWN_CALL_TIMEOUT;
use super::*;
use crate::client::Client;
use crate::error::ErrorKind;
use crate::rpc::pb;
use crate::scripted::{Calls, Scripted, client};
use crate::workflow::{Context, Task, TaskError, Workflow};

const SECOND: Duration = Duration::from_secs(1);
const WORKER: &str = "00000000-0000-4000-8003-000000000001";

/// A server that accepts everything, unless `change` has another answer. The worker gets these assignments.
fn server(
    assignments: Vec<(Duration, Vec<u8>)>,
    change: impl Fn(&str, usize) -> Option<Scripted> + Send + Sync + 'static,
) -> (Client, Calls) {
    client(move |call, count| {
        change(call, count).unwrap_or_else(|| match call {
            "Register" => {
                Scripted::message(&pb::WorkerRegisterResponse { worker_id: WORKER.into(), ..Default::default() })
            }
            "PutWorkflow" => Scripted::message(&pb::v1::CreateWorkflowVersionResponse {
                id: WORKER.into(),
                workflow_id: WORKER.into(),
            }),
            "ListenV2" => Scripted::Stream(assignments.clone(), None),
            call if call.contains("/workflows") => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
            call if call.contains(' ') => Scripted::Rest(200, "{}".into()),
            _ => Scripted::empty(),
        })
    })
}

/// Sleeps for some milliseconds, and then completes, fails or panics.
fn task() -> Task<(), u32> {
    Task::new("task", async |(): (), context: Context| {
        let number = u32::from(uuid::Uuid::from(context.task_id()).as_bytes()[15]);
        tokio::time::sleep(Duration::from_millis(u64::from(number) % 7)).await;
        match number % 5 {
            0 => Err(TaskError::new("as planned")),
            1 => std::future::pending().await,
            _ => Ok(number),
        }
    })
}

fn worker(client: &Client) -> Worker {
    client.worker("worker").slots(3).shutdown_grace_period(2 * SECOND).register(&task()).build().unwrap()
}

fn action(kind: pb::ActionType, task: u8, retry_count: i32) -> pb::AssignedAction {
    let id = format!("00000000-0000-4000-8001-0000000000{task:02x}");
    pb::AssignedAction {
        action_type: kind as i32,
        action_id: "task:task".into(),
        action_payload: r#"{"input":{}}"#.into(),
        workflow_run_id: id.clone(),
        task_run_external_id: id,
        retry_count,
        ..Default::default()
    }
}

fn start(task: u8) -> Vec<u8> {
    action(pb::ActionType::StartStepRun, task, 0).encode_to_vec()
}

fn cancel(task: u8) -> Vec<u8> {
    action(pb::ActionType::CancelStepRun, task, 0).encode_to_vec()
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_takes_as_long_as_late_assignments_can_arrive() {
    for (pause, unsubscribe, expected) in [
        (Scripted::Rest as fn(u16, String) -> Scripted, true, PAUSED_ASSIGNMENT_DELAY),
        (Scripted::Rest, false, PAUSED_ASSIGNMENT_DELAY + SHUTDOWN_CALL_TIMEOUT),
        (|_, _| Scripted::Rest(403, String::new()), true, UNPAUSED_ASSIGNMENT_DELAY),
        (|_, _| Scripted::Hangs, true, SHUTDOWN_CALL_TIMEOUT + UNPAUSED_ASSIGNMENT_DELAY),
    ] {
        let (client, calls) = server(Vec::new(), move |call, _| match call {
            "Unsubscribe" if !unsubscribe => Some(Scripted::Hangs),
            call if call.starts_with("PATCH") => Some(pause(200, "{}".into())),
            _ => None,
        });
        let running = worker(&client).start().await.unwrap();
        let started = Instant::now();
        let report = running.shutdown().await;
        assert_eq!((started.elapsed(), report.total()), (expected, 0));
        assert_eq!(calls.count("Unsubscribe"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn assignments_after_the_start_of_the_shutdown_are_counted() {
    // Started; accepted while the worker pauses; too late to be started.
    let late = PAUSED_ASSIGNMENT_DELAY + SECOND + SECOND / 2;
    let assignments =
        vec![(SECOND, start(2)), (SECOND + SECOND / 2, start(3)), (SECOND + SECOND / 2, start(1)), (late, start(4))];
    let (client, _) = server(assignments, |_, _| None);
    let running = worker(&client).start().await.unwrap();
    tokio::time::sleep_until(Instant::now() + SECOND + SECOND / 4).await;
    let started = Instant::now();
    let report = running.shutdown().await;
    assert_eq!((report.completed, report.unfinished, report.total()), (2, 2, 4), "{report}");
    let unfinished: Vec<_> = report.unfinished_attempts.iter().map(|task| task.task_id.to_string()).collect();
    assert!(unfinished[0].ends_with('4') && unfinished[1].ends_with('1'), "{unfinished:?}");
    // The grace period, and that of a cancellation.
    assert_eq!(started.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_heartbeats_are_not_accepted_does_not_start() {
    let rejected = |call: &str, _| (call == "Heartbeat").then_some(Scripted::Status(9));
    let (client, calls) = server(Vec::new(), rejected);
    let started = Instant::now();
    let error = worker(&client).start().await.unwrap_err();
    assert_eq!((error.kind(), started.elapsed()), (ErrorKind::Timeout, READY_TIMEOUT));
    assert!(calls.count("ListenV2") > 5, "the stream is reopened: {}", calls.count("ListenV2"));
    // A permanent error is returned at once.
    let (client, _) = server(Vec::new(), |call, _| (call == "Heartbeat").then_some(Scripted::Status(12)));
    let started = Instant::now();
    let error = worker(&client).start().await.unwrap_err();
    assert_eq!((error.kind(), started.elapsed()), (ErrorKind::Unimplemented, Duration::from_millis(30)));
}

#[cfg(feature = "schemars")]
#[tokio::test(start_paused = true)]
async fn the_schema_of_the_input_is_stored_with_the_definition() {
    #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    struct Greeting {
        name: String,
    }
    let (client, calls) = server(Vec::new(), |_, _| None);
    let greet = Task::new("greet", async |input: Greeting, _: Context| Ok(input.name));
    let flow = Workflow::<Greeting>::new("flow").task(&greet).input_schema();
    let worker = client.worker("worker").register(&greet.input_schema()).register(&flow).register(&task());
    worker.build().unwrap().start().await.unwrap().shutdown().await;
    let schema = |definition: &pb::v1::CreateWorkflowVersionRequest| {
        let schema: serde_json::Value = serde_json::from_slice(definition.input_json_schema.as_deref()?).unwrap();
        Some(schema["properties"]["name"]["type"].clone())
    };
    let definitions = calls.messages::<pb::v1::CreateWorkflowVersionRequest>("PutWorkflow");
    let mut schemas: Vec<_> = definitions.iter().map(|one| (one.name.as_str(), schema(one))).collect();
    schemas.sort_by_key(|(name, _)| *name);
    assert_eq!(schemas, [("flow", Some("string".into())), ("greet", Some("string".into())), ("task", None)]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_the_engine_has_lost_registers_again() {
    // The heartbeat after ten seconds finds that the worker is unknown.
    let (client, calls) =
        server(Vec::new(), |call, count| (call == "Heartbeat" && count == 6).then_some(Scripted::Status(5)));
    let running = worker(&client).start().await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!((calls.count("Register"), calls.count("ListenV2")), (2, 2));
    assert_eq!(calls.times("Register")[1], calls.times("Heartbeat")[5], "immediately");
    running.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_kept_when_the_engine_gives_the_worker_another_id() {
    const OTHER: &str = "00000000-0000-4000-8003-000000000002";
    // The heartbeat after ten seconds finds that the worker is unknown, while an attempt runs that takes until the 31st second.
    let first = vec![(SECOND, start(1))];
    let second = vec![(SECOND, start(2))];
    let (client, calls) = server(Vec::new(), move |call, count| match (call, count) {
        ("Heartbeat", 6) => Some(Scripted::Status(5)),
        ("Register", 2) => {
            Some(Scripted::message(&pb::WorkerRegisterResponse { worker_id: OTHER.into(), ..Default::default() }))
        }
        ("ListenV2", 1) => Some(Scripted::Stream(first.clone(), None)),
        ("ListenV2", _) => Some(Scripted::Stream(second.clone(), None)),
        _ if call.contains("/workflow-runs/") => Some(run_details(call, "RUNNING", 0)),
        _ => None,
    });
    let slow: Task<(), ()> = Task::new("task", async |(): (), _: Context| {
        tokio::time::sleep(30 * SECOND).await;
        Ok(())
    });
    let running = client.worker("worker").slots(2).register(&slow).build().unwrap().start().await.unwrap();
    assert_eq!(running.id().to_string(), WORKER);
    tokio::time::sleep(20 * SECOND).await;
    let status = running.status();
    assert_eq!((running.id().to_string().as_str(), status.worker_id.to_string().as_str()), (OTHER, OTHER));
    assert_eq!((status.state, status.running), (WorkerState::Connected, 2), "the first one goes on");
    tokio::time::sleep(40 * SECOND).await;
    let listening = calls.messages::<pb::WorkerListenRequest>("Heartbeat");
    assert_eq!(listening.last().unwrap().worker_id, OTHER);
    let report = running.shutdown().await;
    assert_eq!(report.to_string(), "attempts: 2 completed, 0 failed, 0 cancelled, 0 unfinished");
    // Each attempt belongs to the worker to which it was assigned.
    let reports = calls.messages::<pb::StepActionEvent>("SendStepActionEvent").into_iter();
    let reports: Vec<_> = reports.map(|report| (report.event_type, report.worker_id)).collect();
    let [started, completed] =
        [pb::StepActionEventType::StepEventTypeStarted, pb::StepActionEventType::StepEventTypeCompleted];
    let expected = [(started, WORKER), (started, OTHER), (completed, WORKER), (completed, OTHER)];
    assert_eq!(reports, expected.map(|(kind, worker)| (kind as i32, worker.to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_report_is_sent_until_it_is_accepted() {
    // The start and the end of one attempt are reported. The end fails five times.
    let (client, calls) = server(vec![(SECOND, start(2))], |call, count| {
        (call == "SendStepActionEvent" && (2..=6).contains(&count)).then_some(Scripted::Status(14))
    });
    let running = worker(&client).start().await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(calls.count("SendStepActionEvent"), 7);
    assert_eq!(running.shutdown().await.completed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_can_arrive_before_its_attempt() {
    let (client, calls) = server(vec![(SECOND, cancel(2)), (SECOND, start(2)), (SECOND, start(3))], |_, _| None);
    let running = worker(&client).start().await.unwrap();
    tokio::time::sleep(2 * SECOND).await;
    let report = running.shutdown().await;
    assert_eq!((report.completed, report.cancelled, report.total()), (1, 1, 2), "{report}");
    assert_eq!(calls.count("SendStepActionEvent"), 2, "nothing is reported of an attempt that was not started");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_cancelled_during_the_shutdown_although_the_stream_has_failed() {
    // The worker cannot be paused, so there are no heartbeats that would find out about the stream.
    let (client, calls) = server(Vec::new(), |call, count| match (call, count) {
        ("ListenV2", 1) => Some(Scripted::Stream(vec![(SECOND, start(1)), (3 * SECOND, cancel(9))], Some(16))),
        ("ListenV2", _) => Some(Scripted::Stream(vec![(SECOND, cancel(1))], None)),
        (call, _) if call.starts_with("PATCH") => Some(Scripted::Rest(403, String::new())),
        _ => None,
    });
    let worker = client.worker("worker").shutdown_grace_period(20 * SECOND).register(&task()).build().unwrap();
    let running = worker.start().await.unwrap();
    tokio::time::sleep(2 * SECOND).await;
    let report = running.shutdown().await;
    assert_eq!((report.cancelled, report.total()), (1, 1), "{report}");
    assert!(calls.count("ListenV2") > 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_cancelled_while_the_worker_is_being_paused() {
    let (client, calls) = server(vec![(SECOND, start(1)), (2 * SECOND, cancel(1))], |call, _| {
        call.starts_with("PATCH").then_some(Scripted::Hangs)
    });
    let running = worker(&client).start().await.unwrap();
    tokio::time::sleep_until(Instant::now() + SECOND + SECOND / 2).await;
    // The call takes until 3.5 seconds, and the attempt has a second to end after its cancellation.
    let report = running.shutdown().await;
    assert_eq!((report.cancelled, report.total()), (1, 1), "{report}");
    assert_eq!(calls.count("SendStepActionEvent"), 1, "only the start is reported");
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_results_are_not_sent_before_their_attempts_were_checked() {
    // The engine is away from the first second on. Then reports are accepted sooner than heartbeats.
    const BACK: Duration = Duration::from_secs(40);
    let begin = Instant::now();
    let fails = move |call: &str| {
        let until = if call == "Heartbeat" { BACK + 5 * SECOND } else { BACK };
        let is_away = begin.elapsed() > SECOND + SECOND / 2 && begin.elapsed() < until;
        is_away && ["Heartbeat", "SendStepActionEvent", "SendBatchActionEvent"].contains(&call)
    };
    // Another worker has the second attempt of task 9.
    let (client, calls) = server(vec![(SECOND, start(9)), (SECOND, start(12))], move |call, _| match call {
        call if fails(call) => Some(Scripted::Status(14)),
        call if call.contains("/workflow-runs/") => Some(run_details(call, "RUNNING", u32::from(call.ends_with("09")))),
        _ => None,
    });
    let slow: Task<(), ()> = Task::new("task", async |(): (), _: Context| {
        tokio::time::sleep(10 * SECOND).await;
        Ok(())
    });
    let running = client.worker("worker").register(&slow).build().unwrap().start().await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    let report = running.shutdown().await;
    assert_eq!(report.to_string(), "attempts: 1 completed, 0 failed, 1 cancelled, 0 unfinished");
    let completed = pb::StepActionEventType::StepEventTypeCompleted as i32;
    let ends = calls.messages::<pb::StepActionEvent>("SendStepActionEvent").into_iter();
    let ends: Vec<_> =
        ends.filter(|event| event.event_type == completed).map(|event| event.task_run_external_id).collect();
    assert!(ends.len() == 1 && ends[0].ends_with("0c"), "{ends:?}");
    let accepted = calls.times("Heartbeat").into_iter().find(|at| *at - begin >= BACK + 5 * SECOND).unwrap();
    let sent = *calls.times("SendStepActionEvent").last().unwrap();
    assert!(sent >= accepted && sent < accepted + SECOND, "{:?}", sent - accepted);
}

/// A step of a connection that works badly.
#[derive(Debug, Clone)]
enum Step {
    /// A new attempt. It may be the next one of a task that still has one.
    Start { task: u8, twice: bool, cancelled_before: bool },
    /// A cancellation of the last attempt of a task, or of one that has not been assigned.
    Cancel { task: u8 },
    /// The jobs run for some milliseconds.
    Run { millis: u64 },
    /// What is not understood.
    Invalid,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..12, any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(task, twice, cancelled_before)| Step::Start { task, twice, cancelled_before }),
        2 => (0u8..12).prop_map(|task| Step::Cancel { task }),
        3 => (0u64..20).prop_map(|millis| Step::Run { millis }),
        1 => Just(Step::Invalid),
    ]
}

/// Feeds a driver, and returns its report and the number of assignments.
async fn drive(steps: Vec<Step>, statuses: Vec<i32>) -> (WorkerReport, u64) {
    let (client, _) = server(Vec::new(), move |call, count| {
        let status = statuses[count % statuses.len()];
        (call == "SendStepActionEvent" && status != 0).then_some(Scripted::Status(status))
    });
    let mut driver = driver(&client);
    let (mut retry_counts, mut assigned, mut unknown) = ([0; 12], 0, 100);
    for step in steps {
        let on = |driver: &mut WorkerDriver, kind, task: u8, retry_count| {
            driver.on_action(action(kind, task, retry_count).into());
        };
        match step {
            Step::Start { task, twice, cancelled_before } => {
                let retry_count = &mut retry_counts[usize::from(task)];
                *retry_count += 1;
                assigned += 1;
                if cancelled_before {
                    on(&mut driver, pb::ActionType::CancelStepRun, task, *retry_count);
                }
                on(&mut driver, pb::ActionType::StartStepRun, task, *retry_count);
                if twice && !cancelled_before {
                    on(&mut driver, pb::ActionType::StartStepRun, task, *retry_count);
                }
            }
            Step::Cancel { task } => {
                on(&mut driver, pb::ActionType::CancelStepRun, task, retry_counts[usize::from(task)]);
            }
            Step::Run { millis } => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                yield_now().await;
                while let Some(Some(done)) = driver.jobs.next().now_or_never() {
                    driver.on_ended(done);
                }
            }
            Step::Invalid => {
                let ids =
                    pb::AssignedAction { workflow_run_id: "x".into(), ..action(pb::ActionType::StartStepRun, 0, 0) };
                unknown += 1;
                assigned += 2;
                driver.on_action(ids.into());
                // Twice the same, of an action type that this version does not know.
                let action = pb::AssignedAction { action_type: 77, ..action(pb::ActionType::StartStepRun, unknown, 0) };
                driver.on_action(action.clone().into());
                driver.on_action(action.into());
            }
        }
        let (jobs, stoppable) = driver.jobs.counts();
        assert!(jobs <= driver.worker.slot_count(), "never more than the slots");
        assert_eq!(stoppable, jobs);
    }
    driver.handle.stop.cancel();
    (driver.run().await, assigned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_assignment_is_in_exactly_one_count_of_the_report(
        steps in prop::collection::vec(step(), 0..40),
        statuses in prop::collection::vec(prop_oneof![6 => Just(0), 1 => Just(14), 1 => Just(13), 1 => Just(5), 1 => Just(3)], 1..6),
    ) {
        let invalid = steps.iter().filter(|step| matches!(step, Step::Invalid)).count();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (report, assigned) = runtime.block_on(drive(steps, statuses));
        prop_assert_eq!(report.total(), assigned, "{}", report);
        // Attempts that cannot be identified are only counted.
        prop_assert_eq!(report.unfinished_attempts.len() + invalid, usize::try_from(report.unfinished).unwrap(), "{}", report);
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_of_ownership_that_fails_is_repeated() {
    // The first stream ends, and the engine assigns the attempt to another worker meanwhile.
    let first = vec![(SECOND, start(1))];
    let (client, calls) = client(move |call, count| match call {
        "Register" => Scripted::message(&pb::WorkerRegisterResponse { worker_id: WORKER.into(), ..Default::default() }),
        "PutWorkflow" => {
            Scripted::message(&pb::v1::CreateWorkflowVersionResponse { id: WORKER.into(), workflow_id: WORKER.into() })
        }
        "ListenV2" if count == 1 => {
            Scripted::After(Duration::ZERO, Box::new(Scripted::Stream(first.clone(), Some(14))))
        }
        "ListenV2" => Scripted::Stream(Vec::new(), None),
        call if call.contains("/workflows") => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
        call if call.starts_with("GET") && call.contains("/workflow-runs/") && count <= 20 => {
            Scripted::Rest(503, "unavailable".into())
        }
        call if call.starts_with("GET") && call.contains("/workflow-runs/") => run_details(call, "RUNNING", 1),
        call if call.contains(' ') => Scripted::Rest(200, "{}".into()),
        _ => Scripted::empty(),
    });
    let endless: Task<(), u32> = Task::new("task", async |(): (), _: Context| std::future::pending().await);
    let running = client.worker("worker").register(&endless).build().unwrap().start().await.unwrap();
    let mut statuses = running.statuses();
    // It starts, and is cancelled when the engine has answered at last.
    for expected in [1, 0] {
        while statuses.next().await.unwrap().running != expected {}
    }
    assert_eq!(calls.count("GET /api/v1/stable/workflow-runs/00000000-0000-4000-8001-000000000001"), 21);
    let report = running.shutdown().await;
    assert_eq!(report.to_string(), "attempts: 0 completed, 0 failed, 1 cancelled, 0 unfinished");
}

#[tokio::test(start_paused = true)]
async fn code_knows_why_it_is_cancelled_and_the_current_labels() {
    let retry = action(pb::ActionType::StartStepRun, 2, 1).encode_to_vec();
    let assignments = [(1, start(1)), (1, start(2)), (1, start(3)), (2, cancel(1)), (2, retry)];
    let assignments: Vec<_> = assignments.map(|(seconds, action)| (seconds * SECOND, action)).into();
    // The stream ends, and the engine ends the attempt of task 3 meanwhile.
    let (client, _) = server(Vec::new(), move |call, count| match call {
        "ListenV2" if count == 1 => Some(Scripted::Stream(assignments.clone(), Some(14))),
        call if call.ends_with("03") && call.contains("/workflow-runs/") => Some(run_details(call, "CANCELLED", 0)),
        _ => None,
    });
    let (sender, mut causes) = mpsc::unbounded_channel();
    let task: Task<(), ()> = Task::with_state("task", sender, async |sender, (): (), context: Context| {
        assert_eq!(context.cancel_cause(), None);
        context.cancelled().await;
        let number = uuid::Uuid::from(context.task_id()).as_bytes()[15];
        sender.send((number, context.cancel_cause().unwrap(), context.worker_labels().len()))?;
        Ok(())
    });
    let worker = client.worker("worker").slots(3).label("gpu", "a100").shutdown_grace_period(2 * SECOND);
    let running = worker.register(&task).build().unwrap().start().await.unwrap();
    tokio::time::sleep(4 * SECOND).await;
    running.set_labels([("zone", "a")]).send().await.unwrap();
    let report = running.shutdown().await;
    assert_eq!((report.cancelled, report.unfinished), (3, 1), "{report}");
    let mut found = Vec::new();
    while let Ok(cause) = causes.try_recv() {
        found.push(cause);
    }
    let expected = [
        (1, CancelCause::Engine, 1),
        (2, CancelCause::Replaced, 1),
        (3, CancelCause::Lost, 1),
        (2, CancelCause::Shutdown, 2),
    ];
    assert_eq!(found, expected);
}

/// The response of the REST API about a run with one task.
fn run_details(call: &str, status: &str, retry_count: u32) -> Scripted {
    let id = &call[call.len() - 36..];
    let task = format!(r#"{{"taskExternalId":"{id}","status":"{status}","retryCount":{retry_count}}}"#);
    Scripted::Rest(200, format!(r#"{{"run":{{"metadata":{{"id":"{id}"}},"status":"{status}"}},"tasks":[{task}]}}"#))
}

/// A driver that is not running.
fn driver(client: &Client) -> WorkerDriver {
    let id: WorkerId = WORKER.parse().unwrap();
    let life = watch::channel(Life { status: WorkerStatus::starting(id, 0), failure: None }).0;
    let handles = Handles {
        stop: CancellationToken::new(),
        force: CancellationToken::new(),
        ready: oneshot::channel().0,
        commands: mpsc::unbounded_channel().1,
        life,
        last_heartbeat: LastHeartbeat::now(),
    };
    WorkerDriver::new(worker(client), id, None, handles)
}
