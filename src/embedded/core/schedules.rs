//! Schedules: runs that are to be started at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::SubsecRound as _;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::rules::Special;
use super::timers::{Timer, TimerKey};
use super::types::{At, Fault, Trigger, Turn, stored};
use super::{Core, Quirk};

/// What is due when it is made waits for the engine's next look.
pub(super) const NEXT_LOOK: Duration = Duration::from_millis(2500);

/// A run that is to be started later.
#[derive(Debug, Clone)]
pub(crate) struct Scheduled {
    pub(crate) workflow: String,
    pub(crate) input: Value,
    pub(crate) metadata: Option<Value>,
    pub(crate) priority: Option<i32>,
}

#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    pub(crate) id: Uuid,
    pub(crate) created: At,
    pub(crate) at: At,
    pub(crate) what: Scheduled,
    /// In the order of creation.
    number: u64,
    timer: TimerKey,
}

#[derive(Debug, Default)]
pub(super) struct Schedules {
    /// Shared with lists that are rendered outside of the core's task.
    all: BTreeMap<Uuid, Arc<Schedule>>,
    count: u64,
}

impl Core {
    /// Makes a schedule for each time, in their order.
    pub(crate) fn schedule(
        &mut self,
        turn: &mut Turn<'_>,
        what: &Scheduled,
        times: &[At],
    ) -> Result<Vec<(Uuid, At)>, Fault> {
        if self.definitions.find(&what.workflow).is_none() {
            return Err(Fault::not_found("workflow not found"));
        }
        let mut made = Vec::with_capacity(times.len());
        for at in times {
            let (id, at) = (turn.uuid(), at.round_subsecs(3));
            let start = self.set_start(turn, id, at);
            self.schedules.count += 1;
            let (created, number) = (stored(turn.now), self.schedules.count);
            let schedule = Schedule { id, created, at, what: what.clone(), number, timer: start };
            self.schedules.all.insert(id, Arc::new(schedule));
            made.push((id, at));
        }
        Ok(made)
    }

    fn set_start(&mut self, turn: &Turn<'_>, id: Uuid, at: At) -> TimerKey {
        let late = at <= turn.now && self.has(Quirk::LateSchedules);
        let at = if late { turn.now + NEXT_LOOK } else { at.max(turn.now) };
        self.timers.set(at, Timer::Scheduled(id))
    }

    pub(crate) fn find_schedule(&self, id: Uuid) -> Option<&Arc<Schedule>> {
        self.schedules.all.get(&id)
    }

    /// All that are still to come, in the order of their creation.
    pub(crate) fn all_schedules(&self) -> Vec<&Arc<Schedule>> {
        let mut all: Vec<_> = self.schedules.all.values().collect();
        all.sort_by_key(|schedule| schedule.number);
        all
    }

    /// Moves a schedule to another time.
    pub(crate) fn reschedule(&mut self, turn: &Turn<'_>, id: Uuid, at: At) -> bool {
        let Some(old) = self.schedules.all.get(&id).map(|schedule| schedule.timer) else { return false };
        self.timers.clear(old);
        let at = at.round_subsecs(3);
        let timer = self.set_start(turn, id, at);
        if let Some(schedule) = self.schedules.all.get_mut(&id).map(Arc::make_mut) {
            (schedule.at, schedule.timer) = (at, timer);
        }
        true
    }

    pub(crate) fn delete_schedule(&mut self, id: Uuid) -> bool {
        let Some(schedule) = self.schedules.all.remove(&id) else { return false };
        self.timers.clear(schedule.timer);
        true
    }

    /// Those of a workflow that is gone go with it.
    pub(super) fn drop_schedules(&mut self, workflow: &str) {
        let of_it = self.schedules.all.values().filter(|schedule| schedule.what.workflow == workflow);
        for id in of_it.map(|schedule| schedule.id).collect::<Vec<_>>() {
            self.delete_schedule(id);
        }
    }

    /// Starts the run of a schedule, which is then gone. Nothing leads from the one to the other.
    pub(crate) fn start_scheduled(&mut self, turn: &mut Turn<'_>, id: Uuid) -> Option<Uuid> {
        let Schedule { timer, what, .. } = Arc::unwrap_or_clone(self.schedules.all.remove(&id)?);
        self.timers.clear(timer);
        let metadata = object(what.metadata);
        self.start_stored(turn, what.workflow, what.input, metadata, what.priority)
    }

    /// Starts a run from what the database holds. Its priority does not follow the workflow's.
    pub(super) fn start_stored(
        &mut self,
        turn: &mut Turn<'_>,
        workflow: String,
        input: Value,
        metadata: Map<String, Value>,
        priority: Option<i32>,
    ) -> Option<Uuid> {
        let special = Some(Box::new(Special { from_database: true, ..Special::default() }));
        let trigger = Trigger { workflow, input, metadata, priority: priority.or(Some(1)), parent: None, special };
        self.trigger(turn, vec![trigger]).ok()?.first().copied()
    }
}

pub(super) fn object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}
