//! C: creating runs.

use std::collections::HashSet;
use std::time::Duration;

use hatchet::workflow::WorkflowRef;
use hatchet::{ErrorKind, Outcome, Priority, RunFilter, RunId, RunStatus};
use serde_json::{Value, json};

use crate::tasks::{Doubled, Number, double, endless};
use crate::world::{World, rows};

rows! {
    c1_a_trigger_creates_a_run_and_returns_its_id_at_once,
    c4_many_at_once_in_order_and_a_bad_one_loses_no_other,
    c4_chunks_by_count_and_by_bytes,
    c9_tenant_and_namespace,
    c10_created_started_and_finished_times,
    c11_a_workflow_that_does_not_exist,
    c11_a_run_that_does_not_exist,
    c12_bad_input_is_refused_before_anything_is_sent,
}

async fn c1_a_trigger_creates_a_run_and_returns_its_id_at_once(world: World) {
    let task = endless(world.name("endless"));
    let worker = world.worker(&task).await;
    let run = world.hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    // It runs for ever, so nothing can have waited for its end.
    let details = run.details().await.unwrap();
    assert_eq!(details.id, run.id());
    assert!(details.outcome.is_none());
    let again = world.hatchet.run_handle(run.id()).typed::<Doubled>();
    assert_eq!(again.details().await.unwrap().input, details.input);
    drop(worker);
}

async fn c4_many_at_once_in_order_and_a_bad_one_loses_no_other(world: World) {
    let task = double(world.name("double"));
    let worker = world.worker(&task).await;
    let any: WorkflowRef<Value, Doubled> = WorkflowRef::new(task.name());
    let inputs = vec![json!({"n": 1}), json!([2]), json!({"n": 3}), json!({"n": "\0"}), json!({"n": 5})];
    let runs = world.hatchet.run_many(&any, inputs).start().await.unwrap();
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

async fn c4_chunks_by_count_and_by_bytes(world: World) {
    let task = double(world.name("double"));
    // Nobody works: the runs only have to be there.
    world.worker(&task).await.shutdown().await;
    let any: WorkflowRef<Value, Doubled> = WorkflowRef::new(task.name());
    // Over two calls by their number; and over several by their bytes, with one that fits into none.
    let small = (0..1005).map(|n| json!({ "n": n }));
    let large =
        [900_000, 900_000, 5_000_000, 900_000, 900_000, 900_000, 900_000].map(|size| json!({"text": "x".repeat(size)}));
    let runs = world.hatchet.run_many(&any, small.chain(large)).start().await.unwrap();
    let ids: HashSet<RunId> = runs.iter().flatten().map(hatchet::RunHandle::id).collect();
    assert_eq!(ids.len(), 1005 + 6);
    let error = runs[1007].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().starts_with("inputs[1007] is too large: expected a message of at most "), "{error}");
    let last = runs[1004].as_ref().unwrap().details().await.unwrap();
    assert_eq!(last.input.parse::<Value>().unwrap(), json!({"n": 1004}));
}

async fn c9_tenant_and_namespace(world: World) {
    let spaced = world.client_with(|config| config.namespace("Team"));
    assert_eq!(spaced.namespace(), Some("team_"));
    assert_eq!(spaced.tenant().unwrap(), world.hatchet.tenant().unwrap());
    let task = double(world.name("double"));
    let worker = spaced.worker(world.name("worker")).register(&task).build().unwrap().start().await.unwrap();
    let run = spaced.run(&task, &Number { n: 4 }).start().await.unwrap();
    assert_eq!(run.client().namespace(), Some("team_"));
    assert_eq!(run.result().await.unwrap(), Doubled { doubled: 8 });
    run.details().await.unwrap();
    // The name comes back without it, and is not there without it.
    let page = spaced.runs(RunFilter::new(world.window()).workflow(task.name())).page(10).await.unwrap();
    assert_eq!(page.items.iter().map(|run| run.workflow_name.as_str()).collect::<Vec<_>>(), [task.name()]);
    let error = world.hatchet.run(&task, &Number { n: 4 }).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WorkflowNotFound);
    // From outside the namespace, it is a workflow with a task of another name.
    let full: WorkflowRef<Number, Value> = WorkflowRef::new(format!("team_{}", task.name()));
    let result = world.hatchet.run(&full, &Number { n: 5 }).result().await.unwrap();
    assert_eq!(result, json!({ task.name(): {"doubled": 10} }));
    worker.shutdown().await;
}

