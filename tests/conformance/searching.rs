//! Q: searching.

use std::collections::HashSet;
use std::time::Duration;

use hatchet::builder::RunQuery;
use hatchet::embedded::{Fault, Faults};
use hatchet::model::{PageToken, Total, Window};
use hatchet::{ErrorKind, RunFilter, RunStatus};

use crate::cost::cost;
use crate::setup::{Setup, ids, rows};
use crate::tasks::{Number, double, endless, shaky};

rows! {
    q1_runs_are_found_by_workflow,
    q2_runs_are_found_by_status,
    q3_windows_include_both_ends,
    q5_runs_are_found_by_all_or_any_tags,
    q6_ten_thousand_runs_are_listed_once_during_inserts,
    q6_pages_continue_by_token_while_runs_are_created,
    q7_queries_use_indexed_fields,
    q10_one_filter_serves_all_operations,
    q10_queries_are_limited_to_the_namespace,
    b6_pages_are_stable_under_inserts,
    b14_bulk_reports_contain_each_effect,
    q9_pages_have_a_total_and_counts,
}

async fn q1_runs_are_found_by_workflow(setup: Setup) {
    let (one, other) = (double(setup.name("one")), double(setup.name("other")));
    let worker = setup
        .hatchet
        .worker(setup.name("worker"))
        .register(&one)
        .register(&other)
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    // More than one page of runs with the same timestamp.
    let runs = setup.hatchet.run_many(&one, (0..450).map(|n| Number { n })).start().await.unwrap();
    let runs: HashSet<_> = runs.into_iter().map(|run| run.unwrap().id()).collect();
    let other_run = setup.hatchet.run(&other, &Number { n: 1 }).start().await.unwrap();
    other_run.result().await.unwrap();
    let filter = RunFilter::new(setup.window()).workflow(one.name());
    let found = setup.fetch_until(async || ids(&setup.hatchet, filter.clone()).await, |found| found.len() == 450).await;
    assert_eq!(found.len(), 450, "each run is listed once");
    assert_eq!(found.into_iter().collect::<HashSet<_>>(), runs);
    let both = filter.workflow(other.name());
    assert!(ids(&setup.hatchet, both).await.contains(&other_run.id()), "several workflows match any of them");
    worker.shutdown().await;
}

async fn q2_runs_are_found_by_status(setup: Setup) {
    use RunStatus::{Completed, Failed, TimedOut};
    let second = Duration::from_secs(1);
    let (short, broken) = (double(setup.name("double")), shaky(setup.name("shaky")));
    let (slow, idle) =
        (endless(setup.name("endless")).timeout(second), double(setup.name("idle")).schedule_timeout(second));
    let worker = setup.hatchet.worker(setup.name("worker")).register(&short).register(&broken).register(&slow);
    let worker = worker.build().unwrap().start().await.unwrap();
    setup.worker(&idle).await.shutdown().await;
    let start = async |task, n| {
        let run = setup.hatchet.run(task, &Number { n }).start().await.unwrap();
        let status = run.outcome().await.unwrap().status();
        (run.id(), status)
    };
    let runs = [start(&short, 1).await, start(&broken, 9).await, start(&slow, 1).await, start(&idle, 1).await];
    assert_eq!(runs.clone().map(|(_, status)| status), [Completed, Failed, TimedOut, TimedOut]);
    let all = RunFilter::new(setup.window())
        .workflow(short.name())
        .workflow(broken.name())
        .workflow(slow.name())
        .workflow(idle.name());
    for statuses in
        [vec![Completed], vec![Failed], vec![TimedOut], vec![Completed, TimedOut], vec![Failed, TimedOut], vec![]]
    {
        let filter = statuses.iter().fold(all.clone(), |filter, status| filter.status(status.clone()));
        let expected: HashSet<_> = runs
            .iter()
            .filter(|(_, status)| statuses.is_empty() || statuses.contains(status))
            .map(|(id, _)| *id)
            .collect();
        let found = setup
            .fetch_until(async || ids(&setup.hatchet, filter.clone()).await, |found| found.len() == expected.len())
            .await;
        assert_eq!(found.into_iter().collect::<HashSet<_>>(), expected, "{statuses:?}");
    }
    // Each row has its own status, whatever the filter.
    let page = setup.hatchet.runs(all).page(10).await.unwrap();
    for (id, status) in &runs {
        assert_eq!(page.items.iter().find(|run| run.id == *id).unwrap().status, *status);
    }
    worker.shutdown().await;
}

