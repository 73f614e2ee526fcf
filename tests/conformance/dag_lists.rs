//! Q11: lists of DAG runs, which have two creation times on the server.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use hatchet::model::Total;
use hatchet::{Client, Context, ErrorKind, RunFilter, RunId, RunStatus, Task, TaskError, Workflow};

use crate::tasks::Number;
use crate::world::{World, rows};

rows! {
    q11_dag_runs_are_listed_counted_cancelled_and_replayed_each_once,
    q11_a_walk_that_makes_no_progress_ends_in_an_error,
    m3_a_workflow_of_one_task_ends_with_an_object_by_name,
}

/// More than two pages of the stream, started one by one and in bulk.
const ONE_BY_ONE: i64 = 50;
const RUNS: i64 = 450;

async fn ids(hatchet: &Client, filter: RunFilter) -> Vec<RunId> {
    let (mut items, mut ids) = (hatchet.runs(filter).items(), Vec::new());
    while let Some(run) = items.next().await {
        ids.push(run.unwrap().id);
    }
    ids
}

async fn q11_dag_runs_are_listed_counted_cancelled_and_replayed_each_once(world: World) {
    let mended = Arc::new(AtomicBool::new(false));
    let first = Task::new("first", async |input: Number, _: Context| Ok(input.n));
    let second = Task::new("second", {
        let mended = Arc::clone(&mended);
        move |input: Number, _: Context| {
            let mended = mended.load(SeqCst);
            async move { if mended { Ok(input.n) } else { Err(TaskError::new("not mended yet")) } }
        }
    });
    let flow = Workflow::new(world.name("flow")).task(&first).task_after(&second, ["first"]);
    let worker = world.hatchet.worker(world.name("worker")).slots(100).register(&flow).build().unwrap();
    let worker = worker.start().await.unwrap();
    let mut started = BTreeSet::new();
    for n in 0..ONE_BY_ONE {
        started.insert(world.hatchet.run(&flow, &Number { n }).start().await.unwrap().id());
    }
    let many = world.hatchet.run_many(&flow, (ONE_BY_ONE..RUNS).map(|n| Number { n })).start().await.unwrap();
    started.extend(many.into_iter().map(|run| run.unwrap().id()));
    assert_eq!(started.len(), usize::try_from(RUNS).unwrap());
    let all = RunFilter::new(world.window()).workflow(flow.name());
    let failed = all.clone().status(RunStatus::Failed);
    world
        .eventually(async || {
            let counts = world.hatchet.runs(all.clone()).counts_by_status().await.unwrap();
            counts.get(&RunStatus::Failed) == Some(RUNS.unsigned_abs())
        })
        .await;

    // Listed: each once, newest first.
    for filter in [all.clone(), failed.clone()] {
        let listed = ids(&world.hatchet, filter.clone()).await;
        assert_eq!(listed.len(), started.len(), "each once");
        assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), started);
        assert_eq!(world.hatchet.runs(filter).count().await.unwrap(), Total::Exactly(RUNS.unsigned_abs()));
    }
    let page = world.hatchet.runs(all.clone()).page(1000).await.unwrap();
    assert!(page.items.is_sorted_by_key(|run| std::cmp::Reverse(run.created_at)), "newest first");

    // Replayed by filter: each once.
    mended.store(true, SeqCst);
    let mut reports = world.hatchet.runs(failed).replay().reports().unwrap();
    let mut replayed: HashMap<RunId, u32> = HashMap::new();
    while let Some(report) = reports.next().await {
        let report = report.unwrap();
        assert!(report.is_applied(), "{report}");
        *replayed.entry(report.run_id).or_default() += 1;
    }
    assert!(replayed.values().all(|times| *times == 1), "nothing twice");
    assert_eq!(replayed.into_keys().collect::<BTreeSet<_>>(), started);
    let completed = all.clone().status(RunStatus::Completed);
    world
        .eventually(async || {
            world.hatchet.runs(completed.clone()).count().await.unwrap() == Total::Exactly(RUNS.unsigned_abs())
        })
        .await;
    let report = worker.shutdown().await;
    assert_eq!(report.total(), 4 * RUNS.unsigned_abs(), "both tasks of each run, twice: {report}");

    // Cancelled by filter: each once. Nobody works any more.
    let many = world.hatchet.run_many(&flow, (0..RUNS).map(|n| Number { n })).start().await.unwrap();
    let queued: HashSet<_> = many.into_iter().map(|run| run.unwrap().id()).collect();
    let waiting = all.status(RunStatus::Queued);
    world.eventually(async || ids(&world.hatchet, waiting.clone()).await.len() == queued.len()).await;
    let report = world.hatchet.runs(waiting).cancel().send().await.unwrap();
    assert_eq!((report.applied, report.total()), (RUNS.unsigned_abs(), RUNS.unsigned_abs()), "{report}");
}

