//! Runs and tasks as they are kept. Small on purpose: this is what the engine has a hundred thousand of.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::rules::{Rules, Special};
use super::timers::TimerKey;
use super::types::{At, EventKind, TaskDefinition};

/// Names a run by the order of its creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RunIx(u32);

impl RunIx {
    /// A number as a database would give it.
    pub(crate) fn number(self) -> u32 {
        self.0.saturating_add(1)
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

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) id: Uuid,
    pub(crate) readable_id: Arc<str>,
    pub(crate) action: Arc<str>,
    pub(crate) definition: TaskDefinition,
}

#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: Uuid,
    pub(crate) version: Arc<Version>,
    pub(crate) created: At,
    /// Go's text of an object, or `null`.
    pub(crate) input: Box<str>,
    /// The database's text of an object.
    pub(crate) metadata: Box<str>,
    pub(crate) priority: u8,
    pub(crate) special: Option<Box<Special>>,
    pub(crate) tasks: Box<[Task]>,
}

#[derive(Debug)]
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

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    Queued { timer: Option<TimerKey>, order: QueueOrder },
    Backoff,
    Running { worker: Uuid, timer: TimerKey },
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
}

impl End {
    /// What the end of a run is called to those who watch.
    pub(super) fn kind(&self) -> EventKind {
        match self {
            Self::Completed(_) => EventKind::Completed,
            Self::Cancelled => EventKind::Cancelled,
            Self::Failed(_) | Self::TimedOut(_) | Self::ScheduleTimedOut => EventKind::Failed,
        }
    }
}

#[derive(Debug)]
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
    ScheduleTimedOut = "SCHEDULING_TIMED_OUT",
    Reassigned = "REASSIGNED",
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

    pub(crate) fn step(&self, task: &Task) -> Option<&Step> {
        self.version.steps.get(usize::from(task.step))
    }
}

impl Task {
    /// When the current attempt began, by the worker.
    pub(crate) fn started(&self) -> Option<At> {
        self.event(TaskEventKind::Started).map(|event| event.at)
    }

    /// When the first was heard of the current attempt, by the engine.
    pub(crate) fn first_heard(&self) -> Option<At> {
        self.current_events().min_by_key(|event| event.number).map(|event| event.at)
    }

    /// When the current attempt ended, by whoever said so last.
    pub(crate) fn finished(&self) -> Option<At> {
        use TaskEventKind::{Cancelled, Failed, Finished, ScheduleTimedOut, TimedOut};
        let ends = [Finished, Failed, TimedOut, ScheduleTimedOut, Cancelled];
        let last = self.current_events().filter(|event| ends.contains(&event.kind)).map(|event| event.at).max();
        last.filter(|_| self.state == State::Ended)
    }

    /// The final rows that count, oldest first.
    pub(crate) fn current_finals(&self) -> impl DoubleEndedIterator<Item = &Final> {
        self.finals.iter().filter(|row| row.retry_count == self.retry_count)
    }

    fn current_events(&self) -> impl Iterator<Item = &TaskEvent> {
        self.events.iter().filter(|event| event.retry_count == self.retry_count)
    }

    pub(crate) fn event(&self, kind: TaskEventKind) -> Option<&TaskEvent> {
        self.events.iter().find(|event| event.kind == kind && event.retry_count == self.retry_count)
    }
}

/// All runs, in the order of their creation.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    all: Vec<Run>,
    by_id: HashMap<Uuid, RunIx>,
}

impl Runs {
    pub(crate) fn add(&mut self, run: Run) -> RunIx {
        let ix = RunIx(u32::try_from(self.all.len()).unwrap_or(u32::MAX));
        self.by_id.insert(run.id, ix);
        self.all.push(run);
        ix
    }

    pub(crate) fn get(&self, ix: RunIx) -> Option<&Run> {
        self.all.get(ix.0 as usize)
    }

    pub(crate) fn get_mut(&mut self, ix: RunIx) -> Option<&mut Run> {
        self.all.get_mut(ix.0 as usize)
    }

    pub(crate) fn find(&self, id: Uuid) -> Option<&Run> {
        self.get(self.index(id)?)
    }

    pub(crate) fn index(&self, id: Uuid) -> Option<RunIx> {
        self.by_id.get(&id).copied()
    }

    /// A task by its own id. The task of a one-task run has the id of its run.
    pub(crate) fn task_key(&self, id: Uuid) -> Option<TaskKey> {
        Some(TaskKey { run: self.index(id)?, place: 0 })
    }

    pub(crate) fn task(&self, key: TaskKey) -> Option<(&Run, &Task)> {
        let run = self.get(key.run)?;
        Some((run, run.tasks.get(usize::from(key.place))?))
    }

    pub(crate) fn task_mut(&mut self, key: TaskKey) -> Option<&mut Task> {
        self.all.get_mut(key.run.0 as usize)?.tasks.get_mut(usize::from(key.place))
    }

    /// Those created at or before a moment, newest first.
    pub(crate) fn newest_first(&self, until: Option<At>) -> impl Iterator<Item = &Run> {
        let end = until.map_or(self.all.len(), |until| self.all.partition_point(|run| run.created <= until));
        self.all.get(..end).unwrap_or_default().iter().rev()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}
