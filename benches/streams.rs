//! Measures streams, against the raw stubs in the same process: chunks, their latency, run results while many others are waited for, many
//! results at once, and many watches. The goal for a run that is started and awaited is a ratio of at most 1.3.
//!
//! ```text
//! cargo bench --bench streams
//! ```
//!
//! Both sides use one thread and the embedded engine. Its work, and that of the program that sends the chunks, is included on both sides.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "a command-line program, which exits on a failure, and which measures real time"
)]

mod interleaved;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use hatchet::embedded::Engine;
use hatchet::model::ChunkItem;
use hatchet::raw::RawChannel;
use hatchet::raw::pb::dispatcher_client::DispatcherClient;
use hatchet::raw::pb::events_service_client::EventsServiceClient;
use hatchet::raw::pb::v1::admin_service_client::AdminServiceClient;
use hatchet::raw::pb::v1::{GetRunDetailsRequest, TriggerWorkflowRequest};
use hatchet::raw::pb::workflow_service_client::WorkflowServiceClient;
use hatchet::raw::pb::{
    PutStreamEventRequest, ResourceEventType, SubscribeToWorkflowEventsRequest, SubscribeToWorkflowRunsRequest,
};
use hatchet::worker::RunningWorker;
use hatchet::{Client, Config, Context, RunHandle, Task};
use interleaved::{interleaved, median};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

const CHUNK: &str = "a token of a language model";
/// The number of chunks that are sent at once.
const CONCURRENT: usize = 64;
const TAG: (&str, &str) = ("bench", "streams");
/// After a loss of the events, and after this time without one, the raw side of the watches checks the runs that are left.
const LOST_AFTER: Duration = Duration::from_millis(150);

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    rounds: usize,
    chunks: usize,
    latencies: usize,
    waiters: [usize; 3],
    runs: usize,
    /// The number of results that are delivered at once.
    results: usize,
    /// The number of short runs that are watched at once.
    watches: usize,
}

const FULL: Scale = Scale {
    rounds: 5,
    chunks: 100_000,
    latencies: 5000,
    waiters: [0, 10_000, 100_000],
    runs: 1000,
    results: 10_000,
    watches: 1000,
};
const SMALL: Scale =
    Scale { rounds: 1, chunks: 100, latencies: 100, waiters: [0, 10, 100], runs: 10, results: 20, watches: 10 };

fn task(name: &str) -> Task<(), ()> {
    Task::new(name, async |(): (), _: Context| Ok(()))
}

/// An engine with a run that waits for a worker.
struct Setup {
    engine: Engine,
    hatchet: Client,
    run: RunHandle<()>,
}

impl Setup {
    async fn new() -> Self {
        let engine = Engine::start().await.unwrap();
        let hatchet = engine.client();
        let idle = task("idle");
        worker(&hatchet, &idle).await.shutdown().await;
        let run = hatchet.run(&idle, &()).metadata(TAG.0, TAG.1).start().await.unwrap();
        Self { engine, hatchet, run }
    }

    fn chunk(&self, index: usize) -> PutStreamEventRequest {
        PutStreamEventRequest {
            task_run_external_id: self.run.id().to_string(),
            message: CHUNK.into(),
            event_index: Some(i64::try_from(index).unwrap()),
            ..Default::default()
        }
    }

    fn events(&self) -> EventsServiceClient<RawChannel> {
        EventsServiceClient::new(self.hatchet.raw_channel())
    }

    /// Starts a reader, and returns when each chunk has arrived.
    async fn reader(&self, is_raw: bool) -> (mpsc::UnboundedReceiver<Instant>, JoinSet<()>) {
        let (sender, mut arrived) = mpsc::unbounded_channel();
        let mut reader = JoinSet::new();
        if is_raw {
            let mut dispatcher = DispatcherClient::new(self.hatchet.raw_channel());
            let request = SubscribeToWorkflowEventsRequest {
                additional_meta_key: Some(TAG.0.into()),
                additional_meta_value: Some(TAG.1.into()),
                ..Default::default()
            };
            reader.spawn(async move {
                let mut events = dispatcher.subscribe_to_workflow_events(request).await.unwrap().into_inner();
                while let Some(event) = events.message().await.unwrap() {
                    if event.event_type() == ResourceEventType::Stream {
                        assert_eq!(event.event_payload, CHUNK);
                        let _ = sender.send(Instant::now());
                    }
                }
            });
        } else {
            let mut chunks = self.run.chunks();
            reader.spawn(async move {
                while let Some(item) = chunks.next().await.transpose().unwrap() {
                    assert!(matches!(item, ChunkItem::Chunk(_)), "{item:?}, {} dropped", chunks.dropped_chunks());
                    let _ = sender.send(Instant::now());
                }
            });
        }
        // The first chunk arrives when the reader has subscribed.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.events().put_stream_event(self.chunk(0)).await.unwrap();
        arrived.recv().await.unwrap();
        (arrived, reader)
    }
}

