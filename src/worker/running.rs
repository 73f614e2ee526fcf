//! The handle of a running worker.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::driver::{Command, Handles, WorkerDriver};
use super::guard::describe;
use super::heartbeat_thread::LastHeartbeat;
use super::outbox::Recovered;
use super::report::WorkerReport;
use super::setup::{Labels, Worker};
use super::signals;
use super::status::{Life, WorkerState, WorkerStatus, WorkerStatuses};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::label::check_key;
use crate::model::{LabelValue, WorkerId};
use crate::request::CommandBuilder;
use crate::time::MAX_DURATION;

/// How long the first heartbeat may take to be accepted.
pub(super) const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A running worker.
///
/// Dropping a `RunningWorker` stops the worker immediately and drops running attempts; [`shutdown`](Self::shutdown) stops the worker
/// gracefully.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), ()>) -> hatchet::Result<()> {
/// let worker = hatchet.worker("mailer").register(&greet).build()?.start().await?;
/// println!("worker {} takes tasks", worker.id());
/// println!("{}", worker.shutdown().await);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it stops the worker"]
pub struct RunningWorker {
    handle: Arc<Handle>,
    task: Option<JoinHandle<Result<WorkerReport>>>,
}

#[derive(Debug)]
struct Handle {
    client: Client,
    stop: CancellationToken,
    force: CancellationToken,
    commands: mpsc::UnboundedSender<Command>,
    life: watch::Receiver<Life>,
    /// For the health server.
    #[cfg_attr(not(feature = "health"), expect(dead_code, reason = "only the health server reads it"))]
    last_heartbeat: LastHeartbeat,
}

impl Handle {
    fn id(&self) -> WorkerId {
        self.life.borrow().status.worker_id
    }

    fn command(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| Error::closed("the worker"))
    }
}

impl RunningWorker {
    pub(super) async fn start(worker: Worker, id: WorkerId, journal: Option<Recovered>) -> Result<Self> {
        let (stop, force) = (CancellationToken::new(), CancellationToken::new());
        let (ready, is_ready) = oneshot::channel();
        let (commands, inbox) = mpsc::unbounded_channel();
        let (publisher, life) =
            watch::channel(Life { status: WorkerStatus::starting(id, worker.slot_count()), failure: None });
        let client = worker.client.clone();
        let last_heartbeat = LastHeartbeat::now();
        let handles = Handles {
            stop: stop.clone(),
            force: force.clone(),
            ready,
            commands: inbox,
            life: publisher.clone(),
            last_heartbeat: last_heartbeat.clone(),
        };
        let driver = WorkerDriver::new(worker, id, journal, handles);
        let task = Some(tokio::spawn(supervise(driver.run(), publisher)));
        let mut this = Self { handle: Arc::new(Handle { client, stop, force, commands, life, last_heartbeat }), task };
        let error = match tokio::time::timeout(READY_TIMEOUT, is_ready).await {
            Ok(Ok(Ok(()))) => return Ok(this),
            Ok(Ok(Err(error))) => error,
            Ok(Err(_)) => this.stopped().await.err().unwrap_or_else(|| Error::closed("the worker")),
            Err(_) => {
                let text = format!("the engine accepted no heartbeat of worker {id} within {READY_TIMEOUT:?}");
                Error::new(ErrorKind::Timeout, text).transient()
            }
        };
        // It holds the lock of the outbox's file, which the next start needs.
        if let Some(task) = &this.task {
            task.abort();
        }
        let _ = this.ended().await;
        Err(error)
    }

    /// Returns the current id of the worker. It changes if the engine loses the worker and the worker registers again.
    pub fn id(&self) -> WorkerId {
        self.handle.id()
    }

    /// Returns whether the worker is connected or paused, and how many attempts run and wait.
    ///
    /// ```no_run
    /// # fn example(worker: &hatchet::worker::RunningWorker) -> bool {
    /// worker.status().state == hatchet::worker::WorkerState::Connected
    /// # }
    /// ```
    pub fn status(&self) -> WorkerStatus {
        self.handle.life.borrow().status.clone()
    }

    /// Returns a stream of the statuses of the worker, starting with the current one.
    pub fn statuses(&self) -> WorkerStatuses {
        WorkerStatuses::new(self.handle.life.clone())
    }

    #[cfg(feature = "health")]
    pub(super) fn health_source(&self) -> (watch::Receiver<Life>, LastHeartbeat) {
        (self.handle.life.clone(), self.handle.last_heartbeat.clone())
    }

    /// Waits until the worker is connected, for example after the connection was lost.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) if the worker shuts down or has ended.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it can be called again.
    pub async fn ready(&self) -> Result<()> {
        let mut life = self.handle.life.clone();
        let is_decided = |life: &Life| life.status.state != WorkerState::Disconnected;
        match life.wait_for(is_decided).await {
            Ok(life) if life.status.state == WorkerState::Connected => Ok(()),
            _ => Err(Error::closed("the worker").without_side_effects()),
        }
    }

