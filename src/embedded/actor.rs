//! The one task that owns the core: it runs commands, delivers effects, and wakes for timers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures_util::stream::{self, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::core::Core;
use super::core::types::{Code, Effect, Fault, Message, StreamId, Turn};
use crate::time::{Clock, at};

/// Commands that one round takes, before it looks at the timers again.
const ROUND: usize = 64;
/// Messages that a slow reader may be behind; one more, and its stream ends.
const BEHIND: usize = 65_536;

type Do = Box<dyn FnOnce(&mut Core, &mut Turn<'_>) + Send>;
type Sink = mpsc::Sender<Result<Message, Fault>>;

enum Command {
    Do(Do),
    /// A heartbeat, which does not wake idle workers.
    Heartbeat(Do),
    Open(StreamId, Sink, Do),
}

/// The way to the core. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    /// Whoever sends a command waits for its answer, so there are no more of them than callers. With a bound, callers that
    /// are not polled could hold all the room there is.
    commands: mpsc::UnboundedSender<Command>,
    /// As many as there are streams at the most, so it needs no bound of its own.
    closed: mpsc::UnboundedSender<StreamId>,
    streams: Arc<AtomicU64>,
    pub(crate) clock: Clock,
}

/// Starts the engine's task. It runs until `stop`, and then ends all streams.
pub(super) fn start(core: Core, seed: u64, clock: Clock, stop: CancellationToken) -> (Handle, JoinHandle<()>) {
    let (commands, inbox) = mpsc::unbounded_channel();
    let (closed, closing) = mpsc::unbounded_channel();
    let actor = Actor { core, sinks: HashMap::new(), clock: clock.clone(), random: Random(seed), round: 0 };
    let task = tokio::spawn(actor.run(inbox, closing, stop));
    (Handle { commands, closed, streams: Arc::default(), clock }, task)
}

fn stopped() -> Fault {
    Fault { code: Code::Unavailable, message: "the embedded engine has been stopped".into() }
}

impl Handle {
    /// Runs a command and waits for what it returns.
    pub(crate) async fn call<R: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Core, &mut Turn<'_>) -> R + Send + 'static,
    ) -> Result<R, Fault> {
        self.send(Command::Do, command).await
    }

    /// Runs a command that does not wake idle workers.
    pub(crate) async fn heartbeat<R: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Core, &mut Turn<'_>) -> R + Send + 'static,
    ) -> Result<R, Fault> {
        self.send(Command::Heartbeat, command).await
    }

    async fn send<R: Send + 'static>(
        &self,
        kind: fn(Do) -> Command,
        command: impl FnOnce(&mut Core, &mut Turn<'_>) -> R + Send + 'static,
    ) -> Result<R, Fault> {
        let (answer, answered) = oneshot::channel();
        let run: Do = Box::new(move |core, turn| drop(answer.send(command(core, turn))));
        self.commands.send(kind(run)).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())
    }

    /// Opens a stream, with a command that makes the core know it.
    pub(crate) async fn open(
        &self,
        command: impl FnOnce(&mut Core, &mut Turn<'_>, StreamId) -> Result<(), Fault> + Send + 'static,
    ) -> Result<Messages, Fault> {
        let id = StreamId(self.streams.fetch_add(1, Relaxed));
        let (sink, messages) = mpsc::channel(BEHIND);
        let (answer, answered) = oneshot::channel();
        let run: Do = Box::new(move |core, turn| drop(answer.send(command(core, turn, id))));
        // From here on, going away closes it.
        let guard = Guard { id, closed: self.closed.clone() };
        self.commands.send(Command::Open(id, sink, run)).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())??;
        Ok(Messages { messages, guard })
    }
}

/// The core's messages on one stream. Dropping it closes the stream.
pub(crate) struct Messages {
    messages: mpsc::Receiver<Result<Message, Fault>>,
    guard: Guard,
}

struct Guard {
    id: StreamId,
    closed: mpsc::UnboundedSender<StreamId>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Nobody is there to be told when the engine has stopped.
        let _ = self.closed.send(self.id);
    }
}

