//! Spans and events, and how many of them an outage causes.

use std::sync::{Arc, Mutex};

use hatchet::embedded::{Engine, Fault};
use hatchet::model::RateLimitWindow;
use hatchet::workflow::{BatchItem, BatchOptions, RateLimit};
use hatchet::{Context, Task, TaskError, telemetry};
use tokio::time::{sleep, timeout};
use tracing::Subscriber;
use tracing::field::Field;
use tracing::span::{Attributes, Id};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use super::observing::{Collected, Text};
use super::{SECOND, flaky, start};

#[tokio::test(start_paused = true)]
async fn o1_spans_and_events_have_names_and_ids() {
    let collected = Collected::default();
    let subscriber = tracing_subscriber::registry().with(collected.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task = flaky();
    let worker = start(&hatchet, &task).await;
    let run = hatchet.run(&task, &()).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 2);
    let (id, worker_id) = (run.id().to_string(), worker.id().to_string());
    engine.faults().inject_times("Heartbeat", Fault::RejectGrpc(14), 3).unwrap();
    engine.faults().interrupt("ListenV2").unwrap();
    sleep(10 * SECOND).await;
    worker.shutdown().await;
    let fields = [format!("run_id={id}"), format!("worker_id={worker_id}"), "workflow_name=\"flaky\"".to_owned()];
    let span = ["span INFO", telemetry::TARGET, telemetry::ATTEMPT_SPAN, "task_name=\"flaky\"", "task_id="];
    for attempt in ["attempt=1", "attempt=2"] {
        let all: Vec<_> = span.into_iter().chain([attempt]).chain(fields.iter().map(String::as_str)).collect();
        assert!(collected.has(&all), "{all:?}: {collected:#?}", collected = collected.texts());
    }
    for event in [
        &["event INFO", "worker is ready", &worker_id][..],
        &["event INFO", "attempt failed", &id, &worker_id, "task_id=", "attempt=1", "it broke"],
        &["event WARN", "heartbeat failed", &worker_id],
        &["event INFO", "worker reconnected", &worker_id, "after="],
        &["event INFO", "worker is shutting down", &worker_id],
        &["event INFO", "worker stopped", &worker_id, "attempts: 1 completed, 1 failed"],
    ] {
        assert!(collected.has(event), "{event:?}: {collected:#?}", collected = collected.texts());
    }
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_takes_the_last_slot_is_logged_once() {
    let (collected, _guard) = Collected::start();
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let child: Task<(), ()> = Task::new("child", async |(): (), _: Context| Ok(()));
    let parent: Task<(), ()> =
        Task::with_state("parent", child.clone(), async |child: Task<(), ()>, (): (), context: Context| {
            Ok(context.run(&child, &()).result().await?)
        });
    let parent = parent.timeout(5 * SECOND);
    let worker = |slots| hatchet.worker("worker").slots(slots).register(&parent).register(&child).build().unwrap();
    let count = || {
        let text = "an attempt starts a child run while all default slots of its worker are taken";
        collected.count(&["event WARN", text])
    };
    let roomy = worker(2).start().await.unwrap();
    hatchet.run(&parent, &()).result().await.unwrap();
    roomy.shutdown().await;
    assert_eq!(count(), 0);
    let full = worker(1).start().await.unwrap();
    for _ in 0..2 {
        let outcome = hatchet.run(&parent, &()).outcome().await.unwrap();
        assert!(matches!(outcome, hatchet::Outcome::TimedOut(_)), "{outcome:?}");
    }
    assert_eq!(count(), 1);
    full.shutdown().await;
}

/// The call spans, and the openings of streams, that have a result: the first has the fields of its creation, the others are recorded.
#[derive(Clone, Default)]
struct CallSpans(Arc<Mutex<Vec<(Id, String)>>>);

impl CallSpans {
    fn of(&self, start: &str) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(_, text)| text.clone()).filter(|text| text.starts_with(start)).collect()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for CallSpans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: LayerContext<'_, S>) {
        let metadata = attributes.metadata();
        if metadata.target() == telemetry::TARGET && metadata.level() == &tracing::Level::DEBUG {
            let mut text = Text(metadata.name().to_owned());
            attributes.record(&mut text);
            self.0.lock().unwrap().push((id.clone(), text.0));
        }
    }

    fn on_record(&self, id: &Id, values: &tracing::span::Record<'_>, _: LayerContext<'_, S>) {
        // Ids are reused when their spans are closed: the last one is meant.
        let mut spans = self.0.lock().unwrap();
        if let Some((_, text)) = spans.iter_mut().rev().find(|(other, _)| other == id) {
            let mut added = Text(std::mem::take(text));
            values.record(&mut added);
            *text = added.0;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn o1_calls_and_openings_of_streams_have_spans() {
    let spans = CallSpans::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<(), u32> = Task::new("task", async |(): (), _: Context| Ok(1));
    let worker = start(&hatchet, &task).await;
    // RESOURCE_EXHAUSTED: the engine has not processed the call, so it is retried.
    engine.faults().inject("TriggerWorkflow", Fault::RejectGrpc(8)).unwrap();
    assert_eq!(hatchet.run(&task, &()).result().await.unwrap(), 1);
    let trigger = "hatchet.call call=\"TriggerWorkflow\"";
    assert_eq!(spans.of(trigger), [format!("{trigger} tries=2 result=\"ok\"")]);
    engine.faults().inject("TriggerWorkflow", Fault::RejectGrpc(3)).unwrap();
    hatchet.run(&task, &()).start().await.unwrap_err();
    let rejected = format!("{trigger} tries=1 result=\"rejected\" grpc_code=3");
    assert_eq!(spans.of(trigger)[1..], [rejected]);
    // A REST call.
    hatchet
        .run_handle("11111111-2222-4333-8444-555555555555".parse::<hatchet::RunId>().unwrap())
        .details()
        .await
        .unwrap_err();
    let read = "hatchet.call call=\"reading the run\"";
    let not_found = format!("{read} tries=1 result=\"not_found\" http_status=404");
    assert!(spans.of(read).contains(&not_found), "{:#?}", spans.of(read));
    let listen = "hatchet.stream call=\"ListenV2\"";
    assert_eq!(spans.of(listen), [format!("{listen} result=\"ok\"")]);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn failed_heartbeats_do_not_fill_the_log() {
    let (collected, _guard) = Collected::start();
    let engine = Engine::start().await.unwrap();
    let worker = start(&engine.client(), &flaky()).await;
    engine.faults().inject_always("Heartbeat", Fault::RejectGrpc(14)).unwrap();
    let count = |text: &str| collected.count(&[text]);
    let is_damped = async {
        while count("heartbeat failed again") < 2 {
            sleep(SECOND).await;
        }
    };
    timeout(3600 * SECOND, is_damped).await.unwrap();
    engine.faults().clear();
    sleep(60 * SECOND).await;
    assert!(worker.status().state == hatchet::worker::WorkerState::Connected);
    assert_eq!(count("heartbeats are accepted again"), 1);
    assert_eq!(collected.count(&["event WARN", "message=heartbeat failed"]), 3);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn more_units_than_a_static_rate_limit_has_are_logged() {
    let (collected, _guard) = Collected::start();
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    hatchet.rate_limit("api", 2, RateLimitWindow::Minute).send().await.unwrap();
    let task = |name: &str, units| -> Task<(), ()> {
        Task::new(name, async |(): (), _: Context| Ok(())).rate_limit(RateLimit::new("api").units(units))
    };
    let worker = hatchet.worker("worker").register(&task("fits", 2)).register(&task("large", 3));
    worker.build().unwrap().start().await.unwrap().shutdown().await;
    let text = "a rate limit has fewer units than an attempt of a task consumes";
    let fields = ["event WARN", text, "task_name=\"large\"", "key=\"api\"", "units=3", "limit=2"];
    assert_eq!((collected.count(&fields), collected.count(&[text])), (1, 1), "{:#?}", collected.texts());
}

/// The results of all tasks fail to be reported again and again. UNAVAILABLE is about all reports, INTERNAL about each one of its own.
#[tokio::test(start_paused = true)]
async fn an_outage_with_many_running_tasks_does_not_fill_the_log() {
    for code in [14, 13] {
        let (collected, _guard) = Collected::start();
        let engine = Engine::start().await.unwrap();
        let hatchet = engine.client();
        let work: Task<(), ()> = Task::new("work", async |(): (), _: Context| {
            sleep(10 * SECOND).await;
            Ok(())
        });
        let work = work.timeout(600 * SECOND);
        let worker = hatchet.worker("worker").slots(50).register(&work).build().unwrap().start().await.unwrap();
        let runs = hatchet.run_many(&work, [(); 50]).start().await.unwrap();
        while worker.status().running < 50 {
            sleep(SECOND / 10).await;
        }
        sleep(SECOND).await;
        for call in ["SendStepActionEvent", "SendBatchActionEvent"] {
            engine.faults().inject_for(call, Fault::RejectGrpc(code), 60 * SECOND).unwrap();
        }
        sleep(30 * SECOND).await;
        assert_eq!(worker.status().unreported, 50);
        for run in runs {
            run.unwrap().result().await.unwrap();
        }
        while worker.status().unreported > 0 {
            sleep(SECOND / 10).await;
        }
        sleep(SECOND).await;
        let text = "failed to report results; will retry";
        let ids = if code == 13 { &["run_id=", "task_id=", "attempt=1"][..] } else { &[] };
        let warning = [&["event WARN", text, "worker_id="], ids].concat();
        assert_eq!((collected.count(&warning), collected.count(&["event WARN"])), (3, 3), "{:#?}", collected.texts());
        assert_eq!(collected.count(&["event INFO", "results are accepted again", "worker_id=", "after="]), 1);
        assert_eq!(worker.shutdown().await.completed, 50);
    }
}

/// The first loss is a debug message, the next three are warnings, further ones are debug messages, and the recovery is logged once.
#[tokio::test(start_paused = true)]
async fn lost_streams_do_not_fill_the_log() {
    let (collected, _guard) = Collected::start();
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let slow: Task<(), u32> = Task::new("slow", async |(): (), context: Context| {
        sleep(120 * SECOND).await;
        Ok(context.attempt())
    })
    .timeout(600 * SECOND);
    let worker = hatchet.worker("worker").register(&slow).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&slow, &()).start().await.unwrap();
    let outage = async {
        sleep(10 * SECOND).await;
        engine.faults().inject_for("SubscribeToWorkflowRuns", Fault::RejectGrpc(14), 60 * SECOND).unwrap();
        engine.faults().interrupt("SubscribeToWorkflowRuns").unwrap();
    };
    let (result, ()) = tokio::join!(run.result(), outage);
    assert_eq!(result.unwrap(), 1);
    let mut events = collected.texts();
    events.retain(|text| text.starts_with("event") && text.contains("run results"));
    let kinds: Vec<_> = events
        .iter()
        .map(|text| {
            let level = text.split(' ').nth(1).unwrap();
            let message = text.split("message=").nth(1).unwrap();
            let messages = ["stream ended", "stream lost again", "stream lost", "stream recovered"];
            (level, *messages.iter().find(|known| message.starts_with(**known)).unwrap_or(&message))
        })
        .collect();
    let warning = ("WARN", "stream lost");
    assert_eq!(kinds[..4], [("DEBUG", "stream ended"), warning, warning, warning], "{events:#?}");
    let (last, others) = kinds[4..].split_last().unwrap();
    assert!(others.len() > 5 && others.iter().all(|kind| *kind == ("DEBUG", "stream lost again")), "{events:#?}");
    assert_eq!(*last, ("INFO", "stream recovered"), "{events:#?}");
    worker.shutdown().await;
}

/// The stream of events is rejected for good, and tried again every 30 seconds. Meanwhile, the runs are listed.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_rejected_for_good_does_not_fill_the_log() {
    let (collected, _guard) = Collected::start();
    let engine = Engine::start().await.unwrap();
    let worker = start(&engine.client(), &flaky()).await;
    engine.faults().inject_always("SubscribeToWorkflowEvents", Fault::RejectGrpc(12)).unwrap();
    let mut watch = engine.client().watch_matching("tag", "a");
    assert!(timeout(301 * SECOND, watch.next()).await.is_err());
    let count = |level| collected.count(&[&format!("event {level}"), "message=stream of run events failed"]);
    // After 0, 30, .. 300 seconds.
    assert_eq!((count("WARN"), count("DEBUG")), (3, 8));
    worker.shutdown().await;
}

/// Panics when the span of an attempt is made.
struct Panicking;

impl<S: tracing::Subscriber> Layer<S> for Panicking {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: LayerContext<'_, S>) {
        let spans = [telemetry::ATTEMPT_SPAN, telemetry::BATCH_SPAN];
        assert!(!spans.contains(&attributes.metadata().name()), "as planned");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_span_cannot_be_made_has_failed() {
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(Panicking));
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<(), ()> = Task::new("task", async |(): (), _: Context| Ok(()));
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    let error = hatchet.run(&task, &()).result().await.unwrap_err();
    assert!(error.to_string().contains("as planned"), "{error}");
    assert_eq!(worker.shutdown().await.to_string(), "attempts: 0 completed, 1 failed, 0 cancelled, 0 unfinished");
}

/// Panics when an attempt is logged as failed.
struct PanickingOnFailure;

impl<S: tracing::Subscriber> Layer<S> for PanickingOnFailure {
    fn on_event(&self, event: &tracing::Event<'_>, _: LayerContext<'_, S>) {
        let mut message = String::new();
        event.record(&mut |field: &Field, value: &dyn std::fmt::Debug| {
            if field.name() == "message" {
                message = format!("{value:?}");
            }
        });
        assert!(message != "attempt failed", "as planned");
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_whose_failure_cannot_be_logged_have_failed() {
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(PanickingOnFailure));
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let batch: Task<(), ()> = Task::batch("batch", BatchOptions::new(2), async |items: Vec<BatchItem<()>>| {
        Ok(items.iter().map(|_| Err(TaskError::new("broken"))).collect())
    });
    let worker = hatchet.worker("worker").register(&batch).build().unwrap().start().await.unwrap();
    let results = hatchet.run_many(&batch, [(), ()]).results().await.unwrap();
    let is_reported = |text: String| text.contains("the worker panicked") && text.contains("as planned");
    assert!(results.iter().all(|result| is_reported(result.as_ref().unwrap_err().to_string())), "{results:?}");
    assert_eq!(worker.shutdown().await.to_string(), "attempts: 0 completed, 2 failed, 0 cancelled, 0 unfinished");
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_span_cannot_be_made_has_failed() {
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(Panicking));
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let batch: Task<(), ()> = Task::batch("batch", BatchOptions::new(2), async |items: Vec<BatchItem<()>>| {
        Ok(items.iter().map(|_| Ok(())).collect())
    });
    let worker = hatchet.worker("worker").register(&batch).build().unwrap().start().await.unwrap();
    let results = hatchet.run_many(&batch, [(), ()]).results().await.unwrap();
    assert!(
        results.iter().all(|result| result.as_ref().unwrap_err().to_string().contains("as planned")),
        "{results:?}"
    );
    assert_eq!(worker.shutdown().await.to_string(), "attempts: 0 completed, 2 failed, 0 cancelled, 0 unfinished");
}