    /// Waits until the worker has ended, or shuts down because it cannot continue. [`shutdown`](Self::shutdown) then returns its report.
    ///
    /// ```no_run
    /// # async fn example(worker: hatchet::worker::RunningWorker) {
    /// if let Err(error) = worker.stopped().await {
    ///     println!("the worker cannot continue: {error}");
    /// }
    /// println!("{}", worker.shutdown().await);
    /// # }
    /// ```
    ///
    /// # Errors
    /// The reason that the worker cannot continue: [`Unauthenticated`](ErrorKind::Unauthenticated) if its token was revoked,
    /// [`Unimplemented`](ErrorKind::Unimplemented) if the engine no longer supports a call, and [`Closed`](ErrorKind::Closed) if its client
    /// was closed or this crate's own background code panicked. After a panic, the error text contains the panic message.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it can be called again.
    pub async fn stopped(&self) -> Result<()> {
        let mut life = self.handle.life.clone();
        let has_ended = |life: &Life| life.failure.is_some() || life.status.state == WorkerState::Stopped;
        match life.wait_for(has_ended).await {
            Ok(life) => life.failure.clone().map_or(Ok(()), Err),
            // The background task has ended without a status: its runtime was shut down.
            Err(_) => Err(Error::closed("the worker")),
        }
    }

    /// Runs the worker until `stop` resolves, and then shuts it down gracefully.
    ///
    /// Use this method instead of [`Worker::run_until`](crate::Worker::run_until) if the [status](Self::statuses) of the worker is watched
    /// or its health is served.
    ///
    /// ```no_run
    /// # async fn example(worker: hatchet::Worker, drain: tokio::sync::oneshot::Receiver<()>) -> hatchet::Result<()> {
    /// let worker = worker.start().await?;
    /// let mut statuses = worker.statuses();
    /// tokio::spawn(async move {
    ///     while let Some(status) = statuses.next().await {
    ///         println!("{}", status.state);
    ///     }
    /// });
    /// println!("{}", worker.run_until(drain).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`stopped`](Self::stopped), if the worker cannot continue. In this case, the worker shuts down and logs its report.
    /// [`Closed`](ErrorKind::Closed) with the panic message if this crate's own background code panicked.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped, the worker is stopped immediately, and running attempts are dropped.
    pub async fn run_until(self, stop: impl Future) -> Result<WorkerReport> {
        let token = self.handle.stop.clone();
        self.run_with(async move {
            stop.await;
            token.cancel();
        })
        .await
    }

    /// Runs the worker until the process receives SIGINT or SIGTERM (on Windows, Ctrl-C or another request to close).
    ///
    /// The first signal shuts the worker down gracefully, like [`shutdown`](Self::shutdown). The second signal stops the worker
    /// immediately: running attempts are dropped at their next await, and count as [unfinished](WorkerReport::unfinished). The engine
    /// assigns them again 30 seconds after the last heartbeat. Only an outbox in a file is still written, for up to 2 seconds.
    ///
    /// Tokio's signal handlers stay installed for the rest of the process. SIGINT and SIGTERM therefore no longer terminate it by default,
    /// even after this method has returned.
    ///
    /// Code that blocks a thread cannot be dropped, and a Tokio runtime waits for its [blocking](crate::Task::blocking) tasks. A program
    /// that must exit anyway can call [`std::process::exit`].
    ///
    /// Signals are handled on the threads of the runtime. While code blocks all of these threads, signals have no effect, and only SIGKILL
    /// ends the process. `docs/operations.md` shows a thread that ends the process in this case.
    ///
    /// ```no_run
    /// # async fn example(worker: hatchet::Worker) -> hatchet::Result<()> {
    /// let worker = worker.start().await?;
    /// println!("worker {} is ready", worker.id());
    /// println!("{}", worker.run_until_signal().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`run_until`](Self::run_until), and [`Config`](ErrorKind::Config) if the signals cannot be received. The worker is
    /// then stopped immediately.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped, the worker is stopped immediately, and running attempts are dropped.
    pub async fn run_until_signal(self) -> Result<WorkerReport> {
        let signals = signals::listen()?;
        self.run_until_signals(signals).await
    }

    /// The first signal shuts the worker down, and the second one ends it.
    pub(super) async fn run_until_signals(self, signals: impl Stream<Item = ()> + Unpin) -> Result<WorkerReport> {
        let Handle { stop, force, .. } = &*self.handle;
        let control = signals::follow(signals, stop.clone(), force.clone());
        self.run_with(control).await
    }

