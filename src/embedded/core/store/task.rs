//! Tasks as they are stored. They are small, because the engine holds hundreds of thousands of them.

use std::sync::Arc;

use uuid::Uuid;

use super::effects::EventKind;
use super::timers::TimerKey;
use super::turn::At;

/// The output of a skipped task.
pub(crate) const SKIPPED: &str = r#"{"skipped":true}"#;
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) id: Uuid,
    pub(crate) step: u16,
    pub(crate) retry_count: i32,
    /// The number of retries after failures of the task.
    pub(crate) app_retries: i32,
    /// The number of retries after failures to send the task to a worker.
    pub(crate) lost_sends: u8,
    pub(crate) state: State,
    pub(crate) finals: Vec<Final>,
    pub(crate) events: Vec<TaskEvent>,
    pub(crate) logs: Vec<LogLine>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    /// Not created yet, because the parents of this task of a DAG have not ended. No API view shows it.
    Absent,
    /// Waits for a slot under one of its concurrency limits, by the limit's position.
    Limited {
        limit: u16,
        urgency: u8,
        /// The end of its schedule timeout, which may have no timer.
        until: At,
        timer: Option<TimerKey>,
    },
    Queued {
        timer: Option<TimerKey>,
        order: QueueOrder,
    },
    /// Waits for other tasks, to be assigned with them as a batch. The timer is its schedule timeout.
    Batched {
        timer: Option<TimerKey>,
    },
    /// Waits for the end of a pause of its workflow. The timer cancels it.
    Paused {
        urgency: u8,
        timer: TimerKey,
    },
    /// Between two attempts. The timer queues it again.
    Backoff {
        timer: TimerKey,
    },
    Running {
        worker: Uuid,
        timer: TimerKey,
    },
    Ended,
}

/// The position of a task in its queue: the most urgent first, then the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueOrder {
    pub(crate) urgency: std::cmp::Reverse<u8>,
    pub(crate) number: u64,
}

/// How an attempt ended. A task should have one; a report after the end adds a second.
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
    /// The gRPC view shows it as cancelled, the REST view as failed.
    ScheduleTimedOut,
    /// Completed without being run.
    Skipped,
}

impl End {
    /// The kind of the event that announces the end.
    pub(crate) fn kind(&self) -> EventKind {
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
    /// The error of a failure, and a message for other kinds.
    pub(crate) message: Option<Box<str>>,
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
    RateLimited = "REQUEUED_RATE_LIMIT",
    WaitingForBatch = "WAITING_FOR_BATCH",
    Assigned = "ASSIGNED",
    BatchFlushed = "BATCH_FLUSHED",
    Sent = "SENT_TO_WORKER",
    Started = "STARTED",
    Finished = "FINISHED",
    Failed = "FAILED",
    Retrying = "RETRYING",
    Cancelled = "CANCELLED",
    TimedOut = "TIMED_OUT",
    TimeoutRefreshed = "TIMEOUT_REFRESHED",
    SlotReleased = "SLOT_RELEASED",
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

impl Task {
    /// When the current attempt started, as reported by the worker.
    pub(crate) fn started(&self) -> Option<At> {
        self.event(TaskEventKind::Started).map(|event| event.at)
    }

    /// The last worker that had it, in any attempt.
    pub(crate) fn last_worker(&self) -> Option<Uuid> {
        self.events.iter().rev().find_map(|event| event.worker)
    }

    /// The time of the first event of the current attempt.
    pub(crate) fn first_event_at(&self) -> Option<At> {
        let first = self.current_events().min_by_key(|event| event.number).map(|event| event.at)?;
        Some(self.assignment().map_or(first, |assigned| first.min(assigned.at)))
    }

    /// When the current attempt ended, by its last event that reports an end.
    pub(crate) fn finished(&self) -> Option<At> {
        use TaskEventKind::{Cancelled, Failed, Finished, ScheduleTimedOut, Skipped, TimedOut};
        let ends = [Finished, Failed, TimedOut, ScheduleTimedOut, Cancelled, Skipped];
        let last = self.current_events().filter(|event| ends.contains(&event.kind)).map(|event| event.at).max();
        last.filter(|_| self.state == State::Ended)
    }

    /// The final rows of the current attempt, oldest first.
    pub(crate) fn current_finals(&self) -> impl DoubleEndedIterator<Item = &Final> {
        self.finals.iter().filter(|row| row.retry_count == self.retry_count)
    }

    /// The final row that was recorded last, whatever its position.
    pub(crate) fn last_final(&self) -> Option<&Final> {
        self.current_finals().max_by_key(|row| row.at)
    }

    fn current_events(&self) -> impl Iterator<Item = &TaskEvent> {
        self.events.iter().filter(|event| event.retry_count == self.retry_count)
    }

    pub(crate) fn event(&self, kind: TaskEventKind) -> Option<&TaskEvent> {
        self.events.iter().find(|event| event.kind == kind && event.retry_count == self.retry_count)
    }

    /// The assignment of the current attempt, by itself or in a batch.
    pub(crate) fn assignment(&self) -> Option<&TaskEvent> {
        self.event(TaskEventKind::Assigned).or_else(|| self.event(TaskEventKind::BatchFlushed))
    }

    pub(crate) fn ends(&self) -> impl Iterator<Item = &End> {
        self.current_finals().map(|row| &row.end)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.ends().any(|end| matches!(end, End::Failed(_) | End::TimedOut(_)))
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.ends().any(|end| matches!(end, End::Cancelled | End::ScheduleTimedOut))
    }

    /// The output text, if it has completed.
    pub(crate) fn output(&self) -> Option<&str> {
        self.ends().find_map(|end| match end {
            End::Completed(output) => Some(&**output),
            End::Skipped => Some(SKIPPED),
            _ => None,
        })
    }

    /// Whether it has never been replayed or retried.
    pub(crate) fn is_first(&self) -> bool {
        self.retry_count == 0
    }
}
