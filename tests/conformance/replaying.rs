//! P: replay and rerun.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use hatchet::{Context, ErrorKind, Outcome, RunFilter, RunId, RunStatus, Task, TaskError, Workflow};

use crate::tasks::{Doubled, Number, double, endless, shaky};
use crate::world::{World, rows, until};

rows! {
    p1_replay_a_completed_run,
    p2_replay_a_failed_run,
    p2_replay_a_failed_dag,
    p2_a_replay_that_is_under_way_has_no_attempt_too_many,
    p3_with_the_original_input,
    p4_a_rerun_is_a_new_run_with_the_same_input,
    p5_a_rerun_links_to_its_original_both_ways,
    p6_a_cancelled_run_is_refused_unless_that_is_wanted,
    p7_waiting_waits_for_the_new_attempt,
    p8_many_by_id_with_a_report_of_each,
    p8_all_that_match_a_filter_past_the_engines_limit,
    p9_replays_that_were_lost_are_noticed,
}

const ONE: Number = Number { n: 1 };

/// Fails until it is told to work.
fn switched(name: String) -> (Task<Number, u32>, Arc<AtomicBool>) {
    let works = Arc::new(AtomicBool::new(false));
    let task = Task::new(name, {
        let works = Arc::clone(&works);
        move |_: Number, context: Context| {
            let works = works.load(SeqCst);
            async move { if works { Ok(context.attempt()) } else { Err(TaskError::new("not yet")) } }
        }
    });
    (task, works)
}

async fn p1_replay_a_completed_run(world: World) {
    let attempts = Task::new(world.name("attempts"), async |_: Number, context: Context| Ok(context.attempt()));
    let worker = world.worker(&attempts).await;
    let run = world.hatchet.run(&attempts, &ONE).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 1);
    let again = run.replay().send().await.unwrap();
    assert_eq!((again.attempt, again.run.id()), (2, run.id()));
    assert_eq!(again.tasks, [attempts.name()]);
    assert_eq!(again.run.result().await.unwrap(), 2);
    let details = run.details().await.unwrap();
    assert_eq!((details.attempt(), details.tasks[0].replays(), details.conflicts.len()), (2, 1, 0));
    worker.shutdown().await;
}

async fn p2_replay_a_failed_run(world: World) {
    let (task, works) = switched(world.name("switched"));
    let worker = world.worker(&task).await;
    let run = world.hatchet.run(&task, &ONE).start().await.unwrap();
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Failed(_)));
    works.store(true, SeqCst);
    let again = run.replay().send().await.unwrap();
    assert_eq!(again.run.result().await.unwrap(), 2);
    let details = run.details().await.unwrap();
    assert_eq!(details.status, RunStatus::Completed);
    let errors: Vec<_> = details.tasks[0].attempts.iter().map(|attempt| attempt.error.as_deref()).collect();
    assert_eq!(errors, [Some("not yet"), None]);
    worker.shutdown().await;
}

async fn p2_replay_a_failed_dag(world: World) {
    let first = Task::new("first", async |_: Number, context: Context| Ok(context.attempt()));
    let (second, works) = switched("second".into());
    let last = Task::new("last", async |_: Number, context: Context| {
        context.parent_output::<u32>("second").map_err(Into::into)
    });
    let flow: Workflow<Number> =
        Workflow::new(world.name("flow")).task(&first).task_after(&second, ["first"]).task_after(&last, ["second"]);
    let worker = world.worker(&flow).await;
    let run = world.hatchet.run(&flow, &ONE).start().await.unwrap();
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Failed(_)));
    works.store(true, SeqCst);
    let again = run.replay().send().await.unwrap();
    assert_eq!(again.attempt, 2);
    assert!(matches!(again.run.outcome().await.unwrap(), Outcome::Completed(_)));
    let details = run.details().await.unwrap();
    assert_eq!((details.status.clone(), details.attempt()), (RunStatus::Completed, 2));
    assert_eq!(details.task("last").unwrap().output().unwrap().parse::<u32>().unwrap(), 2);
    worker.shutdown().await;
}

