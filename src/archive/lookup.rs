//! Finds a run by its id, and lists files.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use futures_util::stream::{self, StreamExt as _};
use parquet::bloom_filter::Sbbf;
use serde::{Deserialize, Serialize};

use super::convert::age;
use super::decode::{FileReader, read_ranges};
use super::filter::Criteria;
use super::handle::Archive;
use super::log::corrupt;
use super::manifest::{File, Partition};
use super::reading::matching_files;
use super::schema::{Column, Row};
use crate::error::Result;
use crate::model::{RunFilter, RunId};

/// The number of partitions that are searched at the same time.
const MAX_CONCURRENT_SEARCHES: usize = 8;

/// A Parquet file of an archive; see [`Archive::files`].
///
/// ```no_run
/// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// for file in archive.files(Window::all()).await? {
///     println!("{} with {} rows of {}", file.path, file.rows, file.workflow_name.as_deref().unwrap_or("?"));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ArchiveFile {
    /// The path, relative to the directory or the URL of the archive.
    pub path: String,
    /// The name of the workflow, without the namespace. `None` if the engine had no name for the runs.
    pub workflow_name: Option<String>,
    /// The day on which the runs were created, in UTC.
    pub day: NaiveDate,
    /// The number of rows. A run that was archived again after a replay has a row in each of several files until the archive is
    /// [compacted](Archive::compact): of those with the highest `attempt`, the one with the latest `archived_at` is valid.
    pub rows: u64,
    /// The size in bytes.
    pub bytes: u64,
    /// The earliest creation time of the runs.
    pub min_created_at: DateTime<Utc>,
    /// The latest creation time of the runs.
    pub max_created_at: DateTime<Utc>,
}

impl Archive {
    /// Returns the committed files that may contain matching runs, for other tools.
    ///
    /// Only the time window, the workflows and the statuses of the filter are used. Other files in the store were not committed, or have
    /// been replaced.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the filter is invalid; [`Storage`](crate::ErrorKind::Storage),
    /// [`Corrupt`](crate::ErrorKind::Corrupt) and [`Timeout`](crate::ErrorKind::Timeout) if the manifest cannot be read.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn files(&self, filter: impl Into<RunFilter>) -> Result<Vec<ArchiveFile>> {
        let criteria = Criteria::new(filter.into(), self.now())?;
        let state = self.log().state().await?;
        Ok(matching_files(&state, &criteria).into_iter().cloned().map(ArchiveFile::from).collect())
    }

    /// The newest row of a run.
    pub(super) async fn find(&self, id: RunId) -> Result<Option<Row>> {
        let state = self.log().state().await?;
        let mut partitions: BTreeMap<&Partition, Vec<&File>> = BTreeMap::new();
        for file in state.files() {
            partitions.entry(&file.partition).or_default().push(file);
        }
        let id = id.to_string();
        // All rows of a run are in one partition.
        let searches = partitions.into_values().rev().map(|files| self.find_in(files, &id));
        let mut searches = stream::iter(searches.collect::<Vec<_>>()).buffered(MAX_CONCURRENT_SEARCHES);
        let mut failed = None;
        while let Some(found) = searches.next().await {
            match found {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                // Another partition may have the run.
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// The newest row of a run in the files of a partition. A file that cannot be read is an error only if no other has the run.
    async fn find_in(&self, files: Vec<&File>, id: &str) -> Result<Option<Row>> {
        let (mut newest, mut failed): (Option<Row>, _) = (None, None);
        for file in files {
            match self.find_in_file(file, id).await {
                Ok(Some(row)) if newest.as_ref().is_none_or(|newest| age(newest) < age(&row)) => newest = Some(row),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        match (newest, failed) {
            (None, Some(error)) => Err(error),
            (newest, _) => Ok(newest),
        }
    }

    /// Whether a file can have a run, by its Bloom filters, which are a small part of it.
    async fn may_contain(&self, file: &File, id: &str) -> Result<bool> {
        let ranges: Vec<_> =
            file.id_filters.iter().map(|filter| filter.offset..filter.offset.saturating_add(filter.bytes)).collect();
        if ranges.is_empty() {
            return Ok(true);
        }
        for part in read_ranges(self.store(), &file.path, file.bytes, &ranges).await? {
            let filter = Sbbf::from_bytes(&part).map_err(|error| {
                corrupt(&file.path, &"expected a Bloom filter, got other content").with_source(error)
            })?;
            if filter.check(id) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn find_in_file(&self, file: &File, id: &str) -> Result<Option<Row>> {
        if !self.may_contain(file, id).await? {
            return Ok(None);
        }
        let file = FileReader::open(self.store(), file).await?;
        for group in 0..file.groups() {
            if file.may_contain(group, Column::RunId, id).await? {
                let rows = file.rows(group, Column::ALL).await?;
                if let Some(row) = rows.into_iter().find(|row| row.text(Column::RunId) == Some(id)) {
                    return Ok(Some(row));
                }
            }
        }
        Ok(None)
    }
}

impl From<File> for ArchiveFile {
    fn from(file: File) -> Self {
        let day = file.partition.day;
        Self {
            path: file.path,
            workflow_name: file.partition.workflow_name(),
            day,
            rows: file.rows,
            bytes: file.bytes,
            min_created_at: file.min_created_at,
            max_created_at: file.max_created_at,
        }
    }
}
