//! Options for all tasks of a workflow.

use std::sync::Arc;
use std::time::Duration;

use super::definition::TaskDefinition;
use super::task_options::{TaskOptions, backoff_problems};

/// Options for the tasks of a workflow that do not set them themselves; see [`Workflow::task_defaults`](crate::Workflow::task_defaults).
///
/// ```
/// use std::time::Duration;
/// use hatchet::workflow::TaskDefaults;
/// use hatchet::{Context, Task, Workflow};
///
/// let defaults = TaskDefaults::new().retries(3).backoff(2.0, Duration::from_secs(60)).timeout(Duration::from_secs(10));
/// let fetch = Task::new("fetch", async |(): (), _: Context| Ok(())); // is retried 3 times
/// let pay = Task::new("pay", async |(): (), _: Context| Ok(())).retries(0);
/// let flow = Workflow::<()>::new("flow").task(&fetch).task_after(&pay, &fetch).task_defaults(defaults);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use = "defaults have no effect before they are added to a workflow"]
pub struct TaskDefaults {
    retries: Option<u32>,
    timeout: Option<Duration>,
    schedule_timeout: Option<Duration>,
    backoff: Option<(f32, Duration)>,
}

impl TaskDefaults {
    /// Creates defaults in which no option is set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the retries of tasks without [`Task::retries`](crate::Task::retries).
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = Some(retries);
        self
    }

    /// Sets the execution timeout of tasks without [`Task::timeout`](crate::Task::timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the schedule timeout of tasks without [`Task::schedule_timeout`](crate::Task::schedule_timeout).
    pub fn schedule_timeout(mut self, timeout: Duration) -> Self {
        self.schedule_timeout = Some(timeout);
        self
    }

    /// Sets the backoff of tasks that have retries and no [`Task::backoff`](crate::Task::backoff).
    pub fn backoff(mut self, factor: f32, max_delay: Duration) -> Self {
        self.backoff = Some((factor, max_delay));
        self
    }

    /// The problems that concern no single task.
    pub(super) fn problems<'a>(&self, mut tasks: impl Iterator<Item = &'a Arc<TaskDefinition>>) -> Vec<String> {
        let Some(backoff) = self.backoff else { return Vec::new() };
        if tasks.any(|task| task.options.max_retries() > 0) {
            // The tasks report the problems of the backoff.
            return Vec::new();
        }
        let mut problems = backoff_problems(backoff);
        problems.push("backoff: expected a task with retries, got none".into());
        problems.into_iter().map(|problem| format!("task defaults: {problem}")).collect()
    }

    /// A task with these defaults.
    pub(super) fn apply(&self, task: &Arc<TaskDefinition>) -> Arc<TaskDefinition> {
        if *self == Self::default() {
            return Arc::clone(task);
        }
        let own = &task.options;
        let retries = own.retries.or(self.retries);
        let options = TaskOptions {
            retries,
            timeout: own.timeout.or(self.timeout),
            schedule_timeout: own.schedule_timeout.or(self.schedule_timeout),
            backoff: own.backoff().or(self.backoff.filter(|_| retries.is_some_and(|retries| retries > 0))),
            ..own.clone()
        };
        Arc::new(TaskDefinition { options, ..(**task).clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Context, Definition, Task, Workflow};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn task(name: &str) -> Task<(), ()> {
        Task::new(name, async |(): (), _: Context| Ok(()))
    }

    #[test]
    fn a_task_keeps_its_own_options() {
        let defaults = TaskDefaults::new().retries(3).timeout(SECOND).schedule_timeout(SECOND * 2).backoff(2.0, SECOND);
        let own = task("own").retries(1).timeout(SECOND * 5).schedule_timeout(SECOND * 6).backoff(3.0, SECOND * 7);
        let flow = Workflow::<()>::new("flow").task(&own).task(&task("plain")).task(&task("once").retries(0));
        let definition = Definition::from(&flow.on_failure(&task("tidy")).task_defaults(defaults));
        assert_eq!(definition.problems(), Vec::<String>::new());
        let options: Vec<_> = definition
            .all_tasks()
            .map(|task| &task.options)
            .map(|own| (own.max_retries(), own.timeout, own.schedule_timeout, own.backoff))
            .collect();
        let plain = (3, Some(SECOND), Some(SECOND * 2), Some((2.0, SECOND)));
        assert_eq!(
            options,
            [
                (1, Some(SECOND * 5), Some(SECOND * 6), Some((3.0, SECOND * 7))),
                plain,
                (0, Some(SECOND), Some(SECOND * 2), None),
                plain,
            ]
        );
    }

    #[test]
    fn defaults_without_effect_are_rejected() {
        let flow = |defaults| {
            Definition::from(&Workflow::<()>::new("flow").task(&task("a")).task_defaults(defaults)).problems()
        };
        assert_eq!(
            flow(TaskDefaults::new().backoff(0.0, SECOND)),
            [
                "workflow \"flow\": task defaults: backoff factor: expected 1 to 1000, got 0",
                "workflow \"flow\": task defaults: backoff: expected a task with retries, got none",
            ]
        );
        assert_eq!(
            flow(TaskDefaults::new().retries(1).backoff(0.0, SECOND)),
            ["task \"a\": backoff factor: expected 1 to 1000, got 0"]
        );
    }
}
