//! The parts of the manifest that a sweep deletes.

use super::super::log::{COMMITS, COMMITS_PER_STATE, PROBES, STATES, commit_path};
use super::super::manifest::State;
use super::super::manifest::tests::file;
use super::*;

const NUMBER_OF_COMMITS: u64 = 3 * COMMITS_PER_STATE + 7;

/// Adds commits, each with a file.
async fn commit(archive: &Archive, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let state = archive.log().state().await.unwrap();
        let add = vec![file(&format!("runs/{number}"), "2026-11-01")];
        let commit = Commit { version: VERSION, committed_at: Utc::now(), source: None, add, remove: Vec::new() };
        assert!(archive.log().commit(&state, &commit).await.unwrap());
    }
}

/// Other processes, whose states are of different ages, after some commits that they have not read yet.
async fn readers(store: &Store) -> Vec<Archive> {
    let (writer, mut readers) = (Archive::over(store.clone()), Vec::new());
    for commits in [1, COMMITS_PER_STATE + 1, 2 * COMMITS_PER_STATE, NUMBER_OF_COMMITS] {
        let from = writer.log().state().await.unwrap().commits;
        commit(&writer, from..commits).await;
        let reader = Archive::over(store.clone());
        reader.log().state().await.unwrap();
        readers.push(reader);
    }
    // A process that has read nothing.
    readers.push(Archive::over(store.clone()));
    readers
}

async fn count(store: &Store, directory: &str) -> usize {
    store.list(directory, None).await.unwrap().len()
}

fn sweep(archive: &Archive) -> SweepBuilder {
    archive.sweep().grace_period(Duration::ZERO)
}

async fn number_of_files(archive: &Archive) -> usize {
    archive.log().state().await.unwrap().files().count()
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_the_manifest_is_swept_affects_no_reader() {
    for step in 0.. {
        let store = Store::open("memory://", Vec::new()).unwrap();
        let readers = readers(&store).await;
        store.put(&format!("{PROBES}/left-behind"), "probe".into()).await.unwrap();
        let crash = Crash::at(3 * step);
        let result = sweep(&Archive::over(store.crashing(crash.clone()))).send().await;
        for reader in &readers {
            assert_eq!(number_of_files(reader).await as u64, NUMBER_OF_COMMITS, "{:?}", crash.operations().last());
        }
        if !crash.has_happened() {
            // The first state, the commits up to the second, and the probe.
            assert_eq!(result.unwrap().manifest_files, 1 + 2 * COMMITS_PER_STATE + 1);
            assert!(step > 50, "{step} crashes");
            break;
        }
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Storage);
        // The next sweep deletes the rest.
        sweep(&Archive::over(store.clone())).send().await.unwrap();
        assert_eq!(count(&store, COMMITS).await as u64, COMMITS_PER_STATE + 7);
        assert_eq!((count(&store, STATES).await, count(&store, PROBES).await), (2, 0));
        // A process that was behind can commit.
        commit(&readers[0], NUMBER_OF_COMMITS..NUMBER_OF_COMMITS + 1).await;
        for reader in &readers {
            assert_eq!(number_of_files(reader).await as u64, NUMBER_OF_COMMITS + 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_manifest_is_kept_for_the_grace_period_and_does_not_grow_after_it() {
    let store = Store::open("memory://", Vec::new()).unwrap();
    let archive = Archive::over(store.clone());
    commit(&archive, 0..NUMBER_OF_COMMITS).await;
    assert_eq!(archive.sweep().send().await.unwrap(), SweepReport::default());
    for round in 1..4 {
        commit(&archive, round * NUMBER_OF_COMMITS..(round + 1) * NUMBER_OF_COMMITS).await;
        sweep(&archive).send().await.unwrap();
        assert_eq!(sweep(&archive).send().await.unwrap(), SweepReport::default());
        assert_eq!(count(&store, STATES).await, 2);
        assert!((count(&store, COMMITS).await as u64) < 2 * COMMITS_PER_STATE);
        assert_eq!(number_of_files(&Archive::over(store.clone())).await as u64, (round + 1) * NUMBER_OF_COMMITS);
    }
}

#[tokio::test(start_paused = true)]
async fn commits_are_kept_if_the_state_after_them_is_damaged() {
    let store = Store::open("memory://", Vec::new()).unwrap();
    let archive = Archive::over(store.clone());
    commit(&archive, 0..NUMBER_OF_COMMITS).await;
    let states = store.list(STATES, None).await.unwrap();
    store.put(&states[1].path, "{".into()).await.unwrap();
    // The first state takes the place of the second.
    let report = sweep(&Archive::over(store.clone())).send().await.unwrap();
    assert_eq!(report.manifest_files, COMMITS_PER_STATE);
    // Also if the newest state is damaged after that.
    store.put(&states[2].path, "{".into()).await.unwrap();
    assert_eq!(number_of_files(&Archive::over(store.clone())).await as u64, NUMBER_OF_COMMITS);
    let first: State = serde_json::from_slice(&store.read(&states[0].path).await.unwrap()).unwrap();
    assert_eq!(first.commits, COMMITS_PER_STATE);
}

/// The repair that the guide describes.
#[tokio::test(start_paused = true)]
async fn a_damaged_commit_can_be_replaced_by_one_that_changes_nothing() {
    let guide = include_str!("../../../docs/archive-operations.md");
    let nothing = guide.split("```json\n").nth(1).unwrap().split("\n```").next().unwrap();
    let store = Store::open("memory://", Vec::new()).unwrap();
    commit(&Archive::over(store.clone()), 0..3).await;
    store.put(&commit_path(2), "{".into()).await.unwrap();
    let error = Archive::over(store.clone()).runs(Window::all()).count().await.unwrap_err();
    assert!(error.to_string().contains(&commit_path(2)), "{error}");
    assert!(sweep(&Archive::over(store.clone())).send().await.is_err());
    store.put(&commit_path(2), nothing.to_owned().into()).await.unwrap();
    let archive = Archive::over(store);
    assert_eq!(number_of_files(&archive).await, 2);
    // The next commit follows.
    commit(&archive, 3..4).await;
    assert_eq!(number_of_files(&archive).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_runs_while_the_manifest_is_lost_does_not_begin_another() {
    let bench = Bench::new().await;
    bench.start(0..2).await;
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    let files = bench.store.list("runs", None).await.unwrap().len();
    for object in bench.store.list("manifest", None).await.unwrap() {
        bench.store.delete(&object.path).await.unwrap();
    }
    bench.start(2..4).await;
    for error in [
        bench.archive.collect(&bench.client, all()).send().await.unwrap_err(),
        sweep(&bench.archive).send().await.unwrap_err(),
        bench.other().collect(&bench.client, all()).send().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("the manifest of the archive memory:// is lost"), "{error}");
    }
    assert_eq!(count(&bench.store, "manifest").await, 0);
    // The file of the second collection was written before its commit failed.
    assert_eq!(count(&bench.store, "runs").await, files + 1);
    bench.end().await;
}
