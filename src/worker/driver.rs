//! The worker's background task, which owns the running attempts.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::builder::Worker;
use super::heartbeat::{Heartbeat, Heartbeats};
use super::job::{Done, Job, Key, Stop};
use super::report::{UnfinishedTask, WorkerReport};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{TaskId, WorkerId, attempt_number};
use crate::rpc::convert::{Action, ActionKind};
use crate::transport::{ReconnectingStream, StreamEvent};

/// A worker must reconnect soon: without a stream it gets no assignments, and after 30 seconds it loses its attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// How long the engine may take to notice a stream.
const STREAM_NOTICE_DELAY: Duration = Duration::from_millis(500);
/// How long a paused worker may still get assignments: the engine's scheduler refreshes its workers every 1 to 1.5 s. If the
/// stream closed earlier, these assignments would be lost.
const PAUSED_ASSIGNMENT_DELAY: Duration = Duration::from_millis(1750);
/// The same for a worker that could not be paused: it may get assignments for five seconds after its last heartbeat.
const UNPAUSED_ASSIGNMENT_DELAY: Duration = Duration::from_millis(5500);
/// The timeout of each call of a shutdown.
const SHUTDOWN_CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Without heartbeats, the engine reassigns running attempts after 30 seconds. They should have ended by then.
const MAX_GRACE_WITHOUT_HEARTBEATS: Duration = Duration::from_secs(25);
/// The maximum number of cancellations that are kept for attempts that have not been assigned yet.
const MAX_EARLY_CANCELLATIONS: usize = 1024;
/// How long the first heartbeat may take to be accepted.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A running worker. Dropping it stops it immediately and drops running attempts; use [`shutdown`](Self::shutdown) to stop it
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
        match tokio::time::timeout(READY_TIMEOUT, is_ready).await {
            Ok(Ok(ready)) => ready.map(|()| this),
            Ok(Err(_)) => Err(Error::closed("the worker")),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("no heartbeat of worker {id} was accepted within {READY_TIMEOUT:?}"),
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
    stream: ReconnectingStream<Action>,
    stop: CancellationToken,
    ready: Option<oneshot::Sender<Result<()>>>,
    /// Whether a permanent error of the stream has been logged, and the stream has not been opened since.
    is_failed: bool,
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

impl Driver {
    fn new(worker: Worker, id: WorkerId, stop: CancellationToken, ready: oneshot::Sender<Result<()>>) -> Self {
        Self {
            stream: ReconnectingStream::new("assignments", MAX_BACKOFF),
            worker,
            id,
            stop,
            ready: Some(ready),
            is_failed: false,
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
        let mut heartbeats = Heartbeats::start(&self.worker.client, self.id);
        self.stream.reopen_now();
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                event = self.stream.next() => self.on_stream(event, &heartbeats),
                Some(done) = self.jobs.join_next_with_id() => self.on_done(done),
                Some(heartbeat) = heartbeats.next() => self.on_heartbeat(heartbeat),
                id = registered(&mut self.registering) => self.on_registered(id, &mut heartbeats),
            }
        }
        self.drain(heartbeats).await;
        self.report
    }

    fn on_stream(&mut self, event: StreamEvent<Action>, heartbeats: &Heartbeats) {
        match event {
            StreamEvent::Message(action) => {
                self.is_failed = false;
                self.on_action(action);
            }
            StreamEvent::NeedsOpen => {
                self.listen();
                heartbeats.stream_opened();
            }
            StreamEvent::Lost(_) => self.is_failed = false,
            StreamEvent::Failed(error) => {
                if std::mem::replace(&mut self.is_failed, true) {
                    tracing::debug!(%error, "worker stream still failed");
                } else {
                    tracing::error!(%error, "worker stream failed");
                }
                self.ready.take().map(|ready| ready.send(Err(error)));
                self.stream.mark_lost();
            }
        }
    }

    fn listen(&mut self) {
        let (rpc, id) = (self.worker.client.rpc().clone(), self.id);
        self.stream.open(async move { rpc.dispatcher.listen(id).await });
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
            return self.add_unfinished(key, false);
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
            if self.cancelled.len() >= MAX_EARLY_CANCELLATIONS {
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
            Done::Dropped => self.add_unfinished(key, false),
            Done::Unreported => self.add_unfinished(key, true),
        }
        self.start_waiting();
    }

    fn add_unfinished(&mut self, key: Key, finished: bool) {
        let Key { run, task, retry_count } = key;
        let attempt = attempt_number(retry_count);
        self.report.add_unfinished(Some(UnfinishedTask { run_id: run, task_id: task, attempt, finished }));
    }

    fn on_heartbeat(&mut self, heartbeat: Heartbeat) {
        match heartbeat {
            Heartbeat::Accepted => {
                self.is_failed = false;
                self.ready.take().map(|ready| ready.send(Ok(())));
            }
            // A heartbeat from before the stream was requested, or from just after that, does not prove that the stream works.
            Heartbeat::Refused(sent_at)
                if sent_at >= self.stream.opened_at() + STREAM_NOTICE_DELAY && !self.stream.is_lost() =>
            {
                self.stream.mark_lost();
            }
            // The engine has lost the worker and its attempts.
            Heartbeat::UnknownWorker if self.registering.is_none() && self.accepting => {
                let register = self.worker.registration();
                self.registering = Some(Box::pin(register));
            }
            Heartbeat::Refused(_) | Heartbeat::UnknownWorker => {}
            Heartbeat::Failed(error) => {
                tracing::warn!(%error, "heartbeat failed");
                // Transient errors are waited out. Permanent errors prevent the worker from ever being ready.
                if !error.is_transient() {
                    self.ready.take().map(|ready| ready.send(Err(error)));
                }
            }
        }
    }

    fn on_registered(&mut self, id: Result<WorkerId>, heartbeats: &mut Heartbeats) {
        self.registering = None;
        match id {
            Ok(id) => {
                tracing::warn!(old = %self.id, new = %id, "engine lost the worker; registered it again");
                self.id = id;
                self.stream.reopen_now();
                *heartbeats = Heartbeats::start(&self.worker.client, id);
            }
            // The next heartbeat is refused again, which triggers the next try.
            Err(error) => tracing::error!(%error, "failed to register the worker again"),
        }
    }

    /// Heartbeats continue meanwhile: without them the engine would reassign running attempts. But a worker that could not be paused
    /// must not send heartbeats, or it would get more assignments.
    async fn drain(&mut self, heartbeats: Heartbeats) {
        self.registering = None;
        let client = self.worker.client.clone();
        let id = self.id;
        let paused =
            matches!(tokio::time::timeout(SHUTDOWN_CALL_TIMEOUT, client.rpc().rest.pause_worker(id)).await, Ok(Ok(())));
        if !paused {
            tracing::warn!("failed to pause the worker; stopped its heartbeats so that it gets no more assignments");
        }
        let mut heartbeats = Some(heartbeats).filter(|_| paused);
        let now = Instant::now();
        let assignments_end = now + if paused { PAUSED_ASSIGNMENT_DELAY } else { UNPAUSED_ASSIGNMENT_DELAY };
        let grace = now + if paused { self.worker.grace } else { self.worker.grace.min(MAX_GRACE_WITHOUT_HEARTBEATS) };
        let mut grace_over = false;
        while !self.jobs.is_empty() || !self.waiting.is_empty() || Instant::now() < assignments_end {
            tokio::select! {
                biased;
                Some(done) = self.jobs.join_next_with_id() => self.on_done(done),
                // Later assignments are counted, but not started.
                event = self.stream.next() => match event {
                    StreamEvent::Message(action) => self.on_action(action),
                    StreamEvent::NeedsOpen => self.listen(),
                    _ => {}
                },
                Some(heartbeat) = next(&mut heartbeats) => self.on_heartbeat(heartbeat),
                () = sleep_until(grace), if !grace_over => {
                    grace_over = true;
                    self.accepting = false;
                    self.running.values().for_each(|(_, stop)| stop.dropped.cancel());
                    for Assigned { key, .. } in std::mem::take(&mut self.waiting) {
                        self.add_unfinished(key, false);
                    }
                }
                () = sleep_until(assignments_end), if Instant::now() < assignments_end => self.accepting = false,
            }
        }
        let unsubscribe = client.rpc().dispatcher.unsubscribe(id);
        tokio::select! {
            _ = unsubscribe => {}
            () = sleep(SHUTDOWN_CALL_TIMEOUT) => {}
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

async fn next(heartbeats: &mut Option<Heartbeats>) -> Option<Heartbeat> {
    match heartbeats {
        Some(heartbeats) => heartbeats.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use tokio::task::yield_now;

    use super::*;
    use crate::client::Client;
    use crate::rpc::pb;
    use crate::scripted::{Calls, Scripted, client};
    use crate::workflow::{Context, Task, TaskError};

    const SECOND: Duration = Duration::from_secs(1);
    const WORKER: &str = "00000000-0000-4000-8003-000000000001";

    /// A server that accepts everything, unless `change` has another answer. The worker gets these assignments.
    fn server(
        assignments: Vec<(Duration, Vec<u8>)>,
        change: impl Fn(&str, usize) -> Option<Scripted> + Send + Sync + 'static,
    ) -> (Client, Calls) {
        client(move |call, count| {
            change(call, count).unwrap_or_else(|| match call {
                "Register" => {
                    Scripted::message(&pb::WorkerRegisterResponse { worker_id: WORKER.into(), ..Default::default() })
                }
                "PutWorkflow" => Scripted::message(&pb::v1::CreateWorkflowVersionResponse {
                    id: WORKER.into(),
                    workflow_id: WORKER.into(),
                }),
                "ListenV2" => Scripted::Stream(assignments.clone(), None),
                call if call.contains("/workflows") => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
                call if call.contains(' ') => Scripted::Rest(200, "{}".into()),
                _ => Scripted::empty(),
            })
        })
    }

    /// Sleeps for some milliseconds, and then completes, fails or panics.
    fn task() -> Task<(), u32> {
        Task::new("task", async |(): (), context: Context| {
            let number = u32::from(uuid::Uuid::from(context.task_id()).as_bytes()[15]);
            tokio::time::sleep(Duration::from_millis(u64::from(number) % 7)).await;
            match number % 5 {
                0 => Err(TaskError::new("as planned")),
                1 => std::future::pending().await,
                _ => Ok(number),
            }
        })
    }

    fn worker(client: &Client) -> Worker {
        client.worker("worker").slots(3).shutdown_grace_period(2 * SECOND).register(&task()).build().unwrap()
    }

    fn action(kind: pb::ActionType, task: u8, retry_count: i32) -> pb::AssignedAction {
        let id = format!("00000000-0000-4000-8001-0000000000{task:02x}");
        pb::AssignedAction {
            action_type: kind as i32,
            action_id: "task:task".into(),
            action_payload: r#"{"input":{}}"#.into(),
            workflow_run_id: id.clone(),
            task_run_external_id: id,
            retry_count,
            ..Default::default()
        }
    }

    fn start(task: u8) -> Vec<u8> {
        action(pb::ActionType::StartStepRun, task, 0).encode_to_vec()
    }

    fn cancel(task: u8) -> Vec<u8> {
        action(pb::ActionType::CancelStepRun, task, 0).encode_to_vec()
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_takes_as_long_as_late_assignments_can_arrive() {
        for (pause, unsubscribe, expected) in [
            (Scripted::Rest as fn(u16, String) -> Scripted, true, PAUSED_ASSIGNMENT_DELAY),
            (Scripted::Rest, false, PAUSED_ASSIGNMENT_DELAY + SHUTDOWN_CALL_TIMEOUT),
            (|_, _| Scripted::Rest(403, String::new()), true, UNPAUSED_ASSIGNMENT_DELAY),
            (|_, _| Scripted::Hangs, true, SHUTDOWN_CALL_TIMEOUT + UNPAUSED_ASSIGNMENT_DELAY),
        ] {
            let (client, calls) = server(Vec::new(), move |call, _| match call {
                "Unsubscribe" if !unsubscribe => Some(Scripted::Hangs),
                call if call.starts_with("PATCH") => Some(pause(200, "{}".into())),
                _ => None,
            });
            let running = worker(&client).start().await.unwrap();
            let started = Instant::now();
            let report = running.shutdown().await;
            assert_eq!((started.elapsed(), report.total()), (expected, 0));
            assert_eq!(calls.count("Unsubscribe"), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn assignments_after_the_start_of_the_shutdown_are_counted() {
        // Started; accepted while the worker pauses; too late to be started.
        let late = PAUSED_ASSIGNMENT_DELAY + SECOND + SECOND / 2;
        let assignments = vec![
            (SECOND, start(2)),
            (SECOND + SECOND / 2, start(3)),
            (SECOND + SECOND / 2, start(1)),
            (late, start(4)),
        ];
        let (client, _) = server(assignments, |_, _| None);
        let running = worker(&client).start().await.unwrap();
        tokio::time::sleep_until(Instant::now() + SECOND + SECOND / 4).await;
        let started = Instant::now();
        let report = running.shutdown().await;
        assert_eq!((report.completed, report.unfinished, report.total()), (2, 2, 4), "{report}");
        let unfinished: Vec<_> = report.unfinished_tasks.iter().map(|task| task.task_id.to_string()).collect();
        assert!(unfinished[0].ends_with('4') && unfinished[1].ends_with('1'), "{unfinished:?}");
        // The grace period, and that of a cancel.
        assert_eq!(started.elapsed(), 3 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_whose_heartbeats_are_not_accepted_does_not_start() {
        let refused = |call: &str, _| (call == "Heartbeat").then_some(Scripted::Status(9));
        let (client, calls) = server(Vec::new(), refused);
        let started = Instant::now();
        let error = worker(&client).start().await.unwrap_err();
        assert_eq!((error.kind(), started.elapsed()), (ErrorKind::Timeout, READY_TIMEOUT));
        assert!(calls.count("ListenV2") > 5, "the stream is reopened: {}", calls.count("ListenV2"));
        // A permanent error is returned at once.
        let (client, _) = server(Vec::new(), |call, _| (call == "Heartbeat").then_some(Scripted::Status(12)));
        let started = Instant::now();
        let error = worker(&client).start().await.unwrap_err();
        assert_eq!((error.kind(), started.elapsed()), (ErrorKind::Unimplemented, Duration::from_millis(30)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_the_engine_has_lost_registers_again() {
        // The heartbeat after ten seconds finds that the worker is unknown.
        let (client, calls) =
            server(Vec::new(), |call, count| (call == "Heartbeat" && count == 6).then_some(Scripted::Status(5)));
        let running = worker(&client).start().await.unwrap();
        tokio::time::sleep(60 * SECOND).await;
        assert_eq!((calls.count("Register"), calls.count("ListenV2")), (2, 2));
        assert_eq!(calls.times("Register")[1], calls.times("Heartbeat")[5], "immediately");
        running.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_is_sent_until_it_is_accepted() {
        // The start and the end of one attempt are reported. The end fails five times.
        let (client, calls) = server(vec![(SECOND, start(2))], |call, count| {
            (call == "SendStepActionEvent" && (2..=6).contains(&count)).then_some(Scripted::Status(14))
        });
        let running = worker(&client).start().await.unwrap();
        tokio::time::sleep(60 * SECOND).await;
        assert_eq!(calls.count("SendStepActionEvent"), 7);
        assert_eq!(running.shutdown().await.completed, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancellation_can_arrive_before_its_attempt() {
        let (client, calls) = server(vec![(SECOND, cancel(2)), (SECOND, start(2)), (SECOND, start(3))], |_, _| None);
        let running = worker(&client).start().await.unwrap();
        tokio::time::sleep(2 * SECOND).await;
        let report = running.shutdown().await;
        assert_eq!((report.completed, report.cancelled, report.total()), (1, 1, 2), "{report}");
        assert_eq!(calls.count("SendStepActionEvent"), 2, "nothing is reported of an attempt that was not started");
    }

    /// A step of a connection that works badly.
    #[derive(Debug, Clone)]
    enum Step {
        /// A new attempt. It may be the next one of a task that still has one.
        Start { task: u8, twice: bool, cancelled_before: bool },
        /// A cancellation of the last attempt of a task, or of one that has not been assigned.
        Cancel { task: u8 },
        /// The jobs run for some milliseconds.
        Run { millis: u64 },
        /// What is not understood.
        Invalid,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u8..12, any::<bool>(), prop::bool::weighted(0.2))
                .prop_map(|(task, twice, cancelled_before)| Step::Start { task, twice, cancelled_before }),
            2 => (0u8..12).prop_map(|task| Step::Cancel { task }),
            3 => (0u64..20).prop_map(|millis| Step::Run { millis }),
            1 => Just(Step::Invalid),
        ]
    }

    /// Feeds a driver, and returns its report and the number of assignments.
    async fn drive(steps: Vec<Step>, statuses: Vec<i32>) -> (WorkerReport, u64) {
        let (client, _) = server(Vec::new(), move |call, count| {
            let status = statuses[count % statuses.len()];
            (call == "SendStepActionEvent" && status != 0).then_some(Scripted::Status(status))
        });
        let id: WorkerId = WORKER.parse().unwrap();
        let heartbeats = Heartbeats::start(&client, id);
        let mut driver = Driver::new(worker(&client), id, CancellationToken::new(), oneshot::channel().0);
        let (mut retry_counts, mut assigned) = ([0; 12], 0);
        for step in steps {
            let on = |driver: &mut Driver, kind, task: u8, retry_count| {
                driver.on_action(action(kind, task, retry_count).into());
            };
            match step {
                Step::Start { task, twice, cancelled_before } => {
                    let retry_count = &mut retry_counts[usize::from(task)];
                    *retry_count += 1;
                    assigned += 1;
                    if cancelled_before {
                        on(&mut driver, pb::ActionType::CancelStepRun, task, *retry_count);
                    }
                    on(&mut driver, pb::ActionType::StartStepRun, task, *retry_count);
                    if twice && !cancelled_before {
                        on(&mut driver, pb::ActionType::StartStepRun, task, *retry_count);
                    }
                }
                Step::Cancel { task } => {
                    on(&mut driver, pb::ActionType::CancelStepRun, task, retry_counts[usize::from(task)]);
                }
                Step::Run { millis } => {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    yield_now().await;
                    while let Some(done) = driver.jobs.try_join_next_with_id() {
                        driver.on_done(done);
                    }
                }
                Step::Invalid => {
                    let ids = pb::AssignedAction {
                        workflow_run_id: "x".into(),
                        ..action(pb::ActionType::StartStepRun, 0, 0)
                    };
                    assigned += 1;
                    driver.on_action(ids.into());
                    driver.on_action(
                        pb::AssignedAction { action_type: 77, ..action(pb::ActionType::StartStepRun, 0, 0) }.into(),
                    );
                }
            }
            assert!(driver.running.len() <= driver.worker.slots(), "never more than the slots");
        }
        driver.drain(heartbeats).await;
        assert!(
            driver.jobs.is_empty() && driver.running.is_empty() && driver.waiting.is_empty() && driver.keys.is_empty()
        );
        (driver.report, assigned)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn every_assignment_is_in_exactly_one_count_of_the_report(
            steps in prop::collection::vec(step(), 0..40),
            statuses in prop::collection::vec(prop_oneof![6 => Just(0), 1 => Just(14), 1 => Just(13), 1 => Just(5), 1 => Just(3)], 1..6),
        ) {
            let invalid = steps.iter().filter(|step| matches!(step, Step::Invalid)).count();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let (report, assigned) = runtime.block_on(drive(steps, statuses));
            prop_assert_eq!(report.total(), assigned, "{}", report);
            // Attempts that cannot be identified are only counted.
            prop_assert_eq!(report.unfinished_tasks.len() + invalid, usize::try_from(report.unfinished).unwrap(), "{}", report);
        }
    }
}
