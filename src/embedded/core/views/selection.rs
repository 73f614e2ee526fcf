//! Filters of bulk cancels and replays, and the runs that match them.

use serde_json::Value;
use uuid::Uuid;

use super::status::RestStatus;
use crate::embedded::core::store::{At, Core, Fault, Run};

/// The conditions that a run must meet.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunFilter {
    /// Without a start, no run matches.
    pub(crate) since: Option<At>,
    pub(crate) until: Option<At>,
    /// Empty for any status.
    pub(crate) statuses: Vec<RestStatus>,
    pub(crate) workflows: Vec<Uuid>,
    pub(crate) metadata: Vec<(String, String)>,
}

/// Why a filter is invalid.
#[derive(Debug)]
pub(crate) enum FilterProblem {
    Metadata(String),
    Status,
}

impl From<FilterProblem> for Fault {
    fn from(problem: FilterProblem) -> Self {
        match problem {
            FilterProblem::Metadata(pair) => Self::invalid(format!("invalid additional metadata filter: {pair}")),
            FilterProblem::Status => Self::internal(),
        }
    }
}

impl RunFilter {
    /// Adds the parts of a filter that are sent as strings. Of several values for one key of the metadata, the last counts.
    pub(crate) fn with_texts(mut self, statuses: &[String], metadata: &[String]) -> Result<Self, FilterProblem> {
        for pair in metadata {
            let (key, value) = pair.split_once(':').ok_or_else(|| FilterProblem::Metadata(pair.clone()))?;
            self.metadata.retain(|(other, _)| other != key);
            self.metadata.push((key.into(), value.into()));
        }
        for name in statuses {
            let status = RestStatus::ALL.into_iter().find(|status| status.name() == name);
            self.statuses.push(status.ok_or(FilterProblem::Status)?);
        }
        Ok(self)
    }

    fn matches(&self, run: &Run) -> bool {
        (self.statuses.is_empty() || self.statuses.contains(&run.rest_status()))
            && (self.workflows.is_empty() || self.workflows.contains(&run.version.workflow))
            && has_tags(run, &self.metadata, false)
    }
}

/// Whether a run has all of some pairs in its metadata, or any of them if not `all`.
pub(crate) fn has_tags(run: &Run, tags: &[(String, String)], all: bool) -> bool {
    if tags.is_empty() {
        return true;
    }
    let metadata: Value = serde_json::from_str(&run.metadata).unwrap_or_default();
    let has = |(key, wanted): &(String, String)| match metadata.get(key) {
        Some(Value::String(text)) => text == wanted,
        // With any-of, the engine also compares the JSON text of values that are not strings.
        Some(other) => !all && serde_json::to_string(other).is_ok_and(|text| text == *wanted),
        None => false,
    };
    if all { tags.iter().all(has) } else { tags.iter().any(has) }
}

impl Core {
    /// The ids of the matching runs that REST finds, newest first, at most `max`.
    pub(crate) fn filtered(&self, filter: &RunFilter, max: usize, now: At) -> Vec<Uuid> {
        let runs = self.runs.newest_first(filter.until);
        let recent = runs.take_while(|run| filter.since.is_some_and(|since| run.created >= since));
        recent.filter(|run| self.is_visible(run, now) && filter.matches(run)).map(|run| run.id).take(max).collect()
    }
}
