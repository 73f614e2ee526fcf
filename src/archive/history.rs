//! One view over the runs of the engine and of the archive.
//!
//! The engine is always read before the archive: a run that the engine drops in between was archived before, so the archive has it. If both
//! have a run, the engine's version is used, because the run may have been replayed after it was archived.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use chrono::{DateTime, NaiveDate, Utc};
use futures_core::Stream;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::convert::{self, SUMMARY_COLUMNS};
use super::days::{MICROSECOND, first_day_with_runs};
use super::filter::Criteria;
use super::handle::Archive;
use super::paging::{Pages, Position};
use super::reading::Reading;
use crate::boxed::BoxStream;
use crate::client::Client;
use crate::error::{ErrorKind, Result};
use crate::list::RunItems;
use crate::model::{Page, PageToken, RunDetails, RunFilter, RunId, RunSummary, Total};

/// The number of runs of the engine that are read before the archive is.
const PAGE_SIZE: usize = 200;

/// One view over the runs of an engine and of its archive. A run that both have is returned once.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, archive: hatchet::archive::Archive) -> hatchet::Result<()> {
/// use hatchet::archive::History;
/// use hatchet::model::Window;
/// use hatchet::{RunFilter, RunStatus};
///
/// let history = History::new(&hatchet, &archive);
/// let mut failed = history.runs(RunFilter::new(Window::all()).status(RunStatus::Failed)).items();
/// while let Some(run) = failed.next().await.transpose()? {
///     println!("{}", history.details(run.id).await?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct History {
    client: Client,
    archive: Archive,
    /// The number of runs of the engine that are read before the archive is.
    page: usize,
}

impl History {
    /// Creates a view without reading anything. If the archive contains runs of another tenant or namespace, the stream of
    /// [`items`](HistoryQuery::items) returns an error. [`details`](Self::details) does not check this.
    pub fn new(client: &Client, archive: &Archive) -> Self {
        Self { client: client.clone(), archive: archive.clone(), page: PAGE_SIZE }
    }

    /// The same view, with another number of runs that are read at once.
    #[cfg(test)]
    pub(super) fn paged(&self, page: usize) -> Self {
        Self { page, ..self.clone() }
    }

    /// Prepares a query for the runs that match a filter, or that were created in a time window.
    pub fn runs(&self, filter: impl Into<RunFilter>) -> HistoryQuery {
        HistoryQuery { history: self.clone(), filter: filter.into(), after: None }
    }

    /// Prepares to fetch the details of a run: from the engine if it has the run, otherwise from the archive. Await it.
    pub fn details(&self, id: RunId) -> HistoryDetails {
        HistoryDetails { history: self.clone(), id, logs: 0 }
    }
}

/// A request for the details of a run of an engine or of its archive; see [`History::details`].
///
/// ```no_run
/// # async fn example(history: hatchet::archive::History, id: hatchet::RunId) -> hatchet::Result<()> {
/// let details = history.details(id).logs(100).await?;
/// println!("{details} {:?}", details.logs);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`RunNotFound`](ErrorKind::RunNotFound) if neither has the run. Also the errors of [`RunHandle::details`](crate::RunHandle::details) and
/// [`Archive::details`].
///
/// # Cancel safety
/// It is cancel safe: it only reads.
#[derive(Debug, Clone)]
#[must_use = "nothing is fetched before it is awaited"]
pub struct HistoryDetails {
    history: History,
    id: RunId,
    logs: usize,
}

impl HistoryDetails {
    /// Includes the first `count` log lines. The default is 0, the maximum is [`RunDetails::MAX_LOGS`]. The archive has those that
    /// [`CollectBuilder::logs`](super::CollectBuilder::logs) has archived.
    pub fn logs(mut self, count: usize) -> Self {
        self.logs = count;
        self
    }

    async fn fetch(self) -> Result<RunDetails> {
        let Self { history: History { client, archive, .. }, id, logs } = self;
        match client.run_handle(id).details().logs(logs).await {
            Err(error) if error.kind() == ErrorKind::RunNotFound => {
                let mut details = archive.details(id).await?;
                details.logs.truncate(logs);
                Ok(details)
            }
            details => details,
        }
    }
}

impl IntoFuture for HistoryDetails {
    type Output = Result<RunDetails>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.fetch())
    }
}

/// A query for the runs of an engine and of its archive; see [`History::runs`].
///
/// ```no_run
/// # async fn example(history: hatchet::archive::History) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// let mut runs = history.runs(Window::all()).items();
/// while let Some(run) = runs.next().await.transpose()? {
///     println!("{} {}", run.created_at, run.id);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is read before `page`, `items` or `count`"]
pub struct HistoryQuery {
    history: History,
    filter: RunFilter,
    after: Option<PageToken>,
}

impl HistoryQuery {
    /// Continues after a page: the query selects the runs after those of the page. It must have the same filter. The count is always that of
    /// all matching runs.
    pub fn after(mut self, token: PageToken) -> Self {
        self.after = Some(token);
        self
    }

