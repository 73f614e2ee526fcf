//! Runs and tasks as they are kept. Small on purpose: this is what the engine has a hundred thousand of.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::rules::{Rules, Special};
use super::timers::TimerKey;
use super::types::{At, EventKind, ParentLink, TaskDefinition};

/// The first number: high enough not to be taken for an attempt or a count.
const FIRST_NUMBER: u32 = 1_001;

/// Names a run by the order of its creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RunIx(u32);

impl RunIx {
    /// A number as a database would give it.
    pub(crate) fn number(self) -> u32 {
        self.0.saturating_add(FIRST_NUMBER)
    }
}

/// Names a task: its run, and its place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TaskKey {
    pub(crate) run: RunIx,
    pub(crate) place: u16,
}

/// One version of a workflow.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) id: Uuid,
    pub(crate) workflow: Uuid,
    pub(crate) name: Arc<str>,
    pub(crate) description: String,
    pub(crate) default_priority: Option<i32>,
    pub(crate) rules: Rules,
    pub(crate) created: At,
    /// A counter over all workflows.
    pub(crate) order: i64,
    pub(crate) steps: Vec<Step>,
}

impl Version {
    /// Whether its runs are DAGs: their tasks then have ids of their own.
    pub(crate) fn is_dag(&self) -> bool {
        self.steps.len() > 1
    }
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) id: Uuid,
    pub(crate) readable_id: Arc<str>,
    pub(crate) action: Arc<str>,
    pub(crate) definition: TaskDefinition,
    /// Places of the steps that come before it.
    pub(crate) parents: Vec<u16>,
    pub(crate) on_failure: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) id: Uuid,
    /// Its index among all runs of the engine.
    pub(crate) ix: RunIx,
    pub(crate) version: Arc<Version>,
    pub(crate) created: At,
    /// Where it stands among those of its call.
    pub(crate) place: u16,
    /// Go's text of an object, or `null`.
    pub(crate) input: Box<str>,
    /// The database's text of an object.
    pub(crate) metadata: Box<str>,
    pub(crate) priority: u8,
    pub(crate) special: Option<Box<Special>>,
    pub(crate) tasks: Box<[Task]>,
    /// What only a DAG has.
    pub(crate) dag: Option<Box<Dag>>,
    /// What only a child has.
    pub(crate) child: Option<Box<Child>>,
}

/// What a child has beside the rest.
#[derive(Debug, Clone)]
pub(crate) struct Child {
    pub(crate) parent: ParentLink,
    /// What it was started with when it was started once more under the same id.
    pub(crate) restarted: Option<Box<str>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) id: Uuid,
    pub(crate) step: u16,
    pub(crate) retry_count: i32,
    /// How many of the retries were for failures of the task, and how many for failures to bring it to a worker.
    pub(crate) app_retries: i32,
    pub(crate) lost_sends: u8,
    pub(crate) state: State,
    pub(crate) finals: Vec<Final>,
    pub(crate) events: Vec<TaskEvent>,
    pub(crate) logs: Vec<LogLine>,
}

/// What a DAG's run has beside its tasks.
#[derive(Debug, Clone)]
pub(crate) struct Dag {
    /// One for each task, in the same order.
    pub(crate) places: Box<[Place]>,
}

#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) created: Option<At>,
    /// What its task waits for before it exists, or before it exists anew.
    pub(crate) waits: Waits,
    /// What it has waited for, if that was more than its parents.
    pub(crate) wait: Option<Box<Wait>>,
}

/// How far a wait for sleeps and events has come.
#[derive(Debug, Clone)]
pub(crate) struct Wait {
    /// Places of the conditions that are satisfied.
    pub(crate) met: Vec<u16>,
    pub(crate) timers: Vec<TimerKey>,
    /// What satisfied them.
    pub(crate) data: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    Nothing,
    Parents,
    /// Its parents have ended. It waits for sleeps and events.
    Conditions,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    /// Of a DAG: its parents have not ended yet, and nobody can see it.
    Absent,
    Queued {
        timer: Option<TimerKey>,
        order: QueueOrder,
    },
    Backoff,
    Running {
        worker: Uuid,
        timer: TimerKey,
    },
    Ended,
}

