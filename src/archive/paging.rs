//! Pages of archived runs, and of the view over engine and archive.
//!
//! A page continues at the creation time of the last run of the page before it, without the runs of that time that were on a page. Creation
//! times and ids do not change, so neither a collection nor a compaction moves a run to another page.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_core::Stream;
use futures_util::StreamExt as _;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::list::{check_page_size, fingerprint};
use crate::model::{Page, PageToken, RunFilter, RunId, RunSummary, TaskId, Total};

/// Where a query continues: after some runs that were created at `until`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) until: DateTime<Utc>,
    seen: Arc<HashSet<RunId>>,
}

impl Position {
    /// Whether a run was on a page before.
    pub(super) fn is_passed(&self, id: RunId, created_at: DateTime<Utc>) -> bool {
        created_at > self.until || created_at == self.until && self.seen.contains(&id)
    }
}

/// The pages of one filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pages {
    fingerprint: u64,
}

impl Pages {
    /// `source`: what is read, whose tokens are valid for it only.
    pub(super) fn of(source: &'static str, filter: &RunFilter) -> Self {
        let RunFilter { workflows, statuses, metadata, any_metadata, own_metadata, event, parent, .. } = filter;
        let tag = |(key, value): &(String, String)| format!("{key}:{value}");
        let mut parts = vec![("source", source.to_owned())];
        parts.extend(workflows.iter().map(|name| ("workflow", name.clone())));
        parts.extend(statuses.iter().map(|status| ("status", status.as_str().to_owned())));
        parts.extend(metadata.iter().map(|entry| ("metadata", tag(entry))));
        parts.extend(any_metadata.iter().map(|entry| ("any_metadata", tag(entry))));
        parts.extend(own_metadata.iter().map(|entry| ("own_metadata", tag(entry))));
        parts.extend(event.map(|id| ("event", id.to_string())));
        parts.extend(parent.map(|id| ("parent", id.to_string())));
        Self { fingerprint: fingerprint(&parts) }
    }

    /// Where a token continues.
    pub(super) fn position(self, token: Option<&PageToken>) -> Result<Option<Position>> {
        let Some(token) = token else { return Ok(None) };
        if token.filter != self.fingerprint {
            let problem = "expected a token of a page of the same query, got one of another";
            return Err(Error::invalid("page token", problem));
        }
        let seen = token.seen.iter().map(|id| RunId::from(Uuid::from(*id))).collect();
        Ok(Some(Position { until: token.until, seen: Arc::new(seen) }))
    }

    /// Reads a page from a stream of the runs after a position. `at_most`: an upper bound on the number of all matching runs.
    pub(super) async fn page(
        self,
        mut runs: impl Stream<Item = Result<RunSummary>> + Unpin,
        size: usize,
        after: Option<&Position>,
        at_most: impl Future<Output = Result<Total>>,
    ) -> Result<Page<RunSummary>> {
        check_page_size(size)?;
        let mut items: Vec<RunSummary> = Vec::new();
        while items.len() < size
            && let Some(run) = runs.next().await.transpose()?
        {
            items.push(run);
        }
        // An error is one of the next page.
        let has_more = items.len() == size && runs.next().await.is_some();
        let next = items.last().filter(|_| has_more).map(|last| self.token(&items, last.created_at, after));
        let is_complete = next.is_none() && after.is_none();
        let total = if is_complete { Total::Exactly(items.len() as u64) } else { at_most.await? };
        Ok(Page { items, total, next })
    }

    fn token(self, items: &[RunSummary], until: DateTime<Utc>, after: Option<&Position>) -> PageToken {
        let of_page = items.iter().filter(|run| run.created_at == until).map(|run| run.id);
        let before =
            after.filter(|after| after.until == until).into_iter().flat_map(|after| after.seen.iter().copied());
        let mut seen: Vec<TaskId> = of_page.chain(before).map(|id| Uuid::from(id).into()).collect();
        seen.sort_unstable();
        PageToken { filter: self.fingerprint, until, offset: 0, seen }
    }
}
