//! Lineage: parents and children, reruns, and from any of them to all of them.

use std::collections::HashSet;

use hatchet::model::Trigger;
use hatchet::worker::RunningWorker;
use hatchet::workflow::Definition;
use hatchet::{Context, ErrorKind, RunFilter, RunHandle, RunId, Task, TaskError, Workflow};
use serde::{Deserialize, Serialize};

use crate::tasks::{Doubled, Number, double};
use crate::world::{World, rows};

rows! {
    c5_ids_are_unique_and_lists_are_newest_first,
    c7_a_child_links_to_its_parent_and_back,
    c7_a_child_of_a_dags_task,
    c7_the_same_key_is_the_same_child,
    c7_a_retry_starts_no_child_twice,
    c7_children_are_counted_as_they_are_called_for,
    q8_by_parent_and_by_worker,
    b7_from_any_of_a_family_to_all_of_them,
}

/// What a parent ends with: its children.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Children {
    ids: Vec<RunId>,
}

/// Starts so many children, the first from a task of its own, and waits for them.
fn parent(name: &str, child: &Task<Number, Doubled>) -> Task<Number, Children> {
    let child = child.clone();
    Task::new(name, move |input: Number, context: Context| {
        let child = child.clone();
        async move {
            let (first, elsewhere) = (child.clone(), context.clone());
            let first = tokio::spawn(async move { elsewhere.run(&first, &Number { n: 0 }).start().await }).await??;
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

/// A worker for a parent and its children.
async fn at_work(world: &World, child: &Task<Number, Doubled>, parent: impl Into<Definition>) -> RunningWorker {
    let worker = world.hatchet.worker(world.name("worker")).register(child).register(parent);
    worker.build().unwrap().start().await.unwrap()
}

async fn c5_ids_are_unique_and_lists_are_newest_first(world: World) {
    let task = double(world.name("double"));
    world.worker(&task).await.shutdown().await;
    // A million ids are made in a test of the engine's own; here, as many runs as a test can wait for.
    let (count, bulk) = if world.engine.is_some() { (20_000, 5000) } else { (1500, 500) };
    let mut ids = HashSet::new();
    for _ in 0..count / bulk {
        let runs = world.hatchet.run_many(&task, vec![Number { n: 1 }; bulk]).start().await.unwrap();
        ids.extend(runs.into_iter().map(|run| run.unwrap().id()));
    }
    assert_eq!(ids.len(), count, "no id twice");
    let filter = RunFilter::new(world.window()).workflow(task.name());
    let page = async || world.hatchet.runs(filter.clone()).page(1000).await.unwrap().items;
    world.eventually(async || page().await.len() == 1000).await;
    world
        .eventually(async || {
            let (one, two) = (page().await, page().await);
            let ids = |rows: &[hatchet::model::RunSummary]| rows.iter().map(|row| row.id).collect::<Vec<_>>();
            ids(&one) == ids(&two) && one.is_sorted_by_key(|row| std::cmp::Reverse(row.created_at))
        })
        .await;
}

async fn c7_a_child_links_to_its_parent_and_back(world: World) {
    let child = double(world.name("child"));
    let parent = parent(&world.name("parent"), &child);
    let worker = at_work(&world, &child, &parent).await;
    let run = world.hatchet.run(&parent, &Number { n: 4 }).metadata("tenant", "acme").start().await.unwrap();
    let Children { ids } = run.result().await.unwrap();
    assert_eq!(ids.len(), 4);
    for id in &ids {
        let details = world.hatchet.run_handle(*id).typed::<Doubled>().details().await.unwrap();
        assert_eq!(details.parent_run_id(), Some(run.id()));
        let Trigger::Child(link) = &details.trigger else { panic!("{}", details.trigger) };
        assert_eq!(link.parent_task_id, run.id().into());
        assert_eq!(details.metadata["tenant"], "acme", "inherited");
    }
    let family = async || run.children().await.unwrap().into_iter().map(|child| child.id).collect::<HashSet<_>>();
    world.eventually(async || family().await == ids.iter().copied().collect()).await;
    assert_eq!(run.details().await.unwrap().parent_run_id(), None);
    worker.shutdown().await;
}

async fn c7_a_child_of_a_dags_task(world: World) {
    let child = double(world.name("child"));
    let (first, second) = (parent("first", &child), parent("second", &child));
    let flow: Workflow<Number> = Workflow::new(world.name("flow")).task(&first).task_after(&second, ["first"]);
    let worker = at_work(&world, &child, &flow).await;
    let run = world.hatchet.run(&flow, &Number { n: 2 }).start().await.unwrap();
    run.outcome().await.unwrap();
    let details = run.details().await.unwrap();
    for task in &details.tasks {
        let Children { ids } = task.output().unwrap().parse().unwrap();
        assert_eq!(ids.len(), 2, "each task counts its own");
        for id in ids {
            let child = world.hatchet.run_handle(id).typed::<Doubled>().details().await.unwrap();
            let Trigger::Child(link) = &child.trigger else { panic!("{}", child.trigger) };
            assert_eq!((link.parent_task_id, link.parent_run_id), (task.id, Some(run.id())));
        }
    }
    world.eventually(async || run.children().await.unwrap().len() == 4).await;
    worker.shutdown().await;
}

async fn c7_the_same_key_is_the_same_child(world: World) {
    let child = double(world.name("child"));
    let parent: Task<Number, Children> = Task::new(world.name("parent"), {
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
    let worker = at_work(&world, &child, &parent).await;
    let run = world.hatchet.run(&parent, &Number { n: 0 }).start().await.unwrap();
    let Children { ids } = run.result().await.unwrap();
    assert_eq!((ids[0] == ids[2], ids[0] == ids[1]), (true, false));
    // A key is of no use without a parent.
    let error = world.hatchet.run(&child, &Number { n: 1 }).child_key("one").start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    worker.shutdown().await;
}

async fn c7_a_retry_starts_no_child_twice(world: World) {
    let child = double(world.name("child"));
    let parent: Task<Number, Children> = Task::new(world.name("parent"), {
        let child = child.clone();
        move |_: Number, context: Context| {
            let child = child.clone();
            async move {
                // One that is not counted, and one that is never started, both in one attempt only.
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
                    return Err(TaskError::new("after its children"));
                }
                Ok(Children { ids: runs.iter().map(RunHandle::id).collect() })
            }
        }
    })
    .retries(1);
    let worker = at_work(&world, &child, &parent).await;
    let run = world.hatchet.run(&parent, &Number { n: 0 }).start().await.unwrap();
    let Children { ids } = run.result().await.unwrap();
    assert_eq!(run.details().await.unwrap().attempt(), 2);
    let family = async || run.children().await.unwrap();
    world.eventually(async || family().await.len() == 6).await;
    let family = family().await;
    assert!(family.iter().all(|child| child.attempt == 1), "each ran once");
    let found: HashSet<_> = family.into_iter().map(|child| child.id).collect();
    assert!(ids.len() == 5 && ids.iter().all(|id| found.contains(id)), "the same five in both attempts");
    worker.shutdown().await;
}

async fn c7_children_are_counted_as_they_are_called_for(world: World) {
    let child = double(world.name("child"));
    let parent: Task<Number, Vec<i64>> = Task::new(world.name("parent"), {
        let child = child.clone();
        move |_: Number, context: Context| {
            let child = child.clone();
            async move {
                let (one, two) =
                    (context.run(&child, &Number { n: 1 }).start(), context.run(&child, &Number { n: 2 }).start());
                // Polled in another order each time.
                let (one, two) = if context.attempt() == 1 {
                    let two = two.await?;
                    (one.await?, two)
                } else {
                    (one.await?, two.await?)
                };
                let doubled = vec![one.result().await?.doubled, two.result().await?.doubled];
                if context.attempt() == 1 { Err(TaskError::new("once more")) } else { Ok(doubled) }
            }
        }
    })
    .retries(1);
    let worker = at_work(&world, &child, &parent).await;
    let run = world.hatchet.run(&parent, &Number { n: 0 }).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), [2, 4], "each call has found its own child again");
    worker.shutdown().await;
}

async fn q8_by_parent_and_by_worker(world: World) {
    let child = double(world.name("child"));
    let parent = parent(&world.name("parent"), &child);
    let worker = at_work(&world, &child, &parent).await;
    let run = world.hatchet.run(&parent, &Number { n: 3 }).start().await.unwrap();
    let Children { ids } = run.result().await.unwrap();
    let by_parent = world.hatchet.runs(RunFilter::new(world.window()).parent(run.id()));
    world.eventually(async || by_parent.count().await.unwrap().to_string() == "3").await;
    let rows = by_parent.page(10).await.unwrap().items;
    assert_eq!(rows.iter().map(|row| row.id).collect::<HashSet<_>>(), ids.iter().copied().collect());
    assert!(rows.iter().all(|row| row.parent_task_id == Some(run.id().into())));
    assert_eq!(by_parent.counts_by_status().await.unwrap().total(), 3);
    // Tasks know their workers; runs do not.
    let by_worker = world.hatchet.tasks(RunFilter::new(world.window()).worker(worker.id()));
    world.eventually(async || by_worker.page(10).await.unwrap().items.len() == 4).await;
    let by_worker = world.hatchet.runs(RunFilter::new(world.window()).worker(worker.id())).page(10).await.unwrap_err();
    let by_parent = world.hatchet.tasks(RunFilter::new(world.window()).parent(run.id())).page(10).await.unwrap_err();
    for error in [by_worker, by_parent] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "criteria that the engine ignores are refused");
    }
    worker.shutdown().await;
}

async fn b7_from_any_of_a_family_to_all_of_them(world: World) {
    let child = double(world.name("child"));
    let key = world.name("event");
    let parent = parent(&world.name("parent"), &child).on_event(&key);
    let worker = at_work(&world, &child, &parent).await;
    let event = world.hatchet.push(&key, &Number { n: 2 }).send().await.unwrap();
    let started = async || event.runs().await.unwrap().first().map(RunHandle::id);
    world.eventually(async || started().await.is_some()).await;
    let run = world.hatchet.run_handle(started().await.unwrap()).typed::<Children>();
    let Children { ids } = run.result().await.unwrap();
    let again = run.rerun().start().await.unwrap();
    again.result().await.unwrap();
    // From the child up to the event and down to the rerun, and back.
    let of_child = world.hatchet.run_handle(ids[0]).typed::<Doubled>().details().await.unwrap();
    let up = world.hatchet.run_handle(of_child.parent_run_id().unwrap()).typed::<Children>();
    let Trigger::Event(link) = up.details().await.unwrap().trigger else { panic!() };
    assert_eq!(link.event_id, event.id());
    world.eventually(async || up.reruns().next().await.is_some_and(|rerun| rerun.unwrap().id == again.id())).await;
    let details = again.details().await.unwrap();
    assert_eq!((details.rerun_of(), &details.trigger), (Some(run.id()), &Trigger::Manual));
    // What a run's children inherit of its metadata makes them no reruns.
    world.eventually(async || again.children().await.unwrap().len() == 2).await;
    assert!(again.children().await.unwrap().iter().all(|child| child.rerun_of().is_none()));
    worker.shutdown().await;
}
