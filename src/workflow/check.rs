//! The checks of a definition: all that the engine would reject, answer with an internal error, or ignore without an error.

use std::collections::{BTreeMap, BTreeSet};

use super::definition::{Definition, TaskDefinition, TaskNode};
use super::graph;
use crate::model::name::{ACCEPTED, is_name};

impl TaskDefinition {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !is_name(&self.name) {
            problems.push(format!("name: expected {ACCEPTED}, got {:?}", self.name));
        }
        problems.extend(self.options.problems());
        if let Some(what) = self.handler.non_object_input() {
            problems.push(format!(
                "input type: expected a type that deserializes from a JSON object, or (), got one that deserializes from {what}"
            ));
        }
        self.named(problems).collect()
    }

    fn named(&self, problems: Vec<String>) -> impl Iterator<Item = String> {
        problems.into_iter().map(|problem| format!("task {:?}: {problem}", self.name))
    }
}

impl Definition {
    /// All problems, each with the name of the workflow or the task.
    pub(crate) fn problems(&self) -> Vec<String> {
        let own = self.workflow_problems().into_iter().map(|problem| format!("workflow {:?}: {problem}", self.name));
        let mut problems: Vec<_> = self.problems.iter().cloned().chain(own).collect();
        problems.extend(self.all_tasks().flat_map(|task| task.problems()));
        problems.extend(self.condition_problems());
        problems
    }

    /// Tasks that request more slots of a type than a worker has. The engine would never assign them to it. A worker may lack a type:
    /// then it runs the other tasks of the workflow.
    pub(crate) fn slot_problems(&self, slots: &BTreeMap<String, u32>) -> Vec<String> {
        let problems = self.all_tasks().flat_map(|task| {
            let requests = task.options.slots.iter();
            let missing =
                requests.filter_map(|(name, count)| Some((name, count, slots.get(name).filter(|has| *has < count)?)));
            let text = |(name, count, has)| {
                format!("slots: expected at most {has} of type {name:?}, as many as the worker has, got {count}")
            };
            task.named(missing.map(text).collect()).collect::<Vec<_>>()
        });
        problems.collect()
    }

