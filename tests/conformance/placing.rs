//! C8 and B8: the assignment of runs to workers, and idempotency keys.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use hatchet::model::{DesiredLabel, Idempotency, TimeoutKind, WorkerId};
use hatchet::workflow::{Sticky, WorkflowRef};
use hatchet::{Context, ErrorKind, Outcome, Priority, RunHandle, RunId, Task, Workflow};
use serde_json::{Value, json};

use crate::setup::{Setup, rows};
use crate::tasks::{Doubled, Number, double, endless};

rows! {
    c8_metadata_and_priority_reach_the_engine,
    c8_a_desired_worker_gets_the_runs_of_a_sticky_task,
    c8_desired_labels_select_the_worker,
    w8_the_tasks_of_a_sticky_workflow_run_on_one_worker,
    b8_idempotency_keys_make_triggers_repeatable,
    b8_a_start_with_a_key_can_be_called_again,
    b8_keys_are_released_when_their_run_has_ended,
    b8_bulk_collisions_name_the_existing_run,
    b8_bulk_collisions_of_equal_inputs_are_matched_by_their_tags,
}

/// Waits for the end of a run, and returns the worker of its newest attempt.
async fn worker_of(run: &RunHandle<Doubled>) -> WorkerId {
    run.result().await.unwrap();
    // REST may show the assignment later than the end.
    for _ in 0..50 {
        if let Some(worker) = run.details().await.unwrap().tasks[0].attempts.last().unwrap().worker_id {
            return worker;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("expected a worker, got none");
}

async fn c8_metadata_and_priority_reach_the_engine(setup: Setup) {
    let task = Task::new(setup.name("nap"), async |input: Number, _: Context| {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(Doubled { doubled: input.n })
    });
    setup.worker(&task).await.shutdown().await;
    let run = async |n, priority| {
        let run = setup.hatchet.run(&task, &Number { n }).metadata("number", n.to_string());
        run.priority(priority).start().await.unwrap()
    };
    let runs = [run(1, Priority::Low).await, run(2, Priority::Medium).await, run(3, Priority::High).await];
    for (at, run) in runs.iter().enumerate() {
        let details = run.details().await.unwrap();
        assert_eq!(details.metadata["number"], json!((at + 1).to_string()));
    }
    // The engine does not return priorities. A worker with one slot gets runs with a high priority first.
    let worker =
        setup.hatchet.worker(setup.name("one")).slots(1).register(&task).build().unwrap().start().await.unwrap();
    let mut started = Vec::new();
    for run in &runs {
        run.result().await.unwrap();
        started.push(run.details().await.unwrap().started_at().unwrap());
    }
    assert!(started[2] < started[1] && started[1] < started[0], "{started:?}");
    worker.shutdown().await;
}

async fn c8_a_desired_worker_gets_the_runs_of_a_sticky_task(setup: Setup) {
    let task = double(setup.name("double")).sticky(Sticky::Hard).schedule_timeout(Duration::from_secs(3));
    let one = setup.worker(&task).await;
    let two = setup.worker(&task).await;
    for worker in [one.id(), two.id()] {
        let runs =
            setup.hatchet.run_many(&task, (0..4).map(|n| Number { n })).desired_worker(worker).start().await.unwrap();
        for run in runs {
            assert_eq!(worker_of(&run.unwrap()).await, worker);
        }
        let run = setup.hatchet.run(&task, &Number { n: 1 }).desired_worker(worker).start().await.unwrap();
        assert_eq!(worker_of(&run).await, worker);
    }
    // A run for an unknown worker times out in its queue.
    let unknown: WorkerId = "00000000-0000-4000-8000-000000000000".parse().unwrap();
    let run = setup.hatchet.run(&task, &Number { n: 1 }).desired_worker(unknown).start().await.unwrap();
    let Outcome::TimedOut(timeout) = run.outcome().await.unwrap() else { panic!("another worker executed the run") };
    assert_eq!(timeout.kind, TimeoutKind::Schedule);
    one.shutdown().await;
    two.shutdown().await;
}

async fn c8_desired_labels_select_the_worker(setup: Setup) {
    let task = double(setup.name("double")).schedule_timeout(Duration::from_secs(20)).desired_label("size", "small");
    let start = async |name: &str, size: &str, memory: i32| {
        let worker = setup.hatchet.worker(setup.name(name)).label("size", size).label("memory", memory).register(&task);
        worker.build().unwrap().start().await.unwrap()
    };
    let (small, large) = (start("small", "small", 8).await, start("large", "large", 64).await);
    let run = |label: Option<DesiredLabel>| {
        let run = setup.hatchet.run(&task, &Number { n: 1 });
        match label {
            Some(label) => run.desired_label("size", label),
            None => run,
        }
    };
    // The real engine takes seconds to store labels, so only required labels are reliable.
    for (size, worker) in [("small", &small), ("large", &large)] {
        let label = DesiredLabel::equal(size).required();
        assert_eq!(worker_of(&run(Some(label)).start().await.unwrap()).await, worker.id());
    }
    for _ in 0..3 {
        assert_eq!(worker_of(&run(None).start().await.unwrap()).await, small.id(), "the label of the task");
        let label = DesiredLabel::equal("large").required();
        assert_eq!(worker_of(&run(Some(label)).start().await.unwrap()).await, large.id(), "the label of the run");
        let with_memory = run(Some("large".into())).desired_label("memory", DesiredLabel::at_least(64).required());
        assert_eq!(worker_of(&with_memory.start().await.unwrap()).await, large.id());
    }
    let many = setup
        .hatchet
        .run_many(&task, (0..3).map(|n| Number { n }))
        .desired_label("size", "large")
        .start()
        .await
        .unwrap();
    for run in many {
        assert_eq!(worker_of(&run.unwrap()).await, large.id());
    }
    let unknown = run(Some(DesiredLabel::equal("medium").required())).start().await.unwrap();
    assert!(matches!(unknown.outcome().await.unwrap(), Outcome::TimedOut(_)));
    small.shutdown().await;
    large.shutdown().await;
}

async fn w8_the_tasks_of_a_sticky_workflow_run_on_one_worker(setup: Setup) {
    let task = |name: &str| Task::new(name, async |_: Number, context: Context| Ok(context.worker_id()));
    for (sticky, name) in [(Sticky::Soft, "soft"), (Sticky::Hard, "hard")] {
        let (first, second, third) = (task("first"), task("second"), task("third"));
        let flow: Workflow<Number> = Workflow::new(setup.name(name)).task(&first);
        let flow = flow.task_after(&second, ["first"]).task_after(&third, ["second"]).sticky(sticky);
        let start = |name: &str| setup.hatchet.worker(setup.name(name)).register(&flow).build().unwrap().start();
        let workers = [start("one").await.unwrap(), start("other").await.unwrap()];
        let runs = setup.hatchet.run_many(&flow, (0..6).map(|n| Number { n }));
        for output in runs.results().await.unwrap() {
            let output: HashMap<String, WorkerId> = serde_json::from_value(output.unwrap()).unwrap();
            let used: HashSet<_> = output.values().collect();
            assert_eq!((output.len(), used.len()), (3, 1), "{sticky}: {output:?}");
            assert!(workers.iter().any(|worker| used.contains(&worker.id())), "{sticky}: {output:?}");
        }
        for worker in workers {
            worker.shutdown().await;
        }
    }
}

/// An expression whose keys are unique to this test.
fn key(setup: &Setup) -> String {
    format!("'{}:' + input.id", setup.name("k"))
}

async fn b8_idempotency_keys_make_triggers_repeatable(setup: Setup) {
    let minute = Duration::from_secs(60);
    let task = endless(setup.name("endless")).idempotency(Idempotency::for_time(key(&setup), minute));
    let worker = setup.worker(&task).await;
    let any: WorkflowRef<Value, Doubled> = WorkflowRef::new(task.name());
    let input = json!({"n": 1, "id": "a"});
    let run = setup.hatchet.run(&any, &input).start().await.unwrap();
    // A second trigger returns the existing run.
    let error = setup.hatchet.run(&any, &input).start().await.unwrap_err();
    assert_eq!((error.kind(), error.existing_run_id()), (ErrorKind::AlreadyExists, Some(run.id())));
    assert!(error.has_no_side_effects() && error.to_string().contains(&run.id().to_string()), "{error}");
    // Another key is another run.
    let other = setup.hatchet.run(&any, &json!({"n": 1, "id": "b"})).start().await.unwrap();
    assert_ne!(other.id(), run.id());
    // If the key cannot be evaluated, the run is never created.
    let missing = setup.hatchet.run(&any, &json!({"n": 1})).start().await.unwrap();
    assert_eq!(missing.outcome().await.unwrap_err().kind(), ErrorKind::RunNotFound);
    drop(worker);
}

async fn b8_a_start_with_a_key_can_be_called_again(setup: Setup) {
    let hour = Duration::from_secs(3600);
    // A key at the start: the expression reads a tag.
    let expression = format!("'{}:' + additional_metadata.key", setup.name("k"));
    let task = double(setup.name("double")).idempotency(Idempotency::for_time(&expression, hour));
    let worker = setup.worker(&task).await;
    let start = || setup.hatchet.run(&task, &Number { n: 4 }).metadata("key", "a").start_or_existing();
    let run = start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), Doubled { doubled: 8 });
    // Also by several at once, and by another client.
    let (one, other) = tokio::join!(start(), start());
    let by_name: WorkflowRef<Number, Doubled> = WorkflowRef::new(task.name());
    let third = setup.hatchet.run(&by_name, &Number { n: 4 }).metadata("key", "a").start_or_existing().await.unwrap();
    for again in [one.unwrap(), other.unwrap(), third] {
        assert_eq!((again.id(), again.result().await.unwrap()), (run.id(), Doubled { doubled: 8 }));
    }
    let other = setup.hatchet.run(&task, &Number { n: 4 }).metadata("key", "b").start_or_existing().await.unwrap();
    assert_ne!(other.id(), run.id());
    // Without a key that is kept, each start can be another run.
    let short = [Idempotency::until_ended(&expression, hour), Idempotency::for_time(&expression, hour / 7)];
    let without = short.map(|key| double(setup.name("without")).idempotency(key));
    for without in without.iter().chain([&double(setup.name("without"))]) {
        let error = setup.hatchet.run(without, &Number { n: 4 }).start_or_existing().await.unwrap_err();
        assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::InvalidInput, true), "{error}");
        assert!(error.to_string().contains("expected a definition with an idempotency key"), "{error}");
    }
    worker.shutdown().await;
}

