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
use super::rejection::Rejection;
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
const MAX_QUEUED_IDS: usize = 1024;
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
/// A server rejects a stream within this time, if it does.
const MIN_OPEN: Duration = Duration::from_secs(30);
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
                drop(self.tasks.spawn(ResultsDriver::new(self.rpc.clone(), self.gate.clone(), inbox).run()));
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

struct ResultsDriver {
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
    /// How often, since the stream was opened, the last waiter of a run has left it.
    abandoned: usize,
    probes: FuturesUnordered<Probe>,
    /// For the next probe, and for the end of an unused stream.
    alarm: Alarm,
    idle_since: Option<Instant>,
    rejection: Rejection,
    /// Whether the last run had ended before the stream was asked about it. Then the next one probably has, too.
    last_had_ended: bool,
}

impl ResultsDriver {
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
            rejection: Rejection::default(),
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
                if self.waiting.leave(run, oneshot::Sender::is_closed) {
                    self.abandoned();
                }
                self.check_idle();
            }
        }
    }

    /// The stream has a run that nobody waits for any longer. With many of them, it is replaced, or closed if nobody waits for any run.
    fn abandoned(&mut self) {
        self.abandoned += 1;
        if self.abandoned < MAX_ABANDONED.max(self.waiting.len()) || self.ids.is_none() {
            return;
        }
        if self.waiting.is_empty() {
            self.close();
        } else {
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
        let (sender, receiver) = mpsc::channel(MAX_QUEUED_IDS);
        let ids = stream::unfold(receiver, |mut receiver: mpsc::Receiver<RunId>| async move {
            let run = receiver.recv().await?;
            Some((run, receiver))
        });
        let rpc = self.rpc.clone();
        self.unsent_ids = self.waiting.runs();
        self.abandoned = 0;
        self.ids = Some(sender.clone());
        // The server ends a stream as soon as the client closes its side, so this stays open while the stream is read, even if it was
        // replaced.
        self.stream.open(async move { Ok(rpc.dispatcher.run_results(ids).await?.holding(sender)) });
    }

    fn close(&mut self) {
        self.stream.close();
        self.ids = None;
        self.rejection.end();
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
            StreamEvent::NeedsOpen => self.open(),
            StreamEvent::Idle => {
                // It was open.
                self.rejection.accepted();
                self.open();
            }
            // Its ids were sent again.
            StreamEvent::Gap => {}
            StreamEvent::Message(RunResults { run, tasks }) => {
                self.rejection.accepted();
                self.last_had_ended = false;
                let answer = tasks.map_or(Answer::Fetch, Answer::Results);
                for waiter in self.waiting.take(run) {
                    let _ = waiter.send(Ok(answer.clone()));
                }
                self.check_idle();
            }
            StreamEvent::Lost(error) => self.on_lost(error.as_ref()),
            StreamEvent::Failed(error) if self.rejection.has_failed(&error) => self.fail_all(&error),
            StreamEvent::Failed(_) => {
                self.unsent_ids.clear();
                self.ids = None;
                self.stream.mark_lost();
            }
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
        // A stream that was open before it ended was not rejected.
        if self.stream.opened_at().elapsed() >= MIN_OPEN {
            self.rejection.accepted();
        }
        let is_final = self.rejection.is_final(error);
        if let Some(error) = error.filter(|_| is_final) {
            self.fail_all(error);
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
mod tests;
