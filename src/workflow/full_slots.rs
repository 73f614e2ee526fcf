//! Whether a worker has a free slot: for the child of an attempt, which holds its own while it waits, and for what the engine assigns while
//! the runtime is blocked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether all slots of a worker are taken. Shared by the worker and its attempts.
#[derive(Debug, Clone, Default)]
pub(crate) struct FullSlots(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_full: AtomicBool,
    was_logged: AtomicBool,
}

impl FullSlots {
    pub(crate) fn set(&self, is_full: bool) {
        self.0.is_full.store(is_full, Relaxed);
    }

    pub(crate) fn are_full(&self) -> bool {
        self.0.is_full.load(Relaxed)
    }

    /// Whether an attempt that starts a child is to be logged: once for each worker, because a busy worker may have many of them.
    pub(super) fn take_warning(&self) -> bool {
        self.are_full() && !self.0.was_logged.swap(true, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_worker_is_logged_once() {
        let slots = FullSlots::default();
        assert!(!slots.take_warning());
        slots.set(true);
        assert!(slots.clone().take_warning() && !slots.take_warning());
    }
}