/// No server is known to answer so. It is played by a listener of the test's own, which gives the same page again and again.
async fn q11_a_walk_that_makes_no_progress_ends_in_an_error(world: World) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    if world.engine.is_none() {
        // A real engine cannot be made to answer so.
        return;
    }
    tokio::time::resume();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    // More than it was asked for, so that it never looks like the end.
    let rows: Vec<_> = (0..400)
        .map(|n| {
            let id = format!("00000000-0000-4000-8001-{n:012}");
            serde_json::json!({
                "metadata": {"id": id, "createdAt": "2026-11-24T10:00:00Z"}, "status": "FAILED", "errorMessage": "broke",
                "workflowRunExternalId": id, "workflowId": "00000000-0000-4000-8004-000000000001",
                "createdAt": "2026-11-24T10:00:01Z",
            })
        })
        .collect();
    let body = serde_json::json!({"rows": rows, "pagination": {"num_pages": 5}}).to_string();
    let answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let serving = tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 16_384];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let token = world.engine.as_ref().map(|_| world.hatchet.config().token().expose().to_owned()).unwrap();
    let config = hatchet::config::ConfigBuilder::default().token(token).host_port("127.0.0.1:9");
    let config = config.tls_strategy(hatchet::config::TlsStrategy::None).server_url(server).build().unwrap();
    let hatchet = Client::new(config).unwrap();
    let (mut items, mut seen) = (hatchet.runs(world.window()).items(), HashSet::new());
    let error = loop {
        match items.next().await.expect("it ends in an error") {
            Ok(run) => assert!(seen.insert(run.id), "nothing comes twice"),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), seen.len()), (ErrorKind::Server, 400), "{error}");
    assert!(error.to_string().ends_with("consecutive pages of the server's list had no new rows"), "{error}");
    serving.abort();
}

async fn m3_a_workflow_of_one_task_ends_with_an_object_by_name(world: World) {
    let only = Task::new("only", async |input: Number, _: Context| Ok(input.n * 2));
    let tidy = Task::new("tidy", async |_: Number, _: Context| Ok(()));
    let flow = Workflow::new(world.name("flow")).task(&only);
    let with_failure = Workflow::new(world.name("tidied")).task(&only).on_failure(&tidy);
    let worker = world.hatchet.worker(world.name("worker")).register(&flow).register(&with_failure);
    let worker = worker.build().unwrap().start().await.unwrap();
    for flow in [&flow, &with_failure] {
        let run = world.hatchet.run(flow, &Number { n: 4 }).start().await.unwrap();
        assert_eq!(run.result().await.unwrap()["only"], serde_json::json!(8), "{}", flow.name());
        // The same by its id alone, and in its details, where the task has what it returned.
        let again = world.hatchet.run_handle(run.id());
        assert_eq!(again.result().await.unwrap()["only"], serde_json::json!(8));
        let details = run.details().await.unwrap();
        assert_eq!(details.output().unwrap().parse::<serde_json::Value>().unwrap()["only"], serde_json::json!(8));
        assert_eq!(details.task("only").unwrap().output().unwrap().parse::<i64>().unwrap(), 8);
    }
    worker.shutdown().await;
}
