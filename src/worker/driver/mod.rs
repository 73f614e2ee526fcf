//! The worker's background task: it passes what happens to the [`Assignments`] and the [`Outbox`], and does what they return.
//!
//! Each part of its state has a file, and does not use the driver: `checks`, `earlier`, `handle`, `heartbeats`, `jobs`, `journal`,
//! `registration`, `resources` and `shutdown`. What follows from an event is in `checking`, `connecting`, `executing`, `reporting` and
//! `stopping`.

mod check_times;
mod checking;
mod checks;
mod connecting;
mod earlier;
mod executing;
mod handle;
mod heartbeats;
mod jobs;
mod journal;
mod registration;
mod reporting;
mod resources;
mod shutdown;
mod stopping;
#[cfg(test)]
mod tests;

use std::pin::pin;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Duration, Instant};

use super::assignments::{Assignments, Effect, Event, Reported, Slots};
use super::connection::Connection;
use super::outbox::{Outbox, Recovered, Sent};
use super::report::WorkerReport;
use super::setup::Worker;
use super::status::{WorkerState, WorkerStatus};
use crate::model::WorkerId;
use crate::rpc::convert::Action;
use crate::sync::lock;
use crate::telemetry::{self, Measurement};
use crate::time::{Alarm, at};
use crate::transport::{ReconnectingStream, StreamPolicy, Twins};
use crate::workflow::{CancelCause, FullSlots};
use checks::Checks;
use earlier::EarlierResults;
use executing::Assigned;
use handle::HandleSide;
pub(super) use handle::{Command, Handles};
use heartbeats::WorkerHeartbeats;
use jobs::Jobs;
use journal::Journal;
use registration::Registration;
use resources::Resources;
use shutdown::Phase;

/// A worker must reconnect soon: without a stream it gets no assignments, and after 30 seconds it loses its attempts. An idle stream is
/// replaced, because the engine does not always notice that a proxy has lost it. In case a stream has lost cancellations, the attempts are
/// checked after this limit, whatever else it delivers.
const STREAM: StreamPolicy = StreamPolicy {
    name: "assignments",
    max_backoff: Duration::from_secs(1),
    idle_limit: Duration::from_secs(300),
    // The engine sends all assignments to one of two streams, and notifications to both.
    twins: Twins::Split,
};

/// The background task of a worker. It owns the running attempts.
pub(super) struct WorkerDriver {
    worker: Worker,
    id: WorkerId,
    stream: ReconnectingStream<Action>,
    heartbeats: WorkerHeartbeats,
    registration: Registration,
    connection: Connection,
    assignments: Assignments<Assigned>,
    jobs: Jobs,
    resources: Resources,
    checks: Checks,
    outbox: Outbox,
    earlier: EarlierResults,
    journal: Journal,
    /// The calls of the outbox.
    calls: FuturesUnordered<BoxFuture<'static, Sent>>,
    handle: HandleSide,
    phase: Phase,
}

impl WorkerDriver {
    pub(super) fn new(worker: Worker, id: WorkerId, journal: Option<Recovered>, handles: Handles) -> Self {
        let outbox = Outbox::new(worker.outbox, worker.batch_reports, journal.is_some());
        let (journal, unchecked) = journal.unzip();
        let earlier = EarlierResults::new(unchecked.unwrap_or_default());
        let full_slots = FullSlots::default();
        Self {
            stream: ReconnectingStream::new(STREAM),
            // They start when the stream is requested: an earlier one would not count.
            heartbeats: WorkerHeartbeats::start(&worker.client, id, handles.last_heartbeat.clone(), full_slots.clone()),
            registration: Registration::default(),
            connection: Connection::new(earlier.has_unchecked()),
            assignments: Assignments::new(Slots::new(&worker.slots)),
            jobs: Jobs::default(),
            resources: Resources::start(&worker.client, full_slots),
            checks: Checks::default(),
            outbox,
            earlier,
            journal: Journal::new(journal),
            calls: FuturesUnordered::new(),
            handle: HandleSide::new(handles),
            phase: Phase::Running,
            worker,
            id,
        }
    }

    /// Runs the worker until it was stopped, and its attempts have ended or were dropped.
    pub(super) async fn run(mut self) -> WorkerReport {
        self.work().await;
        self.end().await
    }

