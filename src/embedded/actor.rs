//! The task that owns the core. It runs commands, delivers effects, and wakes for timers.
//!
//! A panic in the core ends this task. The panic hook prints it. The caller of the command, all later callers, and
//! [`Engine::shutdown`](super::Engine::shutdown) panic with the same message. Open streams end with an error that contains the message.
//! Requests over a socket get it as their response.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{self, Stream};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::VERSION;
use super::core::Core;
use super::core::store::{Code, Effect, Message, StatusError, StreamId, Turn};
use super::failure::Failure;
use crate::model::engine_version::EngineVersion;
use crate::time::{Clock, at};

/// The maximum number of commands in one round.
const MAX_COMMANDS_PER_ROUND: usize = 64;
/// The maximum number of unread messages of a stream. With one more, the stream ends.
const MAX_UNREAD_MESSAGES: usize = 65_536;

type Run = Box<dyn FnOnce(&mut Core, &mut Turn<'_>) + Send>;
type Sink = mpsc::Sender<Result<Message, StatusError>>;

enum Command {
    Run(Run),
    /// A heartbeat, which does not wake idle workers.
    Heartbeat(Run),
    Open(StreamId, Sink, Run),
}

/// A handle to the core. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    /// Each caller waits for the result of its command, so there are no more commands than callers. With a bound, callers that are
    /// not polled could fill the channel.
    commands: mpsc::UnboundedSender<Command>,
    /// At most one message for each stream, so it needs no bound.
    closed: mpsc::UnboundedSender<StreamId>,
    streams: Arc<AtomicU64>,
    failure: Failure,
    /// The runtime on which the engine was started.
    runtime: runtime::Handle,
    pub(crate) clock: Clock,
    /// The version that the engine reports.
    pub(crate) version: EngineVersion,
}

/// Starts the engine's task. It runs until `stop`, and then ends all streams.
pub(super) fn start(core: Core, seed: u64, clock: Clock, stop: CancellationToken) -> (Handle, JoinHandle<()>) {
    let (commands, mut inbox) = mpsc::unbounded_channel();
    let (closed, mut closing) = mpsc::unbounded_channel();
    let failure = Failure::default();
    let mut actor = Actor { core, sinks: HashMap::new(), clock: clock.clone(), random: Random(seed), round: 0 };
    let runtime = runtime::Handle::current();
    let handle = Handle {
        commands,
        closed,
        streams: Arc::default(),
        failure: failure.clone(),
        runtime,
        clock,
        version: VERSION,
    };
    let task = tokio::spawn(async move {
        let ended = AssertUnwindSafe(actor.run(&mut inbox, &mut closing, &stop)).catch_unwind().await;
        if let Err(panic) = ended {
            actor.fail(&failure.record(&*panic));
        }
        // Callers see the end of the task only now, after a failure has been recorded.
        drop(inbox);
    });
    (handle, task)
}

fn unavailable(message: impl Into<String>) -> StatusError {
    StatusError { code: Code::Unavailable, message: message.into() }
}

