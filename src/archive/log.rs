//! Reads and writes the manifest of an archive.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::sleep;
use uuid::Uuid;

use super::manifest::{Commit, Conflict, RUNS, Source, State, VERSION};
use super::store::{Object, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;

/// The directory of the commits.
pub(super) const COMMITS: &str = "manifest/commits";
/// The directory of stored states, which save reading the commits before them.
pub(super) const STATES: &str = "manifest/states";
/// The directory of objects that check the store.
pub(super) const PROBES: &str = "manifest/probes";
/// The number of commits between two stored states.
pub(super) const COMMITS_PER_STATE: u64 = 50;

/// How often a store may reject the creation of a commit that it does not have.
const MAX_REJECTIONS: u32 = 5;
/// How long to wait after the first of these rejections.
const REJECTION_PAUSE: Duration = Duration::from_millis(200);

/// The manifest, with the last state that was read.
#[derive(Debug)]
pub(super) struct Log {
    store: Store,
    last: Mutex<Arc<State>>,
    /// Whether the store was checked.
    is_checked: AtomicBool,
}

impl Log {
    pub(super) fn new(store: Store) -> Self {
        let last = Mutex::new(Arc::new(State { version: VERSION, ..State::default() }));
        Self { store, last, is_checked: AtomicBool::new(false) }
    }

    /// Reads the commits since the last call, and returns the current state. It is an error if there are data files but no commit: the first
    /// commit precedes the first file, so the manifest is lost.
    pub(super) async fn state(&self) -> Result<Arc<State>> {
        let state = self.current().await?;
        if state.commits > 0 || self.store.is_empty(RUNS).await? {
            return Ok(state);
        }
        // Another process may have begun the archive in between.
        let state = self.current().await?;
        if state.commits > 0 {
            Ok(state)
        } else {
            Err(self.lost(&format_args!("it has files in `{RUNS}`, but no commit")))
        }
    }

    /// The current state, if its newest commit still exists. If that is lost, later ones may be lost, too, and their files would look unused.
    pub(super) async fn complete_state(&self) -> Result<Arc<State>> {
        let mut state = self.state().await?;
        loop {
            let path = commit_path(state.commits);
            if state.commits == 0 || self.store.length(&path).await?.is_some() {
                return Ok(state);
            }
            // Or a sweep has deleted it, because there are many newer ones.
            let newer = self.state().await?;
            if newer.commits == state.commits {
                return Err(self.lost(&format_args!("its newest commit {path} does not exist")));
            }
            state = newer;
        }
    }

    /// Whether this process knows that the archive has a commit. It reads nothing.
    pub(super) fn has_commits(&self) -> bool {
        lock(&self.last).commits > 0
    }

    fn lost(&self, problem: &dyn std::fmt::Display) -> Error {
        let text = format!(
            "the manifest of the archive {} is lost: {problem}; restore the directory `manifest` from a backup, or from the versions of its objects, \
             or use another directory or URL for a new archive",
            self.store.url()
        );
        Error::new(ErrorKind::Corrupt, text)
    }

    async fn current(&self) -> Result<Arc<State>> {
        let last = lock(&self.last).clone();
        let mut base = if last.commits == 0 { self.stored_state().await? } else { last };
        loop {
            match self.state_since(&base).await {
                Ok(state) => {
                    self.remember(&state);
                    return Ok(state);
                }
                Err(error) => {
                    // A sweep may have deleted the next commits: then there is a state that was stored after them.
                    let stored = self.stored_state().await?;
                    if stored.commits <= base.commits {
                        return Err(error);
                    }
                    base = stored;
                }
            }
        }
    }

    /// Reads the commits after a state.
    async fn state_since(&self, base: &Arc<State>) -> Result<Arc<State>> {
        let new = self.store.list(COMMITS, Some(&commit_path(base.commits))).await?;
        if new.is_empty() {
            return Ok(Arc::clone(base));
        }
        let mut state = State::clone(base);
        for object in new {
            let expected = commit_path(state.commits + 1);
            if object.path != expected {
                if state.commits == 0 {
                    return Err(self.lost(&format_args!("it has the commit {}, but not those before it", object.path)));
                }
                return Err(corrupt(&expected, &"expected a commit, got none"));
            }
            let commit: Commit = self.read(&object.path).await?;
            check_version(&object.path, commit.version)?;
            state.check(&commit).map_err(|_| {
                corrupt(
                    &object.path,
                    &"expected a commit that follows the previous one, got one that removes a file that is not in the archive, or that has \
                      another tenant or namespace",
                )
            })?;
            state.apply(commit);
        }
        Ok(Arc::new(state))
    }

    /// The objects that no reader needs, in the order in which they can be deleted: the states before a stored state, the commits up to it,
    /// and probes that a crash left behind. This state was stored before `last`, and at least one was stored after it. So each commit that
    /// is deleted is older, too: a process that has not seen it yet has not read the manifest since.
    pub(super) async fn unused(&self, last: DateTime<Utc>) -> Result<Vec<Object>> {
        let mut unused = self.store.list(PROBES, None).await?;
        unused.retain(|probe| probe.modified_at <= last);
        let states = self.store.list(STATES, None).await?;
        for (at, object) in states.iter().enumerate().rev().skip(1).filter(|(_, object)| object.modified_at <= last) {
            // Without the commits, the state is needed if the newer ones are damaged.
            let Ok(state) = self.read::<State>(&object.path).await else { continue };
            check_version(&object.path, state.version)?;
            let state = Arc::new(state);
            if object.path == state_path(state.commits) && self.state_since(&state).await.is_ok() {
                let commits = self.store.list(COMMITS, None).await?;
                let end = commit_path(state.commits);
                unused.extend(states.into_iter().take(at));
                unused.extend(commits.into_iter().filter(|commit| commit.path <= end));
                break;
            }
        }
        Ok(unused)
    }

    /// Keeps a state for the next call, unless another call has read more.
    fn remember(&self, state: &Arc<State>) {
        let mut last = lock(&self.last);
        if state.commits > last.commits {
            *last = Arc::clone(state);
        }
    }

    /// The newest stored state, or an empty one. If it is damaged, the ones before it and the commits have the same content.
    async fn stored_state(&self) -> Result<Arc<State>> {
        for object in self.store.list(STATES, None).await?.into_iter().rev() {
            match self.read::<State>(&object.path).await {
                Ok(state) => {
                    check_version(&object.path, state.version)?;
                    return Ok(Arc::new(state));
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::warn!(%error, archive = self.store.url(), "failed to read a stored state of the manifest; an earlier one is used");
                }
                // A sweep has deleted it, because there are newer ones.
                Err(_) if self.store.length(&object.path).await?.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(lock(&self.last).clone())
    }

    /// Adds a commit after a state. Returns `false` if another commit has this place; the next state contains it. It is an error if the
    /// manifest was lost after this process has read the state: nothing could read the new commit without those before it.
    pub(super) async fn commit(&self, state: &State, commit: &Commit) -> Result<bool> {
        let is_missing = state.commits > 0 && self.store.length(&commit_path(state.commits)).await?.is_none();
        if is_missing && self.complete_state().await?.commits > state.commits {
            return Ok(false);
        }
        self.check_store().await?;
        let number = state.commits + 1;
        let (path, content) = (commit_path(number), json(commit)?);
        let mut rejections = 0;
        while !self.store.create(&path, content.clone()).await? {
            if self.state().await?.commits >= number {
                // It is this commit if the response to the request was lost, and the store's client has sent it again.
                if self.has(&path, &content).await? {
                    break;
                }
                return Ok(false);
            }
            // A store can reject an object because another process is creating it, which can still fail.
            rejections += 1;
            if rejections == MAX_REJECTIONS {
                let text = format!("expected the commit {path} after the store rejected its creation, got none");
                return Err(Error::new(ErrorKind::Storage, text));
            }
            sleep(REJECTION_PAUSE * rejections).await;
        }
        let mut next = state.clone();
        next.apply(commit.clone());
        let next = Arc::new(next);
        self.remember(&next);
        if number.is_multiple_of(COMMITS_PER_STATE)
            && let Err(error) = self.store.put(&state_path(number), json(&*next)?).await
        {
            tracing::warn!(%error, archive = self.store.url(), "failed to store the state of the manifest; it is stored again later");
        }
        Ok(true)
    }

    /// Whether an object exists and has this content.
    async fn has(&self, path: &str, content: &Bytes) -> Result<bool> {
        let length = self.store.length(path).await?;
        Ok(length == Some(content.len() as u64) && self.store.read(path).await? == *content)
    }

    /// Checks once that the store does not replace objects that exist: otherwise two processes could replace each other's commits.
    async fn check_store(&self) -> Result<()> {
        if self.is_checked.load(Relaxed) {
            return Ok(());
        }
        let path = format!("{PROBES}/{}", Uuid::new_v4());
        self.store.create(&path, Bytes::from_static(b"probe")).await?;
        let is_replaced = self.store.create(&path, Bytes::from_static(b"probe")).await?;
        self.store.delete(&path).await?;
        if is_replaced {
            let text = format!(
                "expected a store with conditional writes, got {}, which replaced an existing object",
                self.store.url()
            );
            return Err(Error::new(ErrorKind::Storage, text));
        }
        self.is_checked.store(true, Relaxed);
        Ok(())
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        serde_json::from_slice(&self.store.read(path).await?)
            .map_err(|error| corrupt(path, &"expected a valid manifest file, got other content").with_source(error))
    }
}

/// The error for a commit that cannot follow the state.
pub(super) fn rejected(conflict: Conflict) -> Error {
    match conflict {
        Conflict::Source(Source { tenant_id, namespace }) => {
            let namespace =
                namespace.map_or_else(|| "no namespace".to_owned(), |name| format!("the namespace {name:?}"));
            let found = format_args!(
                "expected an archive of the client's tenant and namespace, got one of the tenant {tenant_id} and {namespace}"
            );
            Error::invalid("archive", found)
        }
        Conflict::Missing(path) => Error::new(
            ErrorKind::Storage,
            format!("expected the file {path}, which another process removed from the archive"),
        )
        .transient(),
    }
}

/// The error for a file that is damaged or of a newer version.
pub(super) fn corrupt(path: &str, problem: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("cannot read {path} of the archive: {problem}"))
}

fn check_version(path: &str, version: u32) -> Result<()> {
    if version > VERSION {
        return Err(corrupt(path, &format_args!("expected a manifest version up to {VERSION}, got {version}")));
    }
    Ok(())
}

fn json(value: &impl Serialize) -> Result<Bytes> {
    let failed = |error| Error::new(ErrorKind::Encode, "failed to serialize the manifest").with_source(error);
    serde_json::to_vec(value).map(Bytes::from).map_err(failed)
}

/// Paths are in the order of the numbers.
pub(super) fn commit_path(number: u64) -> String {
    format!("{COMMITS}/{number:020}.json")
}

fn state_path(number: u64) -> String {
    format!("{STATES}/{number:020}.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::manifest::tests::file;

    fn commit(path: &str) -> Commit {
        let add = vec![file(path, "2026-11-01")];
        Commit { version: VERSION, committed_at: DateTime::UNIX_EPOCH, source: None, add, remove: Vec::new() }
    }

    #[tokio::test]
    async fn the_second_of_two_commits_with_the_same_number_is_rejected() {
        let store = Store::open("memory://", Vec::new()).unwrap();
        let (one, other) = (Log::new(store.clone()), Log::new(store));
        let (before, same) = (one.state().await.unwrap(), other.state().await.unwrap());
        assert!(one.commit(&before, &commit("a")).await.unwrap());
        assert!(!other.commit(&same, &commit("b")).await.unwrap());
        let now = other.state().await.unwrap();
        assert_eq!(now.files().count(), 1);
        assert!(other.commit(&now, &commit("b")).await.unwrap());
        assert_eq!(one.state().await.unwrap().files().count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_the_store_rejects_without_a_reason_is_tried_again() {
        for (rejections, expected) in [(4, Ok(true)), (5, Err(ErrorKind::Storage))] {
            let store = Store::open("memory://", Vec::new()).unwrap();
            let log = Log::new(store.clone());
            log.check_store().await.unwrap();
            store.crash().reject(rejections);
            let started = tokio::time::Instant::now();
            let state = log.state().await.unwrap();
            assert_eq!(log.commit(&state, &commit("a")).await.map_err(|error| error.kind()), expected);
            // 200, 400, 600 and 800 ms.
            assert_eq!(started.elapsed(), Duration::from_secs(2));
        }
    }

    #[tokio::test]
    async fn a_store_without_conditional_writes_is_rejected_before_the_first_commit() {
        let store = Store::open("memory://", Vec::new()).unwrap();
        store.crash().replace();
        let log = Log::new(store.clone());
        let state = log.state().await.unwrap();
        for _ in 0..2 {
            let error = log.commit(&state, &commit("a")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Storage);
            let expected = "expected a store with conditional writes, got memory://, which replaced an existing object";
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!(store.list("manifest", None).await.unwrap(), [], "also the probes are deleted");
    }

    #[tokio::test]
    async fn a_commit_whose_response_was_lost_is_recognized() {
        let store = Store::open("memory://", Vec::new()).unwrap();
        let (one, other) = (Log::new(store.clone()), Log::new(store.clone()));
        one.check_store().await.unwrap();
        let before = one.state().await.unwrap();
        store.crash().lose_response();
        assert!(one.commit(&before, &commit("a")).await.unwrap());
        assert_eq!(other.state().await.unwrap().files().count(), 1);
        assert!(!other.commit(&before, &commit("b")).await.unwrap(), "it is another one");
    }

    #[tokio::test]
    async fn commits_before_a_stored_state_are_not_read() {
        let store = Store::open("memory://", Vec::new()).unwrap();
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
            let store = Store::open("memory://", Vec::new()).unwrap();
            store.put(&commit_path(1), content.into()).await.unwrap();
            let error = Log::new(store).state().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains("manifest/commits/00000000000000000001.json"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_damaged_state_is_read_from_the_commits() {
        let store = Store::open("memory://", Vec::new()).unwrap();
        let log = Log::new(store.clone());
        for number in 0..=COMMITS_PER_STATE {
            let state = log.state().await.unwrap();
            assert!(log.commit(&state, &commit(&number.to_string())).await.unwrap());
        }
        store.put(&state_path(COMMITS_PER_STATE), "{".into()).await.unwrap();
        assert_eq!(Log::new(store).state().await.unwrap().files().count(), 51);
    }

    #[tokio::test]
    async fn a_process_that_has_read_the_manifest_does_not_continue_it_after_it_was_lost() {
        let store = Store::open("memory://", Vec::new()).unwrap();
        let log = Log::new(store.clone());
        for number in 0..3 {
            let state = log.state().await.unwrap();
            assert!(log.commit(&state, &commit(&number.to_string())).await.unwrap());
        }
        let state = log.state().await.unwrap();
        for number in 1..=3 {
            store.delete(&commit_path(number)).await.unwrap();
        }
        let error = log.commit(&state, &commit("3")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("the manifest of the archive memory:// is lost"), "{error}");
        assert_eq!(store.list(COMMITS, None).await.unwrap(), []);
        // Such a commit of an earlier version does not look like a new archive.
        store.put(&commit_path(4), json(&commit("3")).unwrap()).await.unwrap();
        let error = Log::new(store).state().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("the manifest of the archive memory:// is lost"), "{error}");
    }
}
