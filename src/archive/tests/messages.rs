//! What collections log, with the archive that it is about.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt as _};

use super::*;
use crate::archive::log::{COMMITS_PER_STATE, commit_path};

const MINUTE: Duration = Duration::from_secs(60);
const LATER: &str = "the collector did not commit its last runs in time; the next collection fetches them again";

/// The events about archives.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<(Level, Text)>>>);

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            write!(self.fields, "{}={value:?} ", field.name()).unwrap();
        }
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        if event.metadata().target().starts_with("hatchet::archive") {
            let mut text = Text::default();
            event.record(&mut text);
            self.0.lock().unwrap().push((*event.metadata().level(), text));
        }
    }
}

impl Events {
    /// Collects the events of this thread, until the guard is dropped.
    fn collect() -> (Self, DefaultGuard) {
        // Without a subscriber for all threads, events that other tests emit at the same time can be disabled for this thread, too.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
        let events = Self::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(events.clone()));
        (events, guard)
    }

    /// The messages since the last call. Each event names its archive.
    fn take(&self) -> Vec<(Level, String)> {
        let events = std::mem::take(&mut *self.0.lock().unwrap());
        for (_, text) in &events {
            assert!(text.fields.contains("archive=\"memory://\""), "{}: {}", text.message, text.fields);
        }
        events.into_iter().map(|(level, text)| (level, text.message)).collect()
    }

    /// The fields of the events with this message.
    fn fields(&self, message: &str) -> Vec<String> {
        let events = self.0.lock().unwrap();
        events.iter().filter(|(_, text)| text.message == message).map(|(_, text)| text.fields.clone()).collect()
    }
}

fn warning(message: &str) -> (Level, String) {
    (Level::WARN, message.to_owned())
}

fn info(message: &str) -> (Level, String) {
    (Level::INFO, message.to_owned())
}