impl Handle {
    /// Runs a command and returns its result.
    ///
    /// Panics if the core has panicked, in this command or before.
    pub(crate) async fn call<R: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Core, &mut Turn<'_>) -> R + Send + 'static,
    ) -> Result<R, StatusError> {
        self.run(Command::Run, command).await
    }

    /// Runs a command that does not wake idle workers.
    pub(crate) async fn heartbeat<R: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Core, &mut Turn<'_>) -> R + Send + 'static,
    ) -> Result<R, StatusError> {
        self.run(Command::Heartbeat, command).await
    }

    async fn run<R: Send + 'static>(
        &self,
        kind: fn(Run) -> Command,
        command: impl FnOnce(&mut Core, &mut Turn<'_>) -> R + Send + 'static,
    ) -> Result<R, StatusError> {
        let (result, received) = oneshot::channel();
        let run: Run = Box::new(move |core, turn| drop(result.send(command(core, turn))));
        self.send(kind(run), received).await
    }

    /// Opens a stream, with a command that registers it with the core.
    ///
    /// Panics if the core has panicked, in this command or before.
    pub(crate) async fn open(
        &self,
        command: impl FnOnce(&mut Core, &mut Turn<'_>, StreamId) -> Result<(), StatusError> + Send + 'static,
    ) -> Result<Messages, StatusError> {
        let id = StreamId(self.streams.fetch_add(1, Relaxed));
        let (sink, messages) = mpsc::channel(MAX_UNREAD_MESSAGES);
        let (result, received) = oneshot::channel();
        let run: Run = Box::new(move |core, turn| drop(result.send(command(core, turn, id))));
        // From here on, dropping this future closes the stream.
        let guard = Guard { id, closed: self.closed.clone() };
        self.send(Command::Open(id, sink, run), received).await??;
        Ok(Messages { messages, guard })
    }

    async fn send<R>(&self, command: Command, received: oneshot::Receiver<R>) -> Result<R, StatusError> {
        if self.commands.send(command).is_ok()
            && let Ok(result) = received.await
        {
            return Ok(result);
        }
        // A command that panics is dropped before its panic is recorded.
        self.commands.closed().await;
        self.failure.resume();
        Err(unavailable("the embedded engine was stopped"))
    }

    /// The record of the first panic of the engine.
    pub(super) fn failure(&self) -> &Failure {
        &self.failure
    }

    /// The engine's runtime, whose timers callers without any can use.
    pub(super) fn runtime(&self) -> &runtime::Handle {
        &self.runtime
    }

    /// Sleeps with the timers of the engine's runtime: callers may be on a runtime without timers, or on none.
    pub(super) fn sleep(&self, length: Duration) -> Sleep {
        let _entered = self.runtime.enter();
        tokio::time::sleep(length)
    }
}

/// The core's messages on one stream. Dropping it closes the stream.
pub(crate) struct Messages {
    messages: mpsc::Receiver<Result<Message, StatusError>>,
    guard: Guard,
}

struct Guard {
    id: StreamId,
    closed: mpsc::UnboundedSender<StreamId>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // There is no receiver if the engine has stopped.
        let _ = self.closed.send(self.id);
    }
}

impl Messages {
    pub(crate) fn id(&self) -> StreamId {
        self.guard.id
    }

    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<Message, StatusError>> + Send {
        stream::unfold(self, |mut this| async move { Some((this.messages.recv().await?, this)) })
    }
}

struct Actor {
    core: Core,
    sinks: HashMap<StreamId, Sink>,
    clock: Clock,
    random: Random,
    /// The number of rounds so far. In each round, up to [`MAX_COMMANDS_PER_ROUND`] commands are taken from the inbox.
    round: u64,
}

