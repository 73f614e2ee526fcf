//! The OpenTelemetry trace of a run, which its metadata passes from process to process. Without the `otel` feature, nothing is passed on.

#[cfg(feature = "otel")]
pub(crate) use with_otel::{continue_trace, current_traceparent, mark_failed};
#[cfg(not(feature = "otel"))]
pub(crate) use without_otel::{continue_trace, current_traceparent, mark_failed};

/// The metadata key of the trace of a run, in the format of the W3C. The engine adds it to runs that have none.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// The metadata key of the trace of an event. The engine replaces [`TRACEPARENT`] in the runs of an event.
pub(crate) const EVENT_TRACEPARENT: &str = "hatchet_rs__traceparent";

#[cfg(feature = "otel")]
mod with_otel {
    use opentelemetry::Context;
    use opentelemetry::trace::{SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState};
    use serde::Deserialize;
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    /// The keys of metadata that are about traces.
    #[derive(Default, Deserialize)]
    struct Trace {
        traceparent: Option<String>,
        #[serde(rename = "hatchet_rs__traceparent")]
        event: Option<String>,
    }

    /// The current span: that of `tracing`, or else that of OpenTelemetry. `None` if there is none.
    pub(crate) fn current_traceparent() -> Option<String> {
        let current = Span::current().context();
        let current = if current.has_active_span() { current } else { Context::current() };
        let span = current.span();
        let context = Some(span.span_context()).filter(|context| context.is_valid())?;
        Some(format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8()))
    }

    /// Makes a span that was just created part of the trace of a run with this metadata.
    pub(crate) fn continue_trace(span: &Span, metadata: &str) {
        if span.is_disabled() {
            return;
        }
        let trace: Trace = serde_json::from_str(metadata).unwrap_or_default();
        let parent = trace.event.as_deref().and_then(parse).or_else(|| parse(trace.traceparent.as_deref()?));
        if let Some(parent) = parent {
            // It fails if the program has no layer for OpenTelemetry.
            drop(span.set_parent(Context::new().with_remote_span_context(parent)));
        }
    }

    /// Marks a span as failed.
    pub(crate) fn mark_failed(span: &Span, message: &str) {
        span.set_status(Status::error(message.to_owned()));
    }

    /// Later versions of the format only add fields.
    fn parse(text: &str) -> Option<SpanContext> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, len| text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex(version, 2) || version == "ff" || !is_hex(trace, 32) || !is_hex(span, 16) || !is_hex(flags, 2) {
            return None;
        }
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
        let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
        Some(SpanContext::new(trace, span, flags, true, TraceState::default())).filter(SpanContext::is_valid)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn only_valid_contexts_are_continued() {
            let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            let context = parse(text).unwrap();
            assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
            assert_eq!((context.span_id().to_string().as_str(), context.is_sampled()), ("b7ad6b7169203331", true));
            assert!(context.is_remote());
            assert!(parse(&format!("cc{}-more", &text[2..])).is_some());
            for text in [
                "",
                "00",
                "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
                "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                "00-ä-b7ad6b7169203331-01",
            ] {
                assert!(parse(text).is_none(), "{text}");
            }
        }

        #[test]
        fn nothing_is_current_outside_of_a_span() {
            assert_eq!(current_traceparent(), None);
            let span = SpanContext::new(1.into(), 2.into(), TraceFlags::SAMPLED, false, TraceState::default());
            let _attached = Context::new().with_remote_span_context(span).attach();
            let expected = "00-00000000000000000000000000000001-0000000000000002-01";
            assert_eq!(current_traceparent().as_deref(), Some(expected), "a span without `tracing`");
        }
    }
}

#[cfg(not(feature = "otel"))]
mod without_otel {
    use tracing::Span;

    pub(crate) fn current_traceparent() -> Option<String> {
        None
    }

    pub(crate) fn continue_trace(_: &Span, _: &str) {}

    pub(crate) fn mark_failed(_: &Span, _: &str) {}
}
