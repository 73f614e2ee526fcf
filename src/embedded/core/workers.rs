//! Workers: their registration, their streams, their beats, and their silence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::definitions::Problems;
use super::store::TaskKey;
use super::timers::Timer;
use super::types::{At, Code, Effect, Fault, Label, Registration, Runtime, StreamId, Turn};
use super::{Core, Quirk, WorkflowView};
use crate::model::name::is_name;

/// Without a beat for this long, a worker is given nothing new.
const FRESH: Duration = Duration::from_secs(5);
/// How long the scheduler may take to notice that a worker is paused.
const NOTICE: Duration = Duration::from_millis(1500);
/// Without one for this long, what it has is given to others.
const SILENT: Duration = Duration::from_secs(30);

/// What a worker says about itself. Shared with lists that are rendered outside of the core's task.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) actions: BTreeSet<String>,
    pub(crate) slots: BTreeMap<String, i32>,
    pub(crate) labels: BTreeMap<String, Label>,
    pub(crate) runtime: Runtime,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) created: At,
    pub(crate) profile: Arc<Profile>,
    pub(crate) last_beat: Option<At>,
    /// Since when it is to be given nothing.
    paused: Option<At>,
    /// Open streams, oldest first: work goes to the first, cancellations to all.
    pub(super) streams: Vec<StreamId>,
    /// Running tasks, with the end of each one's execution timeout.
    pub(super) running: BTreeMap<TaskKey, At>,
    link: Link,
    /// Whether there is a timer that looks for its silence.
    watched: bool,
}

/// What the engine thinks of a worker's streams.
#[derive(Debug, PartialEq, Eq)]
enum Link {
    /// It has not beaten since it registered, or since it last began to listen: it is given nothing.
    Silent,
    /// It beats. One that never had a stream may do so, too.
    Live,
    /// All its streams have ended: its beats are refused until it has another one.
    Closed,
}

impl Worker {
    fn is_fresh(&self, now: At) -> bool {
        self.link == Link::Live && self.last_beat.is_some_and(|beat| beat + FRESH >= now)
    }

    fn is_paused(&self, now: At, notice: Duration) -> bool {
        self.paused.is_some_and(|since| since + notice <= now)
    }

    pub(crate) fn free(&self) -> usize {
        let slots = self.profile.slots.get("default").copied().unwrap_or(0);
        usize::try_from(slots).unwrap_or(0).saturating_sub(self.running.len())
    }

    pub(crate) fn status(&self, now: At) -> &'static str {
        match (self.is_fresh(now), self.paused.is_some()) {
            (false, _) => "INACTIVE",
            (true, true) => "PAUSED",
            (true, false) => "ACTIVE",
        }
    }
}

fn unknown(worker: Uuid) -> Fault {
    Fault::not_found(format!("worker not found: {worker}"))
}

impl Core {
    pub(crate) fn register(&mut self, turn: &mut Turn<'_>, registration: Registration) -> Result<Uuid, Fault> {
        let mut problems = Problems::default();
        problems.name("Name", &registration.name);
        for (at, action) in registration.actions.iter().enumerate() {
            let parts: Vec<_> = action.split(':').collect();
            if !(2..=3).contains(&parts.len()) || parts.iter().take(2).any(|part| part.is_empty()) {
                let text = "Invalid action ID. Action IDs must be in the format <integrationId>:<verb>";
                problems.add(&format!("Actions[{at}]"), text);
            }
        }
        problems.into_request_result("CreateWorkerOpts")?;
        let id = turn.uuid();
        self.workers.insert(
            id,
            Worker {
                created: turn.now,
                profile: Arc::new(Profile {
                    name: registration.name,
                    actions: registration.actions.iter().map(|action| action.to_lowercase()).collect(),
                    slots: registration.slots,
                    labels: registration.labels,
                    runtime: registration.runtime,
                }),
                last_beat: None,
                paused: None,
                streams: Vec::new(),
                running: BTreeMap::new(),
                link: Link::Silent,
                watched: false,
            },
        );
        Ok(id)
    }

    /// Checks the names of services, which are good for nothing else.
    pub(crate) fn check_services(services: &[String]) -> Result<(), Fault> {
        let mut problems = Problems::default();
        for (at, service) in services.iter().enumerate().filter(|(_, service)| !is_name(service)) {
            problems.name(&format!("Services[{at}]"), service);
        }
        problems.into_request_result("CreateWorkerOpts")
    }

    /// A worker's stream opens. It is given nothing before its next beat.
    pub(crate) fn listen(&mut self, worker: Uuid, stream: StreamId) -> Result<(), Fault> {
        let holder = self.workers.get_mut(&worker).ok_or_else(|| Fault::not_found("not found"))?;
        holder.streams.push(stream);
        holder.link = Link::Silent;
        self.streams.worker_of.insert(stream, worker);
        Ok(())
    }

