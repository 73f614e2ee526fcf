//! Events that are later than the end of their run, and those that the engine does not send, on virtual time.

use futures_util::future::join_all;
use hatchet::embedded::{Engine, Fault, Quirk, Quirks};
use hatchet::raw::pb::PutStreamEventRequest;
use hatchet::raw::pb::events_service_client::EventsServiceClient;
use hatchet::stream::RunChunks;
use hatchet::{TaskError, Workflow};

use super::faults::{STREAMS, Setup};
use super::*;

/// The items of a stream, and the milliseconds after which each arrived.
type Items = Vec<(u128, String)>;

/// Reads a stream. Returns its items, and after how many milliseconds it has ended.
async fn read<O>(mut chunks: RunChunks<O>) -> (Items, u128) {
    let (start, mut items) = (Instant::now(), Vec::new());
    while let Some(item) = chunks.next().await {
        items.push((start.elapsed().as_millis(), text(&item.unwrap())));
    }
    (items, start.elapsed().as_millis())
}

/// Starts a run that is active for longer than all others, so that the engine does not end the subscription of the client.
async fn keep_open(hatchet: &Client) {
    drop(hatchet.run(&talk(), &Input { chunks: 60, millis: 1000 }).start().await.unwrap());
}

/// The streams work, and all events are late: results and lists show the end of the run before the event that announces its start.
#[tokio::test(start_paused = true)]
async fn late_events_lose_nothing() {
    let chunks = |at: u128| (0..3).map(|number| (at + 1000 * number, number.to_string())).collect::<Vec<_>>();
    for (delay, expected, ended) in [
        // The run ends a second after its last chunk. Chunks may follow the announcement for another second.
        (2, chunks(2000), 6000),
        (8, chunks(8000), 12_000),
        // The end is known after four seconds, and the chunks are waited for for another ten.
        (40, vec![(14_000, "interrupted".to_owned())], 14_000),
    ] {
        let setup = Setup::new().await;
        let input = Input { chunks: 3, millis: 1000 };
        let mut of_builder = setup.hatchet.run(&talk(), &input).chunks();
        let run = of_builder.started().await.unwrap();
        let delayed = Fault::DelayMessage(delay * SECOND);
        setup.engine.faults().inject_for(STREAMS[1], delayed, 60 * SECOND).unwrap();
        let (received, of_builder) = tokio::join!(follow(&run), read(of_builder));
        received.check(input);
        assert!(received.results.iter().all(|(at, _)| at.as_secs() == 3), "{:?}", received.results);
        assert_eq!(received.watched_for, Duration::from_secs(4), "the first list after the end of the run");
        let texts: Vec<_> = expected.iter().map(|(_, text)| text.clone()).collect();
        assert_eq!(of_builder, (expected, ended), "delayed by {delay} seconds");
        // The other stream began after the start of the run.
        let of_handle = received.chunks.iter().map(text);
        assert_eq!(of_handle.collect::<Vec<_>>(), texts);
        setup.worker.shutdown().await;
    }
}

/// The result of the attempt before a replay arrives while the new attempt is awaited.
#[tokio::test(start_paused = true)]
async fn a_late_result_is_not_that_of_the_replay() {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<(), u32> = Task::new("task", async |(): (), context: Context| {
        sleep(4 * SECOND * context.attempt()).await;
        Ok(context.attempt())
    });
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&task, &()).start().await.unwrap();
    engine.faults().inject(STREAMS[0], Fault::DelayMessage(4 * SECOND)).unwrap();
    let first = async { (run.result().await.unwrap(), Instant::now()) };
    let second = async {
        sleep(5 * SECOND).await;
        let replayed = run.replay().send().await.unwrap().run;
        let waits_since = Instant::now();
        (replayed.result().await.unwrap(), waits_since)
    };
    let ((first, arrived), (second, waits_since)) = tokio::join!(first, second);
    assert!(waits_since < arrived, "the result of the first attempt arrives during the second wait");
    assert_eq!((first, second), (1, 2));
    worker.shutdown().await;
    engine.shutdown().await;
}

/// The end of a cancelled run is announced while the run is already running again: the wait is for the end of the new attempt.
#[tokio::test(start_paused = true)]
async fn a_late_cancellation_does_not_end_a_wait_for_a_run_that_is_running_again() {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<(), u32> = Task::new("task", async |(): (), context: Context| {
        sleep(if context.attempt() == 1 { 10 * SECOND } else { 600 * SECOND }).await;
        Ok(context.attempt())
    });
    let task = task.timeout(3600 * SECOND);
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&task, &()).start().await.unwrap();
    engine.faults().inject(STREAMS[0], Fault::DelayMessage(4 * SECOND)).unwrap();
    let replay = async {
        sleep(SECOND).await;
        run.cancel().send().await.unwrap();
        run.replay().include_cancelled().send().await.unwrap();
    };
    let start = Instant::now();
    let (result, ()) = tokio::join!(run.result(), replay);
    assert_eq!(result.unwrap(), 2, "after {:?}", start.elapsed());
    worker.shutdown().await;
    engine.shutdown().await;
}

/// The engine publishes a large chunk late, and ends its streams with the run. The worker waits.
#[tokio::test(start_paused = true)]
async fn a_large_chunk_at_the_end_of_a_run_is_not_lost() {
    let engine = Engine::builder().quirks(Quirk::LateChunks).start().await.unwrap();
    let hatchet = engine.client();
    let large = Task::new("large", async |(): (), context: Context| {
        context.put("small").await?;
        sleep(SECOND).await;
        context.put("x".repeat(5000)).await?;
        Ok(())
    });
    let worker = hatchet.worker("worker").register(&large).build().unwrap().start().await.unwrap();
    for _ in 0..5 {
        let (items, ended) = read(hatchet.run(&large, &()).chunks()).await;
        let [(_, small), (at, large)] = &items[..] else { panic!("{items:?}") };
        assert_eq!((small.as_str(), large.len()), ("small", 5000));
        // A subscription takes up to a quarter of a second.
        assert!((1100..2250).contains(at) && ended < 3500, "{at}, {ended}");
    }
    worker.shutdown().await;
    engine.shutdown().await;
}

