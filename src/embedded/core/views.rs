//! What the two surfaces show of a run. They derive it from the same rows by different rules.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::Value;
use uuid::Uuid;

use super::dag::{SKIPPED, outputs_text};
use super::definitions::Workflow;
use super::json::{go_text, jsonb_text};
use super::store::{End, Final, Run, State, Task, TaskEvent, TaskEventKind, Version};
use super::types::At;
use super::{Core, Quirk};

/// How long gRPC shows the first of two final rows, before it changes its mind.
const STEADY: Duration = Duration::from_secs(300);

/// How long REST takes for each of many that were started by one call.
const EACH: Duration = Duration::from_millis(1);

/// How much later than others REST gets the history of an attempt that follows another.
const LATER: Duration = Duration::from_secs(1);

/// A task as gRPC shows it.
#[derive(Debug)]
pub(crate) struct TaskView<'a> {
    pub(crate) status: RestStatus,
    pub(crate) error: Option<&'a str>,
    pub(crate) output: Option<&'a str>,
}

impl TaskView<'_> {
    const QUEUED: Self = Self { status: RestStatus::Queued, error: None, output: None };
}

/// The states that both surfaces have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestStatus {
    Queued,
    Running,
    Completed,
    Failed,
    Cancelled,
}

impl RestStatus {
    pub(crate) const ALL: [Self; 5] = [Self::Cancelled, Self::Completed, Self::Failed, Self::Queued, Self::Running];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Running => "RUNNING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

/// How many calls can start runs at once, without one of them waiting.
const TRIGGER_SLOTS: usize = 5;
/// Calls within this time are at once.
const AT_ONCE: TimeDelta = TimeDelta::milliseconds(5);
/// How long a run waits that was not started at once.
const TRIGGER_QUEUE: TimeDelta = TimeDelta::milliseconds(150);

/// A workflow as REST lists it.
#[derive(Debug)]
pub(crate) struct WorkflowView<'a> {
    pub(crate) name: &'a str,
    pub(crate) workflow: &'a Workflow,
}

impl Core {
    pub(crate) fn workflows(&self) -> impl Iterator<Item = WorkflowView<'_>> {
        self.definitions.newest_first().map(|(name, workflow)| WorkflowView { name, workflow })
    }

    /// The latest version of a workflow.
    pub(crate) fn latest(&self, name: &str) -> Option<&Version> {
        self.definitions.find(name).map(|workflow| &*workflow.latest)
    }

    pub(crate) fn find_run(&self, id: Uuid) -> Option<&Run> {
        self.runs.find(id)
    }

    /// Whether a run is to be created later than its trigger was answered.
    pub(crate) fn is_queued_trigger(&self, run: &Run, now: At) -> bool {
        let at_once = |other: &&Run| run.created.signed_duration_since(other.created) < AT_ONCE;
        let is_call = |other: &&Run| other.place == 0;
        self.has(Quirk::QueuedTriggers)
            && now.signed_duration_since(run.created) < TRIGGER_QUEUE
            && self.runs.before(run.ix).take_while(at_once).filter(is_call).nth(TRIGGER_SLOTS).is_some()
    }

    /// A task by its own id, if there is one by now.
    pub(crate) fn find_task(&self, id: Uuid) -> Option<(&Run, &Task)> {
        self.runs.task(self.runs.task_key(id)?)
    }

    /// A task that REST knows by now.
    pub(crate) fn rest_task(&self, id: Uuid, now: At) -> Option<(&Run, &Task)> {
        self.find_task(id).filter(|(run, _)| self.is_visible(run, now))
    }

    /// A run that REST knows by now.
    pub(crate) fn rest_run(&self, id: Uuid, now: At) -> Option<&Run> {
        self.find_run(id).filter(|run| self.is_visible(run, now))
    }

    pub(crate) fn is_visible(&self, run: &Run, now: At) -> bool {
        !self.has(Quirk::RestLag) || now >= run.created + super::streams::LAG + EACH * u32::from(run.place)
    }
}

/// How long REST takes to show that something has happened.
fn lag(kind: TaskEventKind) -> Duration {
    Duration::from_millis(match kind {
        TaskEventKind::Started => 100,
        TaskEventKind::Finished | TaskEventKind::Failed | TaskEventKind::TimedOut | TaskEventKind::Cancelled => 30,
        _ => 60,
    })
}