async fn p2_a_replay_that_is_under_way_has_no_attempt_too_many(world: World) {
    let first = Task::new("first", async |_: Number, context: Context| {
        // Long enough that the others can be looked at meanwhile.
        tokio::time::sleep(Duration::from_secs(if context.attempt() == 1 { 0 } else { 4 })).await;
        Ok(context.attempt())
    });
    let last = Task::new("last", async |_: Number, context: Context| Ok(context.attempt()));
    let flow: Workflow<Number> = Workflow::new(world.name("flow")).task(&first).task_after(&last, ["first"]);
    let worker = world.worker(&flow).await;
    let run = world.hatchet.run(&flow, &ONE).start().await.unwrap();
    run.outcome().await.unwrap();
    let again = run.replay().send().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let details = run.details().await.unwrap();
    assert_eq!((details.outcome.is_none(), details.task("last").unwrap().attempts.len()), (true, 1), "{details:#?}");
    let mut last = Vec::new();
    let mut watch = again.run.watch();
    while let Some(change) = watch.next().await {
        let change = change.unwrap();
        last.extend((change.task_name.as_deref() == Some("last")).then(|| change.state.to_string()));
    }
    let expected =
        [1, 2].map(|attempt| ["QUEUED", "RUNNING", "COMPLETED"].map(|status| format!("{status} (attempt {attempt})")));
    assert_eq!(last, expected.concat());
    worker.shutdown().await;
}

async fn p3_with_the_original_input(world: World) {
    let task = double(world.name("double"));
    let worker = world.worker(&task).await;
    let run = world.hatchet.run(&task, &Number { n: 21 }).metadata("tenant", "acme").start().await.unwrap();
    run.result().await.unwrap();
    let again = run.replay().send().await.unwrap();
    assert_eq!(again.run.result().await.unwrap(), Doubled { doubled: 42 });
    let details = run.details().await.unwrap();
    assert_eq!(details.input.parse::<Number>().unwrap(), Number { n: 21 });
    assert_eq!(details.metadata["tenant"], "acme");
    worker.shutdown().await;
}

async fn p4_a_rerun_is_a_new_run_with_the_same_input(world: World) {
    let task = double(world.name("double"));
    let worker = world.worker(&task).await;
    let run = world.hatchet.run(&task, &Number { n: 4 }).metadata("tenant", "acme").start().await.unwrap();
    run.result().await.unwrap();
    let again = run.rerun().metadata("why", "once more").start().await.unwrap();
    assert_ne!(again.id(), run.id());
    assert_eq!(again.result().await.unwrap(), Doubled { doubled: 8 });
    let details = again.details().await.unwrap();
    assert_eq!(
        (details.metadata["tenant"].as_str(), details.metadata["why"].as_str()),
        (Some("acme"), Some("once more"))
    );
    let other = run.rerun().input(&Number { n: 5 }).start().await.unwrap();
    assert_eq!(other.result().await.unwrap(), Doubled { doubled: 10 });
    worker.shutdown().await;
}

async fn p5_a_rerun_links_to_its_original_both_ways(world: World) {
    let task = double(world.name("double"));
    let worker = world.worker(&task).await;
    let run = world.hatchet.run(&task, &ONE).start().await.unwrap();
    run.result().await.unwrap();
    let first = run.rerun().start().await.unwrap();
    let second = run.rerun().start().await.unwrap();
    second.result().await.unwrap();
    assert_eq!(first.details().await.unwrap().rerun_of(), Some(run.id()));
    assert_eq!(run.details().await.unwrap().rerun_of(), None);
    let reruns = async || {
        let (mut items, mut ids) = (run.reruns(), Vec::new());
        while let Some(rerun) = items.next().await {
            let rerun = rerun.unwrap();
            assert_eq!(rerun.rerun_of(), Some(run.id()));
            ids.push(rerun.id);
        }
        ids
    };
    world.eventually(async || reruns().await == [second.id(), first.id()]).await;
    worker.shutdown().await;
}

async fn p6_a_cancelled_run_is_refused_unless_that_is_wanted(world: World) {
    let task = double(world.name("double"));
    world.worker(&task).await.shutdown().await;
    let run = world.hatchet.run(&task, &ONE).start().await.unwrap();
    let error = run.replay().send().await.unwrap_err();
    assert_eq!((error.kind(), error.run_status()), (ErrorKind::RunState, Some(&RunStatus::Queued)), "it goes on");
    run.cancel().send().await.unwrap();
    let error = run.replay().send().await.unwrap_err();
    assert_eq!((error.kind(), error.run_status()), (ErrorKind::RunState, Some(&RunStatus::Cancelled)));
    let worker = world.worker(&task).await;
    let again = run.replay().even_if_cancelled().send().await.unwrap();
    assert_eq!(again.run.result().await.unwrap(), Doubled { doubled: 2 });
    worker.shutdown().await;
}

