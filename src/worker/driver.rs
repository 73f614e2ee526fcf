//! The worker's task: it owns the running attempts, and is the only one to touch them.

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

/// A worker must be back soon: without a stream it is given nothing, and after half a minute it loses what it has.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// So long a stream may take to be known to the engine.
const FIRST_MOMENT: Duration = Duration::from_millis(500);
/// For so long after it was paused, a worker may still be given something: the engine's scheduler looks at its workers
/// every 1 to 1.5 s. A stream that closed earlier would lose what is still sent into it.
const LAST_ASSIGNMENTS: Duration = Duration::from_millis(1750);
/// The same for one that could not be paused: it is given work up to five seconds after its last heartbeat.
const LAST_ASSIGNMENTS_UNPAUSED: Duration = Duration::from_millis(5500);
/// The calls of a shutdown must not hold it up.
const GOODBYE: Duration = Duration::from_secs(2);
/// Without beats, the engine gives away what still runs here after half a minute: by then it should be over.
const UNHEARD: Duration = Duration::from_secs(25);
/// Cancellations that are remembered before what they cancel has come.
const REMEMBERED: usize = 1024;
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
    /// It takes 1.75 seconds at least: the engine notices that a worker is paused up to 1.5 seconds later, and what it sends
    /// into a closed stream meanwhile would be a failed attempt. Under a paused clock that is no time.
    ///
    /// # Panics
    /// If this crate's own code panicked in the background; a report would be a lie then. A task that panics is only a failed
    /// attempt.
    ///
    /// # Cancel safety
    /// Dropping the future stops the worker at once.
    pub async fn shutdown(mut self) -> WorkerReport {
        self.stop.cancel();
        match self.task.as_mut() {
            Some(task) => match task.await {
                Ok(report) => report,
                // It does not panic. If it did, a report would be a lie.
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
    /// Whether it has been said that the stream is refused, and nothing better was heard since.
    is_refused: bool,
    jobs: JoinSet<Done>,
    /// What each running job is.
    keys: HashMap<Id, Key>,
    /// The one running attempt of each task, and how it is told to stop.
    running: HashMap<TaskId, (Key, Stop)>,
    /// Assignments that wait for a slot here, or for an earlier attempt of the same task to be gone. The engine frees a
    /// slot the moment it ends an attempt, and that attempt may take a moment to notice.
    waiting: VecDeque<Assigned>,
    /// Cancellations that came before what they cancel, newest last.
    cancelled: VecDeque<Key>,
    /// Whether what comes is still taken.
    accepting: bool,
    registering: Option<Registering>,
    report: WorkerReport,
}

/// An attempt that the engine has given to this worker.
struct Assigned {
    key: Key,
    /// What the worker was called then.
    worker: WorkerId,
    action: Action,
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
        // They begin when the stream is asked for: one that came earlier would not count.
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
                // Full means that it has not yet begun the last row of soon beats: that one will do.
                let _ = beats.opened.try_send(());
            }
            LinkEvent::Lost(_) => self.is_refused = false,
            LinkEvent::Refused(error) => {
                if std::mem::replace(&mut self.is_refused, true) {
                    tracing::debug!(%error, "the worker's stream is still refused");
                } else {
                    tracing::error!(%error, "the worker's stream is refused");
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
                tracing::error!(%error, "an assignment cannot be read");
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
                tracing::error!(number, run = %key.run, "this kind of assignment is not known");
            }
        }
    }

    fn on_start(&mut self, key: Key, action: Action) {
        // A half-dead connection can bring the same attempt twice; it runs once.
        let known = self.stop_of(key).is_some() || self.waiting.iter().any(|other| other.key == key);
        if known {
            return;
        }
        if !self.accepting {
            return self.leave(key, false);
        }
        // With two streams for a moment, the cancellation can overtake what it cancels.
        if let Some(at) = self.cancelled.iter().position(|other| *other == key) {
            self.cancelled.remove(at);
            self.report.cancelled += 1;
            return;
        }
        // An earlier attempt is no longer wanted, though nobody has said so: the engine took it for lost.
        if let Some((_, stop)) = self.running.get(&key.task).filter(|(other, _)| other.retry_count < key.retry_count) {
            stop.cancelled.cancel();
        }
        self.waiting.push_back(Assigned { key, worker: self.id, action });
        self.start_waiting();
    }

    /// How a running attempt is told to stop.
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

    /// Starts what waits, as far as there are slots and no attempt runs beside another of its task.
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
            // Neither is expected: panics are caught inside, and nobody aborts. It still must not be lost.
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
            // A beat from before the stream was asked for, or from its first moment, says nothing about it.
            Beat::Refused(asked) if asked >= self.link.asked() + FIRST_MOMENT && !self.link.is_lost() => {
                self.link.give_up();
            }
            // The engine has forgotten it, and with it whatever it had.
            Beat::Unknown if self.registering.is_none() && self.accepting => {
                let register = self.worker.registration();
                self.registering = Some(Box::pin(register));
            }
            Beat::Refused(_) | Beat::Unknown => {}
            Beat::Lost(error) => {
                tracing::warn!(%error, "a beat is lost");
                // What can pass is waited for; what cannot, keeps a worker from ever being ready.
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
                tracing::warn!(old = %self.id, new = %id, "the engine did not know the worker: it is registered anew");
                self.id = id;
                self.link.renew();
                *beats = Beats::start(&self.worker.client, id);
            }
            // The next beat is refused again, and with it comes the next try.
            Err(error) => tracing::error!(%error, "the worker cannot be registered anew"),
        }
    }

    /// Beats go on meanwhile: without them the engine would give away what still runs here. But a worker that could not
    /// be paused must not beat, or it would be given more.
    async fn drain(&mut self, beats: Beats) {
        self.registering = None;
        let client = self.worker.client.clone();
        let id = self.id.to_string();
        let paused = matches!(tokio::time::timeout(GOODBYE, client.rpc().rest.pause_worker(&id)).await, Ok(Ok(())));
        if !paused {
            tracing::warn!("the worker could not be paused: it stops to beat, so that it is given nothing more");
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
