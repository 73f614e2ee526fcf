//! W, B: workers that lose their connection. On a real engine, a proxy breaks it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use hatchet::worker::WorkerState;
use hatchet::{Context, RunStatus, Task};
use tokio::time::{Instant, sleep};

use crate::setup::{Setup, rows, until};
use crate::tasks::Number;

rows! {
    b9_results_are_delivered_after_an_outage,
    w17_attempts_continue_when_their_worker_loses_its_connection,
    w18_an_attempt_that_another_worker_got_is_not_reported,
}

const SECOND: Duration = Duration::from_secs(1);

/// Sleeps for some seconds, and returns the number of the attempt.
fn slow(name: String, executions: &Arc<AtomicU32>) -> Task<Number, u32> {
    Task::with_state(
        name,
        Arc::clone(executions),
        async |executions: Arc<AtomicU32>, input: Number, context: Context| {
            executions.fetch_add(1, SeqCst);
            sleep(Duration::from_secs(input.n.unsigned_abs())).await;
            Ok(context.attempt())
        },
    )
}

async fn w17_attempts_continue_when_their_worker_loses_its_connection(setup: Setup) {
    let Some(unreliable) = setup.unreliable_client().await else { return };
    let executions = Arc::default();
    let task = slow(setup.name("task"), &executions);
    let worker =
        unreliable.hatchet.worker(setup.name("worker")).register(&task).build().unwrap().start().await.unwrap();
    let id = worker.id();
    let run = setup.hatchet.run(&task, &Number { n: 8 }).start().await.unwrap();
    until(&run, RunStatus::Running).await;
    for _ in 0..2 {
        unreliable.disconnect();
        sleep(SECOND / 2).await;
        unreliable.reconnect();
        let start = Instant::now();
        // The engine counts an attempt that it has sent to the lost stream.
        assert!(setup.hatchet.run(&task, &Number { n: 0 }).result().await.unwrap() > 0);
        assert!(start.elapsed() < 20 * SECOND, "{:?}", start.elapsed());
    }
    assert_eq!((run.result().await.unwrap(), worker.id()), (1, id), "it was not registered again");
    assert_eq!(executions.load(SeqCst), 3, "nothing ran twice");
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.total()), (3, 3), "{report}");
}

async fn b9_results_are_delivered_after_an_outage(setup: Setup) {
    let Some(unreliable) = setup.unreliable_client().await else { return };
    let executions = Arc::default();
    let task = slow(setup.name("task"), &executions);
    let worker =
        unreliable.hatchet.worker(setup.name("worker")).register(&task).build().unwrap().start().await.unwrap();
    let runs = setup.hatchet.run_many(&task, (2..6).map(|n| Number { n })).start().await.unwrap();
    let runs: Vec<_> = runs.into_iter().map(Result::unwrap).collect();
    for run in &runs {
        until(run, RunStatus::Running).await;
    }
    unreliable.disconnect();
    sleep(15 * SECOND).await;
    let status = worker.status();
    assert_eq!((status.state, status.running, status.unreported), (WorkerState::Disconnected, 0, 4));
    unreliable.reconnect();
    for run in &runs {
        assert_eq!(run.result().await.unwrap(), 1);
    }
    assert_eq!(executions.load(SeqCst), 4, "nothing ran twice");
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.total()), (4, 4), "{report}");
}

/// After 30 seconds without heartbeats, the engine assigns the attempt to another worker.
async fn w18_an_attempt_that_another_worker_got_is_not_reported(setup: Setup) {
    let Some(unreliable) = setup.unreliable_client().await else { return };
    let task: Task<(), u32> = Task::new(setup.name("task"), async |(): (), context: Context| {
        sleep(if context.attempt() == 1 { 50 * SECOND } else { SECOND }).await;
        Ok(context.attempt())
    });
    let task = task.timeout(200 * SECOND);
    let first = unreliable.hatchet.worker(setup.name("first")).register(&task).build().unwrap().start().await.unwrap();
    let run = setup.hatchet.run(&task, &()).start().await.unwrap();
    until(&run, RunStatus::Running).await;
    unreliable.disconnect();
    sleep(40 * SECOND).await;
    unreliable.reconnect();
    let second = setup.hatchet.worker(setup.name("second")).register(&task).build().unwrap().start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 2);
    // The first attempt would have ended by now.
    sleep(15 * SECOND).await;
    assert_eq!(run.result().await.unwrap(), 2);
    let (first, second) = (first.shutdown().await, second.shutdown().await);
    assert_eq!((first.cancelled, first.completed + second.completed), (1, 1), "{first}; {second}");
    let details = run.details().await.unwrap();
    assert_eq!((details.status.clone(), details.conflicts.len()), (RunStatus::Completed, 0), "{details:?}");
}
