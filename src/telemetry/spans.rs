//! The spans of attempts, of calls, and of the openings of streams.

use std::fmt::Display;

use tracing::Span;
use tracing::field::Empty;

use super::{ATTEMPT_SPAN, CALL_SPAN, STREAM_SPAN, TARGET, call_result, mark_failed};
use crate::error::{Error, Result};

/// The span of the function of an attempt.
pub(crate) fn attempt_span(
    run_id: &impl Display,
    task_id: &impl Display,
    task_name: &str,
    workflow_name: &str,
    attempt: u32,
    worker_id: &impl Display,
) -> Span {
    tracing::info_span!(
        target: TARGET, ATTEMPT_SPAN, %run_id, %task_id, task_name, workflow_name, attempt, %worker_id
    )
}

/// The span of a call with its retries.
pub(crate) fn call_span(call: &'static str) -> Span {
    tracing::debug_span!(
        target: TARGET, CALL_SPAN, call, tries = Empty, result = Empty, grpc_code = Empty, http_status = Empty
    )
}

/// The span of the opening of a stream.
pub(crate) fn stream_span(call: &'static str) -> Span {
    tracing::debug_span!(
        target: TARGET, STREAM_SPAN, call, result = Empty, grpc_code = Empty, http_status = Empty
    )
}

/// Adds the result of a call to its span.
pub(crate) fn record_result<T>(span: &Span, result: &Result<T>) {
    let error = result.as_ref().err();
    span.record("result", call_result(error.map(Error::kind)));
    let Some(error) = error else { return };
    if let Some(code) = error.grpc_code() {
        span.record("grpc_code", code);
    }
    if let Some(status) = error.http_status() {
        span.record("http_status", status);
    }
    mark_failed(span, &error.to_string());
}
