//! Versions of workflows.

use std::sync::Arc;
use std::time::Duration;

use crate::embedded::core::store::{Core, Definition, Step, Turn, Version, stored};
use crate::embedded::quirks::Quirk;

/// How long triggers use a cached version.
const CACHED_FOR: Duration = Duration::from_secs(5);

/// The latest version of a workflow, if that has the same definition.
pub(crate) fn unchanged(core: &Core, definition: &mut Definition) -> Option<Arc<Version>> {
    let known = core.workflows.find(&definition.name)?;
    // A version without filters has the filters of the version before it.
    if definition.options.filters.is_empty() {
        definition.options.filters.clone_from(&known.definition.options.filters);
    }
    is_equal(&known.definition, definition).then(|| Arc::clone(&known.latest))
}

/// Stores a definition as a new version.
pub(crate) fn add(core: &mut Core, turn: &mut Turn<'_>, definition: Definition) -> Arc<Version> {
    let workflow = core.workflows.find(&definition.name).map_or_else(|| turn.uuid(), |known| known.id);
    let latest = Arc::new(Version {
        id: turn.uuid(),
        workflow,
        name: definition.name.as_str().into(),
        description: definition.description.clone(),
        default_priority: definition.default_priority,
        options: definition.options.clone(),
        created: stored(turn.now),
        order: core.workflows.next_order(),
        steps: steps(turn, &definition),
    });
    core.workflows.add(definition, Arc::clone(&latest), turn.now);
    latest
}

/// The version of which a run is started.
pub(crate) fn of_new_run(core: &mut Core, turn: &Turn<'_>, name: &str) -> Option<Arc<Version>> {
    let latest = core.workflows.find(name).map(|known| Arc::clone(&known.latest))?;
    if !core.has(Quirk::StaleVersions) {
        return Some(latest);
    }
    Some(core.workflows.cached(name, turn.now, (latest, turn.now + CACHED_FOR)))
}

/// Whether two definitions are equal, apart from the order of their tasks.
fn is_equal(one: &Definition, other: &Definition) -> bool {
    let sorted = |definition: &Definition| {
        let mut definition = definition.clone();
        definition.tasks.sort_by(|one, other| one.readable_id.cmp(&other.readable_id));
        definition
    };
    sorted(one) == sorted(other)
}

fn steps(turn: &mut Turn<'_>, definition: &Definition) -> Vec<Step> {
    let index = |name: &String| definition.tasks.iter().position(|task| task.readable_id == *name);
    let tasks = definition.tasks.iter().map(|task| (task, false));
    let all = tasks.chain(definition.on_failure.iter().map(|task| (task, true)));
    all.map(|(task, on_failure)| Step {
        id: turn.uuid(),
        readable_id: task.readable_id.as_str().into(),
        action: task.action.to_lowercase().into(),
        definition: task.clone(),
        parents: task.parents.iter().filter_map(|name| u16::try_from(index(name)?).ok()).collect(),
        on_failure,
    })
    .collect()
}