/// All events are late, and so is a large chunk of another SDK, which does not wait: it arrives after the end of its attempt and that of its
/// run.
#[tokio::test(start_paused = true)]
async fn a_late_chunk_after_the_late_end_is_not_lost() {
    let engine = Engine::builder().quirks(Quirks::none().with(Quirk::LateChunks)).start().await.unwrap();
    let hatchet = engine.client();
    let large = Task::new("large", async |(): (), context: Context| {
        context.put("small").await?;
        sleep(SECOND).await;
        let chunk = PutStreamEventRequest {
            task_run_external_id: context.task_id().to_string(),
            message: "x".repeat(5000).into(),
            event_index: Some(1),
            ..Default::default()
        };
        EventsServiceClient::new(context.client().raw_channel()).put_stream_event(chunk).await.unwrap();
        Ok(())
    });
    let worker = hatchet.worker("worker").register(&large).register(&talk());
    let worker = worker.build().unwrap().start().await.unwrap();
    keep_open(&hatchet).await;
    for _ in 0..5 {
        let mut chunks = hatchet.run(&large, &()).chunks();
        let run = chunks.started().await.unwrap();
        let delayed = Fault::DelayMessage(5 * SECOND);
        engine.faults().inject_for(STREAMS[1], delayed, 5 * SECOND).unwrap();
        let (_, (items, ended)) = tokio::join!(run.outcome(), read(chunks));
        let [(_, small), (at, large)] = &items[..] else { panic!("{items:?}") };
        assert_eq!((small.as_str(), large.len()), ("small", 5000));
        assert!((6000..7000).contains(at), "{at}");
        assert_eq!(ended, at + 1000, "a second after the last event of the run");
    }
    worker.shutdown().await;
    engine.shutdown().await;
}

/// A worker reports results that it has at the same time in one call. Then the engine announces the ends of the runs only.
#[tokio::test(start_paused = true)]
async fn runs_that_end_together_are_not_reported_as_interrupted() {
    const CALLS: usize = 1000;
    const BATCH: &str = "SendBatchActionEvent";
    for is_kept_open in [true, false] {
        let setup = Setup::new().await;
        if is_kept_open {
            keep_open(&setup.hatchet).await;
        }
        setup.engine.faults().inject_times(BATCH, Fault::Delay(Duration::ZERO), CALLS).unwrap();
        let mut streams = Vec::new();
        for _ in 0..5 {
            let mut chunks = setup.hatchet.run(&talk(), &Input { chunks: 3, millis: 1000 }).chunks();
            chunks.started().await.unwrap();
            streams.push(chunks);
        }
        let expected: Items = (0..3).map(|number| (1000 * number, number.to_string())).collect();
        for (items, ended) in join_all(streams.into_iter().map(read)).await {
            // They end a second after their last chunk, and are fetched 50 ms later.
            assert_eq!((items, ended), (expected.clone(), 4050), "kept open: {is_kept_open}");
        }
        assert!(setup.engine.faults().planned() < CALLS, "results were reported together");
        setup.engine.faults().clear();
        setup.worker.shutdown().await;
    }
}

/// The engine does not announce the end of a task that is skipped.
#[tokio::test(start_paused = true)]
async fn a_skipped_task_is_not_waited_for() {
    for is_kept_open in [true, false] {
        let engine = Engine::start().await.unwrap();
        let hatchet = engine.client();
        let say = Task::new("say", async |(): (), context: Context| {
            context.put("a").await?;
            sleep(SECOND).await;
            Ok(())
        });
        let tidy = Task::new("tidy", async |(): (), _: Context| Ok(()));
        let flow = Workflow::<()>::new("flow").task(&say).on_failure(&tidy);
        let worker = hatchet.worker("worker").register(&flow).register(&talk());
        let worker = worker.build().unwrap().start().await.unwrap();
        if is_kept_open {
            keep_open(&hatchet).await;
        }
        let mut chunks = hatchet.run(&flow, &()).chunks();
        chunks.started().await.unwrap();
        assert_eq!(read(chunks).await, (vec![(0, "a".to_owned())], 2050), "kept open: {is_kept_open}");
        worker.shutdown().await;
        engine.shutdown().await;
    }
}

/// The attempts of a task that fails at once end at the same time. All of them are announced, also before a loss of the subscription.
#[tokio::test(start_paused = true)]
async fn attempts_that_end_at_the_same_time_are_not_waited_for() {
    for is_lost in [false, true] {
        let engine = Engine::start().await.unwrap();
        let hatchet = engine.client();
        let broken: Task<(), ()> = Task::new("broken", async |(): (), _: Context| Err(TaskError::new("broken")));
        let broken = broken.retries(2);
        let worker = hatchet.worker("worker").register(&broken);
        let worker = worker.build().unwrap().start().await.unwrap();
        let mut chunks = hatchet.run(&broken, &()).chunks();
        chunks.started().await.unwrap();
        let loss = async {
            sleep(SECOND / 2).await;
            if is_lost {
                assert_eq!(engine.faults().interrupt(STREAMS[1]).unwrap(), 1);
            }
        };
        let (received, ()) = tokio::join!(read(chunks), loss);
        assert_eq!(received, (vec![], 1050), "lost: {is_lost}");
        worker.shutdown().await;
        engine.shutdown().await;
    }
}