    fn workflow_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !is_name(&self.name) && !self.all_tasks().any(|task| task.name == self.name) {
            problems.push(format!("name: expected {ACCEPTED}, got {:?}", self.name));
        }
        problems.extend(self.options.problems());
        problems.extend(self.cron_input_problems());
        if self.tasks.is_empty() {
            problems.push("expected at least one task, got none".into());
        }
        // The engine distinguishes a task from a workflow with one task by the name only.
        if let (Some(only), true) = (self.only_task(), self.is_workflow)
            && only.name == self.name
        {
            problems.push(
                "the only task of a workflow must not have the name of the workflow: rename the task, or register the task instead of the \
                 workflow"
                    .into(),
            );
        }
        let mut names = BTreeSet::new();
        for task in self.all_tasks() {
            if !names.insert(task.name.to_lowercase()) {
                problems.push(format!(
                    "expected task names that are unique regardless of case, got a second task named {:?}",
                    task.name
                ));
            }
        }
        problems.extend(self.graph_problems());
        problems
    }

    fn graph_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for TaskNode { task, parents } in &self.tasks {
            for (at, parent) in parents.iter().enumerate() {
                if !self.tasks.iter().any(|other| other.task.name == *parent) {
                    problems.push(format!(
                        "task {:?}: expected a task of the workflow as a parent, got {parent:?}",
                        task.name
                    ));
                }
                if parents.iter().take(at).any(|other| other == parent) {
                    problems.push(format!("task {:?}: expected each parent once, got {parent:?} twice", task.name));
                }
            }
        }
        if let Some(name) = graph::find_cycle(&self.tasks) {
            problems.push(format!(
                "task {name:?}: expected an acyclic graph, got a task that is part of a cycle or depends on one"
            ));
        }
        problems
    }

    /// The runs of crons without an input receive `{}`.
    fn cron_input_problems(&self) -> Vec<String> {
        if !self.options.start.has_crons_without_input() {
            return Vec::new();
        }
        let rejected =
            self.tasks.iter().filter_map(|node| Some((&node.task.name, node.task.handler.empty_input_error()?)));
        let problem = |(name, error)| {
            format!(
                "cron: expected cron_input, or an input type that deserializes from {{}}, got neither for task {name:?}: {error}"
            )
        };
        rejected.map(problem).collect()
    }

    fn condition_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(only) = self.only_task()
            && !only.options.conditions.is_empty()
        {
            let text = "conditions: expected a workflow with several tasks, or with an on-failure task, got a single task: the engine \
                        would never create its runs";
            return only.named(vec![text.to_owned()]).collect();
        }
        for TaskNode { task, parents } in &self.tasks {
            problems.extend(task.named(task.options.conditions.problems(parents)));
        }
        if let Some(task) = self.on_failure.as_deref().filter(|task| !task.options.conditions.is_empty()) {
            let text = "conditions: expected none for the on-failure task, for which the engine ignores them";
            problems.extend(task.named(vec![text.to_owned()]));
        }
        problems
    }

    /// The task of a definition whose runs are no DAG runs.
    fn only_task(&self) -> Option<&TaskDefinition> {
        match (self.tasks.as_slice(), &self.on_failure) {
            ([only], None) => Some(&only.task),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Condition, Context, Task, Workflow};
    use super::*;
    use crate::model::Priority;

    fn task(name: &str) -> Task<(), ()> {
        Task::new(name, async |(): (), _: Context| Ok(()))
    }

    #[test]
    fn all_problems_are_reported_together() {
        assert!(Definition::from(&task("work")).problems().is_empty());
        let bad = task("a b")
            .retries(u32::MAX)
            .timeout(Duration::ZERO)
            .schedule_timeout(Duration::MAX)
            .backoff(0.5, Duration::from_millis(10));
        let problems = Definition::from(&bad).problems();
        assert_eq!(problems.len(), 6, "{problems:#?}");
        assert!(problems.iter().all(|problem| problem.starts_with("task \"a b\": ")));
    }

    #[test]
    fn a_dag_that_the_engine_would_reject_is_rejected_with_all_reasons() {
        let fine: Workflow<()> =
            Workflow::new("fine").task_after(&task("b"), ["a"]).task(&task("a")).on_failure(&task("tidy"));
        assert!(Definition::from(&fine).problems().is_empty(), "parents may be named before they are defined");
        let priority = task("urgent").default_priority(Priority::High);
        let bad: Workflow<()> = Workflow::new("b d")
            .task_after(&task("a"), ["b"])
            .task_after(&task("b"), ["a", "a", "nobody"])
            .task(&task("A"))
            .task(&priority)
            .on_failure(&task("b"));
        let problems = Definition::from(&bad).problems().join("\n");
        for text in [
            "got \"b d\"",
            "got a second task named \"A\"",
            "got a second task named \"b\"",
            "task \"b\": expected each parent once, got \"a\" twice",
            "expected a task of the workflow as a parent, got \"nobody\"",
            "task \"a\": expected an acyclic graph",
            "task \"urgent\": expected the default priority on the workflow",
        ] {
            assert!(problems.contains(text), "{text}: {problems}");
        }
        assert!(
            Definition::from(&Workflow::<()>::new("none")).problems()[0]
                .ends_with("expected at least one task, got none")
        );
        let same: Workflow<()> = Workflow::new("same").task(&task("same"));
        assert!(Definition::from(&same).problems()[0].contains("must not have the name of the workflow"));
    }

    #[test]
    fn tasks_fit_into_the_slots_of_their_worker() {
        let slots = BTreeMap::from([("default".to_owned(), 4), ("gpu".to_owned(), 1)]);
        let flow = Workflow::<()>::new("flow").task(&task("a").slots(4)).task(&task("b").slots(5));
        let flow = flow.task(&task("c").slot_request("gpu", 2)).task(&task("d").slot_request("tpu", 9));
        assert_eq!(
            Definition::from(&flow).slot_problems(&slots),
            [
                "task \"b\": slots: expected at most 4 of type \"default\", as many as the worker has, got 5",
                "task \"c\": slots: expected at most 1 of type \"gpu\", as many as the worker has, got 2",
            ]
        );
    }

    #[test]
    fn conditions_that_have_no_effect_are_rejected() {
        let waiting = task("b").wait_for(Condition::event("k"));
        let single = "task \"b\": conditions: expected a workflow with several tasks, or with an on-failure task, got a single task: the \
                      engine would never create its runs";
        assert_eq!(Definition::from(&waiting).problems(), [single]);
        assert_eq!(Definition::from(&Workflow::<()>::new("one").task(&waiting)).problems(), [single]);
        let with_failure = Workflow::<()>::new("two").task(&waiting).on_failure(&task("tidy"));
        assert_eq!(Definition::from(&with_failure).problems(), Vec::<String>::new());
        let on_failure = Workflow::<()>::new("flow").task(&task("a")).on_failure(&waiting);
        assert_eq!(
            Definition::from(&on_failure).problems(),
            ["task \"b\": conditions: expected none for the on-failure task, for which the engine ignores them"]
        );
        let stranger = task("b").skip_if(Condition::parent(task("a"), "output.x"));
        let flow = Workflow::<()>::new("flow").task(&task("a")).task(&stranger);
        assert_eq!(
            Definition::from(&flow).problems(),
            ["task \"b\": skip_if: expected a parent of the task, got \"a\""]
        );
    }

    #[test]
    fn runs_of_crons_have_an_input() {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Day {
            day: u8,
        }
        let report: Task<Day, u8> = Task::new("report", async |day: Day, _: Context| Ok(day.day)).cron("0 9 * * *");
        assert_eq!(
            Definition::from(&report).problems(),
            [
                "workflow \"report\": cron: expected cron_input, or an input type that deserializes from {}, got neither for task \"report\": \
              missing field `day` at line 1 column 2"
            ]
        );
        assert_eq!(Definition::from(&report.cron_input(&Day { day: 1 })).problems(), Vec::<String>::new());
        let any: Task<Option<Day>, ()> = Task::new("any", async |_: Option<Day>, _: Context| Ok(())).cron("0 9 * * *");
        assert!(Definition::from(&any).problems().is_empty());
        assert!(Definition::from(&task("unit").cron("0 9 * * *")).problems().is_empty());
    }
}
