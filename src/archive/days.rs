//! The days of which an engine has runs, and the runs that it drops soon. It drops the oldest days, so it has runs up to the end of each day
//! from the first one on.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};

use super::handle::Archive;
use super::retention::{Retention, Rule};
use crate::client::Client;
use crate::error::{ErrorKind, Result};
use crate::feed::Gate;
use crate::model::{RunFilter, RunStatus, Total, Window};

/// The resolution of creation times.
pub(super) const MICROSECOND: TimeDelta = TimeDelta::microseconds(1);

/// The statuses of runs that have ended.
pub(super) const ENDED: [RunStatus; 4] =
    [RunStatus::Completed, RunStatus::Failed, RunStatus::TimedOut, RunStatus::Cancelled];
/// A run that the engine drops within this time counts as at risk.
const AT_RISK_MARGIN: Duration = Duration::from_secs(24 * 3600);
/// The server stops counting at this number.
const MAX_COUNTED: u64 = 20_000;

/// Returns the first day, from `first` to `last`, up to whose end the engine has runs. `None` if there is none. Each request passes the gate,
/// if there is one.
pub(super) async fn first_day_with_runs(
    client: &Client,
    mut first: NaiveDate,
    last: NaiveDate,
    gate: Option<&Gate>,
) -> Result<Option<NaiveDate>> {
    let mut end = last.succ_opt().unwrap_or(last);
    while first < end {
        let middle = first + TimeDelta::days((end - first).num_days() / 2);
        let mut older = client.runs(Window::all().until(day_end(middle)));
        if let Some(gate) = gate {
            older = older.through(gate.clone());
        }
        if older.newest(1).await?.is_empty() {
            first = middle + TimeDelta::days(1);
        } else {
            end = middle;
        }
    }
    Ok((first <= last).then_some(first))
}

pub(super) fn day_start(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

pub(super) fn day_end(day: NaiveDate) -> DateTime<Utc> {
    day.succ_opt().map_or(DateTime::<Utc>::MAX_UTC, |next| day_start(next) - MICROSECOND)
}

/// The engine's retention period, if the server shows it.
pub(super) async fn engine_retention(client: &Client, gate: &Gate) -> Option<Duration> {
    let _permit = gate.pass(1).await;
    match client.rpc().rest.retention().await {
        Ok(retention) => retention,
        Err(error) => {
            tracing::debug!(%error, "failed to read the engine's retention period");
            None
        }
    }
}

/// The runs that the engine drops before the next collection, or within a day after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Risk {
    now: DateTime<Utc>,
    /// Runs that were created up to this time are at risk.
    until: DateTime<Utc>,
    /// The engine keeps runs that were created at this time or later.
    kept_since: DateTime<Utc>,
}

/// The number of runs at risk that cannot be archived yet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LeftAtRisk {
    /// They are not old enough, and not archived.
    pub(super) not_due: u64,
    /// They have not ended.
    pub(super) active: u64,
}

impl LeftAtRisk {
    pub(super) fn total(self) -> u64 {
        self.not_due.saturating_add(self.active)
    }
}

impl Risk {
    /// `interval`: the time until the next collection.
    pub(super) fn new(now: DateTime<Utc>, engine_retention: Duration, interval: Duration) -> Option<Self> {
        let ago = |age: Duration| now.checked_sub_signed(TimeDelta::from_std(age).ok()?);
        let until = ago(engine_retention.saturating_sub(AT_RISK_MARGIN.saturating_add(interval)))?;
        // The engine drops whole days.
        Some(Self { now, until, kept_since: day_start(ago(engine_retention)?.date_naive()) })
    }

    pub(super) fn includes(&self, created_at: DateTime<Utc>) -> bool {
        created_at <= self.until
    }

    /// Counts the runs at risk that cannot be archived yet. Runs that no rule selects are not counted.
    pub(super) async fn count_left(
        &self,
        archive: &Archive,
        client: &Client,
        gate: &Gate,
        retention: &Retention,
    ) -> Result<LeftAtRisk> {
        let not_due = |rule, workflow| self.count_not_due(archive, client, gate, rule, workflow);
        let active = |rule, workflow| self.count_active(client, gate, rule, workflow);
        Ok(LeftAtRisk { not_due: by_rule(retention, not_due).await?, active: by_rule(retention, active).await? })
    }

    /// The ended runs at risk that a rule will select and that are not archived, of one workflow or of all.
    async fn count_not_due(
        &self,
        archive: &Archive,
        client: &Client,
        gate: &Gate,
        rule: &Rule,
        workflow: Option<&str>,
    ) -> Result<u64> {
        let Some(since) = rule.last_due(self.now).map(|last| last + MICROSECOND) else { return Ok(0) };
        let statuses: Vec<_> = ENDED.into_iter().filter(|status| rule.selects(status)).collect();
        if since > self.until || statuses.is_empty() {
            return Ok(0);
        }
        let live = live(client, gate, self.filter(since, &statuses, workflow)).await?;
        // An earlier collection with a shorter age may have archived them.
        let since = since.max(self.kept_since);
        if live == 0 || since > self.until {
            return Ok(live);
        }
        Ok(live.saturating_sub(archived(archive, self.filter(since, &statuses, workflow)).await?))
    }

    /// The runs at risk that have not ended, and that a rule may select when they have.
    async fn count_active(&self, client: &Client, gate: &Gate, rule: &Rule, workflow: Option<&str>) -> Result<u64> {
        if rule.last_due(self.now).is_none() {
            return Ok(0);
        }
        let active = [RunStatus::Queued, RunStatus::Running];
        live(client, gate, self.filter(DateTime::UNIX_EPOCH, &active, workflow)).await
    }

    fn filter(&self, since: DateTime<Utc>, statuses: &[RunStatus], workflow: Option<&str>) -> RunFilter {
        let filter = RunFilter::new(Window::since(since).until(self.until));
        let filter = statuses.iter().cloned().fold(filter, RunFilter::status);
        workflow.into_iter().fold(filter, RunFilter::workflow)
    }
}

/// Counts runs by the rule of their workflow. `count` counts those of a rule, of one workflow or of all.
async fn by_rule<'a, F: Future<Output = Result<u64>>>(
    retention: &'a Retention,
    count: impl Fn(&'a Rule, Option<&'a str>) -> F,
) -> Result<u64> {
    let mut total = count(retention.rule(), None).await?;
    for (workflow, rule) in retention.workflows() {
        if total > 0 {
            total = total.saturating_sub(count(retention.rule(), Some(workflow)).await?);
        }
        total = total.saturating_add(count(rule, Some(workflow)).await?);
    }
    Ok(total)
}

/// Counts runs of the engine.
async fn live(client: &Client, gate: &Gate, filter: RunFilter) -> Result<u64> {
    // The count itself does not pass the gate, and what it may have to read does, so it must not hold a permit.
    drop(gate.pass(1).await);
    let live = match client.runs(filter).through(gate.clone()).count().await {
        Err(error) if error.kind() == ErrorKind::WorkflowNotFound => Total::Exactly(0),
        live => live?,
    };
    Ok(match live {
        Total::Exactly(count) | Total::AtLeast(count) | Total::AtMost(count) => count,
        Total::Unknown => MAX_COUNTED,
    })
}

/// Counts archived runs. What a damaged file had is not archived.
async fn archived(archive: &Archive, filter: RunFilter) -> Result<u64> {
    let (mut runs, mut count) = (archive.runs(filter).items(), 0);
    while let Some(run) = runs.next().await {
        match run {
            Ok(_) => count += 1,
            Err(error) if error.kind() == ErrorKind::Corrupt => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}
