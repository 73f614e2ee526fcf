//! Workflows: checked, versioned, found by name.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::conditions::On;
use super::store::{Step, Version};
use super::types::{At, Definition, Fault, TaskDefinition, Turn, stored};
use super::{Core, Quirk, WorkflowView, dag, duration};
use crate::model::name::is_name;

/// How long a version that has been looked up is gone by.
const CACHED: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Definitions {
    by_name: HashMap<String, Workflow>,
    /// In the order of creation.
    names: Vec<String>,
    /// What triggers go by for a while, and until when.
    cached: HashMap<String, (Arc<Version>, At)>,
    versions: i64,
}

#[derive(Debug)]
pub(crate) struct Workflow {
    pub(crate) id: Uuid,
    pub(crate) created: At,
    definition: Definition,
    pub(crate) latest: Arc<Version>,
}

impl Definitions {
    pub(super) fn find(&self, name: &str) -> Option<&Workflow> {
        self.by_name.get(name)
    }

    pub(super) fn oldest_first(&self) -> impl Iterator<Item = (&str, &Workflow)> {
        self.names.iter().filter_map(|name| Some((name.as_str(), self.by_name.get(name)?)))
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = (&str, &Workflow)> {
        self.names.iter().rev().filter_map(|name| Some((name.as_str(), self.by_name.get(name)?)))
    }
}

impl Core {
    /// Stores a definition. The same again is the same version.
    pub(crate) fn put_workflow(
        &mut self,
        turn: &mut Turn<'_>,
        mut definition: Definition,
    ) -> Result<Arc<Version>, Fault> {
        check(&definition)?;
        let known = self.definitions.find(&definition.name);
        if let Some(known) = known {
            definition.rules.keep_filters_of(&known.definition.rules);
            if is_same(&known.definition, &definition) {
                return Ok(Arc::clone(&known.latest));
            }
        }
        self.check_filters(known.map(|known| known.id), &definition.rules.filters)?;
        self.definitions.versions += 1;
        let workflow = self.definitions.find(&definition.name).map_or_else(|| turn.uuid(), |known| known.id);
        let latest = Arc::new(Version {
            id: turn.uuid(),
            workflow,
            name: definition.name.as_str().into(),
            description: definition.description.clone(),
            default_priority: definition.default_priority,
            rules: definition.rules.clone(),
            created: stored(turn.now),
            order: self.definitions.versions,
            steps: steps(turn, &definition),
        });
        if let Some(known) = self.definitions.by_name.get_mut(&definition.name) {
            (known.definition, known.latest) = (definition, Arc::clone(&latest));
        } else {
            let (name, created) = (definition.name.clone(), turn.now);
            self.definitions.names.push(name.clone());
            let known = Workflow { id: workflow, created, definition, latest: Arc::clone(&latest) };
            self.definitions.by_name.insert(name, known);
        }
        self.define_crons(turn, &latest.name);
        self.define_filters(turn, workflow, &latest.rules.filters);
        Ok(latest)
    }

    /// The version that a run is started of.
    pub(super) fn version(&mut self, turn: &Turn<'_>, name: &str) -> Option<Arc<Version>> {
        let latest = self.definitions.find(name).map(|known| Arc::clone(&known.latest))?;
        if !self.has(Quirk::StaleVersions) {
            return Some(latest);
        }
        let fresh = (latest, turn.now + CACHED);
        let cached = self.definitions.cached.entry(name.to_owned()).or_insert_with(|| fresh.clone());
        if cached.1 <= turn.now {
            *cached = fresh;
        }
        Some(Arc::clone(&cached.0))
    }

    pub(crate) fn find_workflow(&self, id: Uuid) -> Option<WorkflowView<'_>> {
        self.workflows().find(|view| view.workflow.id == id)
    }

    /// Forgets a workflow, its schedules and its crons. Its runs stay, and its filters.
    pub(crate) fn delete_workflow(&mut self, id: Uuid) -> bool {
        let Some(name) = self.find_workflow(id).map(|view| view.name.to_owned()) else { return false };
        self.definitions.by_name.remove(&name);
        self.definitions.cached.remove(&name);
        self.definitions.names.retain(|other| *other != name);
        self.drop_crons(&name);
        self.drop_schedules(&name);
        true
    }
}

/// The order of tasks makes no difference, all else does.
fn is_same(one: &Definition, other: &Definition) -> bool {
    let sorted = |definition: &Definition| {
        let mut definition = definition.clone();
        definition.tasks.sort_by(|one, other| one.readable_id.cmp(&other.readable_id));
        definition
    };
    sorted(one) == sorted(other)
}

fn steps(turn: &mut Turn<'_>, definition: &Definition) -> Vec<Step> {
    let place = |name: &String| definition.tasks.iter().position(|task| task.readable_id == *name);
    let tasks = definition.tasks.iter().map(|task| (task, false));
    let all = tasks.chain(definition.on_failure.iter().map(|task| (task, true)));
    all.map(|(task, on_failure)| Step {
        id: turn.uuid(),
        readable_id: task.readable_id.as_str().into(),
        action: task.action.to_lowercase().into(),
        definition: task.clone(),
        parents: task.parents.iter().filter_map(|name| u16::try_from(place(name)?).ok()).collect(),
        on_failure,
    })
    .collect()
}

