//! The options of a definition that concern its runs: events, crons, idempotency keys and stickiness.

use super::sticky::Sticky;
use crate::client::Client;
use crate::model::cron::{Expression, Problem};
use crate::model::{EventFilter, Idempotency};
use crate::rpc::convert::NewWorkflow;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct StartOptions {
    pub(super) events: Vec<String>,
    pub(super) filters: Vec<EventFilter>,
    pub(super) crons: Vec<String>,
    /// The input of the runs of crons, or the error of serializing it.
    pub(super) cron_input: Option<Result<String, String>>,
    pub(super) sticky: Option<Sticky>,
    pub(super) idempotency: Option<Idempotency>,
}

impl StartOptions {
    /// The names of the options that are set.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let options = [
            ("events", !self.events.is_empty()),
            ("default filters", !self.filters.is_empty()),
            ("crons", !self.crons.is_empty()),
            ("the input of crons", self.cron_input.is_some()),
            ("stickiness", self.sticky.is_some()),
            ("the idempotency key", self.idempotency.is_some()),
        ];
        options.into_iter().filter_map(|(name, is_set)| is_set.then_some(name))
    }

    pub(super) fn has_idempotency_key(&self) -> bool {
        self.idempotency.as_ref().is_some_and(Idempotency::outlasts_calls)
    }

    pub(super) fn has_crons_without_input(&self) -> bool {
        !self.crons.is_empty() && self.cron_input.is_none()
    }

    /// What the engine would reject, or answer with an internal error.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (at, key) in self.events.iter().enumerate() {
            if key.is_empty() || key.contains('\0') {
                problems.push(format!("event: expected a non-empty key without U+0000, got {key:?}"));
            }
            if self.events.iter().take(at).any(|other| other == key) {
                problems.push(format!("event: expected each key once, got {key:?} twice"));
            }
        }
        for (at, filter) in self.filters.iter().enumerate() {
            problems.extend(filter.problems());
            let is_same =
                |other: &EventFilter| (&other.expression, &other.scope) == (&filter.expression, &filter.scope);
            if self.filters.iter().take(at).any(is_same) {
                let (expression, scope) = (&filter.expression, &filter.scope);
                problems.push(format!(
                    "filter: expected each expression once per scope, got {expression:?} in {scope:?} twice"
                ));
            }
        }
        if !self.filters.is_empty() && self.events.is_empty() {
            problems.push("filter: expected an event key together with a filter, got none".into());
        }
        for (at, cron) in self.crons.iter().enumerate() {
            // Only the engine knows which time zones exist.
            if let Err(Problem(problem)) = Expression::parse(cron) {
                problems.push(format!("cron: {problem} (in {cron:?})"));
            }
            if self.crons.iter().take(at).any(|other| other == cron) {
                problems.push(format!("cron: expected each expression once, got {cron:?} twice"));
            }
        }
        if let Some(Err(problem)) = &self.cron_input {
            problems.push(format!("cron: {problem}"));
        }
        if self.cron_input.is_some() && self.crons.is_empty() {
            problems.push("cron_input: expected a cron together with its input, got none".into());
        }
        problems.extend(self.idempotency.as_ref().and_then(Idempotency::problem));
        problems
    }

    /// Adds them to a definition.
    pub(super) fn apply(&self, client: &Client, workflow: NewWorkflow) -> NewWorkflow {
        // Without an input, the runs would receive null, which most tasks cannot deserialize.
        let input = self.cron_input.clone().and_then(Result::ok).unwrap_or_else(|| "{}".into());
        NewWorkflow {
            events: self.events.iter().map(|key| client.prefixed(key)).collect(),
            filters: self.filters.clone(),
            crons: self.crons.clone(),
            cron_input: (!self.crons.is_empty()).then_some(input),
            sticky: self.sticky.map(|sticky| sticky == Sticky::Hard),
            idempotency: self.idempotency.clone(),
            ..workflow
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Context, Definition, Task};
    use super::*;

    fn task() -> Task<Option<u8>, ()> {
        Task::new("work", async |_: Option<u8>, _: Context| Ok(()))
    }

    #[test]
    fn all_problems_are_reported() {
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
            "event: expected a non-empty key without U+0000, got \"\"",
            "\"a\" twice",
            "expected 5 fields, or 6 with seconds first, got 1 (in \"@daily\")",
            "expected 0 to 6, *, lists, ranges and steps as the weekday, got \"7\" (in \"0 9 * * 7\")",
            "\"* * * * *\" twice",
            "cron: invalid input: expected a JSON object, got 1",
            "idempotency: expected 1 ms to 100 years, got 0ns",
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
