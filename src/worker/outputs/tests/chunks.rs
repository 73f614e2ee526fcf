//! The chunks of a task, and the end of its attempt, which waits for them.

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt as _};

use super::*;

const MILLIS: Duration = Duration::from_millis(1);

/// Runs a task with a server that answers each call with a chunk like this. Returns the milliseconds from the start of the task until each
/// call with a chunk began, the indexes in the order in which the server has accepted them, and when the attempt ended.
async fn run(task: Task<(), ()>, respond: impl Fn(Duration) -> Scripted + Send + Sync + 'static) -> Outcome {
    // The task is assigned after a second.
    let start = Instant::now() + SECOND;
    let (client, calls) = server_of(1, move |call, elapsed| (call == "PutStreamEvent").then(|| respond(elapsed)));
    let worker = client.worker("worker").batch_reports(false).register(&task);
    let running = worker.build().unwrap().start().await.unwrap();
    while calls.count("SendStepActionEvent") < 2 {
        sleep(MILLIS).await;
    }
    let millis = |at: &Instant| (*at - start).as_millis();
    let indexes = calls.messages::<pb::PutStreamEventRequest>("PutStreamEvent").into_iter();
    let seen = Outcome {
        called_at: calls.times("PutStreamEvent").iter().map(millis).collect(),
        indexes: indexes.map(|chunk| chunk.event_index.unwrap()).collect(),
        ended_at: millis(&calls.times("SendStepActionEvent")[1]),
    };
    drop(running);
    seen
}

struct Outcome {
    called_at: Vec<u128>,
    indexes: Vec<i64>,
    ended_at: u128,
}

/// A task that puts chunks as fast as it can.
fn burst(chunks: usize) -> Task<(), ()> {
    let task = Task::with_state("task", chunks, async |chunks: usize, (): (), context: Context| {
        for _ in 0..chunks {
            context.put("a").await?;
        }
        Ok(())
    });
    task.timeout(3600 * SECOND)
}

fn accepted_after(millis: u32) -> impl Fn(Duration) -> Scripted {
    move |_| Scripted::after(millis * MILLIS, Scripted::empty())
}

/// The warnings about attempts that end before their chunks were sent.
#[derive(Clone, Default)]
struct Unsent(Arc<Mutex<Vec<i64>>>);

