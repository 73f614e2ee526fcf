//! Planned faults, on virtual time.

use futures_util::StreamExt as _;
use hatchet::embedded::{Engine, Fault, Faults};
use hatchet::model::Window;
use hatchet::worker::RunningWorker;
use hatchet::{Client, ErrorKind, RunFilter};

use super::*;

/// The streams and the calls of those who follow runs.
pub(crate) const STREAMS: [&str; 2] = ["SubscribeToWorkflowRuns", "SubscribeToWorkflowEvents"];
const READS: [&str; 3] = [
    "GET /api/v1/stable/workflow-runs/{run}",
    "GET /api/v1/stable/tasks/{task}/task-events",
    "GET /api/v1/stable/tenants/{tenant}/workflow-runs",
];

pub(crate) struct Setup {
    pub(crate) engine: Engine,
    pub(crate) hatchet: Client,
    pub(crate) worker: RunningWorker,
}

impl Setup {
    pub(crate) async fn new() -> Self {
        let engine = Engine::start().await.unwrap();
        let hatchet = engine.client();
        let worker = support::start_worker(&hatchet, &talk()).await;
        // The first run of a workflow is confirmed by a call.
        hatchet.run(&talk(), &Input { chunks: 0, millis: 0 }).result().await.unwrap();
        Self { engine, hatchet, worker }
    }

    async fn start(&self, input: Input) -> RunHandle<u64> {
        self.hatchet.run(&talk(), &input).metadata("tag", "a").start().await.unwrap()
    }

    fn reject(&self, grpc: u16, rest: u16) {
        reject(&self.engine, grpc, rest);
    }
}

/// From now on, the server rejects everything that those who follow runs need.
pub(crate) fn reject(engine: &Engine, grpc: u16, rest: u16) {
    for call in STREAMS.into_iter().chain(["GetRunDetails"]) {
        engine.faults().inject_always(call, Fault::RejectGrpc(grpc)).unwrap();
    }
    for call in READS {
        engine.faults().inject_always(call, Fault::RejectRest(rest)).unwrap();
    }
    for stream in STREAMS {
        engine.faults().interrupt(stream).unwrap();
    }
}

/// The engine is stopped and started again: it has lost all subscriptions, and does not respond for some time.
#[tokio::test(start_paused = true)]
async fn a_restarted_engine_is_subscribed_to_again() {
    for downtime in [SECOND, 60 * SECOND] {
        let setup = Setup::new().await;
        let input = Input { chunks: 100, millis: 1000 };
        let run = setup.start(input).await;
        let restart = async {
            sleep(5 * SECOND).await;
            setup.engine.restart_after(downtime).await.unwrap();
        };
        let (received, ()) = tokio::join!(follow(&run), restart);
        received.check(input);
        // What was sent in between is in a gap.
        let arrived = received.check_chunks();
        assert!(arrived.contains(&1) && arrived.contains(&99), "{arrived:?}");
        setup.worker.shutdown().await;
    }
}

/// UNAVAILABLE for a minute.
#[tokio::test(start_paused = true)]
async fn an_outage_of_a_minute_is_not_reported() {
    let setup = Setup::new().await;
    let input = Input { chunks: 80, millis: 1000 };
    let run = setup.start(input).await;
    let outage = async {
        sleep(10 * SECOND).await;
        setup.reject(14, 503);
        sleep(60 * SECOND).await;
        setup.engine.faults().clear();
    };
    let (received, tagged, ()) = tokio::join!(follow(&run), states_with_tag(&setup.hatchet, "a", 1), outage);
    received.check(input);
    assert_eq!(tagged, completed());
    for (at, _) in &received.results {
        assert_eq!(at.as_secs(), 80, "as soon as the run has ended");
    }
    assert!(received.watched_for < 81 * SECOND, "{:?}", received.watched_for);
    let arrived = received.check_chunks();
    assert_eq!(arrived.last(), Some(&79));
    let missing: Vec<_> = (0..80).filter(|number| !arrived.contains(number)).collect();
    // The engine does not store chunks. The pause before the stream is reopened is at most 5 seconds.
    assert!(missing.iter().all(|number| (10..76).contains(number)), "{missing:?}");
    assert!(!received.is_interrupted(), "the gap says what is missing");
    setup.worker.shutdown().await;
}

