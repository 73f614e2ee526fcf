//! The status changes of one run.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::StreamExt as _;

use super::follower::{Follower, Shared, Watched};
use crate::boxed::BoxStream;
use crate::client::Client;
use crate::error::Result;
use crate::model::{Change, ChangeKind};
use crate::run::{RunBuilder, RunHandle};

impl<O> RunHandle<O> {
    /// Returns a stream of all status changes of the run, in order, from its creation to its end, including changes from before the call.
    ///
    /// The stream ends after the change that [is final](Change::is_final). Dropping the stream stops the watch. Status changes that the
    /// engine does not report within 10 seconds are yielded as a [gap](Change::Gap).
    ///
    /// All watches of a client share one subscription and one list of tasks, and together send at most
    /// [`watch_request_rate`](crate::config::ConfigBuilder::watch_request_rate) requests per second.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
    /// let mut changes = run.watch();
    /// while let Some(change) = changes.next().await {
    ///     println!("{}", change?); // RUNNING (attempt 1)
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self) -> RunWatch {
        RunWatch::of(Watched::of(self))
    }
}

impl<O: 'static> RunBuilder<O> {
    /// Returns a stream that starts the run when it is first polled, and yields all status changes of the run, in order, until its end.
    ///
    /// Each change contains the id of the run. The client requests the subscription to the run events of its runs before it starts the run,
    /// but does not wait until it begins: if the run event of a status is missing, the status is taken from the history of the run.
    ///
    /// To receive the chunks of the same run, too, start it with [`chunks`](Self::chunks), and watch the handle that
    /// [`RunChunks::started`](super::RunChunks::started) returns.
    ///
    /// If the run cannot be started, the stream yields the error of [`start`](Self::start) and ends.
    ///
    /// # Cancel safety
    /// If the stream is dropped after its first poll, the run may have been started. A run that was started continues.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), String>) -> hatchet::Result<()> {
    /// let mut changes = hatchet.run(&greet, &()).watch();
    /// while let Some(change) = changes.next().await {
    ///     println!("{}", change?); // QUEUED (attempt 1), RUNNING (attempt 1), COMPLETED (attempt 1)
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(self) -> RunWatch {
        RunWatch::starting(self.client().clone(), self.start())
    }
}

/// A stream of a run's [`Change`]s; see [`RunHandle::watch`].
///
/// The stream continues after an outage of the server, however long the outage is. It ends after an error. The error is
/// [`RunNotFound`](crate::ErrorKind::RunNotFound) if the engine has no such run (reported after about a second for an id, and after about ten
/// seconds for a run that this client has started). Otherwise, it is the error of a fetch: the stream yields
/// it immediately if a retry cannot succeed or if the REST API has never been reached, and after more than a minute if the server reports
/// internal errors. While the server is unavailable, there is no limit.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use hatchet::RunStatus;
///
/// let mut changes = run.watch();
/// while let Some(change) = changes.next().await.transpose()? {
///     if change.has_status(&RunStatus::Running) {
///         println!("attempt {} has started", change.attempt());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is started or fetched before the stream is polled"]
pub struct RunWatch {
    changes: BoxStream<Result<Change>>,
    shared: Shared,
    filter: Filter,
}

/// Which changes are returned.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) kinds: Vec<ChangeKind>,
    pub(super) tasks: Vec<String>,
}

impl Filter {
    fn matches(&self, change: &Change) -> bool {
        let of_task = || change.task_name().is_some_and(|task| self.tasks.iter().any(|name| name == task));
        let kind = change.kind();
        let of_kind = self.kinds.is_empty() || self.kinds.contains(&kind) || kind == ChangeKind::Gap;
        of_kind && (self.tasks.is_empty() || of_task())
    }

    /// Polls a stream for the next change that matches, or for an error.
    pub(super) fn poll_next(
        &self,
        changes: &mut BoxStream<Result<Change>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Change>>> {
        loop {
            match std::task::ready!(changes.poll_next_unpin(cx)) {
                Some(Ok(change)) if !self.matches(&change) => {}
                item => return Poll::Ready(item),
            }
        }
    }
}

impl RunWatch {
    pub(super) fn of(watched: Watched) -> Self {
        Self::sharing(watched, Shared::default())
    }

    /// One of several watches in a stream. They share the counter of ignored updates and the setting to follow replays.
    pub(super) fn sharing(watched: Watched, shared: Shared) -> Self {
        Self::new(async { Ok(watched) }, shared)
    }

    /// A watch that starts its run when it is first polled, after it has requested the subscription.
    pub(super) fn starting<O: 'static>(
        client: Client,
        start: impl Future<Output = Result<RunHandle<O>>> + Send + 'static,
    ) -> Self {
        let watched = async move {
            let membership = client.feed().events.join(client.feed().tag());
            start.await.map(|run| {
                // One that existed before may have the tag of another client.
                let membership = run.started_at().is_some().then_some(membership);
                Watched { membership, is_first: true, ..Watched::of(&run) }
            })
        };
        Self::new(watched, Shared::default())
    }

