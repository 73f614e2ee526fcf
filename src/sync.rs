//! Waiting for what may not be there, and locks without poisoning.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::{Shared, WeakShared};

/// Resolves with a future, or never if there is none. Cancel safe if the future is.
pub(crate) async fn or_pending<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// A shared future that its callers still wait for, so that others can join them.
pub(crate) fn running<F: Future<Output: Clone>>(shared: &WeakShared<F>) -> Option<Shared<F>> {
    shared.upgrade().filter(|running| running.peek().is_none())
}

/// Locks a mutex. The values in this crate are consistent whenever their lock is released, also by a panic.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