async fn q9_pages_have_a_total_and_counts(setup: Setup) {
    let (short, broken) = (double(setup.name("double")), shaky(setup.name("shaky")));
    let worker = setup
        .hatchet
        .worker(setup.name("worker"))
        .register(&short)
        .register(&broken)
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    for run in setup.hatchet.run_many(&short, (0..12).map(|n| Number { n })).start().await.unwrap() {
        run.unwrap().result().await.unwrap();
    }
    for _ in 0..3 {
        setup.hatchet.run(&broken, &Number { n: 9 }).start().await.unwrap().outcome().await.unwrap();
    }
    let filter = RunFilter::new(setup.window()).workflow(short.name()).workflow(broken.name());
    let query = setup.hatchet.runs(filter.clone());
    let page = setup.fetch_until(async || query.page(5).await.unwrap(), |page| page.total == Total::Exactly(15)).await;
    assert_eq!((page.items.len(), page.total), (5, Total::Exactly(15)));
    assert!(page.items.is_sorted_by_key(|run| std::cmp::Reverse(run.created_at)), "newest first");
    assert_eq!(query.count().await.unwrap(), Total::Exactly(15));
    let completed = setup.hatchet.runs(filter.clone().status(RunStatus::Completed));
    assert_eq!(
        setup.fetch_until(async || completed.count().await.unwrap(), |total| *total == Total::Exactly(12)).await,
        Total::Exactly(12)
    );
    let failed_only = filter.status(RunStatus::Failed);
    let failed = setup.hatchet.runs(failed_only.clone());
    let failed = setup.fetch_until(async || failed.count().await.unwrap(), |total| *total == Total::Exactly(3)).await;
    assert_eq!(failed, Total::Exactly(3), "the server counts timed-out runs as failed, so the rows are read");
    // A page that is not full contains all rows.
    let page = setup.hatchet.runs(failed_only).page(10).await.unwrap();
    assert_eq!((page.items.len(), page.total), (3, Total::Exactly(3)));
    let counts = setup
        .fetch_until(
            async || query.counts_by_status().await.unwrap(),
            |counts| counts.get(&RunStatus::Failed) == Some(3),
        )
        .await;
    assert_eq!((counts.get(&RunStatus::Completed), counts.get(&RunStatus::Failed)), (Some(12), Some(3)));
    assert_eq!(
        (counts.get(&RunStatus::TimedOut), counts.total()),
        (None, 15),
        "the server does not count timed-out runs"
    );
    worker.shutdown().await;
}