    /// Returns the newest matching runs, at most `size`, an upper bound of the number of all matching runs, and the token of the next page. The
    /// token can be sent to another process, and it stays valid while runs are archived, compacted and dropped by the engine.
    ///
    /// Runs that are created in the meantime are not on later pages. No run is on two pages. The total counts runs twice that both the engine
    /// and the archive have; [`count`](Self::count) does not.
    ///
    /// ```no_run
    /// # async fn example(history: hatchet::archive::History) -> hatchet::Result<()> {
    /// use hatchet::model::Window;
    ///
    /// let query = history.runs(Window::all());
    /// let first = query.page(50).await?;
    /// if let Some(token) = first.next {
    ///     let second = query.after(token).page(50).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The first error of the stream of [`items`](Self::items). Also [`InvalidInput`](ErrorKind::InvalidInput) if the size is 0 or over 1000,
    /// or for a token of another query.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn page(&self, size: usize) -> Result<Page<RunSummary>> {
        let after = self.pages().position(self.after.as_ref())?;
        Box::pin(self.pages().page(self.items(), size, after.as_ref(), self.total())).await
    }

    /// An upper bound of the number of all matching runs.
    async fn total(&self) -> Result<Total> {
        let History { client, archive, .. } = &self.history;
        let live = match client.runs(self.filter.clone()).count().await {
            Err(error) if error.kind() == ErrorKind::WorkflowNotFound => Total::Exactly(0),
            live => live?,
        };
        let criteria = Criteria::new(self.filter.clone(), client.clock().now())?;
        let archived = archive.max_matching(&criteria).await?;
        Ok(match live {
            Total::Exactly(live) | Total::AtMost(live) => Total::Exactly(live.saturating_add(archived)).at_most(),
            other => other,
        })
    }

    fn pages(&self) -> Pages {
        Pages::of("history", &self.filter)
    }

    /// Returns a stream of the matching runs, newest first. Runs that are created after the first item was requested are not in it.
    ///
    /// With a status in the filter, the stream sends one more request for each archived run that matches and that the engine may still have,
    /// because its status in the engine may differ. A workflow that the server no longer has is looked up in the archive only.
    pub fn items(&self) -> HistoryRuns {
        let query = self.clone();
        let open = async move { Ok(Box::new(Merge::start(query).await?)) };
        HistoryRuns(BoxStream::opened(open, |mut merge: Box<Merge>| async move {
            let run = merge.next().await?;
            let merge = (!merge.has_failed).then_some(merge);
            Some((run, merge))
        }))
    }

    /// Returns the number of matching runs. It reads all of them, like [`items`](Self::items).
    ///
    /// # Errors
    /// The first error of the stream of [`items`](Self::items).
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn count(&self) -> Result<u64> {
        let (mut runs, mut count) = (Self { after: None, ..self.clone() }.items(), 0);
        while runs.next().await.transpose()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

struct Merge {
    client: Client,
    archive: Archive,
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
    next_archived: Option<RunSummary>,
    /// The creation time of the last run of the engine that has been read. The archive is read down to it, but not including it.
    read_down_to: Option<DateTime<Utc>>,
    /// The engine has dropped all runs that were created before this day. `None` if archived runs need not be looked up.
    oldest_live_day: Option<NaiveDate>,
    page: usize,
    /// Whether the stream ends, because of an error of the engine or of the manifest.
    has_failed: bool,
}

impl Merge {
    async fn start(query: HistoryQuery) -> Result<Self> {
        let after = query.pages().position(query.after.as_ref())?;
        let HistoryQuery { history: History { client, archive, page }, mut filter, .. } = query;
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

    async fn next(&mut self) -> Option<Result<RunSummary>> {
        loop {
            if let Err(error) = self.fill_archived().await {
                // A damaged file of the archive does not end the stream.
                self.has_failed = error.kind() != ErrorKind::Corrupt;
                return Some(Err(error));
            }
            let archived_is_next = match (&self.next_archived, self.live.front()) {
                (Some(archived), Some(live)) => archived.created_at > live.created_at,
                (archived, None) => archived.is_some(),
                (None, Some(_)) => false,
            };
            if archived_is_next {
                return self.next_archived.take().map(Ok);
            }
            if let Some(run) = self.live.pop_front() {
                return Some(Ok(run));
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
                self.next_archived = Some(run);
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
            self.archived = Some(self.archive.reading(criteria, SUMMARY_COLUMNS).await?);
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

/// A stream of the runs of an engine and of its archive, newest first; see [`HistoryQuery::items`]. It continues after the error of a
/// damaged file, and ends after any other error.
///
/// ```no_run
/// # async fn example(history: hatchet::archive::History) -> hatchet::Result<()> {
/// use std::time::Duration;
/// use hatchet::model::Window;
///
/// let year = Window::last(Duration::from_secs(365 * 24 * 3600));
/// let mut runs = history.runs(year).items();
/// while let Some(run) = runs.next().await {
///     println!("{}", run?.workflow_name);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is read before the stream is polled"]
pub struct HistoryRuns(BoxStream<Result<RunSummary>>);

impl HistoryRuns {
    /// Returns the next run, or `None` at the end.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no run is lost.
    pub async fn next(&mut self) -> Option<Result<RunSummary>> {
        self.0.next().await
    }
}

impl Stream for HistoryRuns {
    type Item = Result<RunSummary>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for HistoryRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HistoryRuns")
    }
}
