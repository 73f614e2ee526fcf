//! Runs user code and catches its panics: while it is polled, while it is dropped, and while the panic payload is dropped.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::model::payload::cut;

/// The maximum size of a panic message in bytes.
const MAX_MESSAGE_BYTES: usize = 10_000;

/// A future that resolves to an error with the panic message if the inner future panics.
pub(super) struct CatchPanic<F: Future>(Option<Pin<Box<F>>>);

impl<F: Future> CatchPanic<F> {
    pub(super) fn new(future: F) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.0 else { return Poll::Pending };
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => {
                self.drop_future();
                Poll::Ready(Ok(output))
            }
            Err(panic) => {
                let message = message(panic);
                self.drop_future();
                Poll::Ready(Err(message))
            }
        }
    }
}

impl<F: Future> CatchPanic<F> {
    fn drop_future(&mut self) {
        let future = self.0.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(future))) {
            // Not evaluated within the macro: if logging is off, the macro would drop the panic payload unguarded.
            let panic = message(panic);
            tracing::warn!(panic, "task panicked while it was dropped");
        }
    }
}

impl<F: Future> Drop for CatchPanic<F> {
    fn drop(&mut self) {
        self.drop_future();
    }
}

/// The message of a panic of a task.
fn message(panic: Box<dyn Any + Send>) -> String {
    describe("the task", panic)
}

/// The message of a panic of `what`. Its payload may panic when it is dropped.
pub(super) fn describe(what: &str, panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let message = match text {
        Some(text) => format!("{what} panicked: {}", cut(text.to_owned(), MAX_MESSAGE_BYTES)),
        None => format!("{what} panicked"),
    };
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        // Each payload may panic with another one, without end.
        std::mem::forget(another);
    }
    message
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Panics when it is dropped, with a value that does so too.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                std::panic::panic_any(Bomb);
            }
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> Option<Result<T, String>> {
        CatchPanic::new(future).now_or_never()
    }

    #[test]
    fn panics_are_errors() {
        assert_eq!(run(async { 7 }), Some(Ok(7)));
        assert_eq!(run(async { panic!("at {}", 1) }), Some(Err::<(), _>("the task panicked: at 1".into())));
        assert_eq!(run(async { std::panic::panic_any(7) }), Some(Err::<(), _>("the task panicked".into())));
    }

    #[test]
    fn panics_of_the_payload_are_caught() {
        assert_eq!(run(async { std::panic::panic_any(Bomb) }), Some(Err::<(), _>("the task panicked".into())));
    }

    #[test]
    fn panics_while_dropping_are_caught() {
        let bomb = Bomb;
        let captured = async move {
            let _bomb = &bomb;
            7
        };
        assert_eq!(run(captured), Some(Err("the task panicked".into())), "it is dropped when the code has ended");
        let bomb = Bomb;
        let unfinished = async move {
            let _bomb = bomb;
            std::future::pending::<()>().await;
        };
        assert_eq!(run(unfinished), None, "it is dropped while it waits");
    }
}
