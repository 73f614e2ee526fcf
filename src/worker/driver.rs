//! The worker's task: it owns the running attempts, and is the only one to touch them.

use std::collections::HashMap;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::beats::{Beat, beat};
use super::builder::Worker;
use super::job::{Done, Job, Key, Stop};
use super::link::{Link, LinkEvent};
use super::report::{LeftTask, WorkerReport};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::WorkerId;
use crate::rpc::pb::{ActionType, AssignedAction, WorkerUnsubscribeRequest};

/// For so long after it was paused, a worker may still be given something.
const LAST_ASSIGNMENTS: Duration = Duration::from_millis(500);
/// The calls of a shutdown must not hold it up.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long the first beat may take to be accepted.
const READY: Duration = Duration::from_secs(30);

/// A worker at work. Dropping it stops it at once, without draining: what runs is dropped.
#[derive(Debug)]
#[must_use = "dropping it stops the worker"]
pub struct RunningWorker {
    id: WorkerId,
    stop: CancellationToken,
    task: Option<JoinHandle<WorkerReport>>,
}

impl RunningWorker {
    pub(super) async fn start(worker: Worker, id: WorkerId) -> Result<Self> {
        let stop = CancellationToken::new();
        let (ready, is_ready) = oneshot::channel();
        let driver = Driver::new(worker, id, stop.clone(), ready);
        let this = Self { id, stop, task: Some(tokio::spawn(driver.run())) };
        match tokio::time::timeout(READY, is_ready).await {
            Ok(Ok(ready)) => ready.map(|()| this),
            Ok(Err(_)) => Err(Error::closed("the worker")),
            Err(_) => {
                Err(Error::new(ErrorKind::Timeout, format!("no beat of worker {id} was accepted within {READY:?}"))
                    .transient())
            }
        }
    }