async fn q3_windows_include_both_ends(setup: Setup) {
    let task = double(setup.name("double"));
    setup.worker(&task).await.shutdown().await;
    let mut runs = Vec::new();
    for n in 0..4 {
        runs.push(setup.hatchet.run(&task, &Number { n }).start().await.unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let all = RunFilter::new(setup.window()).workflow(task.name());
    setup.eventually(async || ids(&setup.hatchet, all.clone()).await.len() == 4).await;
    let rows = setup.hatchet.runs(all).page(10).await.unwrap().items;
    let at = |index: usize| rows.iter().find(|row| row.id == runs[index].id()).unwrap().created_at;
    let found = async |window: Window| {
        let found: HashSet<_> =
            ids(&setup.hatchet, RunFilter::new(window).workflow(task.name())).await.into_iter().collect();
        runs.iter().map(|run| found.contains(&run.id())).collect::<Vec<_>>()
    };
    let micro = chrono::TimeDelta::microseconds(1);
    assert_eq!(
        found(Window::since(at(1)).until(at(2))).await,
        [false, true, true, false],
        "a window includes both ends"
    );
    assert_eq!(found(Window::since(at(1) + micro).until(at(2) - micro)).await, [false; 4]);
    assert_eq!(found(Window::since(at(2))).await, [false, false, true, true]);
    assert_eq!(found(Window::last(Duration::from_secs(7 * 24 * 3600))).await, [true; 4]);
    assert_eq!(found(Window::all()).await, [true; 4]);
}

async fn q5_runs_are_found_by_all_or_any_tags(setup: Setup) {
    let task = double(setup.name("double"));
    setup.worker(&task).await.shutdown().await;
    let mut runs = Vec::new();
    for (tenant, tier) in [("acme", "gold"), ("acme", "basic"), ("zeta", "gold"), ("zeta", "basic")] {
        let run = setup.hatchet.run(&task, &Number { n: 1 }).metadata("tenant", tenant).metadata("tier", tier);
        runs.push(run.start().await.unwrap().id());
    }
    let all = RunFilter::new(setup.window()).workflow(task.name());
    setup.eventually(async || ids(&setup.hatchet, all.clone()).await.len() == 4).await;
    let found = async |filter: RunFilter| {
        let found: HashSet<_> = ids(&setup.hatchet, filter).await.into_iter().collect();
        runs.iter().map(|run| found.contains(run)).collect::<Vec<_>>()
    };
    assert_eq!(found(all.clone().metadata("tenant", "acme")).await, [true, true, false, false]);
    assert_eq!(
        found(all.clone().metadata("tenant", "acme").metadata("tier", "gold")).await,
        [true, false, false, false]
    );
    let any = all.clone().any_metadata("tenant", "acme").any_metadata("tier", "gold");
    assert_eq!(found(any.clone()).await, [true, true, true, false]);
    assert_eq!(setup.hatchet.runs(any).count().await.unwrap(), Total::Exactly(3));
    assert_eq!(found(all.metadata("tenant", "nobody")).await, [false; 4]);
}

async fn q6_ten_thousand_runs_are_listed_once_during_inserts(setup: Setup) {
    let task = double(setup.name("double"));
    setup.worker(&task).await.shutdown().await;
    let count = if setup.engine.is_some() { 10_000 } else { 2_000 };
    let runs = setup.hatchet.run_many(&task, vec![Number { n: 1 }; count]).start().await.unwrap();
    let runs: HashSet<_> = runs.into_iter().map(|run| run.unwrap().id()).collect();
    let filter = RunFilter::new(setup.window()).workflow(task.name());
    let query = setup.hatchet.runs(filter);
    setup.eventually(async || query.count().await.unwrap() == Total::Exactly(count as u64)).await;
    let (mut items, mut seen, mut duplicates) = (query.items(), HashSet::new(), 0);
    while let Some(run) = items.next().await {
        if !seen.insert(run.unwrap().id) {
            duplicates += 1;
        }
        if seen.len() % 500 == 0 {
            setup.hatchet.run(&task, &Number { n: 2 }).start().await.unwrap();
        }
    }
    assert_eq!(duplicates, 0, "each run is listed once");
    assert!(runs.is_subset(&seen), "no run is missing");
}

async fn b6_pages_are_stable_under_inserts(setup: Setup) {
    let task = double(setup.name("double"));
    setup.worker(&task).await.shutdown().await;
    // The runs of a bulk have the same timestamp, so the position within it must be kept during inserts.
    let bulk = async |count| {
        let runs = setup.hatchet.run_many(&task, vec![Number { n: 1 }; count]).start().await.unwrap();
        runs.into_iter().map(|run| run.unwrap().id()).collect::<HashSet<_>>()
    };
    let first = bulk(600).await;
    let query = setup.hatchet.runs(RunFilter::new(setup.window()).workflow(task.name()));
    setup.eventually(async || query.count().await.unwrap() == Total::Exactly(600)).await;
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
        "each run that existed at the start is listed once"
    );
}

async fn q6_pages_continue_by_token_while_runs_are_created(setup: Setup) {
    let task = double(setup.name("double"));
    setup.worker(&task).await.shutdown().await;
    let start = async |count: i64| {
        let inputs = (0..count).map(|n| Number { n });
        let runs = setup.hatchet.run_many(&task, inputs).metadata("part", "a").start().await.unwrap();
        runs.into_iter().map(|run| run.unwrap().id()).collect::<HashSet<_>>()
    };
    // Most of the runs have the same creation time.
    let mut first = start(70).await;
    first.insert(setup.hatchet.run(&task, &Number { n: 70 }).start().await.unwrap().id());
    let filter = RunFilter::new(setup.window()).workflow(task.name());
    let query = setup.hatchet.runs(filter.clone());
    setup.eventually(async || query.count().await.unwrap() == Total::Exactly(71)).await;
    let (mut listed, mut token) = (Vec::new(), None::<PageToken>);
    loop {
        let query = token.into_iter().fold(query.clone(), RunQuery::after);
        let page = query.page(20).await.unwrap();
        assert!(page.items.len() == 20 || page.next.is_none());
        listed.extend(page.items.iter().map(|run| run.id));
        let Some(next) = page.next else { break };
        // The string form can be used by another process.
        token = Some(next.to_string().parse().unwrap());
        start(3).await;
    }
    assert_eq!(
        (listed.len(), listed.into_iter().collect::<HashSet<_>>()),
        (71, first),
        "each run is listed once, without later ones"
    );
    // A token is valid only with the same filter.
    let token = query.page(1).await.unwrap().next.unwrap();
    let other = setup.hatchet.runs(filter.metadata("part", "a")).after(token).page(1).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::InvalidInput);
    assert!(other.to_string().contains("expected a token of a page with the same filter"), "{other}");
}

