//! What arrives at a server, in which order and when, on paused time.

mod chunks;

use std::sync::Mutex;

use tokio::time::sleep;

use super::lanes::MAX_CALLS;
use super::*;
use crate::rpc::pb;
use crate::scripted::{Calls, Scripted, client};
use crate::workflow::{Context, Task};

const SECOND: Duration = Duration::from_secs(1);
const WORKER: &str = "00000000-0000-4000-8003-000000000001";

/// The messages of the lines of a task that were accepted, in order.
fn lines(calls: &Calls, task: u8) -> Vec<String> {
    let end = format!("{task:02x}");
    let all = calls.messages::<pb::PutLogRequest>("PutLog").into_iter();
    all.filter(|line| line.task_run_external_id.ends_with(&end)).map(|line| line.message).collect()
}

/// A worker with these tasks assigned at once. Each log line takes a second.
fn server(tasks: u8) -> (Client, Calls) {
    server_with(tasks, |_| Scripted::after(SECOND, Scripted::empty()))
}

/// The same with another response to log lines, by the time since the start.
fn server_with(tasks: u8, put_log: impl Fn(Duration) -> Scripted + Send + Sync + 'static) -> (Client, Calls) {
    server_of(tasks, move |call, elapsed| (call == "PutLog").then(|| put_log(elapsed)))
}

/// The same with other responses, by the call and the time since the start.
fn server_of(
    tasks: u8,
    respond: impl Fn(&str, Duration) -> Option<Scripted> + Send + Sync + 'static,
) -> (Client, Calls) {
    let start = Instant::now();
    let action = |task: u8| {
        let id = format!("00000000-0000-4000-8001-0000000000{task:02x}");
        prost::Message::encode_to_vec(&pb::AssignedAction {
            action_type: pb::ActionType::StartStepRun as i32,
            action_id: "task:task".into(),
            action_payload: r#"{"input":{}}"#.into(),
            workflow_run_id: id.clone(),
            task_run_external_id: id,
            ..Default::default()
        })
    };
    let actions: Vec<_> = (1..=tasks).map(|task| (SECOND, action(task))).collect();
    client(move |call, _| {
        respond(call, start.elapsed()).unwrap_or_else(|| match call {
            "Register" => {
                Scripted::message(&pb::WorkerRegisterResponse { worker_id: WORKER.into(), ..Default::default() })
            }
            "PutWorkflow" => Scripted::message(&pb::v1::CreateWorkflowVersionResponse {
                id: WORKER.into(),
                workflow_id: WORKER.into(),
            }),
            "ListenV2" => Scripted::Stream(actions.clone(), None),
            call if call.contains("/workflows") => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
            call if call.contains(' ') => Scripted::Rest(200, "{}".into()),
            _ => Scripted::empty(),
        })
    })
}

#[tokio::test(start_paused = true)]
async fn lines_of_a_task_are_sent_in_order_and_tasks_do_not_wait_for_each_other() {
    let (client, calls) = server(40);
    let task: Task<(), ()> = Task::new("task", async |(): (), context: Context| {
        (0..5).for_each(|number| context.log(number.to_string()));
        Ok(())
    });
    let running = client.worker("worker").slots(40).register(&task).build().unwrap().start().await.unwrap();
    tokio::time::sleep(SECOND * 60).await;
    running.shutdown().await;
    for task in 1..=40 {
        assert_eq!(lines(&calls, task), ["0", "1", "2", "3", "4"], "{task}");
    }
    // The tasks take turns.
    let times = calls.times("PutLog");
    assert_eq!((times.len(), times[times.len() - 1] - times[0]), (200, SECOND * 6));
    let most = times.iter().map(|at| times.iter().filter(|other| *other == at).count()).max();
    assert_eq!(most, Some(MAX_CALLS));
}