impl Core {
    /// What REST knows by now of what happened to a task.
    pub(crate) fn rest_events<'a>(&self, task: &'a Task, now: At) -> impl Iterator<Item = &'a TaskEvent> {
        let (scattered, slow) = (self.has(Quirk::ScatteredRows), self.has(Quirk::SlowHistory));
        task.events.iter().filter(move |event| {
            let later = if slow && event.retry_count > 0 { LATER } else { Duration::ZERO };
            !scattered || now >= event.at + lag(event.kind) + later
        })
    }

    /// A task's state by REST, as its run shows it.
    pub(crate) fn rest_status(&self, task: &Task, now: At) -> RestStatus {
        if self.rest_attempt(task, now).is_some() { RestStatus::Failed } else { task.rest_status() }
    }

    /// The retry count of the attempt that REST takes for the last one, if that failed and there has been another since.
    pub(crate) fn rest_attempt(&self, task: &Task, now: At) -> Option<i32> {
        if !self.has(Quirk::ScatteredRows) || task.retry_count == 0 {
            return None;
        }
        let known = || self.rest_events(task, now);
        let newest = known().map(|event| event.retry_count).max().filter(|newest| *newest < task.retry_count)?;
        known().any(|event| event.kind == TaskEventKind::Failed && event.retry_count == newest).then_some(newest)
    }

    /// A run's state by REST.
    pub(crate) fn rest_run_status(&self, run: &Run, now: At) -> RestStatus {
        match run.tasks.first() {
            Some(task) if run.dag.is_none() => self.rest_status(task, now),
            _ if self.has(Quirk::ScatteredRows) && run.has_just_failed(now) => RestStatus::Failed,
            _ => run.rest_status(),
        }
    }
}

impl Task {
    /// A task by gRPC.
    pub(crate) fn grpc_view(&self, now: At) -> TaskView<'_> {
        match self.state {
            State::Absent | State::Queued { .. } | State::Backoff => TaskView::QUEUED,
            State::Running { .. } => TaskView { status: RestStatus::Running, error: None, output: None },
            State::Ended => match shown_by_grpc(self, now).map(|row| &row.end) {
                Some(End::Completed(output)) => {
                    TaskView { status: RestStatus::Completed, error: Some(""), output: Some(output) }
                }
                Some(End::Skipped) => {
                    TaskView { status: RestStatus::Completed, error: Some(""), output: Some(SKIPPED) }
                }
                Some(End::Failed(text) | End::TimedOut(text)) => {
                    TaskView { status: RestStatus::Failed, error: Some(text), output: None }
                }
                Some(End::Cancelled | End::ScheduleTimedOut) | None => {
                    TaskView { status: RestStatus::Cancelled, error: Some(""), output: None }
                }
            },
        }
    }

    /// Whether REST can say whose it was. If it ended as soon as it was assigned, REST may hear of the end first, and then the end
    /// must name the worker.
    pub(crate) fn kept_its_worker(&self) -> bool {
        let Some(begin) = self.events.iter().rfind(|event| event.is_assignment()) else { return true };
        let end = self.events.iter().find(|event| {
            event.retry_count == begin.retry_count
                && matches!(event.kind, TaskEventKind::Finished | TaskEventKind::Failed)
        });
        end.is_none_or(|end| end.worker.is_some() || end.at > begin.at + lag(begin.kind))
    }

    /// A task by REST, once that has caught up.
    pub(crate) fn rest_status(&self) -> RestStatus {
        match self.state {
            State::Absent | State::Queued { .. } | State::Backoff => RestStatus::Queued,
            State::Running { .. } => RestStatus::Running,
            State::Ended => shown_by_rest(self).map_or(RestStatus::Cancelled, |row| row.end.rest_status()),
        }
    }
}

impl End {
    pub(crate) fn rest_status(&self) -> RestStatus {
        match self {
            Self::Completed(_) | Self::Skipped => RestStatus::Completed,
            Self::Failed(_) | Self::TimedOut(_) | Self::ScheduleTimedOut => RestStatus::Failed,
            Self::Cancelled => RestStatus::Cancelled,
        }
    }
}

/// Whether minutes have passed since a task last ended: then another of its final rows comes up.
pub(super) fn is_old(task: &Task, now: At) -> bool {
    task.last_final().is_some_and(|last| now >= last.at + STEADY)
}

fn shown_by_grpc(task: &Task, now: At) -> Option<&Final> {
    let mut rows = task.current_finals();
    let first = rows.next()?;
    match rows.next_back() {
        // A failure reported after a cancel is believed at once.
        Some(last)
            if is_old(task, now)
                || matches!(
                    (&first.end, &last.end),
                    (End::Cancelled, End::Failed(_)) | (End::Failed(_), End::Completed(_))
                ) =>
        {
            Some(last)
        }
        _ => Some(first),
    }
}

