//! Lookups by id, and lists.

use std::sync::Arc;

use uuid::Uuid;

use crate::embedded::core::store::{
    At, Core, Cron, EventFilter, LogLine, Run, Schedule, Task, Version, Worker, Workflow,
};
use crate::embedded::core::streams::events::NEW_RUN_LAG;
use crate::embedded::quirks::Quirk;
use chrono::TimeDelta;

/// How many calls can start runs at the same time without one of them being queued.
const TRIGGER_SLOTS: usize = 5;
/// Calls within this time are at the same time.
const SAME_TIME: TimeDelta = TimeDelta::milliseconds(5);
/// How long a run is not found after its trigger was queued.
const TRIGGER_QUEUE_LAG: TimeDelta = TimeDelta::milliseconds(150);
/// How much later REST finds each further run of one call.
const RUN_LAG_STEP: TimeDelta = TimeDelta::milliseconds(1);

/// A workflow as REST lists it.
#[derive(Debug)]
pub(crate) struct WorkflowView<'a> {
    pub(crate) name: &'a str,
    pub(crate) workflow: &'a Workflow,
}

/// Workflows and what starts their runs.
impl Core {
    pub(crate) fn workflows(&self) -> impl Iterator<Item = WorkflowView<'_>> {
        self.workflows.newest_first().map(|(name, workflow)| WorkflowView { name, workflow })
    }

    pub(crate) fn find_workflow(&self, id: Uuid) -> Option<WorkflowView<'_>> {
        self.workflows().find(|view| view.workflow.id == id)
    }

    /// The latest version of a workflow.
    pub(crate) fn latest(&self, name: &str) -> Option<&Version> {
        self.workflows.find(name).map(|workflow| &*workflow.latest)
    }

    pub(crate) fn find_schedule(&self, id: Uuid) -> Option<&Arc<Schedule>> {
        self.schedules.find(id)
    }

    /// All schedules that have not started their runs, in the order of their creation.
    pub(crate) fn all_schedules(&self) -> Vec<&Arc<Schedule>> {
        self.schedules.oldest_first()
    }

    pub(crate) fn find_cron(&self, id: Uuid) -> Option<&Cron> {
        self.crons.get(id).filter(|cron| !cron.dropped)
    }

    /// All crons, in the order of their creation.
    pub(crate) fn all_crons(&self) -> Vec<&Cron> {
        self.crons.oldest_first()
    }

    pub(crate) fn find_filter(&self, id: Uuid) -> Option<&EventFilter> {
        self.event_filters.find(id)
    }

    /// All filters, in the order of a list: by their ids.
    pub(crate) fn all_filters(&self) -> Vec<&EventFilter> {
        let mut all: Vec<_> = self.event_filters.iter().collect();
        all.sort_by_key(|filter| std::cmp::Reverse(filter.id));
        all
    }
}

/// Workers.
impl Core {
    pub(crate) fn worker(&self, worker: Uuid) -> Option<&Worker> {
        self.workers.get(&worker)
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = (Uuid, &Worker)> {
        self.workers.iter().map(|(id, worker)| (*id, worker))
    }

    /// The ids and names of the workflows that have a task which the worker can run.
    pub(crate) fn workflows_of(&self, worker: &Worker) -> impl Iterator<Item = (Uuid, &str)> {
        let has_task = |view: &WorkflowView<'_>| {
            view.workflow.latest.steps.iter().any(|step| worker.profile.actions.contains(&*step.action))
        };
        self.workflows().filter(has_task).map(|view| (view.workflow.id, view.name))
    }
}

/// Runs and tasks.
impl Core {
    pub(crate) fn find_run(&self, id: Uuid) -> Option<&Run> {
        self.runs.find(id)
    }

    /// A task by its own id, if it has been created.
    pub(crate) fn find_task(&self, id: Uuid) -> Option<(&Run, &Task)> {
        self.runs.task(self.runs.task_key(id)?)
    }

    /// The children of a task, in the order of their starts.
    pub(crate) fn children(&self, task: Uuid) -> impl Iterator<Item = &Run> {
        self.families.of(task).filter_map(|run| self.runs.get(run))
    }

    /// The log of a task, or `None` for a task that does not exist.
    pub(crate) fn logs(&self, task: Uuid) -> Option<&[LogLine]> {
        self.find_task(task).map(|(_, task)| &*task.logs)
    }

    /// Whether the trigger of a run was answered before the run is created.
    pub(crate) fn is_queued_trigger(&self, run: &Run, now: At) -> bool {
        let same_time = |other: &&Run| run.created.signed_duration_since(other.created) < SAME_TIME;
        let is_call = |other: &&Run| other.call_index == 0;
        self.has(Quirk::QueuedTriggers)
            && now.signed_duration_since(run.created) < TRIGGER_QUEUE_LAG
            && self.runs.before(run.ix).take_while(same_time).filter(is_call).nth(TRIGGER_SLOTS).is_some()
    }

    /// Whether REST finds a run.
    pub(crate) fn is_visible(&self, run: &Run, now: At) -> bool {
        !self.has(Quirk::RestLag) || now >= run.created + NEW_RUN_LAG + RUN_LAG_STEP * i32::from(run.call_index)
    }

    /// A run, if REST finds it.
    pub(crate) fn rest_run(&self, id: Uuid, now: At) -> Option<&Run> {
        self.find_run(id).filter(|run| self.is_visible(run, now))
    }

    /// A task, if REST finds its run.
    pub(crate) fn rest_task(&self, id: Uuid, now: At) -> Option<(&Run, &Task)> {
        self.find_task(id).filter(|(run, _)| self.is_visible(run, now))
    }
}
