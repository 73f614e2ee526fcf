//! The data of the engine: types, tables and indexes, timers. A table keeps its indexes consistent; it decides nothing else.

mod concurrency;
mod conditions;
mod crons;
mod definition;
mod effects;
mod events;
mod families;
mod filters;
mod ids;
mod keys;
mod labels;
mod options;
mod outputs;
mod pauses;
mod queues;
mod rate_limits;
mod requests;
mod run;
mod runs;
mod schedules;
mod slots;
mod state;
mod status_error;
mod streams;
mod task;
mod timers;
mod turn;
mod versions;
mod workers;

pub(crate) use concurrency::{Concurrency, LimitStrategy};
pub(crate) use conditions::{Condition, ConditionAction, On};
pub(crate) use crons::{Cron, CronSpec};
pub(crate) use definition::{Definition, TaskDefinition};
pub(crate) use effects::{Action, Effect, EventKind, Message, Resource, RunEvent, RunResult, TaskResult};
pub(crate) use events::{Event, PushedEvent};
pub(crate) use filters::EventFilter;
pub(crate) use ids::{RunIx, StreamId, TaskKey};
pub(crate) use keys::Holder;
pub(crate) use labels::{Comparator, DesiredLabel, Label};
pub(crate) use options::{Filter, Idempotency, Sticky, WorkflowOptions};
pub(crate) use pauses::{Pause, PausedRuns};
pub(crate) use rate_limits::{Cel, RateLimit, TaskLimit, Units, Window};
pub(crate) use requests::{
    EventRef, ParentLink, RESERVED_METADATA, Registration, Report, ReportKind, RunOptions, Runtime, Trigger,
};
pub(crate) use run::{Child, Dag, Run, Wait, Waits};
pub(crate) use schedules::{Schedule, ScheduledRun};
pub(crate) use slots::{Group, GroupId, Rank, Scope, SlotOwner};
pub(crate) use state::Core;
pub(crate) use status_error::{Code, Collision, Collisions, StatusError};
pub(crate) use streams::{EventStream, ResultStream, Subject};
pub(crate) use task::{End, Final, LogLine, QueueOrder, SKIPPED, State, Task, TaskEvent, TaskEventKind};
pub(crate) use timers::{Replay, Timer, TimerKey};
pub(crate) use turn::{At, Turn, stored};
pub(crate) use versions::{Step, Version, Workflow};
pub(crate) use workers::{HeartbeatRefused, Profile, SlotRequests, Worker};
