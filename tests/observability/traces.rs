//! Traces of OpenTelemetry.

use std::sync::{Arc, Mutex};

use hatchet::embedded::{Engine, Fault};
use hatchet::workflow::{BatchItem, BatchOptions};
use hatchet::{Context, Task, TaskError, telemetry};
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, Status, TraceId, TracerProvider as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio::time::sleep;
use tracing::subscriber::DefaultGuard;
use tracing::{Instrument as _, info_span};
use tracing_subscriber::layer::SubscriberExt as _;

use super::{SECOND, start};

/// The spans that have ended.
#[derive(Debug, Clone, Default)]
struct Spans(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Spans {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(spans);
        Ok(())
    }
}

impl Spans {
    /// The spans of this thread, until the guard is dropped.
    fn recording() -> (Self, DefaultGuard) {
        let spans = Self::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        (spans, tracing::subscriber::set_default(tracing_subscriber::registry().with(layer)))
    }

    /// The only span with this name, or the spans of the attempts of this task, in their order.
    fn of(&self, name: &str) -> Vec<SpanData> {
        let has_name = |span: &&SpanData| {
            let is_task =
                |attribute: &KeyValue| attribute.key.as_str() == "task_name" && attribute.value.as_str() == name;
            span.name == name || span.attributes.iter().any(is_task)
        };
        self.0.lock().unwrap().iter().filter(has_name).cloned().collect()
    }

    fn one(&self, name: &str) -> SpanData {
        let [span] = self.of(name).try_into().unwrap();
        span
    }
}

fn ids(span: &SpanData) -> (TraceId, SpanId) {
    (span.span_context.trace_id(), span.span_context.span_id())
}

/// The trace and the parent of a span.
fn parent(span: &SpanData) -> (TraceId, SpanId) {
    (span.span_context.trace_id(), span.parent_span_id)
}

#[tokio::test(start_paused = true)]
async fn o3_one_trace_connects_runs_retries_children_and_events() {
    let (spans, _guard) = Spans::recording();
    let engine = Engine::start().await.unwrap();
    let child: Task<(), u32> = Task::new("child", async |(): (), context: Context| Ok(context.attempt()));
    let parent_task =
        Task::with_state("parent", child.clone(), async |child: Task<(), u32>, (): (), context: Context| {
            let output = context.run(&child, &()).result().await?;
            match context.attempt() {
                1 => Err(TaskError::new("as planned")),
                _ => Ok(output),
            }
        });
    let parent_task = parent_task.retries(1).on_event("order:created");
    let lone: Task<(), ()> = Task::new("lone", async |(): (), _: Context| Ok(()));
    // The client of another process, which shares nothing but the engine.
    let worker = engine.client().worker("worker").register(&parent_task).register(&child).register(&lone);
    let worker = worker.build().unwrap().start().await.unwrap();
    let hatchet = engine.client();

    let request = info_span!("request");
    let run = async {
        let run = hatchet.run(&parent_task, &()).start().await.unwrap();
        assert_eq!(run.result().await.unwrap(), 1);
        run
    };
    let run = run.instrument(request).await;
    let request = spans.one("request");
    let [first, second] = spans.of("parent").try_into().unwrap();
    assert_eq!((parent(&first), parent(&second)), (ids(&request), ids(&request)));
    assert_eq!((&first.status, &second.status), (&Status::error("as planned"), &Status::Unset));
    // It was started by the first attempt, and not again by the second one.
    assert_eq!(parent(&spans.one("child")), ids(&first));
    // The key is hidden from users.
    let details = run.details().await.unwrap();
    assert_eq!(details.metadata.len(), 0);
    let (trace, span) = ids(&request);
    assert_eq!(details.engine_metadata["traceparent"], format!("00-{trace}-{span}-01"));

    // A replay continues the trace of the run, wherever it is requested.
    spans.0.lock().unwrap().clear();
    let replayed = async {
        run.replay().send().await.unwrap();
        run.result().await.unwrap();
    };
    replayed.instrument(info_span!("operator")).await;
    assert_eq!(parent(&spans.of("parent")[0]), ids(&request));

    // The runs of an event, and their children.
    spans.0.lock().unwrap().clear();
    let push = async { hatchet.push("order:created", &serde_json::json!({})).send().await.unwrap() };
    push.instrument(info_span!("push")).await;
    while spans.of("parent").len() < 2 {
        sleep(SECOND).await;
    }
    let [first, _] = spans.of("parent").try_into().unwrap();
    assert_eq!(parent(&first), ids(&spans.one("push")));
    assert_eq!(parent(&spans.one("child")), ids(&first));

    // Many at once, and a run without a span.
    spans.0.lock().unwrap().clear();
    let many = async {
        let results = hatchet.run_many(&lone, [(), ()]).results().await.unwrap();
        assert!(results.iter().all(Result::is_ok));
    };
    many.instrument(info_span!("many")).await;
    let many = ids(&spans.one("many"));
    assert_eq!(spans.of("lone").iter().map(parent).collect::<Vec<_>>(), [many, many]);
    spans.0.lock().unwrap().clear();
    hatchet.run(&lone, &()).result().await.unwrap();
    let alone = spans.one("lone");
    assert!(alone.parent_span_is_remote && alone.span_context.trace_id() != many.0);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_batch_is_marked_as_failed() {
    let (spans, _guard) = Spans::recording();
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<(), u32> = Task::batch("together", BatchOptions::new(1), async |items: Vec<BatchItem<()>>| {
        Ok(items.iter().map(|_| Err(TaskError::new("as planned"))).collect())
    });
    let worker = start(&hatchet, &task).await;
    hatchet.run(&task, &()).outcome().await.unwrap();
    worker.shutdown().await;
    assert_eq!(spans.one(telemetry::BATCH_SPAN).status, Status::error("as planned"));
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_call_belongs_to_its_caller_and_is_marked_as_failed() {
    let (spans, _guard) = Spans::recording();
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    engine.faults().inject("Push", Fault::RejectGrpc(3)).unwrap();
    let push = async { hatchet.push("order:created", &serde_json::json!({})).send().await.unwrap_err() };
    let error = push.instrument(info_span!("request")).await;
    let call = spans.one(telemetry::CALL_SPAN);
    assert_eq!(parent(&call), ids(&spans.one("request")));
    assert_eq!(call.status, Status::error(error.to_string()));
}
