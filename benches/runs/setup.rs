//! An engine with finished runs in it.

use std::time::Duration;

use bytes::Bytes;
use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, RunStatus, Task, Workflow};
use http::Method;
use serde::{Deserialize, Serialize};

/// The number of runs in a batch.
const BATCH: usize = 1000;
/// The number of runs of each batch with a tag.
const TAGGED: usize = 100;
/// The number of runs of each batch of another workflow.
const OTHER: usize = 100;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Input {
    customer: String,
    number: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Output {
    ok: bool,
}

pub(crate) fn inputs(count: usize) -> impl Iterator<Item = Input> {
    (0..count).map(|number| Input { customer: "acme".into(), number })
}

pub(crate) fn task(name: &str) -> Task<Input, Output> {
    Task::new(name, async |_: Input, _: Context| Ok(Output { ok: true }))
}

/// A DAG with four tasks.
pub(crate) fn diamond() -> Workflow<Input> {
    Workflow::new("diamond")
        .task(&task("top"))
        .task_after(&task("left"), ["top"])
        .task_after(&task("right"), ["top"])
        .task_after(&task("bottom"), ["left", "right"])
}

pub(crate) struct Setup {
    engine: Engine,
    pub(crate) client: Client,
    _worker: RunningWorker,
}

impl Setup {
    /// Starts an engine with runs, and waits until all have completed. The runs of a batch have the same timestamp.
    pub(crate) async fn with_runs(runs: usize) -> Self {
        let engine = Engine::start().await.unwrap();
        let client = engine.client();
        let (noop, other) = (task("noop"), task("other"));
        let worker = client.worker("bench").slots(1000).register(&noop).register(&other).register(&diamond());
        let setup = Self { _worker: Box::pin(worker.build().unwrap().start()).await.unwrap(), engine, client };
        for _ in 0..runs / BATCH {
            let tagged = setup.client.run_many(&noop, inputs(TAGGED)).metadata("customer", "acme");
            for starting in [
                setup.client.run_many(&noop, inputs(BATCH - TAGGED - OTHER)),
                tagged,
                setup.client.run_many(&other, inputs(OTHER)),
            ] {
                assert!(starting.start().await.unwrap().iter().all(Result::is_ok));
            }
        }
        let all = setup.client.runs(Window::all());
        while all.counts_by_status().await.unwrap().get(&RunStatus::Completed) < Some(runs as u64) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        setup
    }

    /// The body of a REST response.
    pub(crate) async fn get(&self, target: &str) -> Bytes {
        let (status, body) = self.client.raw_rest(Method::GET, target, None).await.unwrap();
        assert!(status.is_success(), "{target}: {status}");
        body
    }

    /// The body of a list of runs, with additional parameters.
    pub(crate) async fn list(&self, more: &str) -> Bytes {
        let tenant = self.engine.tenant_id();
        let query = "since=1970-01-01T00%3A00%3A00.000000Z&only_tasks=false&additional_metadata_operator=AND";
        self.get(&format!("/api/v1/stable/tenants/{tenant}/workflow-runs?{query}{more}")).await
    }

    pub(crate) async fn end(self) {
        self.engine.shutdown().await;
    }
}