/// Not the last counts but the best: a completed row is shown whatever came before or after it.
pub(crate) fn shown_by_rest(task: &Task) -> Option<&Final> {
    // Of several completed ones there is the first.
    task.current_finals().rev().max_by_key(|row| match row.end {
        End::Completed(_) | End::Skipped => 2,
        End::Failed(_) | End::TimedOut(_) | End::ScheduleTimedOut => 1,
        End::Cancelled => 0,
    })
}

impl Run {
    /// Its tasks by gRPC: what has ended is not told before all has.
    pub(crate) fn grpc_views(&self, now: At) -> Vec<(&Task, TaskView<'_>)> {
        let over = self.is_ended();
        self.present()
            .map(|task| (task, if over || task.state != State::Ended { task.grpc_view(now) } else { TaskView::QUEUED }))
            .collect()
    }

    /// A run by REST, once that has caught up: a DAG runs from its first assignment until all of its tasks have ended.
    pub(crate) fn rest_status(&self) -> RestStatus {
        if self.dag.is_none() {
            return self.tasks.first().map_or(RestStatus::Completed, Task::rest_status);
        }
        if !self.is_ended() {
            let fresh = |task: &Task| {
                matches!(task.state, State::Queued { .. }) && !task.events.iter().any(TaskEvent::is_assignment)
            };
            return if self.present().all(fresh) { RestStatus::Queued } else { RestStatus::Running };
        }
        let statuses = || self.present().map(Task::rest_status);
        let worst = [RestStatus::Failed, RestStatus::Cancelled];
        worst.into_iter().find(|status| statuses().any(|other| other == *status)).unwrap_or(RestStatus::Completed)
    }

    /// Whether all but its on-failure task has ended, one in failure and only a moment ago.
    fn has_just_failed(&self, now: At) -> bool {
        let is_new =
            |event: &TaskEvent| event.kind == TaskEventKind::Failed && now < event.at + lag(TaskEventKind::Queued);
        let is_on_failure = |task: &Task| self.step(task).is_some_and(|step| step.on_failure);
        !self.is_ended()
            && self.present().all(|task| task.state == State::Ended || is_on_failure(task))
            && self.present().any(|task| task.has_failed() && task.events.iter().any(is_new))
    }

    /// The payload of the filter that let its event through.
    fn filter_payload(&self) -> Value {
        self.special.as_ref().and_then(|special| special.filter_payload.clone()).unwrap_or_default()
    }
}

impl TaskEvent {
    fn is_assignment(&self) -> bool {
        self.kind == TaskEventKind::Assigned
    }
}

/// What a worker gets with a task. The first attempt's text is Go's, later ones' and those of on-failure tasks are the
/// database's, and so are all of what was started from there.
pub(super) fn payload(run: &Run, task: &Task) -> String {
    let on_failure = run.step(task).is_some_and(|step| step.on_failure);
    let parents = if run.dag.is_some() { outputs_text(&run.outputs(None)) } else { "{}".into() };
    let mut triggers = run.wait_data(task);
    triggers.insert("filter_payload".into(), run.filter_payload());
    let triggers = go_text(&serde_json::Value::Object(triggers));
    let errors = if on_failure {
        format!(r#","step_run_errors":{}"#, serde_json::to_string(&run.errors()).unwrap_or_default())
    } else {
        String::new()
    };
    let text = format!(
        r#"{{"input":{},"triggered_by":"manual","parents":{parents},"triggers":{triggers},"user_data":null,"overrides":null{errors}}}"#,
        run.last_input()
    );
    let from_database = run.special.as_ref().is_some_and(|special| special.from_database);
    match serde_json::from_str(&text) {
        Ok(value) if on_failure || task.retry_count > 0 || from_database => jsonb_text(&value),
        _ => text,
    }
}

/// The same as it was stored when the task was made: of the parents there are only the direct ones.
pub(crate) fn stored_payload(run: &Run, task: &Task) -> serde_json::Value {
    let step = run.step(task);
    let parents = if run.dag.is_some() { run.outputs(step) } else { BTreeMap::new() };
    let input: serde_json::Value = serde_json::from_str(run.last_input()).unwrap_or_default();
    let mut triggers = run.wait_data(task);
    triggers.insert("filter_payload".into(), run.filter_payload());
    let mut payload = serde_json::json!({
        "input": input, "overrides": null, "parents": parents, "triggered_by": "manual",
        "triggers": triggers, "user_data": null,
    });
    if let (Some(payload), true) = (payload.as_object_mut(), step.is_some_and(|step| step.on_failure)) {
        payload.insert("step_run_errors".into(), serde_json::json!(run.errors()));
    }
    payload
}
