//! The conditions of a task in a workflow.

use super::super::task::Task;
use crate::model::{Condition, Conditions};

impl<I, O> Task<I, O> {
    /// Adds a condition that must be satisfied before the task starts.
    ///
    /// With several conditions, all must be satisfied; [`Condition::or`] adds alternatives.
    ///
    /// A condition on a parent replaces the rule that this parent must have completed. If its expression is false, the task and its run
    /// wait forever: use [`skip_if`](Self::skip_if) for a task that may not be needed. The [schedule timeout](Self::schedule_timeout) does
    /// not apply to this wait.
    ///
    /// In engine v0.104.7 and earlier, and possibly in later versions, a run whose task waits for a sleep or an event cannot be cancelled; the
    /// [report](crate::builder::CancelBuilder::send) then has [`Effect::NoEffect`](crate::model::Effect::NoEffect).
    ///
    /// Conditions are possible only in a [`Workflow`](crate::Workflow) with several tasks: the engine never creates the run of a single task
    /// with conditions.
    ///
    /// ```
    /// use std::time::Duration;
    /// use hatchet::workflow::Condition;
    /// use hatchet::{Context, Task};
    ///
    /// let remind: Task<(), ()> =
    ///     Task::new("remind", async |(): (), _: Context| Ok(())).wait_for(Condition::sleep(Duration::from_secs(3600)));
    /// ```
    #[must_use]
    pub fn wait_for(self, condition: Condition) -> Self {
        self.with_conditions(|conditions| conditions.wait_for.push(condition))
    }

    /// Adds a condition that skips the task.
    ///
    /// With several conditions, the task is skipped if all are satisfied; [`Condition::or`] adds alternatives. If the `wait_for` and the
    /// `skip_if` conditions of a task are satisfied at the same time, the task is skipped.
    ///
    /// A skipped task counts as completed with the output `{"skipped":true}`. A task whose parents were all skipped is skipped, too, unless
    /// it has its own `skip_if` condition on a parent. [`Context::was_skipped`](crate::Context::was_skipped) returns whether a parent was skipped.
    ///
    /// A sleep or an event in `skip_if` requires a sleep or an event in [`wait_for`](Self::wait_for): otherwise the task would never run.
    /// [`WorkerBuilder::build`](crate::worker::WorkerBuilder::build) rejects such a task.
    ///
    /// ```
    /// use hatchet::workflow::Condition;
    /// use hatchet::{Context, Task};
    ///
    /// let check = Task::new("check", async |(): (), _: Context| Ok(12));
    /// let refund: Task<(), ()> =
    ///     Task::new("refund", async |(): (), _: Context| Ok(())).skip_if(Condition::parent(&check, "output._value < 10"));
    /// ```
    #[must_use]
    pub fn skip_if(self, condition: Condition) -> Self {
        self.with_conditions(|conditions| conditions.skip_if.push(condition))
    }

    /// Adds a condition that cancels the task.
    ///
    /// With several conditions, the task is cancelled if all are satisfied; [`Condition::or`] adds alternatives. The tasks after it are
    /// cancelled, too, and the run ends as cancelled, without an error message. Other tasks continue.
    ///
    /// A sleep or an event in `cancel_if` requires a sleep or an event in [`wait_for`](Self::wait_for): otherwise the task would never run.
    /// [`WorkerBuilder::build`](crate::worker::WorkerBuilder::build) rejects such a task.
    #[must_use]
    pub fn cancel_if(self, condition: Condition) -> Self {
        self.with_conditions(|conditions| conditions.cancel_if.push(condition))
    }

    fn with_conditions(self, change: impl FnOnce(&mut Conditions)) -> Self {
        self.with(|definition| change(&mut definition.options.conditions))
    }
}
