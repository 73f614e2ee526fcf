//! How an attempt ends, and what follows: the next attempt, or the end of the run.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::store::{End, Final, Run, RunIx, State, TaskEventKind, TaskKey};
use super::timers::Timer;
use super::types::{At, Effect, EventKind, Message, Resource, RunEvent, Turn};
use super::{Core, Quirk, duration};

/// So often the engine tries to bring a task to a worker.
const SENDS: u8 = 10;
/// The pauses between those tries.
const SEND_PAUSES: [u64; 10] = [100, 150, 250, 600, 900, 1500, 3000, 3000, 4000, 4000];
/// How long a task lies in a queue that nobody looks at.
const IDLE: Duration = Duration::from_secs(5);

impl Core {
    /// Takes a task out of wherever it is. Tells whether it was with a worker, and which.
    pub(super) fn release(&mut self, turn: &mut Turn<'_>, key: TaskKey) -> Option<Uuid> {
        let action = self.action_of(key)?;
        let task = self.runs.task_mut(key)?;
        match std::mem::replace(&mut task.state, State::Ended) {
            State::Queued { timer, order } => {
                self.queues.remove(&action, order);
                if let Some(timer) = timer {
                    self.timers.clear(timer);
                }
                None
            }
            State::Running { worker, timer } => {
                self.timers.clear(timer);
                if let Some(holder) = self.workers.get_mut(&worker) {
                    holder.running.remove(&key);
                }
                self.assign_all(turn, worker);
                Some(worker)
            }
            State::Absent | State::Backoff | State::Ended => None,
        }
    }

    pub(super) fn complete(
        &mut self,
        turn: &mut Turn<'_>,
        key: TaskKey,
        at: At,
        worker: Option<Uuid>,
        output: Arc<str>,
        quiet: bool,
    ) {
        self.record(key, TaskEventKind::Finished, at, worker, None);
        self.release(turn, key);
        self.task_event(turn, key, EventKind::Completed, Arc::clone(&output), quiet);
        self.end(turn, key, End::Completed(output));
    }

    pub(super) fn fail(&mut self, turn: &mut Turn<'_>, key: TaskKey, error: Arc<str>, retry: bool, quiet: bool) {
        self.record(key, TaskEventKind::Failed, turn.now, None, Some(&error));
        let worker = self.release(turn, key);
        self.task_event(turn, key, EventKind::Failed, Arc::clone(&error), quiet);
        if retry && worker.is_some() && self.retry(turn, key) {
            // What is announced of a DAG's task in this way has the task's own id, and reaches nobody.
            if self.has(Quirk::EarlyEnd) && self.runs.get(key.run).is_some_and(|run| run.dag.is_none()) {
                self.run_event(turn, key.run, EventKind::Failed);
            }
            return;
        }
        self.end(turn, key, End::Failed(error));
    }

    pub(super) fn execution_timeout(&mut self, turn: &mut Turn<'_>, key: TaskKey) {
        let Some((run, task)) = self.runs.task(key) else { return };
        let Some(step) = run.step(task) else { return };
        let limit = if step.definition.timeout.is_empty() { "5m" } else { &step.definition.timeout };
        let text: Arc<str> = format!("Task exceeded timeout of {limit}").into();
        self.record(key, TaskEventKind::TimedOut, turn.now, None, Some(&text));
        self.tell_worker(key);
        self.release(turn, key);
        if !self.retry(turn, key) {
            self.end(turn, key, End::TimedOut(text));
        }
    }

    pub(super) fn schedule_timeout(&mut self, turn: &mut Turn<'_>, key: TaskKey) {
        self.record(key, TaskEventKind::ScheduleTimedOut, turn.now, None, None);
        self.release(turn, key);
        self.task_event(turn, key, EventKind::Cancelled, "".into(), false);
        self.end(turn, key, End::ScheduleTimedOut);
    }

    pub(super) fn cancel_task(&mut self, turn: &mut Turn<'_>, key: TaskKey) {
        let ended = self.runs.task(key).is_none_or(|(_, task)| task.state == State::Ended);
        if ended && !self.has(Quirk::TwoFinalRows) {
            return;
        }
        self.record(key, TaskEventKind::Cancelled, turn.now, None, None);
        if ended {
            self.end_again(turn, key, End::Cancelled, false);
            self.disorder(turn, key);
            return;
        }
        self.tell_worker(key);
        self.keep_schedule_timeout(turn, key);
        self.release(turn, key);
        self.end(turn, key, End::Cancelled);
    }

