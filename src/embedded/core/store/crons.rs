//! Crons: runs that are started periodically.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::timers::TimerKey;
use super::turn::At;
use crate::embedded::core::format::cron::CronSchedule;

/// When a cron fires, and the run that it starts.
#[derive(Debug, Clone)]
pub(crate) struct CronSpec {
    pub(crate) workflow: String,
    pub(crate) name: String,
    pub(crate) expression: String,
    pub(crate) input: Option<Value>,
    pub(crate) metadata: Option<Value>,
    pub(crate) priority: Option<i32>,
}

#[derive(Debug)]
pub(crate) struct Cron {
    pub(crate) id: Uuid,
    pub(crate) created: At,
    /// Shared with lists that are rendered outside of the core's task.
    pub(crate) spec: Arc<CronSpec>,
    /// Whether it belongs to a definition. If not, it was created by REST.
    pub(crate) from_definition: bool,
    pub(crate) enabled: bool,
    /// `None` if the expression is invalid: then the cron soon disappears.
    pub(crate) schedule: Option<CronSchedule>,
    pub(crate) next: Option<(At, TimerKey)>,
    /// Whether it has been removed, but fires once more. No API view shows it.
    pub(crate) dropped: bool,
    /// In the order of creation.
    number: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Crons {
    all: BTreeMap<Uuid, Cron>,
    count: u64,
}

impl Crons {
    pub(crate) fn add(
        &mut self,
        id: Uuid,
        created: At,
        spec: CronSpec,
        from_definition: bool,
        schedule: Option<CronSchedule>,
    ) {
        self.count += 1;
        let (number, spec) = (self.count, Arc::new(spec));
        let cron =
            Cron { id, created, spec, from_definition, enabled: true, schedule, next: None, dropped: false, number };
        self.all.insert(id, cron);
    }

    /// A cron, even if it has been dropped.
    pub(crate) fn get(&self, id: Uuid) -> Option<&Cron> {
        self.all.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: Uuid) -> Option<&mut Cron> {
        self.all.get_mut(&id)
    }

    pub(crate) fn remove(&mut self, id: Uuid) -> Option<Cron> {
        self.all.remove(&id)
    }

    /// All crons of a workflow, including dropped ones.
    pub(crate) fn of(&self, workflow: &str) -> impl Iterator<Item = &Cron> {
        self.all.values().filter(move |cron| cron.spec.workflow == workflow)
    }

    /// Whether there is a cron with the same workflow, name and expression.
    pub(crate) fn has_same(&self, spec: &CronSpec) -> bool {
        self.all.values().filter(|cron| !cron.dropped).any(|cron| {
            (&cron.spec.workflow, &cron.spec.name, &cron.spec.expression)
                == (&spec.workflow, &spec.name, &spec.expression)
        })
    }

    /// All crons that have not been dropped, in the order of their creation.
    pub(crate) fn oldest_first(&self) -> Vec<&Cron> {
        let mut all: Vec<_> = self.all.values().filter(|cron| !cron.dropped).collect();
        all.sort_by_key(|cron| cron.number);
        all
    }
}
