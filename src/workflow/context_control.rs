//! What a task can change about itself.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::context::Context;
use crate::error::Error;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::request::CommandBuilder;
use crate::run::RunHandle;
use crate::time::MAX_DURATION;

impl Context {
    /// Returns a command that extends the execution timeout of this attempt.
    ///
    /// The command returns the new deadline, by the engine's clock. It returns `None` if the engine does not report the deadline, or if the
    /// function is called without a worker (`testing::call`).
    ///
    /// ```
    /// use std::time::Duration;
    /// use hatchet::{Context, Task};
    ///
    /// let import: Task<(), ()> = Task::new("import", async |(): (), context: Context| {
    ///     context.refresh_timeout(Duration::from_secs(60)).send().await?;
    ///     Ok(())
    /// });
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the duration is 0 or more than 10 years. [`NotFound`](ErrorKind::NotFound) if the
    /// engine has already ended the attempt. Also the errors of a gRPC call, such as [`Unavailable`](ErrorKind::Unavailable).
    pub fn refresh_timeout(&self, by: Duration) -> CommandBuilder<Option<DateTime<Utc>>> {
        let context = self.clone();
        CommandBuilder::new(self.client(), async move |client| {
            if by.is_zero() || by > MAX_DURATION {
                let message = format!("expected more than 0 and at most 10 years, got {by:?}");
                return Err(Error::invalid("timeout", message));
            }
            if !context.is_of_engine() {
                return Ok(None);
            }
            let deadline = client.rpc().dispatcher.refresh_timeout(context.task_id(), by).await?;
            context.extend_timeout(by);
            Ok(deadline)
        })
    }

    /// Returns a command that asks the engine to free the slot of this attempt, so that another attempt can start while this one only
    /// waits.
    ///
    /// The worker may then run more attempts than it has slots.
    ///
    /// Engines up to v0.104.7 accept the request but do not free the slot. After this command, the engine does not notify the worker if the
    /// attempt is cancelled, and does not assign the attempt again if the worker is lost; the execution timeout still applies.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the engine has already ended the attempt. Also the errors of a gRPC call, such as
    /// [`Unavailable`](ErrorKind::Unavailable): the slot may have been freed anyway, and the command can be sent again.
    pub fn release_slot(&self) -> CommandBuilder {
        let context = self.clone();
        CommandBuilder::new(self.client(), async move |client| {
            if context.is_of_engine() {
                client.rpc().dispatcher.release_slot(context.task_id()).await?;
                context.notify_released();
            }
            Ok(())
        })
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
