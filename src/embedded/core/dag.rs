//! Runs of several tasks: what may follow what, and what becomes of a task when its parents have ended.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::json::go_text;
use super::store::{Dag, End, Place, Run, RunIx, State, Step, Task, TaskEventKind, TaskKey, Version, Waits};
use super::timers::Timer;
use super::types::{Definition, EventKind, Fault, Resource, RunEvent, Turn, stored};
use super::{Core, Quirk};

/// What a skipped task has put out.
pub(super) const SKIPPED: &str = r#"{"skipped":true}"#;
/// When the beginning of a DAG is announced as its end.
const EARLY: Duration = Duration::from_millis(80);

/// The maximum number of tasks of a workflow. The engine has no known limit; here each read of a run visits all of its tasks.
const MAX_TASKS: usize = 1000;

/// What becomes of a task that has waited for its parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Queue,
    Skip,
    Cancel,
}

/// Checks that the tasks of a definition can follow each other.
pub(super) fn check(definition: &Definition) -> Result<(), Fault> {
    let tasks = &definition.tasks;
    if tasks.len() > MAX_TASKS {
        return Err(Fault::unimplemented(&format!("workflows of more than {MAX_TASKS} tasks")));
    }
    let known: HashSet<_> = tasks.iter().map(|task| task.readable_id.as_str()).collect();
    for task in tasks {
        if let Some(parent) = task.parents.iter().find(|parent| !known.contains(parent.as_str())) {
            let text =
                format!("dag parent not found: parent step '{parent}' not found for step '{}'", task.readable_id);
            return Err(Fault::invalid(text));
        }
    }
    let is_twice = |names: &mut Vec<&str>| {
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        names.len() < count
    };
    let mut names: Vec<_> = tasks.iter().chain(&definition.on_failure).map(|task| task.readable_id.as_str()).collect();
    let same_parent =
        tasks.iter().any(|task| is_twice(&mut task.parents.iter().map(String::as_str).collect::<Vec<_>>()));
    let late_parents = definition.on_failure.as_ref().is_some_and(|task| !task.parents.is_empty());
    if tasks.is_empty() || is_twice(&mut names) || same_parent || late_parents || has_cycle(definition) {
        return Err(Fault::internal());
    }
    Ok(())
}

/// Takes away what has no parent left, until nothing is left or nothing can be taken away.
fn has_cycle(definition: &Definition) -> bool {
    let mut left: BTreeMap<_, _> =
        definition.tasks.iter().map(|task| (task.readable_id.as_str(), &task.parents)).collect();
    loop {
        let free = left.iter().find(|(_, parents)| !parents.iter().any(|parent| left.contains_key(parent.as_str())));
        match free.map(|(name, _)| *name) {
            Some(name) => left.remove(name),
            None => return !left.is_empty(),
        };
    }
}

impl Dag {
    pub(super) fn new(version: &Version) -> Self {
        let place = |_: &Step| Place { created: None, waits: Waits::Parents, wait: None };
        Self { places: version.steps.iter().map(place).collect() }
    }

    pub(super) fn waits(&self, place: u16) -> Waits {
        self.places.get(usize::from(place)).map_or(Waits::Nothing, |place| place.waits)
    }
}

impl Task {
    fn ends(&self) -> impl Iterator<Item = &End> {
        self.current_finals().map(|row| &row.end)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.ends().any(|end| matches!(end, End::Failed(_) | End::TimedOut(_)))
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.ends().any(|end| matches!(end, End::Cancelled | End::ScheduleTimedOut))
    }

    /// The text that it has put out, if it has completed.
    pub(super) fn output(&self) -> Option<&str> {
        self.ends().find_map(|end| match end {
            End::Completed(output) => Some(&**output),
            End::Skipped => Some(SKIPPED),
            _ => None,
        })
    }

    /// Whether it looks skipped to those that come after it: by its output, whoever wrote that.
    pub(super) fn is_skipped(&self) -> bool {
        let output = self.output().and_then(|text| serde_json::from_str::<Value>(text).ok());
        output.is_some_and(|output| output.get("skipped") == Some(&Value::Bool(true)))
    }
}

impl Run {
    /// A task that has ended, and is not about to begin anew.
    pub(super) fn ended(&self, place: u16) -> Option<&Task> {
        let is_over = self.dag.as_ref().is_none_or(|dag| dag.waits(place) == Waits::Nothing);
        self.tasks.get(usize::from(place)).filter(|task| is_over && task.state == State::Ended)
    }

    fn places(&self) -> impl Iterator<Item = (u16, &Step)> {
        (0..).zip(&self.version.steps)
    }

    /// What becomes of a task, if that can be said by now.
    fn fate(&self, place: u16, step: &Step, only_objects: bool) -> Option<Fate> {
        if step.on_failure {
            let others: Vec<_> =
                self.places().filter(|(other, _)| *other != place).map(|(other, _)| self.ended(other)).collect();
            if others.iter().flatten().any(|task| task.has_failed()) {
                return Some(Fate::Queue);
            }
            return others.iter().all(Option::is_some).then_some(Fate::Skip);
        }
        self.fate_by_parents(step, only_objects)
    }

    /// What satisfied the conditions of a task, by their names.
    pub(super) fn wait_data(&self, task: &Task) -> Map<String, Value> {
        let place = self.dag.as_ref().and_then(|dag| dag.places.get(usize::from(task.step)));
        place.and_then(|place| place.wait.as_ref()).map(|wait| wait.data.clone()).unwrap_or_default()
    }

