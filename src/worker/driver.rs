//! The worker's background task, which owns the running attempts.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::beats::{Beat, beat};
use super::builder::Worker;
use super::job::{Done, Job, Key, Stop};
use super::report::{UnfinishedTask, WorkerReport};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{TaskId, WorkerId, attempt_number};
use crate::rpc::grpc_types::{Action, ActionKind};
use crate::watch::{Link, LinkEvent};

/// A worker must reconnect soon: without a stream it gets no assignments, and after 30 seconds it loses its attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long the engine may take to notice a stream.
const FIRST_MOMENT: Duration = Duration::from_millis(500);
/// How long a paused worker may still get assignments: the engine's scheduler refreshes its workers every 1 to 1.5 s. If the
/// stream closed earlier, these assignments would be lost.
const LAST_ASSIGNMENTS: Duration = Duration::from_millis(1750);
/// The same for one that could not be paused: it is given work up to five seconds after its last heartbeat.
const LAST_ASSIGNMENTS_UNPAUSED: Duration = Duration::from_millis(5500);
/// The calls of a shutdown must not hold it up.
const GOODBYE: Duration = Duration::from_secs(2);
/// Without heartbeats, the engine reassigns running attempts after 30 seconds. They should have ended by then.
const UNHEARD: Duration = Duration::from_secs(25);
/// The maximum number of cancellations that are kept for attempts that have not been assigned yet.
const REMEMBERED: usize = 1024;
/// How long the first heartbeat may take to be accepted.
const READY: Duration = Duration::from_secs(30);

