//! Schedules: runs that are to be started at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::timers::TimerKey;
use super::turn::At;

/// The run that a schedule starts.
#[derive(Debug, Clone)]
pub(crate) struct ScheduledRun {
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
    pub(crate) run: ScheduledRun,
    pub(crate) timer: TimerKey,
    /// In the order of creation.
    number: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Schedules {
    /// Shared with lists that are rendered outside of the core's task.
    all: BTreeMap<Uuid, Arc<Schedule>>,
    count: u64,
}

impl Schedules {
    pub(crate) fn add(&mut self, id: Uuid, created: At, at: At, run: ScheduledRun, timer: TimerKey) {
        self.count += 1;
        let number = self.count;
        self.all.insert(id, Arc::new(Schedule { id, created, at, run, timer, number }));
    }

    pub(crate) fn find(&self, id: Uuid) -> Option<&Arc<Schedule>> {
        self.all.get(&id)
    }

    pub(crate) fn find_mut(&mut self, id: Uuid) -> Option<&mut Schedule> {
        self.all.get_mut(&id).map(Arc::make_mut)
    }

    pub(crate) fn remove(&mut self, id: Uuid) -> Option<Arc<Schedule>> {
        self.all.remove(&id)
    }

    pub(crate) fn of(&self, workflow: &str) -> impl Iterator<Item = &Schedule> {
        self.all.values().filter(move |schedule| schedule.run.workflow == workflow).map(|schedule| &**schedule)
    }

    /// All schedules, in the order of their creation.
    pub(crate) fn oldest_first(&self) -> Vec<&Arc<Schedule>> {
        let mut all: Vec<_> = self.all.values().collect();
        all.sort_by_key(|schedule| schedule.number);
        all
    }
}
