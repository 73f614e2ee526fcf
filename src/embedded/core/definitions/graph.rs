//! The dependencies between the tasks of a definition.

use std::collections::{BTreeMap, HashSet};

use crate::embedded::core::store::{Definition, StatusError};

/// The maximum number of tasks of a workflow. The real engine has no known limit; here each read of a run visits all of its tasks.
const MAX_TASKS: usize = 1000;

/// Checks that the tasks of a definition form a DAG.
pub(crate) fn check(definition: &Definition) -> Result<(), StatusError> {
    let tasks = &definition.tasks;
    if tasks.len() > MAX_TASKS {
        return Err(StatusError::unimplemented(&format!("workflows of more than {MAX_TASKS} tasks")));
    }
    let known: HashSet<_> = tasks.iter().map(|task| task.readable_id.as_str()).collect();
    for task in tasks {
        if let Some(parent) = task.parents.iter().find(|parent| !known.contains(parent.as_str())) {
            let text =
                format!("dag parent not found: parent step '{parent}' not found for step '{}'", task.readable_id);
            return Err(StatusError::invalid(text));
        }
    }
    let has_duplicates = |names: &mut Vec<&str>| {
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        names.len() < count
    };
    let mut names: Vec<_> = tasks.iter().chain(&definition.on_failure).map(|task| task.readable_id.as_str()).collect();
    let same_parent =
        tasks.iter().any(|task| has_duplicates(&mut task.parents.iter().map(String::as_str).collect::<Vec<_>>()));
    let on_failure_parents = definition.on_failure.as_ref().is_some_and(|task| !task.parents.is_empty());
    if tasks.is_empty() || has_duplicates(&mut names) || same_parent || on_failure_parents || has_cycle(definition) {
        return Err(StatusError::internal());
    }
    Ok(())
}

/// Removes tasks without remaining parents, until none remains or none can be removed.
fn has_cycle(definition: &Definition) -> bool {
    let mut remaining: BTreeMap<_, _> =
        definition.tasks.iter().map(|task| (task.readable_id.as_str(), &task.parents)).collect();
    loop {
        let free =
            remaining.iter().find(|(_, parents)| !parents.iter().any(|parent| remaining.contains_key(parent.as_str())));
        match free.map(|(name, _)| *name) {
            Some(name) => remaining.remove(name),
            None => return !remaining.is_empty(),
        };
    }
}
