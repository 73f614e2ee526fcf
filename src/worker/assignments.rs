//! Which attempts a worker runs: a state machine without I/O. The driver passes it what happens, and does what it returns.

use std::collections::{HashMap, HashSet, VecDeque};

use super::key::Key;
use super::report::{UnfinishedTask, WorkerReport};
use crate::model::{TaskId, attempt_number};

/// The maximum number of cancellations that are kept for attempts that have not been assigned yet.
const MAX_EARLY_CANCELLATIONS: usize = 1024;
/// The maximum number of tasks without an attempt whose newest attempt is remembered. The engine delivers an attempt again within
/// seconds, if at all.
const MAX_ENDED_TASKS: usize = 10_000;

/// What happens to a worker's attempts. `A` is what is needed to start one.
#[derive(Debug)]
pub(super) enum Event<A> {
    /// The engine has assigned an attempt.
    Assigned(Key, A),
    /// The engine has assigned an attempt whose ids cannot be read.
    AssignedUnreadable,
    /// The engine has cancelled an attempt.
    Cancelled(Key),
    /// The code of an attempt has ended.
    Ended(Key, End),
    /// The engine has accepted the report of an attempt's end, or has refused it.
    Reported(Key, Reported),
    /// An attempt of a task, by its retry count, only waits, and does not occupy its slot any longer.
    Released(TaskId, u32),
    /// Whether finished attempts that were not reported yet keep others from being started.
    Hold(bool),
    /// The worker shuts down: no further attempt is accepted.
    StopAccepting,
    /// The grace period of the shutdown is over: no further attempt is started, and the running ones are dropped.
    DropAll,
    /// The worker does not wait for anything any longer.
    Abandon,
}

/// How the code of an attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With an output or an error, which must be reported.
    Finished,
    /// The engine had ended the attempt before.
    Cancelled,
    /// The worker stopped, and the code did not end in time.
    Dropped,
}

/// The result of reporting an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reported {
    /// The engine has accepted an output.
    Completed,
    /// The engine has accepted a failure.
    Failed,
    Refused,
    /// The attempt was cancelled before the report was sent.
    Withdrawn,
}

/// What the driver must do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect<A> {
    Start(Key, A),
    /// The engine has ended this attempt.
    Cancel(Key),
    /// The worker does not wait for this attempt any longer.
    Drop(Key),
    /// The end of this attempt must be reported.
    Report(Key),
    /// The engine has ended this attempt, whose report has not been accepted yet.
    Withdraw(Key),
}

/// The attempts that are assigned to a worker. Each is started at most once, at most one of a task and at most as many as there are
/// slots run at a time, and each is in exactly one count of the report.
#[derive(Debug)]
pub(super) struct Assignments<A> {
    slots: usize,
    /// The running attempt of each task.
    running: HashMap<TaskId, Running>,
    /// The number of running attempts that have released their slot.
    released: usize,
    /// Attempts that have ended, and whose report the engine has not accepted yet.
    unreported: HashSet<Key>,
    /// Attempts that wait for a slot, or for the end of an earlier attempt of the same task. The engine frees a slot as soon as it ends
    /// an attempt, but the code of that attempt may end later.
    waiting: VecDeque<(Key, A)>,
    /// The newest attempt of each task that was assigned. A broken connection can deliver an attempt twice, and an earlier one late.
    newest: HashMap<TaskId, Newest>,
    /// The tasks whose newest attempt has ended, with the number of that end, oldest first.
    ended: VecDeque<(TaskId, u64)>,
    ends: u64,
    /// Cancellations that arrived before the attempts that they cancel, newest last. With two streams for a moment, that happens.
    cancelled: VecDeque<Key>,
    accepting: bool,
    on_hold: bool,
    report: WorkerReport,
}

#[derive(Debug)]
struct Running {
    key: Key,
    /// Whether the engine has ended the attempt.
    is_cancelled: bool,
    /// Whether it has released its slot.
    is_released: bool,
}

/// The newest attempt of a task.
#[derive(Debug)]
struct Newest {
    retry_count: u32,
    /// The number of its end, if it has ended.
    end: Option<u64>,
}

