//! The manifest: numbered commits, each of which adds and removes files, and the state that they add up to.
//!
//! A commit is an object that is created only if no other has its number. If two writers use the same number, only the first succeeds. The
//! other reads the new commit, and tries again with the next number. A file that no commit has added is not part of the archive.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::model::TenantId;

/// The characters of a name that are escaped in a path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// The version of the manifest's format. Newer ones are rejected.
pub(super) const VERSION: u32 = 1;

/// The directory of the data files.
pub(super) const RUNS: &str = "runs";
/// The directory of the manifest.
pub(super) const MANIFEST: &str = "manifest";

/// How long a state says when a file was removed. Later, a file that still exists counts as one that was never committed.
pub(super) const REMOVED_FOR: TimeDelta = TimeDelta::days(90);

/// Changes that take effect together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Commit {
    pub(super) version: u32,
    pub(super) committed_at: DateTime<Utc>,
    /// Where the runs come from. `None` if the commit adds none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<Source>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) add: Vec<File>,
    /// The paths of files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) remove: Vec<String>,
}

/// The tenant and the namespace whose runs an archive contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Source {
    pub(super) tenant_id: TenantId,
    pub(super) namespace: Option<String>,
}

/// A file of the archive, with what is needed to skip it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct File {
    pub(super) path: String,
    pub(super) partition: Partition,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// The creation times of the first and the last run.
    pub(super) min_created_at: DateTime<Utc>,
    pub(super) max_created_at: DateTime<Utc>,
    /// The number of runs by status.
    pub(super) statuses: BTreeMap<String, u64>,
    /// Whether a compaction has written it.
    #[serde(default)]
    pub(super) is_compacted: bool,
    /// The Bloom filters of the run ids, one for each row group: a lookup reads them without the metadata of the file. Empty in a file that
    /// was written before the manifest had them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) id_filters: Vec<IdFilter>,
}

/// Where a Bloom filter is in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "(u64, u64)", from = "(u64, u64)")]
pub(super) struct IdFilter {
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

impl From<(u64, u64)> for IdFilter {
    fn from((offset, bytes): (u64, u64)) -> Self {
        Self { offset, bytes }
    }
}

impl From<IdFilter> for (u64, u64) {
    fn from(IdFilter { offset, bytes }: IdFilter) -> Self {
        (offset, bytes)
    }
}

/// What the runs of a file have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Partition {
    /// The day of the runs' creation in UTC.
    pub(super) day: NaiveDate,
    /// The name of the workflow, without the namespace. Empty if the server does not return it.
    pub(super) workflow: String,
}

impl Partition {
    pub(super) fn workflow_name(self) -> Option<String> {
        Some(self.workflow).filter(|name| !name.is_empty())
    }
}

/// All files of the archive after a number of commits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The version of the format, in a stored state.
    #[serde(default)]
    pub(super) version: u32,
    /// The number of commits.
    pub(super) commits: u64,
    pub(super) source: Option<Source>,
    /// The files by path, with the number of the commit that added each.
    pub(super) files: BTreeMap<String, (u64, File)>,
    /// When files were removed in the last [`REMOVED_FOR`], by path. They are deleted later, because they may still be read.
    pub(super) removed: BTreeMap<String, DateTime<Utc>>,
}

/// Why a commit cannot follow a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Conflict {
    /// The archive has runs of another tenant or namespace.
    Source(Source),
    /// A file to be removed is not in the archive: another writer has replaced it.
    Missing(String),
}

impl State {
    /// Checks whether a commit can be next.
    pub(super) fn check(&self, commit: &Commit) -> Result<(), Conflict> {
        if let (Some(source), Some(other)) = (&self.source, &commit.source)
            && source != other
        {
            return Err(Conflict::Source(source.clone()));
        }
        match commit.remove.iter().find(|path| !self.files.contains_key(*path)) {
            Some(path) => Err(Conflict::Missing(path.clone())),
            None => Ok(()),
        }
    }

    /// Adds the next commit.
    pub(super) fn apply(&mut self, commit: Commit) {
        self.commits += 1;
        self.removed.retain(|_, removed_at| commit.committed_at.signed_duration_since(*removed_at) <= REMOVED_FOR);
        for path in commit.remove {
            self.files.remove(&path);
            self.removed.insert(path, commit.committed_at);
        }
        let number = self.commits;
        self.files.extend(commit.add.into_iter().map(|file| (file.path.clone(), (number, file))));
        self.source = self.source.take().or(commit.source);
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &File> {
        self.files.values().map(|(_, file)| file)
    }

    /// The files that were added after a number of commits.
    pub(super) fn files_since(&self, commits: u64) -> impl Iterator<Item = &File> {
        self.files.values().filter(move |(number, _)| *number > commits).map(|(_, file)| file)
    }
}

impl File {
    /// Whether two files can have runs with the same creation time.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.min_created_at <= other.max_created_at && other.min_created_at <= self.max_created_at
    }
}