    /// The id that the engine knows it by, at its start.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Drains: takes nothing new, lets what runs end within the grace, and tells what became of everything.
    ///
    /// # Cancel safety
    /// Dropping the future stops the worker at once.
    pub async fn shutdown(mut self) -> WorkerReport {
        self.stop.cancel();
        match self.task.as_mut() {
            // The worker's own task does not panic; if it did, there is nothing to tell.
            Some(task) => task.await.unwrap_or_default(),
            None => WorkerReport::default(),
        }
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct Driver {
    worker: Worker,
    id: WorkerId,
    link: Link,
    stop: CancellationToken,
    ready: Option<oneshot::Sender<Result<()>>>,
    jobs: JoinSet<Done>,
    /// What each running job is.
    keys: HashMap<Id, Key>,
    stops: HashMap<Key, Stop>,
    report: WorkerReport,
}

/// The beats of a worker, which end when this is dropped.
struct Beats {
    opened: mpsc::Sender<()>,
    told: mpsc::Receiver<Beat>,
    task: JoinHandle<()>,
}

impl Beats {
    fn start(client: &Client, worker: WorkerId) -> Self {
        let (opened, is_opened) = mpsc::channel(1);
        let (tell, told) = mpsc::channel(1);
        Self { opened, told, task: tokio::spawn(beat(client.clone(), worker, is_opened, tell)) }
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Driver {
    fn new(worker: Worker, id: WorkerId, stop: CancellationToken, ready: oneshot::Sender<Result<()>>) -> Self {
        Self {
            link: Link::new(worker.client.clone(), id),
            worker,
            id,
            stop,
            ready: Some(ready),
            jobs: JoinSet::new(),
            keys: HashMap::new(),
            stops: HashMap::new(),
            report: WorkerReport::default(),
        }
    }

    async fn run(mut self) -> WorkerReport {
        // The stream is asked for before the first beat: one that comes earlier does not count.
        let mut beats = Beats::start(&self.worker.client, self.id);
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                event = self.link.next() => self.on_link(event, &beats),
                Some(done) = self.jobs.join_next_with_id() => self.on_done(done),
                Some(beat) = beats.told.recv() => self.on_beat(beat, &mut beats).await,
            }
        }
        self.drain(beats).await;
        self.report
    }

    fn on_link(&mut self, event: LinkEvent, beats: &Beats) {
        match event {
            LinkEvent::Action(action) => self.on_action(*action),
            // Full means that it has not yet begun the last row of soon beats: that one will do.
            LinkEvent::Reopened => drop(beats.opened.try_send(())),
            LinkEvent::Refused(error) => {
                tracing::error!(%error, "the worker's stream is refused");
                self.ready.take().map(|ready| ready.send(Err(error)));
            }
        }
    }

    fn on_action(&mut self, action: AssignedAction) {
        let key = match Key::read(&action) {
            Ok(key) => key,
            Err(error) => return tracing::error!(%error, "an assignment cannot be read"),
        };
        match ActionType::try_from(action.action_type) {
            Ok(ActionType::StartStepRun) => self.start_job(key, action),
            Ok(ActionType::CancelStepRun) => {
                if let Some(stop) = self.stops.get(&key) {
                    stop.cancelled.cancel();
                }
            }
            other => tracing::error!(?other, run = %key.run, "this kind of assignment is not known"),
        }
    }

    fn start_job(&mut self, key: Key, action: AssignedAction) {
        // A half-dead connection can bring the same attempt twice; it runs once.
        if self.stops.contains_key(&key) {
            return;
        }
        let stop = Stop::default();
        let job = Job {
            client: self.worker.client.clone(),
            key,
            definition: self.worker.actions.get(&action.action_id).cloned(),
            action,
            stop: stop.clone(),
            cancel_grace: self.worker.cancel_grace,
        };
        let id = self.jobs.spawn(job.run()).id();
        self.keys.insert(id, key);
        self.stops.insert(key, stop);
    }

    fn on_done(&mut self, done: Result<(Id, Done), JoinError>) {
        let (id, done) = match done {
            Ok(done) => done,
            // Neither is expected: panics are caught inside, and nobody aborts. It still must not be lost.
            Err(error) => (error.id(), Done::Dropped),
        };
        let Some(key) = self.keys.remove(&id) else { return };
        self.stops.remove(&key);
        match done {
            Done::Completed => self.report.completed += 1,
            Done::Failed => self.report.failed += 1,
            Done::Cancelled => self.report.cancelled += 1,
            Done::Dropped | Done::Unreported => {
                let Key { run, task, retry_count } = key;
                self.report.left.push(LeftTask {
                    run,
                    task,
                    attempt: retry_count + 1,
                    finished: done == Done::Unreported,
                });
            }
        }
    }

    async fn on_beat(&mut self, beat: Beat, beats: &mut Beats) {
        match beat {
            Beat::Accepted => {
                if let Some(ready) = self.ready.take() {
                    let _ = ready.send(Ok(()));
                }
            }
            Beat::Refused => self.link.reopen(),
            // The engine has forgotten it, and with it whatever it had.
            Beat::Unknown => match self.worker.register().await {
                Ok(id) => {
                    tracing::warn!(old = %self.id, new = %id, "the engine did not know the worker: it is registered anew");
                    self.id = id;
                    self.link.move_to(id);
                    *beats = Beats::start(&self.worker.client, id);
                }
                Err(error) => tracing::error!(%error, "the worker cannot be registered anew"),
            },
            Beat::Lost(error) => match self.ready.take() {
                Some(ready) if !error.is_transient() => drop(ready.send(Err(error))),
                ready => {
                    self.ready = ready;
                    tracing::warn!(%error, "a beat is lost");
                }
            },
        }
    }

    /// Beats go on meanwhile: without them the engine would give away what still runs here.
    async fn drain(&mut self, mut beats: Beats) {
        let client = self.worker.client.clone();
        let id = self.id.to_string();
        let paused = tokio::time::timeout(GOODBYE, client.rpc().rest.pause_worker(&id)).await;
        if !matches!(paused, Ok(Ok(()))) {
            tracing::warn!("the worker could not be paused: it may be given more until its stream is closed");
        }
        let quiet = Instant::now() + LAST_ASSIGNMENTS;
        let grace = Instant::now() + self.worker.grace;
        let mut over = false;
        while !self.jobs.is_empty() || Instant::now() < quiet {
            tokio::select! {
                biased;
                Some(done) = self.jobs.join_next_with_id() => self.on_done(done),
                event = self.link.next(), if !over => self.on_link(event, &beats),
                Some(beat) = beats.told.recv() => self.on_beat(beat, &mut beats).await,
                () = sleep_until(grace), if !over => {
                    over = true;
                    self.stops.values().for_each(|stop| stop.dropped.cancel());
                }
                () = sleep_until(quiet), if Instant::now() < quiet => {}
            }
        }
        let goodbye = client.rpc().dispatcher.unsubscribe(WorkerUnsubscribeRequest { worker_id: id });
        tokio::select! {
            _ = goodbye => {}
            () = sleep(GOODBYE) => {}
        }
    }
}
