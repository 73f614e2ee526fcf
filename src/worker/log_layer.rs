//! Writes what a task logs with `tracing` to its log in Hatchet.

use std::cell::Cell;
use std::fmt::{self, Write as _};

use serde_json::{Map, Value};
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context as LayerContext;
use tracing_subscriber::registry::{LookupSpan, Scope};

use crate::model::LogLevel;
use crate::telemetry::{ATTEMPT_SPAN, TARGET};
use crate::workflow::{Context, current_context};

thread_local! {
    /// Whether this thread writes a line.
    static IS_WRITING: Cell<bool> = const { Cell::new(false) };
}

/// The targets of crates whose events are not those of the task, but of the connection that would carry them.
const OWN_TARGETS: &[&str] = &["hatchet", "h2", "hyper", "hyper_util", "rustls", "tokio_rustls", "tonic", "tower"];

/// A layer for `tracing-subscriber` that writes the events of a task to its log in Hatchet.
///
/// An event belongs to a task if it occurs in the span of its attempt, or in a descendant of that span. That includes code that the task
/// has spawned in such a span, for example with `tracing::Instrument`. The fields of the event and of its spans below that of the attempt
/// become the metadata of the line, including those that were set with `Span::record` before the event. If several have the same name, the
/// event and the inner spans take precedence. With [`spans`](Self::spans), a line is also written for each span of a task when the span
/// ends. Lines are truncated and queued as in [`Context::log_with`](crate::Context::log_with). Events of this crate and of its transport
/// (`hatchet`, `h2`, `hyper`, `hyper_util`, `rustls`, `tokio_rustls`, `tonic`, `tower`) are ignored.
///
/// The layer does not disable any span or event for other layers. If it is the only layer, give it a filter at level `INFO` or a more
/// verbose one, which saves the cost of the spans and events that it ignores: `TaskLogLayer::new().with_filter(LevelFilter::INFO)`.
///
/// ```
/// use hatchet::model::LogLevel;
/// use hatchet::worker::TaskLogLayer;
/// use tracing_subscriber::layer::SubscriberExt as _;
///
/// let subscriber = tracing_subscriber::registry().with(TaskLogLayer::new().max_level(LogLevel::Debug));
/// # drop(subscriber);
/// ```
#[derive(Debug, Clone)]
pub struct TaskLogLayer {
    max_level: Level,
    spans: bool,
}

impl TaskLogLayer {
    /// Creates a layer for events at level `INFO` and above.
    pub fn new() -> Self {
        Self { max_level: Level::INFO, spans: false }
    }

    /// Sets whether a line is written when a span of a task ends, with the level and the fields of the span.
    ///
    /// The text of the line is `span NAME ended`, and the key `duration_ms` of its metadata is the time from the creation of the span to
    /// its end. The default is `false`.
    #[must_use]
    pub fn spans(mut self, spans: bool) -> Self {
        self.spans = spans;
        self
    }

    /// Sets the most verbose level that is written. Events at level `TRACE` are never written.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "as all setters of builders")]
    pub fn max_level(mut self, level: LogLevel) -> Self {
        self.max_level = match level {
            LogLevel::Error => Level::ERROR,
            LogLevel::Warn => Level::WARN,
            LogLevel::Debug => Level::DEBUG,
            LogLevel::Info | LogLevel::Unknown(_) => Level::INFO,
        };
        self
    }
}

impl Default for TaskLogLayer {
    fn default() -> Self {
        Self::new()
    }
}

/// The fields of a span.
struct SpanFields(Map<String, Value>);

/// When a span was created.
struct CreatedAt(Instant);

impl TaskLogLayer {
    /// Whether events or spans are written.
    fn is_written(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.max_level && !is_own(metadata)
    }
}

/// Whether a span or an event is one of this crate or of its transport.
fn is_own(metadata: &Metadata<'_>) -> bool {
    OWN_TARGETS
        .iter()
        .any(|own| metadata.target().strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))
}

/// Writes a line to the log of the attempt in whose span this is. The fields of the spans between are added.
fn write<S>(metadata: &Metadata<'_>, mut fields: Fields, scope: Scope<'_, S>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let mut attempt = None;
    for span in scope {
        let extensions = span.extensions();
        if let Some(found) = extensions.get::<Context>() {
            attempt = Some(found.clone());
            break;
        }
        for (name, value) in extensions.get::<SpanFields>().into_iter().flat_map(|fields| &fields.0) {
            fields.fields.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    let Some(attempt) = attempt else { return };
    let level = match *metadata.level() {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        _ => LogLevel::Debug,
    };
    fields.fields.insert("target".into(), metadata.target().into());
    unless_nested(|| attempt.write_log(level, fields.message, Value::Object(fields.fields).to_string()));
}

/// Runs code unless this thread runs such code already: a line that is lost is measured, and a recorder may log that in the same span.
fn unless_nested(code: impl FnOnce()) {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            IS_WRITING.set(false);
        }
    }
    if !IS_WRITING.replace(true) {
        let _reset = Reset;
        code();
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TaskLogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: LayerContext<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if span.name() == ATTEMPT_SPAN && span.metadata().target() == TARGET {
            if let Some(attempt) = current_context() {
                span.extensions_mut().replace(attempt);
            }
            return;
        }
        if is_own(span.metadata()) {
            return;
        }
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let mut extensions = span.extensions_mut();
        extensions.replace(SpanFields(fields.fields));
        if self.spans {
            extensions.replace(CreatedAt(Instant::now()));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: LayerContext<'_, S>) {
        let Some(span) = context.span(id) else { return };
        // Before the extensions are locked: this is user code.
        let mut recorded = Fields::default();
        values.record(&mut recorded);
        if let Some(SpanFields(fields)) = span.extensions_mut().get_mut() {
            fields.extend(recorded.fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: LayerContext<'_, S>) {
        if !self.is_written(event.metadata()) {
            return;
        }
        let Some(scope) = context.event_scope(event) else { return };
        let mut fields = Fields::default();
        event.record(&mut fields);
        write(event.metadata(), fields, scope);
    }

    fn on_close(&self, id: Id, context: LayerContext<'_, S>) {
        let Some(span) = context.span(&id).filter(|span| self.spans && self.is_written(span.metadata())) else {
            return;
        };
        let created_at = span.extensions().get().map(|CreatedAt(at)| *at);
        let Some(duration) = created_at.map(|at| at.elapsed()) else { return };
        let mut fields = Fields { message: format!("span {} ended", span.name()), ..Fields::default() };
        fields.fields.insert("duration_ms".into(), u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).into());
        write(span.metadata(), fields, span.scope());
    }
}

/// The message and the fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    fields: Map<String, Value>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.fields.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string does not fail.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.add(field, format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" { self.message.push_str(value) } else { self.add(field, value) }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_recorder_that_logs_does_not_write_lines_without_end() {
        fn write(count: &Cell<u32>) {
            unless_nested(|| {
                count.set(count.get() + 1);
                write(count);
            });
        }
        let count = Cell::new(0);
        write(&count);
        assert_eq!(count.get(), 1);
        // One that panics does not end the log of the thread.
        assert!(catch_unwind(AssertUnwindSafe(|| unless_nested(|| panic!("as planned")))).is_err());
        write(&count);
        assert_eq!(count.get(), 2);
    }
}
