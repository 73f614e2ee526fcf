//! Q: searching.

use std::collections::HashSet;
use std::time::Duration;

use hatchet::builder::RunQuery;
use hatchet::model::{PageToken, Total, Window};
use hatchet::{Client, ErrorKind, RunFilter, RunId, RunStatus};

use crate::tasks::{Number, double, endless, shaky};
use crate::world::{World, rows};

rows! {
    q1_all_runs_of_a_workflow,
    q2_by_status_several_and_timed_out,
    q3_a_range_with_both_its_borders,
    q5_tags_all_of_and_any_of,
    q6_ten_thousand_runs_to_the_end_while_new_ones_arrive,
    q6_pages_continue_by_token_while_runs_are_created,
    q7_a_query_on_indexed_fields,
    q10_one_filter_for_everything,
    q10_a_namespace_is_a_limit_for_all_that_is_asked,
    b6_stable_pages_under_inserts,
    b14_bulk_reports_say_what_happened,
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
        assert_eq!(page.items.iter().find(|run| run.id == *id).unwrap().status, *status);
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
    assert_eq!((page.items.len(), page.total), (5, Total::Exactly(15)));
    assert!(page.items.is_sorted_by_key(|run| std::cmp::Reverse(run.created_at)), "newest first");
    assert_eq!(query.count().await.unwrap(), Total::Exactly(15));
    let completed = world.hatchet.runs(filter.clone().status(RunStatus::Completed));
    assert_eq!(
        until(async || completed.count().await.unwrap(), |total| *total == Total::Exactly(12)).await,
        Total::Exactly(12)
    );
    let failed_only = filter.status(RunStatus::Failed);
    let failed = world.hatchet.runs(failed_only.clone());
    let failed = until(async || failed.count().await.unwrap(), |total| *total == Total::Exactly(3)).await;
    assert_eq!(failed, Total::Exactly(3), "the server counts timed-out runs with them, so these were read");
    // A page that is not full has all of them.
    let page = world.hatchet.runs(failed_only).page(10).await.unwrap();
    assert_eq!((page.items.len(), page.total), (3, Total::Exactly(3)));
    let counts =
        until(async || query.counts_by_status().await.unwrap(), |counts| counts.get(&RunStatus::Failed) == Some(3))
            .await;
    assert_eq!((counts.get(&RunStatus::Completed), counts.get(&RunStatus::Failed)), (Some(12), Some(3)));
    assert_eq!((counts.get(&RunStatus::TimedOut), counts.total()), (None, 15), "the server has no number for those");
    worker.shutdown().await;
}

