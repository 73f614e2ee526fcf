//! Merges the runs of the engine with those of the archive.
//!
//! The engine is always read before the archive: a run that the engine drops in between was archived before, so the archive has it. If both
//! have a run, the engine's version is used, because the run may have been replayed after it was archived.

use std::collections::{HashSet, VecDeque};

use chrono::{DateTime, NaiveDate, Utc};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::convert;
use super::days::{MICROSECOND, first_day_with_runs};
use super::filter::Criteria;
use super::handle::Archive;
use super::paging::Position;
use super::reading::Reading;
use super::schema::{Column, Row};
use crate::client::Client;
use crate::error::{ErrorKind, Result};
use crate::list::RunItems;
use crate::model::{RunFilter, RunId, RunSummary};

/// A run of the view. The archive's runs have their rows.
pub(super) struct Found {
    pub(super) run: RunSummary,
    pub(super) row: Option<Row>,
}

/// What is read of an engine and of its archive.
pub(super) struct View {
    pub(super) client: Client,
    pub(super) archive: Archive,
    pub(super) filter: RunFilter,
    /// The runs that were on pages before.
    pub(super) after: Option<Position>,
    /// The number of runs of the engine that are read before the archive is.
    pub(super) page: usize,
    /// The columns of the archive that are read.
    pub(super) columns: &'static [Column],
}

/// The runs of an engine and of its archive, newest first.
pub(super) struct Merge {
    client: Client,
    archive: Archive,
    columns: &'static [Column],
    criteria: Criteria,
    /// The runs that were on pages before.
    after: Option<Position>,
    /// The list of the engine, until its end.
    list: Option<RunItems>,
    /// The runs of the engine that have been read.
    live: VecDeque<RunSummary>,
    /// The runs of the engine that the archive may have, too, in the time that is being read.
    ids: HashSet<RunId>,
    /// Those with the creation time `read_down_to`. More of them may follow.
    boundary: HashSet<RunId>,
    /// The archive, down to the creation time of the last run in `live`.
    archived: Option<Reading>,
    /// The next run of the archive.
    next_archived: Option<(RunSummary, Row)>,
    /// The creation time of the last run of the engine that has been read. The archive is read down to it, but not including it.
    read_down_to: Option<DateTime<Utc>>,
    /// The engine has dropped all runs that were created before this day. `None` if archived runs need not be looked up.
    oldest_live_day: Option<NaiveDate>,
    page: usize,
    /// Whether the stream ends, because of an error of the engine or of the manifest.
    pub(super) has_failed: bool,
}

impl Merge {
    pub(super) async fn start(view: View) -> Result<Self> {
        let View { client, archive, mut filter, after, page, columns } = view;
        archive.check_source(&client).await?;
        let criteria = Criteria::new(filter.clone(), client.clock().now())?.after(after.clone());
        if let Some(after) = &after {
            filter.window = filter.window.up_to(after.until);
        }
        let oldest_live_day =
            if criteria.has_statuses() { Some(oldest_live_day(&client, &archive).await?) } else { None };
        let list = Some(client.runs(filter).items());
        Ok(Self {
            client,
            archive,
            columns,
            criteria,
            after,
            list,
            live: VecDeque::new(),
            ids: HashSet::new(),
            boundary: HashSet::new(),
            archived: None,
            next_archived: None,
            read_down_to: None,
            oldest_live_day,
            page,
            has_failed: false,
        })
    }

    pub(super) async fn next(&mut self) -> Option<Result<Found>> {
        loop {
            if let Err(error) = self.fill_archived().await {
                // A damaged file of the archive does not end the stream.
                self.has_failed = error.kind() != ErrorKind::Corrupt;
                return Some(Err(error));
            }
            let archived_is_next = match (&self.next_archived, self.live.front()) {
                (Some((archived, _)), Some(live)) => archived.created_at > live.created_at,
                (archived, None) => archived.is_some(),
                (None, Some(_)) => false,
            };
            if archived_is_next {
                return self.next_archived.take().map(|(run, row)| Ok(Found { run, row: Some(row) }));
            }
            if let Some(run) = self.live.pop_front() {
                return Some(Ok(Found { run, row: None }));
            }
            match self.read_page().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.has_failed = true;
                    return Some(Err(error));
                }
            }
        }
    }

    /// Reads the next run of the archive that the engine does not have.
    async fn fill_archived(&mut self) -> Result<()> {
        while self.next_archived.is_none()
            && let Some(archived) = &mut self.archived
        {
            let Some(row) = archived.next().await.transpose()? else {
                self.archived = None;
                return Ok(());
            };
            let run = convert::summary(&row)?;
            if !self.ids.contains(&run.id) && !self.is_live(&run).await? {
                self.next_archived = Some((run, row));
            }
        }
        Ok(())
    }

    /// Whether the engine still has an archived run that is not in its list. Then it has another status there.
    async fn is_live(&self, run: &RunSummary) -> Result<bool> {
        if self.oldest_live_day.is_none_or(|oldest| run.created_at.date_naive() < oldest) {
            return Ok(false);
        }
        match self.client.rpc().rest.run(run.id).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads the next runs of the engine, and then opens the archive for their time. Returns `false` at the end.
    async fn read_page(&mut self) -> Result<bool> {
        let Some(list) = &mut self.list else { return Ok(false) };
        let read_down_to = self.read_down_to;
        let page: Vec<RunSummary> = match list.by_ref().take(self.page).try_collect().await {
            // The archive may still have runs of a workflow that was deleted.
            Err(error) if error.kind() == ErrorKind::WorkflowNotFound => Vec::new(),
            page => page?,
        };
        if page.len() < self.page {
            self.list = None;
        }
        let low = page.last().map(|run| run.created_at).filter(|_| self.list.is_some());
        let mut ids = std::mem::take(&mut self.boundary);
        let at_low = page.iter().filter(|run| Some(run.created_at) == low).map(|run| run.id);
        self.boundary = at_low.chain(ids.iter().copied().filter(|_| low == read_down_to)).collect();
        ids.extend(page.iter().map(|run| run.id));
        self.ids = ids;
        let since = low.map_or(self.criteria.since, |low| low + MICROSECOND);
        let until = read_down_to.or(self.criteria.until).unwrap_or(DateTime::<Utc>::MAX_UTC);
        if since <= until {
            let criteria = self.criteria.within(since, until);
            self.archived = Some(self.archive.reading(criteria, self.columns).await?);
        }
        self.read_down_to = low;
        let is_passed =
            |run: &RunSummary| self.after.as_ref().is_some_and(|after| after.is_passed(run.id, run.created_at));
        self.live.extend(page.into_iter().filter(|run| !is_passed(run)));
        Ok(true)
    }
}

/// The first day of which the engine still has runs, if the archive has runs of days before it. Otherwise the first of all days.
async fn oldest_live_day(client: &Client, archive: &Archive) -> Result<NaiveDate> {
    let state = archive.log().state().await?;
    let days = || state.files().map(|file| file.partition.day);
    let Some((first, last)) = days().min().zip(days().max()) else { return Ok(NaiveDate::MIN) };
    match first_day_with_runs(client, first, last, None).await? {
        // The archive may get runs of earlier days.
        Some(day) if day == first => Ok(NaiveDate::MIN),
        Some(day) => Ok(day),
        None => Ok(last.succ_opt().unwrap_or(last)),
    }
}
