//! Events: kept, and turned into runs of the workflows that listen to them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::pattern;
use super::rules::{EventRef, Special};
use super::triggers::RESERVED;
use super::types::{At, Trigger, Turn, stored};
use super::{Core, Quirk};

/// What a client may set of the engine's own keys.
const KEPT: [&str; 2] = ["hatchet__source_workflow_run_id", "hatchet__source_step_run_id"];
/// How long REST takes to show an event.
const LAG: Duration = Duration::from_millis(120);
/// The longest delay of its runs after that.
const RUNS_LAG_MICROS: u128 = 80_000;

/// An event as it comes, its texts checked.
#[derive(Debug, Clone)]
pub(crate) struct Pushed {
    pub(crate) key: String,
    pub(crate) payload: Value,
    pub(crate) metadata: Value,
    pub(crate) priority: Option<i32>,
    pub(crate) scope: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: Uuid,
    pub(crate) at: At,
    pub(crate) key: Arc<str>,
    /// JSON texts.
    pub(crate) payload: Box<str>,
    pub(crate) metadata: Box<str>,
    pub(crate) scope: Option<Box<str>>,
    /// The runs that it started, with the filters that let it through.
    pub(crate) runs: Vec<(Uuid, Option<Uuid>)>,
}

/// All events, in the order they came.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Shared with lists that are rendered outside of the core's task.
    all: Vec<Arc<Event>>,
    by_id: HashMap<Uuid, usize>,
}

impl Events {
    fn add(&mut self, event: Event) {
        self.by_id.insert(event.id, self.all.len());
        self.all.push(Arc::new(event));
    }

    fn find(&self, id: Uuid) -> Option<&Arc<Event>> {
        self.all.get(*self.by_id.get(&id)?)
    }
}

impl Core {
    /// Takes an event in, and starts the runs that it stands for. Tells its id and its time.
    pub(crate) fn push(&mut self, turn: &mut Turn<'_>, pushed: Pushed) -> (Uuid, At) {
        let (id, at) = (turn.uuid(), stored(turn.now));
        let event = EventRef { id, key: pushed.key.as_str().into() };
        let mut runs = Vec::new();
        for (trigger, filter) in self.started_by(&event, &pushed) {
            // What cannot be started is not, and nobody is told.
            let ids = self.trigger(turn, vec![trigger]).unwrap_or_default();
            runs.extend(ids.into_iter().filter(|run| self.find_run(*run).is_some()).map(|run| (run, filter)));
        }
        self.event_arrives(turn, &pushed.key, &pushed.payload);
        self.events.add(Event {
            id,
            at,
            key: event.key,
            payload: pushed.payload.to_string().into(),
            metadata: pushed.metadata.to_string().into(),
            scope: pushed.scope.map(Into::into),
            runs,
        });
        (id, at)
    }

    /// A run for each trigger of each workflow that means the event, and for each of the workflow's filters that is true.
    fn started_by(&self, event: &EventRef, pushed: &Pushed) -> Vec<(Trigger, Option<Uuid>)> {
        let mut triggers = Vec::new();
        for (name, workflow) in self.definitions.oldest_first() {
            let rules = &workflow.latest.rules;
            for _ in rules.events.iter().filter(|trigger| pattern::matches(trigger, &pushed.key)) {
                for filter in self.event_filters.pass(workflow.id, event, pushed) {
                    let special = Special {
                        event: Some(event.clone()),
                        filter_payload: filter.map(|filter| filter.what.payload.clone()),
                        ..Special::default()
                    };
                    let trigger = Trigger {
                        workflow: name.to_owned(),
                        input: pushed.payload.clone(),
                        metadata: metadata(event, pushed),
                        priority: pushed.priority,
                        parent: None,
                        special: Some(Box::new(special)),
                    };
                    triggers.push((trigger, filter.map(|filter| filter.id)));
                }
            }
        }
        triggers
    }

    /// An event that REST knows by now.
    pub(crate) fn event(&self, id: Uuid, now: At) -> Option<&Arc<Event>> {
        self.events.find(id).filter(|event| self.shows(event, now))
    }

    /// Those that came at or before a moment, newest first.
    pub(crate) fn events(&self, now: At, until: Option<At>) -> impl Iterator<Item = &Arc<Event>> {
        let all = &self.events.all;
        let end = until.map_or(all.len(), |until| all.partition_point(|event| event.at <= until));
        all.get(..end).unwrap_or_default().iter().rev().filter(move |event| self.shows(event, now))
    }

    fn shows(&self, event: &Event, now: At) -> bool {
        now >= self.shown_from(event)
    }

    fn shown_from(&self, event: &Event) -> At {
        if self.has(Quirk::RestLag) { event.at + LAG } else { event.at }
    }

    /// Whether REST already shows which runs an event has started. It gets them in a separate message, after the event.
    pub(crate) fn shows_runs_of(&self, event: &Event, now: At) -> bool {
        !self.has(Quirk::ScatteredRows) || now >= self.shown_from(event) + runs_lag(event.id)
    }
}

/// The delay between an event and its runs in REST: 20 ms in the median, at most 80 ms.
fn runs_lag(event: Uuid) -> Duration {
    let share = event.as_u128() % 1000;
    Duration::from_micros(u64::try_from(RUNS_LAG_MICROS * share * share / 1_000_000).unwrap_or_default())
}

fn metadata(event: &EventRef, pushed: &Pushed) -> Map<String, Value> {
    let mut all = pushed.metadata.as_object().cloned().unwrap_or_default();
    all.retain(|key, _| !key.starts_with(RESERVED) || KEPT.contains(&key.as_str()));
    // Each run of the event gets its own.
    all.remove("traceparent");
    all.insert("hatchet__event_id".into(), event.id.to_string().into());
    all.insert("hatchet__event_key".into(), (&*event.key).into());
    all
}
