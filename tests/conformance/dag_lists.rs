//! Q11: lists of DAG runs. On the server, these have two creation times.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use hatchet::model::Total;
use hatchet::{Client, Context, ErrorKind, RunFilter, RunId, RunStatus, Task, TaskError, Workflow};

use crate::setup::{Setup, ids, rows};
use crate::tasks::Number;

rows! {
    q11_each_dag_run_is_listed_and_changed_once,
    q11_lists_without_progress_end_with_an_error,
    m3_workflows_with_one_task_have_an_output_by_task_name,
}

/// The number of runs that are started one by one.
const ONE_BY_ONE: i64 = 50;
/// The number of all runs: more than two pages of the stream.
const RUNS: i64 = 450;

async fn q11_each_dag_run_is_listed_and_changed_once(setup: Setup) {
    let succeed = Arc::new(AtomicBool::new(false));
    let first = Task::new("first", async |input: Number, _: Context| Ok(input.n));
    let second = Task::new("second", {
        let succeed = Arc::clone(&succeed);
        move |input: Number, _: Context| {
            let succeed = succeed.load(SeqCst);
            async move { if succeed { Ok(input.n) } else { Err(TaskError::new("not yet")) } }
        }
    });
    let flow = Workflow::new(setup.name("flow")).task(&first).task_after(&second, ["first"]);
    let worker = setup.hatchet.worker(setup.name("worker")).slots(100).register(&flow).build().unwrap();
    let worker = worker.start().await.unwrap();
    let mut started = BTreeSet::new();
    for n in 0..ONE_BY_ONE {
        started.insert(setup.hatchet.run(&flow, &Number { n }).start().await.unwrap().id());
    }
    let many = setup.hatchet.run_many(&flow, (ONE_BY_ONE..RUNS).map(|n| Number { n })).start().await.unwrap();
    started.extend(many.into_iter().map(|run| run.unwrap().id()));
    assert_eq!(started.len(), usize::try_from(RUNS).unwrap());
    let all = RunFilter::new(setup.window()).workflow(flow.name());
    let failed = all.clone().status(RunStatus::Failed);
    setup
        .eventually(async || {
            let counts = setup.hatchet.runs(all.clone()).counts_by_status().await.unwrap();
            counts.get(&RunStatus::Failed) == Some(RUNS.unsigned_abs())
        })
        .await;

    // Each run is listed once, newest first.
    for filter in [all.clone(), failed.clone()] {
        let listed = ids(&setup.hatchet, filter.clone()).await;
        assert_eq!(listed.len(), started.len(), "each run is listed once");
        assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), started);
        assert_eq!(setup.hatchet.runs(filter).count().await.unwrap(), Total::Exactly(RUNS.unsigned_abs()));
    }
    let page = setup.hatchet.runs(all.clone()).page(1000).await.unwrap();
    assert!(page.items.is_sorted_by_key(|run| std::cmp::Reverse(run.created_at)), "newest first");

    // Each run is replayed once by a filter.
    succeed.store(true, SeqCst);
    let mut reports = setup.hatchet.runs(failed).replay().reports();
    let mut replayed: HashMap<RunId, u32> = HashMap::new();
    while let Some(report) = reports.next().await {
        let report = report.unwrap();
        assert!(report.is_applied(), "{report}");
        *replayed.entry(report.run_id).or_default() += 1;
    }
    assert!(replayed.values().all(|times| *times == 1), "each run is replayed once");
    assert_eq!(replayed.into_keys().collect::<BTreeSet<_>>(), started);
    let completed = all.clone().status(RunStatus::Completed);
    setup
        .eventually(async || {
            setup.hatchet.runs(completed.clone()).count().await.unwrap() == Total::Exactly(RUNS.unsigned_abs())
        })
        .await;
    let report = worker.shutdown().await;
    assert_eq!(report.total(), 4 * RUNS.unsigned_abs(), "expected two attempts of both tasks of each run: {report}");

    // Each run is cancelled once by a filter. No worker is running.
    let many = setup.hatchet.run_many(&flow, (0..RUNS).map(|n| Number { n })).start().await.unwrap();
    let queued: HashSet<_> = many.into_iter().map(|run| run.unwrap().id()).collect();
    let waiting = all.status(RunStatus::Queued);
    setup.eventually(async || ids(&setup.hatchet, waiting.clone()).await.len() == queued.len()).await;
    let report = setup.hatchet.runs(waiting).cancel().send().await.unwrap();
    assert_eq!((report.applied, report.total()), (RUNS.unsigned_abs(), RUNS.unsigned_abs()), "{report}");
}

/// No server is known to respond like this. The test has its own listener, which always returns the same page.
async fn q11_lists_without_progress_end_with_an_error(setup: Setup) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    if setup.engine.is_none() {
        // A real engine does not do this.
        return;
    }
    setup.use_real_time();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    // More rows than requested, so that the page is not the last one.
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
    let response =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let serving = tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let response = response.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 16_384];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    if stream.write_all(response.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let token = setup.engine.as_ref().map(|_| setup.hatchet.config().token().expose().to_owned()).unwrap();
    let config = hatchet::config::ConfigBuilder::default().token(token).host_port("127.0.0.1:9");
    let config = config.tls_strategy(hatchet::config::TlsStrategy::None).server_url(server).build().unwrap();
    let hatchet = Client::new(config).unwrap();
    let (mut items, mut ids) = (hatchet.runs(setup.window()).items(), HashSet::new());
    let error = loop {
        match items.next().await.expect("the list should end with an error") {
            Ok(run) => assert!(ids.insert(run.id), "each run is listed once"),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), ids.len()), (ErrorKind::Server, 400), "{error}");
    assert!(error.to_string().ends_with("consecutive pages of the server's list had no new rows"), "{error}");
    serving.abort();
}

async fn m3_workflows_with_one_task_have_an_output_by_task_name(setup: Setup) {
    let only = Task::new("only", async |input: Number, _: Context| Ok(input.n * 2));
    let cleanup = Task::new("cleanup", async |_: Number, _: Context| Ok(()));
    let flow = Workflow::new(setup.name("flow")).task(&only);
    let with_failure = Workflow::new(setup.name("with-cleanup")).task(&only).on_failure(&cleanup);
    let worker = setup.hatchet.worker(setup.name("worker")).register(&flow).register(&with_failure);
    let worker = worker.build().unwrap().start().await.unwrap();
    for flow in [&flow, &with_failure] {
        let run = setup.hatchet.run(flow, &Number { n: 4 }).start().await.unwrap();
        assert_eq!(run.result().await.unwrap()["only"], serde_json::json!(8), "{}", flow.name());
        // A handle by id returns the same output. In the details, the task has its own output.
        let by_id = setup.hatchet.run_handle(run.id());
        assert_eq!(by_id.result().await.unwrap()["only"], serde_json::json!(8));
        let details = run.details().await.unwrap();
        assert_eq!(details.output().unwrap().parse::<serde_json::Value>().unwrap()["only"], serde_json::json!(8));
        assert_eq!(details.task("only").unwrap().output().unwrap().parse::<i64>().unwrap(), 8);
    }
    worker.shutdown().await;
}
