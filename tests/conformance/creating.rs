//! C: creating runs.

use std::collections::HashSet;
use std::time::Duration;

use hatchet::model::Effect;
use hatchet::workflow::WorkflowRef;
use hatchet::{ErrorKind, Priority, RunFilter, RunId};
use serde_json::{Value, json};

use crate::setup::{Setup, ids, rows};
use crate::tasks::{Doubled, Number, double, endless};

rows! {
    c1_a_trigger_creates_a_run_and_returns_its_id_immediately,
    c4_bulk_starts_keep_the_order_and_survive_invalid_inputs,
    c4_bulk_starts_are_split_by_count_and_size,
    c9_tenant_and_namespace,
    c10_details_have_created_started_and_finished_times,
    c11_unknown_workflows_are_reported,
    c11_runs_that_are_never_created_are_reported,
    c12_invalid_input_is_rejected_without_a_request,
}

async fn c1_a_trigger_creates_a_run_and_returns_its_id_immediately(setup: Setup) {
    let task = endless(setup.name("endless"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    // The run never ends, so the trigger has not waited for it.
    let details = run.details().await.unwrap();
    assert_eq!(details.id, run.id());
    assert!(details.outcome.is_none());
    let by_id = setup.hatchet.run_handle(run.id()).typed::<Doubled>();
    assert_eq!(by_id.details().await.unwrap().input, details.input);
    drop(worker);
}

async fn c4_bulk_starts_keep_the_order_and_survive_invalid_inputs(setup: Setup) {
    let task = double(setup.name("double"));
    let worker = setup.worker(&task).await;
    let any: WorkflowRef<Value, Doubled> = WorkflowRef::new(task.name());
    let inputs = vec![json!({"n": 1}), json!([2]), json!({"n": 3}), json!({"n": "\0"}), json!({"n": 5})];
    let runs = setup.hatchet.run_many(&any, inputs).start().await.unwrap();
    assert_eq!(runs.len(), 5);
    for (at, text) in [(1, "invalid inputs[1]: expected a JSON object, got [2]"), (3, "U+0000")] {
        let error = runs[at].as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(text) && error.has_no_side_effects(), "{error}");
    }
    for (at, doubled) in [(0, 2), (2, 6), (4, 10)] {
        assert_eq!(runs[at].as_ref().unwrap().result().await.unwrap(), Doubled { doubled });
    }
    worker.shutdown().await;
}

async fn c4_bulk_starts_are_split_by_count_and_size(setup: Setup) {
    let task = double(setup.name("double"));
    // No worker is needed, because the runs only have to exist.
    setup.worker(&task).await.shutdown().await;
    let any: WorkflowRef<Value, Doubled> = WorkflowRef::new(task.name());
    // Two calls because of the count, and several because of the size. One input is too large for any call.
    let small = (0..1005).map(|n| json!({ "n": n }));
    let large =
        [900_000, 900_000, 5_000_000, 900_000, 900_000, 900_000, 900_000].map(|size| json!({"text": "x".repeat(size)}));
    let runs = setup.hatchet.run_many(&any, small.chain(large)).start().await.unwrap();
    let ids: HashSet<RunId> = runs.iter().flatten().map(hatchet::RunHandle::id).collect();
    assert_eq!(ids.len(), 1005 + 6);
    let error = runs[1007].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().starts_with("inputs[1007] is too large: expected a message of at most "), "{error}");
    let last = runs[1004].as_ref().unwrap().details().await.unwrap();
    assert_eq!(last.input.as_ref().unwrap().parse::<Value>().unwrap(), json!({"n": 1004}));
}

async fn c9_tenant_and_namespace(setup: Setup) {
    let namespaced = setup.client_with(|config| config.namespace("Team"));
    assert_eq!(namespaced.namespace(), Some("team_"));
    assert_eq!(namespaced.tenant_id(), setup.hatchet.tenant_id());
    let task = double(setup.name("double"));
    let worker = namespaced.worker(setup.name("worker")).register(&task).build().unwrap().start().await.unwrap();
    let run = namespaced.run(&task, &Number { n: 4 }).start().await.unwrap();
    assert_eq!(run.client().namespace(), Some("team_"));
    assert_eq!(run.result().await.unwrap(), Doubled { doubled: 8 });
    run.details().await.unwrap();
    // Names are returned without the namespace, and are not found outside of it.
    let page = namespaced.runs(RunFilter::new(setup.window()).workflow(task.name())).page(10).await.unwrap();
    assert_eq!(page.items.iter().map(|run| run.workflow_name.as_deref()).collect::<Vec<_>>(), [Some(task.name())]);
    let error = setup.hatchet.run(&task, &Number { n: 4 }).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WorkflowNotFound);
    // Outside of the namespace, its full name is that of a workflow with a task of another name.
    let full: WorkflowRef<Number, Value> = WorkflowRef::new(format!("team_{}", task.name()));
    let result = setup.hatchet.run(&full, &Number { n: 5 }).result().await.unwrap();
    assert_eq!(result, json!({ task.name(): {"doubled": 10} }));
    worker.shutdown().await;
}