/// Where in its queue a task stands: the most urgent first, then the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueOrder {
    pub(crate) urgency: std::cmp::Reverse<u8>,
    pub(crate) number: u64,
}

/// How an attempt ended. There should be one for a task; a report after the end makes two.
#[derive(Debug, Clone)]
pub(crate) struct Final {
    pub(crate) retry_count: i32,
    pub(crate) end: End,
    /// When it was recorded.
    pub(crate) at: At,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Completed(Arc<str>),
    Failed(Arc<str>),
    TimedOut(Arc<str>),
    Cancelled,
    /// Cancelled to gRPC, failed to REST.
    ScheduleTimedOut,
    /// Completed without having run.
    Skipped,
}

impl End {
    /// What the end of a run is called to those who watch.
    pub(super) fn kind(&self) -> EventKind {
        match self {
            Self::Completed(_) | Self::Skipped => EventKind::Completed,
            Self::Cancelled => EventKind::Cancelled,
            Self::Failed(_) | Self::TimedOut(_) | Self::ScheduleTimedOut => EventKind::Failed,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct TaskEvent {
    pub(crate) number: i64,
    pub(crate) kind: TaskEventKind,
    pub(crate) retry_count: i32,
    pub(crate) at: At,
    pub(crate) worker: Option<Uuid>,
    /// An error's text for a failure, a message for the others.
    pub(crate) text: Option<Box<str>>,
}

macro_rules! task_event_kinds {
    ($($kind:ident = $name:literal),* $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum TaskEventKind { $($kind),* }

        impl TaskEventKind {
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }
        }
    };
}

task_event_kinds! {
    Queued = "QUEUED",
    NoWorker = "REQUEUED_NO_WORKER",
    Assigned = "ASSIGNED",
    Sent = "SENT_TO_WORKER",
    Started = "STARTED",
    Finished = "FINISHED",
    Failed = "FAILED",
    Retrying = "RETRYING",
    Cancelled = "CANCELLED",
    TimedOut = "TIMED_OUT",
    TimeoutRefreshed = "TIMEOUT_REFRESHED",
    ScheduleTimedOut = "SCHEDULING_TIMED_OUT",
    Reassigned = "REASSIGNED",
    Skipped = "SKIPPED",
    Replayed = "RETRIED_BY_USER",
}

#[derive(Debug, Clone)]
pub(crate) struct LogLine {
    pub(crate) at: At,
    pub(crate) level: &'static str,
    pub(crate) message: Box<str>,
    /// JSON text.
    pub(crate) metadata: Box<str>,
    pub(crate) retry_count: i32,
}

impl Run {
    pub(crate) fn is_ended(&self) -> bool {
        self.tasks.iter().all(|task| task.state == State::Ended)
    }

    /// The number of one of its tasks, like a database id.
    pub(crate) fn number(&self, task: &Task) -> u64 {
        u64::from(task.step) << 32 | u64::from(self.ix.number())
    }

    /// The task that has started it, for a child.
    pub(crate) fn parent(&self) -> Option<&ParentLink> {
        self.child.as_ref().map(|child| &child.parent)
    }

    pub(crate) fn is_restarted(&self) -> bool {
        self.child.as_ref().is_some_and(|child| child.restarted.is_some())
    }

    /// The idempotency key that it was started with.
    pub(crate) fn key(&self) -> Option<&str> {
        self.special.as_ref()?.key.as_deref()
    }

    /// The same of a task: those that come first have their run's, the others have none.
    pub(crate) fn key_of(&self, task: &Task) -> Option<&str> {
        self.key().filter(|_| self.step(task).is_some_and(|step| step.parents.is_empty() && !step.on_failure))
    }

    /// Go's text of what a worker gets as the input.
    pub(crate) fn last_input(&self) -> &str {
        self.child.as_ref().and_then(|child| child.restarted.as_deref()).unwrap_or(&self.input)
    }

    pub(crate) fn step(&self, task: &Task) -> Option<&Step> {
        self.version.steps.get(usize::from(task.step))
    }

    /// What the end of the run is called to those who watch.
    pub(super) fn end_kind(&self) -> EventKind {
        let kinds = || self.tasks.iter().filter_map(super::shown_by_rest).map(|row| row.end.kind());
        let worst =
            [EventKind::Failed, EventKind::Cancelled].into_iter().find(|kind| kinds().any(|other| other == *kind));
        worst.unwrap_or(EventKind::Completed)
    }

    /// The tasks that exist by now.
    pub(crate) fn present(&self) -> impl DoubleEndedIterator<Item = &Task> {
        self.tasks.iter().filter(|task| task.state != State::Absent)
    }

    /// The same, the last created first.
    pub(crate) fn newest_first(&self) -> Vec<&Task> {
        let mut tasks: Vec<_> = self.present().collect();
        tasks.sort_by_key(|task| std::cmp::Reverse((self.created(task), task.step)));
        tasks
    }

    /// When a task was created. The one of a one-task run comes with its run.
    pub(crate) fn created(&self, task: &Task) -> At {
        let place = self.dag.as_ref().and_then(|dag| dag.places.get(usize::from(task.step)));
        place.and_then(|place| place.created).unwrap_or(self.created)
    }
}

impl Task {
    /// When the current attempt began, by the worker.
    pub(crate) fn started(&self) -> Option<At> {
        self.event(TaskEventKind::Started).map(|event| event.at)
    }

    /// Whether it seems to have been queued after it was assigned.
    pub(crate) fn was_stamped_late(&self) -> bool {
        let at = |kind| self.event(kind).map(|event| event.at);
        at(TaskEventKind::Assigned).is_some_and(|assigned| at(TaskEventKind::Queued) > Some(assigned))
    }

    /// The last worker that had it, in any attempt.
    pub(crate) fn last_worker(&self) -> Option<Uuid> {
        self.events.iter().rev().find_map(|event| event.worker)
    }

    /// When the first was heard of the current attempt, by the engine.
    pub(crate) fn first_heard(&self) -> Option<At> {
        let first = self.current_events().min_by_key(|event| event.number).map(|event| event.at)?;
        Some(self.event(TaskEventKind::Assigned).map_or(first, |assigned| first.min(assigned.at)))
    }

    /// When the current attempt ended, by whoever said so last.
    pub(crate) fn finished(&self) -> Option<At> {
        use TaskEventKind::{Cancelled, Failed, Finished, ScheduleTimedOut, Skipped, TimedOut};
        let ends = [Finished, Failed, TimedOut, ScheduleTimedOut, Cancelled, Skipped];
        let last = self.current_events().filter(|event| ends.contains(&event.kind)).map(|event| event.at).max();
        last.filter(|_| self.state == State::Ended)
    }

    /// The final rows that count, oldest first.
    pub(crate) fn current_finals(&self) -> impl DoubleEndedIterator<Item = &Final> {
        self.finals.iter().filter(|row| row.retry_count == self.retry_count)
    }

    /// The one that was recorded last, wherever it is found.
    pub(crate) fn last_final(&self) -> Option<&Final> {
        self.current_finals().max_by_key(|row| row.at)
    }

    fn current_events(&self) -> impl Iterator<Item = &TaskEvent> {
        self.events.iter().filter(|event| event.retry_count == self.retry_count)
    }

    pub(crate) fn event(&self, kind: TaskEventKind) -> Option<&TaskEvent> {
        self.events.iter().find(|event| event.kind == kind && event.retry_count == self.retry_count)
    }
}

/// All runs, in the order of their creation. Runs are shared with the code that renders them outside of the core's task. A shared
/// run is copied when it changes.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    all: Vec<Arc<Run>>,
    by_id: HashMap<Uuid, RunIx>,
    /// The tasks of DAGs.
    by_task: HashMap<Uuid, TaskKey>,
}

impl Runs {
    pub(crate) fn add(&mut self, mut run: Run) -> RunIx {
        run.ix = self.next();
        self.push(Arc::new(run))
    }