async fn b8_keys_are_released_when_their_run_has_ended(setup: Setup) {
    let minute = Duration::from_secs(60);
    let task = double(setup.name("double")).idempotency(Idempotency::until_ended(key(&setup), minute));
    let worker = setup.worker(&task).await;
    let any: WorkflowRef<Value, Doubled> = WorkflowRef::new(task.name());
    let mut ids = HashSet::new();
    for n in 0..3 {
        let run = setup.hatchet.run(&any, &json!({"n": n, "id": "a"})).start().await.unwrap();
        run.result().await.unwrap();
        ids.insert(run.id());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(ids.len(), 3);
    worker.shutdown().await;
}

async fn b8_bulk_collisions_of_equal_inputs_are_matched_by_their_tags(setup: Setup) {
    let minute = Duration::from_secs(60);
    let key = format!("'{}:' + additional_metadata.key", setup.name("k"));
    let task = endless(setup.name("endless")).idempotency(Idempotency::for_time(key, minute));
    let worker = setup.worker(&task).await;
    let any: WorkflowRef<Value, Doubled> = WorkflowRef::new(task.name());
    let input = json!({"n": 1});
    let held = setup.hatchet.run(&any, &input).metadata("key", "held").start().await.unwrap();
    let keys = ["held", "a", "held", "b"];
    let runs = setup.hatchet.run_many(&any, vec![input; keys.len()]);
    let runs = runs.each(|index, options| options.metadata("key", keys[index])).start().await.unwrap();
    for at in [0, 2] {
        assert_eq!(runs[at].as_ref().unwrap_err().existing_run_id(), Some(held.id()), "{at}");
    }
    for at in [1, 3] {
        let details = runs[at].as_ref().unwrap().details().await.unwrap();
        assert_eq!(details.metadata.get("key"), Some(&json!(keys[at])), "{at}");
    }
    drop(worker);
}

async fn b8_bulk_collisions_name_the_existing_run(setup: Setup) {
    let minute = Duration::from_secs(60);
    let task = endless(setup.name("endless")).idempotency(Idempotency::for_time(key(&setup), minute));
    let worker = setup.worker(&task).await;
    let any: WorkflowRef<Value, Doubled> = WorkflowRef::new(task.name());
    let held = setup.hatchet.run(&any, &json!({"n": 0, "id": "held"})).start().await.unwrap();
    let inputs = [
        json!({"n": 1, "id": "a"}),
        json!({"n": 2, "id": "held"}),
        json!({"n": 3, "id": "b"}),
        json!({"n": 4, "id": "a"}),
        json!({"n": 5}),
        json!({"n": 6, "id": "c"}),
        json!({"n": 6, "id": "c"}),
    ];
    let runs = setup.hatchet.run_many(&any, inputs.clone()).start().await.unwrap();
    let ids: Vec<Option<RunId>> = runs.iter().map(|run| run.as_ref().ok().map(RunHandle::id)).collect();
    for at in [0, 2, 5] {
        // The engine starts one of two runs with the same key. The input shows which one.
        let run = runs[at].as_ref().or(runs[if at == 0 { 3 } else { at }].as_ref()).unwrap();
        let input: Value = run.details().await.unwrap().input.unwrap().parse().unwrap();
        assert!(input == inputs[at] || at == 0 && input == inputs[3], "{at}: {input}");
    }
    let existing = |at: usize| runs[at].as_ref().unwrap_err().existing_run_id();
    assert_eq!(existing(1), Some(held.id()));
    let (started, rejected) = if ids[0].is_some() { (0, 3) } else { (3, 0) };
    assert_eq!(existing(rejected), ids[started]);
    assert_eq!((existing(6), ids[6]), (ids[5], None));
    let error = runs[4].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("cannot be evaluated"), "{error}");
    drop(worker);
}