impl Messages {
    pub(crate) fn id(&self) -> StreamId {
        self.guard.id
    }

    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<Message, Fault>> + Send {
        stream::unfold(self, |mut this| async move { Some((this.messages.recv().await?, this)) })
    }
}

struct Actor {
    core: Core,
    sinks: HashMap<StreamId, Sink>,
    clock: Clock,
    random: Random,
    /// How often commands have been taken out of the inbox.
    round: u64,
}

impl Actor {
    async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Command>,
        mut closing: mpsc::UnboundedReceiver<StreamId>,
        stop: CancellationToken,
    ) {
        let mut round = Vec::with_capacity(ROUND);
        loop {
            let timer = self.core.next_timer().map(|at| self.clock.instant(at));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // A stream that is gone must be gone before the next command counts on it.
                Some(stream) = closing.recv() => {
                    self.clock.wake_idle();
                    self.sinks.remove(&stream);
                    self.turn(|core, turn| core.close_stream(turn, stream));
                }
                () = at(timer) => self.turn(|_, _| ()),
                count = inbox.recv_many(&mut round, ROUND) => {
                    if count == 0 {
                        break;
                    }
                    self.round += 1;
                    for command in round.drain(..) {
                        self.command(command);
                    }
                }
            }
        }
        self.core.end_streams();
        self.deliver();
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Heartbeat(run) => self.turn(run),
            Command::Do(run) => {
                self.clock.wake_idle();
                self.turn(run);
            }
            Command::Open(stream, sink, run) => {
                self.clock.wake_idle();
                self.sinks.insert(stream, sink);
                self.turn(run);
            }
        }
    }

    /// What is due comes first: a command must not find a task that should have timed out before it.
    fn turn(&mut self, run: impl FnOnce(&mut Core, &mut Turn<'_>)) {
        let random = &mut self.random;
        let mut turn = Turn { now: self.clock.now(), random: &mut || random.next(), round: self.round };
        // Heartbeats of idle workers arrive here. A worker whose heartbeat would be refused must send it to get the refusal.
        for (worker, at) in self.clock.counted_heartbeats() {
            if !self.core.count_heartbeat(worker, at) {
                self.clock.wake_idle();
            }
        }
        self.core.advance(&mut turn);
        run(&mut self.core, &mut turn);
        self.deliver();
    }

    fn deliver(&mut self) {
        for effect in self.core.effects() {
            match effect {
                Effect::Send(stream, message) => {
                    let full = self.sinks.get(&stream).is_some_and(|sink| {
                        matches!(sink.try_send(Ok(message)), Err(mpsc::error::TrySendError::Full(_)))
                    });
                    if full {
                        tracing::warn!(?stream, "a reader is too far behind: its stream ends");
                        self.sinks.remove(&stream);
                    }
                }
                Effect::End(stream, end) => {
                    if let (Some(sink), Err(fault)) = (self.sinks.remove(&stream), end) {
                        let _ = sink.try_send(Err(fault));
                    }
                }
            }
        }
    }
}

/// `SplitMix64`, twice a number: ids that are as good as random and the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u128 {
        u128::from(self.half()) << 64 | u128::from(self.half())
    }

    fn half(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }
}

/// Makes numbers that count up look random.
pub(super) fn mixed(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn c5_the_ids_of_a_million_runs_are_unique() {
        let mut random = Random(7);
        let now = Clock::Machine.now();
        let mut turn = Turn { now, random: &mut || random.next(), round: 0 };
        let made: Vec<_> = (0..1_000_000).map(|_| turn.uuid()).collect();
        // Nor does their order tell anything: about half of them are less than the one before.
        let less = made.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!((499_000..501_000).contains(&less), "{less}");
        let ids: HashSet<_> = made.into_iter().collect();
        assert_eq!(ids.len(), 1_000_000);
        assert!(ids.iter().all(|id| id.get_version_num() == 4));
    }
}
