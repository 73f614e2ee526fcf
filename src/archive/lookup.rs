//! Finds a run by its id, and lists files.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use futures_util::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};

use super::convert::Version;
use super::decode::FileReader;
use super::filter::Criteria;
use super::handle::Archive;
use super::manifest::{File, Partition};
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
///     println!("{} with {} runs of {}", file.path, file.runs, file.workflow_name);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ArchiveFile {
    /// The path below the archive's folder or URL.
    pub path: String,
    /// The name of the workflow, without the namespace.
    pub workflow_name: String,
    /// The day on which the runs were created, in UTC.
    pub day: NaiveDate,
    /// The number of rows. A run that was archived again after a replay has several, until the archive is
    /// [compacted](Archive::compact): the one with the latest `finished_at` is valid.
    pub runs: u64,
    /// The size in bytes.
    pub bytes: u64,
    /// The earliest creation time of a run.
    pub min_created_at: DateTime<Utc>,
    /// The latest creation time of a run.
    pub max_created_at: DateTime<Utc>,
}

impl Archive {
    /// Returns the files that may contain matching runs, for other tools. Files in the store that are not in this list were not committed,
    /// or have been replaced.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for the filter; [`Storage`](crate::ErrorKind::Storage) and
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if the manifest cannot be read.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn files(&self, filter: impl Into<RunFilter>) -> Result<Vec<ArchiveFile>> {
        let criteria = Criteria::new(filter.into(), Utc::now())?;
        let state = self.log().state().await?;
        let matching = state.files().filter(|file| criteria.may_match_file(file, true));
        Ok(matching.cloned().map(ArchiveFile::from).collect())
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
                // It may be in another.
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    async fn find_in(&self, files: Vec<&File>, id: &str) -> Result<Option<Row>> {
        let mut newest: Option<Row> = None;
        for file in files {
            let file = FileReader::open(self.store(), file).await?;
            for group in 0..file.groups() {
                if !file.may_contain(group, Column::RunId, id).await? {
                    continue;
                }
                let rows = file.rows(group, Column::ALL).await?;
                let Some(row) = rows.into_iter().find(|row| row.text(Column::RunId) == Some(id)) else { continue };
                if newest.as_ref().is_none_or(|newest| Version::of(newest) < Version::of(&row)) {
                    newest = Some(row);
                }
            }
        }
        Ok(newest)
    }
}

impl From<File> for ArchiveFile {
    fn from(file: File) -> Self {
        Self {
            path: file.path,
            workflow_name: file.partition.workflow,
            day: file.partition.day,
            runs: file.rows,
            bytes: file.bytes,
            min_created_at: file.min_created_at,
            max_created_at: file.max_created_at,
        }
    }
}
