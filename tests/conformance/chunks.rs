//! B: chunks of tasks.

use std::time::Duration;

use hatchet::model::ChunkItem;
use hatchet::raw::pb::PutStreamEventRequest;
use hatchet::raw::pb::events_service_client::EventsServiceClient;
use hatchet::{Context, RunStatus, Task, TaskError, Workflow};

use crate::setup::{Setup, rows};
use crate::tasks::Number;

rows! {
    b13_chunks_of_retries_and_dags_are_in_order,
    b13_chunks_of_a_long_task_are_in_order,
    b13_the_end_of_a_run_does_not_overtake_its_last_chunks,
    b13_chunks_that_the_engine_loses_at_the_end_are_the_last_ones,
    b13_missing_chunks_are_a_gap,
    b13_chunks_of_children_are_returned_on_request,
    b13_chunks_of_other_sdks_are_returned,
    b13_chunks_of_runs_without_a_tag_are_returned,
}

const ONE: Number = Number { n: 1 };
const SECOND: Duration = Duration::from_secs(1);

/// The text of each chunk of a stream, and what it says about missing ones.
pub(crate) async fn texts<O>(mut chunks: hatchet::stream::RunChunks<O>) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(item) = chunks.next().await {
        match item.unwrap() {
            ChunkItem::Chunk(chunk) => texts.push(chunk.to_string()),
            ChunkItem::Gap(gap) => texts.push(gap.to_string()),
            ChunkItem::Interrupted => texts.push("interrupted".to_owned()),
            ChunkItem::Restart(_) => texts.push("restarted".to_owned()),
            other => panic!("{other:?}"),
        }
    }
    texts
}

async fn say(context: &Context, text: &str) {
    for number in 0..3 {
        context.put(format!("{text}{number}")).await.unwrap();
    }
    tokio::time::sleep(SECOND / 2).await;
}