    /// Runs the worker until it has ended. `control` shuts it down.
    async fn run_with(mut self, control: impl Future<Output = ()>) -> Result<WorkerReport> {
        let control = async {
            control.await;
            std::future::pending::<Infallible>().await
        };
        let ended = tokio::select! {
            biased;
            never = control => match never {},
            ended = self.ended() => ended,
        };
        let report = match ended {
            Ok(Ok(report)) => report,
            // It has panicked, which is logged.
            Ok(Err(error)) => return Err(error),
            // What it drops at its end can panic, too.
            Err(error) if error.is_panic() => {
                let panic = describe("the background task of the worker", error.into_panic());
                return Err(Error::new(ErrorKind::Closed, panic));
            }
            // Its runtime was shut down.
            Err(_) => return Err(Error::closed("the worker")),
        };
        let Some(failure) = self.handle.life.borrow().failure.clone() else { return Ok(report) };
        tracing::error!(worker_id = %self.id(), %report, error = %failure, "worker stopped after a fatal error");
        Err(failure)
    }

    /// Waits until the background task has ended.
    async fn ended(&mut self) -> std::result::Result<Result<WorkerReport>, JoinError> {
        match self.task.as_mut() {
            Some(task) => task.await,
            None => Ok(Ok(WorkerReport::default())),
        }
    }

    /// Returns a command that pauses the worker: the engine assigns no further attempts to it.
    ///
    /// The worker may still get attempts for about two seconds. Running attempts continue.
    ///
    /// ```no_run
    /// # async fn example(worker: hatchet::worker::RunningWorker) -> hatchet::Result<()> {
    /// worker.pause().send().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of a REST call, such as [`Unavailable`](ErrorKind::Unavailable). The worker may have been paused anyway: the command can be
    /// sent again. [`Closed`](ErrorKind::Closed) if the worker has ended.
    ///
    /// # Cancel safety
    /// If the future is dropped, the engine may have paused the worker although the worker does not know it. Such a worker is no longer
    /// paused after it has registered again. Send the command again.
    pub fn pause(&self) -> CommandBuilder {
        self.set_paused(true)
    }

    /// Returns a command that resumes a [paused](Self::pause) worker. The engine may take up to five seconds to assign attempts again.
    ///
    /// # Errors
    /// The errors of a REST call, such as [`Unavailable`](ErrorKind::Unavailable). The worker may have been resumed anyway: the command can be
    /// sent again. [`Closed`](ErrorKind::Closed) if the worker has ended.
    pub fn resume(&self) -> CommandBuilder {
        self.set_paused(false)
    }

    fn set_paused(&self, is_paused: bool) -> CommandBuilder {
        let handle = Arc::clone(&self.handle);
        CommandBuilder::new(&self.handle.client, async move |client| {
            client.rpc().rest.pause_worker(handle.id(), is_paused).await?;
            handle.command(Command::Pause(is_paused))
        })
    }