async fn q7_queries_use_indexed_fields(setup: Setup) {
    let task = double(setup.name("double"));
    setup.worker(&task).await.shutdown().await;
    let count = if setup.engine.is_some() { 10_000 } else { 1000 };
    let runs = setup.hatchet.run_many(&task, vec![Number { n: 1 }; count]).metadata("tier", "gold");
    assert!(runs.start().await.unwrap().iter().all(Result::is_ok));
    let filter =
        RunFilter::new(setup.window()).workflow(task.name()).status(RunStatus::Queued).metadata("tier", "gold");
    let query = setup.hatchet.runs(filter);
    setup.eventually(async || query.count().await.unwrap() == Total::Exactly(count as u64)).await;
    // One request is enough for the rows of a page, and one for their count. Only the embedded engine can count requests, and only its
    // processor time can be measured.
    let (list, planned) = ("GET /api/v1/stable/tenants/{tenant}/workflow-runs", 100);
    if let Some(engine) = &setup.engine {
        for call in Faults::calls().filter(|call| *call == list || call.contains("/{run}") || *call == "GetRunDetails")
        {
            engine.faults().inject_times(call, Fault::Delay(Duration::ZERO), planned).unwrap();
        }
    }
    let before = setup.engine.as_ref().map_or(0, |engine| engine.faults().planned());
    let page = query.page(50).await.unwrap();
    assert_eq!((page.items.len(), page.total), (50, Total::Exactly(count as u64)));
    if let Some(engine) = &setup.engine {
        assert_eq!(before - engine.faults().planned(), 2, "requests");
        engine.faults().clear();
        // The least of ten, because other programs slow a processor down.
        let mut least = Duration::MAX;
        for _ in 0..10 {
            let page = async { assert_eq!(query.page(50).await.unwrap().items.len(), 50) };
            least = least.min(cost(page).await);
        }
        assert!(least < Duration::from_millis(100), "{least:?}");
    }
}

async fn q10_one_filter_serves_all_operations(setup: Setup) {
    let task = double(setup.name("double"));
    let worker = setup.worker(&task).await;
    for n in 0..5 {
        let run = setup.hatchet.run(&task, &Number { n }).metadata("part", ["a", "b"][usize::from(n > 2)]);
        run.start().await.unwrap().result().await.unwrap();
    }
    let filter = RunFilter::new(setup.window()).workflow(task.name()).metadata("part", "b");
    let query = setup.hatchet.runs(filter.clone());
    setup.eventually(async || query.counts_by_status().await.unwrap().get(&RunStatus::Completed) == Some(2)).await;
    assert_eq!(ids(&setup.hatchet, filter.clone()).await.len(), 2);
    assert_eq!(query.count().await.unwrap(), Total::Exactly(2));
    assert_eq!(query.cancel().send().await.unwrap().total(), 0, "both runs have ended");
    let report = query.replay().send().await.unwrap();
    assert_eq!((report.applied, report.total()), (2, 2));
    let all_replayed = async || {
        let page = query.page(10).await.unwrap().items;
        page.iter().all(|run| run.attempt == 2 && run.status == RunStatus::Completed)
    };
    setup.eventually(all_replayed).await;
    let other = setup.hatchet.runs(RunFilter::new(setup.window()).workflow(task.name()).metadata("part", "a"));
    assert!(other.page(10).await.unwrap().items.iter().all(|run| run.attempt == 1), "other runs are unchanged");
    worker.shutdown().await;
}