impl<A> Assignments<A> {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots,
            running: HashMap::new(),
            released: 0,
            unreported: HashSet::new(),
            waiting: VecDeque::new(),
            newest: HashMap::new(),
            ended: VecDeque::new(),
            ends: 0,
            cancelled: VecDeque::new(),
            accepting: true,
            on_hold: false,
            report: WorkerReport::default(),
        }
    }

    pub(super) fn step(&mut self, event: Event<A>) -> Vec<Effect<A>> {
        let mut effects = Vec::new();
        match event {
            Event::Assigned(key, attempt) => self.assign(key, attempt, &mut effects),
            Event::AssignedUnreadable => self.report.add_unfinished(None),
            Event::Cancelled(key) => self.cancel(key, &mut effects),
            Event::Ended(key, end) => self.end(key, end, &mut effects),
            Event::Reported(key, reported) => self.reported(key, reported),
            Event::Released(task, retry_count) => {
                let running = self.running.get_mut(&task).filter(|running| running.key.retry_count == retry_count);
                if let Some(running) = running.filter(|running| !running.is_released) {
                    running.is_released = true;
                    self.released += 1;
                }
            }
            Event::Hold(on_hold) => self.on_hold = on_hold,
            Event::StopAccepting => self.accepting = false,
            Event::DropAll => {
                self.accepting = false;
                effects.extend(self.running.values().map(|running| Effect::Drop(running.key)));
                for (key, _) in std::mem::take(&mut self.waiting) {
                    self.add_unfinished(key, false);
                }
            }
            Event::Abandon => {
                self.accepting = false;
                let waiting = std::mem::take(&mut self.waiting).into_iter().map(|(key, _)| key);
                let running = std::mem::take(&mut self.running).into_values().map(|running| running.key);
                for key in waiting.chain(running).collect::<Vec<_>>() {
                    self.add_unfinished(key, false);
                }
                for key in std::mem::take(&mut self.unreported) {
                    self.add_unfinished(key, true);
                }
            }
        }
        self.start_waiting(&mut effects);
        effects
    }

    /// Whether no attempt is started because of unreported ones.
    pub(super) fn is_on_hold(&self) -> bool {
        self.on_hold
    }

    /// The numbers of attempts that run, that wait, and that have ended and are not reported yet.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.running.len(), self.waiting.len(), self.unreported.len())
    }

    /// The attempts that run or wait.
    pub(super) fn current(&self) -> impl Iterator<Item = Key> {
        self.running.values().map(|running| running.key).chain(self.waiting.iter().map(|(key, _)| *key))
    }

    /// Whether no attempt runs, waits, or is to be reported.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty() && self.unreported.is_empty()
    }

    pub(super) fn into_report(self) -> WorkerReport {
        self.report
    }

    fn assign(&mut self, key: Key, attempt: A, effects: &mut Vec<Effect<A>>) {
        if self.newest.get(&key.task).is_some_and(|newest| newest.retry_count >= key.retry_count) {
            return;
        }
        let earlier = self.newest.insert(key.task, Newest { retry_count: key.retry_count, end: None });
        // The engine has given up an earlier attempt, which it need not have cancelled.
        if earlier.is_some_and(|earlier| earlier.end.is_none()) {
            if let Some(at) = self.waiting.iter().position(|(other, _)| other.task == key.task) {
                self.waiting.remove(at);
                self.report.cancelled += 1;
            }
            self.cancel_running(key.task, |_| true, effects);
            let is_earlier = |other: &&Key| other.task == key.task;
            effects.extend(self.unreported.iter().filter(is_earlier).copied().map(Effect::Withdraw));
        }
        let was_cancelled = self.cancelled.iter().position(|other| *other == key).map(|at| self.cancelled.remove(at));
        if was_cancelled.is_some() {
            self.report.cancelled += 1;
        } else if self.accepting {
            self.waiting.push_back((key, attempt));
            return;
        } else {
            self.add_unfinished(key, false);
        }
        self.set_ended(key);
    }

    fn cancel(&mut self, key: Key, effects: &mut Vec<Effect<A>>) {
        if self.cancel_running(key.task, |running| running == key, effects) {
        } else if self.unreported.contains(&key) {
            effects.push(Effect::Withdraw(key));
        } else if let Some(at) = self.waiting.iter().position(|(other, _)| *other == key) {
            self.waiting.remove(at);
            self.report.cancelled += 1;
            self.set_ended(key);
        } else if self.newest.get(&key.task).is_none_or(|newest| newest.retry_count < key.retry_count) {
            if self.cancelled.len() >= MAX_EARLY_CANCELLATIONS {
                self.cancelled.pop_front();
            }
            self.cancelled.push_back(key);
        }
    }

    /// Cancels the running attempt of a task, if it is meant.
    fn cancel_running(&mut self, task: TaskId, is_meant: impl Fn(Key) -> bool, effects: &mut Vec<Effect<A>>) -> bool {
        let Some(running) = self.running.get_mut(&task).filter(|running| is_meant(running.key)) else { return false };
        running.is_cancelled = true;
        effects.push(Effect::Cancel(running.key));
        true
    }

    fn end(&mut self, key: Key, end: End, effects: &mut Vec<Effect<A>>) {
        if self.running.get(&key.task).is_none_or(|running| running.key != key) {
            return;
        }
        let running = self.running.remove(&key.task);
        self.released -= usize::from(running.as_ref().is_some_and(|running| running.is_released));
        let was_cancelled = running.is_some_and(|running| running.is_cancelled);
        match end {
            // The engine has already ended the attempt: a second end would corrupt the run.
            _ if was_cancelled => self.report.cancelled += 1,
            End::Cancelled => self.report.cancelled += 1,
            End::Dropped => self.add_unfinished(key, false),
            End::Finished => {
                self.unreported.insert(key);
                effects.push(Effect::Report(key));
                return;
            }
        }
        self.set_ended(key);
    }

    fn reported(&mut self, key: Key, reported: Reported) {
        if !self.unreported.remove(&key) {
            return;
        }
        match reported {
            Reported::Completed => self.report.completed += 1,
            Reported::Failed => self.report.failed += 1,
            Reported::Refused => self.add_unfinished(key, true),
            Reported::Withdrawn => self.report.cancelled += 1,
        }
        self.set_ended(key);
    }

    /// Starts waiting attempts while there are free slots, in the order of their assignment.
    fn start_waiting(&mut self, effects: &mut Vec<Effect<A>>) {
        while !self.on_hold && self.running.len() < self.slots.saturating_add(self.released) {
            let is_free = |(key, _): &(Key, A)| !self.running.contains_key(&key.task);
            let Some((key, attempt)) = self.waiting.iter().position(is_free).and_then(|at| self.waiting.remove(at))
            else {
                return;
            };
            self.running.insert(key.task, Running { key, is_cancelled: false, is_released: false });
            effects.push(Effect::Start(key, attempt));
        }
    }

    /// Remembers for some time that an attempt has ended.
    fn set_ended(&mut self, key: Key) {
        let Some(newest) = self.newest.get_mut(&key.task).filter(|newest| newest.retry_count == key.retry_count) else {
            return;
        };
        self.ends += 1;
        newest.end = Some(self.ends);
        self.ended.push_back((key.task, self.ends));
        if self.ended.len() > MAX_ENDED_TASKS
            && let Some((oldest, end)) = self.ended.pop_front()
            && self.newest.get(&oldest).is_some_and(|newest| newest.end == Some(end))
        {
            self.newest.remove(&oldest);
        }
    }

    fn add_unfinished(&mut self, key: Key, finished: bool) {
        let Key { run, task, retry_count } = key;
        let attempt = attempt_number(retry_count);
        self.report.add_unfinished(Some(UnfinishedTask { run_id: run, task_id: task, attempt, is_finished: finished }));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn key(task: u8, retry_count: u32) -> Key {
        let id = Uuid::from_u128(u128::from(task) + 1);
        Key { run: id.into(), task: id.into(), retry_count }
    }

    fn started(effects: Vec<Effect<()>>) -> Vec<Key> {
        let started = effects.into_iter().filter_map(|effect| match effect {
            Effect::Start(key, ()) => Some(key),
            _ => None,
        });
        started.collect()
    }

    /// The code of an attempt ends, and its report is accepted.
    fn done(assignments: &mut Assignments<()>, key: Key, reported: Reported) -> Vec<Effect<()>> {
        let mut effects = assignments.step(Event::Ended(key, End::Finished));
        if effects.contains(&Effect::Report(key)) {
            effects.extend(assignments.step(Event::Reported(key, reported)));
            effects.retain(|effect| *effect != Effect::Report(key));
        }
        effects
    }

    fn assigned(assignments: &mut Assignments<()>, task: u8, retry_count: u32) -> Vec<Effect<()>> {
        assignments.step(Event::Assigned(key(task, retry_count), ()))
    }

    #[test]
    fn attempts_wait_for_a_slot_in_their_order() {
        let mut all = Assignments::new(1);
        assert_eq!(assigned(&mut all, 1, 0), [Effect::Start(key(1, 0), ())]);
        assert_eq!((assigned(&mut all, 2, 0), assigned(&mut all, 3, 0)), (Vec::new(), Vec::new()));
        assert_eq!(done(&mut all, key(1, 0), Reported::Completed), [Effect::Start(key(2, 0), ())]);
        assert_eq!(all.step(Event::Cancelled(key(3, 0))), []);
        assert_eq!(done(&mut all, key(2, 0), Reported::Failed), []);
        assert!(all.is_idle());
        assert_eq!(all.into_report().to_string(), "1 completed, 1 failed attempt, 1 cancelled, 0 unfinished");
    }

    #[test]
    fn an_attempt_that_is_delivered_again_does_not_run_again() {
        let mut all = Assignments::new(2);
        assert_eq!(assigned(&mut all, 1, 0).len(), 1);
        assert_eq!(assigned(&mut all, 1, 0), [], "while it runs");
        done(&mut all, key(1, 0), Reported::Completed);
        assert_eq!(assigned(&mut all, 1, 0), [], "after its end");
        all.step(Event::Cancelled(key(2, 0)));
        assert_eq!((assigned(&mut all, 2, 0), assigned(&mut all, 2, 0)), (Vec::new(), Vec::new()), "cancelled before");
        all.step(Event::StopAccepting);
        assert_eq!((assigned(&mut all, 3, 0), assigned(&mut all, 3, 0)), (Vec::new(), Vec::new()), "too late");
        assert_eq!(all.into_report().to_string(), "1 completed, 0 failed attempts, 1 cancelled, 1 unfinished");
    }

    #[test]
    fn a_newer_attempt_replaces_an_earlier_one() {
        let mut all = Assignments::new(1);
        assigned(&mut all, 1, 0);
        assert_eq!(assigned(&mut all, 1, 1), [Effect::Cancel(key(1, 0))], "one of a task at a time");
        assert_eq!(assigned(&mut all, 1, 2), [Effect::Cancel(key(1, 0))], "the waiting one is never started");
        assert_eq!(assigned(&mut all, 1, 1), [], "an older one that comes late");
        assert_eq!(all.step(Event::Ended(key(1, 0), End::Cancelled)), [Effect::Start(key(1, 2), ())]);
        done(&mut all, key(1, 2), Reported::Completed);
        assert_eq!(all.into_report().to_string(), "1 completed, 0 failed attempts, 2 cancelled, 0 unfinished");
    }

    #[test]
    fn when_the_grace_period_is_over_all_attempts_are_dropped() {
        let mut all = Assignments::new(1);
        assigned(&mut all, 1, 0);
        assigned(&mut all, 2, 0);
        assert_eq!(all.step(Event::DropAll), [Effect::Drop(key(1, 0))]);
        assert!(!all.accepting && !all.is_idle());
        all.step(Event::Ended(key(1, 0), End::Dropped));
        assert!(all.is_idle());
        assert_eq!(all.into_report().unfinished, 2);
    }

    #[test]
    fn an_end_that_was_not_reported_is_withdrawn_if_the_engine_has_ended_the_attempt() {
        let mut all = Assignments::new(1);
        assigned(&mut all, 1, 0);
        assert_eq!(all.step(Event::Ended(key(1, 0), End::Finished)), [Effect::Report(key(1, 0))]);
        assert_eq!(all.step(Event::Cancelled(key(1, 0))), [Effect::Withdraw(key(1, 0))]);
        // It is too late: the report was on its way.
        all.step(Event::Reported(key(1, 0), Reported::Completed));
        assigned(&mut all, 2, 0);
        all.step(Event::Ended(key(2, 0), End::Finished));
        assert_eq!(assigned(&mut all, 2, 1), [Effect::Withdraw(key(2, 0)), Effect::Start(key(2, 1), ())]);
        all.step(Event::Reported(key(2, 0), Reported::Withdrawn));
        assert_eq!(all.counts(), (1, 0, 0));
        all.step(Event::Cancelled(key(2, 1)));
        assert_eq!(all.step(Event::Ended(key(2, 1), End::Finished)), [], "it was cancelled just before its end");
        assert_eq!(all.into_report().to_string(), "1 completed, 0 failed attempts, 2 cancelled, 0 unfinished");
    }

    #[test]
    fn a_released_slot_is_free_for_another_attempt() {
        let mut all = Assignments::new(1);
        assigned(&mut all, 1, 0);
        assert_eq!(assigned(&mut all, 2, 0), []);
        assert_eq!(all.step(Event::Released(key(1, 0).task, 0)), [Effect::Start(key(2, 0), ())]);
        assert_eq!(all.step(Event::Released(key(1, 0).task, 0)), [], "once");
        assert_eq!(assigned(&mut all, 3, 0), []);
        assert_eq!(done(&mut all, key(1, 0), Reported::Completed), [], "it had no slot");
        assert_eq!(done(&mut all, key(2, 0), Reported::Completed), [Effect::Start(key(3, 0), ())]);
    }

    #[test]
    fn nothing_is_started_on_hold() {
        let mut all = Assignments::new(2);
        assert_eq!(all.step(Event::Hold(true)), []);
        assert_eq!(assigned(&mut all, 1, 0), []);
        assert_eq!(all.step(Event::Hold(false)), [Effect::Start(key(1, 0), ())]);
    }

    #[test]
    fn what_is_abandoned_is_counted_as_unfinished() {
        let mut all = Assignments::new(1);
        assigned(&mut all, 1, 0);
        all.step(Event::Ended(key(1, 0), End::Finished));
        assigned(&mut all, 2, 0);
        assigned(&mut all, 3, 0);
        assert_eq!(all.counts(), (1, 1, 1));
        assert_eq!(all.step(Event::Abandon), []);
        assert!(all.is_idle());
        assert_eq!(all.step(Event::Ended(key(2, 0), End::Finished)), [], "it is not waited for");
        let report = all.into_report();
        assert_eq!((report.unfinished, report.unfinished_tasks.iter().filter(|task| task.is_finished).count()), (3, 1));
    }

    #[test]
    fn ended_tasks_are_forgotten_in_the_end() {
        let mut all = Assignments::new(1);
        for number in 0..MAX_ENDED_TASKS as u128 + 7 {
            let id = Uuid::from_u128(number + 1);
            let key = Key { run: id.into(), task: id.into(), retry_count: 0 };
            all.step(Event::Assigned(key, ()));
            done(&mut all, key, Reported::Completed);
        }
        assert_eq!((all.newest.len(), all.ended.len()), (MAX_ENDED_TASKS, MAX_ENDED_TASKS));
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Assigned(u8, u32),
        Cancelled(u8, u32),
        /// One of the running attempts ends.
        Ended(usize),
        StopAccepting,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u8..5, 0u32..4).prop_map(|(task, retry)| Step::Assigned(task, retry)),
            3 => (0u8..5, 0u32..4).prop_map(|(task, retry)| Step::Cancelled(task, retry)),
            6 => any::<prop::sample::Index>().prop_map(|index| Step::Ended(index.index(64))),
            1 => Just(Step::StopAccepting),
        ]
    }

    proptest! {
        #[test]
        fn every_attempt_starts_at_most_once_and_is_counted_once(
            slots in 1usize..4,
            steps in prop::collection::vec(step(), 0..80),
        ) {
            let mut all = Assignments::new(slots);
            let (mut running, mut ever, mut newest): (Vec<Key>, HashSet<Key>, HashMap<TaskId, u32>) = Default::default();
            let mut accepted = 0;
            for step in steps {
                let effects = match step {
                    Step::Assigned(task, retry_count) => {
                        let key = key(task, retry_count);
                        if newest.get(&key.task).is_none_or(|newest| *newest < retry_count) {
                            newest.insert(key.task, retry_count);
                            accepted += 1;
                        }
                        all.step(Event::Assigned(key, ()))
                    }
                    Step::Cancelled(task, retry_count) => all.step(Event::Cancelled(key(task, retry_count))),
                    Step::Ended(_) if running.is_empty() => continue,
                    Step::Ended(index) => {
                        let key = running.swap_remove(index % running.len());
                        done(&mut all, key, Reported::Completed)
                    }
                    Step::StopAccepting => all.step(Event::StopAccepting),
                };
                for key in started(effects) {
                    prop_assert!(ever.insert(key), "started twice: {key:?}");
                    prop_assert!(running.iter().all(|other| other.task != key.task), "two of one task");
                    running.push(key);
                }
                prop_assert!(running.len() <= slots);
            }
            all.step(Event::DropAll);
            for key in running {
                prop_assert!(started(all.step(Event::Ended(key, End::Dropped))).is_empty());
            }
            prop_assert!(all.is_idle());
            prop_assert_eq!(all.into_report().total(), accepted);
        }
    }
}
