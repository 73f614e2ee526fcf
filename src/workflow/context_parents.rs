//! What a task receives from its parents, its conditions and its filter.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::context::Context;
use super::task::Task;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Payload;
use crate::model::task_name::TaskName;

/// The part of an assignment's payload that is about other tasks, conditions and filters.
#[derive(Deserialize)]
struct Received<'a> {
    #[serde(default, borrow)]
    parents: Option<BTreeMap<String, &'a RawValue>>,
    #[serde(default, borrow)]
    triggers: Option<BTreeMap<String, &'a RawValue>>,
}

/// The output of a skipped task, which has no other field.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Skipped {
    skipped: bool,
}

impl Context {
    /// Returns the output of a parent task, deserialized as the output type of the task. The JSON is parsed on every call.
    ///
    /// ```
    /// use hatchet::{Context, Task, Workflow};
    ///
    /// let reserve = Task::new("reserve", async |(): (), _: Context| Ok("shelf 7".to_owned()));
    /// let ship = Task::new("ship", {
    ///     let reserve = reserve.clone();
    ///     move |(): (), context: Context| {
    ///         let shelf = context.output_of(&reserve); // a `String`
    ///         async move { Ok(format!("from {}", shelf?)) }
    ///     }
    /// });
    /// let flow = Workflow::<()>::new("order").task(&reserve).task_after(&ship, &reserve);
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the task is not a parent of this one, was [skipped](Self::was_skipped), or has no output.
    /// [`Decode`](ErrorKind::Decode) if the output does not match the type. A task that returns one of these errors is not retried, because
    /// each attempt would get the same error.
    pub fn output_of<I, O: DeserializeOwned>(&self, task: &Task<I, O>) -> Result<O> {
        self.parent_output(task)
    }

    /// Returns the output of a parent task, deserialized as the output type of the task, or `None` if the task was skipped.
    ///
    /// ```
    /// use hatchet::workflow::Condition;
    /// use hatchet::{Context, Task, Workflow};
    ///
    /// let check = Task::new("check", async |(): (), _: Context| Ok(5));
    /// let refund = Task::new("refund", async |(): (), _: Context| Ok(12.5));
    /// let refund = refund.skip_if(Condition::parent(&check, "output._value < 10"));
    /// let report = Task::new("report", {
    ///     let refund = refund.clone();
    ///     move |(): (), context: Context| {
    ///         let refund = refund.clone();
    ///         async move { Ok(context.output_unless_skipped(&refund)?.unwrap_or_default()) }
    ///     }
    /// });
    /// let flow = Workflow::<()>::new("flow").task(&check).task_after(&refund, &check);
    /// let flow = flow.task_after(&report, (&check, &refund));
    /// ```
    ///
    /// # Errors
    /// The errors of [`output_of`](Self::output_of), except the error for a skipped task.
    pub fn output_unless_skipped<I, O: DeserializeOwned>(&self, task: &Task<I, O>) -> Result<Option<O>> {
        if self.was_skipped(task)? { Ok(None) } else { self.parent_output(task).map(Some) }
    }

    /// Returns the output of a parent, deserialized as `T`. The JSON is parsed on every call.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// let charge = Task::new("charge", async |(): (), context: Context| {
    ///     let shelf: u32 = context.parent_output("reserve")?;
    ///     Ok(shelf)
    /// });
    /// ```
    ///
    /// # Errors
    /// The errors of [`output_of`](Self::output_of).
    pub fn parent_output<T: DeserializeOwned>(&self, task: impl TaskName) -> Result<T> {
        let name = task.task_name();
        let output = self.received_output(name)?;
        if is_skipped(output) {
            let text = format!("task {name:?} was skipped, so it has no output");
            return Err(Error::new(ErrorKind::NotFound, text).deterministic());
        }
        parse(&Payload::output(output.get()), &format_args!("the output of the parent {name:?}"))
    }