    /// A worker has been silent for too long: the attempt is over, and the next one begins.
    pub(super) fn reassign(&mut self, turn: &mut Turn<'_>, key: TaskKey, worker: Uuid) {
        let text = "Worker did not send a heartbeat for 30 seconds";
        self.record(key, TaskEventKind::Reassigned, turn.now, Some(worker), Some(text));
        self.release(turn, key);
        self.next_attempt(key);
        self.enqueue_again(turn, key);
    }

    /// A task was assigned to a worker whose stream is gone, and nobody has noticed.
    pub(super) fn lost_send(&mut self, turn: &mut Turn<'_>, key: TaskKey) {
        let text =
            "Could not send task to worker. This likely means that too many slots have been configured on the worker";
        self.record(key, TaskEventKind::Failed, turn.now, None, Some(text));
        let Some(task) = self.runs.task_mut(key) else { return };
        if let State::Running { worker, timer } = std::mem::replace(&mut task.state, State::Backoff) {
            self.timers.clear(timer);
            if let Some(holder) = self.workers.get_mut(&worker) {
                holder.running.remove(&key);
            }
        }
        let tries = task.lost_sends;
        task.lost_sends += 1;
        if tries >= SENDS {
            self.end(turn, key, End::Failed(text.into()));
            return;
        }
        self.next_attempt(key);
        let pause = SEND_PAUSES.get(usize::from(tries)).copied().unwrap_or(4000);
        self.timers.set(turn.now + Duration::from_millis(pause), Timer::Requeue(key));
    }

    /// The delay before an attempt is over.
    pub(super) fn requeue(&mut self, turn: &mut Turn<'_>, key: TaskKey) {
        let Some((_, task)) = self.runs.task(key).filter(|(_, task)| task.state == State::Backoff) else { return };
        if self.has(Quirk::IdleQueue) && task.lost_sends == 0 && task.event(TaskEventKind::Queued).is_none() {
            // It is in its queue from now on, but nobody looks there.
            self.record(key, TaskEventKind::Queued, turn.now, None, None);
            self.timers.set(turn.now + IDLE, Timer::Requeue(key));
        } else {
            self.enqueue_retry(turn, key);
        }
    }

    fn next_attempt(&mut self, key: TaskKey) {
        if let Some(task) = self.runs.task_mut(key) {
            task.retry_count += 1;
        }
    }

    /// Begins the next attempt if the definition allows one more.
    fn retry(&mut self, turn: &mut Turn<'_>, key: TaskKey) -> bool {
        let Some((run, task)) = self.runs.task(key) else { return false };
        let Some(step) = run.step(task) else { return false };
        let number = task.app_retries + 1;
        if number > step.definition.retries {
            return false;
        }
        let delay = step.definition.backoff_factor.map(|factor| {
            let most = step.definition.backoff_max_seconds.unwrap_or(86400);
            let length = Duration::from_secs_f64(f64::from(factor).powi(number).min(f64::from(most)));
            // The engine cuts it to milliseconds.
            Duration::from_millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
        });
        let text = match delay {
            None => format!("This is retry number {number}."),
            Some(delay) => {
                let at = (turn.now + delay).format("%Y-%m-%dT%H:%M:%SZ");
                format!("This is retry number {number}. Retrying in {} ({at}).", duration::text(delay))
            }
        };
        if let Some(task) = self.runs.task_mut(key) {
            task.app_retries = number;
            task.state = State::Backoff;
        }
        self.next_attempt(key);
        self.record(key, TaskEventKind::Retrying, turn.now, None, Some(&text));
        match delay {
            None => self.enqueue_retry(turn, key),
            Some(delay) => {
                self.timers.set(turn.now + delay, Timer::Requeue(key));
            }
        }
        true
    }

    /// The task is over, and with it perhaps its run.
    fn end(&mut self, turn: &mut Turn<'_>, key: TaskKey, end: End) {
        self.settle(turn, key, end);
        self.follow(turn, key.run);
        self.finish(turn, key.run);
    }

