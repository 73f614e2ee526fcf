//! The results of all runs that callers of a client wait for: one subscription, and one task that owns it.

#[cfg(feature = "__benches")]
mod bench;
mod waiting;

use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::fetcher::Gate;
use super::tasks::Tasks;
use crate::error::{Error, ErrorKind, Result};
use crate::model::RunId;
use crate::rpc::Rpc;
use crate::rpc::convert::{RunResults, TaskResult};
use crate::sync::lock;
use crate::time::Alarm;
use crate::transport::{ReconnectingStream, StreamEvent, StreamPolicy, Twins};
use waiting::{Decision, Probed, Waiting};

/// The number of run ids that wait to be sent on the stream.
const QUEUE: usize = 1024;
const MAX_CONCURRENT_PROBES: usize = 16;
/// An idle stream is reopened, and asked about all runs: the server reports those that have ended meanwhile. With very many waits, that is
/// a message for each. Results have no time, so those of two replays can be equal.
const STREAM: StreamPolicy = StreamPolicy {
    name: "run results",
    max_backoff: Duration::from_secs(5),
    idle_limit: Duration::from_secs(300),
    twins: Twins::Kept,
};
/// With fewer waits, each run is probed after [`EAGER_PROBE_DELAY`]: for a run that ended before the stream was asked about it, the
/// server answers with its next round, a second later.
const EAGER_PROBE_LIMIT: usize = 64;
const EAGER_PROBE_DELAY: Duration = Duration::from_millis(20);
/// The delay of the first probe of a run that was started just now. Such a run is rarely missing.
const NEW_RUN_PROBE_DELAY: Duration = Duration::from_secs(10);
/// The delay of the first probe of any other run.
const PROBE_DELAY: Duration = Duration::from_secs(1);
/// For how long the server may refuse the stream with an error of its own.
const MAX_REFUSAL: Duration = Duration::from_secs(60);
/// The number of runs on a stream for which nobody waits any longer, from which on the stream is replaced. The engine asks about them again
/// and again, a thousand each second, so the results of others are late.
const MAX_ABANDONED: usize = 1000;
/// How long an unused stream stays open.
const IDLE_STREAM_TTL: Duration = Duration::from_secs(30);

/// Why a wait for a run is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The stream reports the end of the run, with the results of its tasks.
    Results(Vec<TaskResult>),
    /// The run must be fetched: it has probably ended.
    Fetch,
}

/// The subscription to run results. Its task runs as long as the client exists, and is restarted if it ends earlier.
#[derive(Debug)]
pub(crate) struct Results {
    rpc: Rpc,
    tasks: Tasks,
    gate: Gate,
    commands: Mutex<Option<Commands>>,
}

/// A waiter sends one command when it starts and one when it is dropped, so the queue has at most two per waiter.
type Commands = mpsc::UnboundedSender<Command>;

#[derive(Debug)]
enum Command {
    Wait { run: RunId, is_new: bool, waiter: oneshot::Sender<Result<Answer>> },
    Leave(RunId),
}

impl Results {
    /// `gate`: for the probes.
    pub(super) fn new(rpc: Rpc, tasks: Tasks, gate: Gate) -> Self {
        Self { rpc, tasks, gate, commands: Mutex::default() }
    }

    /// The channel to the task. A task that has ended is replaced.
    fn commands(&self) -> Commands {
        let mut commands = lock(&self.commands);
        match &*commands {
            Some(commands) if !commands.is_closed() => commands.clone(),
            _ => {
                let (sender, inbox) = mpsc::unbounded_channel();
                drop(self.tasks.spawn(Driver::new(self.rpc.clone(), self.gate.clone(), inbox).run()));
                commands.insert(sender).clone()
            }
        }
    }