async fn q3_a_range_with_both_its_borders(world: World) {
    let task = double(world.name("double"));
    world.worker(&task).await.shutdown().await;
    let mut runs = Vec::new();
    for n in 0..4 {
        runs.push(world.hatchet.run(&task, &Number { n }).start().await.unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let all = RunFilter::new(world.window()).workflow(task.name());
    world.eventually(async || ids(&world.hatchet, all.clone()).await.len() == 4).await;
    let stamps = world.hatchet.runs(all).page(10).await.unwrap().items;
    let at = |index: usize| stamps.iter().find(|row| row.id == runs[index].id()).unwrap().created_at;
    let found = async |window: Window| {
        let found: HashSet<_> =
            ids(&world.hatchet, RunFilter::new(window).workflow(task.name())).await.into_iter().collect();
        runs.iter().map(|run| found.contains(&run.id())).collect::<Vec<_>>()
    };
    let micro = chrono::TimeDelta::microseconds(1);
    assert_eq!(found(Window::between(at(1), at(2))).await, [false, true, true, false], "both borders belong to it");
    assert_eq!(found(Window::between(at(1) + micro, at(2) - micro)).await, [false; 4]);
    assert_eq!(found(Window::since(at(2))).await, [false, false, true, true]);
    assert_eq!(found(Window::last(Duration::from_secs(7 * 24 * 3600))).await, [true; 4]);
    assert_eq!(found(Window::all()).await, [true; 4]);
}

async fn q5_tags_all_of_and_any_of(world: World) {
    let task = double(world.name("double"));
    world.worker(&task).await.shutdown().await;
    let mut runs = Vec::new();
    for (tenant, tier) in [("acme", "gold"), ("acme", "basic"), ("zeta", "gold"), ("zeta", "basic")] {
        let run = world.hatchet.run(&task, &Number { n: 1 }).metadata("tenant", tenant).metadata("tier", tier);
        runs.push(run.start().await.unwrap().id());
    }
    let all = RunFilter::new(world.window()).workflow(task.name());
    world.eventually(async || ids(&world.hatchet, all.clone()).await.len() == 4).await;
    let found = async |filter: RunFilter| {
        let found: HashSet<_> = ids(&world.hatchet, filter).await.into_iter().collect();
        runs.iter().map(|run| found.contains(run)).collect::<Vec<_>>()
    };
    assert_eq!(found(all.clone().metadata("tenant", "acme")).await, [true, true, false, false]);
    assert_eq!(
        found(all.clone().metadata("tenant", "acme").metadata("tier", "gold")).await,
        [true, false, false, false]
    );
    let any = all.clone().any_metadata("tenant", "acme").any_metadata("tier", "gold");
    assert_eq!(found(any.clone()).await, [true, true, true, false]);
    assert_eq!(world.hatchet.runs(any).count().await.unwrap(), Total::Exactly(3));
    assert_eq!(found(all.metadata("tenant", "nobody")).await, [false; 4]);
}

async fn q6_ten_thousand_runs_to_the_end_while_new_ones_arrive(world: World) {
    let task = double(world.name("double"));
    world.worker(&task).await.shutdown().await;
    let count = if world.engine.is_some() { 10_000 } else { 2_000 };
    let runs = world.hatchet.run_many(&task, vec![Number { n: 1 }; count]).start().await.unwrap();
    let runs: HashSet<_> = runs.into_iter().map(|run| run.unwrap().id()).collect();
    let filter = RunFilter::new(world.window()).workflow(task.name());
    let query = world.hatchet.runs(filter);
    world.eventually(async || query.count().await.unwrap() == Total::Exactly(count as u64)).await;
    let (mut items, mut seen, mut twice) = (query.items(), HashSet::new(), 0);
    while let Some(run) = items.next().await {
        if !seen.insert(run.unwrap().id) {
            twice += 1;
        }
        if seen.len() % 500 == 0 {
            world.hatchet.run(&task, &Number { n: 2 }).start().await.unwrap();
        }
    }
    assert_eq!(twice, 0, "none twice");
    assert!(runs.is_subset(&seen), "none missed");
}

async fn b6_stable_pages_under_inserts(world: World) {
    let task = double(world.name("double"));
    world.worker(&task).await.shutdown().await;
    // A bulk shares one stamp, so the place within it must be kept while more of them come before it.
    let bulk = async |count| {
        let runs = world.hatchet.run_many(&task, vec![Number { n: 1 }; count]).start().await.unwrap();
        runs.into_iter().map(|run| run.unwrap().id()).collect::<HashSet<_>>()
    };
    let first = bulk(600).await;
    let query = world.hatchet.runs(RunFilter::new(world.window()).workflow(task.name()));
    world.eventually(async || query.count().await.unwrap() == Total::Exactly(600)).await;
    let (mut items, mut seen) = (query.items(), Vec::new());
    while let Some(run) = items.next().await {
        seen.push(run.unwrap().id);
        if seen.len() % 150 == 0 {
            bulk(100).await;
        }
    }
    assert_eq!(
        (seen.len(), seen.into_iter().collect::<HashSet<_>>()),
        (600, first),
        "those of its beginning, each once"
    );
}

async fn q6_pages_continue_by_token_while_runs_are_created(world: World) {
    let task = double(world.name("double"));
    world.worker(&task).await.shutdown().await;
    let start = async |count: i64| {
        let inputs = (0..count).map(|n| Number { n });
        let runs = world.hatchet.run_many(&task, inputs).metadata("part", "a").start().await.unwrap();
        runs.into_iter().map(|run| run.unwrap().id()).collect::<HashSet<_>>()
    };
    // Most of them have the same creation time.
    let mut first = start(70).await;
    first.insert(world.hatchet.run(&task, &Number { n: 70 }).start().await.unwrap().id());
    let filter = RunFilter::new(world.window()).workflow(task.name());
    let query = world.hatchet.runs(filter.clone());
    world.eventually(async || query.count().await.unwrap() == Total::Exactly(71)).await;
    let (mut seen, mut token) = (Vec::new(), None::<PageToken>);
    loop {
        let query = token.into_iter().fold(query.clone(), RunQuery::after);
        let page = query.page(20).await.unwrap();
        assert!(page.items.len() == 20 || page.next.is_none());
        seen.extend(page.items.iter().map(|run| run.id));
        let Some(next) = page.next else { break };
        // As a string, in another process.
        token = Some(next.to_string().parse().unwrap());
        start(3).await;
    }
    assert_eq!((seen.len(), seen.into_iter().collect::<HashSet<_>>()), (71, first), "each once, and no later run");
    // A token belongs to its filter.
    let token = query.page(1).await.unwrap().next.unwrap();
    let other = world.hatchet.runs(filter.metadata("part", "a")).after(token).page(1).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::InvalidInput);
    assert!(other.to_string().contains("expected a token of a page with the same filter"), "{other}");
}

async fn q7_a_query_on_indexed_fields(world: World) {
    let task = double(world.name("double"));
    world.worker(&task).await.shutdown().await;
    let runs =
        world.hatchet.run_many(&task, vec![Number { n: 1 }; 1000]).metadata("tier", "gold").start().await.unwrap();
    assert!(runs.iter().all(Result::is_ok));
    let filter =
        RunFilter::new(world.window()).workflow(task.name()).status(RunStatus::Queued).metadata("tier", "gold");
    let query = world.hatchet.runs(filter);
    world.eventually(async || query.count().await.unwrap() == Total::Exactly(1000)).await;
    // How long it takes is measured in the bench of runs; here, that one request is enough for a page.
    let page = query.page(50).await.unwrap();
    assert_eq!((page.items.len(), page.total), (50, Total::Exactly(1000)));
}

async fn q10_one_filter_for_everything(world: World) {
    let task = double(world.name("double"));
    let worker = world.worker(&task).await;
    for n in 0..5 {
        let run = world.hatchet.run(&task, &Number { n }).metadata("part", ["a", "b"][usize::from(n > 2)]);
        run.start().await.unwrap().result().await.unwrap();
    }
    let filter = RunFilter::new(world.window()).workflow(task.name()).metadata("part", "b");
    let query = world.hatchet.runs(filter.clone());
    world.eventually(async || query.counts_by_status().await.unwrap().get(&RunStatus::Completed) == Some(2)).await;
    assert_eq!(ids(&world.hatchet, filter.clone()).await.len(), 2);
    assert_eq!(query.count().await.unwrap(), Total::Exactly(2));
    assert_eq!(query.cancel().send().await.unwrap().total(), 0, "both have ended");
    let report = query.replay().send().await.unwrap();
    assert_eq!((report.applied, report.total()), (2, 2));
    let again = async || {
        let page = query.page(10).await.unwrap().items;
        page.iter().all(|run| run.attempt == 2 && run.status == RunStatus::Completed)
    };
    world.eventually(again).await;
    let other = world.hatchet.runs(RunFilter::new(world.window()).workflow(task.name()).metadata("part", "a"));
    assert!(other.page(10).await.unwrap().items.iter().all(|run| run.attempt == 1), "no other was touched");
    worker.shutdown().await;
}

async fn b14_bulk_reports_say_what_happened(world: World) {
    let (fine, slow) = (double(world.name("double")), endless(world.name("endless")));
    let worker = world.hatchet.worker(world.name("worker")).register(&fine).register(&slow);
    let worker = worker.build().unwrap().start().await.unwrap();
    let done = world.hatchet.run(&fine, &Number { n: 1 }).start().await.unwrap();
    done.result().await.unwrap();
    let going = world.hatchet.run(&slow, &Number { n: 1 }).start().await.unwrap();
    let both = RunFilter::new(world.window()).workflow(fine.name()).workflow(slow.name());
    let completed = both.clone().status(RunStatus::Completed).status(RunStatus::Running).status(RunStatus::Queued);
    world.eventually(async || ids(&world.hatchet, completed.clone()).await.len() == 2).await;
    // The engine would answer that both are cancelled.
    let report = world.hatchet.runs(completed).cancel().reason("all").send().await.unwrap();
    assert_eq!(report.to_string(), "1 cancelled, 1 skipped");
    assert_eq!(report.exceptions[0].run_id, done.id());
    assert_eq!(going.details().await.unwrap().cancellation().unwrap().reason.as_deref(), Some("all"));
    assert_eq!(done.details().await.unwrap().conflicts, []);
    worker.shutdown().await;
}

async fn q10_a_namespace_is_a_limit_for_all_that_is_asked(world: World) {
    let spaced = world.client_with(|config| config.namespace(world.name("space")));
    // No workflow is in it yet.
    let page = spaced.runs(world.window()).page(10).await.unwrap();
    assert_eq!((page.items.len(), page.total), (0, Total::Exactly(0)));
    assert!(ids(&spaced, world.window().into()).await.is_empty());
    let task = endless(world.name("endless"));
    world.worker(&task).await.shutdown().await;
    spaced.worker(world.name("worker")).register(&task).build().unwrap().start().await.unwrap().shutdown().await;
    let inside = spaced.run(&task, &Number { n: 1 }).start().await.unwrap();
    let outside = world.hatchet.run(&task, &Number { n: 2 }).start().await.unwrap();
    world.eventually(async || ids(&world.hatchet, world.window().into()).await.contains(&outside.id())).await;
    world.eventually(async || ids(&spaced, world.window().into()).await == [inside.id()]).await;
    let page = async |size| spaced.runs(world.window()).page(size).await.unwrap();
    let whole = page(2).await;
    let found: Vec<_> = whole.items.iter().map(|run| (run.id, run.workflow_name.as_str())).collect();
    assert_eq!((found, whole.total), (vec![(inside.id(), task.name())], Total::Exactly(1)));
    let full = page(1).await;
    // The server counts all namespaces' runs: few are read to be counted.
    let is_honest = |total| matches!(total, Total::Exactly(1) | Total::AtMost(1001..) | Total::Unknown);
    assert!(full.items.len() == 1 && is_honest(full.total), "{}", full.total);
    let count = spaced.runs(world.window()).count().await.unwrap();
    assert!(is_honest(count), "{count}");
    assert_eq!(spaced.runs(world.window()).counts_by_status().await.unwrap_err().kind(), ErrorKind::InvalidInput);
    let by_name = spaced.runs(RunFilter::new(world.window()).workflow(task.name()));
    assert_eq!(
        (by_name.count().await.unwrap(), by_name.counts_by_status().await.unwrap().total()),
        (Total::Exactly(1), 1)
    );
    let report = spaced.runs(world.window()).cancel().send().await.unwrap();
    assert_eq!((report.applied, report.total()), (1, 1), "{report}");
    assert_eq!(inside.details().await.unwrap().status, RunStatus::Cancelled);
    assert_eq!(outside.details().await.unwrap().status, RunStatus::Queued);
    outside.cancel().send().await.unwrap();
}
