//! Queries for archived runs.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::StreamExt as _;

use super::convert::{self, SUMMARY_COLUMNS, status_counts};
use super::filter::Criteria;
use super::handle::Archive;
use super::paging::Pages;
use super::reading::Reading;
use super::schema::{Column, Row};
use crate::boxed::BoxStream;
use crate::error::{Error, Result};
use crate::model::{Page, PageToken, RunDetails, RunFilter, RunId, RunSummary, StatusCounts, Total};

impl Archive {
    /// Returns a query for the archived runs that match a filter, or that were created in a time window.
    ///
    /// The query takes the same filters as [`Client::runs`](crate::Client::runs) and returns the same summaries. Counts are exact. A
    /// [`Window::last`](crate::model::Window::last) is relative to the system clock, or to the clock of
    /// [`with_clock_of`](Self::with_clock_of).
    ///
    /// ```no_run
    /// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
    /// use hatchet::model::Window;
    /// use hatchet::{RunFilter, RunStatus};
    ///
    /// let mut failed = archive.runs(RunFilter::new(Window::all()).workflow("greet").status(RunStatus::Failed)).items();
    /// while let Some(run) = failed.next().await {
    ///     println!("{}", run?.id);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn runs(&self, filter: impl Into<RunFilter>) -> ArchiveQuery {
        ArchiveQuery { archive: self.clone(), filter: filter.into(), after: None }
    }

    /// Returns the details of an archived run.
    ///
    /// The id of a run does not determine its file. The method reads the Bloom filter of each file, about 2 bytes for each run in the file,
    /// from the newest day to the oldest, until it finds the run.
    ///
    /// ```no_run
    /// # async fn example(archive: hatchet::archive::Archive, id: hatchet::RunId) -> hatchet::Result<()> {
    /// println!("{}", archive.details(id).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RunNotFound`](crate::ErrorKind::RunNotFound) if the archive does not contain the run. [`Storage`](crate::ErrorKind::Storage),
    /// [`Corrupt`](crate::ErrorKind::Corrupt) and [`Timeout`](crate::ErrorKind::Timeout) if the run was not found and a file could not be
    /// read.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn details(&self, id: RunId) -> Result<RunDetails> {
        let found = self.find(id).await?;
        let missing = || Err(Error::run_not_found_in("the archive has no run", id));
        found.as_ref().map_or_else(missing, convert::details)
    }
}

/// A query for archived runs; see [`Archive::runs`].
///
/// The results can be read as pages, as a stream of runs or of their details, or as counts.
///
/// ```no_run
/// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// println!("{}", archive.runs(Window::all()).counts_by_status().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is read before `page`, `items`, `details` or a count"]
pub struct ArchiveQuery {
    archive: Archive,
    filter: RunFilter,
    after: Option<PageToken>,
}

impl ArchiveQuery {
    /// Continues after the page that returned this token: the query selects the runs after those of the page.
    ///
    /// The query must have the same filter as the query that returned the page. Counts always include all matching runs.
    pub fn after(mut self, token: PageToken) -> Self {
        self.after = Some(token);
        self
    }

    /// Returns a page: at most `size` of the newest matching runs, an upper bound on the number of all matching runs, and the token of the
    /// next page.
    ///
    /// The token can be sent to another process. [`count`](Self::count) returns the exact number, for which it reads all matching runs.
    ///
    /// No run is on two pages. A run that is archived in the meantime is on a later page if it is older than the last run of this one.
    ///
    /// ```no_run
    /// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
    /// use hatchet::model::Window;
    ///
    /// let query = archive.runs(Window::all());
    /// let first = query.page(50).await?;
    /// if let Some(token) = first.next {
    ///     let second = query.after(token).page(50).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`count`](Self::count): unlike [`items`](Self::items), this method fails if a file is damaged. Also
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the size is 0 or over 1000, or if the token belongs to another query.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn page(&self, size: usize) -> Result<Page<RunSummary>> {
        let after = self.pages().position(self.after.as_ref())?;
        let at_most = async { Ok(Total::Exactly(self.archive.max_matching(&self.all()?).await?).at_most()) };
        Box::pin(self.pages().page(self.items(), size, after.as_ref(), at_most)).await
    }

    /// Returns a stream of the matching runs, newest first. Inputs and outputs are not read.
    pub fn items(&self) -> ArchivedRuns {
        ArchivedRuns(self.read(SUMMARY_COLUMNS, convert::summary))
    }

