//! P: replay and rerun.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use hatchet::{Context, ErrorKind, Outcome, RunFilter, RunId, RunStatus, Task, TaskError, Workflow};

use crate::setup::{Setup, rows, until};
use crate::tasks::{Doubled, Number, double, endless, shaky};

rows! {
    p1_completed_runs_are_replayed,
    p2_failed_runs_are_replayed,
    p2_failed_dags_are_replayed,
    p2_running_replays_have_no_extra_attempts,
    p3_replays_have_the_original_input,
    p4_a_rerun_is_a_new_run_with_the_same_input,
    p5_a_rerun_links_to_its_original_both_ways,
    p6_cancelled_runs_are_replayed_only_if_requested,
    p7_waits_return_the_new_attempt,
    p8_many_runs_are_replayed_by_id_with_a_report_for_each,
    p8_single_runs_are_replayed_although_they_were_cancelled,
    p8_filters_replay_more_runs_than_the_engines_limit,
    p9_lost_replays_are_detected,
}

const ONE: Number = Number { n: 1 };

/// A task that fails until the flag is set.
fn switched(name: String) -> (Task<Number, u32>, Arc<AtomicBool>) {
    let succeed = Arc::new(AtomicBool::new(false));
    let task = Task::new(name, {
        let succeed = Arc::clone(&succeed);
        move |_: Number, context: Context| {
            let succeed = succeed.load(SeqCst);
            async move { if succeed { Ok(context.attempt()) } else { Err(TaskError::new("not yet")) } }
        }
    });
    (task, succeed)
}

async fn p1_completed_runs_are_replayed(setup: Setup) {
    let attempts = Task::new(setup.name("attempts"), async |_: Number, context: Context| Ok(context.attempt()));
    let worker = setup.worker(&attempts).await;
    let run = setup.hatchet.run(&attempts, &ONE).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 1);
    let again = run.replay().send().await.unwrap();
    assert_eq!((again.attempt, again.run.id()), (2, run.id()));
    assert_eq!(again.task_names, [attempts.name()]);
    assert_eq!(again.run.result().await.unwrap(), 2);
    let details = run.details().await.unwrap();
    assert_eq!((details.attempt(), details.tasks[0].replays(), details.conflicts.len()), (2, 1, 0));
    worker.shutdown().await;
}

async fn p2_failed_runs_are_replayed(setup: Setup) {
    let (task, succeed) = switched(setup.name("switched"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Failed(_)));
    succeed.store(true, SeqCst);
    let again = run.replay().send().await.unwrap();
    assert_eq!(again.run.result().await.unwrap(), 2);
    let details = run.details().await.unwrap();
    assert_eq!(details.status, RunStatus::Completed);
    let errors: Vec<_> = details.tasks[0].attempts.iter().map(|attempt| attempt.error.as_deref()).collect();
    assert_eq!(errors, [Some("not yet"), None]);
    worker.shutdown().await;
}

async fn p2_failed_dags_are_replayed(setup: Setup) {
    let first = Task::new("first", async |_: Number, context: Context| Ok(context.attempt()));
    let (second, succeed) = switched("second".into());
    let last = Task::new("last", async |_: Number, context: Context| {
        context.parent_output::<u32>("second").map_err(Into::into)
    });
    let flow: Workflow<Number> =
        Workflow::new(setup.name("flow")).task(&first).task_after(&second, ["first"]).task_after(&last, ["second"]);
    let worker = setup.worker(&flow).await;
    let run = setup.hatchet.run(&flow, &ONE).start().await.unwrap();
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Failed(_)));
    succeed.store(true, SeqCst);
    let again = run.replay().send().await.unwrap();
    assert_eq!(again.attempt, 2);
    assert!(matches!(again.run.outcome().await.unwrap(), Outcome::Completed(_)));
    let details = run.details().await.unwrap();
    assert_eq!((details.status.clone(), details.attempt()), (RunStatus::Completed, 2));
    assert_eq!(details.task("last").unwrap().output().unwrap().parse::<u32>().unwrap(), 2);
    worker.shutdown().await;
}

async fn p2_running_replays_have_no_extra_attempts(setup: Setup) {
    let first = Task::new("first", async |_: Number, context: Context| {
        // Long enough to fetch the details of the other task meanwhile.
        tokio::time::sleep(Duration::from_secs(if context.attempt() == 1 { 0 } else { 4 })).await;
        Ok(context.attempt())
    });
    let last = Task::new("last", async |_: Number, context: Context| Ok(context.attempt()));
    let flow: Workflow<Number> = Workflow::new(setup.name("flow")).task(&first).task_after(&last, ["first"]);
    let worker = setup.worker(&flow).await;
    let run = setup.hatchet.run(&flow, &ONE).start().await.unwrap();
    run.outcome().await.unwrap();
    let again = run.replay().send().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let details = run.details().await.unwrap();
    assert_eq!((details.outcome.is_none(), details.task("last").unwrap().attempts.len()), (true, 1), "{details:#?}");
    let mut last = Vec::new();
    let mut watch = again.run.watch();
    while let Some(change) = watch.next().await {
        let change = change.unwrap();
        last.extend(change.attempt_status().filter(|_| change.task_name() == Some("last")).map(ToString::to_string));
    }
    let expected =
        [1, 2].map(|attempt| ["QUEUED", "RUNNING", "COMPLETED"].map(|status| format!("{status} (attempt {attempt})")));
    assert_eq!(last, expected.concat());
    worker.shutdown().await;
}