    pub(super) fn stop_listening(&mut self, turn: &mut Turn<'_>, worker: Uuid, stream: StreamId) {
        let forgotten = self.has(Quirk::ForgottenClose) && turn.coin();
        let Some(holder) = self.workers.get_mut(&worker) else { return };
        holder.streams.retain(|open| *open != stream);
        if holder.streams.is_empty() && !forgotten {
            holder.link = Link::Closed;
        }
    }

    pub(crate) fn heartbeat(&mut self, turn: &mut Turn<'_>, worker: Uuid) -> Result<(), Fault> {
        let holder = self.workers.get_mut(&worker).ok_or_else(|| unknown(worker))?;
        if holder.link == Link::Closed {
            let message = format!("Heartbeat rejected: worker stream is not active: {worker}");
            return Err(Fault { code: Code::FailedPrecondition, message });
        }
        holder.link = Link::Live;
        holder.last_beat = Some(turn.now);
        if !std::mem::replace(&mut holder.watched, true) {
            self.timers.set(turn.now + SILENT, Timer::Silence(worker));
        }
        self.assign_all(turn, worker);
        Ok(())
    }

    /// Records a heartbeat that was due earlier. Returns false if it would have been refused.
    pub(crate) fn count_heartbeat(&mut self, worker: Uuid, at: At) -> bool {
        let Some(holder) = self.workers.get_mut(&worker).filter(|holder| holder.link == Link::Live) else {
            return false;
        };
        holder.last_beat = holder.last_beat.max(Some(at));
        true
    }

    pub(crate) fn unsubscribe(&mut self, worker: Uuid) -> Result<(), Fault> {
        let holder = self.workers.get_mut(&worker).ok_or_else(|| unknown(worker))?;
        // The stream stays open and hears nothing more.
        for stream in std::mem::take(&mut holder.streams) {
            self.streams.worker_of.remove(&stream);
        }
        holder.link = Link::Closed;
        Ok(())
    }

    pub(crate) fn upsert_labels(&mut self, worker: Uuid, labels: BTreeMap<String, Label>) -> Result<(), Fault> {
        let holder = self.workers.get_mut(&worker).ok_or_else(|| unknown(worker))?;
        Arc::make_mut(&mut holder.profile).labels.extend(labels);
        Ok(())
    }

    pub(crate) fn pause(&mut self, turn: &mut Turn<'_>, worker: Uuid, paused: bool) -> bool {
        let Some(holder) = self.workers.get_mut(&worker) else { return false };
        holder.paused = paused.then_some(turn.now);
        if !paused {
            self.assign_all(turn, worker);
        }
        true
    }

    pub(crate) fn worker(&self, worker: Uuid) -> Option<&Worker> {
        self.workers.get(&worker)
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = (Uuid, &Worker)> {
        self.workers.iter().map(|(id, worker)| (*id, worker))
    }

    /// The workflows that have a task which the worker can run, with their names.
    pub(crate) fn workflows_of(&self, worker: &Worker) -> impl Iterator<Item = (Uuid, &str)> {
        let is_of = |view: &WorkflowView<'_>| {
            view.workflow.latest.steps.iter().any(|step| worker.profile.actions.contains(&*step.action))
        };
        self.workflows().filter(is_of).map(|view| (view.workflow.id, view.name))
    }

    /// The workers that can take the action and have a slot for it.
    pub(super) fn free_workers(&self, now: At, action: &str) -> impl Iterator<Item = (Uuid, &Worker)> {
        let notice = if self.has(Quirk::LatePause) { NOTICE } else { Duration::ZERO };
        self.workers
            .iter()
            .filter(move |(_, worker)| {
                !worker.is_paused(now, notice) && worker.is_fresh(now) && worker.profile.actions.contains(action)
            })
            .filter(|(_, worker)| worker.free() > 0)
            .map(|(id, worker)| (*id, worker))
    }

    /// Half a minute has passed since some beat. If there was none since, the worker's tasks go to others.
    pub(super) fn silence(&mut self, turn: &mut Turn<'_>, worker: Uuid) {
        let Some(holder) = self.workers.get_mut(&worker) else { return };
        if let Some(beat) = holder.last_beat
            && beat + SILENT > turn.now
        {
            self.timers.set(beat + SILENT, Timer::Silence(worker));
            return;
        }
        holder.watched = false;
        for task in std::mem::take(&mut holder.running).into_keys() {
            self.reassign(turn, task, worker);
        }
    }

    /// Ends what the engine itself ends when it shuts down: all streams, well.
    pub(crate) fn end_streams(&mut self) {
        for stream in self.streams.take_all() {
            self.effects.push(Effect::End(stream, Ok(())));
        }
        for worker in self.workers.values_mut() {
            worker.streams.clear();
        }
    }
}
