//! Bulk starts.

use std::hint::black_box;
use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::raw::pb::BulkTriggerWorkflowRequest;
use hatchet::raw::pb::v1::TriggerWorkflowRequest;
use hatchet::raw::pb::workflow_service_client::WorkflowServiceClient;
use tokio::time::Instant;

use crate::Sizes;
use crate::pairs::Pairs;
use crate::setup::{inputs, task};

/// The maximum number of runs per call.
const CHUNK: usize = 1000;
/// The tag that the SDK adds, so that one stream reports on all runs.
const TAG: &str = r#"{"hatchet_rs__client":"0123456789abcdef"}"#;

pub(crate) async fn all(sizes: Sizes) {
    for (tag, name) in [(None, ""), (Some(TAG), ", tagged")] {
        let rounds = sizes.rounds.div_ceil(3);
        let pairs = Pairs::measure(rounds, async || raw(sizes.many, tag).await, async || sdk(sizes.many).await).await;
        pairs.print(&format!("run of a run_many of {}{name}", sizes.many), sizes.many);
    }
}

/// A new engine with the workflow and without a worker.
async fn engine() -> Engine {
    let engine = Engine::start().await.unwrap();
    let worker = engine.client().worker("bench").register(&task("noop")).build().unwrap();
    drop(Box::pin(worker.start()).await.unwrap().shutdown().await);
    engine
}

async fn sdk(runs: usize) -> Duration {
    let engine = engine().await;
    let start = Instant::now();
    let started = engine.client().run_many(&task("noop"), inputs(runs)).start().await.unwrap();
    let spent = start.elapsed();
    assert!(black_box(started).iter().all(Result::is_ok));
    engine.shutdown().await;
    spent
}

async fn raw(runs: usize, tag: Option<&str>) -> Duration {
    let engine = engine().await;
    let mut workflows = WorkflowServiceClient::new(engine.client().raw_channel());
    let start = Instant::now();
    let (mut inputs, mut ids) = (inputs(runs).peekable(), Vec::with_capacity(runs));
    while inputs.peek().is_some() {
        let request = |input| TriggerWorkflowRequest {
            name: "noop".into(),
            input: serde_json::to_string(&input).unwrap(),
            additional_metadata: tag.map(Into::into),
            ..Default::default()
        };
        let workflows_of_chunk = inputs.by_ref().take(CHUNK).map(request).collect();
        let bulk = BulkTriggerWorkflowRequest { workflows: workflows_of_chunk };
        ids.extend(workflows.bulk_trigger_workflow(bulk).await.unwrap().into_inner().workflow_run_ids);
    }
    let spent = start.elapsed();
    assert_eq!(black_box(ids).len(), runs);
    engine.shutdown().await;
    spent
}
