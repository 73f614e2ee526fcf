//! The methods of a rerun that wait for the new run or follow it.

use serde::de::DeserializeOwned;

use super::changes::RunWatch;
use super::chunks::RunChunks;
use crate::error::{Error, Result};
use crate::model::Outcome;
use crate::run::RerunBuilder;

impl<O> RerunBuilder<O> {
    /// Starts the new run, waits for it to end, and returns its outcome.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<String>) -> hatchet::Result<()> {
    /// println!("the rerun {}", run.rerun().outcome().await?); // the rerun completed
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`start`](Self::start) and [`RunHandle::outcome`](crate::RunHandle::outcome).
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the new run may have been started. A run that was
    /// started continues.
    pub async fn outcome(self) -> Result<Outcome> {
        let run = self.start().await?;
        // The run was started, so later errors are not without side effects.
        run.outcome().await.map_err(Error::with_possible_side_effects)
    }
}

impl<O: DeserializeOwned> RerunBuilder<O> {
    /// Starts the new run, waits for it to end, and returns its output.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<String>) -> hatchet::Result<()> {
    /// println!("{}", run.rerun().result().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`start`](Self::start) and [`RunHandle::result`](crate::RunHandle::result).
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the new run may have been started. A run that was
    /// started continues.
    pub async fn result(self) -> Result<O> {
        let run = self.start().await?;
        run.result().await.map_err(Error::with_possible_side_effects)
    }
}

impl<O: 'static> RerunBuilder<O> {
    /// Returns a stream that starts the new run when it is first polled, and yields its status changes; see [`RunBuilder::watch`].
    ///
    /// If the run cannot be started, the stream yields the error of [`start`](Self::start) and ends.
    ///
    /// # Cancel safety
    /// If the stream is dropped after its first poll, the new run may have been started. A run that was started continues.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<String>) -> hatchet::Result<()> {
    /// let mut changes = run.rerun().watch();
    /// while let Some(change) = changes.next().await {
    ///     println!("{}", change?); // QUEUED (attempt 1), RUNNING (attempt 1), COMPLETED (attempt 1)
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`RunBuilder::watch`]: crate::builder::RunBuilder::watch
    pub fn watch(self) -> RunWatch {
        RunWatch::starting(self.client().clone(), self.start())
    }

    /// Returns a stream that starts the new run when it is first polled, and yields the chunks that its tasks send; see
    /// [`RunBuilder::chunks`].
    ///
    /// If the run cannot be started, the stream yields the error of [`start`](Self::start) and ends.
    ///
    /// # Cancel safety
    /// If the stream is dropped after its first poll, the new run may have been started. A run that was started continues.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<String>) -> hatchet::Result<()> {
    /// use hatchet::model::ChunkItem;
    ///
    /// let mut chunks = run.rerun().chunks();
    /// while let Some(item) = chunks.next().await.transpose()? {
    ///     if let ChunkItem::Chunk(chunk) = item {
    ///         print!("{chunk}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`RunBuilder::chunks`]: crate::builder::RunBuilder::chunks
    pub fn chunks(self) -> RunChunks<O> {
        let client = self.client().clone();
        RunChunks::starting(client, async { Ok(self.prepare().await?.numbered()) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use crate::embedded::Engine;
    use crate::error::ErrorKind;
    use crate::model::{ChunkItem, DesiredLabel, RunStatus};
    use crate::run::{RerunBuilder, RunHandle};
    use crate::workflow::{Context, Task};

    /// An engine, a worker, and a run of a task that sends a chunk and returns its input.
    async fn setup() -> (Engine, crate::worker::RunningWorker, RunHandle<Value>) {
        let engine = Engine::start().await.unwrap();
        let client = engine.client();
        let task = Task::new("task", async |input: Value, context: Context| {
            context.put("a chunk").await?;
            Ok(input)
        });
        let worker =
            client.worker("worker").label("gpu", "a100").register(&task).build().unwrap().start().await.unwrap();
        let run = client.run(&task, &json!({ "n": 1 })).start().await.unwrap();
        run.result().await.unwrap();
        (engine, worker, run)
    }

    #[tokio::test(start_paused = true)]
    async fn a_rerun_can_be_waited_for_and_followed() {
        let (engine, worker, run) = setup().await;
        assert_eq!(run.rerun().result().await.unwrap(), json!({ "n": 1 }));
        assert_eq!(run.rerun().outcome().await.unwrap().status(), RunStatus::Completed);

        let (mut changes, mut statuses) = (run.rerun().input(&json!({ "n": 2 })).watch(), Vec::new());
        while let Some(change) = changes.next().await {
            let change = change.unwrap();
            assert_ne!(change.run_id(), run.id());
            statuses.extend(change.status().cloned());
        }
        assert_eq!(statuses, [RunStatus::Queued, RunStatus::Running, RunStatus::Completed]);

        let mut chunks = run.rerun().chunks();
        let rerun = chunks.started().await.unwrap();
        assert_ne!(rerun.id(), run.id());
        let item = chunks.next().await.unwrap().unwrap();
        assert!(matches!(&item, ChunkItem::Chunk(chunk) if chunk.content.text() == Some("a chunk")), "{item:?}");
        assert_eq!(rerun.details().await.unwrap().original_run_id(), Some(run.id()));
        worker.shutdown().await;
        engine.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_rerun_that_cannot_be_started_is_an_error_of_its_streams() {
        let (engine, worker, run) = setup().await;
        let invalid = || run.rerun().timeout(Duration::ZERO);
        assert_eq!(invalid().result().await.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(invalid().watch().next().await.unwrap().unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(invalid().chunks().next().await.unwrap().unwrap_err().kind(), ErrorKind::InvalidInput);
        worker.shutdown().await;
        engine.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_rerun_can_request_workers() {
        let (engine, worker, run) = setup().await;
        let is_started = async |rerun: RerunBuilder<Value>| {
            let rerun = rerun.start().await.unwrap();
            tokio::time::sleep(Duration::from_secs(30)).await;
            !rerun.details().await.unwrap().tasks[0].attempts[0].status.eq(&RunStatus::Queued)
        };
        assert!(is_started(run.rerun().desired_label("gpu", "a100")).await);
        assert!(!is_started(run.rerun().desired_label("gpu", DesiredLabel::equal("h100").required())).await);
        worker.shutdown().await;
        engine.shutdown().await;
    }
}