async fn c10_details_have_created_started_and_finished_times(setup: Setup) {
    let nap = Duration::from_millis(400);
    let task = hatchet::Task::new(setup.name("nap"), move |input: Number, _: hatchet::Context| async move {
        tokio::time::sleep(nap).await;
        Ok(input)
    });
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    run.result().await.unwrap();
    let details = run.details().await.unwrap();
    let (created, started, finished) =
        (details.created_at.unwrap(), details.started_at().unwrap(), details.finished_at().unwrap());
    assert!(created <= started && started < finished, "{created} {started} {finished}");
    let ran_for = details.ran_for().unwrap();
    assert!((nap..nap + Duration::from_secs(1)).contains(&ran_for), "{ran_for:?}");
    let summary =
        setup.hatchet.runs(RunFilter::new(setup.window()).workflow(task.name())).page(1).await.unwrap().items.remove(0);
    assert_eq!((summary.created_at, summary.started_at, summary.finished_at), (created, Some(started), Some(finished)));
    worker.shutdown().await;
}

async fn c11_unknown_workflows_are_reported(setup: Setup) {
    let unknown: WorkflowRef<Number, Doubled> = WorkflowRef::new(setup.name("unknown"));
    let one = setup.hatchet.run(&unknown, &Number { n: 1 }).start().await.unwrap_err();
    let many = setup.hatchet.run_many(&unknown, [Number { n: 1 }]).start().await.unwrap_err();
    let list =
        setup.hatchet.runs(RunFilter::new(setup.window()).workflow(setup.name("unknown"))).page(1).await.unwrap_err();
    for error in [one, many, list] {
        assert_eq!(error.kind(), ErrorKind::WorkflowNotFound);
        assert!(error.is_not_found() && error.has_no_side_effects());
    }
}

/// The engine returns ids of runs that it never creates. The test gets such an id by a raw call.
async fn c11_runs_that_are_never_created_are_reported(setup: Setup) {
    use hatchet::raw::pb::v1::TriggerWorkflowRequest;
    use hatchet::raw::pb::workflow_service_client::WorkflowServiceClient;
    let request = TriggerWorkflowRequest { name: setup.name("unknown"), input: "{}".into(), ..Default::default() };
    let response = WorkflowServiceClient::new(setup.hatchet.raw_channel()).trigger_workflow(request).await.unwrap();
    let missing: RunId = response.into_inner().workflow_run_id.parse().unwrap();
    let run = setup.hatchet.run_handle(missing).typed::<Doubled>();
    let limit = Duration::from_secs(20);
    let in_time = |result| tokio::time::timeout(limit, result);
    let errors = [
        in_time(Box::pin(async { run.details().await.map(drop) }) as std::pin::Pin<Box<dyn Future<Output = _>>>).await,
        in_time(Box::pin(async { run.outcome().await.map(drop) })).await,
        in_time(Box::pin(async { run.result().await.map(drop) })).await,
        in_time(Box::pin(async { run.watch().next().await.unwrap().map(drop) })).await,
    ];
    for error in errors {
        let error = error.expect("the call should end within 20 seconds").unwrap_err();
        assert_eq!((error.kind(), error.run_id()), (ErrorKind::RunNotFound, Some(missing)));
    }
    let errors = [
        run.cancel().send().await.unwrap_err(),
        run.cancel().reason("why").send().await.unwrap_err(),
        run.replay().send().await.unwrap_err(),
        run.rerun().start().await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::RunNotFound, true), "{error}");
    }
    assert_eq!(setup.hatchet.cancel_many([missing]).send().await.unwrap()[0].effect, Effect::NotFound);
}

async fn c12_invalid_input_is_rejected_without_a_request(setup: Setup) {
    let task = double(setup.name("double"));
    setup.worker(&task).await.shutdown().await;
    let any: WorkflowRef<Value, Doubled> = WorkflowRef::new(task.name());
    let hatchet = &setup.hatchet;
    let valid = json!({"n": 1});
    let list = async |size| hatchet.runs(setup.window()).page(size).await;
    let rejections = [
        (
            hatchet.run(&any, &json!(["n"])).start().await.unwrap_err(),
            "invalid input: expected a JSON object, got [\"n\"]",
        ),
        (hatchet.run(&any, &json!({"n": "\0"})).start().await.unwrap_err(), "U+0000"),
        (
            hatchet.run(&any, &json!({"n": "x".repeat(5_000_000)})).start().await.unwrap_err(),
            "expected at most 4194304 bytes",
        ),
        (
            hatchet.run(&any, &valid).metadata("", "x").start().await.unwrap_err(),
            "invalid metadata: expected a key with at least one character",
        ),
        (hatchet.run(&any, &valid).metadata("a:b", "x").start().await.unwrap_err(), "a key without a colon"),
        (hatchet.run(&any, &valid).metadata("hatchet__event_id", "x").start().await.unwrap_err(), "invalid metadata: "),
        (
            hatchet.run(&any, &valid).metadata("a", "x".repeat(70_000)).start().await.unwrap_err(),
            "expected at most 65536 bytes",
        ),
        (Priority::try_from(4).unwrap_err(), "invalid priority: expected 1 to 3, got 4"),
        (list(0).await.unwrap_err(), "invalid page size: expected 1 to 1000, got 0"),
        (list(1001).await.unwrap_err(), "invalid page size: expected 1 to 1000, got 1001"),
    ];
    for (error, text) in rejections {
        assert!(matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::TooLarge), "{error:?}");
        assert!(error.to_string().contains(text), "expected {text:?}, got {error}");
        assert!(error.has_no_side_effects(), "{error}");
    }
    // None of them has created a run. A list shows a later run after all earlier ones.
    let run = hatchet.run(&any, &valid).priority(Priority::High).start().await.unwrap();
    let filter = RunFilter::new(setup.window()).workflow(task.name());
    let listed = setup.fetch_until(async || ids(hatchet, filter.clone()).await, |ids| ids.contains(&run.id())).await;
    assert_eq!(listed, [run.id()]);
}
