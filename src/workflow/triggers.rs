//! What a definition says beside its code and its limits: what starts its runs, which of them are one, and where they go.

use serde::Serialize;

use super::dag::Workflow;
use super::task::Task;
use crate::client::Client;
use crate::model::cron::{Expression, Problem};
use crate::model::payload::encode_input;
use crate::model::{DesiredLabel, Idempotency};
use crate::rpc::grpc_types::NewWorkflow;

/// Whether the tasks of a run stay on one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sticky {
    /// On the same one if that is possible.
    Soft,
    /// On the same one, or none: a task that cannot have it waits until its schedule timeout.
    Hard,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Triggers {
    events: Vec<String>,
    crons: Vec<String>,
    /// What the runs of crons get, or why that cannot be written.
    cron_input: Option<Result<String, String>>,
    sticky: Option<Sticky>,
    idempotency: Option<Idempotency>,
}

impl Triggers {
    /// What the server would refuse, or answer with an internal error.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (at, key) in self.events.iter().enumerate() {
            if key.is_empty() || key.contains('\0') {
                problems.push(format!("event: found the key {key:?}, accepted: a text without U+0000"));
            }
            if self.events.iter().take(at).any(|other| other == key) {
                problems.push(format!("event: found the key {key:?} twice, accepted: once"));
            }
        }
        for (at, cron) in self.crons.iter().enumerate() {
            // Which time zones there are, the server knows.
            if let Err(Problem(problem)) = Expression::parse(cron) {
                problems.push(format!("cron: {problem} (in {cron:?})"));
            }
            if self.crons.iter().take(at).any(|other| other == cron) {
                problems.push(format!("cron: found {cron:?} twice, accepted: once"));
            }
        }
        if let Some(Err(problem)) = &self.cron_input {
            problems.push(format!("cron: {problem}"));
        }
        problems.extend(self.idempotency.as_ref().and_then(Idempotency::problem));
        problems
    }

    /// Puts them into a definition.
    pub(super) fn apply(&self, client: &Client, workflow: NewWorkflow) -> NewWorkflow {
        // Without an input its runs would get null, which is nothing to most tasks.
        let input = self.cron_input.clone().and_then(Result::ok).unwrap_or_else(|| "{}".into());
        NewWorkflow {
            events: self.events.iter().map(|key| client.prefixed(key)).collect(),
            crons: self.crons.clone(),
            cron_input: (!self.crons.is_empty()).then_some(input),
            sticky: self.sticky.map(|sticky| sticky == Sticky::Hard),
            idempotency: self.idempotency.as_ref().map(Idempotency::to_server),
            ..workflow
        }
    }
}

/// The same for a task, which is a workflow of its own, and for a workflow of several.
macro_rules! triggers {
    ($name:ident) => {
        impl<I, O> $name<I, O> {
            /// Starts a run for each event with this key, which becomes its input; given several times, for any of them.
            ///
            /// `*` stands for any text, also for none. The engine reads `_` as any one character and `%` as any text, too: an event
            /// `orderXmade` starts what listens to `order_made`. An event that two of a task's keys mean starts two runs. A namespace
            /// is put before the key, as it is before those of pushed events.
            ///
            /// ```
            /// use hatchet::{Context, Task};
            /// # #[derive(serde::Serialize, serde::Deserialize)]
            /// # struct Order { id: String }
            ///
            /// let ship = Task::new("ship", async |order: Order, _: Context| Ok(order.id)).on_event("order:paid").on_event("order:retry:*");
            /// ```
            #[must_use]
            pub fn on_event(self, key: impl Into<String>) -> Self {
                self.with_rules(|rules| rules.triggers.events.push(key.into()))
            }

            /// Starts a run at each time that the expression names; given several times, at any of them.
            ///
            /// Five fields (minute, hour, day, month, weekday, where Sunday is 0), or six with seconds first; names such as `MON` and
            /// `JAN`, lists, ranges and steps. Times are UTC unless it begins with `TZ=Europe/Oslo` or the like.
            ///
            /// The runs get what [`cron_input`](Self::cron_input) says.
            #[must_use]
            pub fn cron(self, expression: impl Into<String>) -> Self {
                self.with_rules(|rules| rules.triggers.crons.push(expression.into()))
            }

            /// What the runs of all its [crons](Self::cron) are started with; an empty object without it.
            #[must_use]
            pub fn cron_input(self, input: &I) -> Self
            where
                I: Serialize,
            {
                let input = encode_input("input", input).map_err(|error| error.to_string());
                self.with_rules(|rules| rules.triggers.cron_input = Some(input))
            }

            /// Lets only one run be started for a key; see [`Idempotency`].
            #[must_use]
            pub fn idempotency(self, idempotency: Idempotency) -> Self {
                self.with_rules(|rules| rules.triggers.idempotency = Some(idempotency))
            }

            /// Keeps the tasks of a run on one worker: the one that the run asks for
            /// ([`RunBuilder::desired_worker`](crate::RunBuilder::desired_worker)), or the one that had the first of them.
            #[must_use]
            pub fn sticky(self, sticky: Sticky) -> Self {
                self.with_rules(|rules| rules.triggers.sticky = Some(sticky))
            }
        }
    };
}

triggers!(Task);
triggers!(Workflow);

impl<I, O> Task<I, O> {
    /// Asks for workers with a label; see [`DesiredLabel`]. A run can ask for others.
    #[must_use]
    pub fn desired_label(self, key: impl Into<String>, label: impl Into<DesiredLabel>) -> Self {
        self.with(|definition| {
            definition.labels.insert(key.into(), label.into());
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Context, Definition};
    use super::*;

    fn task() -> Task<Option<u8>, ()> {
        Task::new("work", async |_: Option<u8>, _: Context| Ok(()))
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let fine = task()
            .on_event("a:*")
            .on_event("b")
            .cron("0 9 * * MON")
            .cron("TZ=Europe/Oslo */5 * * * * *")
            .cron_input(&None);
        assert_eq!(Definition::from(&fine).problems(), Vec::<String>::new());
        let bad = task()
            .on_event("")
            .on_event("a")
            .on_event("a")
            .cron("@daily")
            .cron("0 9 * * 7")
            .cron("* * * * *")
            .cron("* * * * *")
            .cron_input(&Some(1))
            .idempotency(Idempotency::for_time("input.id", Duration::ZERO))
            .desired_label("", "x");
        let problems = Definition::from(&bad).problems();
        for text in [
            "event: found the key \"\"",
            "\"a\" twice",
            "found 1 fields, accepted: 5, or 6 with seconds first (in \"@daily\")",
            "found \"7\" as its weekday, accepted: 0 to 6, *, lists, ranges and steps (in \"0 9 * * 7\")",
            "\"* * * * *\" twice",
            "cron: invalid input: found 1, accepted: a JSON object",
            "idempotency: found 0ns",
            "invalid label",
        ] {
            assert!(
                problems.iter().any(|problem| problem.contains(" \"work\": ") && problem.contains(text)),
                "{text}: {problems:#?}"
            );
        }
        assert_eq!(problems.len(), 8, "{problems:#?}");
    }
}
