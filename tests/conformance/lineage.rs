//! Lineage: parents and children, events, reruns, and the links between them.

use std::collections::HashSet;

use hatchet::model::Trigger;
use hatchet::worker::RunningWorker;
use hatchet::workflow::Definition;
use hatchet::{Context, ErrorKind, RunFilter, RunHandle, RunId, Task, TaskError, Workflow};
use serde::{Deserialize, Serialize};

use crate::setup::{Setup, rows};
use crate::tasks::{Doubled, Number, double};

rows! {
    c5_ids_are_unique_and_lists_are_newest_first,
    c7_a_child_links_to_its_parent_and_back,
    c7_children_of_dag_tasks_link_to_their_task,
    c7_the_same_key_is_the_same_child,
    c7_retries_do_not_start_children_again,
    c7_child_indexes_follow_the_order_of_calls,
    q8_runs_are_found_by_parent_and_by_worker,
    b7_each_related_run_links_to_the_others,
}

/// The output of a parent: its children.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Children {
    ids: Vec<RunId>,
}

/// Starts `n` children, the first one from a separate Tokio task, and waits for them.
fn parent(name: &str, child: &Task<Number, Doubled>) -> Task<Number, Children> {
    let child = child.clone();
    Task::new(name, move |input: Number, context: Context| {
        let child = child.clone();
        async move {
            let (first, spawned_context) = (child.clone(), context.clone());
            let first =
                tokio::spawn(async move { spawned_context.run(&first, &Number { n: 0 }).start().await }).await??;
            let rest = context.run_many(&child, (1..input.n).map(|n| Number { n })).start().await?;
            let mut ids = vec![first.id()];
            first.result().await?;
            for run in rest {
                let run = run?;
                run.result().await?;
                ids.push(run.id());
            }
            Ok(Children { ids })
        }
    })
}

/// Starts a worker for a parent and its children.
async fn start_worker(setup: &Setup, child: &Task<Number, Doubled>, parent: impl Into<Definition>) -> RunningWorker {
    let worker = setup.hatchet.worker(setup.name("worker")).register(child).register(parent);
    worker.build().unwrap().start().await.unwrap()
}

async fn c5_ids_are_unique_and_lists_are_newest_first(setup: Setup) {
    let task = double(setup.name("double"));
    setup.worker(&task).await.shutdown().await;
    // A unit test of the embedded engine creates a million ids. This test creates as many runs as it can wait for.
    let (count, bulk) = if setup.engine.is_some() { (20_000, 5000) } else { (1500, 500) };
    let mut ids = HashSet::new();
    for _ in 0..count / bulk {
        let runs = setup.hatchet.run_many(&task, vec![Number { n: 1 }; bulk]).start().await.unwrap();
        ids.extend(runs.into_iter().map(|run| run.unwrap().id()));
    }
    assert_eq!(ids.len(), count, "ids are unique");
    let filter = RunFilter::new(setup.window()).workflow(task.name());
    let page = async || setup.hatchet.runs(filter.clone()).page(1000).await.unwrap().items;
    setup.eventually(async || page().await.len() == 1000).await;
    setup
        .eventually(async || {
            let (one, two) = (page().await, page().await);
            let ids = |rows: &[hatchet::model::RunSummary]| rows.iter().map(|row| row.id).collect::<Vec<_>>();
            ids(&one) == ids(&two) && one.is_sorted_by_key(|row| std::cmp::Reverse(row.created_at))
        })
        .await;
}

async fn c7_a_child_links_to_its_parent_and_back(setup: Setup) {
    let child = double(setup.name("child"));
    let parent = parent(&setup.name("parent"), &child);
    let worker = start_worker(&setup, &child, &parent).await;
    let run = setup.hatchet.run(&parent, &Number { n: 4 }).metadata("tenant", "acme").start().await.unwrap();
    let Children { ids } = run.result().await.unwrap();
    assert_eq!(ids.len(), 4);
    for id in &ids {
        let details = setup.hatchet.run_handle(*id).typed::<Doubled>().details().await.unwrap();
        assert_eq!(details.parent_run_id(), Some(run.id()));
        let Trigger::Child(link) = &details.trigger else { panic!("{}", details.trigger) };
        assert_eq!(link.parent_task_id, run.id().into());
        assert_eq!(details.metadata["tenant"], "acme", "inherited");
    }
    let children = async || run.children().await.unwrap().into_iter().map(|child| child.id).collect::<HashSet<_>>();
    setup.eventually(async || children().await == ids.iter().copied().collect()).await;
    assert_eq!(run.details().await.unwrap().parent_run_id(), None);
    worker.shutdown().await;
}

