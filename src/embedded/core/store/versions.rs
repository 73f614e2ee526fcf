//! Workflows and their versions, found by name.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::definition::{Definition, TaskDefinition};
use super::options::WorkflowOptions;
use super::pauses::Pause;
use super::turn::At;

/// One version of a workflow.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) id: Uuid,
    pub(crate) workflow: Uuid,
    pub(crate) name: Arc<str>,
    pub(crate) description: String,
    pub(crate) default_priority: Option<i32>,
    pub(crate) options: WorkflowOptions,
    pub(crate) created: At,
    /// A counter over the versions of all workflows.
    pub(crate) order: i64,
    pub(crate) steps: Vec<Step>,
}

impl Version {
    /// Whether its runs are DAGs, whose tasks have ids of their own.
    pub(crate) fn is_dag(&self) -> bool {
        self.steps.len() > 1
    }

    /// Whether one of its tasks uses a static rate limit.
    pub(crate) fn uses_rate_limit(&self, key: &str) -> bool {
        let mut limits = self.steps.iter().flat_map(|step| &step.definition.rate_limits);
        limits.any(|limit| !limit.is_dynamic() && limit.key == key)
    }
}

/// A task of a version.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) id: Uuid,
    pub(crate) readable_id: Arc<str>,
    pub(crate) action: Arc<str>,
    pub(crate) definition: TaskDefinition,
    /// Positions of the steps that it depends on.
    pub(crate) parents: Vec<u16>,
    pub(crate) on_failure: bool,
}

#[derive(Debug)]
pub(crate) struct Workflow {
    pub(crate) id: Uuid,
    pub(crate) created: At,
    pub(crate) definition: Definition,
    pub(crate) latest: Arc<Version>,
    pub(crate) pause: Option<Pause>,
}

#[derive(Debug, Default)]
pub(crate) struct Workflows {
    by_name: HashMap<String, Workflow>,
    /// In the order of creation.
    names: Vec<String>,
    /// The versions that triggers use for a while, and until when.
    cached: HashMap<String, (Arc<Version>, At)>,
    versions: i64,
}

impl Workflows {
    pub(crate) fn find(&self, name: &str) -> Option<&Workflow> {
        self.by_name.get(name)
    }

    pub(crate) fn by_id_mut(&mut self, id: Uuid) -> Option<&mut Workflow> {
        self.by_name.values_mut().find(|workflow| workflow.id == id)
    }

    /// The pause of a version's workflow.
    pub(crate) fn pause_of(&self, version: &Version) -> Option<&Pause> {
        self.by_name.get(&*version.name).filter(|workflow| workflow.id == version.workflow)?.pause.as_ref()
    }

    pub(crate) fn oldest_first(&self) -> impl Iterator<Item = (&str, &Workflow)> {
        self.names.iter().filter_map(|name| Some((name.as_str(), self.by_name.get(name)?)))
    }

    pub(crate) fn newest_first(&self) -> impl Iterator<Item = (&str, &Workflow)> {
        self.names.iter().rev().filter_map(|name| Some((name.as_str(), self.by_name.get(name)?)))
    }

    /// The order number of the next version.
    pub(crate) fn next_order(&mut self) -> i64 {
        self.versions += 1;
        self.versions
    }

    /// Stores a new version: of a known workflow, or of a new one.
    pub(crate) fn add(&mut self, definition: Definition, latest: Arc<Version>, created: At) {
        if let Some(known) = self.by_name.get_mut(&definition.name) {
            (known.definition, known.latest) = (definition, latest);
        } else {
            let name = definition.name.clone();
            self.names.push(name.clone());
            self.by_name.insert(name, Workflow { id: latest.workflow, created, definition, latest, pause: None });
        }
    }

    /// The cached version of a workflow. If the cache has none, or only an expired one, it is the given one from now on.
    pub(crate) fn cached(&mut self, name: &str, now: At, fresh: (Arc<Version>, At)) -> Arc<Version> {
        let cached = self.cached.entry(name.to_owned()).or_insert_with(|| fresh.clone());
        if cached.1 <= now {
            *cached = fresh;
        }
        Arc::clone(&cached.0)
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.by_name.remove(name);
        self.cached.remove(name);
        self.names.retain(|other| other != name);
    }
}