    async fn work(&mut self) {
        self.stream.reopen_now();
        // For the next call of the outbox, and the next check.
        let mut alarm = Alarm::default();
        // Pinned here, because registering them for each event costs more than an event.
        let mut stopped = pin!(self.handle.stop.clone().cancelled_owned());
        let mut forced = pin!(self.handle.force.clone().cancelled_owned());
        while !self.is_drained() {
            let now = Instant::now();
            if self.checks.take_due(now) {
                self.request_regular_check();
            }
            self.send_reports(now);
            self.publish();
            let (is_running, deadline) = (self.phase.is_running(), self.phase.deadline());
            let wake = self.outbox.next_wake(now).into_iter().chain(self.checks.next_due()).min();
            tokio::select! {
                biased;
                () = &mut forced => break,
                () = &mut stopped, if is_running => self.pause(),
                // Before the deadlines: what ends with the grace period has ended in time. Later assignments can come in any number.
                Some(ended) = self.jobs.next() => self.on_ended(ended),
                Some(sent) = self.calls.next() => self.on_sent(sent),
                saved = self.journal.saved() => self.on_saved(saved),
                checked = self.checks.answered() => self.on_checked(&checked),
                () = at(deadline) => self.on_deadline(),
                Some(command) = self.handle.next_command() => self.on_command(command),
                // Before the stream, which may always have a message.
                Some(heartbeat) = self.heartbeats.next() => self.on_heartbeat(heartbeat),
                registered = self.registration.ended() => self.on_registered(registered),
                Some((task, retry_count)) = self.resources.released() => self.step(Event::Released(task, retry_count)),
                event = self.stream.next() => self.on_stream(event),
                is_paused = self.phase.paused() => self.drain(is_paused),
                () = alarm.at(wake) => {}
            }
        }
    }

    fn step(&mut self, event: Event<Assigned>) {
        let effects = self.assignments.step(event);
        self.apply(effects);
    }

    fn apply(&mut self, effects: Vec<Effect<Assigned>>) {
        for effect in effects {
            match effect {
                Effect::Start(key, assigned) => self.start_job(key, assigned),
                Effect::StartBatch(keys, assigned) => self.start_batch(keys, assigned),
                Effect::Cancel(key) => self.stop_attempt(&key, CancelCause::Engine),
                Effect::Replace(key) => self.stop_attempt(&key, CancelCause::Replaced),
                Effect::Drop(key) => self.stop_attempt(&key, CancelCause::Shutdown),
                // Its report has just been added to the outbox.
                Effect::Report(_) => {}
                Effect::Check => self.request_check(),
                Effect::Withdraw(key) => {
                    if self.outbox.withdraw(key) {
                        self.step(Event::Reported(key, Reported::Withdrawn));
                    }
                }
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Pause(is_paused) => self.handle.is_paused = is_paused,
            Command::AddLabels(labels) => lock(&self.worker.labels).extend(labels),
            Command::LimitShutdown(grace) => {
                self.worker.grace = grace;
                if let Phase::Draining(deadlines) = &mut self.phase {
                    deadlines.shorten(Instant::now(), grace, self.worker.cancel_grace);
                }
            }
        }
    }

    /// Publishes the status if it has changed.
    fn publish(&self) {
        let (running, queued, unreported) = self.assignments.counts();
        let unreported = unreported + self.earlier.len();
        self.resources.set_full(self.assignments.is_full());
        let state = match (&self.phase, self.connection.is_connected()) {
            (Phase::Running, true) => WorkerState::Connected,
            (Phase::Running, false) => WorkerState::Disconnected,
            _ => WorkerState::Draining,
        };
        let is_new = self.handle.publish(WorkerStatus {
            worker_id: self.id,
            state,
            is_paused: self.handle.is_paused,
            slots: self.worker.slot_count(),
            running,
            queued,
            unreported,
            is_outbox_full: self.assignments.is_on_hold(),
        });
        if is_new {
            record_load(&self.worker, (running, queued, unreported));
        }
    }
}

fn record_load(worker: &Worker, (running, queued, unreported): (usize, usize, usize)) {
    let (worker_name, slots) = (worker.name.as_str(), worker.slot_count());
    telemetry::record(&Measurement::WorkerLoad { worker_name, slots, running, queued, unreported });
}
