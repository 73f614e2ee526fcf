//! Waiting for a condition.

use crate::error::Result;
use crate::model::{Change, Until};
use crate::run::RunHandle;

impl<O> RunHandle<O> {
    /// Waits until a condition is true, and returns the change that made it true.
    ///
    /// Changes from before the call count, too. Returns `None` if the run ends and no change has made the condition true. A status that is
    /// missing because of a [gap](Change::Gap) does not count.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
    /// use hatchet::RunStatus;
    /// use hatchet::model::Until;
    ///
    /// if run.until(RunStatus::Running).await?.is_none() {
    ///     println!("the run has ended without having been observed while it was running");
    /// }
    /// run.until(Until::attempt(2).or(Until::ended())).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of the stream; see [`RunWatch`](crate::stream::RunWatch).
    ///
    /// # Cancel safety
    /// This method is cancel safe: dropping the future does not affect the run, and the wait can be started again.
    pub async fn until(&self, condition: impl Into<Until>) -> Result<Option<Change>> {
        let (mut watch, mut condition) = (self.watch(), condition.into());
        while let Some(change) = watch.next().await.transpose()? {
            if condition.take(&change) {
                return Ok(Some(change));
            }
        }
        Ok(None)
    }
}
