//! The runs and tasks of bulk cancels and replays: by their ids, or by a filter.

use uuid::Uuid;

use super::metadata::{MetadataFilter, NoPair};
use super::status::RestStatus;
use crate::embedded::core::store::{At, Core, Run, StatusError};

/// The maximum numbers of runs that a filter selects.
const MAX_CANCELLED: usize = 20_000;
const MAX_REPLAYED: usize = 1000;

/// The runs or tasks of a bulk command.
#[derive(Debug)]
pub(crate) enum Selection {
    Ids(Vec<Uuid>),
    Filter(RunFilter),
}

/// The conditions that a run must meet.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunFilter {
    /// Without a start, no run matches.
    pub(crate) since: Option<At>,
    pub(crate) until: Option<At>,
    /// Empty for any status.
    pub(crate) statuses: Vec<RestStatus>,
    pub(crate) workflows: Vec<Uuid>,
    pub(crate) metadata: MetadataFilter,
}

/// Why a filter is invalid.
#[derive(Debug)]
pub(crate) enum FilterProblem {
    Metadata(NoPair),
    Status,
}

impl From<FilterProblem> for StatusError {
    fn from(problem: FilterProblem) -> Self {
        match problem {
            FilterProblem::Metadata(NoPair(text)) => {
                Self::invalid(format!("invalid additional metadata filter: {text}"))
            }
            FilterProblem::Status => Self::internal(),
        }
    }
}

impl RunFilter {
    /// Adds the parts of a filter that are sent as strings. Any pair of the metadata is enough.
    pub(crate) fn with_texts(mut self, statuses: &[String], metadata: &[String]) -> Result<Self, FilterProblem> {
        let pairs = MetadataFilter::last_of_key(metadata.iter().map(String::as_str));
        self.metadata = pairs.map_err(FilterProblem::Metadata)?.match_any();
        for name in statuses {
            let status = RestStatus::ALL.into_iter().find(|status| status.name() == name);
            self.statuses.push(status.ok_or(FilterProblem::Status)?);
        }
        Ok(self)
    }

    fn matches(&self, run: &Run) -> bool {
        (self.statuses.is_empty() || self.statuses.contains(&run.rest_status()))
            && (self.workflows.is_empty() || self.workflows.contains(&run.version.workflow))
            && self.metadata.matches_run(run)
    }
}

impl Core {
    /// The ids of a selection that is to be cancelled.
    pub(crate) fn selected_to_cancel(&self, selection: Selection, now: At) -> Vec<Uuid> {
        self.selected(selection, MAX_CANCELLED, now)
    }

    /// The ids of a selection that is to be replayed.
    pub(crate) fn selected_to_replay(&self, selection: Selection, now: At) -> Vec<Uuid> {
        self.selected(selection, MAX_REPLAYED, now)
    }

    /// The ids of a request; or those of the matching runs that REST finds, newest first, at most `max`.
    pub(crate) fn selected(&self, selection: Selection, max: usize, now: At) -> Vec<Uuid> {
        let filter = match selection {
            Selection::Ids(ids) => return ids,
            Selection::Filter(filter) => filter,
        };
        let runs = self.runs.newest_first(filter.until);
        let recent = runs.take_while(|run| filter.since.is_some_and(|since| run.created >= since));
        recent.filter(|run| self.is_visible(run, now) && filter.matches(run)).map(|run| run.id).take(max).collect()
    }
}