    /// Returns whether a parent task was skipped. The JSON is parsed on every call.
    ///
    /// The output of a skipped task is `{"skipped":true}`. A task that returns exactly this object counts as skipped, too.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the task is not a parent of this one, or has no output.
    pub fn was_skipped(&self, task: impl TaskName) -> Result<bool> {
        Ok(is_skipped(self.received_output(task.task_name())?))
    }

    /// Returns the data of a [condition](Task::wait_for) by its [name](super::Condition::named), or `None` if another alternative was
    /// satisfied instead.
    ///
    /// The data of an event is its payload.
    ///
    /// The engine passes the data only to the task that has the condition, not to later tasks, and never to a task without parents.
    ///
    /// ```
    /// use hatchet::workflow::Condition;
    /// use hatchet::{Context, Task};
    /// use std::time::Duration;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Payment { amount: f64 }
    ///
    /// let ship: Task<(), bool> = Task::new("ship", async |(): (), context: Context| {
    ///     let payment: Option<Payment> = context.condition_data("paid")?;
    ///     Ok(payment.is_some_and(|payment| payment.amount > 5.0))
    /// });
    /// let paid = Condition::event("order:paid").named("paid");
    /// let ship = ship.wait_for(paid.or(Condition::sleep(Duration::from_secs(3600))));
    /// ```
    ///
    /// # Errors
    /// [`Decode`](ErrorKind::Decode) if the data does not match the type.
    pub fn condition_data<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let triggers = self.received()?.triggers.unwrap_or_default();
        let data = triggers.get(name).filter(|data| data.get() != "null");
        data.map(|data| parse(&Payload::input(data.get()), &format_args!("the data of the condition {name:?}")))
            .transpose()
    }

    /// Returns the [payload](super::EventFilter::payload) of the filter that matched the event of this run, or `None` if there was no filter.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Region { currency: String }
    ///
    /// let audit: Task<(), Option<String>> = Task::new("audit", async |(): (), context: Context| {
    ///     Ok(context.filter_payload::<Region>()?.map(|region| region.currency))
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Decode`](ErrorKind::Decode) if the payload does not match the type.
    pub fn filter_payload<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let triggers = self.received()?.triggers.unwrap_or_default();
        let payload = triggers.get("filter_payload").filter(|payload| payload.get() != "null");
        payload.map(|payload| parse(&Payload::input(payload.get()), &"the payload of the filter")).transpose()
    }

    /// The output of a parent. The engine may pass on that of another task, too, if it ended before this attempt was assigned.
    fn received_output(&self, name: &str) -> Result<&RawValue> {
        let is_parent = self.parents().is_none_or(|parents| parents.iter().any(|parent| parent == name));
        let parents = if is_parent { self.received()?.parents } else { None };
        parents.and_then(|parents| parents.get(name).copied()).ok_or_else(|| {
            let text = format!("task {name:?} is not a parent of task {:?}, or has no output", self.task_name());
            Error::new(ErrorKind::NotFound, text).deterministic()
        })
    }

    fn received(&self) -> Result<Received<'_>> {
        serde_json::from_str(self.payload()).map_err(|error| {
            Error::new(ErrorKind::Decode, "failed to parse the assignment").with_source(error).deterministic()
        })
    }
}

fn is_skipped(output: &RawValue) -> bool {
    matches!(serde_json::from_str(output.get()), Ok(Skipped { skipped: true }))
}

fn parse<T: DeserializeOwned>(payload: &Payload, name: &dyn Display) -> Result<T> {
    payload.parse_as(name).map_err(Error::deterministic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_engines_object_is_that_of_a_skipped_task() {
        let is_skipped = |text: &str| is_skipped(&RawValue::from_string(text.to_owned()).unwrap());
        assert!(is_skipped(r#"{"skipped": true}"#));
        for text in [r#"{"skipped":false}"#, r#"{"skipped":true,"y":1}"#, "{}", "null", r#"{"skipped":1}"#] {
            assert!(!is_skipped(text), "{text}");
        }
    }
}