impl Visit for Unsent {
    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "unsent" {
            self.0.lock().unwrap().push(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl<S: Subscriber> Layer<S> for Unsent {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        if *event.metadata().level() == Level::WARN {
            event.record(&mut self.clone());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn up_to_eight_chunks_of_a_task_are_on_their_way_in_their_order() {
    let seen = run(burst(24), accepted_after(50)).await;
    let expected: Vec<_> = (0..24).map(|chunk| chunk / 8 * 50 + chunk % 8 * 5).collect();
    assert_eq!(seen.called_at, expected);
    assert_eq!(seen.indexes, (0..24).collect::<Vec<_>>());
    assert_eq!(seen.ended_at, 135 + 50 + 100);
}

/// With a fast server, each one follows the one before it.
#[tokio::test(start_paused = true)]
async fn a_chunk_is_sent_as_soon_as_the_one_before_it_was_accepted() {
    let seen = run(burst(5), accepted_after(2)).await;
    assert_eq!((seen.called_at, seen.ended_at), (vec![0, 2, 4, 6, 8], 110));
}

/// Those that were on their way together are sent again in any order.
#[tokio::test(start_paused = true)]
async fn later_chunks_do_not_overtake_one_that_is_sent_again() {
    let respond = |elapsed: Duration| match elapsed.as_millis() {
        1012..2000 => Scripted::after(50 * MILLIS, Scripted::Status(14)),
        _ => Scripted::after(50 * MILLIS, Scripted::empty()),
    };
    let mut seen = run(burst(100), respond).await;
    // The first three were accepted. Three more began before the first failure was known.
    seen.indexes[3..11].sort_unstable();
    assert_eq!(seen.indexes, (0..100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_attempt_waits_for_its_chunks_while_they_are_accepted() {
    let seen = run(burst(1000), accepted_after(50)).await;
    assert_eq!(seen.indexes.len(), 1000);
    assert_eq!(seen.ended_at, 124 * 50 + 35 + 50 + 100);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_attempt_that_waits_too_long_for_its_chunks_is_reported_with_a_warning() {
    // Without a subscriber for all threads, events that other tests emit at the same time can be disabled for this thread, too.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    let unsent = Unsent::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(unsent.clone()));
    for (task, millis, ended_at, expected) in [
        // Eight at a time, for 30 seconds.
        (burst(1000), 1010, 30_000, 1000 - 29 * 8),
        // None is accepted.
        (burst(10), 3_600_000, 5000, 10),
        // Half a second before the execution timeout.
        (burst(1000).timeout(10 * SECOND), 1010, 9500, 1000 - 9 * 8),
    ] {
        let seen = run(task, accepted_after(millis)).await;
        let warned = std::mem::take(&mut *unsent.0.lock().unwrap());
        assert_eq!((seen.ended_at, warned), (ended_at, vec![expected]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_longer_timeout_leaves_more_time_for_chunks() {
    let task = Task::new("task", async |(): (), context: Context| {
        for _ in 0..1000 {
            context.put("a").await?;
        }
        context.refresh_timeout(5 * SECOND).send().await?;
        Ok(())
    });
    let seen = run(task.timeout(10 * SECOND), accepted_after(1000)).await;
    assert_eq!(seen.ended_at, 14_500);
}

/// The engine has published a chunk some time after it has accepted it, and a large one late.
#[tokio::test(start_paused = true)]
async fn the_end_of_an_attempt_waits_until_its_last_chunks_were_published() {
    for (chunks, pause, ended_at) in [
        (&[1][..], 0, 10 + 100),
        (&[4000], 0, 10 + 100),
        (&[4001], 0, 10 + 1100),
        (&[4001, 1], 0, 10 + 1100),
        // The function takes longer.
        (&[1], 200, 200),
        (&[4001], 1000, 10 + 1100),
        (&[4001], 2000, 2000),
        (&[], 0, 0),
    ] {
        let state = (chunks.to_vec(), pause * MILLIS);
        let task = Task::with_state(
            "task",
            state,
            async |(chunks, pause): (Vec<usize>, Duration), (): (), context: Context| {
                for bytes in chunks {
                    context.put("a".repeat(bytes)).await?;
                }
                sleep(pause).await;
                Ok(())
            },
        );
        let seen = run(task, accepted_after(10)).await;
        let late = if chunks.len() == 2 { 5 } else { 0 };
        assert_eq!(seen.ended_at, ended_at, "{chunks:?}, {pause}, {late}");
    }
}

/// One task has more chunks than fit into the queue, and is slowed down.
#[tokio::test(start_paused = true)]
async fn the_chunks_of_a_task_do_not_delay_those_of_others() {
    let (client, calls) =
        server_of(2, |call, _| (call == "PutStreamEvent").then(|| Scripted::after(SECOND, Scripted::empty())));
    let task = Task::new("task", async |(): (), context: Context| {
        let is_first = context.task_id().to_string().ends_with("01");
        sleep(if is_first { Duration::ZERO } else { SECOND }).await;
        for _ in 0..if is_first { 20_000 } else { 8 } {
            context.put("a").await?;
        }
        Ok(())
    });
    let task = task.timeout(3600 * SECOND);
    let running = client.worker("worker").slots(2).register(&task).build().unwrap().start().await.unwrap();
    sleep(4 * SECOND).await;
    let accepted = calls.messages::<pb::PutStreamEventRequest>("PutStreamEvent").into_iter();
    assert_eq!(accepted.filter(|chunk| chunk.task_run_external_id.ends_with("02")).count(), 8);
    drop(running);
}
