//! C8 and B8: which worker a run goes to, and one run for a key.

use std::collections::HashSet;
use std::time::Duration;

use hatchet::model::{DesiredLabel, Idempotency, TimeoutKind, WorkerId};
use hatchet::workflow::{Sticky, WorkflowRef};
use hatchet::{Context, ErrorKind, Outcome, Priority, RunHandle, RunId, Task};
use serde_json::{Value, json};

use crate::tasks::{Doubled, Number, double, endless};
use crate::world::{World, rows};

rows! {
    c8_metadata_and_priority_reach_the_engine,
    c8_a_desired_worker_gets_the_runs_of_a_sticky_task,
    c8_desired_labels_decide_where_a_run_goes,
    b8_a_trigger_can_be_made_safe_to_repeat,
    b8_a_key_is_free_when_its_run_has_ended,
    b8_of_many_each_collision_names_the_run_that_won,
}

/// The worker that had the newest attempt of a run, when it has ended.
async fn worker_of(run: &RunHandle<Doubled>) -> WorkerId {
    run.result().await.unwrap();
    // The assignment can be the last that the server's history gets.
    for _ in 0..50 {
        if let Some(worker) = run.details().await.unwrap().tasks[0].attempts.last().unwrap().worker_id {
            return worker;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nobody had it");
}

async fn c8_metadata_and_priority_reach_the_engine(world: World) {
    let task = Task::new(world.name("nap"), async |input: Number, _: Context| {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(Doubled { doubled: input.n })
    });
    world.worker(&task).await.shutdown().await;
    let run = async |n, priority| {
        let run = world.hatchet.run(&task, &Number { n }).metadata("number", n.to_string());
        run.priority(priority).start().await.unwrap()
    };
    let runs = [run(1, Priority::Low).await, run(2, Priority::Medium).await, run(3, Priority::High).await];
    for (at, run) in runs.iter().enumerate() {
        let details = run.details().await.unwrap();
        assert_eq!(details.metadata["number"], json!((at + 1).to_string()));
    }
    // The engine shows a priority nowhere, but a worker with one slot takes the urgent ones first.
    let worker =
        world.hatchet.worker(world.name("one")).slots(1).register(&task).build().unwrap().start().await.unwrap();
    let mut begun = Vec::new();
    for run in &runs {
        run.result().await.unwrap();
        begun.push(run.details().await.unwrap().started_at().unwrap());
    }
    assert!(begun[2] < begun[1] && begun[1] < begun[0], "{begun:?}");
    worker.shutdown().await;
}

async fn c8_a_desired_worker_gets_the_runs_of_a_sticky_task(world: World) {
    let task = double(world.name("double")).sticky(Sticky::Hard).schedule_timeout(Duration::from_secs(3));
    let one = world.worker(&task).await;
    let two = world.worker(&task).await;
    for worker in [one.id(), two.id()] {
        let runs =
            world.hatchet.run_many(&task, (0..4).map(|n| Number { n })).desired_worker(worker).start().await.unwrap();
        for run in runs {
            assert_eq!(worker_of(&run.unwrap()).await, worker);
        }
        let run = world.hatchet.run(&task, &Number { n: 1 }).desired_worker(worker).start().await.unwrap();
        assert_eq!(worker_of(&run).await, worker);
    }
    // One that is not there is waited for, in vain.
    let nobody: WorkerId = "00000000-0000-4000-8000-000000000000".parse().unwrap();
    let run = world.hatchet.run(&task, &Number { n: 1 }).desired_worker(nobody).start().await.unwrap();
    let Outcome::TimedOut(timeout) = run.outcome().await.unwrap() else { panic!("it was run by another") };
    assert_eq!(timeout.kind, TimeoutKind::Schedule);
    one.shutdown().await;
    two.shutdown().await;
}

async fn c8_desired_labels_decide_where_a_run_goes(world: World) {
    let task = double(world.name("double")).schedule_timeout(Duration::from_secs(20)).desired_label("size", "small");
    let start = async |name: &str, size: &str, memory: i32| {
        let worker = world.hatchet.worker(world.name(name)).label("size", size).label("memory", memory).register(&task);
        worker.build().unwrap().start().await.unwrap()
    };
    let (small, large) = (start("small", "small", 8).await, start("large", "large", 64).await);
    let run = |label: Option<DesiredLabel>| {
        let run = world.hatchet.run(&task, &Number { n: 1 });
        match label {
            Some(label) => run.desired_label("size", label),
            None => run,
        }
    };
    // It takes the real engine seconds to see labels: who only likes one would be given away before that.
    for (size, worker) in [("small", &small), ("large", &large)] {
        let wish = DesiredLabel::equal(size).required();
        assert_eq!(worker_of(&run(Some(wish)).start().await.unwrap()).await, worker.id());
    }
    for _ in 0..3 {
        assert_eq!(worker_of(&run(None).start().await.unwrap()).await, small.id(), "the task's own wish");
        let wish = DesiredLabel::equal("large").required();
        assert_eq!(worker_of(&run(Some(wish)).start().await.unwrap()).await, large.id(), "the run's wish");
        let roomy = run(Some("large".into())).desired_label("memory", DesiredLabel::at_least(64).required());
        assert_eq!(worker_of(&roomy.start().await.unwrap()).await, large.id());
    }
    let many = world
        .hatchet
        .run_many(&task, (0..3).map(|n| Number { n }))
        .desired_label("size", "large")
        .start()
        .await
        .unwrap();
    for run in many {
        assert_eq!(worker_of(&run.unwrap()).await, large.id());
    }
    let nobody = run(Some(DesiredLabel::equal("medium").required())).start().await.unwrap();
    assert!(matches!(nobody.outcome().await.unwrap(), Outcome::TimedOut(_)));
    small.shutdown().await;
    large.shutdown().await;
}

/// A key of this row alone.
fn key(world: &World) -> String {
    format!("'{}:' + input.id", world.name("k"))
}

async fn b8_a_trigger_can_be_made_safe_to_repeat(world: World) {
    let minute = Duration::from_secs(60);
    let task = endless(world.name("endless")).idempotency(Idempotency::for_time(key(&world), minute));
    let worker = world.worker(&task).await;
    let any: WorkflowRef<Value, Doubled> = WorkflowRef::new(task.name());
    let input = json!({"n": 1, "id": "a"});
    let run = world.hatchet.run(&any, &input).start().await.unwrap();
    // Whoever does not know whether that has happened asks again, and is told.
    let error = world.hatchet.run(&any, &input).start().await.unwrap_err();
    assert_eq!((error.kind(), error.existing_run()), (ErrorKind::AlreadyExists, Some(run.id())));
    assert!(error.has_no_side_effects() && error.to_string().contains(&run.id().to_string()), "{error}");
    // Another key is another run.
    let other = world.hatchet.run(&any, &json!({"n": 1, "id": "b"})).start().await.unwrap();
    assert_ne!(other.id(), run.id());
    // A key that cannot be had is a run that never exists.
    let phantom = world.hatchet.run(&any, &json!({"n": 1})).start().await.unwrap();
    assert_eq!(phantom.outcome().await.unwrap_err().kind(), ErrorKind::RunNotFound);
    drop(worker);
}

async fn b8_a_key_is_free_when_its_run_has_ended(world: World) {
    let minute = Duration::from_secs(60);
    let task = double(world.name("double")).idempotency(Idempotency::until_ended(key(&world), minute));
    let worker = world.worker(&task).await;
    let any: WorkflowRef<Value, Doubled> = WorkflowRef::new(task.name());
    let mut ids = HashSet::new();
    for n in 0..3 {
        let run = world.hatchet.run(&any, &json!({"n": n, "id": "a"})).start().await.unwrap();
        run.result().await.unwrap();
        ids.insert(run.id());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(ids.len(), 3);
    worker.shutdown().await;
}

async fn b8_of_many_each_collision_names_the_run_that_won(world: World) {
    let minute = Duration::from_secs(60);
    let task = endless(world.name("endless")).idempotency(Idempotency::for_time(key(&world), minute));
    let worker = world.worker(&task).await;
    let any: WorkflowRef<Value, Doubled> = WorkflowRef::new(task.name());
    let held = world.hatchet.run(&any, &json!({"n": 0, "id": "held"})).start().await.unwrap();
    let inputs = [
        json!({"n": 1, "id": "a"}),
        json!({"n": 2, "id": "held"}),
        json!({"n": 3, "id": "b"}),
        json!({"n": 4, "id": "a"}),
        json!({"n": 5}),
        json!({"n": 6, "id": "c"}),
        json!({"n": 6, "id": "c"}),
    ];
    let runs = world.hatchet.run_many(&any, inputs.clone()).start().await.unwrap();
    let ids: Vec<Option<RunId>> = runs.iter().map(|run| run.as_ref().ok().map(RunHandle::id)).collect();
    for at in [0, 2, 5] {
        // Of two with one key the engine starts either; which, the input tells.
        let run = runs[at].as_ref().or(runs[if at == 0 { 3 } else { at }].as_ref()).unwrap();
        let input: Value = run.details().await.unwrap().input.parse().unwrap();
        assert!(input == inputs[at] || at == 0 && input == inputs[3], "{at}: {input}");
    }
    let existing = |at: usize| runs[at].as_ref().unwrap_err().existing_run();
    assert_eq!(existing(1), Some(held.id()));
    let (won, lost) = if ids[0].is_some() { (0, 3) } else { (3, 0) };
    assert_eq!(existing(lost), ids[won]);
    assert_eq!((existing(6), ids[6]), (ids[5], None));
    let error = runs[4].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("cannot be evaluated"), "{error}");
    drop(worker);
}