async fn worker(hatchet: &Client, task: &Task<(), ()>) -> RunningWorker {
    hatchet.worker("bench").slots(10).register(task).build().unwrap().start().await.unwrap()
}

/// The time until all chunks have arrived.
async fn chunks(is_raw: bool, count: usize) -> Duration {
    let setup = Setup::new().await;
    let (mut arrived, reader) = setup.reader(is_raw).await;
    let start = Instant::now();
    let sent = stream::iter(1..=count).map(|index| {
        let (mut events, request) = (setup.events(), setup.chunk(index));
        async move { drop(events.put_stream_event(request).await.unwrap()) }
    });
    let received = async {
        for _ in 0..count {
            arrived.recv().await.unwrap();
        }
        start.elapsed()
    };
    let (elapsed, ()) = tokio::join!(received, sent.buffered(CONCURRENT).for_each(|()| async {}));
    drop(reader);
    setup.engine.shutdown().await;
    elapsed
}

/// The time from the first chunk that a task puts until all have arrived at a raw reader. The raw side makes one call after the other in the
/// task.
async fn task_chunks(is_raw: bool, count: usize) -> Duration {
    let setup = Setup::new().await;
    let (mut arrived, reader) = setup.reader(true).await;
    let (started, mut start) = mpsc::unbounded_channel();
    let talk = move |started: mpsc::UnboundedSender<_>, (): (), context: Context| async move {
        let _ = started.send(Instant::now());
        let mut events = EventsServiceClient::new(context.client().raw_channel());
        for index in 0..count {
            if is_raw {
                let request = PutStreamEventRequest {
                    task_run_external_id: context.task_id().to_string(),
                    message: CHUNK.into(),
                    event_index: Some(i64::try_from(index).unwrap()),
                    ..Default::default()
                };
                events.put_stream_event(request).await.unwrap();
            } else {
                context.put(CHUNK).await?;
            }
        }
        Ok(())
    };
    let talk: Task<(), ()> = Task::with_state("talk", started, talk);
    let worker = worker(&setup.hatchet, &talk).await;
    let run = setup.hatchet.run(&talk, &()).metadata(TAG.0, TAG.1).start().await.unwrap();
    let start = start.recv().await.unwrap();
    for _ in 0..count {
        arrived.recv().await.unwrap();
    }
    let elapsed = start.elapsed();
    run.result().await.unwrap();
    drop(reader);
    drop(worker.shutdown().await);
    setup.engine.shutdown().await;
    elapsed
}

/// The times from the call that sends a chunk until its reader has it, one after the other: the median and the 99th percentile.
async fn latency(is_raw: bool, count: usize) -> [Duration; 2] {
    let setup = Setup::new().await;
    let (mut arrived, reader) = setup.reader(is_raw).await;
    let (mut events, mut times) = (setup.events(), Vec::new());
    for index in 1..=count {
        let start = Instant::now();
        events.put_stream_event(setup.chunk(index)).await.unwrap();
        times.push(arrived.recv().await.unwrap() - start);
    }
    drop(reader);
    setup.engine.shutdown().await;
    times.sort();
    [times[count / 2], times[count * 99 / 100]]
}

