//! The context of the attempt whose function runs.

use tracing::{Instrument as _, Span};

use super::context::Context;

tokio::task_local! {
    static CURRENT: Context;
}

/// Runs the function of an attempt in its span, so that [`current_context`] returns its context.
pub(crate) async fn in_context<T>(context: Context, span: impl FnOnce() -> Span, code: impl Future<Output = T>) -> T {
    CURRENT.scope(context, async { code.instrument(span()).await }).await
}

/// The context of the attempt whose function runs, if there is one.
#[cfg(feature = "tracing-subscriber")]
pub(crate) fn current_context() -> Option<Context> {
    CURRENT.try_with(Clone::clone).ok()
}