    fn next(&self) -> RunIx {
        RunIx(u32::try_from(self.all.len()).unwrap_or(u32::MAX))
    }

    fn push(&mut self, run: Arc<Run>) -> RunIx {
        let ix = self.next();
        self.by_id.insert(run.id, ix);
        if run.dag.is_some() {
            let keys = run.tasks.iter().map(|task| (task.id, TaskKey { run: ix, place: task.step }));
            self.by_task.extend(keys);
        }
        self.all.push(run);
        ix
    }

    /// The current state of some runs.
    pub(crate) fn shared(&self, runs: impl IntoIterator<Item = RunIx>) -> Self {
        let mut shared = Self::default();
        for run in runs.into_iter().filter_map(|ix| self.all.get(ix.0 as usize)) {
            shared.push(Arc::clone(run));
        }
        shared
    }

    pub(crate) fn get(&self, ix: RunIx) -> Option<&Run> {
        self.all.get(ix.0 as usize).map(|run| &**run)
    }

    /// One by its place in a snapshot.
    pub(crate) fn at(&self, place: usize) -> Option<&Run> {
        self.all.get(place).map(|run| &**run)
    }

    /// The runs that were created before one, newest first.
    pub(crate) fn before(&self, ix: RunIx) -> impl Iterator<Item = &Run> {
        (0..ix.0).rev().map_while(|earlier| self.get(RunIx(earlier)))
    }