#[tokio::test(start_paused = true)]
async fn lines_beyond_the_queue_are_dropped_and_the_task_is_not_slowed_down() {
    const LINES: usize = 3000;
    let line = |number: usize| format!("{number:08192}");
    let (client, calls) = server(1);
    let took = Arc::new(Mutex::new(None));
    let task = Task::with_state("task", Arc::clone(&took), async |took: Arc<Mutex<_>>, (): (), context: Context| {
        let begin = Instant::now();
        (0..LINES).for_each(|number| context.log(format!("{number:08192}")));
        *took.lock().unwrap() = Some(begin.elapsed());
        // Until there is space again.
        tokio::time::sleep(5 * SECOND).await;
        context.log("the last one");
        Ok(())
    });
    let running = client.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    tokio::time::sleep(SECOND * 3000).await;
    running.shutdown().await;
    // Although each call takes a second.
    assert_eq!(*took.lock().unwrap(), Some(Duration::ZERO));
    // What fits into the queue is sent, in its order: 16 MiB, and 64 KiB of the task itself. The rest is counted.
    let lines = lines(&calls, 1);
    let expected = (16 << 20) / 8192 + (64 << 10) / 8192;
    let lost = LINES - expected;
    assert_eq!(lines.len(), expected + 2);
    assert!(lines[..expected].iter().enumerate().all(|(number, found)| *found == line(number)));
    assert_eq!(
        lines[expected..],
        [
            format!("{lost} log lines of this task were lost, because too many lines were waiting to be sent"),
            "the last one".to_owned()
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn lines_wait_while_the_engine_cannot_be_reached() {
    let (client, calls) = server_with(20, |elapsed| match elapsed {
        elapsed if elapsed < 60 * SECOND => Scripted::Status(14),
        _ => Scripted::empty(),
    });
    let task: Task<(), ()> = Task::new("task", async |(): (), context: Context| {
        for number in 0..90 {
            context.log(number.to_string());
            sleep(SECOND).await;
        }
        Ok(())
    });
    let running = client.worker("worker").slots(20).register(&task).build().unwrap().start().await.unwrap();
    sleep(SECOND * 100).await;
    running.shutdown().await;
    let expected: Vec<_> = (0..90).map(|number| number.to_string()).collect();
    for task in 1..=20 {
        assert_eq!(lines(&calls, task), expected, "{task}");
    }
    // All at once, and then one at a time.
    let rejected = calls.count("PutLog") - 20 * 90;
    assert!((20..100).contains(&rejected), "{rejected}");
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_rejected_is_lost_alone() {
    let (client, calls) = server_with(1, |elapsed| match elapsed.as_secs() {
        10..20 => Scripted::Status(3),
        _ => Scripted::empty(),
    });
    let task: Task<(), ()> = Task::new("task", async |(): (), context: Context| {
        for number in 0..4 {
            context.log(number.to_string());
            sleep(7 * SECOND).await;
        }
        Ok(())
    });
    let running = client.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    sleep(SECOND * 60).await;
    running.shutdown().await;
    assert_eq!((lines(&calls, 1), calls.count("PutLog")), (vec!["0".into(), "1".into(), "3".into()], 4));
}

/// After a long outage, the engine still fails now and then.
#[tokio::test(start_paused = true)]
async fn a_line_that_waited_through_a_long_outage_may_fail_once_more() {
    let (client, calls) = server_with(20, |elapsed| match elapsed.as_millis() {
        0..600_000 => Scripted::Status(14),
        time if time % 3 == 0 => Scripted::Status(14),
        _ => Scripted::after(Duration::from_millis(7), Scripted::empty()),
    });
    let task: Task<(), ()> = Task::new("task", async |(): (), context: Context| {
        (0..3).for_each(|number| context.log(number.to_string()));
        Ok(())
    });
    let running = client.worker("worker").slots(20).register(&task).build().unwrap().start().await.unwrap();
    sleep(SECOND * 900).await;
    running.shutdown().await;
    for task in 1..=20 {
        assert_eq!(lines(&calls, task), ["0", "1", "2"], "{task}");
    }
}

/// A line that the engine cannot store must not stop the others, also if there are no others meanwhile.
#[tokio::test(start_paused = true)]
async fn a_line_with_an_internal_error_is_given_up_after_a_minute() {
    let (client, calls) = server_with(1, |elapsed| match elapsed {
        elapsed if elapsed < 70 * SECOND => Scripted::Status(13),
        _ => Scripted::empty(),
    });
    let task: Task<(), ()> = Task::new("task", async |(): (), context: Context| {
        (0..3).for_each(|number| context.log(number.to_string()));
        Ok(())
    });
    let running = client.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    sleep(SECOND * 200).await;
    running.shutdown().await;
    assert_eq!(lines(&calls, 1), ["1", "2"]);
}

/// One task has more lines than are sent in hours.
#[tokio::test(start_paused = true)]
async fn the_lines_of_a_task_do_not_delay_those_of_others() {
    let (client, calls) = server(2);
    let task: Task<(), ()> = Task::new("task", async |(): (), context: Context| {
        if context.task_id().to_string().ends_with("01") {
            (0..20_000).for_each(|number| context.log(number.to_string()));
        } else {
            sleep(SECOND).await;
            (0..64).for_each(|number| context.log(number.to_string()));
        }
        Ok(())
    });
    let running = client.worker("worker").slots(2).register(&task).build().unwrap().start().await.unwrap();
    // The first line of the second task after a second, and then one per second.
    sleep(SECOND * 67).await;
    let expected: Vec<_> = (0..64).map(|number| number.to_string()).collect();
    assert_eq!(lines(&calls, 2), expected);
    assert!(lines(&calls, 1).len() < 70);
    drop(running);
}