    /// Tells of a run's end, if it is one.
    pub(super) fn finish(&mut self, turn: &mut Turn<'_>, run: RunIx) {
        let Some(kind) = self.runs.get(run).filter(|run| run.is_ended()).map(Run::end_kind) else { return };
        self.send_results(turn, run);
        self.run_event(turn, run, kind);
    }

    pub(super) fn settle(&mut self, turn: &Turn<'_>, key: TaskKey, end: End) {
        if let Some(task) = self.runs.task_mut(key) {
            task.state = State::Ended;
        }
        self.add_final(turn, key, end);
        self.free_key(key.run);
    }

    /// A task that is over ends once more: it is kept, and announced as if it were the first time.
    pub(super) fn end_again(&mut self, turn: &mut Turn<'_>, key: TaskKey, end: End, quiet: bool) {
        if !self.has(Quirk::TwoFinalRows) {
            return;
        }
        if let End::Completed(text) | End::Failed(text) = &end {
            self.task_event(turn, key, end.kind(), Arc::clone(text), quiet);
        }
        self.add_end(turn, key, end);
    }

    /// Adds another final row to a task that has ended, and publishes the run's status.
    pub(super) fn add_end(&mut self, turn: &mut Turn<'_>, key: TaskKey, end: End) {
        let kind = end.kind();
        self.add_final(turn, key, end);
        match self.runs.get(key.run) {
            Some(run) if run.dag.is_none() => self.run_event(turn, key.run, kind),
            Some(run) if run.is_ended() => self.run_event(turn, key.run, run.end_kind()),
            _ => self.follow(turn, key.run),
        }
    }

    /// Which of two final rows is found first nobody knows, if the first is an output.
    pub(super) fn disorder(&mut self, turn: &mut Turn<'_>, key: TaskKey) {
        let Some(task) = self.runs.task_mut(key) else { return };
        let is_later = task.finals.iter().rev().skip(1).all(|row| row.at < turn.now);
        let was_completed = task.finals.first().is_some_and(|row| matches!(row.end, End::Completed(_)));
        if is_later && was_completed && turn.coin() {
            task.finals.rotate_right(1);
        }
    }

    fn add_final(&mut self, turn: &Turn<'_>, key: TaskKey, end: End) {
        let restarted = self.runs.get(key.run).is_some_and(Run::is_restarted);
        let Some(task) = self.runs.task_mut(key) else { return };
        let retry_count = task.retry_count;
        // A second output takes the place of the first, unless the whole run has begun a second time.
        task.finals.retain(|row| {
            restarted
                || row.retry_count == retry_count
                    && !(matches!(row.end, End::Completed(_)) && matches!(end, End::Completed(_)))
        });
        task.finals.push(Final { retry_count, end, at: turn.now });
        task.finals.shrink_to_fit();
        task.events.shrink_to_fit();
    }

    /// Tells the worker that has the task to stop.
    fn tell_worker(&mut self, key: TaskKey) {
        let Some((_, task)) = self.runs.task(key) else { return };
        let State::Running { worker, .. } = task.state else { return };
        let Some(holder) = self.workers.get(&worker) else { return };
        for stream in holder.streams.clone() {
            if let Some(action) = self.action(key, true) {
                self.effects.push(Effect::Send(stream, Message::Action(Box::new(action))));
            }
        }
    }

    fn task_event(&mut self, turn: &Turn<'_>, key: TaskKey, kind: EventKind, payload: Arc<str>, quiet: bool) {
        let Some((run, task)) = self.runs.task(key) else { return };
        if quiet {
            return;
        }
        self.publish(&RunEvent {
            run: run.id,
            resource: Resource::Task(task.id),
            kind,
            at: turn.now,
            payload,
            retry_count: Some(task.retry_count),
            index: None,
            hangup: false,
        });
    }

    pub(super) fn run_event(&mut self, turn: &Turn<'_>, run: RunIx, kind: EventKind) {
        let Some(run) = self.runs.get(run) else { return };
        self.publish(&RunEvent {
            run: run.id,
            resource: Resource::Run,
            kind,
            at: turn.now,
            payload: "".into(),
            retry_count: None,
            index: None,
            hangup: true,
        });
    }
}
