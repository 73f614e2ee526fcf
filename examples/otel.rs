//! One OpenTelemetry trace from a request to a task, its child run, and its retry.
//!
//! ```text
//! cargo run --example otel --features otel
//! ```
//!
//! A program would send the spans to a collector, with the `opentelemetry-otlp` crate. This one prints them. If `HATCHET_CLIENT_TOKEN`
//! is set, the example runs against a real Hatchet server.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;

use hatchet::embedded::Engine;
use hatchet::{Client, Context, Task, TaskError};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing::{Instrument as _, info_span};
use tracing_subscriber::layer::SubscriberExt as _;

/// Prints each span when it ends.
#[derive(Debug)]
struct Print;

impl SpanExporter for Print {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        for span in spans {
            let context = &span.span_context;
            let task = span.attributes.iter().find(|attribute| attribute.key.as_str() == "task_name");
            let task = task.map(|attribute| attribute.value.to_string()).unwrap_or_default();
            let (id, parent) = (context.span_id(), span.parent_span_id);
            println!("trace {} span {id} parent {parent}: {} {task} {:?}", context.trace_id(), span.name, span.status);
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let provider = SdkTracerProvider::builder().with_simple_exporter(Print).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("example"));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;

    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;
    let charge: Task<(), u32> = Task::new("example-charge", async |(): (), _: Context| Ok(7));
    let order = Task::with_state("example-order", charge.clone(), async |charge, (): (), context: Context| {
        let charged = context.run(&charge, &()).result().await?;
        if context.attempt() == 1 { Err(TaskError::new("the first attempt fails")) } else { Ok(charged) }
    });
    let order = order.retries(1);
    let worker = hatchet.worker("orders").register(&order).register(&charge).build()?.start().await?;

    // The metadata of the run carries the trace context of this span.
    let request = async { hatchet.run(&order, &()).result().await };
    println!("charged {}", request.instrument(info_span!("request")).await?);

    worker.shutdown().await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    provider.shutdown()?;
    Ok(())
}