async fn p7_waiting_waits_for_the_new_attempt(world: World) {
    let slow = Task::new(world.name("slow"), async |_: Number, context: Context| {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        Ok(context.attempt())
    });
    let worker = world.worker(&slow).await;
    let run = world.hatchet.run(&slow, &ONE).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 1);
    for attempt in 2..=3 {
        let again = run.replay().send().await.unwrap();
        let before = run.details().await.unwrap();
        assert!(before.outcome.is_none(), "it is under way");
        assert_eq!(again.run.result().await.unwrap(), attempt);
    }
    // A run that goes on is refused.
    let again = run.replay().send().await.unwrap();
    let error = run.replay().send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RunState);
    again.run.result().await.unwrap();
    worker.shutdown().await;
}

async fn p8_many_by_id_with_a_report_of_each(world: World) {
    let (fine, slow) = (double(world.name("double")), endless(world.name("endless")));
    let worker = world.hatchet.worker(world.name("worker")).register(&fine).register(&slow);
    let worker = worker.build().unwrap().start().await.unwrap();
    let done = world.hatchet.run_many(&fine, vec![ONE; 2]).start().await.unwrap();
    let done: Vec<_> = done.into_iter().map(Result::unwrap).collect();
    for run in &done {
        run.result().await.unwrap();
    }
    let going = world.hatchet.run(&slow, &ONE).start().await.unwrap();
    until(&going, RunStatus::Running).await;
    let nobody: RunId = "00000000-0000-4000-8009-000000000009".parse().unwrap();
    let ids = [done[0].id(), going.id(), nobody, done[1].id()];
    let reports = world.hatchet.replay_many(ids).send().await.unwrap();
    let seen: Vec<_> = reports.iter().map(|report| (report.run_id, report.effect.to_string())).collect();
    let expected = ["applied", "skipped, because it is RUNNING", "not found", "applied"];
    assert_eq!(seen, ids.into_iter().zip(expected.map(str::to_owned)).collect::<Vec<_>>());
    going.cancel().send().await.unwrap();
    worker.shutdown().await;
}

async fn p8_all_that_match_a_filter_past_the_engines_limit(world: World) {
    let count: u32 = if world.engine.is_some() { 1200 } else { 220 };
    let task = shaky(world.name("shaky"));
    let worker = world.hatchet.worker(world.name("worker")).slots(500).register(&task);
    let worker = worker.build().unwrap().start().await.unwrap();
    let inputs = (0..count).map(|_| Number { n: 1 });
    let runs = world.hatchet.run_many(&task, inputs).start().await.unwrap();
    for run in runs {
        assert!(matches!(run.unwrap().outcome().await.unwrap(), Outcome::Failed(_)));
    }
    let filter = RunFilter::new(world.window()).workflow(task.name()).status(RunStatus::Failed);
    let query = world.hatchet.runs(filter);
    world
        .eventually(async || query.counts_by_status().await.unwrap().get(&RunStatus::Failed) == Some(count.into()))
        .await;
    let report = query.replay().send().await.unwrap();
    assert_eq!((report.applied, report.total()), (count.into(), count.into()), "{report}");
    let all = world.hatchet.runs(RunFilter::new(world.window()).workflow(task.name()));
    let completed = async || all.counts_by_status().await.unwrap().get(&RunStatus::Completed) == Some(count.into());
    world.eventually(completed).await;
    worker.shutdown().await;
}

async fn p9_replays_that_were_lost_are_noticed(world: World) {
    // More at once than the engine takes, and each counted by the task itself.
    let count = if world.engine.is_some() { 1000 } else { 250 };
    let begun = Arc::new(AtomicU32::new(0));
    let task = Task::new(world.name("counted"), {
        let begun = Arc::clone(&begun);
        move |_: Number, _: Context| {
            begun.fetch_add(1, SeqCst);
            async { Ok(0) }
        }
    });
    let worker = world.hatchet.worker(world.name("worker")).slots(500).register(&task);
    let worker = worker.build().unwrap().start().await.unwrap();
    let runs = world.hatchet.run_many(&task, vec![ONE; count]).start().await.unwrap();
    let runs: Vec<_> = runs.into_iter().map(Result::unwrap).collect();
    for run in &runs {
        run.outcome().await.unwrap();
    }
    let reports = world.hatchet.replay_many(runs.iter().map(hatchet::RunHandle::id)).send().await.unwrap();
    let done = reports.iter().filter(|report| report.is_applied()).count();
    assert_eq!(done, count, "{:?}", reports.iter().find(|report| !report.is_applied()));
    world.eventually(async || begun.load(SeqCst) as usize == 2 * count).await;
    worker.shutdown().await;
}
