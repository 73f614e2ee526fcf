//! Writes rows to files, and commits the files.
//!
//! A file is written under a name of its own, read again and compared, and only then committed. So a crash leaves at most files that no
//! commit has added, which nobody reads and which are [swept](super::Archive::sweep) later.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::convert::{KEYS, Version, key, time};
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

/// Writes rows to new files, one for each partition.
pub(super) async fn write(archive: &Archive, rows: &[Row]) -> Result<Vec<File>> {
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
    let content =
        content.map_err(|error| Error::new(ErrorKind::Encode, "writing a file failed").with_source(error))??;
    let store = archive.store();
    if !store.create(&path, content.clone()).await? {
        return Err(Error::new(ErrorKind::AlreadyExists, format!("the file {path} exists in the archive")));
    }
    verify(&path, &content, &store.read(&path).await?)?;
    let bytes = content.len() as u64;
    Ok(File { path, partition, rows: count, bytes, min_created_at, max_created_at, statuses })
}

fn verify(path: &str, written: &Bytes, read: &Bytes) -> Result<()> {
    if written == read {
        return Ok(());
    }
    let problem = format_args!("expected the {} bytes that were written, got {} others", written.len(), read.len());
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
        let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        if paths.is_empty() || paths.iter().all(|path| state.files.contains_key(*path)) {
            // Also if the response to the commit was lost.
            let count = |of: fn(&File) -> u64| files.iter().map(of).sum();
            return Ok(Written {
                runs: count(|file| file.rows),
                files: files.len() as u64,
                bytes: count(|file| file.bytes),
            });
        }
        let is_ours = |file: &&File| files.iter().any(|own| own.partition == file.partition);
        let others: Vec<File> = state.files_since(checked).filter(is_ours).cloned().collect();
        checked = state.commits;
        if !others.is_empty() {
            let known =
                known(archive, Reading::of_files(archive.store().clone(), others, everything(now)?, KEYS)).await?;
            let count = rows.len();
            rows.retain(|row| {
                let id = row.text(Column::RunId).unwrap_or_default();
                known.get(id).is_none_or(|known| *known < Version::of(row))
            });
            if rows.len() < count {
                for file in &files {
                    archive.store().delete(&file.path).await?;
                }
                files = write(archive, &rows).await?;
                continue;
            }
        }
        let add = files.clone();
        let next =
            Commit { version: VERSION, committed_at: now, source: Some(source.clone()), add, remove: Vec::new() };
        state.check(&next).map_err(refused)?;
        archive.log().commit(&state, &next).await?;
    }
}

/// The versions of the runs that are read, by id. Files that are damaged are left out: what they had is archived again.
pub(super) async fn known(archive: &Archive, mut reading: Reading) -> Result<HashMap<String, Version>> {
    let mut known = HashMap::new();
    while let Some(row) = reading.next().await {
        match row {
            Ok(row) => drop(known.insert(row.text(Column::RunId).unwrap_or_default().to_owned(), Version::of(&row))),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(%error, archive = archive.url(), "a file of the archive cannot be read");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(known)
}

/// Criteria that match each run.
pub(super) fn everything(now: DateTime<Utc>) -> Result<Criteria> {
    Criteria::new(RunFilter::new(Window::all()), now)
}