/// UNAVAILABLE for an hour.
#[tokio::test(start_paused = true)]
async fn an_outage_of_an_hour_is_not_reported() {
    let setup = Setup::new().await;
    let input = Input { chunks: 4000, millis: 1000 };
    let run = setup.start(input).await;
    let outage = async {
        sleep(10 * SECOND).await;
        setup.reject(14, 503);
        sleep(3600 * SECOND).await;
        setup.engine.faults().clear();
    };
    let (received, tagged, ()) = tokio::join!(follow(&run), states_with_tag(&setup.hatchet, "a", 1), outage);
    received.check(input);
    assert_eq!(tagged, completed());
    for (at, _) in &received.results {
        assert_eq!(at.as_secs(), 4000, "as soon as the run has ended");
    }
    let arrived = received.check_chunks();
    assert!(arrived.contains(&9) && arrived.contains(&3620) && arrived.last() == Some(&3999), "{arrived:?}");
    setup.worker.shutdown().await;
}

/// The engine rejects valid tokens while its database is away.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_rejected_for_a_while_is_not_reported() {
    let setup = Setup::new().await;
    let input = Input { chunks: 60, millis: 1000 };
    let run = setup.start(input).await;
    let outage = async {
        sleep(10 * SECOND).await;
        setup.reject(16, 503);
        sleep(30 * SECOND).await;
        setup.engine.faults().clear();
    };
    let (received, tagged, ()) = tokio::join!(follow(&run), states_with_tag(&setup.hatchet, "a", 1), outage);
    received.check(input);
    assert_eq!(tagged, completed());
    assert!(received.check_chunks().contains(&59));
    setup.worker.shutdown().await;
}

/// An expired token. It was accepted before, so its rejection is transient for five minutes.
#[tokio::test(start_paused = true)]
async fn an_expired_token_is_reported_to_everyone_after_five_minutes() {
    let setup = Setup::new().await;
    let run = setup.start(Input { chunks: 1000, millis: 1000 }).await;
    let outage = async {
        sleep(10 * SECOND).await;
        setup.reject(16, 403);
    };
    let (received, ()) = tokio::join!(follow(&run), outage);
    // The rejections begin after ten seconds, and the last try is up to five seconds later.
    let range = 310 * SECOND..=316 * SECOND;
    for (after, result) in &received.results {
        assert_eq!(result.as_ref().unwrap_err().kind(), ErrorKind::Unauthenticated, "{result:?}");
        assert!(range.contains(after), "{after:?}");
    }
    // A watch counts from the end of its first failed fetch to that of a later one. A fetch is repeated for a minute, and each of its calls for
    // half a minute.
    // Before, a list is requested for a minute.
    let (list, fetch) = (100 * SECOND, 92 * SECOND);
    assert!(
        (310 * SECOND..=310 * SECOND + list + 2 * fetch).contains(&received.watched_for),
        "{:?}",
        received.watched_for
    );
    for error in [received.watch_error.unwrap(), received.chunks_error.unwrap()] {
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
    }
    setup.engine.faults().clear();
    setup.worker.shutdown().await;
}

/// A server that restarts again and again: each stream is lost after half a second, or ends without an error, and calls fail in between.
#[tokio::test(start_paused = true)]
async fn streams_that_are_lost_again_and_again_lose_nobody() {
    for close in [Faults::interrupt, Faults::end] {
        lose_again_and_again(close).await;
    }
}

async fn lose_again_and_again(close: fn(&Faults, &str) -> hatchet::Result<usize>) {
    let setup = Setup::new().await;
    let input = Input { chunks: 40, millis: 500 };
    let run = setup.start(input).await;
    let losses = async {
        for _ in 0..30 {
            sleep(SECOND / 2).await;
            for stream in STREAMS {
                close(setup.engine.faults(), stream).unwrap();
            }
            setup.engine.faults().inject("GetRunDetails", Fault::RejectGrpc(14)).unwrap();
            setup.engine.faults().inject(READS[2], Fault::RejectRest(502)).unwrap();
        }
    };
    let (received, tagged, ()) = tokio::join!(follow(&run), states_with_tag(&setup.hatchet, "a", 1), losses);
    received.check(input);
    assert_eq!(tagged, completed());
    assert_eq!(received.check_chunks().last(), Some(&39));
    setup.worker.shutdown().await;
}