    /// Returns a command that adds labels to the worker, or changes their values.
    ///
    /// Other labels are unchanged. The engine uses the new labels after a few seconds.
    ///
    /// ```no_run
    /// # async fn example(worker: hatchet::worker::RunningWorker) -> hatchet::Result<()> {
    /// worker.set_labels([("model", "large")]).send().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if a key is empty or contains U+0000, [`Closed`](ErrorKind::Closed) if the worker has ended,
    /// and the errors of a gRPC call. The labels may have been set anyway: the command can be sent again.
    pub fn set_labels<K: Into<String>, V: Into<LabelValue>>(
        &self,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> CommandBuilder {
        let labels: Labels = labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        let handle = Arc::clone(&self.handle);
        CommandBuilder::new(&self.handle.client, async move |client| {
            labels.keys().try_for_each(|key| check_key(key))?;
            client.rpc().dispatcher.put_labels(handle.id(), labels.clone()).await?;
            handle.command(Command::AddLabels(labels))
        })
    }

    /// Shuts the worker down like [`shutdown`](Self::shutdown), with a different
    /// [grace period](crate::worker::WorkerBuilder::shutdown_grace_period).
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped, the worker is stopped immediately, and running attempts are dropped.
    pub async fn shutdown_with_timeout(self, timeout: Duration) -> WorkerReport {
        // A worker that has ended needs no grace period.
        let _ = self.handle.command(Command::LimitShutdown(timeout.min(MAX_DURATION)));
        self.shutdown().await
    }

    /// Shuts the worker down gracefully: it accepts no new attempts, waits for running attempts until the grace period is over, and
    /// returns a report.
    ///
    /// The shutdown takes at least 1.75 seconds, because the engine may take up to 1.5 seconds to notice that a worker is paused, and an
    /// assignment to a closed stream would be a failed attempt. If the REST API cannot be reached to pause the worker, the shutdown takes
    /// at least 5.5 seconds. With a paused clock, it takes no real time.
    ///
    /// ```no_run
    /// # async fn example(worker: hatchet::worker::RunningWorker) -> hatchet::Result<()> {
    /// let report = worker.shutdown().await;
    /// println!("{report}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// Panics if this crate's own background code panicked, because the report would be wrong. A task that panics is only a failed
    /// attempt.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped, the worker is stopped immediately, and running attempts are dropped.
    pub async fn shutdown(mut self) -> WorkerReport {
        self.handle.stop.cancel();
        match self.ended().await {
            Ok(Ok(report)) => report,
            // The task is not expected to panic. If it did, the report would be wrong.
            Ok(Err(error)) => std::panic::resume_unwind(Box::new(error.to_string())),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Its runtime was shut down.
            Err(_) => WorkerReport::default(),
        }
    }
}

/// Runs the driver of a worker. If it panics, the worker has failed with the message of the panic.
async fn supervise(driver: impl Future<Output = WorkerReport>, life: watch::Sender<Life>) -> Result<WorkerReport> {
    let panic = match AssertUnwindSafe(driver).catch_unwind().await {
        Ok(report) => return Ok(report),
        Err(panic) => describe("the background task of the worker", panic),
    };
    let error = Error::new(ErrorKind::Closed, panic);
    tracing::error!(worker_id = %life.borrow().status.worker_id, %error, "worker stopped after a panic");
    life.send_modify(|life| {
        life.failure = Some(error.clone());
        life.status.state = WorkerState::Stopped;
        (life.status.running, life.status.queued, life.status.unreported) = (0, 0, 0);
    });
    Err(error)
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{Scripted, client};

    /// A worker whose background task panics after a second.
    fn panicking() -> RunningWorker {
        let (client, _) = client(|_, _| Scripted::empty());
        let id = uuid::Uuid::from_u128(1).into();
        let (publisher, life) = watch::channel(Life { status: WorkerStatus::starting(id, 1), failure: None });
        let handle = Handle {
            client,
            stop: CancellationToken::new(),
            force: CancellationToken::new(),
            commands: mpsc::unbounded_channel().0,
            life,
            last_heartbeat: LastHeartbeat::now(),
        };
        let driver = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            std::panic::panic_any("as planned")
        };
        let task = tokio::spawn(supervise(driver, publisher));
        RunningWorker { handle: Arc::new(handle), task: Some(task) }
    }

    #[tokio::test]
    async fn a_start_that_fails_leaves_the_file_of_the_outbox_to_the_next_one() {
        let path = std::env::temp_dir().join(format!("hatchet-outbox-{:016x}", fastrand::u64(..)));
        let (client, _) = client(|call, _| match call {
            "Register" => Scripted::message(&crate::rpc::pb::WorkerRegisterResponse {
                worker_id: uuid::Uuid::from_u128(1).to_string(),
                ..Default::default()
            }),
            "PutWorkflow" => Scripted::message(&crate::rpc::pb::v1::CreateWorkflowVersionResponse {
                id: uuid::Uuid::from_u128(1).to_string(),
                workflow_id: uuid::Uuid::from_u128(1).to_string(),
            }),
            "Heartbeat" => Scripted::Status(12),
            "ListenV2" => Scripted::Stream(Vec::new(), None),
            _ => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
        });
        let task: crate::Task<(), ()> = crate::Task::new("task", async |(): (), _: crate::Context| Ok(()));
        let worker = client.worker("worker").outbox_file(&path).register(&task).build().unwrap();
        let error = worker.start().await.unwrap_err();
        let lock_path = format!("{}.lock", path.display());
        let is_free = std::fs::File::open(&lock_path).unwrap().try_lock().is_ok();
        for path in [lock_path, path.display().to_string()] {
            std::fs::remove_file(path).unwrap();
        }
        assert_eq!((error.kind(), is_free), (ErrorKind::Unimplemented, true), "{error}");
    }

    const PANIC: &str = "the background task of the worker panicked: as planned";

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_the_background_task_is_an_error() {
        let error = panicking().run_until(std::future::pending::<()>()).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Closed, PANIC));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_for_the_end_get_the_message_of_a_panic() {
        let worker = panicking();
        let mut statuses = worker.statuses();
        for _ in 0..2 {
            // At its end, and after it.
            let error = worker.stopped().await.unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Closed, PANIC));
        }
        assert_eq!(worker.ready().await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(statuses.next().await.unwrap().state, WorkerState::Stopped);
        assert!(statuses.next().await.is_none());
        let panic = AssertUnwindSafe(worker.shutdown()).catch_unwind().await.unwrap_err();
        assert_eq!(panic.downcast_ref::<String>().unwrap(), PANIC, "there is no report");
    }
}
