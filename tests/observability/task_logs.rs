//! The events and spans of tasks, as lines of their logs.

use futures_util::TryStreamExt as _;
use hatchet::embedded::Engine;
use hatchet::model::LogLevel;
use hatchet::testing::call;
use hatchet::worker::TaskLogLayer;
use hatchet::{Context, Task, telemetry};
use tokio::time::sleep;
use tracing::Instrument as _;
use tracing_subscriber::layer::SubscriberExt as _;

use super::observing::Collected;
use super::{SECOND, flaky, start};

#[tokio::test(start_paused = true)]
async fn o2_events_of_a_task_become_its_log_lines() {
    let subscriber = tracing_subscriber::registry().with(TaskLogLayer::new().max_level(LogLevel::Debug));
    let _guard = tracing::subscriber::set_default(subscriber);
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<(), u32> = Task::new("logs", async |(): (), context: Context| {
        tracing::info!(number = 7, "first");
        context.log("second");
        let inner = tracing::info_span!("inner", customer = "acme", order = tracing::field::Empty);
        inner.record("order", 8);
        async { tracing::warn!("third") }.instrument(inner.clone()).await;
        tokio::spawn(async { tracing::debug!("fourth") }.instrument(inner)).await?;
        tracing::trace!("too detailed");
        Ok(1)
    });
    let worker = start(&hatchet, &task).await;
    tracing::info!("outside of a task");
    let run = hatchet.run(&task, &()).start().await.unwrap();
    run.result().await.unwrap();
    worker.shutdown().await;
    let found: Vec<_> = run.logs().try_collect().await.unwrap();
    let texts: Vec<_> = found.iter().map(|line| (line.level.clone(), line.message.as_str())).collect();
    let expected =
        [(LogLevel::Info, "first"), (LogLevel::Info, "second"), (LogLevel::Warn, "third"), (LogLevel::Debug, "fourth")];
    assert_eq!(texts, expected);
    assert_eq!(
        (&found[0].metadata.as_ref().unwrap()["number"], &found[2].metadata.as_ref().unwrap()["customer"]),
        (&7.into(), &"acme".into())
    );
    assert_eq!(found[2].metadata.as_ref().unwrap()["order"], 8, "recorded later");
}

#[tokio::test(start_paused = true)]
async fn o2_events_of_a_function_that_a_test_calls_become_its_log_lines() {
    let subscriber = tracing_subscriber::registry().with(TaskLogLayer::new());
    let _guard = tracing::subscriber::set_default(subscriber);
    let task: Task<(), ()> = Task::new("logs", async |(): (), context: Context| {
        tracing::info!(number = 7, "first");
        context.log("second");
        sleep(SECOND).await;
        tracing::warn!("third");
        Ok(())
    });
    tracing::info!("outside of a task");
    let log = call(&task, &()).run().await.unwrap().log;
    let lines: Vec<_> = log.iter().map(|line| (line.level.clone(), line.message.as_str())).collect();
    assert_eq!(lines, [(LogLevel::Info, "first"), (LogLevel::Info, "second"), (LogLevel::Warn, "third")]);
    assert_eq!(log[0].metadata.as_ref().unwrap()["number"], 7);
}

/// The layer must not set a level for the whole process.
#[tokio::test(start_paused = true)]
async fn o2_other_layers_still_get_detailed_events() {
    let collected = Collected::default();
    let subscriber = tracing_subscriber::registry().with(collected.clone()).with(TaskLogLayer::new());
    let _guard = tracing::subscriber::set_default(subscriber);
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let worker = start(&hatchet, &flaky()).await;
    hatchet.run(&flaky(), &()).result().await.unwrap();
    worker.shutdown().await;
    assert!(collected.has(&["span DEBUG", telemetry::CALL_SPAN]), "{:#?}", collected.texts());
}

#[tokio::test(start_paused = true)]
async fn o2_spans_of_a_task_become_its_log_lines() {
    let subscriber = tracing_subscriber::registry().with(TaskLogLayer::new().spans(true));
    let _guard = tracing::subscriber::set_default(subscriber);
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<(), u32> = Task::new("logs", async |(): (), context: Context| {
        let charge = async {
            tracing::info!("charging");
            sleep(2 * SECOND).await;
            context.log("charged");
        };
        charge.instrument(tracing::warn_span!("charge", customer = "acme")).await;
        sleep(SECOND).instrument(tracing::debug_span!("too detailed")).await;
        Ok(1)
    });
    let worker = start(&hatchet, &task).await;
    sleep(SECOND).instrument(tracing::info_span!("outside of a task")).await;
    let run = hatchet.run(&task, &()).start().await.unwrap();
    run.result().await.unwrap();
    worker.shutdown().await;
    let found: Vec<_> = run.logs().try_collect().await.unwrap();
    let texts: Vec<_> = found.iter().map(|line| (line.level.clone(), line.message.as_str())).collect();
    let expected = [(LogLevel::Info, "charging"), (LogLevel::Info, "charged"), (LogLevel::Warn, "span charge ended")];
    assert_eq!(texts, expected);
    assert_eq!(
        (&found[2].metadata.as_ref().unwrap()["customer"], &found[2].metadata.as_ref().unwrap()["duration_ms"]),
        (&"acme".into(), &2000.into())
    );
}