/// The last chunks of a run were sent during an outage, so that no later one shows that they are missing.
#[tokio::test(start_paused = true)]
async fn chunks_that_may_be_missing_at_the_end_are_reported() {
    // The pause before the stream is reopened is at most 5 seconds.
    for (outage, expected) in [(1..3, false), (7..12, true), (12..13, false)] {
        let setup = Setup::new().await;
        let input = Input { chunks: 10, millis: 1000 };
        let run = setup.start(input).await;
        let outage = async {
            sleep(outage.start * SECOND + SECOND / 2).await;
            setup.reject(14, 503);
            sleep((outage.end - outage.start) * SECOND).await;
            setup.engine.faults().clear();
        };
        let (received, ()) = tokio::join!(follow(&run), outage);
        received.check(input);
        received.check_chunks();
        assert_eq!(received.is_interrupted(), expected, "{:?}", received.chunks);
        setup.worker.shutdown().await;
    }
}

/// A child sends chunks while the subscription is lost, of which nothing else shows anything: its parent sends another chunk later.
#[tokio::test(start_paused = true)]
async fn a_child_that_may_have_sent_chunks_during_a_loss_is_reported() {
    for (lost, expected) in [(false, &["a", "0", "b"][..]), (true, &["a", "b", "interrupted"])] {
        let setup = Setup::new().await;
        let parent = Task::new("parent", async |(): (), context: Context| {
            context.put("a").await?;
            sleep(3 * SECOND).await;
            context.run(&talk(), &Input { chunks: 1, millis: 10 }).result().await?;
            sleep(10 * SECOND).await;
            context.put("b").await?;
            Ok(())
        });
        let worker = setup.hatchet.worker("parents").register(&parent).build().unwrap().start().await.unwrap();
        let mut chunks = setup.hatchet.run(&parent, &()).chunks().with_children();
        let loss = async {
            sleep(2 * SECOND).await;
            if lost {
                setup.reject(14, 503);
                sleep(3 * SECOND).await;
                setup.engine.faults().clear();
            }
        };
        let (items, ()) = tokio::join!(read_items(&mut chunks), loss);
        assert_eq!(items.iter().map(text).collect::<Vec<_>>(), expected);
        worker.shutdown().await;
        setup.worker.shutdown().await;
    }
}

/// Another run with the same tag sends a chunk, and the request that finds its parent is rejected for good.
#[tokio::test(start_paused = true)]
async fn a_run_whose_parent_cannot_be_looked_up_does_not_end_the_stream() {
    let setup = Setup::new().await;
    let run = setup.start(Input { chunks: 3, millis: 5000 }).await;
    // Of the first chunk.
    sleep(SECOND).await;
    let mut chunks = run.chunks().with_children();
    let other = async {
        sleep(2 * SECOND).await;
        setup.engine.faults().inject(READS[0], Fault::RejectRest(400)).unwrap();
        setup.start(Input { chunks: 2, millis: 10 }).await;
    };
    let (items, ()) = tokio::join!(read_items(&mut chunks), other);
    let [ChunkItem::Gap(gap), ChunkItem::Chunk(one), ChunkItem::Chunk(two), ChunkItem::Interrupted] = &items[..] else {
        panic!("{items:?}")
    };
    assert_eq!((gap.first_index, gap.last_index, one.index, two.index), (0, 0, Some(1), Some(2)));
    assert_eq!((chunks.dropped_chunks(), setup.engine.faults().planned()), (1, 0), "it may be of a child");
    setup.worker.shutdown().await;
}