async fn c7_children_of_dag_tasks_link_to_their_task(setup: Setup) {
    let child = double(setup.name("child"));
    let (first, second) = (parent("first", &child), parent("second", &child));
    let flow: Workflow<Number> = Workflow::new(setup.name("flow")).task(&first).task_after(&second, ["first"]);
    let worker = start_worker(&setup, &child, &flow).await;
    let run = setup.hatchet.run(&flow, &Number { n: 2 }).start().await.unwrap();
    run.outcome().await.unwrap();
    let details = run.details().await.unwrap();
    for task in &details.tasks {
        let Children { ids } = task.output().unwrap().parse().unwrap();
        assert_eq!(ids.len(), 2, "each task has its own children");
        for id in ids {
            let child = setup.hatchet.run_handle(id).typed::<Doubled>().details().await.unwrap();
            let Trigger::Child(link) = &child.trigger else { panic!("{}", child.trigger) };
            assert_eq!((link.parent_task_id, link.parent_run_id), (task.id, Some(run.id())));
        }
    }
    setup.eventually(async || run.children().await.unwrap().len() == 4).await;
    worker.shutdown().await;
}

async fn c7_the_same_key_is_the_same_child(setup: Setup) {
    let child = double(setup.name("child"));
    let parent: Task<Number, Children> = Task::new(setup.name("parent"), {
        let child = child.clone();
        move |_: Number, context: Context| {
            let child = child.clone();
            async move {
                let mut ids = Vec::new();
                for (key, n) in [("one", 1), ("two", 2), ("one", 3)] {
                    let run = context.run(&child, &Number { n }).child_key(key).start().await?;
                    run.result().await?;
                    ids.push(run.id());
                }
                Ok(Children { ids })
            }
        }
    });
    let worker = start_worker(&setup, &child, &parent).await;
    let run = setup.hatchet.run(&parent, &Number { n: 0 }).start().await.unwrap();
    let Children { ids } = run.result().await.unwrap();
    assert_eq!((ids[0] == ids[2], ids[0] == ids[1]), (true, false));
    // A child key is rejected without a parent.
    let error = setup.hatchet.run(&child, &Number { n: 1 }).child_key("one").start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    worker.shutdown().await;
}

async fn c7_retries_do_not_start_children_again(setup: Setup) {
    let child = double(setup.name("child"));
    let parent: Task<Number, Children> = Task::new(setup.name("parent"), {
        let child = child.clone();
        move |_: Number, context: Context| {
            let child = child.clone();
            async move {
                // A child with a key has no index, and a child that is never started has none either.
                if context.attempt() == 1 {
                    context.run(&child, &Number { n: 9 }).child_key("extra").start().await?.result().await?;
                    drop(context.run(&child, &Number { n: 9 }));
                }
                let runs = context.run_many(&child, (0..5).map(|n| Number { n })).start().await?;
                let runs: Vec<RunHandle<_>> = runs.into_iter().collect::<Result<_, _>>()?;
                for run in &runs {
                    run.result().await?;
                }
                if context.attempt() == 1 {
                    return Err(TaskError::new("failed after its children"));
                }
                Ok(Children { ids: runs.iter().map(RunHandle::id).collect() })
            }
        }
    })
    .retries(1);
    let worker = start_worker(&setup, &child, &parent).await;
    let run = setup.hatchet.run(&parent, &Number { n: 0 }).start().await.unwrap();
    let Children { ids } = run.result().await.unwrap();
    assert_eq!(run.details().await.unwrap().attempt(), 2);
    let children = async || run.children().await.unwrap();
    setup.eventually(async || children().await.len() == 6).await;
    let children = children().await;
    assert!(children.iter().all(|child| child.attempt == 1), "each child ran once");
    let found: HashSet<_> = children.into_iter().map(|child| child.id).collect();
    assert!(ids.len() == 5 && ids.iter().all(|id| found.contains(id)), "both attempts have the same five children");
    worker.shutdown().await;
}