/// The engine's checks, in its words. What it answers with INTERNAL, this one does too.
fn check(definition: &Definition) -> Result<(), Fault> {
    let mut problems = Problems::default();
    problems.name("Name", &definition.name);
    if let Some(priority) = definition.default_priority {
        problems.range("DefaultPriority", priority, 1, 3);
    }
    let named = definition.tasks.iter().enumerate().map(|(at, task)| (format!("Tasks[{at}]"), task));
    for (field, task) in named.chain(definition.on_failure.iter().map(|task| ("OnFailure".to_owned(), task))) {
        if task.readable_id.is_empty() || task.action.is_empty() {
            return Err(Fault::internal());
        }
        problems.name(&format!("{field}.ReadableId"), &task.readable_id);
        action(&field, &task.action, &mut problems)?;
        limits(&field, task, &mut problems);
    }
    definition.rules.check(&mut problems);
    problems.into_result("CreateWorkflowVersionOpts")?;
    dag::check(definition)?;
    definition.rules.check_further()
}

fn action(field: &str, action: &str, problems: &mut Problems) -> Result<(), Fault> {
    let parts: Vec<_> = action.split(':').collect();
    if !(2..=3).contains(&parts.len()) {
        return Err(Fault::internal());
    }
    // The first letter of the service is lowered before it is looked up, the others are not.
    if parts.first().is_some_and(|service| service.chars().skip(1).any(char::is_uppercase)) {
        return Err(Fault::internal());
    }
    if parts.iter().take(2).any(|part| part.is_empty()) {
        let text = "Invalid action ID. Action IDs must be in the format <integrationId>:<verb>";
        problems.add(&format!("{field}.Action"), text);
    }
    Ok(())
}

fn limits(field: &str, task: &TaskDefinition, problems: &mut Problems) {
    let mut add = |name: &str, problem: &str| problems.add(&format!("{field}.{name}"), problem);
    if !task.timeout.is_empty() && duration::parse(&task.timeout).is_none() {
        add("Timeout", duration::REFUSAL);
    }
    if task.schedule_timeout.as_deref().is_some_and(|text| duration::parse(text).is_none()) {
        add("ScheduleTimeout", duration::REFUSAL);
    }
    if task.retries < 0 {
        add("Retries", &format!("on condition 'min' [ 0 ]: got {}", task.retries));
    }
    for (at, condition) in task.conditions.iter().enumerate() {
        let mut add = |name: &str, problem: &str| add(&format!("TriggerConditions[{at}].{name}"), problem);
        if condition.is_late() && condition.data_key.is_empty() {
            add("ReadableDataKey", "on condition 'required'");
        }
        if let On::Sleep(text) = &condition.on
            && duration::parse(text).is_none()
        {
            add("SleepDuration", duration::REFUSAL);
        }
    }
    match task.backoff_factor {
        Some(factor) if factor < 1.0 => add("RetryBackoffFactor", "on condition 'min' [ 1 ]: got invalid type"),
        Some(factor) if factor > 1000.0 => add("RetryBackoffFactor", "on condition 'max' [ 1000 ]: got invalid type"),
        _ => {}
    }
    match task.backoff_max_seconds {
        Some(most) if most < 1 => {
            add("RetryBackoffMaxSeconds", &format!("on condition 'min' [ 1 ]: got {most}"));
        }
        Some(most) if most > 86400 => {
            add("RetryBackoffMaxSeconds", &format!("on condition 'max' [ 86400 ]: got {most}"));
        }
        _ => {}
    }
}

/// What is wrong with a request, in the form of the engine's validator.
#[derive(Default)]
pub(super) struct Problems(Vec<(String, String)>);

impl Problems {
    pub(super) fn add(&mut self, field: &str, problem: &str) {
        self.0.push((field.to_owned(), problem.to_owned()));
    }

    pub(super) fn name(&mut self, field: &str, name: &str) {
        if name.is_empty() {
            self.add(field, "on condition 'required'");
        } else if !is_name(name) {
            self.add(field, "Hatchet names must match the regex ^[a-zA-Z0-9\\.\\-_]+$");
        }
    }

    fn range(&mut self, field: &str, number: i32, min: i32, max: i32) {
        if number < min {
            self.add(field, &format!("on condition 'min' [ {min} ]: got invalid type"));
        } else if number > max {
            self.add(field, &format!("on condition 'max' [ {max} ]: got invalid type"));
        }
    }

    fn texts(self, of: &str) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let start = String::from("Validation failed with the following errors:\n");
        Some(self.0.iter().enumerate().fold(start, |text, (number, (field, problem))| {
            text + &format!("{number}: validation failed on field '{of}.{field}': {problem}\n")
        }))
    }

    pub(super) fn into_result(self, of: &str) -> Result<(), Fault> {
        self.texts(of).map_or(Ok(()), |text| Err(Fault::invalid(text)))
    }

    /// The form that most other services use.
    pub(super) fn into_request_result(self, of: &str) -> Result<(), Fault> {
        self.texts(of).map_or(Ok(()), |text| Err(Fault::invalid(format!("Invalid request: {text}"))))
    }
}