    /// The tasks that have completed by now, with what they have put out: of all, or of the direct parents of a step.
    pub(super) fn outputs(&self, of: Option<&Step>) -> BTreeMap<&str, Value> {
        let wanted = |place: &u16| of.is_none_or(|step| step.on_failure || step.parents.contains(place));
        let outputs = self.places().filter(|(place, _)| wanted(place)).filter_map(|(place, step)| {
            let value = match self.ended(place)?.output()? {
                "" => Value::Object(serde_json::Map::new()),
                text => serde_json::from_str(text).ok()?,
            };
            Some((&*step.readable_id, value)).filter(|(_, value)| value.is_object())
        });
        outputs.collect()
    }

    /// The errors of the tasks that have failed.
    pub(super) fn errors(&self) -> BTreeMap<&str, &str> {
        let errors = self.places().filter_map(|(place, step)| {
            let error = self.ended(place)?.ends().find_map(|end| match end {
                End::Failed(text) | End::TimedOut(text) => Some(&**text),
                _ => None,
            });
            Some((&*step.readable_id, error?))
        });
        errors.collect()
    }
}

/// How long what follows in a DAG lies in its queue before anyone looks.
const LATE: Duration = Duration::from_millis(20);

/// The time between the creation and the end of a task that is skipped or cancelled when it is created. It differs by task.
fn end_delay(place: u16) -> Duration {
    Duration::from_millis(20) + Duration::from_micros(70) * u32::from(place)
}

/// The text of an object of outputs.
pub(super) fn outputs_text(outputs: &BTreeMap<&str, Value>) -> String {
    go_text(&outputs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

impl Core {
    /// Decides about all tasks that wait and can be decided about, and about those that follow from that. Tells which are
    /// in their queues now.
    pub(super) fn unfold(&mut self, turn: &mut Turn<'_>, ix: RunIx) -> Vec<TaskKey> {
        let mut queued = Vec::new();
        let only_objects = self.has(Quirk::StuckFollowers);
        loop {
            let Some(run) = self.runs.get(ix) else { return queued };
            let Some(dag) = &run.dag else { return queued };
            let waiting = run.places().filter(|(place, _)| dag.waits(*place) == Waits::Parents);
            let fates: Vec<_> = waiting
                .filter_map(|(place, step)| Some((TaskKey { run: ix, place }, run.fate(place, step, only_objects)?)))
                .collect();
            if fates.is_empty() {
                return queued;
            }
            for (key, fate) in fates {
                let late =
                    self.runs.task(key).and_then(|(run, task)| run.step(task)).is_some_and(Step::has_late_conditions);
                if fate == Fate::Queue && late {
                    self.begin_wait(turn, key);
                    continue;
                }
                self.begin(turn, key, fate);
                if fate == Fate::Queue {
                    queued.push(key);
                }
            }
        }
    }

    /// The same, and gives what can run to workers.
    pub(super) fn follow(&mut self, turn: &mut Turn<'_>, ix: RunIx) {
        for key in self.unfold(turn, ix) {
            if self.has(Quirk::LateFollowers) {
                self.timers.set(turn.now + LATE, Timer::Offer(key));
            } else {
                self.offer(turn, key);
            }
            self.announce_first(key);
        }
    }

    /// Makes a task that has waited, or makes it anew.
    pub(super) fn begin(&mut self, turn: &mut Turn<'_>, key: TaskKey, fate: Fate) {
        let Some(place) = self.runs.place_mut(key) else { return };
        place.waits = Waits::Nothing;
        let is_new = place.created.is_none();
        place.created.get_or_insert(stored(turn.now));
        if !is_new {
            self.renew(turn, key);
        }
        let (kind, end) = match fate {
            Fate::Queue => {
                self.record(key, TaskEventKind::Queued, turn.now, None, None);
                self.enqueue(turn, key, None);
                return;
            }
            Fate::Skip => (TaskEventKind::Skipped, End::Skipped),
            Fate::Cancel => (TaskEventKind::Cancelled, End::Cancelled),
        };
        let at = if self.has(Quirk::LateCreationTimes) && is_new { turn.now + end_delay(key.place) } else { turn.now };
        self.record(key, kind, at, None, None);
        self.settle(turn, key, end);
        if is_new {
            self.announce_creation(key);
        }
    }

    /// A DAG's first change of state is announced as its end.
    pub(super) fn expect_early_end(&mut self, turn: &Turn<'_>, ix: RunIx) {
        let is_dag = self.runs.get(ix).is_some_and(|run| run.dag.is_some());
        if is_dag && self.has(Quirk::EarlyDagEnd) {
            self.timers.set(turn.now + EARLY, Timer::EarlyEnd(ix));
        }
    }

    pub(super) fn early_end(&mut self, turn: &Turn<'_>, ix: RunIx) {
        let Some(run) = self.runs.get(ix).filter(|run| !run.is_ended()).map(|run| run.id) else { return };
        self.publish(&RunEvent {
            run,
            resource: Resource::Run,
            kind: EventKind::Completed,
            at: turn.now,
            payload: Arc::from(""),
            retry_count: None,
            index: None,
            hangup: true,
        });
    }
}