    /// Returns a stream of the details of the matching runs, newest first.
    pub fn details(&self) -> ArchivedDetails {
        ArchivedDetails(self.read(Column::ALL, convert::details))
    }

    /// Returns the number of matching runs.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the filter is invalid; [`Storage`](crate::ErrorKind::Storage),
    /// [`Corrupt`](crate::ErrorKind::Corrupt) and [`Timeout`](crate::ErrorKind::Timeout) if a file cannot be read.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn count(&self) -> Result<u64> {
        Ok(self.counts_by_status().await?.total())
    }

    /// Returns the number of matching runs by status.
    ///
    /// Unlike [`RunQuery::counts_by_status`](crate::builder::RunQuery::counts_by_status), it respects the statuses of the filter and counts
    /// timed-out runs separately.
    ///
    /// # Errors
    /// The errors of [`count`](Self::count).
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn counts_by_status(&self) -> Result<StatusCounts> {
        let mut rows = self.archive.reading(self.all()?, SUMMARY_COLUMNS).await?;
        let mut counts = BTreeMap::new();
        while let Some(row) = rows.next().await.transpose()? {
            let status = row.text(Column::Status).unwrap_or_default().to_owned();
            *counts.entry(status).or_insert(0) += 1;
        }
        Ok(status_counts(counts))
    }

    fn pages(&self) -> Pages {
        Pages::of("archive", &self.filter)
    }

    /// The criteria of all matching runs.
    fn all(&self) -> Result<Criteria> {
        Criteria::new(self.filter.clone(), self.archive.now())
    }

    /// The criteria of the runs after the token.
    fn criteria(&self) -> Result<Criteria> {
        Ok(self.all()?.after(self.pages().position(self.after.as_ref())?))
    }

    fn read<T: Send + 'static>(
        &self,
        columns: &'static [Column],
        convert: fn(&Row) -> Result<T>,
    ) -> BoxStream<Result<T>> {
        let query = self.clone();
        let open = async move { Ok(Box::new(query.archive.reading(query.criteria()?, columns).await?)) };
        BoxStream::opened(open, move |mut reading: Box<Reading>| async move {
            let row = reading.next().await?;
            Some((row.and_then(|row| convert(&row)), Some(reading)))
        })
    }
}

/// A stream of archived runs, newest first; see [`ArchiveQuery::items`].
///
/// If a file cannot be read, the stream yields an error that names the file, and continues with the other files. If the filter is invalid
/// or the manifest cannot be read, the only item is an error.
///
/// ```no_run
/// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// let mut runs = archive.runs(Window::all()).items();
/// while let Some(run) = runs.next().await {
///     match run {
///         Ok(run) => println!("{} {}", run.id, run.status),
///         Err(error) => eprintln!("{error}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is read before the stream is polled"]
pub struct ArchivedRuns(BoxStream<Result<RunSummary>>);

/// A stream of the details of archived runs, newest first; see [`ArchiveQuery::details`].
///
/// Errors are handled as in [`ArchivedRuns`].
///
/// ```no_run
/// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// let mut runs = archive.runs(Window::all()).details();
/// while let Some(run) = runs.next().await.transpose()? {
///     println!("{run}");
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is read before the stream is polled"]
pub struct ArchivedDetails(BoxStream<Result<RunDetails>>);

impl ArchivedRuns {
    /// Returns the next run, or `None` at the end.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the filter is invalid; [`Storage`](crate::ErrorKind::Storage),
    /// [`Corrupt`](crate::ErrorKind::Corrupt) and [`Timeout`](crate::ErrorKind::Timeout) if a file cannot be read. The stream continues after a
    /// damaged file.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no run is lost.
    pub async fn next(&mut self) -> Option<Result<RunSummary>> {
        self.0.next().await
    }
}

impl ArchivedDetails {
    /// Returns the details of the next run, or `None` at the end.
    ///
    /// # Errors
    /// The errors of [`ArchivedRuns::next`].
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no run is lost.
    pub async fn next(&mut self) -> Option<Result<RunDetails>> {
        self.0.next().await
    }
}

impl Stream for ArchivedRuns {
    type Item = Result<RunSummary>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl Stream for ArchivedDetails {
    type Item = Result<RunDetails>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for ArchivedRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArchivedRuns")
    }
}

impl fmt::Debug for ArchivedDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArchivedDetails")
    }
}