/// A reader that is too slow for a run that sends more than 8192 chunks, of which the last ones are dropped. The run is started by the first
/// poll, and read when it has ended.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_learns_that_the_last_chunks_were_dropped() {
    const CHUNKS: u64 = 9000;
    let setup = Setup::new().await;
    let input = Input { chunks: CHUNKS, millis: 1 };
    let mut chunks = setup.hatchet.run(&talk(), &input).chunks();
    assert!(matches!(chunks.next().await, Some(Ok(ChunkItem::Chunk(_)))));
    sleep(60 * SECOND).await;
    let mut received = 1;
    let mut items = Vec::new();
    while let Some(item) = chunks.next().await {
        match item.unwrap() {
            ChunkItem::Chunk(_) => received += 1,
            item => items.push(item),
        }
    }
    assert_eq!((items, received + chunks.dropped_chunks()), (vec![ChunkItem::Interrupted], CHUNKS));
    assert!(received < CHUNKS, "{received}");
    // The same as server-sent events.
    let mut frames = setup.hatchet.run(&talk(), &input).chunks().into_sse();
    let mut last = vec![frames.next().await.unwrap()];
    sleep(60 * SECOND).await;
    while let Some(frame) = frames.next().await {
        last.push(frame);
    }
    let named: Vec<_> = last.iter().filter(|frame| !frame.starts_with("data:") && !frame.starts_with("id:")).collect();
    let expected = ["event: interrupted\ndata: chunks may be missing\n\n", "event: end\ndata: COMPLETED\n\n"];
    assert_eq!(named, expected);
    assert_eq!(frames.dropped_chunks() + last.len() as u64 - 2, CHUNKS);
    // Those that are dropped before later ones are a gap.
    let mut chunks = setup.hatchet.run(&talk(), &Input { chunks: 2 * CHUNKS, millis: 1 }).chunks();
    chunks.next().await.unwrap().unwrap();
    sleep(9 * SECOND).await;
    let (mut received, mut missing) = (1, 0);
    while let Some(item) = chunks.next().await {
        match item.unwrap() {
            ChunkItem::Chunk(_) => received += 1,
            ChunkItem::Gap(gap) => missing += u64::try_from(gap.last_index - gap.first_index + 1).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((missing, received + missing), (chunks.dropped_chunks(), 2 * CHUNKS));
    setup.worker.shutdown().await;
}

/// The server rejects the subscription to events for good, and everything else works.
#[tokio::test(start_paused = true)]
async fn a_rejected_subscription_to_chunks_is_an_error() {
    let setup = Setup::new().await;
    let input = Input { chunks: 6, millis: 1000 };
    setup.engine.faults().inject_always("SubscribeToWorkflowEvents", Fault::RejectGrpc(12)).unwrap();
    let run = setup.start(input).await;
    let started = async || setup.hatchet.runs(RunFilter::new(Window::all())).count().await;
    let before = started().await.unwrap();
    let mut of_handle = run.chunks();
    let mut of_builder = setup.hatchet.run(&talk(), &input).chunks();
    for chunks in [&mut of_handle, &mut of_builder] {
        let error = chunks.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unimplemented, "{error}");
        assert!(chunks.next().await.is_none());
    }
    assert_eq!(of_handle.started().await.unwrap().id(), run.id());
    assert_eq!(of_builder.started().await.unwrap_err().kind(), ErrorKind::Closed, "the error was returned");
    let mut of_builder = setup.hatchet.run(&talk(), &input).chunks();
    assert_eq!(of_builder.started().await.unwrap_err().kind(), ErrorKind::Unimplemented);
    assert!(of_builder.next().await.is_none());
    assert_eq!((of_builder.run_id(), started().await.unwrap()), (None, before), "it was not started");
    // Status changes are listed.
    let states: Vec<_> = run.watch().map(|change| change.unwrap().to_string()).collect().await;
    assert_eq!(states, completed());
    setup.worker.shutdown().await;
}

