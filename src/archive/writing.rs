//! Writes rows to files, and commits the files.
//!
//! Each file is written under a new name, read back and compared before it is committed. So a crash leaves only files that were not
//! committed; nothing reads them, and [`sweep`](super::Archive::sweep) deletes them.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::convert::{VERSION_COLUMNS, Version, key, time};
use super::encode::encode;
use super::filter::Criteria;
use super::handle::Archive;
use super::log::{corrupt, refused};
use super::manifest::{Commit, File, Partition, Source, VERSION};
use super::reading::Reading;
use super::schema::{Column, Row};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{RunFilter, Window};

/// The maximum number of rows in a file.
pub(super) const MAX_FILE_ROWS: usize = 50_000;
/// The maximum size of the rows of a file in memory. The file is several times smaller.
pub(super) const MAX_FILE_BYTES: usize = 64 << 20;

/// What was committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) runs: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Written {
    fn of(files: &[File]) -> Self {
        let count = |of: fn(&File) -> u64| files.iter().map(of).sum();
        Self { runs: count(|file| file.rows), files: files.len() as u64, bytes: count(|file| file.bytes) }
    }
}

/// Writes rows to new files, one for each partition.
async fn write(archive: &Archive, rows: &[Row]) -> Result<Vec<File>> {
    let mut partitions: BTreeMap<Partition, Vec<Row>> = BTreeMap::new();
    for row in rows {
        let (Some(workflow), Some(at)) = (row.text(Column::WorkflowName), time(row, Column::CreatedAt)) else {
            continue;
        };
        partitions.entry(Partition::of(workflow, at)).or_default().push(row.clone());
    }
    let mut files = Vec::new();
    for (partition, mut rows) in partitions {
        rows.sort_by(|one, other| key(other).cmp(&key(one)));
        files.push(write_file(archive, partition, rows).await?);
    }
    Ok(files)
}

/// Writes the rows of a partition, which are in their order, to a new file.
pub(super) async fn write_file(archive: &Archive, partition: Partition, rows: Vec<Row>) -> Result<File> {
    let path = partition.path(&Uuid::new_v4().to_string());
    let mut statuses = BTreeMap::new();
    for status in rows.iter().filter_map(|row| row.text(Column::Status)) {
        *statuses.entry(status.to_owned()).or_insert(0) += 1;
    }
    let created_at = |row: Option<&Row>| row.and_then(|row| time(row, Column::CreatedAt)).unwrap_or_default();
    let (min_created_at, max_created_at) = (created_at(rows.last()), created_at(rows.first()));
    let count = rows.len() as u64;
    // Compression takes longer than the runtime may be blocked.
    let content = tokio::task::spawn_blocking(move || encode(&rows)).await;
    let content = content.map_err(|error| {
        Error::new(ErrorKind::Encode, "the encoder of a file of the archive did not finish").with_source(error)
    })??;
    let store = archive.store();
    // No other file has this name.
    store.put(&path, content.clone()).await?;
    verify(&path, &content, &store.read(&path).await?)?;
    let bytes = content.len() as u64;
    Ok(File { path, partition, rows: count, bytes, min_created_at, max_created_at, statuses, is_compacted: false })
}

fn verify(path: &str, written: &Bytes, read: &Bytes) -> Result<()> {
    if written == read {
        return Ok(());
    }
    let problem = format_args!(
        "expected the {} bytes that were written, got {} bytes with other content",
        written.len(),
        read.len()
    );
    Err(corrupt(path, &problem))
}

/// Commits new runs. Runs whose version another writer has committed after `checked` commits are left out.
pub(super) async fn commit(
    archive: &Archive,
    source: &Source,
    mut rows: Vec<Row>,
    mut checked: u64,
    now: DateTime<Utc>,
) -> Result<Written> {
    let mut files = write(archive, &rows).await?;
    loop {
        let state = archive.log().state().await?;
        // Also if the response to the commit was lost. Another process may already have replaced some of the files.
        let is_committed = |file: &File| state.files.contains_key(&file.path) || state.removed.contains_key(&file.path);
        if files.is_empty() || files.iter().any(is_committed) {
            return Ok(Written::of(&files));
        }
        let is_same_day = |file: &&File| files.iter().any(|own| own.partition.day == file.partition.day);
        let others: Vec<File> = state.files_since(checked).filter(is_same_day).cloned().collect();
        checked = state.commits;
        if !others.is_empty() {
            let reading = Reading::of_files(archive.store().clone(), others, everything(now)?, VERSION_COLUMNS);
            let archived = archived_versions(archive, reading).await?;
            let count = rows.len();
            rows.retain(|row| {
                let id = row.text(Column::RunId).unwrap_or_default();
                archived.get(id).is_none_or(|archived| archived.version != Version::of(row))
            });
            if rows.len() < count {
                // The files that were written are not committed, and are swept later.
                files = write(archive, &rows).await?;
                continue;
            }
        }
        let add = files.clone();
        let next =
            Commit { version: VERSION, committed_at: now, source: Some(source.clone()), add, remove: Vec::new() };
        state.check(&next).map_err(refused)?;
        if archive.log().commit(&state, &next).await? {
            return Ok(Written::of(&files));
        }
    }
}

/// What is archived of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archived {
    pub(super) version: Version,
    /// In microseconds.
    pub(super) archived_at: i64,
}

/// The versions of the runs that are read, by id. Files that are damaged are left out: what they had is archived again.
pub(super) async fn archived_versions(archive: &Archive, mut reading: Reading) -> Result<HashMap<String, Archived>> {
    let mut archived = HashMap::new();
    while let Some(row) = reading.next().await {
        match row {
            Ok(row) => {
                let archived_at = row.int(Column::ArchivedAt).unwrap_or(0);
                let id = row.text(Column::RunId).unwrap_or_default().to_owned();
                archived.insert(id, Archived { version: Version::of(&row), archived_at });
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let archive = archive.url();
                tracing::warn!(%error, archive, "a file of the archive cannot be read; its runs are archived again");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(archived)
}

/// Criteria that match each run.
pub(super) fn everything(now: DateTime<Utc>) -> Result<Criteria> {
    Criteria::new(RunFilter::new(Window::all()), now)
}
