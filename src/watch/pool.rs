//! The driver of the pool: one task and one stream for all who wait for results through one client.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::pending;
use futures_util::stream::{self, FuturesUnordered, StreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::link::{Link, LinkEvent};
use super::results::{Seen, Step, Waiting};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::RunId;
use crate::model::convert::{self, grpc};
use crate::rpc::Rpc;
use crate::rpc::grpc_types::RunEnd;
use crate::run::TaskEnd;
use crate::time::at;

/// Questions that wait to be sent.
const QUEUE: usize = 1024;
/// Looks for missing runs at the same time.
const LOOKS: usize = 16;
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// So few waits that each can have a look of its own, soon: the server tells of a run that had ended before it was asked
/// about only with its next round, a second later.
const FEW: usize = 64;
const SOON: Duration = Duration::from_millis(20);
/// When one of many runs is looked for that was started just now. It is hardly ever missing, and many looks are a burden.
const FRESH: Duration = Duration::from_secs(10);
/// The same for one that may be old.
const UNSEEN: Duration = Duration::from_secs(1);
/// When a server that cannot be reached is given up. One that restarts is back long before.
const GIVE_UP: Duration = Duration::from_secs(60);
/// A stream that lasted so long was there, though nothing came.
const LASTED: Duration = Duration::from_secs(5);
/// How long an unused stream is kept: the next wait is often near.
const KEEP: Duration = Duration::from_secs(30);

type Answer = Result<Option<Vec<TaskEnd>>>;

/// The pool of a client. Its task runs as long as the client exists, and is restarted if it ends earlier.
pub(super) struct Pool {
    rpc: Rpc,
    runtime: Handle,
    commands: Mutex<Commands>,
    stop: CancellationToken,
}

/// A waiter sends one command when it starts and one when it is dropped, so the queue has at most two per waiter.
type Commands = mpsc::UnboundedSender<Command>;

#[derive(Debug)]
enum Command {
    Wait(RunId, bool, oneshot::Sender<Answer>),
    Leave(RunId),
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Pool {
    pub(super) fn of(client: &Client) -> Arc<Self> {
        client.shared(|| {
            let (rpc, runtime, stop) = (client.rpc().clone(), client.runtime().clone(), CancellationToken::new());
            let commands = Mutex::new(start(&rpc, &runtime, &stop));
            Self { rpc, runtime, commands, stop }
        })
    }

    /// The channel to the pool's task. A task that has ended is replaced.
    fn commands(&self) -> Commands {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        if commands.is_closed() {
            *commands = start(&self.rpc, &self.runtime, &self.stop);
        }
        commands.clone()
    }

    /// Waits for a run to end. `None` means that a look has shown it, and the stream has not told how.
    pub(super) async fn wait(&self, run: RunId, fresh: bool) -> Answer {
        // Retried once, in case the task ended during the wait.
        for _ in 0..2 {
            let (commands, (sender, receiver)) = (self.commands(), oneshot::channel());
            if commands.send(Command::Wait(run, fresh, sender)).is_err() {
                continue;
            }
            let mut left = Leave { commands, run, armed: true };
            let answer = receiver.await;
            left.armed = false;
            if let Ok(answer) = answer {
                return answer;
            }
        }
        Err(Error::closed("the runtime that the client was created on"))
    }
}

/// Starts the task. It holds the stubs and not the client, because the client holds the pool.
fn start(rpc: &Rpc, runtime: &Handle, stop: &CancellationToken) -> Commands {
    let (commands, inbox) = mpsc::unbounded_channel();
    runtime.spawn(stop.clone().run_until_cancelled_owned(Driver::new(rpc.clone(), inbox).run()));
    commands
}

/// Tells the pool when a waiter is dropped.
struct Leave {
    commands: Commands,
    run: RunId,
    armed: bool,
}

impl Drop for Leave {
    fn drop(&mut self) {
        if self.armed {
            let _ = self.commands.send(Command::Leave(self.run));
        }
    }
}

type Looking = Pin<Box<dyn Future<Output = (RunId, Seen)> + Send>>;

struct Driver {
    rpc: Rpc,
    inbox: mpsc::UnboundedReceiver<Command>,
    waiting: Waiting<oneshot::Sender<Answer>>,
    link: Link<RunEnd>,
    /// Where questions go, while there is a stream or one is asked for. The server shows it to be open only with its first
    /// message, so they are sent meanwhile.
    asking: Option<mpsc::Sender<RunId>>,
    looks: FuturesUnordered<Looking>,
    /// Questions for the stream, until it takes them.
    questions: Vec<RunId>,
    idle_since: Option<Instant>,
    /// Whether the last run that was told of had ended before it was asked about: then the next probably has, too.
    ended_before: bool,
    /// Since when the stream has been lost again and again.
    lost_since: Option<Instant>,
}

impl Driver {
    fn new(rpc: Rpc, inbox: mpsc::UnboundedReceiver<Command>) -> Self {
        Self {
            rpc,
            inbox,
            waiting: Waiting::default(),
            link: Link::new("results", LONGEST_PAUSE),
            asking: None,
            looks: FuturesUnordered::new(),
            questions: Vec::new(),
            idle_since: None,
            ended_before: false,
            lost_since: None,
        }
    }

    async fn run(mut self) {
        loop {
            self.ask();
            let look = self.waiting.next_look().filter(|_| self.looks.len() < LOOKS);
            let idle = self.idle_since.filter(|_| !self.link.is_closed()).map(|since| since + KEEP);
            let room = room(self.asking.clone().filter(|_| !self.questions.is_empty()));
            tokio::select! {
                // Answers first: a waiter that leaves with its answer under way should get it.
                biased;
                event = self.link.next() => self.on_link(event),
                Some((run, seen)) = self.looks.next() => self.on_look(run, seen),
                command = self.inbox.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                () = room => {}
                () = at(look) => {
                    if let Some(Step::Look(run)) = self.waiting.due(Instant::now()) {
                        self.looks.push(Box::pin(exists(self.rpc.clone(), run)));
                    }
                }
                () = at(idle) => self.close(),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Wait(run, fresh, waiter) => {
                self.idle_since = None;
                if let Some(Step::Ask(runs)) = self.waiting.wait(Instant::now(), run, self.first_look(fresh), waiter) {
                    if self.link.is_closed() {
                        self.open();
                    } else if !self.link.is_lost() {
                        // A new stream is asked about all of them.
                        self.questions.extend(runs);
                    }
                }
            }
            Command::Leave(run) => {
                if self.waiting.leave(run, oneshot::Sender::is_closed) == Some(Step::Idle) {
                    self.idle_since = Some(Instant::now());
                }
            }
        }
    }

    fn first_look(&self, fresh: bool) -> Duration {
        match self.waiting.len() < FEW {
            true if self.ended_before => Duration::ZERO,
            true => SOON,
            false if fresh => FRESH,
            false => UNSEEN,
        }
    }

    fn open(&mut self) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let ids = stream::unfold(receiver, |mut receiver: mpsc::Receiver<RunId>| async move {
            let run = receiver.recv().await?;
            Some((run.to_string(), receiver))
        });
        let rpc = self.rpc.clone();
        self.questions = self.waiting.all();
        self.asking = Some(sender);
        self.link.open(async move { rpc.dispatcher.run_results(ids).await });
    }

    fn close(&mut self) {
        self.link.close();
        self.asking = None;
        self.lost_since = None;
    }

    /// Sends as many questions as there is room for.
    fn ask(&mut self) {
        let Some(sender) = &self.asking else { return };
        while let Some(run) = self.questions.last() {
            if sender.try_send(*run).is_err() {
                break;
            }
            self.questions.pop();
        }
    }

    fn on_link(&mut self, event: LinkEvent<RunEnd>) {
        match event {
            LinkEvent::Due => self.open(),
            LinkEvent::Message(end) => {
                self.ended_before = false;
                self.lost_since = None;
                if let Ok(run) = convert::id(&end.run) {
                    let results = TaskEnd::read(end);
                    for waiter in self.waiting.take(run) {
                        let _ = waiter.send(Ok(Some(results.clone())));
                    }
                }
                if self.waiting.is_empty() {
                    self.idle_since = Some(Instant::now());
                }
            }
            LinkEvent::Lost(error) => self.lost(error.as_ref()),
            LinkEvent::Refused(error) => self.give_up(&error),
        }
    }

    fn lost(&mut self, error: Option<&Error>) {
        self.questions.clear();
        self.asking = None;
        if self.waiting.is_empty() {
            return self.close();
        }
        // One result that is too big to be received would end every stream that it is asked of: all are looked at instead.
        if error.is_some_and(|error| error.kind() == ErrorKind::TooLarge) {
            for waiter in self.waiting.take_all() {
                let _ = waiter.send(Ok(None));
            }
            return self.close();
        }
        let now = Instant::now();
        if now - self.link.asked() > LASTED {
            self.lost_since = None;
        }
        let gone = now - *self.lost_since.get_or_insert(now) > GIVE_UP;
        if let Some(error) = error.filter(|_| gone) {
            self.give_up(error);
        }
    }

    /// No stream will ever tell those who wait.
    fn give_up(&mut self, error: &Error) {
        for waiter in self.waiting.take_all() {
            let _ = waiter.send(Err(error.clone()));
        }
        self.close();
    }

    fn on_look(&mut self, run: RunId, seen: Seen) {
        if !self.waiting.seen(Instant::now(), run, seen) {
            return;
        }
        self.ended_before = seen == Seen::Ended;
        for waiter in self.waiting.take(run) {
            let _ = waiter.send(if seen == Seen::Missing { Err(Error::run_not_found(run)) } else { Ok(None) });
        }
        if self.waiting.is_empty() {
            self.idle_since = Some(Instant::now());
        }
    }
}

/// Resolves when there is room for more questions, if there are any.
async fn room(questions: Option<mpsc::Sender<RunId>>) {
    match questions {
        Some(questions) if !questions.is_closed() => drop(questions.reserve().await),
        _ => pending().await,
    }
}

async fn exists(rpc: Rpc, run: RunId) -> (RunId, Seen) {
    let answer = rpc.admin.run_details(&run.to_string()).await;
    let seen = match answer {
        Ok(state) if state.done && grpc::status(&state.status).is_final() => Seen::Ended,
        Ok(_) => Seen::Going,
        Err(error) if error.is_not_found() => Seen::Missing,
        Err(_) => Seen::Unknown,
    };
    (run, seen)
}
