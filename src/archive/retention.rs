//! When runs are moved to the archive, and when they are removed from it.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::RunStatus;
use crate::time::MAX_DURATION;

/// The age at which runs are archived by default.
const DEFAULT_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

/// For how long runs are kept, by workflow: in the engine before they are [archived](super::Archive::collect), or in the archive before they
/// [expire](super::Archive::expire). The default is 90 days for all workflows.
///
/// The engine drops runs after a retention of its own, which is 30 days unless its operator has changed it. Runs must be archived before
/// that, so the age should be several days shorter. [`CollectReport::engine_retention`](super::CollectReport::engine_retention) is the
/// engine's retention, if the server shows it.
///
/// ```
/// use std::time::Duration;
/// use hatchet::archive::{Retention, Rule};
///
/// const DAY: Duration = Duration::from_secs(24 * 3600);
/// let retention = Retention::older_than(20 * DAY)
///     .workflow("import", Rule::older_than(2 * DAY).without_payloads())
///     .workflow("audit", Rule::keep_forever());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Retention {
    rule: Rule,
    workflows: BTreeMap<String, Rule>,
}

/// For how long the runs of a workflow are kept, and which of them; see [`Retention`].
///
/// ```
/// use std::time::Duration;
/// use hatchet::RunStatus;
/// use hatchet::archive::Rule;
///
/// let failed = Rule::older_than(Duration::from_secs(24 * 3600)).status(RunStatus::Failed);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Rule {
    /// `None` if runs are kept for ever.
    age: Option<Duration>,
    /// Empty for all.
    statuses: Vec<RunStatus>,
    without_payloads: bool,
}

impl Default for Retention {
    fn default() -> Self {
        Self::older_than(DEFAULT_AGE)
    }
}

impl Retention {
    /// Keeps runs until they have this age, counted from their creation. The maximum is ten years.
    pub fn older_than(age: Duration) -> Self {
        Self { rule: Rule::older_than(age), workflows: BTreeMap::new() }
    }

    /// Keeps all runs for ever, except for those of [workflows](Self::workflow) with a rule.
    pub fn keep_forever() -> Self {
        Self { rule: Rule::keep_forever(), workflows: BTreeMap::new() }
    }

    /// Sets the rule of the workflows that have none of their own.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rule = rule;
        self
    }

    /// Sets the rule of a workflow, by its name without the namespace.
    pub fn workflow(mut self, name: impl Into<String>, rule: Rule) -> Self {
        self.workflows.insert(name.into(), rule);
        self
    }

    /// The rule of a workflow.
    pub(super) fn of(&self, workflow: &str) -> &Rule {
        self.workflows.get(workflow).unwrap_or(&self.rule)
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        std::iter::once(&self.rule).chain(self.workflows.values())
    }

    /// Creation times up to this one can be due. `None` if no run ever is.
    pub(super) fn last_due(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.rules().filter_map(|rule| rule.last_due(now)).max()
    }

    /// The workflows that have rules, if no other workflow's runs are ever due.
    pub(super) fn only_workflows(&self) -> Option<impl Iterator<Item = &str>> {
        let names = self.workflows.iter().filter(|(_, rule)| rule.age.is_some()).map(|(name, _)| name.as_str());
        self.rule.age.is_none().then_some(names)
    }

    /// The longest age of the rules.
    pub(super) fn longest(&self) -> Option<Duration> {
        self.rules().filter_map(|rule| rule.age).max()
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.rules().filter_map(|rule| rule.age).find(|age| *age > MAX_DURATION) {
            Some(age) => Err(Error::invalid("retention", format_args!("expected at most 10 years, got {age:?}"))),
            None => Ok(()),
        }
    }

    /// Checks that the rules select by age alone.
    pub(super) fn check_ages_only(&self) -> Result<()> {
        self.check()?;
        if self.rules().any(|rule| !rule.statuses.is_empty() || rule.without_payloads) {
            return Err(Error::invalid(
                "retention",
                "expected rules with an age only, because whole days expire, got a rule with statuses or without payloads",
            ));
        }
        Ok(())
    }
}

impl Rule {
    /// Keeps runs until they have this age.
    pub fn older_than(age: Duration) -> Self {
        Self { age: Some(age), statuses: Vec::new(), without_payloads: false }
    }

    /// Keeps runs for ever.
    pub fn keep_forever() -> Self {
        Self { age: None, statuses: Vec::new(), without_payloads: false }
    }

    /// Archives only runs with this status. If it is called several times, runs with any of the statuses are archived. By default, all
    /// runs that have ended are.
    pub fn status(mut self, status: RunStatus) -> Self {
        self.statuses.push(status);
        self
    }

    /// Archives everything but the inputs, the outputs and the log lines. They are `null` in the archive.
    pub fn without_payloads(mut self) -> Self {
        self.without_payloads = true;
        self
    }

    /// Whether runs are archived with their payloads.
    pub(super) fn has_payloads(&self) -> bool {
        !self.without_payloads
    }

    /// Runs that were created up to this time are due.
    pub(super) fn last_due(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        now.checked_sub_signed(TimeDelta::from_std(self.age?).ok()?)
    }

    /// Whether a run with this status is archived at all.
    pub(super) fn selects(&self, status: &RunStatus) -> bool {
        status.is_final() && (self.statuses.is_empty() || self.statuses.contains(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn day(day: u32) -> DateTime<Utc> {
        format!("2026-11-{day:02}T00:00:00Z").parse().unwrap()
    }

    #[test]
    fn each_workflow_has_its_own_rule() {
        let retention = Retention::older_than(10 * DAY)
            .workflow("soon", Rule::older_than(DAY).status(RunStatus::Failed))
            .workflow("never", Rule::keep_forever());
        assert_eq!(retention.last_due(day(20)), Some(day(19)));
        assert_eq!(retention.of("other").last_due(day(20)), Some(day(10)));
        assert_eq!(retention.of("never").last_due(day(20)), None);
        assert!(
            retention.of("soon").selects(&RunStatus::Failed) && !retention.of("soon").selects(&RunStatus::Completed)
        );
        assert!(!retention.of("other").selects(&RunStatus::Running));
        assert!(retention.only_workflows().is_none());
        let only: Vec<_> = retention.rule(Rule::keep_forever()).only_workflows().unwrap().map(str::to_owned).collect();
        assert_eq!(only, ["soon"]);
    }

    #[test]
    fn the_default_is_90_days() {
        assert_eq!(Retention::default(), Retention::older_than(90 * DAY));
        assert_eq!(Retention::keep_forever().last_due(day(1)), None);
    }

    #[test]
    fn ages_are_limited_and_days_expire_as_a_whole() {
        let error = Retention::older_than(4000 * DAY).check().unwrap_err();
        assert!(error.to_string().contains("expected at most 10 years"), "{error}");
        let failed = Retention::default().rule(Rule::older_than(DAY).status(RunStatus::Failed));
        assert!(failed.check_ages_only().is_err() && failed.check().is_ok());
    }
}