/// Forty runs, of which each takes three seconds.
async fn slow_collector(bench: &Bench) -> RunningCollector {
    bench.start((0..40).map(|n| 2 * n)).await;
    sleep(MINUTE).await;
    bench.archive.collect(&bench.client, all()).requests_per_second(1).every(HOUR).start().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_shut_down_logs_whether_its_last_runs_were_committed() {
    let bench = Bench::new().await;
    let collector = slow_collector(&bench).await;
    let (events, _guard) = Events::collect();
    sleep(MINUTE).await;
    collector.shutdown().await;
    let fields = events.fields("the collection was stopped");
    assert_eq!(events.take(), [info("the collection was stopped")]);
    let archived = bench.archived().await.len();
    assert!(archived > 8 && fields[0].contains(&format!("report={archived} archived")), "{fields:?}");

    // Nothing is fetched yet, so nothing is lost.
    let start = || bench.archive.collect(&bench.client, all()).requests_per_second(1).every(HOUR).start().unwrap();
    let collector = start();
    sleep(Duration::from_secs(5)).await;
    collector.shutdown().await;
    assert_eq!(events.take(), [info("the collection was stopped")]);

    // The commit fails.
    let collector = start();
    sleep(MINUTE).await;
    let next = commit_path(bench.archive.log().state().await.unwrap().commits + 1);
    bench.store.crash().fail(&next);
    collector.shutdown().await;
    let message = "the last collection failed; the next one fetches what was not committed";
    let fields = events.fields(message);
    assert_eq!(events.take(), [warning(message)]);
    assert!(fields[0].contains(&format!("error=failed to write {next} in the archive memory://")), "{fields:?}");
    assert_eq!(bench.archived().await.len(), archived);

    // The commit takes longer than it may.
    bench.store.crash().succeed();
    let collector = start();
    sleep(MINUTE).await;
    bench.store.crash().delay_by(MINUTE);
    let stopped = Instant::now();
    collector.shutdown().await;
    assert_eq!(stopped.elapsed(), Duration::from_secs(30));
    assert_eq!(events.take(), [warning(LATER)]);
    bench.store.crash().delay_by(Duration::ZERO);
    let report = bench.archive.collect(&bench.client, all()).send().await.unwrap();
    assert_eq!((report.archived + report.unchanged, bench.archived().await.len()), (40, 40), "{report}");
    assert_eq!(events.take(), [info("the collection has ended")]);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_collection_logs_that_its_last_commit_failed_and_returns_the_first_error() {
    let bench = Bench::new().await;
    let mut collector = slow_collector(&bench).await;
    let (events, _guard) = Events::collect();
    sleep(MINUTE).await;
    let first = commit_path(1);
    bench.store.crash().fail(&first);
    for call in [FETCH, LIST] {
        bench.engine.faults().inject_for(call, Fault::RejectRest(503), HOUR / 2).unwrap();
    }
    let error = collector.next_result().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let message = "failed to commit the runs that were fetched before a collection failed";
    let fields = events.fields(message);
    assert!(fields[0].contains(&format!("error=failed to write {first} in the archive memory://")), "{fields:?}");
    let runs = events.fields("failed to fetch a run for the archive");
    assert!(runs.iter().all(|fields| fields.contains("run_id=") && fields.contains("error=")), "{runs:?}");
    let mut expected = vec![warning("failed to fetch a run for the archive"); runs.len()];
    expected.extend([warning(message), warning("a collection failed; the collector continues")]);
    assert!((5..=12).contains(&runs.len()), "{}", runs.len());
    assert_eq!(events.take(), expected);

    bench.store.crash().succeed();
    let report = collector.next_result().await.unwrap().unwrap();
    assert_eq!((report.archived, bench.archived().await.len()), (40, 40), "{report}");
    assert_eq!(events.take(), [info("the collection has ended")]);
    // In the pause, there is nothing to commit.
    collector.shutdown_with_timeout(Duration::ZERO).await;
    assert_eq!(events.take(), []);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn runs_that_were_dropped_and_states_that_cannot_be_stored_or_read_are_warnings() {
    // It drops the runs of the first day at one o'clock.
    let bench = Bench::keeping(HOUR).await;
    bench.start((0..40).map(|n| 2 * n)).await;
    let soon: DateTime<Utc> = "2026-11-02T00:59:00Z".parse().unwrap();
    sleep((soon - bench.engine.now()).to_std().unwrap()).await;
    let (events, _guard) = Events::collect();
    // Each run takes three seconds.
    let collection = bench.archive.collect(&bench.client, all()).requests_per_second(1);
    let report = collection.engine_retention(DAY).send().await.unwrap();
    assert!(report.archived > 8 && report.dropped > 8 && report.archived + report.dropped == 40, "{report}");
    let dropped = "the engine dropped a run before it was archived";
    assert!(events.fields(dropped).iter().all(|fields| fields.contains("run_id=")));
    let mut expected = vec![warning(dropped); usize::try_from(report.dropped).unwrap()];
    expected.extend([
        warning("runs were archived only shortly before the engine would have dropped them"),
        info("the collection has ended"),
    ]);
    assert_eq!(events.take(), expected);

    // The counts of the runs at risk are only a part of the report.
    bench.engine.faults().inject(LIST, Fault::RejectRest(400)).unwrap();
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    let risk = "failed to count the runs at risk that cannot be archived yet; they are not in the report";
    assert_eq!(events.take(), [warning(risk), info("the collection has ended")]);

    let state = format!("manifest/states/{COMMITS_PER_STATE:020}.json");
    bench.store.crash().fail(&state);
    let commit = Commit {
        version: VERSION,
        committed_at: DateTime::UNIX_EPOCH,
        source: None,
        add: Vec::new(),
        remove: Vec::new(),
    };
    let log = bench.archive.log();
    while log.state().await.unwrap().commits < COMMITS_PER_STATE {
        assert!(log.commit(&log.state().await.unwrap(), &commit).await.unwrap());
    }
    assert_eq!(events.take(), [warning("failed to store the state of the manifest; it is stored again later")]);

    bench.store.crash().succeed();
    bench.store.put(&state, "{".into()).await.unwrap();
    assert_eq!(bench.other().log().state().await.unwrap().commits, COMMITS_PER_STATE);
    let read = "failed to read a stored state of the manifest; an earlier one is used";
    assert_eq!(events.take(), [warning(read)]);
    bench.end().await;
}