/// Without REST, the end of the run is not known. The chunks that the subscription receives are returned before the error.
#[tokio::test(start_paused = true)]
async fn chunks_are_returned_while_rest_rejects_all_requests() {
    let setup = Setup::new().await;
    for call in READS {
        setup.engine.faults().inject_always(call, Fault::RejectRest(400)).unwrap();
    }
    let mut chunks = setup.hatchet.run(&talk(), &Input { chunks: 20, millis: 1000 }).chunks();
    let (start, mut texts) = (Instant::now(), Vec::new());
    let error = loop {
        match chunks.next().await.unwrap() {
            Ok(item) => texts.push(text(&item)),
            Err(error) => break error,
        }
    };
    assert_eq!(texts, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!(chunks.next().await.is_none());
    // The end is announced after 20 seconds.
    assert!((21..23).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    setup.worker.shutdown().await;
}

/// The subscription cannot be opened before the run is started, nor before it has ended.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_started_without_a_subscription_says_so() {
    let setup = Setup::new().await;
    setup.engine.faults().inject_always("SubscribeToWorkflowEvents", Fault::RejectGrpc(14)).unwrap();
    let mut chunks = setup.hatchet.run(&talk(), &Input { chunks: 3, millis: 10 }).chunks();
    assert_eq!(chunks.next().await.unwrap().unwrap(), ChunkItem::Interrupted);
    assert!(chunks.next().await.is_none());
    assert_eq!(chunks.status(), Some(hatchet::RunStatus::Completed));
    setup.worker.shutdown().await;
}

/// A result that is too large for a message of the client ends the stream, and which one it was is not known. So all waits fetch their run
/// once, and those whose run has not ended continue on another stream. The large one is not asked for again.
#[tokio::test(start_paused = true)]
async fn a_result_that_is_too_large_costs_each_wait_one_fetch() {
    const WAITS: usize = 20;
    const PLANNED: usize = 1000;
    let engine = Engine::start().await.unwrap();
    let config = hatchet::Config::builder().max_recv_message_length(100_000);
    let hatchet = engine.client_with(config).unwrap();
    let task = Task::new("task", async |input: Input, _: Context| {
        sleep(Duration::from_millis(input.millis)).await;
        Ok("x".repeat(usize::try_from(input.chunks).unwrap()))
    });
    let worker = hatchet.worker("worker").slots(100).register(&task).build().unwrap().start().await.unwrap();
    let start = async |chunks, millis| hatchet.run(&task, &Input { chunks, millis }).start().await.unwrap();
    let mut runs = vec![start(200_000, 5_000).await];
    for _ in 0..WAITS {
        runs.push(start(0, 10_000).await);
    }
    let calls = ["SubscribeToWorkflowRuns", READS[0]];
    for call in calls {
        engine.faults().inject_times(call, Fault::Delay(Duration::ZERO), PLANNED).unwrap();
    }
    let mut results = hatchet.results(&runs);
    let mut lengths = Vec::new();
    while let Some((_, result)) = results.next().await {
        lengths.push(result.unwrap().len());
    }
    assert_eq!((lengths[0], lengths[1..].iter().sum::<usize>(), lengths.len()), (200_000, 0, WAITS + 1));
    assert_eq!(2 * PLANNED - engine.faults().planned(), 2 + WAITS + 1, "two streams, and each run is fetched once");
    engine.faults().clear();
    worker.shutdown().await;
}

/// The first run of a workflow is confirmed by a request, which is slow here. The subscription is lost meanwhile, and a chunk with it. The end
/// of the attempt is announced on the next subscription, before the id of the run is known.
#[tokio::test(start_paused = true)]
async fn a_loss_while_the_run_is_being_started_is_reported() {
    let setup = Setup::new().await;
    let (engine, hatchet) = (&setup.engine, setup.engine.client());
    engine.faults().inject("GetRunDetails", Fault::Delay(5 * SECOND)).unwrap();
    let mut chunks = hatchet.run(&talk(), &Input { chunks: 2, millis: 1000 }).chunks();
    let loss = async {
        sleep(SECOND / 2).await;
        engine.faults().inject("SubscribeToWorkflowEvents", Fault::Delay(SECOND * 6 / 5)).unwrap();
        engine.faults().interrupt("SubscribeToWorkflowEvents").unwrap();
    };
    let (items, ()) = tokio::join!(read_items(&mut chunks), loss);
    let [ChunkItem::Chunk(first), ChunkItem::Interrupted] = &items[..] else { panic!("{items:?}") };
    assert_eq!((first.index, engine.faults().planned()), (Some(0), 0));
    setup.worker.shutdown().await;
}

/// The engine needs longer for the subscription than the client waits, and the first event that arrives is the end of the attempt.
#[tokio::test(start_paused = true)]
async fn a_subscription_that_begins_after_the_run_says_so() {
    for (delay, expected) in [
        (Duration::ZERO, vec!["0", "1"]),
        (SECOND / 2, vec!["chunk 0 is missing", "1"]),
        (2 * SECOND, vec!["interrupted"]),
    ] {
        let setup = Setup::new().await;
        let (engine, hatchet) = (&setup.engine, setup.engine.client());
        engine.faults().inject("SubscribeToWorkflowEvents", Fault::Delay(delay)).unwrap();
        let mut chunks = hatchet.run(&talk(), &Input { chunks: 2, millis: 1000 }).chunks();
        let items = read_items(&mut chunks).await;
        assert_eq!(items.iter().map(text).collect::<Vec<_>>(), expected, "{delay:?}");
        assert_eq!(engine.faults().planned(), 0);
        setup.worker.shutdown().await;
    }
}
