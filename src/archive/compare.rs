//! Compares the runs of a list with the archive. Both are read newest first, so each file is read once for a whole day.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::convert::{INCOMPLETE, VERSION_COLUMNS, Version, time};
use super::filter::Criteria;
use super::handle::Archive;
use super::manifest::File;
use super::reading::Reading;
use super::schema::{Column, Row};
use crate::error::{ErrorKind, Result};
use crate::model::{RunId, RunSummary};

/// What is archived of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archived {
    pub(super) version: Version,
    /// In microseconds.
    pub(super) archived_at: i64,
}

impl Archived {
    /// Whether this version of the run is archived, with all that it had.
    pub(super) fn has(&self, version: &Version) -> bool {
        self.version == *version && self.archived_at != INCOMPLETE
    }
}

/// The archived versions of runs, read as far as they are needed.
pub(super) struct ArchivedVersions {
    archive: Archive,
    reading: Reading,
    /// The versions that have been read, and that may still be asked for, with their creation times.
    read: HashMap<String, (DateTime<Utc>, Archived)>,
    /// The row after them.
    next: Option<Row>,
}

impl ArchivedVersions {
    /// Reads the versions in some files. The names of workflows do not matter: the engine renames a workflow that is deleted.
    pub(super) fn new(archive: &Archive, files: Vec<File>, now: DateTime<Utc>) -> Result<Self> {
        let reading = Reading::of_files(archive.store().clone(), files, Criteria::all(now)?, VERSION_COLUMNS);
        Ok(Self { archive: archive.clone(), reading, read: HashMap::new(), next: None })
    }

    /// Reads the versions of all runs that were created at this time or later. Each call has an earlier time than the last.
    pub(super) async fn read_until(&mut self, time: DateTime<Utc>) -> Result<()> {
        loop {
            let row = match self.next.take() {
                Some(row) => row,
                None => match self.reading.next().await {
                    Some(Ok(row)) => row,
                    None => return Ok(()),
                    // What the file had is archived again.
                    Some(Err(error)) if error.kind() == ErrorKind::Corrupt => {
                        let archive = self.archive.url();
                        tracing::warn!(%error, archive, "a file of the archive cannot be read; its runs are archived again");
                        continue;
                    }
                    Some(Err(error)) => return Err(error),
                },
            };
            let created_at = created_at(&row);
            if created_at < time {
                self.next = Some(row);
                return Ok(());
            }
            let archived =
                Archived { version: Version::of(&row), archived_at: row.int(Column::ArchivedAt).unwrap_or(INCOMPLETE) };
            self.read.insert(row.text(Column::RunId).unwrap_or_default().to_owned(), (created_at, archived));
        }
    }

    /// Returns the archived version of a run whose creation time has been read.
    pub(super) fn of(&self, id: &str) -> Option<&Archived> {
        self.read.get(id).map(|(_, archived)| archived)
    }

    /// Returns the archived versions of the next runs of a list.
    pub(super) async fn of_listed(&mut self, runs: &[RunSummary]) -> Result<HashMap<RunId, Archived>> {
        let Some(oldest) = runs.iter().map(|run| run.created_at).min() else { return Ok(HashMap::new()) };
        self.read_until(oldest).await?;
        let archived = |run: &RunSummary| Some((run.id, self.of(&run.id.to_string())?.clone()));
        let archived = runs.iter().filter_map(archived).collect();
        self.read.retain(|_, (created_at, _)| *created_at <= oldest);
        Ok(archived)
    }
}

fn created_at(row: &Row) -> DateTime<Utc> {
    time(row, Column::CreatedAt).unwrap_or_default()
}