    /// Waits for a run to end. `is_new`: this client started the run just now, and has not observed it yet.
    pub(crate) async fn wait(&self, run: RunId, is_new: bool) -> Result<Answer> {
        // Retried once, in case the task ended during the wait.
        for _ in 0..2 {
            self.tasks.check()?;
            let (commands, (waiter, receiver)) = (self.commands(), oneshot::channel());
            if commands.send(Command::Wait { run, is_new, waiter }).is_err() {
                continue;
            }
            let mut leave = LeaveOnDrop { commands, run, armed: true };
            let answer = receiver.await;
            leave.armed = false;
            if let Ok(answer) = answer {
                return answer;
            }
        }
        Err(self.tasks.ended())
    }
}

/// Removes a waiter that is dropped.
struct LeaveOnDrop {
    commands: Commands,
    run: RunId,
    armed: bool,
}

impl Drop for LeaveOnDrop {
    fn drop(&mut self) {
        if self.armed {
            let _ = self.commands.send(Command::Leave(self.run));
        }
    }
}

type Probe = Pin<Box<dyn Future<Output = (RunId, Probed)> + Send>>;

struct Driver {
    rpc: Rpc,
    gate: Gate,
    inbox: mpsc::UnboundedReceiver<Command>,
    waiting: Waiting<oneshot::Sender<Result<Answer>>>,
    stream: ReconnectingStream<RunResults>,
    /// Sends run ids on the stream. They are sent while the stream is opening, because the server accepts it only with the first
    /// message.
    ids: Option<mpsc::Sender<RunId>>,
    /// Ids for which the queue of the stream had no space yet.
    unsent_ids: VecDeque<RunId>,
    /// The number of runs on the stream that nobody waits for any longer, and whose results have not arrived.
    abandoned: usize,
    probes: FuturesUnordered<Probe>,
    /// For the next probe, and for the end of an unused stream.
    alarm: Alarm,
    idle_since: Option<Instant>,
    /// Since when the server has refused each stream with an error of its own.
    refused_since: Option<Instant>,
    /// Whether the last run had ended before the stream was asked about it. Then the next one probably has, too.
    last_had_ended: bool,
}

impl Driver {
    fn new(rpc: Rpc, gate: Gate, inbox: mpsc::UnboundedReceiver<Command>) -> Self {
        Self {
            rpc,
            gate,
            inbox,
            waiting: Waiting::default(),
            stream: ReconnectingStream::new(STREAM),
            ids: None,
            unsent_ids: VecDeque::new(),
            abandoned: 0,
            probes: FuturesUnordered::new(),
            alarm: Alarm::default(),
            idle_since: None,
            refused_since: None,
            last_had_ended: false,
        }
    }

    async fn run(mut self) {
        loop {
            self.send_ids();
            let probe = self.waiting.next_probe().filter(|_| self.probes.len() < MAX_CONCURRENT_PROBES);
            let idle = self.idle_since.filter(|_| !self.stream.is_closed()).map(|since| since + IDLE_STREAM_TTL);
            let due = [probe, idle].into_iter().flatten().min();
            let capacity = capacity(self.ids.as_ref().filter(|_| !self.unsent_ids.is_empty()).cloned());
            tokio::select! {
                // Results first: a waiter that leaves when its result has arrived should get it.
                biased;
                event = self.stream.next() => self.on_stream(event),
                Some((run, probed)) = self.probes.next() => self.on_probed(run, probed),
                command = self.inbox.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                () = capacity => {}
                () = self.alarm.at(due) => {
                    let now = Instant::now();
                    if probe.is_some() && let Some(run) = self.waiting.take_due(now) {
                        self.probes.push(Box::pin(probe_run(self.rpc.clone(), self.gate.clone(), run)));
                    }
                    if idle.is_some_and(|idle| idle <= now) {
                        self.close();
                    }
                }
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Wait { run, is_new, waiter } => {
                self.idle_since = None;
                let first_probe = Instant::now() + self.probe_delay(is_new);
                if self.waiting.add(run, first_probe, !is_new, waiter) {
                    if self.stream.is_closed() {
                        self.open();
                    } else if !self.stream.is_lost() {
                        // When a lost stream is reopened, it is asked about all runs.
                        self.unsent_ids.push_back(run);
                    }
                }
            }
            Command::Leave(run) => {
                if self.waiting.remove(run, oneshot::Sender::is_closed) {
                    self.abandoned();
                }
                self.check_idle();
            }
        }
    }

    /// The stream has a run that nobody waits for any longer. With many of them, it is replaced.
    fn abandoned(&mut self) {
        self.abandoned += 1;
        if self.abandoned >= MAX_ABANDONED.max(self.waiting.len()) && !self.waiting.is_empty() && self.ids.is_some() {
            self.open();
        }
    }

    fn probe_delay(&self, is_new: bool) -> Duration {
        match self.waiting.len() < EAGER_PROBE_LIMIT {
            true if self.last_had_ended => Duration::ZERO,
            true => EAGER_PROBE_DELAY,
            false if is_new => NEW_RUN_PROBE_DELAY,
            false => PROBE_DELAY,
        }
    }

    fn open(&mut self) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let ids = stream::unfold(receiver, |mut receiver: mpsc::Receiver<RunId>| async move {
            let run = receiver.recv().await?;
            Some((run, receiver))
        });
        let rpc = self.rpc.clone();
        self.unsent_ids = self.waiting.runs();
        self.abandoned = 0;
        self.ids = Some(sender);
        self.stream.open(async move { rpc.dispatcher.run_results(ids).await });
    }