async fn c7_child_indexes_follow_the_order_of_calls(setup: Setup) {
    let child = double(setup.name("child"));
    let parent: Task<Number, Vec<i64>> = Task::new(setup.name("parent"), {
        let child = child.clone();
        move |_: Number, context: Context| {
            let child = child.clone();
            async move {
                let (one, two) =
                    (context.run(&child, &Number { n: 1 }).start(), context.run(&child, &Number { n: 2 }).start());
                // The order of polls differs between the attempts.
                let (one, two) = if context.attempt() == 1 {
                    let two = two.await?;
                    (one.await?, two)
                } else {
                    (one.await?, two.await?)
                };
                let doubled = vec![one.result().await?.doubled, two.result().await?.doubled];
                if context.attempt() == 1 { Err(TaskError::new("not yet")) } else { Ok(doubled) }
            }
        }
    })
    .retries(1);
    let worker = start_worker(&setup, &child, &parent).await;
    let run = setup.hatchet.run(&parent, &Number { n: 0 }).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), [2, 4], "each call returns its own child");
    worker.shutdown().await;
}

async fn q8_runs_are_found_by_parent_and_by_worker(setup: Setup) {
    let child = double(setup.name("child"));
    let parent = parent(&setup.name("parent"), &child);
    let worker = start_worker(&setup, &child, &parent).await;
    let run = setup.hatchet.run(&parent, &Number { n: 3 }).start().await.unwrap();
    let Children { ids } = run.result().await.unwrap();
    let by_parent = setup.hatchet.runs(RunFilter::new(setup.window()).parent(run.id()));
    setup.eventually(async || by_parent.count().await.unwrap().to_string() == "3").await;
    let rows = by_parent.page(10).await.unwrap().items;
    assert_eq!(rows.iter().map(|row| row.id).collect::<HashSet<_>>(), ids.iter().copied().collect());
    assert!(rows.iter().all(|row| row.parent_task_id == Some(run.id().into())));
    assert_eq!(by_parent.counts_by_status().await.unwrap().total(), 3);
    // Only lists of tasks can be filtered by worker.
    let by_worker = setup.hatchet.tasks(RunFilter::new(setup.window()).worker(worker.id()));
    setup.eventually(async || by_worker.page(10).await.unwrap().items.len() == 4).await;
    let by_worker = setup.hatchet.runs(RunFilter::new(setup.window()).worker(worker.id())).page(10).await.unwrap_err();
    let by_parent = setup.hatchet.tasks(RunFilter::new(setup.window()).parent(run.id())).page(10).await.unwrap_err();
    for error in [by_worker, by_parent] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "filters that the engine ignores are rejected");
    }
    worker.shutdown().await;
}

async fn b7_each_related_run_links_to_the_others(setup: Setup) {
    let child = double(setup.name("child"));
    let key = setup.name("event");
    let parent = parent(&setup.name("parent"), &child).on_event(&key);
    let worker = start_worker(&setup, &child, &parent).await;
    let event = setup.hatchet.push(&key, &Number { n: 2 }).send().await.unwrap();
    let started = async || event.runs().await.unwrap().first().map(RunHandle::id);
    setup.eventually(async || started().await.is_some()).await;
    let run = setup.hatchet.run_handle(started().await.unwrap()).typed::<Children>();
    let Children { ids } = run.result().await.unwrap();
    let rerun = run.rerun().start().await.unwrap();
    rerun.result().await.unwrap();
    // From the child to its parent, the event and the rerun, and back.
    let child_details = setup.hatchet.run_handle(ids[0]).typed::<Doubled>().details().await.unwrap();
    let parent_run = setup.hatchet.run_handle(child_details.parent_run_id().unwrap()).typed::<Children>();
    let Trigger::Event(link) = parent_run.details().await.unwrap().trigger else { panic!() };
    assert_eq!(link.event_id, event.id());
    setup
        .eventually(async || {
            parent_run.reruns().items().next().await.is_some_and(|listed| listed.unwrap().id == rerun.id())
        })
        .await;
    let details = rerun.details().await.unwrap();
    assert_eq!((details.original_run_id(), &details.trigger), (Some(run.id()), &Trigger::Manual));
    // Children inherit metadata from their parent, but they are not reruns.
    setup.eventually(async || rerun.children().await.unwrap().len() == 2).await;
    assert!(rerun.children().await.unwrap().iter().all(|child| child.original_run_id().is_none()));
    worker.shutdown().await;
}
