//! What a task can change about itself.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::context::Context;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::run::RunHandle;
use crate::time::MAX_DURATION;

impl Context {
    /// Extends the execution timeout of this attempt, and returns the new deadline by the engine's clock, or `None` if the engine does not
    /// report it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use hatchet::{Context, Task};
    ///
    /// let import: Task<(), ()> = Task::new("import", async |(): (), context: Context| {
    ///     context.refresh_timeout(Duration::from_secs(60)).await?;
    ///     Ok(())
    /// });
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the duration is 0 or more than 10 years. [`NotFound`](ErrorKind::NotFound) if the
    /// engine has already ended the attempt. Other errors of a call, such as [`Unavailable`](ErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the timeout may have been extended.
    pub async fn refresh_timeout(&self, by: Duration) -> Result<Option<DateTime<Utc>>> {
        if by.is_zero() || by > MAX_DURATION {
            return Err(Error::invalid("timeout", format!("expected more than 0 and at most 10 years, got {by:?}")));
        }
        self.client().rpc().dispatcher.refresh_timeout(self.task_id(), by).await
    }

    /// Requests that the engine frees the slot of this attempt, so that another attempt can start while this one only waits. The worker may
    /// then run more attempts than it has slots.
    ///
    /// Engines up to v0.104.7 accept the request and do not free the slot. After it, the engine does not notify the worker if the attempt is
    /// cancelled, and does not assign it again if the worker is lost; the execution timeout still applies.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the engine has already ended the attempt. Other errors of a call, such as
    /// [`Unavailable`](ErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// This method is cancel safe: the request can be sent again.
    pub async fn release_slot(&self) -> Result<()> {
        self.client().rpc().dispatcher.release_slot(self.task_id()).await?;
        self.notify_released();
        Ok(())
    }

    /// Returns a handle to the run that this task belongs to, for example to [cancel](RunHandle::cancel) it.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// let check: Task<(), ()> = Task::new("check", async |(): (), context: Context| {
    ///     context.run_handle().cancel().reason("there is nothing to do").send().await?;
    ///     Ok(())
    /// });
    /// ```
    pub fn run_handle(&self) -> RunHandle {
        self.client().run_handle(self.run_id())
    }
}