impl Partition {
    pub(super) fn of(workflow: &str, created_at: DateTime<Utc>) -> Self {
        Self { day: created_at.date_naive(), workflow: workflow.to_owned() }
    }

    /// The path of a file in this partition, in the form that query engines recognize.
    pub(super) fn path(&self, name: &str) -> String {
        let workflow = utf8_percent_encode(&self.workflow, ESCAPED);
        format!("{RUNS}/workflow={workflow}/day={}/{name}.parquet", self.day)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::archive) fn file(path: &str, day: &str) -> File {
        let at: DateTime<Utc> = format!("{day}T12:00:00Z").parse().unwrap();
        File {
            path: path.into(),
            partition: Partition::of("w", at),
            rows: 1,
            bytes: 1,
            min_created_at: at,
            max_created_at: at,
            statuses: BTreeMap::from([("COMPLETED".into(), 1)]),
            is_compacted: false,
            id_filters: vec![IdFilter { offset: 4, bytes: 48 }],
        }
    }

    fn commit(add: &[&str], remove: &[&str]) -> Commit {
        Commit {
            version: VERSION,
            committed_at: DateTime::UNIX_EPOCH,
            source: None,
            add: add.iter().map(|path| file(path, "2026-11-01")).collect(),
            remove: remove.iter().map(|path| (*path).to_owned()).collect(),
        }
    }

    fn paths(state: &State) -> Vec<&str> {
        state.files().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn a_state_is_the_sum_of_its_commits() {
        let mut state = State::default();
        for commit in [commit(&["a", "b"], &[]), commit(&["c"], &["a"])] {
            state.check(&commit).unwrap();
            state.apply(commit);
        }
        assert_eq!((paths(&state), state.commits), (vec!["b", "c"], 2));
        assert_eq!(state.files_since(1).map(|file| file.path.as_str()).collect::<Vec<_>>(), ["c"]);
        assert!(state.removed.contains_key("a"));
    }

    #[test]
    fn removed_files_are_forgotten_after_a_time() {
        let mut state = State::default();
        state.apply(commit(&["a", "b"], &[]));
        state.apply(commit(&[], &["a"]));
        let later = |days| DateTime::UNIX_EPOCH + TimeDelta::days(days);
        state.apply(Commit { committed_at: later(90), ..commit(&[], &["b"]) });
        assert_eq!(state.removed.keys().collect::<Vec<_>>(), ["a", "b"]);
        state.apply(Commit { committed_at: later(91), ..commit(&["c"], &[]) });
        assert_eq!(state.removed.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn a_file_cannot_be_removed_twice() {
        let mut state = State::default();
        state.apply(commit(&["a"], &[]));
        state.apply(commit(&["b"], &["a"]));
        assert_eq!(state.check(&commit(&["c"], &["a"])), Err(Conflict::Missing("a".into())));
    }

    #[test]
    fn an_archive_has_one_tenant_and_namespace() {
        let source = |namespace: &str| {
            Some(Source { tenant_id: uuid::Uuid::nil().into(), namespace: Some(namespace.to_owned()) })
        };
        let mut state = State::default();
        state.apply(Commit { source: source("a_"), ..commit(&["a"], &[]) });
        assert!(state.check(&Commit { source: source("a_"), ..commit(&["b"], &[]) }).is_ok());
        assert!(matches!(
            state.check(&Commit { source: source("b_"), ..commit(&["b"], &[]) }),
            Err(Conflict::Source(_))
        ));
    }

    #[test]
    fn workflow_names_are_escaped_in_paths() {
        let path = Partition::of("a/b=c", "2026-11-01T23:59:59Z".parse().unwrap()).path("x");
        assert_eq!(path, "runs/workflow=a%2Fb%3Dc/day=2026-11-01/x.parquet");
    }

    #[test]
    fn commits_and_states_are_stored_as_json() {
        let mut state = State { version: VERSION, ..State::default() };
        state.apply(commit(&["a"], &[]));
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
        assert!(json.contains(r#""id_filters":[[4,48]]"#), "{json}");
        let old = json.replace(r#","id_filters":[[4,48]]"#, "");
        assert_eq!(serde_json::from_str::<State>(&old).unwrap().files().next().unwrap().id_filters, []);
        let json = serde_json::to_string(&commit(&[], &["a"])).unwrap();
        assert_eq!(json, r#"{"version":1,"committed_at":"1970-01-01T00:00:00Z","remove":["a"]}"#);
    }
}
