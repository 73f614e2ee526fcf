//! The first panic inside the engine, kept so that nobody can overlook it.

use std::any::Any;
use std::sync::{Arc, OnceLock};

/// Shared by the core's task, its callers and the listeners.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failure(Arc<OnceLock<String>>);

impl Failure {
    /// Notes a panic, unless there was one before, and returns its message.
    pub(crate) fn record(&self, panic: &(dyn Any + Send)) -> String {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message");
        self.0.get_or_init(|| message.to_owned());
        message.to_owned()
    }

    pub(crate) fn message(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    /// Panics in the caller if there was a panic before, with the same message.
    ///
    /// The panic hook does not run again: it has printed the message and the place at the first panic.
    pub(crate) fn resume(&self) {
        if let Some(message) = self.message() {
            std::panic::resume_unwind(Box::new(message.to_owned()));
        }
    }
}
