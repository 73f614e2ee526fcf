//! Runs user code and catches its panics: while it is polled, while it is dropped, and while the panic payload is dropped.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::model::payload::cut;

/// The maximum size of a panic message in bytes.
const MAX_MESSAGE_BYTES: usize = 10_000;

/// A future that resolves to an error with the panic message if the inner future panics. `log` gets the message of a panic while the inner
/// future is dropped after it has ended, or before.
pub(super) struct CatchPanic<F: Future, L: Fn(&str)> {
    future: Option<Pin<Box<F>>>,
    log: L,
}

impl<F: Future, L: Fn(&str)> CatchPanic<F, L> {
    pub(super) fn new(future: F, log: L) -> Self {
        Self { future: Some(Box::pin(future)), log }
    }
}

impl<F: Future, L: Fn(&str) + Unpin> Future for CatchPanic<F, L> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.future else { return Poll::Pending };
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

impl<F: Future, L: Fn(&str)> CatchPanic<F, L> {
    fn drop_future(&mut self) {
        let future = self.future.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(future))) {
            // Not evaluated by what logs: if logging is off, a macro would drop the panic payload unguarded.
            (self.log)(&message(panic));
        }
    }
}

impl<F: Future, L: Fn(&str)> Drop for CatchPanic<F, L> {
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
    use std::cell::RefCell;

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
        CatchPanic::new(future, |_| ()).now_or_never()
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
        let messages = RefCell::new(Vec::new());
        let log = |message: &str| messages.borrow_mut().push(message.to_owned());
        assert_eq!(CatchPanic::new(unfinished, log).now_or_never(), None, "it is dropped while it waits");
        assert_eq!(messages.into_inner(), ["the task panicked"]);
    }
}