async fn b14_bulk_reports_contain_each_effect(setup: Setup) {
    let (short, slow) = (double(setup.name("double")), endless(setup.name("endless")));
    let worker = setup.hatchet.worker(setup.name("worker")).register(&short).register(&slow);
    let worker = worker.build().unwrap().start().await.unwrap();
    let done = setup.hatchet.run(&short, &Number { n: 1 }).start().await.unwrap();
    done.result().await.unwrap();
    let running = setup.hatchet.run(&slow, &Number { n: 1 }).start().await.unwrap();
    let both = RunFilter::new(setup.window()).workflow(short.name()).workflow(slow.name());
    let completed = both.clone().status(RunStatus::Completed).status(RunStatus::Running).status(RunStatus::Queued);
    setup.eventually(async || ids(&setup.hatchet, completed.clone()).await.len() == 2).await;
    // The response of the engine contains both ids.
    let report = setup.hatchet.runs(completed).cancel().reason("all").send().await.unwrap();
    assert_eq!(report.to_string(), "1 cancelled, 1 skipped");
    assert_eq!(report.exceptions[0].run_id, done.id());
    assert_eq!(running.details().await.unwrap().cancellation().unwrap().reason.as_deref(), Some("all"));
    assert_eq!(done.details().await.unwrap().conflicts, []);
    worker.shutdown().await;
}

async fn q10_queries_are_limited_to_the_namespace(setup: Setup) {
    let namespaced = setup.client_with(|config| config.namespace(setup.name("space")));
    // The namespace has no workflow yet.
    let page = namespaced.runs(setup.window()).page(10).await.unwrap();
    assert_eq!((page.items.len(), page.total), (0, Total::Exactly(0)));
    assert!(ids(&namespaced, setup.window().into()).await.is_empty());
    let task = endless(setup.name("endless"));
    setup.worker(&task).await.shutdown().await;
    namespaced.worker(setup.name("worker")).register(&task).build().unwrap().start().await.unwrap().shutdown().await;
    let inside = namespaced.run(&task, &Number { n: 1 }).start().await.unwrap();
    let outside = setup.hatchet.run(&task, &Number { n: 2 }).start().await.unwrap();
    setup.eventually(async || ids(&setup.hatchet, setup.window().into()).await.contains(&outside.id())).await;
    setup.eventually(async || ids(&namespaced, setup.window().into()).await == [inside.id()]).await;
    let page = async |size| namespaced.runs(setup.window()).page(size).await.unwrap();
    let all = page(2).await;
    let found: Vec<_> = all.items.iter().map(|run| (run.id, run.workflow_name.as_deref().unwrap())).collect();
    assert_eq!((found, all.total), (vec![(inside.id(), task.name())], Total::Exactly(1)));
    let full = page(1).await;
    // The server counts the runs of all namespaces, so the total is exact only if few rows have to be read.
    let is_correct = |total| matches!(total, Total::Exactly(1) | Total::AtMost(1001..) | Total::Unknown);
    assert!(full.items.len() == 1 && is_correct(full.total), "{}", full.total);
    let count = namespaced.runs(setup.window()).count().await.unwrap();
    assert!(is_correct(count), "{count}");
    assert_eq!(namespaced.runs(setup.window()).counts_by_status().await.unwrap_err().kind(), ErrorKind::InvalidInput);
    let by_name = namespaced.runs(RunFilter::new(setup.window()).workflow(task.name()));
    assert_eq!(
        (by_name.count().await.unwrap(), by_name.counts_by_status().await.unwrap().total()),
        (Total::Exactly(1), 1)
    );
    let report = namespaced.runs(setup.window()).cancel().send().await.unwrap();
    assert_eq!((report.applied, report.total()), (1, 1), "{report}");
    assert_eq!(inside.details().await.unwrap().status, RunStatus::Cancelled);
    assert_eq!(outside.details().await.unwrap().status, RunStatus::Queued);
    outside.cancel().send().await.unwrap();
}