/// A running worker. Dropping it stops it immediately and drops running attempts; use [`shutdown`](Self::shutdown) to stop it
/// gracefully.
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
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("no heartbeat of worker {id} was accepted within {READY:?}"),
            )
            .transient()),
        }
    }

    /// Returns the worker's id at its start. The id changes if the engine loses the worker and it registers again.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Shuts the worker down gracefully: it accepts no new attempts, waits for running attempts until the grace period is over, and
    /// returns a report.
    ///
    /// The shutdown takes at least 1.75 seconds, because the engine may take up to 1.5 seconds to notice that a worker is paused, and
    /// an assignment to a closed stream would be a failed attempt. With a paused clock it takes no real time.
    ///
    /// # Panics
    /// Panics if this crate's own background code panicked, because the report would be wrong. A task that panics is only a failed
    /// attempt.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped, the worker is stopped immediately, and running attempts are dropped.
    pub async fn shutdown(mut self) -> WorkerReport {
        self.stop.cancel();
        match self.task.as_mut() {
            Some(task) => match task.await {
                Ok(report) => report,
                // The task is not expected to panic. If it did, the report would be wrong.
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => WorkerReport::default(),
            },
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
    link: Link<Action>,
    stop: CancellationToken,
    ready: Option<oneshot::Sender<Result<()>>>,
    /// Whether the refusal of the stream has been logged, and the stream has not been opened since.
    is_refused: bool,
    jobs: JoinSet<Done>,
    /// The attempt of each running job.
    keys: HashMap<Id, Key>,
    /// The one running attempt of each task, and the way to stop it.
    running: HashMap<TaskId, (Key, Stop)>,
    /// Assignments that wait for a slot, or for the end of an earlier attempt of the same task. The engine frees a slot as soon as it
    /// ends an attempt, but the code of that attempt may end later.
    waiting: VecDeque<Assigned>,
    /// Cancellations that arrived before the attempts that they cancel, newest last.
    cancelled: VecDeque<Key>,
    /// Whether new assignments are accepted.
    accepting: bool,
    registering: Option<Registering>,
    report: WorkerReport,
}

/// An attempt that the engine has assigned to this worker.
struct Assigned {
    key: Key,
    /// The worker's id at the time of the assignment.
    worker: WorkerId,
    action: Action,
}

/// The heartbeats of a worker, which end when this is dropped.
struct Beats {
    opened: mpsc::Sender<()>,
    told: mpsc::Receiver<Beat>,
    task: JoinHandle<()>,
}

impl Beats {
    fn start(client: &Client, worker: WorkerId) -> Self {
        let (opened, is_opened) = mpsc::channel(1);
        let (tell, told) = mpsc::channel(16);
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
            link: Link::new("assignments", LONGEST_PAUSE),
            worker,
            id,
            stop,
            ready: Some(ready),
            is_refused: false,
            jobs: JoinSet::new(),
            keys: HashMap::new(),
            running: HashMap::new(),
            waiting: VecDeque::new(),
            cancelled: VecDeque::new(),
            accepting: true,
            registering: None,
            report: WorkerReport::default(),
        }
    }

    async fn run(mut self) -> WorkerReport {
        // Heartbeats start when the stream is requested: an earlier one would not count.
        let mut beats = Beats::start(&self.worker.client, self.id);
        self.link.renew();
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                event = self.link.next() => self.on_link(event, &beats),
                Some(done) = self.jobs.join_next_with_id() => self.on_done(done),
                Some(beat) = beats.told.recv() => self.on_beat(beat),
                id = registered(&mut self.registering) => self.on_registered(id, &mut beats),
            }
        }
        self.drain(beats).await;
        self.report
    }

    fn on_link(&mut self, event: LinkEvent<Action>, beats: &Beats) {
        match event {
            LinkEvent::Message(action) => {
                self.is_refused = false;
                self.on_action(action);
            }
            LinkEvent::Due => {
                self.listen();
                // The channel is full if the previous request for early heartbeats has not been handled yet. One is enough.
                let _ = beats.opened.try_send(());
            }
            LinkEvent::Lost(_) => self.is_refused = false,
            LinkEvent::Refused(error) => {
                if std::mem::replace(&mut self.is_refused, true) {
                    tracing::debug!(%error, "worker stream still refused");
                } else {
                    tracing::error!(%error, "worker stream refused");
                }
                self.ready.take().map(|ready| ready.send(Err(error)));
                self.link.give_up();
            }
        }
    }

    fn listen(&mut self) {
        let (rpc, id) = (self.worker.client.rpc().clone(), self.id.to_string());
        self.link.open(async move { rpc.dispatcher.listen(id).await });
    }

    fn on_action(&mut self, action: Action) {
        let key = match Key::read(&action) {
            Ok(key) => key,
            Err(error) => {
                tracing::error!(%error, "failed to decode assignment");
                if action.kind() == ActionKind::Start {
                    self.report.add_unfinished(None);
                }
                return;
            }
        };
        match action.kind() {
            ActionKind::Start => self.on_start(key, action),
            ActionKind::Cancel => self.on_cancel(key),
            ActionKind::Unknown(number) => {
                tracing::error!(number, run = %key.run, "received an assignment of unknown kind");
            }
        }
    }

    fn on_start(&mut self, key: Key, action: Action) {
        // A broken connection can deliver the same attempt twice. It runs once.
        let known = self.stop_of(key).is_some() || self.waiting.iter().any(|other| other.key == key);
        if known {
            return;
        }
        if !self.accepting {
            return self.leave(key, false);
        }
        // With two streams for a moment, a cancellation can arrive before its attempt.
        if let Some(at) = self.cancelled.iter().position(|other| *other == key) {
            self.cancelled.remove(at);
            self.report.cancelled += 1;
            return;
        }
        // The engine has given up an earlier attempt without a cancellation.
        if let Some((_, stop)) = self.running.get(&key.task).filter(|(other, _)| other.retry_count < key.retry_count) {
            stop.cancelled.cancel();
        }
        self.waiting.push_back(Assigned { key, worker: self.id, action });
        self.start_waiting();
    }

    /// Stops a running attempt.
    fn stop_of(&self, key: Key) -> Option<&Stop> {
        self.running.get(&key.task).filter(|(running, _)| *running == key).map(|(_, stop)| stop)
    }

    fn on_cancel(&mut self, key: Key) {
        if let Some(stop) = self.stop_of(key) {
            stop.cancelled.cancel();
        } else if let Some(at) = self.waiting.iter().position(|other| other.key == key) {
            self.waiting.remove(at);
            self.report.cancelled += 1;
        } else {
            if self.cancelled.len() >= REMEMBERED {
                self.cancelled.pop_front();
            }
            self.cancelled.push_back(key);
        }
    }

    /// Starts waiting assignments while there are free slots, at most one attempt of each task at a time.
    fn start_waiting(&mut self) {
        while self.running.len() < self.worker.slots() {
            let free = |next: &Assigned| !self.running.contains_key(&next.key.task);
            let Some(next) = self.waiting.iter().position(free).and_then(|at| self.waiting.remove(at)) else {
                break;
            };
            self.start_job(next);
        }
    }

    fn start_job(&mut self, Assigned { key, worker, action }: Assigned) {
        let stop = Stop::default();
        let job = Job {
            client: self.worker.client.clone(),
            worker,
            key,
            task: self.worker.actions.get(action.name()).cloned(),
            action: Arc::new(action),
            stop: stop.clone(),
            cancel_grace: self.worker.cancel_grace,
        };
        let id = self.jobs.spawn(job.run()).id();
        self.keys.insert(id, key);
        self.running.insert(key.task, (key, stop));
    }

    fn on_done(&mut self, done: Result<(Id, Done), JoinError>) {
        let (id, done) = match done {
            Ok(done) => done,
            // Neither is expected: panics are caught inside, and jobs are not aborted. The attempt still has to be counted.
            Err(error) => (error.id(), Done::Dropped),
        };
        let Some(key) = self.keys.remove(&id) else { return };
        self.running.remove(&key.task);
        match done {
            Done::Completed => self.report.completed += 1,
            Done::Failed => self.report.failed += 1,
            Done::Cancelled => self.report.cancelled += 1,
            Done::Dropped => self.leave(key, false),
            Done::Unreported => self.leave(key, true),
        }
        self.start_waiting();
    }

    fn leave(&mut self, key: Key, finished: bool) {
        let Key { run, task, retry_count } = key;
        let attempt = attempt_number(retry_count);
        self.report.add_unfinished(Some(UnfinishedTask { run, task, attempt, finished }));
    }

    fn on_beat(&mut self, beat: Beat) {
        match beat {
            Beat::Accepted => {
                self.is_refused = false;
                self.ready.take().map(|ready| ready.send(Ok(())));
            }
            // A heartbeat from before the stream was requested, or from just after that, does not prove that the stream works.
            Beat::Refused(asked) if asked >= self.link.asked() + FIRST_MOMENT && !self.link.is_lost() => {
                self.link.give_up();
            }
            // The engine has lost the worker and its attempts.
            Beat::Unknown if self.registering.is_none() && self.accepting => {
                let register = self.worker.registration();
                self.registering = Some(Box::pin(register));
            }
            Beat::Refused(_) | Beat::Unknown => {}
            Beat::Lost(error) => {
                tracing::warn!(%error, "heartbeat failed");
                // Transient errors are waited out. Permanent errors prevent the worker from ever being ready.
                if !error.is_transient() {
                    self.ready.take().map(|ready| ready.send(Err(error)));
                }
            }
        }
    }

    fn on_registered(&mut self, id: Result<WorkerId>, beats: &mut Beats) {
        self.registering = None;
        match id {
            Ok(id) => {
                tracing::warn!(old = %self.id, new = %id, "engine lost the worker; registered it again");
                self.id = id;
                self.link.renew();
                *beats = Beats::start(&self.worker.client, id);
            }
            // The next heartbeat is refused again, which triggers the next try.
            Err(error) => tracing::error!(%error, "failed to register the worker again"),
        }
    }

    /// Heartbeats continue meanwhile: without them the engine would reassign running attempts. But a worker that could not be paused
    /// must not send heartbeats, or it would get more assignments.
    async fn drain(&mut self, beats: Beats) {
        self.registering = None;
        let client = self.worker.client.clone();
        let id = self.id.to_string();
        let paused = matches!(tokio::time::timeout(GOODBYE, client.rpc().rest.pause_worker(&id)).await, Ok(Ok(())));
        if !paused {
            tracing::warn!("failed to pause the worker; stopped its heartbeats so that it gets no more assignments");
        }
        let mut beats = Some(beats).filter(|_| paused);
        let now = Instant::now();
        let quiet = now + if paused { LAST_ASSIGNMENTS } else { LAST_ASSIGNMENTS_UNPAUSED };
        let grace = now + if paused { self.worker.grace } else { self.worker.grace.min(UNHEARD) };
        let mut over = false;
        while !self.jobs.is_empty() || !self.waiting.is_empty() || Instant::now() < quiet {
            tokio::select! {
                biased;
                Some(done) = self.jobs.join_next_with_id() => self.on_done(done),
                // What still comes is counted, though it is not begun any more.
                event = self.link.next() => match event {
                    LinkEvent::Message(action) => self.on_action(action),
                    LinkEvent::Due => self.listen(),
                    _ => {}
                },
                Some(beat) = told(&mut beats) => self.on_beat(beat),
                () = sleep_until(grace), if !over => {
                    over = true;
                    self.accepting = false;
                    self.running.values().for_each(|(_, stop)| stop.dropped.cancel());
                    for Assigned { key, .. } in std::mem::take(&mut self.waiting) {
                        self.leave(key, false);
                    }
                }
                () = sleep_until(quiet), if Instant::now() < quiet => self.accepting = false,
            }
        }
        let goodbye = client.rpc().dispatcher.unsubscribe(&id);
        tokio::select! {
            _ = goodbye => {}
            () = sleep(GOODBYE) => {}
        }
    }
}

type Registering = Pin<Box<dyn Future<Output = Result<WorkerId>> + Send>>;

async fn registered(registering: &mut Option<Registering>) -> Result<WorkerId> {
    match registering {
        Some(registering) => registering.await,
        None => std::future::pending().await,
    }
}

async fn told(beats: &mut Option<Beats>) -> Option<Beat> {
    match beats {
        Some(beats) => beats.told.recv().await,
        None => std::future::pending().await,
    }
}