async fn b13_chunks_of_retries_and_dags_are_in_order(setup: Setup) {
    let first = Task::new("first", async |_: Number, context: Context| {
        say(&context, &format!("a{}.", context.attempt())).await;
        if context.attempt() == 1 { Err(TaskError::new("once more")) } else { Ok(1) }
    })
    .retries(1);
    let last = Task::new("last", async |_: Number, context: Context| {
        say(&context, "b").await;
        Ok(1)
    });
    let flow: Workflow<Number> = Workflow::new(setup.name("flow")).task(&first).task_after(&last, ["first"]);
    let worker = setup.worker(&flow).await;
    let mut chunks = texts(setup.hatchet.run(&flow, &ONE).chunks()).await;
    // The engine announces the end of a DAG run too early, and ends the subscription. The stream cannot know that nothing was lost.
    if chunks.last().is_some_and(|last| last == "interrupted") {
        chunks.pop();
    }
    let three = |text: &str| (0..3).map(|number| format!("{text}{number}")).collect::<Vec<_>>();
    let expected = [three("a1."), vec!["restarted".to_owned()], three("a2."), three("b")].concat();
    assert_eq!(chunks, expected);
    worker.shutdown().await;
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// The engine orders the chunks of an attempt for five seconds.
async fn b13_chunks_of_a_long_task_are_in_order(setup: Setup) {
    let chat = Task::new(setup.name("chat"), async |Number { n }: Number, context: Context| {
        for number in 0..n {
            context.put(number.to_string()).await?;
            tokio::time::sleep(SECOND / 40).await;
        }
        Ok(())
    });
    let worker = setup.worker(&chat).await;
    let run = setup.hatchet.run(&chat, &Number { n: 320 });
    assert_eq!(texts(run.chunks()).await, numbers(320));
    worker.shutdown().await;
}

/// The engine sends the end of a run before chunks that were put just before it, and ends the stream. So the worker waits.
async fn b13_the_end_of_a_run_does_not_overtake_its_last_chunks(setup: Setup) {
    let chat = Task::new(setup.name("chat"), async |Number { n }: Number, context: Context| {
        for number in 0..n {
            context.put(number.to_string()).await?;
        }
        Ok(())
    });
    let worker = setup.worker(&chat).await;
    for count in 1..10 {
        let chunks = setup.hatchet.run(&chat, &Number { n: count }).chunks();
        assert_eq!(texts(chunks).await, numbers(usize::try_from(count).unwrap()));
    }
    worker.shutdown().await;
}

/// The workers of other SDKs do not wait, so chunks can be lost. Those that arrive are in order.
async fn b13_chunks_that_the_engine_loses_at_the_end_are_the_last_ones(setup: Setup) {
    let channel = setup.hatchet.raw_channel();
    let chat = Task::new(setup.name("chat"), move |_: Number, context: Context| {
        let mut events = EventsServiceClient::new(channel.clone());
        async move {
            for number in 0..20 {
                let task_run_external_id = context.task_id().to_string();
                let message = number.to_string().into_bytes();
                let request = PutStreamEventRequest {
                    task_run_external_id,
                    message,
                    event_index: Some(number),
                    ..Default::default()
                };
                events.put_stream_event(request).await.map_err(TaskError::new)?;
                tokio::time::sleep(SECOND / 20).await;
            }
            Ok(())
        }
    });
    let worker = setup.worker(&chat).await;
    let mut chunks = texts(setup.hatchet.run(&chat, &ONE).chunks()).await;
    if chunks.last().is_some_and(|last| last == "interrupted") {
        chunks.pop();
    }
    assert!(chunks.len() > 10 && numbers(20).starts_with(&chunks), "{chunks:?}");
    worker.shutdown().await;
}

async fn b13_missing_chunks_are_a_gap(setup: Setup) {
    let chat = Task::new(setup.name("chat"), async |_: Number, context: Context| {
        for number in 0..10 {
            context.put(format!("{number}")).await?;
            tokio::time::sleep(SECOND).await;
        }
        Ok(())
    });
    let worker = setup.worker(&chat).await;
    let run = setup.hatchet.run(&chat, &ONE).start().await.unwrap();
    tokio::time::sleep(4 * SECOND + SECOND / 2).await;
    // Another client, which finds the tag of the one that started the run.
    let other = setup.client_with(|config| config);
    let chunks = texts(other.run_handle(run.id()).chunks()).await;
    assert!(chunks[0].starts_with("chunks 0 to "), "{chunks:?}");
    let first: usize = chunks[0].split(' ').nth(3).unwrap().parse().unwrap();
    assert_eq!(chunks[1..], (first + 1..10).map(|number| number.to_string()).collect::<Vec<_>>());
    worker.shutdown().await;
}

async fn b13_chunks_of_children_are_returned_on_request(setup: Setup) {
    let grandchild = Task::new(setup.name("grandchild"), async |_: Number, context: Context| {
        say(&context, "c").await;
        Ok(1)
    });
    let child = Task::new(setup.name("child"), {
        let grandchild = grandchild.clone();
        move |_: Number, context: Context| {
            let grandchild = grandchild.clone();
            async move {
                say(&context, "b").await;
                Ok(context.run(&grandchild, &ONE).result().await?)
            }
        }
    });
    let parent = Task::new(setup.name("parent"), {
        let child = child.clone();
        move |_: Number, context: Context| {
            let child = child.clone();
            async move {
                tokio::time::sleep(SECOND).await;
                say(&context, "a").await;
                let result = context.run(&child, &ONE).result().await?;
                say(&context, "d").await;
                Ok(result)
            }
        }
    });
    // The children are started through another client than the run.
    let other = setup.client_with(|config| config);
    let worker = other.worker(setup.name("worker")).register(&parent).register(&child).register(&grandchild);
    let worker = worker.build().unwrap().start().await.unwrap();
    worker.ready().await.unwrap();
    let of = |names: &[&str]| -> Vec<_> {
        names.iter().flat_map(|name| (0..3).map(move |number| format!("{name}{number}"))).collect()
    };
    let (with, without, unrelated) = tokio::join!(
        texts(setup.hatchet.run(&parent, &ONE).chunks().with_children()),
        texts(setup.hatchet.run(&parent, &ONE).chunks()),
        texts(setup.hatchet.run(&parent, &ONE).chunks().with_children()),
    );
    assert_eq!((with, without, unrelated), (of(&["a", "b", "c", "d"]), of(&["a", "d"]), of(&["a", "b", "c", "d"])));
    // Of a run that was started before: by its own tag.
    let run = setup.hatchet.run(&parent, &ONE).metadata("chunks", setup.name("tag")).start().await.unwrap();
    assert_eq!(texts(run.chunks().with_children()).await, of(&["a", "b", "c", "d"]));
    worker.shutdown().await;
}

/// Their chunks have no numbers, or are not UTF-8, which ends the engine's streams.
async fn b13_chunks_of_other_sdks_are_returned(setup: Setup) {
    let channel = setup.hatchet.raw_channel();
    let chat = Task::new(setup.name("chat"), move |_: Number, context: Context| {
        let mut events = EventsServiceClient::new(channel.clone());
        async move {
            tokio::time::sleep(2 * SECOND).await;
            for message in [&b"a"[..], b"\xff", b"b"] {
                let task_run_external_id = context.task_id().to_string();
                let message = message.to_vec();
                let request = PutStreamEventRequest { task_run_external_id, message, ..Default::default() };
                events.put_stream_event(request).await.map_err(TaskError::new)?;
                tokio::time::sleep(3 * SECOND).await;
            }
            Ok(())
        }
    });
    let worker = setup.worker(&chat).await;
    let chunks = texts(setup.hatchet.run(&chat, &ONE).chunks()).await;
    // The chunk ends the stream. Without the engine's defect, it is replaced.
    assert!(chunks == ["a", "interrupted", "b"] || chunks == ["a", "\u{fffd}", "b"], "{chunks:?}");
    worker.shutdown().await;
}

/// Other SDKs start runs without a tag. The engine ends a subscription by id with the first failed attempt.
async fn b13_chunks_of_runs_without_a_tag_are_returned(setup: Setup) {
    use hatchet::raw::pb::v1::TriggerWorkflowRequest;
    use hatchet::raw::pb::workflow_service_client::WorkflowServiceClient;

    let chat = Task::new(setup.name("chat"), async |_: Number, context: Context| {
        tokio::time::sleep(3 * SECOND).await;
        say(&context, &format!("{}.", context.attempt())).await;
        if context.attempt() == 1 { Err(TaskError::new("once more")) } else { Ok(1) }
    })
    .retries(1);
    let worker = setup.worker(&chat).await;
    let request = TriggerWorkflowRequest { name: setup.name("chat"), input: r#"{"n":1}"#.into(), ..Default::default() };
    let mut workflows = WorkflowServiceClient::new(setup.hatchet.raw_channel());
    let run = workflows.trigger_workflow(request).await.unwrap().into_inner().workflow_run_id.parse().unwrap();
    let mut chunks = setup.hatchet.run_handle(run).chunks();
    assert_eq!(chunks.run_id(), Some(run));
    let (mut received, mut index) = (Vec::new(), 0);
    while let Some(item) = chunks.next().await {
        let ChunkItem::Chunk(chunk) = item.unwrap() else { continue };
        index = if received.len() == 3 { 0 } else { index };
        assert_eq!(chunk.index, Some(index));
        index += 1;
        received.push(chunk.to_string());
    }
    assert_eq!(received, ["1.0", "1.1", "1.2", "2.0", "2.1", "2.2"]);
    assert_eq!(chunks.status(), Some(RunStatus::Completed));
    worker.shutdown().await;
}