/// The time of a run that is started and awaited, one after the other, while others wait on the same stream.
async fn results(is_raw: bool, waiters: usize, count: usize) -> Duration {
    let setup = Setup::new().await;
    let (idle, short) = (task("idle"), task("short"));
    let worker = worker(&setup.hatchet, &short).await;
    let waiting = setup.hatchet.run_many(&idle, vec![(); waiters]).start().await.unwrap();
    let mut tasks = JoinSet::new();
    let elapsed = if is_raw {
        let (ids, asked) = mpsc::unbounded_channel();
        let ask = |id: String| ids.send(SubscribeToWorkflowRunsRequest { workflow_run_id: id }).unwrap();
        for run in &waiting {
            ask(run.as_ref().unwrap().id().to_string());
        }
        let asked = stream::unfold(asked, |mut asked| async move { Some((asked.recv().await?, asked)) });
        let mut dispatcher = DispatcherClient::new(setup.hatchet.raw_channel());
        let (sender, mut results) = mpsc::unbounded_channel();
        tasks.spawn(async move {
            let mut stream = dispatcher.subscribe_to_workflow_runs(asked).await.unwrap().into_inner();
            while let Some(result) = stream.message().await.unwrap() {
                let _ = sender.send(result.workflow_run_id);
            }
        });
        let mut workflows = WorkflowServiceClient::new(setup.hatchet.raw_channel());
        let mut one = async || {
            let request = TriggerWorkflowRequest { name: "short".into(), input: "{}".into(), ..Default::default() };
            let run = workflows.trigger_workflow(request).await.unwrap().into_inner().workflow_run_id;
            ask(run.clone());
            assert_eq!(results.recv().await.unwrap(), run);
        };
        one().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let start = Instant::now();
        for _ in 0..count {
            one().await;
        }
        start.elapsed()
    } else {
        for run in waiting {
            let run = run.unwrap();
            tasks.spawn(async move { drop(run.outcome().await) });
        }
        setup.hatchet.run(&short, &()).result().await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let start = Instant::now();
        for _ in 0..count {
            setup.hatchet.run(&short, &()).result().await.unwrap();
        }
        start.elapsed()
    };
    drop(tasks);
    drop(worker.shutdown().await);
    setup.engine.shutdown().await;
    elapsed
}

/// The time from the start of a worker until the results of all runs have arrived, which were waited for before. The worker and the engine
/// are included on both sides.
async fn many_results(is_raw: bool, count: usize) -> Duration {
    let setup = Setup::new().await;
    let short = task("short");
    worker(&setup.hatchet, &short).await.shutdown().await;
    let runs = setup.hatchet.run_many(&short, vec![(); count]).start().await.unwrap();
    let runs: Vec<_> = runs.into_iter().map(Result::unwrap).collect();
    let start_worker = async || {
        let worker = setup.hatchet.worker("bench").slots(1000).register(&short).build().unwrap();
        Box::pin(worker.start()).await.unwrap()
    };
    let (elapsed, worker) = if is_raw {
        let ids: Vec<_> = runs.iter().map(|run| run.id().to_string()).collect();
        let requests = ids.into_iter().map(|workflow_run_id| SubscribeToWorkflowRunsRequest { workflow_run_id });
        let requests = stream::iter(requests).chain(stream::pending());
        let mut dispatcher = DispatcherClient::new(setup.hatchet.raw_channel());
        let reading = tokio::spawn(async move {
            let mut results = dispatcher.subscribe_to_workflow_runs(requests).await.unwrap().into_inner();
            for _ in 0..count {
                let result = results.message().await.unwrap().unwrap();
                serde_json::from_str::<serde::de::IgnoredAny>(result.results.first().unwrap().output()).unwrap();
            }
        });
        tokio::time::sleep(Duration::from_secs(2)).await;
        let start = Instant::now();
        let worker = start_worker().await;
        reading.await.unwrap();
        (start.elapsed(), worker)
    } else {
        let mut results = setup.hatchet.results(&runs);
        let reading = tokio::spawn(async move {
            while let Some((_, result)) = results.next().await {
                result.unwrap();
            }
        });
        tokio::time::sleep(Duration::from_secs(2)).await;
        let start = Instant::now();
        let worker = start_worker().await;
        reading.await.unwrap();
        (start.elapsed(), worker)
    };
    drop(worker.shutdown().await);
    setup.engine.shutdown().await;
    elapsed
}

