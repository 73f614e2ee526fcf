//! Queues, one for each action: the most urgent first, then the oldest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::store::{QueueOrder, State, TaskEventKind, TaskKey};
use super::timers::Timer;
use super::types::{At, Effect, Message, Turn};
use super::{Core, Quirk, duration};

/// What holds where a definition says nothing.
const TIMEOUT: &str = "5m";
const SCHEDULE_TIMEOUT: &str = "5m";
/// The interval at which the engine checks timeouts.
const LOOK: Duration = Duration::from_secs(1);
/// Above what a user can ask for: a retry goes first.
const RETRY_URGENCY: u8 = 4;

#[derive(Debug, Default)]
pub(super) struct Queues {
    by_action: HashMap<Arc<str>, BTreeMap<QueueOrder, TaskKey>>,
    count: u64,
}

impl Queues {
    fn push(&mut self, action: Arc<str>, urgency: u8, task: TaskKey) -> QueueOrder {
        self.count += 1;
        let order = QueueOrder { urgency: Reverse(urgency), number: self.count };
        self.by_action.entry(action).or_default().insert(order, task);
        order
    }

    pub(super) fn remove(&mut self, action: &str, order: QueueOrder) {
        if let Some(queue) = self.by_action.get_mut(action) {
            queue.remove(&order);
        }
    }

    /// The first after a place, or the first of all.
    fn after(&self, action: &str, place: Option<QueueOrder>) -> Option<(QueueOrder, TaskKey)> {
        let start = place.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_action.get(action)?.range((start, Bound::Unbounded)).next().map(|(order, task)| (*order, *task))
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> impl Iterator<Item = (QueueOrder, TaskKey)> {
        self.by_action.values().flatten().map(|(order, task)| (*order, *task))
    }

    fn holds(&self, action: &str) -> bool {
        self.by_action.get(action).is_some_and(|queue| !queue.is_empty())
    }
}

impl Core {
    /// Puts a task into its queue, with an urgency of its own or that of its run. Its schedule timeout begins.
    pub(super) fn enqueue(&mut self, turn: &mut Turn<'_>, key: TaskKey, urgency: Option<u8>) {
        let Some((run, task)) = self.runs.task(key) else { return };
        let Some(step) = run.step(task) else { return };
        let text = step.definition.schedule_timeout.as_deref().unwrap_or(SCHEDULE_TIMEOUT);
        let wait = duration::parse(text).unwrap_or_default();
        let (action, urgency) = (Arc::clone(&step.action), urgency.unwrap_or(run.priority));
        let order = self.queues.push(action, urgency, key);
        let timer = self.timers.set(self.noticed(turn, wait), Timer::Schedule(key));
        if let Some(task) = self.runs.task_mut(key) {
            task.state = State::Queued { timer: Some(timer), order };
        }
    }

    /// Queues a task again for its next attempt.
    pub(super) fn enqueue_retry(&mut self, turn: &mut Turn<'_>, key: TaskKey) {
        self.record(key, TaskEventKind::Queued, turn.now, None, None);
        self.enqueue_again(turn, key);
    }

    /// The same, without a word about it.
    pub(super) fn enqueue_again(&mut self, turn: &mut Turn<'_>, key: TaskKey) {
        self.enqueue(turn, key, Some(RETRY_URGENCY));
        if let Some(action) = self.action_of(key) {
            self.assign(turn, &action);
        }
    }

    pub(super) fn action_of(&self, key: TaskKey) -> Option<Arc<str>> {
        let (run, task) = self.runs.task(key)?;
        Some(Arc::clone(&run.step(task)?.action))
    }

    /// When the engine notices that a duration has passed: it checks about once per second. A duration of zero is noticed at the next
    /// check, because a retried task with a zero timeout would otherwise keep the clock at one instant forever.
    pub(super) fn noticed(&self, turn: &mut Turn<'_>, after: Duration) -> At {
        let after = if after.is_zero() { LOOK } else { after };
        let late = if self.has(Quirk::LateTimeouts) { (turn.random)() % 1000 } else { 0 };
        turn.now + after + Duration::from_millis(u64::try_from(late).unwrap_or_default())
    }

    /// Gives queued tasks of an action to workers, as long as there are both.
    pub(super) fn assign(&mut self, turn: &mut Turn<'_>, action: &str) {
        let mut picked = Vec::new();
        let mut passed = None;
        while let Some((order, key)) = self.queues.after(action, passed) {
            let Some(worker) = self.worker_for(turn.now, key, action) else {
                // One that is choosy does not hold up the others.
                if self.takes_any(key) || self.free_workers(turn.now, action).next().is_none() {
                    break;
                }
                passed = Some(order);
                continue;
            };
            let end = turn.now + self.timeout(key);
            let Some(holder) = self.workers.get_mut(&worker) else { break };
            self.queues.remove(action, order);
            holder.running.insert(key, end);
            picked.push((key, worker));
        }
        // The most urgent are picked, and then sent in the order of their creation.
        picked.sort_unstable();
        for (key, worker) in picked {
            self.start(turn, key, worker);
        }
        // Those that are left have no worker, and their events say so, once.
        let waiting: Vec<_> = self
            .queues
            .by_action
            .get(action)
            .into_iter()
            .flat_map(|queue| queue.values().rev().copied())
            .take_while(|key| self.is_new(*key))
            .collect();
        for key in waiting {
            self.record(key, TaskEventKind::NoWorker, turn.now, None, None);
        }
    }

    /// The execution timeout of a task.
    fn timeout(&self, key: TaskKey) -> Duration {
        let text = self.runs.task(key).and_then(|(run, task)| run.step(task)).map(|step| &*step.definition.timeout);
        duration::parse(text.filter(|text| !text.is_empty()).unwrap_or(TIMEOUT)).unwrap_or_default()
    }

    fn is_new(&self, key: TaskKey) -> bool {
        self.runs.task(key).is_some_and(|(_, task)| task.event(TaskEventKind::NoWorker).is_none())
    }

    /// All queues that a worker can take from, when it has become free or has come back.
    pub(super) fn assign_all(&mut self, turn: &mut Turn<'_>, worker: uuid::Uuid) {
        let Some(profile) = self.workers.get(&worker).map(|worker| Arc::clone(&worker.profile)) else { return };
        for action in profile.actions.iter().filter(|action| self.queues.holds(action)).collect::<Vec<_>>() {
            self.assign(turn, action);
        }
    }

    fn start(&mut self, turn: &mut Turn<'_>, key: TaskKey, worker: uuid::Uuid) {
        let at = self.noticed(turn, self.timeout(key));
        let timer = self.timers.set(at, Timer::Execution(key));
        if let Some(task) = self.runs.task_mut(key) {
            if let State::Queued { timer: Some(timer), .. } = task.state {
                self.timers.clear(timer);
            }
            task.state = State::Running { worker, timer };
        }
        self.record(key, TaskEventKind::Assigned, turn.now, Some(worker), None);
        self.stamp_late(turn, key);
        let Some(holder) = self.workers.get(&worker) else { return };
        match holder.streams.first().copied() {
            Some(stream) => {
                self.record(
                    key,
                    TaskEventKind::Sent,
                    turn.now,
                    Some(worker),
                    Some("Sent task run to the assigned worker"),
                );
                if let Some(action) = self.action(key, false) {
                    self.effects.push(Effect::Send(stream, Message::Action(Box::new(action))));
                }
            }
            None => self.lost_send(turn, key),
        }
    }
}