async fn c10_created_started_and_finished_times(world: World) {
    let nap = Duration::from_millis(400);
    let task = hatchet::Task::new(world.name("nap"), move |input: Number, _: hatchet::Context| async move {
        tokio::time::sleep(nap).await;
        Ok(input)
    });
    let worker = world.worker(&task).await;
    let run = world.hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    run.result().await.unwrap();
    let details = run.details().await.unwrap();
    let (created, started, finished) =
        (details.created_at.unwrap(), details.started_at().unwrap(), details.finished_at().unwrap());
    assert!(created <= started && started < finished, "{created} {started} {finished}");
    let working = details.ran_for().unwrap();
    assert!((nap..nap + Duration::from_secs(1)).contains(&working), "{working:?}");
    let summary =
        world.hatchet.runs(RunFilter::new(world.window()).workflow(task.name())).page(1).await.unwrap().items.remove(0);
    assert_eq!((summary.created_at, summary.started_at, summary.finished_at), (created, Some(started), Some(finished)));
    worker.shutdown().await;
}

async fn c11_a_workflow_that_does_not_exist(world: World) {
    let nobody: WorkflowRef<Number, Doubled> = WorkflowRef::new(world.name("nobody"));
    let one = world.hatchet.run(&nobody, &Number { n: 1 }).start().await.unwrap_err();
    let many = world.hatchet.run_many(&nobody, [Number { n: 1 }]).start().await.unwrap_err();
    let list =
        world.hatchet.runs(RunFilter::new(world.window()).workflow(world.name("nobody"))).page(1).await.unwrap_err();
    for error in [one, many, list] {
        assert_eq!(error.kind(), ErrorKind::WorkflowNotFound);
        assert!(error.is_not_found() && error.has_no_side_effects());
    }
}

/// The engine hands out ids of runs that it never creates; such an id is made here by asking it directly.
async fn c11_a_run_that_does_not_exist(world: World) {
    use hatchet::raw::pb::v1::TriggerWorkflowRequest;
    use hatchet::raw::pb::workflow_service_client::WorkflowServiceClient;
    let request = TriggerWorkflowRequest { name: world.name("nobody"), input: "{}".into(), ..Default::default() };
    let answer = WorkflowServiceClient::new(world.hatchet.raw_channel()).trigger_workflow(request).await.unwrap();
    let phantom: RunId = answer.into_inner().workflow_run_id.parse().unwrap();
    let run = world.hatchet.run_handle(phantom).typed::<Doubled>();
    let limit = Duration::from_secs(20);
    let on_time = |result| tokio::time::timeout(limit, result);
    let errors = [
        on_time(Box::pin(async { run.details().await.map(drop) }) as std::pin::Pin<Box<dyn Future<Output = _>>>).await,
        on_time(Box::pin(async { run.outcome().await.map(drop) })).await,
        on_time(Box::pin(async { run.result().await.map(drop) })).await,
        on_time(Box::pin(async { run.watch().next().await.unwrap().map(drop) })).await,
    ];
    for error in errors {
        let error = error.expect("in bounded time").unwrap_err();
        assert_eq!((error.kind(), error.run_id()), (ErrorKind::RunNotFound, Some(phantom)));
    }
}

async fn c12_bad_input_is_refused_before_anything_is_sent(world: World) {
    let task = double(world.name("double"));
    world.worker(&task).await.shutdown().await;
    let any: WorkflowRef<Value, Doubled> = WorkflowRef::new(task.name());
    let hatchet = &world.hatchet;
    let fine = json!({"n": 1});
    let list = async |size| hatchet.runs(world.window()).page(size).await;
    let refusals = [
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
            hatchet.run(&any, &fine).metadata("", "x").start().await.unwrap_err(),
            "invalid metadata: expected a key with at least one character",
        ),
        (hatchet.run(&any, &fine).metadata("a:b", "x").start().await.unwrap_err(), "a key without a colon"),
        (hatchet.run(&any, &fine).metadata("hatchet__event_id", "x").start().await.unwrap_err(), "invalid metadata: "),
        (
            hatchet.run(&any, &fine).metadata("a", "x".repeat(70_000)).start().await.unwrap_err(),
            "expected at most 65536 bytes",
        ),
        (Priority::try_from(4).unwrap_err(), "invalid priority: expected 1 to 3, got 4"),
        (list(0).await.unwrap_err(), "invalid page size: expected 1 to 1000, got 0"),
        (list(1001).await.unwrap_err(), "invalid page size: expected 1 to 1000, got 1001"),
    ];
    for (error, text) in refusals {
        assert!(matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::TooLarge), "{error:?}");
        assert!(error.to_string().contains(text), "{error} has no {text:?}");
        assert!(error.has_no_side_effects(), "{error}");
    }
    // Nothing of it has become a run.
    let there = hatchet.runs(RunFilter::new(world.window()).workflow(task.name())).page(10).await.unwrap();
    assert!(there.items.is_empty());
    let run = hatchet.run(&any, &fine).priority(Priority::High).start().await.unwrap();
    assert_ne!(run.details().await.unwrap().status, RunStatus::Completed);
    assert!(!matches!(run.details().await.unwrap().outcome, Some(Outcome::Completed(_))));
}