/// The time from the start of a worker until the ends of all runs are known, which were watched before. The baseline is one subscription by
/// the tag of the runs, and one request for each run after an event of its end. The engine ends the subscription whenever all runs that it
/// has seen have ended: it is opened again, and the runs that are left are checked after [`LOST_AFTER`], as watches do. The baseline lacks
/// what watches add: two more requests for each run, the states, and the check that nothing is missing.
async fn many_watches(is_raw: bool, count: usize) -> Duration {
    let setup = Setup::new().await;
    let short = task("short");
    worker(&setup.hatchet, &short).await.shutdown().await;
    let watching = setup.engine.client_with(Config::builder().watch_request_rate(100_000)).unwrap();
    let runs = watching.run_many(&short, vec![(); count]).metadata("bench", "watches").start().await.unwrap();
    let runs: Vec<_> = runs.into_iter().map(Result::unwrap).collect();
    let reading = if is_raw {
        let mut dispatcher = DispatcherClient::new(watching.raw_channel());
        let mut admin = AdminServiceClient::new(watching.raw_channel());
        tokio::spawn(async move {
            let mut open: HashSet<String> = runs.iter().map(|run| run.id().to_string()).collect();
            // The first subscription is there before the worker, so it loses nothing.
            let mut within = Duration::MAX;
            while !open.is_empty() {
                let request = SubscribeToWorkflowEventsRequest {
                    additional_meta_key: Some("bench".into()),
                    additional_meta_value: Some("watches".into()),
                    ..Default::default()
                };
                let mut is_done = async |run: &str| {
                    let request = GetRunDetailsRequest { external_id: run.to_owned() };
                    admin.get_run_details(request).await.unwrap().into_inner().done
                };
                // The headers come with the first event, so that the opening may take as long.
                if let Ok(opened) = timeout(within, dispatcher.subscribe_to_workflow_events(request)).await {
                    let mut events = opened.unwrap().into_inner();
                    while let Ok(event) = timeout(within, events.message()).await {
                        let Some(event) = event.unwrap() else { break };
                        let is_end = event.event_type() == ResourceEventType::Completed;
                        if is_end && open.contains(&event.workflow_run_id) && is_done(&event.workflow_run_id).await {
                            open.remove(&event.workflow_run_id);
                        }
                        if open.is_empty() {
                            break;
                        }
                    }
                }
                if within == LOST_AFTER {
                    for run in open.clone() {
                        if is_done(&run).await {
                            open.remove(&run);
                        }
                    }
                }
                within = LOST_AFTER;
            }
        })
    } else {
        let mut watch = watching.watch_many(&runs);
        tokio::spawn(async move {
            while let Some(change) = watch.next().await {
                change.unwrap();
            }
        })
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    let start = Instant::now();
    let worker = setup.hatchet.worker("bench").slots(1000).register(&short).build().unwrap();
    let worker = Box::pin(worker.start()).await.unwrap();
    reading.await.unwrap();
    let elapsed = start.elapsed();
    drop(worker.shutdown().await);
    setup.engine.shutdown().await;
    elapsed
}

fn print(name: &str, raw: f64, sdk: f64) {
    println!("{name:<58} {raw:>9.2} {sdk:>9.2} {:>7.2}", sdk / raw);
}

/// The time of one of several operations.
fn each(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

/// Measures both sides in turn, and prints the medians of the times of one operation.
async fn compare(name: &str, rounds: usize, count: usize, measure: impl AsyncFn(bool) -> Duration) {
    let pairs = interleaved(rounds, async || measure(true).await, async || measure(false).await).await;
    let of = |side: fn(&(Duration, Duration)) -> Duration| median(pairs.iter().map(|pair| each(side(pair), count)));
    print(name, of(|pair| pair.0), of(|pair| pair.1));
}

async fn table(scale: Scale) {
    println!("{:<58} {:>9} {:>9} {:>7}", "µs", "raw", "SDK", "ratio");
    let name = format!("a chunk of {} on one stream, sent and read", scale.chunks);
    compare(&name, scale.rounds, scale.chunks, async |is_raw| chunks(is_raw, scale.chunks).await).await;
    let name = format!("a chunk of {} of one task, one call at a time", scale.chunks);
    compare(&name, scale.rounds, scale.chunks, async |is_raw| task_chunks(is_raw, scale.chunks).await).await;
    let name = format!("a result of {}, with the worker", scale.results);
    compare(&name, scale.rounds, scale.results, async |is_raw| many_results(is_raw, scale.results).await).await;
    let name = format!("a short run of {}, watched, with the worker", scale.watches);
    compare(&name, scale.rounds, scale.watches, async |is_raw| many_watches(is_raw, scale.watches).await).await;
    let mut latencies: [[Vec<f64>; 2]; 2] = Default::default();
    for _ in 0..scale.rounds {
        for (side, is_raw) in [true, false].into_iter().enumerate() {
            let both = latency(is_raw, scale.latencies).await;
            (0..2).for_each(|which| latencies[side][which].push(each(both[which], 1)));
        }
    }
    for (which, name) in ["median", "99th percentile"].into_iter().enumerate() {
        let of = |side: usize| median(latencies[side][which].iter().copied());
        print(&format!("from sending a chunk to its reader, {name}"), of(0), of(1));
    }
    for waiters in scale.waiters {
        let name = format!("a run, started and awaited, while {waiters} others wait");
        let measure = async |is_raw| results(is_raw, waiters, scale.runs).await;
        compare(&name, scale.rounds.min(3), scale.runs, measure).await;
    }
}

fn main() {
    // Without `--bench`, a small run checks that the benchmark works.
    let scale = if std::env::args().any(|argument| argument == "--bench") { FULL } else { SMALL };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(table(scale));
}