impl Actor {
    async fn run(
        &mut self,
        inbox: &mut mpsc::UnboundedReceiver<Command>,
        closing: &mut mpsc::UnboundedReceiver<StreamId>,
        stop: &CancellationToken,
    ) {
        let mut round = Vec::with_capacity(MAX_COMMANDS_PER_ROUND);
        loop {
            let timer = self.core.next_timer().map(|at| self.clock.instant(at));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // A closed stream must be removed before the next command uses it.
                Some(stream) = closing.recv() => {
                    self.clock.wake_idle();
                    self.sinks.remove(&stream);
                    self.turn(|core, turn| core.close_stream(turn, stream));
                }
                // Before the timers: each command also runs the due timers, and a core that is behind still answers.
                count = inbox.recv_many(&mut round, MAX_COMMANDS_PER_ROUND) => {
                    if count == 0 {
                        break;
                    }
                    self.round += 1;
                    for command in round.drain(..) {
                        self.command(command);
                    }
                }
                () = at(timer) => {
                    self.turn(|_, _| ());
                    if self.core.next_timer().is_some_and(|at| at <= self.clock.now()) {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
        self.core.end_streams();
        self.deliver();
    }

    /// Ends all streams after a panic of the core.
    fn fail(&mut self, message: &str) {
        tracing::error!(message, "embedded engine panicked and stopped");
        for (_, sink) in self.sinks.drain() {
            let _ = sink.try_send(Err(unavailable(format!("the embedded engine panicked: {message}"))));
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Heartbeat(run) => self.turn(run),
            Command::Run(run) => {
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

    /// Runs a command. Due timers run first, because a command must not observe a task that should have timed out before.
    fn turn(&mut self, run: impl FnOnce(&mut Core, &mut Turn<'_>)) {
        let random = &mut self.random;
        let mut turn = Turn { now: self.clock.now(), random: &mut || random.next(), round: self.round };
        // Heartbeats of idle workers arrive here. A worker whose heartbeat would be rejected must send it to get the rejection.
        for (worker, at) in self.clock.counted_heartbeats() {
            if !self.core.count_heartbeat(worker, at) {
                self.clock.wake_idle();
            }
        }
        self.core.advance(&mut turn);
        run(&mut self.core, &mut turn);
        self.core.finish_turn(&mut turn);
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
                        tracing::warn!(?stream, "ended stream because its reader is too slow");
                        self.sinks.remove(&stream);
                    }
                }
                Effect::End(stream, end) => {
                    if let (Some(sink), Err(error)) = (self.sinks.remove(&stream), end) {
                        let _ = sink.try_send(Err(error));
                    }
                }
            }
        }
    }
}

/// A pseudo-random generator (`SplitMix64`), which makes ids reproducible by a seed. Each number consists of two outputs.
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

/// The output function of `SplitMix64`: consecutive numbers become pseudo-random ones.
pub(super) fn mixed(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// All seeds that can have produced an id as one of the first `count` numbers. An id lacks six bits of its number.
#[cfg(test)]
pub(super) fn seeds_of(id: u128, count: u64) -> impl Iterator<Item = u64> {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    /// Inverts one shift of `mixed`, and all of it.
    fn unshifted(number: u64, shift: u32) -> u64 {
        (0..64 / shift).fold(number, |found, _| number ^ found >> shift)
    }
    /// The factor that inverts a multiplication.
    fn inverse(factor: u64) -> u64 {
        (0..6).fold(factor, |found, _| found.wrapping_mul(2u64.wrapping_sub(factor.wrapping_mul(found))))
    }
    fn unmixed(number: u64) -> u64 {
        let number = unshifted(number, 31).wrapping_mul(inverse(0x94d0_49bb_1331_11eb));
        unshifted(unshifted(number, 27).wrapping_mul(inverse(0xbf58_476d_1ce4_e5b9)), 30)
    }
    let [high, low] = [id >> 64, id & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or_default());
    let version = 0xf000;
    (0..16).flat_map(move |bits: u64| {
        let state = unmixed(high & !version | bits << 12);
        let fits = mixed(state.wrapping_add(STEP)) << 2 == low << 2;
        (1..=count).filter(move |_| fits).map(move |place| state.wrapping_sub(STEP.wrapping_mul(2 * place - 1)))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn c5_the_ids_of_a_million_runs_are_unique() {
        let mut random = Random(7);
        let now = Clock::System.now();
        let mut turn = Turn { now, random: &mut || random.next(), round: 0 };
        let ids: Vec<_> = (0..1_000_000).map(|_| turn.uuid()).collect();
        // Their order is random: about half of them are less than the one before.
        let less = ids.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!((499_000..501_000).contains(&less), "{less}");
        let ids: HashSet<_> = ids.into_iter().collect();
        assert_eq!(ids.len(), 1_000_000);
        assert!(ids.iter().all(|id| id.get_version_num() == 4));
    }
}