    fn new(start: impl Future<Output = Result<Watched>> + Send + 'static, shared: Shared) -> Self {
        let of_stream = shared.clone();
        let follower = async move { Ok(Follower::new(start.await?, of_stream)) };
        let changes = BoxStream::opened(follower, |mut follower: Follower| async move {
            Some((follower.next().await?, Some(follower)))
        });
        Self { changes, shared, filter: Filter::default() }
    }

    /// Limits the stream to changes of this kind, or of several kinds if this method is called several times. This filter does not remove
    /// gaps or errors.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
    /// use hatchet::model::ChangeKind;
    ///
    /// let mut changes = run.watch().only(ChangeKind::Run); // not those of its tasks
    /// # Ok(())
    /// # }
    /// ```
    pub fn only(mut self, kind: ChangeKind) -> Self {
        self.filter.kinds.push(kind);
        self
    }

    /// Limits the stream to the changes and gaps of the task with this name, or of several tasks if this method is called several times.
    ///
    /// The stream still ends with the run. The task of a single-task run has no changes of its own.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
    /// let mut changes = run.watch().task("charge").task("ship");
    /// # Ok(())
    /// # }
    /// ```
    pub fn task(mut self, name: impl Into<String>) -> Self {
        self.filter.tasks.push(name.into());
        self
    }

    /// Continues after the end of the run, and also yields the changes of its replays.
    ///
    /// Such a stream ends only after an error. Calling this method after the first poll has no effect.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
    /// let mut changes = run.watch().follow_replays();
    /// while let Some(change) = changes.next().await.transpose()? {
    ///     println!("{change}"); // .., COMPLETED (attempt 1), and after a replay QUEUED (attempt 2), ..
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn follow_replays(self) -> Self {
        self.shared.follows_replays.store(true, Relaxed);
        self
    }

    /// Returns the number of updates that were ignored because they described an earlier attempt, an earlier status of the same attempt, or
    /// an impossible transition, or because a list of tasks repeated a known status.
    pub fn ignored_updates(&self) -> u64 {
        self.shared.ignored.load(Relaxed)
    }

    /// Returns the next change, or `None` after the end.
    ///
    /// # Errors
    /// [`RunNotFound`](crate::ErrorKind::RunNotFound) if the engine has no such run; the error of the start if the watch starts its run; and the
    /// errors of fetches that [end the watch](Self). An error is the last item.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no change is lost.
    pub async fn next(&mut self) -> Option<Result<Change>> {
        futures_util::StreamExt::next(self).await
    }
}

impl Stream for RunWatch {
    type Item = Result<Change>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { changes, filter, .. } = &mut *self;
        filter.poll_next(changes, cx)
    }
}

impl fmt::Debug for RunWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunWatch")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::embedded::{Engine, Fault};
    use crate::model::RunStatus;
    use crate::workflow::{Context, Task};

    const PLANNED: usize = 1_000_000;
    const LIST: &str = "GET /api/v1/stable/tenants/{tenant}/workflow-runs";

    /// An engine that counts the lists, and a run that waits for a worker.
    async fn queued() -> (Engine, RunHandle<()>) {
        let engine = Engine::start().await.unwrap();
        let task: Task<(), ()> = Task::new("task", async |(): (), _: Context| Ok(()));
        let worker = engine.client().worker("worker").register(&task).build().unwrap().start().await.unwrap();
        worker.shutdown().await;
        let run = engine.client().run(&task, &()).start().await.unwrap();
        engine.faults().inject_times(LIST, Fault::Delay(Duration::ZERO), PLANNED).unwrap();
        (engine, run)
    }

    fn lists(engine: &Engine) -> usize {
        PLANNED - engine.faults().planned()
    }

    #[tokio::test(start_paused = true)]
    async fn the_tasks_are_listed_at_growing_intervals() {
        let (engine, run) = queued().await;
        let mut watch = run.watch();
        assert!(watch.next().await.unwrap().unwrap().has_status(&RunStatus::Queued));
        assert_eq!(lists(&engine), 1, "immediately");
        // 300 ms after the first list, and then after 600, 1200, and 2000 ms each.
        for (millis, expected) in [(299, 1), (301, 2), (899, 2), (901, 3), (2101, 4), (4101, 5), (8101, 7)] {
            let elapsed = Duration::from_millis(millis);
            let (engine, run) = queued().await;
            let mut watch = run.watch();
            watch.next().await.unwrap().unwrap();
            assert!(tokio::time::timeout(elapsed, watch.next()).await.is_err());
            assert_eq!(lists(&engine), expected, "after {elapsed:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_not_polled_does_not_fetch() {
        let (engine, run) = queued().await;
        let mut watch = run.watch();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(lists(&engine), 0);
        watch.next().await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(lists(&engine), 1);
    }
}
