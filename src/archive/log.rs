//! Reads and writes the manifest of an archive.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::manifest::{Commit, Conflict, State, VERSION};
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;

/// The folder of the commits.
const COMMITS: &str = "manifest/commits";
/// The folder of stored states, which save reading the commits before them.
const STATES: &str = "manifest/states";
/// The number of commits between two stored states.
const COMMITS_PER_STATE: u64 = 50;

/// The manifest, with the last state that was read.
#[derive(Debug)]
pub(super) struct Log {
    store: Store,
    last: Mutex<Arc<State>>,
}

impl Log {
    pub(super) fn new(store: Store) -> Self {
        Self { store, last: Mutex::new(Arc::new(State { version: VERSION, ..State::default() })) }
    }

    /// Reads the commits since the last call, and returns the current state.
    pub(super) async fn state(&self) -> Result<Arc<State>> {
        let last = lock(&self.last).clone();
        let base = if last.commits == 0 { self.stored_state().await? } else { last };
        let mut state = State::clone(&base);
        let read_from = state.commits;
        let last_read = commit_path(state.commits);
        for object in self.store.list(COMMITS, Some(&last_read)).await? {
            let commit: Commit = self.read(&object.path).await?;
            let expected = commit_path(state.commits + 1);
            if object.path != expected {
                return Err(corrupt(&expected, &"the commit is missing"));
            }
            check_version(&object.path, commit.version)?;
            state.check(&commit).map_err(|conflict| corrupt(&object.path, &format_args!("{conflict:?}")))?;
            state.apply(commit);
        }
        let state = Arc::new(state);
        let mut last = lock(&self.last);
        // Another call may have read more.
        if state.commits >= last.commits && (state.commits > read_from || last.commits == 0) {
            *last = Arc::clone(&state);
        }
        Ok(state)
    }

    /// The newest stored state, or an empty one.
    async fn stored_state(&self) -> Result<Arc<State>> {
        let Some(object) = self.store.list(STATES, None).await?.pop() else { return Ok(lock(&self.last).clone()) };
        let state: State = self.read(&object.path).await?;
        check_version(&object.path, state.version)?;
        Ok(Arc::new(state))
    }

    /// Adds a commit after a state. Returns `false` if another commit has this place.
    pub(super) async fn commit(&self, state: &State, commit: &Commit) -> Result<bool> {
        let number = state.commits + 1;
        if !self.store.create(&commit_path(number), json(commit)?).await? {
            return Ok(false);
        }
        let mut next = state.clone();
        next.apply(commit.clone());
        let next = Arc::new(next);
        {
            let mut last = lock(&self.last);
            if next.commits > last.commits {
                *last = Arc::clone(&next);
            }
        }
        if number.is_multiple_of(COMMITS_PER_STATE)
            && let Err(error) = self.store.put(&state_path(number), json(&*next)?).await
        {
            // The state can be read without it.
            tracing::warn!(%error, archive = self.store.url(), "failed to store the state of the manifest");
        }
        Ok(true)
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        serde_json::from_slice(&self.store.read(path).await?).map_err(|error| corrupt(path, &error).with_source(error))
    }
}

/// The error for a commit that cannot follow the state.
pub(super) fn refused(conflict: Conflict) -> Error {
    match conflict {
        Conflict::Source(source) => Error::invalid(
            "archive",
            format_args!(
                "expected an archive of the client's tenant and namespace, got one of the tenant {} and the namespace {:?}",
                source.tenant_id,
                source.namespace.unwrap_or_default()
            ),
        ),
        Conflict::Missing(path) => {
            Error::new(ErrorKind::Storage, format!("the file {path} was removed by another process")).transient()
        }
    }
}

/// The error for a file that is damaged or of a newer version.
pub(super) fn corrupt(path: &str, problem: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("cannot read {path} of the archive: {problem}"))
}

fn check_version(path: &str, version: u32) -> Result<()> {
    if version > VERSION {
        return Err(corrupt(path, &format_args!("expected a version up to {VERSION}, got {version}")));
    }
    Ok(())
}

fn json(value: &impl Serialize) -> Result<Bytes> {
    let failed = |error| Error::new(ErrorKind::Encode, "failed to serialize the manifest").with_source(error);
    serde_json::to_vec(value).map(Bytes::from).map_err(failed)
}

/// Paths are in the order of the numbers.
fn commit_path(number: u64) -> String {
    format!("{COMMITS}/{number:020}.json")
}

fn state_path(number: u64) -> String {
    format!("{STATES}/{number:020}.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::manifest::tests::file;
    use chrono::DateTime;

    fn commit(path: &str) -> Commit {
        let add = vec![file(path, "2026-11-01")];
        Commit { version: VERSION, committed_at: DateTime::UNIX_EPOCH, source: None, add, remove: Vec::new() }
    }

    #[tokio::test]
    async fn of_two_commits_with_one_number_the_second_is_refused() {
        let store = Store::open("memory://").unwrap();
        let (one, other) = (Log::new(store.clone()), Log::new(store));
        let (before, same) = (one.state().await.unwrap(), other.state().await.unwrap());
        assert!(one.commit(&before, &commit("a")).await.unwrap());
        assert!(!other.commit(&same, &commit("b")).await.unwrap());
        let now = other.state().await.unwrap();
        assert_eq!(now.files().count(), 1);
        assert!(other.commit(&now, &commit("b")).await.unwrap());
        assert_eq!(one.state().await.unwrap().files().count(), 2);
    }

    #[tokio::test]
    async fn a_stored_state_saves_reading_the_commits_before_it() {
        let store = Store::open("memory://").unwrap();
        let log = Log::new(store.clone());
        for number in 0..COMMITS_PER_STATE + 2 {
            let state = log.state().await.unwrap();
            assert!(log.commit(&state, &commit(&number.to_string())).await.unwrap());
        }
        for number in 1..=COMMITS_PER_STATE {
            store.delete(&commit_path(number)).await.unwrap();
        }
        let state = Log::new(store.clone()).state().await.unwrap();
        assert_eq!((state.commits, state.files().count()), (52, 52));
        // A gap is an error, not a smaller archive.
        store.delete(&commit_path(COMMITS_PER_STATE + 1)).await.unwrap();
        let error = Log::new(store).state().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }

    #[tokio::test]
    async fn damaged_and_newer_commits_are_errors_that_name_the_file() {
        for content in ["{", r#"{"version":2,"committed_at":"1970-01-01T00:00:00Z"}"#] {
            let store = Store::open("memory://").unwrap();
            store.put(&commit_path(1), content.into()).await.unwrap();
            let error = Log::new(store).state().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains("manifest/commits/00000000000000000001.json"), "{error}");
        }
    }
}
