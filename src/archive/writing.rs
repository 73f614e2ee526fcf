//! Writes rows to files, and commits the files.
//!
//! Each file is written under a new name, read back and compared before it is committed. So a crash leaves only files that were not
//! committed; nothing reads them, and [`sweep`](super::Archive::sweep) deletes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::compare::ArchivedVersions;
use super::convert::{Version, key, time};
use super::encode::{Encoded, encode};
use super::handle::Archive;
use super::log::{corrupt, rejected};
use super::manifest::{Commit, File, Partition, Source, VERSION};
use super::schema::{Column, Row};
use crate::error::{Error, ErrorKind, Result};

/// The maximum number of rows in a file.
pub(super) const MAX_FILE_ROWS: usize = 50_000;
/// The maximum size of the rows of a file in memory. The file is several times smaller.
pub(super) const MAX_FILE_BYTES: usize = 64 << 20;

/// What was committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) runs: u64,
    pub(super) runs_by_workflow: BTreeMap<String, u64>,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Written {
    fn of(files: &[File]) -> Self {
        let count = |of: fn(&File) -> u64| files.iter().map(of).sum();
        let mut runs_by_workflow = BTreeMap::new();
        for file in files {
            *runs_by_workflow.entry(file.partition.workflow.clone()).or_insert(0) += file.rows;
        }
        Self {
            runs: count(|file| file.rows),
            runs_by_workflow,
            files: files.len() as u64,
            bytes: count(|file| file.bytes),
        }
    }
}

/// The rows of each partition. They are shared with the thread that encodes them.
type Partitions = BTreeMap<Partition, Arc<Vec<Row>>>;

/// Groups rows by partition, and sorts them.
fn partitions(rows: Vec<Row>) -> Partitions {
    let mut partitions: BTreeMap<Partition, Vec<Row>> = BTreeMap::new();
    for row in rows {
        if let (Some(workflow), Some(at)) = (row.text(Column::WorkflowName), time(&row, Column::CreatedAt)) {
            partitions.entry(Partition::of(workflow, at)).or_default().push(row);
        }
    }
    let sorted = |mut rows: Vec<Row>| {
        rows.sort_by(|one, other| key(other).cmp(&key(one)));
        Arc::new(rows)
    };
    partitions.into_iter().map(|(partition, rows)| (partition, sorted(rows))).collect()
}

/// Writes rows to new files, one for each partition.
async fn write(archive: &Archive, partitions: &Partitions) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for (partition, rows) in partitions {
        files.push(write_file(archive, partition.clone(), Arc::clone(rows)).await?);
    }
    Ok(files)
}

/// Writes the rows of a partition, which are in order, to a new file.
pub(super) async fn write_file(archive: &Archive, partition: Partition, rows: Arc<Vec<Row>>) -> Result<File> {
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
    let Encoded { content, id_filters } = content.map_err(|error| {
        Error::new(ErrorKind::Encode, "the encoder of a file of the archive did not finish").with_source(error)
    })??;
    let store = archive.store();
    // No other file has this name.
    store.put(&path, content.clone()).await?;
    verify(&path, &content, &store.read(&path).await?)?;
    let bytes = content.len() as u64;
    Ok(File {
        path,
        partition,
        rows: count,
        bytes,
        min_created_at,
        max_created_at,
        statuses,
        is_compacted: false,
        id_filters,
    })
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
    rows: Vec<Row>,
    mut checked: u64,
    now: DateTime<Utc>,
) -> Result<Written> {
    begin(archive, source, now).await?;
    let mut partitions = partitions(rows);
    let mut files = write(archive, &partitions).await?;
    while !files.is_empty() {
        let state = archive.log().state().await?;
        let first = files.iter().map(|file| file.min_created_at).min().unwrap_or_default();
        let overlaps = |file: &&File| files.iter().any(|own| own.overlaps(file));
        let others: Vec<File> = state.files_since(checked).filter(overlaps).cloned().collect();
        checked = state.commits;
        if !others.is_empty() {
            let mut archived = ArchivedVersions::new(archive, others, now)?;
            archived.read_until(first).await?;
            if leave_out(&mut partitions, &archived) {
                // The files that were written are not committed, and are swept later.
                files = write(archive, &partitions).await?;
                continue;
            }
        }
        let add = files.clone();
        let next =
            Commit { version: VERSION, committed_at: now, source: Some(source.clone()), add, remove: Vec::new() };
        state.check(&next).map_err(rejected)?;
        if archive.log().commit(&state, &next).await? {
            return Ok(Written::of(&files));
        }
    }
    Ok(Written::default())
}

/// Writes the first commit of a new archive, which is empty. It precedes the first file, so files without a commit are always those of an
/// archive that has lost its manifest.
async fn begin(archive: &Archive, source: &Source, now: DateTime<Utc>) -> Result<()> {
    while !archive.log().has_commits() {
        let state = archive.log().state().await?;
        if state.commits > 0 {
            break;
        }
        let source = Some(source.clone());
        let first = Commit { version: VERSION, committed_at: now, source, add: Vec::new(), remove: Vec::new() };
        archive.log().commit(&state, &first).await?;
    }
    Ok(())
}

/// Removes the rows whose version is archived. Returns whether there were any.
fn leave_out(partitions: &mut Partitions, archived: &ArchivedVersions) -> bool {
    let is_archived = |row: &Row| {
        let archived = archived.of(row.text(Column::RunId).unwrap_or_default());
        archived.is_some_and(|archived| archived.has(&Version::of(row)))
    };
    let mut has_removed = false;
    partitions.retain(|_, rows| {
        if rows.iter().any(is_archived) {
            has_removed = true;
            // The thread that encoded the rows has ended, so this is not a copy.
            Arc::make_mut(rows).retain(|row| !is_archived(row));
        }
        !rows.is_empty()
    });
    has_removed
}
