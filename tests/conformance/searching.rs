//! Q: searching.

use std::collections::HashSet;
use std::time::Duration;

use hatchet::{Client, RunFilter, RunId, RunStatus, Total};

use crate::tasks::{Number, double, endless, shaky};
use crate::world::{World, rows};

rows! {
    q1_all_runs_of_a_workflow,
    q2_by_status_several_and_timed_out,
    q9_one_page_with_its_total_and_counts,
}

async fn ids(hatchet: &Client, filter: RunFilter) -> Vec<RunId> {
    let (mut items, mut ids) = (hatchet.runs(filter).items(), Vec::new());
    while let Some(run) = items.next().await {
        ids.push(run.unwrap().id);
    }
    ids
}

/// REST lags: a question is asked until it has the answer.
async fn until<T>(mut ask: impl AsyncFnMut() -> T, is: impl Fn(&T) -> bool) -> T {
    for _ in 0..100 {
        let answer = ask().await;
        if is(&answer) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ask().await
}

async fn q1_all_runs_of_a_workflow(world: World) {
    let (one, other) = (double(world.name("one")), double(world.name("other")));
    let worker = world
        .hatchet
        .worker(world.name("worker"))
        .register(&one)
        .register(&other)
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    // More than one page of them, of one stamp.
    let runs = world.hatchet.run_many(&one, (0..450).map(|n| Number { n })).start().await.unwrap();
    let runs: HashSet<_> = runs.into_iter().map(|run| run.unwrap().id()).collect();
    let stranger = world.hatchet.run(&other, &Number { n: 1 }).start().await.unwrap();
    stranger.result().await.unwrap();
    let filter = RunFilter::new(world.window()).workflow(one.name());
    let found = until(async || ids(&world.hatchet, filter.clone()).await, |found| found.len() == 450).await;
    assert_eq!(found.len(), 450, "none twice");
    assert_eq!(found.into_iter().collect::<HashSet<_>>(), runs);
    let both = filter.workflow(other.name());
    assert!(ids(&world.hatchet, both).await.contains(&stranger.id()), "several workflows: any of them");
    worker.shutdown().await;
}

async fn q2_by_status_several_and_timed_out(world: World) {
    use RunStatus::{Completed, Failed, TimedOut};
    let second = Duration::from_secs(1);
    let (fine, broken) = (double(world.name("double")), shaky(world.name("shaky")));
    let (slow, idle) =
        (endless(world.name("endless")).timeout(second), double(world.name("idle")).schedule_timeout(second));
    let worker = world.hatchet.worker(world.name("worker")).register(&fine).register(&broken).register(&slow);
    let worker = worker.build().unwrap().start().await.unwrap();
    world.worker(&idle).await.shutdown().await;
    let start = async |task, n| {
        let run = world.hatchet.run(task, &Number { n }).start().await.unwrap();
        let status = run.outcome().await.unwrap().status();
        (run.id(), status)
    };
    let runs = [start(&fine, 1).await, start(&broken, 9).await, start(&slow, 1).await, start(&idle, 1).await];
    assert_eq!(runs.clone().map(|(_, status)| status), [Completed, Failed, TimedOut, TimedOut]);
    let all = RunFilter::new(world.window())
        .workflow(fine.name())
        .workflow(broken.name())
        .workflow(slow.name())
        .workflow(idle.name());
    for asked in
        [vec![Completed], vec![Failed], vec![TimedOut], vec![Completed, TimedOut], vec![Failed, TimedOut], vec![]]
    {
        let filter = asked.iter().fold(all.clone(), |filter, status| filter.status(status.clone()));
        let expected: HashSet<_> =
            runs.iter().filter(|(_, status)| asked.is_empty() || asked.contains(status)).map(|(id, _)| *id).collect();
        let found =
            until(async || ids(&world.hatchet, filter.clone()).await, |found| found.len() == expected.len()).await;
        assert_eq!(found.into_iter().collect::<HashSet<_>>(), expected, "{asked:?}");
    }
    // A row says what it is, whatever was asked for.
    let page = world.hatchet.runs(all).page(10).await.unwrap();
    for (id, status) in &runs {
        assert_eq!(page.runs.iter().find(|run| run.id == *id).unwrap().status, *status);
    }
    worker.shutdown().await;
}

async fn q9_one_page_with_its_total_and_counts(world: World) {
    let (fine, broken) = (double(world.name("double")), shaky(world.name("shaky")));
    let worker = world
        .hatchet
        .worker(world.name("worker"))
        .register(&fine)
        .register(&broken)
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    for run in world.hatchet.run_many(&fine, (0..12).map(|n| Number { n })).start().await.unwrap() {
        run.unwrap().result().await.unwrap();
    }
    for _ in 0..3 {
        world.hatchet.run(&broken, &Number { n: 9 }).start().await.unwrap().outcome().await.unwrap();
    }
    let filter = RunFilter::new(world.window()).workflow(fine.name()).workflow(broken.name());
    let query = world.hatchet.runs(filter.clone());
    let page = until(async || query.page(5).await.unwrap(), |page| page.total == Total::Exactly(15)).await;
    assert_eq!((page.runs.len(), page.total), (5, Total::Exactly(15)));
    assert!(page.runs.is_sorted_by_key(|run| std::cmp::Reverse(run.created_at)), "newest first");
    assert_eq!(query.count().await.unwrap(), Total::Exactly(15));
    let completed = world.hatchet.runs(filter.clone().status(RunStatus::Completed));
    assert_eq!(
        until(async || completed.count().await.unwrap(), |total| *total == Total::Exactly(12)).await,
        Total::Exactly(12)
    );
    let failed = world.hatchet.runs(filter.status(RunStatus::Failed));
    let failed = until(async || failed.count().await.unwrap(), |total| *total == Total::AtMost(3)).await;
    assert_eq!(failed, Total::AtMost(3), "the server counts timed-out runs with them");
    let counts =
        until(async || query.counts_by_status().await.unwrap(), |counts| counts.get(&RunStatus::Failed) == 3).await;
    assert_eq!((counts.get(&RunStatus::Completed), counts.get(&RunStatus::Failed), counts.total()), (12, 3, 15));
    worker.shutdown().await;
}