async fn p3_replays_have_the_original_input(setup: Setup) {
    let task = double(setup.name("double"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &Number { n: 21 }).metadata("tenant", "acme").start().await.unwrap();
    run.result().await.unwrap();
    let again = run.replay().send().await.unwrap();
    assert_eq!(again.run.result().await.unwrap(), Doubled { doubled: 42 });
    let details = run.details().await.unwrap();
    assert_eq!(details.input.as_ref().unwrap().parse::<Number>().unwrap(), Number { n: 21 });
    assert_eq!(details.metadata["tenant"], "acme");
    worker.shutdown().await;
}

async fn p4_a_rerun_is_a_new_run_with_the_same_input(setup: Setup) {
    let task = double(setup.name("double"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &Number { n: 4 }).metadata("tenant", "acme").start().await.unwrap();
    run.result().await.unwrap();
    let again = run.rerun().metadata("reason", "new price").start().await.unwrap();
    assert_ne!(again.id(), run.id());
    assert_eq!(again.result().await.unwrap(), Doubled { doubled: 8 });
    let details = again.details().await.unwrap();
    assert_eq!(
        (details.metadata["tenant"].as_str(), details.metadata["reason"].as_str()),
        (Some("acme"), Some("new price"))
    );
    let other = run.rerun().input(&Number { n: 5 }).start().await.unwrap();
    assert_eq!(other.result().await.unwrap(), Doubled { doubled: 10 });
    worker.shutdown().await;
}

async fn p5_a_rerun_links_to_its_original_both_ways(setup: Setup) {
    let task = double(setup.name("double"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    run.result().await.unwrap();
    let first = run.rerun().start().await.unwrap();
    let second = run.rerun().start().await.unwrap();
    second.result().await.unwrap();
    assert_eq!(first.details().await.unwrap().original_run_id(), Some(run.id()));
    assert_eq!(run.details().await.unwrap().original_run_id(), None);
    let reruns = async || {
        let (mut items, mut ids) = (run.reruns().items(), Vec::new());
        while let Some(rerun) = items.next().await {
            let rerun = rerun.unwrap();
            assert_eq!(rerun.original_run_id(), Some(run.id()));
            ids.push(rerun.id);
        }
        ids
    };
    setup.eventually(async || reruns().await == [second.id(), first.id()]).await;
    worker.shutdown().await;
}

async fn p6_cancelled_runs_are_replayed_only_if_requested(setup: Setup) {
    let task = double(setup.name("double"));
    setup.worker(&task).await.shutdown().await;
    let run = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    let error = run.replay().send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.run_status()),
        (ErrorKind::RunState, Some(&RunStatus::Queued)),
        "the run has not ended"
    );
    run.cancel().send().await.unwrap();
    let error = run.replay().send().await.unwrap_err();
    assert_eq!((error.kind(), error.run_status()), (ErrorKind::RunState, Some(&RunStatus::Cancelled)));
    let worker = setup.worker(&task).await;
    let again = run.replay().include_cancelled().send().await.unwrap();
    assert_eq!(again.run.result().await.unwrap(), Doubled { doubled: 2 });
    worker.shutdown().await;
}

async fn p7_waits_return_the_new_attempt(setup: Setup) {
    let slow = Task::new(setup.name("slow"), async |_: Number, context: Context| {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        Ok(context.attempt())
    });
    let worker = setup.worker(&slow).await;
    let run = setup.hatchet.run(&slow, &ONE).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 1);
    for attempt in 2..=3 {
        let again = run.replay().send().await.unwrap();
        let before = run.details().await.unwrap();
        assert!(before.outcome.is_none(), "the replay has not ended");
        assert_eq!(again.run.result().await.unwrap(), attempt);
    }
    // A replay of a run that has not ended is rejected.
    let again = run.replay().send().await.unwrap();
    let error = run.replay().send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RunState);
    again.run.result().await.unwrap();
    worker.shutdown().await;
}

