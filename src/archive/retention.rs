//! Which runs are copied to the archive, and which are removed from it.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::text::Length;
use crate::error::{Error, Result};
use crate::model::RunStatus;
use crate::model::name::{ACCEPTED, is_name};
use crate::time::MAX_DURATION;

/// The age at which runs are archived by default.
const DEFAULT_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Which runs are due, by workflow and age: [`collect`](super::Archive::collect) copies the due runs of the engine to the archive, and
/// [`expire`](super::Archive::expire) removes the due runs of the archive.
///
/// By default, runs of all workflows are due after 90 days. This default is meant for [`expire`](super::Archive::expire). For
/// [`collect`](super::Archive::collect), pass an age that is shorter than the retention period of the engine: otherwise, the engine drops
/// the runs before they are archived.
///
/// The engine drops runs after its retention period, which is 30 days unless its operator has changed it. Runs must be archived before
/// that, so set an age that is several days shorter. [`CollectReport::engine_retention`](super::CollectReport::engine_retention) is the
/// retention period, if the server reports it.
///
/// ```
/// use std::time::Duration;
/// use hatchet::archive::{Retention, Rule};
///
/// const DAY: Duration = Duration::from_secs(24 * 3600);
/// let retention = Retention::older_than(20 * DAY)
///     .workflow("import", Rule::older_than(2 * DAY).without_payloads())
///     .workflow("debug", Rule::never());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Retention {
    rule: Rule,
    workflows: BTreeMap<String, Rule>,
}

/// Which runs of a workflow are due, and whether their payloads are archived; see [`Retention`].
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
    /// `None` if no run is ever due.
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
    /// Selects the runs that were created at least this long ago.
    ///
    /// The maximum is ten years; a longer age is rejected when the retention is used.
    pub fn older_than(age: Duration) -> Self {
        Self { rule: Rule::older_than(age), workflows: BTreeMap::new() }
    }

    /// Selects no runs, except those of [workflows](Self::workflow) with a rule of their own.
    pub fn never() -> Self {
        Self { rule: Rule::never(), workflows: BTreeMap::new() }
    }

    /// Sets the rule for workflows without a rule of their own.
    pub fn default_rule(mut self, rule: Rule) -> Self {
        self.rule = rule;
        self
    }

    /// Sets the rule for a workflow, by its name without the namespace.
    ///
    /// A name that no workflow can have is rejected when the retention is used. A workflow that does not exist yet is not an error.
    pub fn workflow(mut self, name: impl Into<String>, rule: Rule) -> Self {
        self.workflows.insert(name.into(), rule);
        self
    }

    /// The rule of a workflow.
    pub(super) fn of(&self, workflow: &str) -> &Rule {
        self.workflows.get(workflow).unwrap_or(&self.rule)
    }

    /// The rule of the workflows without a rule of their own.
    pub(super) fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The workflows with a rule of their own.
    pub(super) fn workflows(&self) -> impl Iterator<Item = (&str, &Rule)> {
        self.workflows.iter().map(|(name, rule)| (name.as_str(), rule))
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        std::iter::once(&self.rule).chain(self.workflows.values())
    }

    /// The latest creation time at which a run can be due. `None` if no run is ever due.
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
        if let Some(name) = self.workflows.keys().find(|name| !is_name(name)) {
            let problem = format_args!("expected the name of a workflow, {ACCEPTED}, got {name:?}");
            return Err(Error::invalid("workflow of a retention", problem));
        }
        match self.rules().filter_map(|rule| rule.age).find(|age| *age > MAX_DURATION) {
            Some(age) => {
                Err(Error::invalid("retention", format_args!("expected at most 10 years, got {}", Length(age))))
            }
            None => Ok(()),
        }
    }

    /// Checks that the rules select by age alone.
    pub(super) fn check_ages_only(&self) -> Result<()> {
        self.check()?;
        if self.rules().any(|rule| !rule.statuses.is_empty() || rule.without_payloads) {
            return Err(Error::invalid(
                "retention",
                "expected rules with an age only, because whole days expire, got a rule with `status` or `without_payloads`",
            ));
        }
        Ok(())
    }
}

impl Rule {
    /// Selects the runs that were created at least this long ago. The maximum is ten years; a longer age is rejected when the rule is used.
    pub fn older_than(age: Duration) -> Self {
        Self { age: Some(age), statuses: Vec::new(), without_payloads: false }
    }

    /// Selects no runs: [`collect`](super::Archive::collect) does not archive them, so they are lost when the engine drops them, and
    /// [`expire`](super::Archive::expire) does not remove them.
    pub fn never() -> Self {
        Self { age: None, statuses: Vec::new(), without_payloads: false }
    }

    /// Selects only runs with this status.
    ///
    /// If this method is called several times, runs with any of the statuses are selected. By default, all runs that have ended are
    /// selected. Runs that have not ended are never selected. An archived run is updated regardless of its new status.
    /// [`expire`](super::Archive::expire) rejects a rule with a status.
    pub fn status(mut self, status: RunStatus) -> Self {
        self.statuses.push(status);
        self
    }

    /// Archives runs without their inputs, outputs, event payloads and log lines.
    ///
    /// The [input](crate::model::RunDetails::input) of such a run is `None`, and the output of a completed run is the JSON value `null`:
    /// parsing it fails with [`Decode`](crate::ErrorKind::Decode) unless the type accepts `null`. Metadata and error messages are archived.
    /// [`expire`](super::Archive::expire) rejects such a rule.
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
            .workflow("never", Rule::never());
        assert_eq!(retention.last_due(day(20)), Some(day(19)));
        assert_eq!(retention.of("other").last_due(day(20)), Some(day(10)));
        assert_eq!(retention.of("never").last_due(day(20)), None);
        assert!(
            retention.of("soon").selects(&RunStatus::Failed) && !retention.of("soon").selects(&RunStatus::Completed)
        );
        assert!(!retention.of("other").selects(&RunStatus::Running));
        assert!(retention.only_workflows().is_none());
        let only: Vec<_> = retention.default_rule(Rule::never()).only_workflows().unwrap().map(str::to_owned).collect();
        assert_eq!(only, ["soon"]);
    }

    #[test]
    fn the_default_is_90_days() {
        assert_eq!(Retention::default(), Retention::older_than(90 * DAY));
        assert_eq!(Retention::never().last_due(day(1)), None);
    }

    #[test]
    fn ages_are_limited_and_days_expire_as_a_whole() {
        let error = Retention::older_than(4000 * DAY).check().unwrap_err();
        assert_eq!(error.to_string(), "invalid retention: expected at most 10 years, got 4000 days");
        for name in ["", "import orders"] {
            let error = Retention::default().workflow(name, Rule::never()).check_ages_only().unwrap_err();
            assert!(error.to_string().starts_with("invalid workflow of a retention: expected the name"), "{error}");
            assert!(error.to_string().ends_with(&format!("got {name:?}")), "{error}");
        }
        let failed = Retention::default().default_rule(Rule::older_than(DAY).status(RunStatus::Failed));
        assert!(failed.check_ages_only().is_err() && failed.check().is_ok());
    }
}