    fn close(&mut self) {
        self.stream.close();
        self.ids = None;
    }

    /// Queues as many run ids as there is capacity for.
    fn send_ids(&mut self) {
        let Some(ids) = &self.ids else { return };
        while let Some(run) = self.unsent_ids.front() {
            if ids.try_send(*run).is_err() {
                break;
            }
            self.unsent_ids.pop_front();
        }
    }

    fn on_stream(&mut self, event: StreamEvent<RunResults>) {
        match event {
            StreamEvent::NeedsOpen | StreamEvent::Idle => self.open(),
            StreamEvent::Message(RunResults { run, tasks }) => {
                self.refused_since = None;
                self.last_had_ended = false;
                let answer = tasks.map_or(Answer::Fetch, Answer::Results);
                for waiter in self.waiting.take(run) {
                    let _ = waiter.send(Ok(answer.clone()));
                }
                self.check_idle();
            }
            StreamEvent::Lost(error) => self.on_lost(error.as_ref()),
            StreamEvent::Failed(error) => self.fail_all(&error),
        }
    }

    fn on_lost(&mut self, error: Option<&Error>) {
        self.unsent_ids.clear();
        self.ids = None;
        if self.waiting.is_empty() {
            return self.close();
        }
        // A result that is too large to be received would end each stream that is asked about it. All runs are fetched instead.
        if error.is_some_and(|error| error.kind() == ErrorKind::TooLarge) {
            for waiter in self.waiting.take_all() {
                let _ = waiter.send(Ok(Answer::Fetch));
            }
            return self.close();
        }
        // An outage has no end. A server that responds, and refuses the stream, does.
        match error.filter(|error| !error.is_transient()) {
            None => self.refused_since = None,
            Some(error) => {
                if self.refused_since.get_or_insert_with(Instant::now).elapsed() >= MAX_REFUSAL {
                    self.fail_all(error);
                }
            }
        }
    }

    /// Ends all waits: no stream can be opened.
    fn fail_all(&mut self, error: &Error) {
        for waiter in self.waiting.take_all() {
            let _ = waiter.send(Err(error.clone()));
        }
        self.close();
    }

    fn on_probed(&mut self, run: RunId, probed: Probed) {
        match probed {
            Probed::Ended => self.last_had_ended = true,
            Probed::Running => self.last_had_ended = false,
            Probed::Missing | Probed::Unknown => {}
        }
        let answer = match self.waiting.probed(Instant::now(), run, probed) {
            Decision::Wait => return,
            Decision::Fetch => Ok(Answer::Fetch),
            Decision::Missing => Err(Error::run_not_found(run)),
        };
        for waiter in self.waiting.take(run) {
            let _ = waiter.send(answer.clone());
        }
        if probed == Probed::Missing {
            self.abandoned();
        }
        self.check_idle();
    }

