//! Crons: runs that are started again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::SecondsFormat;
use serde_json::Value;
use uuid::Uuid;

use super::cron::Clockwork;
use super::schedules::{NEXT_LOOK, object};
use super::timers::{Timer, TimerKey};
use super::types::{At, Fault, Turn, stored};
use super::{Core, Quirk};

/// So long one is there that nobody can read.
const UNREADABLE: Duration = Duration::from_millis(300);

/// A cron that REST creates.
#[derive(Debug, Clone)]
pub(crate) struct CronSpec {
    pub(crate) workflow: String,
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) input: Option<Value>,
    pub(crate) metadata: Option<Value>,
    pub(crate) priority: Option<i32>,
}

#[derive(Debug)]
pub(crate) struct Cron {
    pub(crate) id: Uuid,
    pub(crate) created: At,
    /// Shared with lists that are rendered outside of the core's task.
    pub(crate) what: Arc<CronSpec>,
    /// Whether it is of a definition, and not of REST.
    pub(crate) defined: bool,
    pub(crate) enabled: bool,
    /// None if it cannot be read: then it soon disappears.
    clockwork: Option<Clockwork>,
    number: u64,
    next: Option<(At, TimerKey)>,
    /// Whether it is there no more, and fires once all the same.
    dropped: bool,
}

#[derive(Debug, Default)]
pub(super) struct Crons {
    all: BTreeMap<Uuid, Cron>,
    count: u64,
}

impl Crons {
    fn present(&self) -> impl Iterator<Item = &Cron> {
        self.all.values().filter(|cron| !cron.dropped)
    }
}

impl Core {
    /// Puts the crons of a definition in the place of those of the version before.
    pub(super) fn define_crons(&mut self, turn: &mut Turn<'_>, workflow: &str) {
        let Some(known) = self.definitions.find(workflow) else { return };
        let version = Arc::clone(&known.latest);
        let is_old = |cron: &&Cron| cron.defined && !cron.dropped && cron.what.workflow == workflow;
        for id in self.crons.all.values().filter(is_old).map(|cron| cron.id).collect::<Vec<_>>() {
            if !self.lingers(turn, id, &version.rules.crons) {
                self.delete_cron(id);
            }
        }
        for text in &version.rules.crons {
            let what = CronSpec {
                workflow: workflow.to_owned(),
                name: String::new(),
                text: text.clone(),
                input: version.rules.cron_input.clone(),
                metadata: None,
                priority: version.default_priority,
            };
            self.add_cron(turn, what, true, Clockwork::of_definition(text));
        }
    }

    /// Whether one of a definition whose version now has others fires once more, and a note of it.
    fn lingers(&mut self, turn: &Turn<'_>, id: Uuid, crons: &[String]) -> bool {
        let until = turn.now + NEXT_LOOK;
        let lingers = self.has(Quirk::LingeringCrons);
        let Some(cron) = self.crons.all.get_mut(&id) else { return false };
        cron.dropped = lingers && !crons.contains(&cron.what.text) && cron.next.is_some_and(|(at, _)| at <= until);
        cron.dropped
    }

    /// Makes a cron.
    pub(crate) fn create_cron(&mut self, turn: &mut Turn<'_>, what: CronSpec) -> Result<Uuid, Fault> {
        if what.name.is_empty() {
            return Err(Fault::invalid("cron name is required"));
        }
        if self.definitions.find(&what.workflow).is_none() {
            return Err(Fault::invalid("workflow not found"));
        }
        let same = |cron: &Cron| {
            (&cron.what.workflow, &cron.what.name, &cron.what.text) == (&what.workflow, &what.name, &what.text)
        };
        if self.crons.present().any(same) {
            return Err(Fault::invalid("cron trigger with that name-expression pair already exists"));
        }
        let clockwork = Clockwork::of_rest(&what.text);
        if clockwork.is_none() && !self.has(Quirk::VanishingCrons) {
            return Err(Fault::invalid("Invalid cron expression"));
        }
        Ok(self.add_cron(turn, what, false, clockwork))
    }

    fn add_cron(&mut self, turn: &mut Turn<'_>, what: CronSpec, defined: bool, clockwork: Option<Clockwork>) -> Uuid {
        let id = turn.uuid();
        self.crons.count += 1;
        let (created, number) = (stored(turn.now), self.crons.count);
        let what = Arc::new(what);
        let cron = Cron { id, created, what, defined, enabled: true, clockwork, number, next: None, dropped: false };
        self.crons.all.insert(id, cron);
        self.set_next(turn, id);
        id
    }

    fn set_next(&mut self, turn: &Turn<'_>, id: Uuid) {
        let Some(cron) = self.crons.all.get_mut(&id) else { return };
        let next = match &cron.clockwork {
            Some(clockwork) => clockwork.next(turn.now).filter(|_| cron.enabled),
            None => Some(turn.now + UNREADABLE),
        };
        cron.next = next.map(|at| (at, self.timers.set(at, Timer::Cron(id))));
    }

    pub(crate) fn find_cron(&self, id: Uuid) -> Option<&Cron> {
        self.crons.all.get(&id).filter(|cron| !cron.dropped)
    }

    /// All of them, in the order of their creation.
    pub(crate) fn all_crons(&self) -> Vec<&Cron> {
        let mut all: Vec<_> = self.crons.present().collect();
        all.sort_by_key(|cron| cron.number);
        all
    }

    pub(crate) fn delete_cron(&mut self, id: Uuid) -> bool {
        let Some(cron) = self.crons.all.remove(&id) else { return false };
        if let Some((_, timer)) = cron.next {
            self.timers.clear(timer);
        }
        true
    }

    /// Those of a workflow that is gone go with it.
    pub(super) fn drop_crons(&mut self, workflow: &str) {
        let of_it = self.crons.all.values().filter(|cron| cron.what.workflow == workflow);
        for id in of_it.map(|cron| cron.id).collect::<Vec<_>>() {
            self.delete_cron(id);
        }
    }

    pub(crate) fn enable_cron(&mut self, turn: &Turn<'_>, id: Uuid, enabled: bool) -> bool {
        let Some(cron) = self.crons.all.get_mut(&id) else { return false };
        cron.enabled = enabled;
        if let Some((_, timer)) = cron.next.take() {
            self.timers.clear(timer);
        }
        self.set_next(turn, id);
        true
    }

    /// The time of a cron has come.
    pub(super) fn fire_cron(&mut self, turn: &mut Turn<'_>, id: Uuid) {
        let Some(cron) = self.crons.all.get_mut(&id) else { return };
        let at = cron.next.take().map_or(turn.now, |(at, _)| at);
        if cron.clockwork.is_none() {
            self.crons.all.remove(&id);
            return;
        }
        let dropped = cron.dropped;
        self.start_cron(turn, id, at);
        if dropped {
            self.crons.all.remove(&id);
        } else {
            self.set_next(turn, id);
        }
    }

    /// Starts the run that a cron would start at a time.
    pub(crate) fn start_cron(&mut self, turn: &mut Turn<'_>, id: Uuid, at: At) -> Option<Uuid> {
        let what = CronSpec::clone(&self.crons.all.get(&id)?.what);
        let mut metadata = object(what.metadata);
        metadata.insert("hatchet__cron_expression".into(), what.text.into());
        metadata.insert("hatchet__cron_name".into(), what.name.into());
        metadata.insert("hatchet__cron_scheduled_at".into(), at.to_rfc3339_opts(SecondsFormat::Secs, true).into());
        self.start_stored(turn, what.workflow, what.input.unwrap_or_default(), metadata, what.priority)
    }
}