async fn p8_many_runs_are_replayed_by_id_with_a_report_for_each(setup: Setup) {
    let (short, slow) = (double(setup.name("double")), endless(setup.name("endless")));
    let worker = setup.hatchet.worker(setup.name("worker")).register(&short).register(&slow);
    let worker = worker.build().unwrap().start().await.unwrap();
    let done = setup.hatchet.run_many(&short, vec![ONE; 2]).start().await.unwrap();
    let done: Vec<_> = done.into_iter().map(Result::unwrap).collect();
    for run in &done {
        run.result().await.unwrap();
    }
    let running = setup.hatchet.run(&slow, &ONE).start().await.unwrap();
    until(&running, RunStatus::Running).await;
    let unknown: RunId = "00000000-0000-4000-8009-000000000009".parse().unwrap();
    let ids = [done[0].id(), running.id(), unknown, done[1].id()];
    let reports = setup.hatchet.replay_many(ids).send().await.unwrap();
    let effects: Vec<_> = reports.iter().map(|report| (report.run_id, report.effect.to_string())).collect();
    let expected = ["applied", "skipped: the run is RUNNING", "not found", "applied"];
    assert_eq!(effects, ids.into_iter().zip(expected.map(str::to_owned)).collect::<Vec<_>>());
    running.cancel().send().await.unwrap();
    worker.shutdown().await;
}

async fn p8_single_runs_are_replayed_although_they_were_cancelled(setup: Setup) {
    let task = endless(setup.name("endless"));
    let worker = setup.hatchet.worker(setup.name("worker")).register(&task).build().unwrap().start().await.unwrap();
    let runs = setup.hatchet.run_many(&task, vec![ONE; 2]).start().await.unwrap();
    let runs: Vec<_> = runs.into_iter().map(Result::unwrap).collect();
    for run in &runs {
        until(run, RunStatus::Running).await;
        assert!(run.cancel().send().await.unwrap().is_applied());
    }
    let (kept, replayed) = (runs[0].id(), runs[1].id());
    let replay = setup.hatchet.replay_many([kept, replayed]);
    let replay = replay.each(|run, options| if run == replayed { options.include_cancelled() } else { options });
    let reports = replay.send().await.unwrap();
    let effects: Vec<_> = reports.iter().map(|report| report.effect.to_string()).collect();
    assert_eq!(effects, ["skipped: the run is CANCELLED", "applied"]);
    assert!(runs[1].cancel().send().await.unwrap().is_applied());
    worker.shutdown().await;
}

async fn p8_filters_replay_more_runs_than_the_engines_limit(setup: Setup) {
    let count: u32 = if setup.engine.is_some() { 1200 } else { 220 };
    let task = shaky(setup.name("shaky"));
    let worker = setup.hatchet.worker(setup.name("worker")).slots(500).register(&task);
    let worker = worker.build().unwrap().start().await.unwrap();
    let inputs = (0..count).map(|_| Number { n: 1 });
    let runs = setup.hatchet.run_many(&task, inputs).start().await.unwrap();
    for run in runs {
        assert!(matches!(run.unwrap().outcome().await.unwrap(), Outcome::Failed(_)));
    }
    let filter = RunFilter::new(setup.window()).workflow(task.name()).status(RunStatus::Failed);
    let query = setup.hatchet.runs(filter);
    setup
        .eventually(async || query.counts_by_status().await.unwrap().get(&RunStatus::Failed) == Some(count.into()))
        .await;
    let report = query.replay().send().await.unwrap();
    assert_eq!((report.applied, report.total()), (count.into(), count.into()), "{report}");
    let all = setup.hatchet.runs(RunFilter::new(setup.window()).workflow(task.name()));
    let completed = async || all.counts_by_status().await.unwrap().get(&RunStatus::Completed) == Some(count.into());
    setup.eventually(completed).await;
    worker.shutdown().await;
}

async fn p9_lost_replays_are_detected(setup: Setup) {
    // More replays than the engine executes in one call. The task counts its executions.
    let count = if setup.engine.is_some() { 1000 } else { 250 };
    let starts = Arc::new(AtomicU32::new(0));
    let task = Task::new(setup.name("counted"), {
        let starts = Arc::clone(&starts);
        move |_: Number, _: Context| {
            starts.fetch_add(1, SeqCst);
            async { Ok(0) }
        }
    });
    let worker = setup.hatchet.worker(setup.name("worker")).slots(500).register(&task);
    let worker = worker.build().unwrap().start().await.unwrap();
    let runs = setup.hatchet.run_many(&task, vec![ONE; count]).start().await.unwrap();
    let runs: Vec<_> = runs.into_iter().map(Result::unwrap).collect();
    for run in &runs {
        run.outcome().await.unwrap();
    }
    let reports = setup.hatchet.replay_many(runs.iter().map(hatchet::RunHandle::id)).send().await.unwrap();
    let done = reports.iter().filter(|report| report.is_applied()).count();
    assert_eq!(done, count, "{:?}", reports.iter().find(|report| !report.is_applied()));
    setup.eventually(async || starts.load(SeqCst) as usize == 2 * count).await;
    worker.shutdown().await;
}