    fn check_idle(&mut self) {
        if self.waiting.is_empty() {
            self.idle_since = Some(Instant::now());
        }
    }
}

/// Resolves when the stream has capacity for more run ids. Never resolves if there are none.
async fn capacity(ids: Option<mpsc::Sender<RunId>>) {
    match ids {
        Some(ids) if !ids.is_closed() => drop(ids.reserve().await),
        _ => pending().await,
    }
}

async fn probe_run(rpc: Rpc, gate: Gate, run: RunId) -> (RunId, Probed) {
    let _permit = gate.pass(1).await;
    let probed = match rpc.admin.run_details(run).await {
        Ok(details) if details.done && details.status.is_final() => Probed::Ended,
        Ok(_) => Probed::Running,
        Err(error) if error.is_not_found() => Probed::Missing,
        // A run that is too large for the response exists. Its end comes with the stream, or with the next probe of a known run.
        Err(error) if error.kind() == ErrorKind::TooLarge => Probed::Running,
        Err(_) => Probed::Unknown,
    };
    (run, probed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost::Message as _;

    use super::*;
    use crate::client::Client;
    use crate::rpc::pb;
    use crate::scripted::{Calls, Scripted, client};

    const SECOND: Duration = Duration::from_secs(1);
    const RUN: &str = "00000000-0000-4000-8001-000000000001";

    fn run() -> RunId {
        RUN.parse().unwrap()
    }

    fn result() -> Vec<u8> {
        pb::WorkflowRunEvent { workflow_run_id: RUN.into(), ..Default::default() }.encode_to_vec()
    }

    fn details(status: pb::v1::RunStatus, done: bool) -> Scripted {
        Scripted::message(&pb::v1::GetRunDetailsResponse { status: status as i32, done, ..Default::default() })
    }

    /// A server whose stream of results and whose details are scripted.
    fn server(
        stream: impl Fn(usize) -> Scripted + Send + Sync + 'static,
        details: impl Fn(usize) -> Scripted + Send + Sync + 'static,
    ) -> (Client, Calls) {
        client(move |call, count| match call {
            "SubscribeToWorkflowRuns" => stream(count),
            "GetRunDetails" => details(count),
            other => panic!("{other} is not expected"),
        })
    }

    fn running(_: usize) -> Scripted {
        details(pb::v1::RunStatus::Running, false)
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_the_result_arrives() {
        let (client, calls) = server(|_| Scripted::Stream(vec![(3 * SECOND, result())], None), running);
        let started = Instant::now();
        let (one, other) =
            tokio::join!(client.feed().results.wait(run(), true), client.feed().results.wait(run(), true));
        let expected = Answer::Results(Vec::new());
        assert_eq!((one.unwrap(), other.unwrap()), (expected.clone(), expected));
        assert_eq!((started.elapsed(), calls.count("SubscribeToWorkflowRuns")), (3 * SECOND, 1));
        assert_eq!(
            calls.times("GetRunDetails"),
            [started + EAGER_PROBE_DELAY],
            "a run that exists is not probed again"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_has_ended_is_found_by_the_first_probe() {
        let (client, _) =
            server(|_| Scripted::Stream(Vec::new(), None), |_| details(pb::v1::RunStatus::Completed, true));
        let started = Instant::now();
        assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Fetch);
        assert_eq!(started.elapsed(), EAGER_PROBE_DELAY);
        // The next one has probably ended, too.
        assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Fetch);
        assert_eq!(started.elapsed(), EAGER_PROBE_DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_does_not_exist_is_probed_four_times() {
        let (client, calls) = server(|_| Scripted::Stream(Vec::new(), None), |_| Scripted::Status(5));
        let started = Instant::now();
        let error = client.feed().results.wait(run(), true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RunNotFound);
        let expected = [0, 2, 6, 14].map(|seconds| started + EAGER_PROBE_DELAY + seconds * SECOND);
        assert_eq!(calls.times("GetRunDetails"), expected);
        assert_eq!(started.elapsed(), EAGER_PROBE_DELAY + 14 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_stream_is_reopened_and_asked_again() {
        let stream = |count| match count {
            1..=3 => Scripted::Stream(Vec::new(), Some(14)),
            _ => Scripted::Stream(vec![(SECOND, result())], None),
        };
        let (client, calls) = server(stream, running);
        let started = Instant::now();
        assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Results(Vec::new()));
        let opened = calls.times("SubscribeToWorkflowRuns");
        assert_eq!((opened.len(), started.elapsed()), (4, opened[3] - started + SECOND));
        assert!(opened[3] - started < 3 * STREAM.max_backoff, "{:?}", opened[3] - started);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_continue_after_an_outage() {
        // The server refuses calls, ends each stream, or does not respond, as with a firewall that drops packets.
        let failures: [fn() -> Scripted; 3] = [
            || Scripted::Status(14),
            || Scripted::Stream(Vec::new(), Some(0)),
            || Scripted::after(10 * SECOND, Scripted::Status(14)),
        ];
        for failure in failures {
            let start = Instant::now();
            let is_over = move || start.elapsed() >= 3600 * SECOND;
            let stream = move |_| if is_over() { Scripted::Stream(vec![(SECOND, result())], None) } else { failure() };
            let details = move |count| if is_over() { running(count) } else { Scripted::Status(14) };
            let (client, calls) = server(stream, details);
            assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Results(Vec::new()));
            let elapsed = start.elapsed();
            let longest = 3600 * SECOND + 10 * SECOND + STREAM.max_backoff + SECOND;
            assert!((3600 * SECOND..=longest).contains(&elapsed), "{elapsed:?}");
            // The pauses are at most five seconds, with full jitter.
            assert!(calls.count("SubscribeToWorkflowRuns") < 3600, "{}", calls.count("SubscribeToWorkflowRuns"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_end_if_the_server_refuses_the_stream_for_a_minute() {
        let (client, _) = server(|_| Scripted::Status(13), |_| Scripted::Status(13));
        let started = Instant::now();
        let error = client.feed().results.wait(run(), true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server, "{error}");
        assert!(
            (MAX_REFUSAL..=MAX_REFUSAL + STREAM.max_backoff).contains(&started.elapsed()),
            "{:?}",
            started.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn idle_streams_that_a_proxy_ends_are_no_outage() {
        // The server sends its headers only with the first message.
        let stream = |count| match count {
            1..=10 => Scripted::after(30 * SECOND, Scripted::Status(14)),
            _ => Scripted::Stream(vec![(SECOND, result())], None),
        };
        let (client, calls) = server(stream, running);
        assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Results(Vec::new()));
        assert_eq!(calls.count("SubscribeToWorkflowRuns"), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_half_open_is_replaced_when_it_is_idle() {
        // A proxy keeps the first stream open, and has lost it. Calls do not find the run.
        let stream = |count| match count {
            1 => Scripted::Hangs,
            _ => Scripted::Stream(vec![(SECOND, result()), (SECOND, result())], None),
        };
        let (client, calls) = server(stream, |_| Scripted::Status(14));
        let started = Instant::now();
        let results = &client.feed().results;
        let (one, other) = tokio::join!(results.wait(run(), true), results.wait(run(), true));
        assert_eq!((one.unwrap(), other.unwrap()), (Answer::Results(Vec::new()), Answer::Results(Vec::new())));
        let opened: Vec<_> = calls.times("SubscribeToWorkflowRuns").iter().map(|at| *at - started).collect();
        assert_eq!((opened[0], opened.len()), (Duration::ZERO, 2));
        let range = STREAM.idle_limit..=STREAM.idle_limit * 5 / 4;
        assert!(range.contains(&opened[1]), "{:?}", opened[1]);
        assert_eq!(started.elapsed(), opened[1] + SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_too_large_is_not_probed_again_soon() {
        let too_large = |_| Scripted::Refusal(8, "grpc: trying to send message larger than max (5 vs. 4)");
        let (client, calls) = server(|_| Scripted::Stream(vec![(200 * SECOND, result())], None), too_large);
        assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Results(Vec::new()));
        assert_eq!(calls.count("GetRunDetails"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_cannot_be_read_must_be_fetched() {
        let broken = pb::WorkflowRunEvent {
            workflow_run_id: RUN.into(),
            results: vec![pb::StepRunResult { task_run_external_id: "no id".into(), ..Default::default() }],
            ..Default::default()
        };
        let broken = broken.encode_to_vec();
        let (client, _) = server(move |_| Scripted::Stream(vec![(SECOND, broken.clone())], None), running);
        assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Fetch);
    }

    #[tokio::test(start_paused = true)]
    async fn an_observed_run_that_is_not_found_must_be_fetched() {
        let (client, _) = server(|_| Scripted::Stream(Vec::new(), None), |_| Scripted::Status(5));
        assert_eq!(client.feed().results.wait(run(), false).await.unwrap(), Answer::Fetch);
    }

    #[tokio::test(start_paused = true)]
    async fn a_permanent_error_ends_all_waits_at_once() {
        let (client, _) = server(|_| Scripted::Status(12), running);
        let started = Instant::now();
        let results = &client.feed().results;
        let other = RunId::from(uuid::Uuid::from_u128(2));
        let waits = [results.wait(run(), true), results.wait(run(), false), results.wait(other, true)];
        for error in futures_util::future::join_all(waits).await {
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Unimplemented);
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_stream_is_closed_after_a_while() {
        let (client, calls) = server(
            |_| Scripted::Stream(vec![(SECOND, result())], None),
            |count| match count {
                // Once the stream has sent its only message, a probe finds the end.
                1 => running(count),
                _ => details(pb::v1::RunStatus::Completed, true),
            },
        );
        let wait = async || client.feed().results.wait(run(), true).await.unwrap();
        wait().await;
        tokio::time::sleep(IDLE_STREAM_TTL.saturating_sub(SECOND)).await;
        wait().await;
        assert_eq!(calls.count("SubscribeToWorkflowRuns"), 1, "it is still open");
        tokio::time::sleep(IDLE_STREAM_TTL + SECOND).await;
        wait().await;
        assert_eq!(calls.count("SubscribeToWorkflowRuns"), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_with_many_abandoned_runs_is_replaced() {
        let (client, calls) = server(|_| Scripted::Stream(Vec::new(), None), running);
        let results = &client.feed().results;
        let id = |number: usize| RunId::from(uuid::Uuid::from_u128(number as u128));
        let (kept, mut opened) = (results.wait(id(0), false), Vec::new());
        tokio::pin!(kept);
        for count in [MAX_ABANDONED - 1, 1, MAX_ABANDONED - 1, 1] {
            let waits = futures_util::future::join_all((1..=count).map(|number| results.wait(id(number), false)));
            let both = futures_util::future::join(waits, &mut kept);
            assert!(tokio::time::timeout(EAGER_PROBE_DELAY / 2, both).await.is_err());
            assert!(tokio::time::timeout(EAGER_PROBE_DELAY / 2, &mut kept).await.is_err());
            opened.push(calls.count("SubscribeToWorkflowRuns"));
        }
        assert_eq!(opened, [1, 2, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_dropped_leaves_nothing() {
        let (client, calls) = server(|_| Scripted::Stream(Vec::new(), None), |_| Scripted::Status(5));
        let wait = client.feed().results.wait(run(), false);
        assert!(tokio::time::timeout(EAGER_PROBE_DELAY / 2, wait).await.is_err());
        tokio::time::sleep(60 * SECOND).await;
        assert_eq!(calls.count("GetRunDetails"), 0, "nobody waits for the run");
    }
}
