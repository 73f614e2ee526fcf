//! W: workers.

use hatchet::{Context, Outcome, RunHandle, Task};
use serde::{Deserialize, Serialize, Serializer};

use crate::tasks::{Doubled, Number, double, endless};
use crate::world::{World, expect_panics, rows};

rows! {
    w15_a_panic_anywhere_fails_the_task_and_not_the_worker,
    b11_shutting_down_tells_what_became_of_everything,
}

/// Cannot be read, and cannot be written.
#[derive(Deserialize)]
struct Cursed;

impl Serialize for Cursed {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("cannot be written")
    }
}

#[derive(Serialize)]
struct Curse;

impl<'de> Deserialize<'de> for Curse {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("cannot be read")
    }
}

async fn failure<O>(run: RunHandle<O>) -> String {
    match run.outcome().await.unwrap() {
        Outcome::Failed(failure) => failure.message,
        other => panic!("{other:?}"),
    }
}

async fn w15_a_panic_anywhere_fails_the_task_and_not_the_worker(world: World) {
    // The input's twice: the worker asks its type for what it reads, and then gives it an input.
    expect_panics(4);
    let code: Task<Number, Doubled> =
        Task::new(world.name("code"), async |_: Number, _: Context| panic!("in the code"));
    let input: Task<Curse, Doubled> =
        Task::new(world.name("input"), async |_: Curse, _: Context| Ok(Doubled { doubled: 1 }));
    let output: Task<Number, Cursed> = Task::new(world.name("output"), async |_: Number, _: Context| Ok(Cursed));
    let wrong: Task<Number, Doubled> = double(world.name("wrong"));
    let worker =
        world.hatchet.worker(world.name("worker")).register(&code).register(&input).register(&output).register(&wrong);
    let worker = worker.build().unwrap().start().await.unwrap();
    let hatchet = &world.hatchet;
    let n = Number { n: 1 };
    assert_eq!(failure(hatchet.run(&code, &n).start().await.unwrap()).await, "the task panicked: in the code");
    // Written as an empty object, by another type of the same name.
    let any = hatchet::workflow::WorkflowRef::<Number, Doubled>::new(input.name());
    assert_eq!(failure(hatchet.run(&any, &n).start().await.unwrap()).await, "the task panicked: cannot be read");
    assert_eq!(failure(hatchet.run(&output, &n).start().await.unwrap()).await, "the task panicked: cannot be written");
    // What is merely wrong is a failure, too, with the reason.
    let any = hatchet::workflow::WorkflowRef::<serde_json::Value, Doubled>::new(wrong.name());
    let text = failure(hatchet.run(&any, &serde_json::json!({"m": 1})).start().await.unwrap()).await;
    assert!(text.starts_with("cannot read the input: ") && text.contains("missing field `n`"), "{text}");
    assert_eq!(hatchet.run(&wrong, &n).start().await.unwrap().result().await.unwrap(), Doubled { doubled: 2 });
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.failed, report.total()), (1, 4, 5));
}

async fn b11_shutting_down_tells_what_became_of_everything(world: World) {
    let (fine, stuck) = (double(world.name("double")), endless(world.name("endless")));
    let worker = world
        .hatchet
        .worker(world.name("worker"))
        .register(&fine)
        .register(&stuck)
        .shutdown_grace_period(std::time::Duration::from_secs(1));
    let worker = worker.build().unwrap().start().await.unwrap();
    world.hatchet.run(&fine, &Number { n: 1 }).start().await.unwrap().result().await.unwrap();
    let left = world.hatchet.run(&stuck, &Number { n: 1 }).start().await.unwrap();
    let mut watch = left.watch();
    while *watch.next().await.unwrap().unwrap().status() != hatchet::RunStatus::Running {}
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.failed, report.cancelled), (1, 0, 0));
    assert_eq!((report.unfinished, report.unfinished_tasks.len()), (1, 1));
    assert_eq!(
        (report.unfinished_tasks[0].run_id, report.unfinished_tasks[0].attempt, report.unfinished_tasks[0].finished),
        (left.id(), 1, false)
    );
    assert_eq!(report.to_string(), "1 completed, 0 failed attempts, 0 cancelled, 1 unfinished");
}
