//! The operations, as a user of the SDK does them.

use std::hint::black_box;

use hatchet::workflow::WorkflowRef;
use hatchet::{Client, Context, Task};

use crate::work::{Input, Output, WORKFLOW, input};

fn workflow() -> WorkflowRef<Input, Output> {
    WorkflowRef::new(WORKFLOW)
}

pub(crate) async fn triggers(client: Client, count: usize) {
    let noop = workflow();
    for _ in 0..count {
        drop(black_box(client.run(&noop, &input()).start().await.unwrap()));
    }
}

pub(crate) async fn bulk(client: Client, count: usize) {
    let inputs = std::iter::repeat_with(input).take(count);
    let started = client.run_many(&workflow(), inputs).start().await.unwrap();
    assert!(black_box(started).iter().all(Result::is_ok));
}

pub(crate) async fn waits(client: Client, count: usize) {
    let noop = workflow();
    for _ in 0..count {
        assert!(client.run(&noop, &input()).start().await.unwrap().result().await.unwrap().ok);
    }
}

pub(crate) async fn watches(client: Client, count: usize) {
    let noop = workflow();
    for _ in 0..count {
        let (mut watch, mut changes) = (client.run(&noop, &input()).watch(), 0);
        while let Some(change) = watch.next().await {
            black_box(change.unwrap());
            changes += 1;
        }
        assert_eq!(changes, 3);
    }
}

pub(crate) async fn worker(client: Client, is_batching: bool, end: impl Future<Output = ()>) {
    let noop = Task::new(WORKFLOW, async |_: Input, _: Context| Ok(Output { ok: true }));
    let starting =
        client.worker("measured").slots(100).batch_reports(is_batching).register(&noop).build().unwrap().start();
    let running = Box::pin(starting).await.unwrap();
    println!("ready");
    end.await;
    drop(running);
}
