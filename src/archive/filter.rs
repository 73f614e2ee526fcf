//! Whether a file, a row group or a run of an archive matches a filter.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::Value;

use super::convert::{self, time};
use super::decode::FileReader;
use super::manifest::File;
use super::paging::Position;
use super::schema::{Column, Row};
use crate::error::Result;
use crate::model::{RunFilter, Window};

/// A filter whose time window is resolved.
#[derive(Debug, Clone)]
pub(super) struct Criteria {
    filter: RunFilter,
    pub(super) since: DateTime<Utc>,
    pub(super) until: Option<DateTime<Utc>>,
    /// The runs that were on pages before.
    after: Option<Position>,
}

impl Criteria {
    pub(super) fn new(filter: RunFilter, now: DateTime<Utc>) -> Result<Self> {
        filter.check(false)?;
        Ok(Self { since: filter.window.start(now), until: filter.window.end(), after: None, filter })
    }

    /// The same filter for the runs after a position.
    pub(super) fn after(self, position: Option<Position>) -> Self {
        let Some(position) = position else { return self };
        let until = self.until.map_or(position.until, |own| own.min(position.until));
        Self { until: Some(until), after: Some(position), ..self }
    }

    /// Criteria that match each run.
    pub(super) fn all(now: DateTime<Utc>) -> Result<Self> {
        Self::new(RunFilter::new(Window::all()), now)
    }

    /// The same filter for a part of its time window.
    pub(super) fn within(&self, since: DateTime<Utc>, until: DateTime<Utc>) -> Self {
        let until = self.until.map_or(until, |own| own.min(until));
        Self { since: self.since.max(since), until: Some(until), ..self.clone() }
    }

    pub(super) fn has_statuses(&self) -> bool {
        !self.filter.statuses.is_empty()
    }

    fn overlaps(&self, first: DateTime<Utc>, last: DateTime<Utc>) -> bool {
        last >= self.since && self.until.is_none_or(|until| first <= until)
    }

    /// Whether a file can contain matching runs, by their times and their workflow.
    pub(super) fn may_match_file(&self, file: &File) -> bool {
        self.overlaps(file.min_created_at, file.max_created_at)
            && (self.filter.workflows.is_empty() || self.filter.workflows.contains(&file.partition.workflow))
    }

    /// Whether a file has runs with a status of the filter. Another file may have newer versions of these runs.
    pub(super) fn has_wanted_status(&self, file: &File) -> bool {
        self.filter.statuses.iter().any(|wanted| file.statuses.contains_key(wanted.as_str()))
    }

    /// Whether a row group can contain matching runs.
    pub(super) fn may_match_group(&self, file: &FileReader, group: usize) -> bool {
        let Some((min, max)) = file.int_range(group, Column::CreatedAt) else { return true };
        let (min, max) = (DateTime::from_timestamp_micros(min), DateTime::from_timestamp_micros(max));
        min.zip(max).is_none_or(|(min, max)| self.overlaps(min, max))
    }

    /// Whether a run matches, by the columns of a summary.
    pub(super) fn matches(&self, row: &Row) -> Result<bool> {
        let filter = &self.filter;
        let Some(created_at) = time(row, Column::CreatedAt) else { return Ok(false) };
        let is = |column: Column, id: Option<String>| id.is_none_or(|id| row.text(column) == Some(&id));
        if !self.overlaps(created_at, created_at)
            || !(filter.workflows.is_empty()
                || filter.workflows.iter().any(|name| row.text(Column::WorkflowName) == Some(name)))
            || !(filter.statuses.is_empty() || filter.statuses.contains(&convert::status(row)?))
            || !is(Column::EventId, filter.event.map(|id| id.to_string()))
            || !is(Column::ParentTaskId, filter.parent.map(|id| id.to_string()))
        {
            return Ok(false);
        }
        Ok(!self.is_passed(row, created_at)? && self.matches_tags(row)? && self.matches_own_tags(row)?)
    }

    fn is_passed(&self, row: &Row, created_at: DateTime<Utc>) -> Result<bool> {
        match &self.after {
            Some(after) if created_at >= after.until => Ok(after.is_passed(convert::run_id(row)?, created_at)),
            _ => Ok(false),
        }
    }

    /// Whether a run has the user's tags of the filter. The engine finds only strings.
    fn matches_tags(&self, row: &Row) -> Result<bool> {
        let RunFilter { metadata: all, any_metadata: any, .. } = &self.filter;
        if all.is_empty() && any.is_empty() {
            return Ok(true);
        }
        let others: BTreeMap<String, Value> = convert::json_or_default(row, Column::NonStringMetadata)?;
        let has = |(key, value): &(String, String)| {
            row.map(Column::Metadata).iter().any(|(own, text)| own == key && text == value && !others.contains_key(key))
        };
        Ok(all.iter().all(has) && (any.is_empty() || any.iter().any(has)))
    }

    /// Whether a run has the tags of this crate in the filter.
    fn matches_own_tags(&self, row: &Row) -> Result<bool> {
        let tags = &self.filter.own_metadata;
        if tags.is_empty() {
            return Ok(true);
        }
        let own: BTreeMap<String, Value> = convert::json_or_default(row, Column::EngineMetadata)?;
        Ok(tags.iter().all(|(key, value)| own.get(key).and_then(|own| own.as_str()) == Some(value)))
    }

    /// Whether a day has a part in the time window.
    pub(super) fn overlaps_day(&self, day: NaiveDate) -> bool {
        day >= self.since.date_naive() && self.until.is_none_or(|until| day <= until.date_naive())
    }
}