    pub(crate) fn find(&self, id: Uuid) -> Option<&Run> {
        self.get(self.index(id)?)
    }

    pub(crate) fn index(&self, id: Uuid) -> Option<RunIx> {
        self.by_id.get(&id).copied()
    }

    /// A task by its own id, if it exists by now. The task of a one-task run has the id of its run.
    pub(crate) fn task_key(&self, id: Uuid) -> Option<TaskKey> {
        if let Some(key) = self.by_task.get(&id) {
            return Some(*key).filter(|key| self.task(*key).is_some_and(|(_, task)| task.state != State::Absent));
        }
        let run = self.index(id)?;
        Some(TaskKey { run, place: 0 }).filter(|_| self.get(run).is_some_and(|run| run.dag.is_none()))
    }

    pub(crate) fn run_mut(&mut self, ix: RunIx) -> Option<&mut Run> {
        self.all.get_mut(ix.0 as usize).map(Arc::make_mut)
    }

    pub(crate) fn place_mut(&mut self, key: TaskKey) -> Option<&mut Place> {
        self.dag_mut(key.run)?.places.get_mut(usize::from(key.place))
    }

    pub(crate) fn dag_mut(&mut self, ix: RunIx) -> Option<&mut Dag> {
        self.run_mut(ix)?.dag.as_deref_mut()
    }

    pub(crate) fn task(&self, key: TaskKey) -> Option<(&Run, &Task)> {
        let run = self.get(key.run)?;
        Some((run, run.tasks.get(usize::from(key.place))?))
    }

    pub(crate) fn task_mut(&mut self, key: TaskKey) -> Option<&mut Task> {
        self.run_mut(key.run)?.tasks.get_mut(usize::from(key.place))
    }

    /// All of them, oldest first.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.all.iter().map(|run| &**run)
    }

    /// Those created at or before a moment, newest first.
    pub(crate) fn newest_first(&self, until: Option<At>) -> impl Iterator<Item = &Run> {
        let end = until.map_or(self.all.len(), |until| self.all.partition_point(|run| run.created <= until));
        self.all.get(..end).unwrap_or_default().iter().rev().map(|run| &**run)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}
