//! The graph of the tasks of a workflow.

use std::collections::BTreeMap;

use super::definition::TaskNode;

/// A task of a cycle, or one that depends on a cycle: it can never start.
pub(super) fn find_cycle(tasks: &[TaskNode]) -> Option<&str> {
    let known = |name: &str| tasks.iter().any(|node| node.task.name == name);
    let mut waiting: BTreeMap<&str, Vec<&str>> = tasks
        .iter()
        .map(|node| {
            let parents = node.parents.iter().map(String::as_str).filter(|parent| known(parent));
            (node.task.name.as_str(), parents.collect())
        })
        .collect();
    loop {
        let ready: Vec<_> = waiting.iter().filter(|(_, parents)| parents.is_empty()).map(|(name, _)| *name).collect();
        if ready.is_empty() {
            return waiting.into_keys().next();
        }
        for name in &ready {
            waiting.remove(name);
        }
        for parents in waiting.values_mut() {
            parents.retain(|parent| !ready.contains(parent));
        }
    }
}

/// The names of the tasks on which no other task depends.
pub(super) fn leaves(tasks: &[TaskNode]) -> Vec<String> {
    let has_dependents = |name: &String| tasks.iter().any(|node| node.parents.contains(name));
    tasks.iter().map(|node| &node.task.name).filter(|name| !has_dependents(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Context, Definition, Task, Workflow};
    use super::*;

    fn task(name: &str) -> Task<(), ()> {
        Task::new(name, async |(): (), _: Context| Ok(()))
    }

    #[test]
    fn leaves_have_no_dependents() {
        let flow = Workflow::<()>::new("w").task(&task("a")).task_after(&task("b"), "a").task(&task("c"));
        assert_eq!(leaves(&Definition::from(&flow).tasks), ["b", "c"]);
    }

    proptest! {
        /// Edges that all go forward make no cycle, and one that closes a path does.
        #[test]
        fn exactly_the_cycles_are_found(edges in proptest::collection::btree_set((0usize..8, 0usize..8), 0..20)) {
            let forward = |from: usize| edges.iter().filter(move |(a, b)| a < b && *b == from).map(|(a, _)| format!("t{a}"));
            let mut flow: Workflow<()> = Workflow::new("w");
            for at in 0..8 {
                flow = flow.task_after(&task(&format!("t{at}")), forward(at).collect::<Vec<_>>());
            }
            let definition = Definition::from(&flow);
            prop_assert_eq!(find_cycle(&definition.tasks), None);
            if let Some((a, b)) = edges.iter().find(|(a, b)| a < b) {
                let mut closed = definition.clone();
                closed.tasks[*a].parents.push(format!("t{b}"));
                prop_assert!(find_cycle(&closed.tasks).is_some());
            }
        }
    }
}
