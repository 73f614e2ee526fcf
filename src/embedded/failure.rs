//! The record of the first panic of the engine. All later calls report it.

use std::any::Any;
use std::sync::{Arc, OnceLock};

/// The message of the first panic, if there was one. The core's task, its callers and the listeners share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failure(Arc<OnceLock<String>>);

impl Failure {
    /// Records a panic, unless there was an earlier one, and returns its message.
    pub(crate) fn record(&self, panic: &(dyn Any + Send)) -> String {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message");
        self.0.get_or_init(|| message.to_owned());
        message.to_owned()
    }

    pub(crate) fn message(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    /// Panics with the same message if a panic was recorded.
    ///
    /// The panic hook does not run again: it printed the message and the location at the first panic.
    pub(crate) fn resume(&self) {
        if let Some(message) = self.message() {
            std::panic::resume_unwind(Box::new(message.to_owned()));
        }
    }
}
