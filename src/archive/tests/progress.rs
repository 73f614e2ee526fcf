//! The progress of compactions and sweeps, also if they crash or are stopped.

use std::task::Poll;

use super::*;
use crate::archive::log::commit_path;

/// An archive of three partitions with two files each.
async fn three_days() -> Bench {
    let bench = Bench::new().await;
    for day in 0..3 {
        for half in 0..2 {
            bench.start([2 * day + half]).await;
            bench.archive.collect(&bench.client, all()).send().await.unwrap();
        }
        sleep(DAY).await;
    }
    bench
}

/// Another store with the same objects.
async fn copy(store: &Store) -> Store {
    let copy = Store::open("memory://", Vec::new()).unwrap();
    for directory in ["runs", "manifest"] {
        for object in store.list(directory, None).await.unwrap() {
            copy.put(&object.path, store.read(&object.path).await.unwrap()).await.unwrap();
        }
    }
    copy
}

async fn number_of_files(archive: &Archive) -> u64 {
    archive.files(Window::all()).await.unwrap().len() as u64
}

#[tokio::test(start_paused = true)]
async fn a_compaction_has_an_item_for_each_workflow_and_day() {
    let bench = three_days().await;
    bench.start([100]).await;
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    let mut partitions = bench.archive.compact().partitions();
    assert_eq!(partitions.report(), CompactReport::default());
    for (at, day) in ["2026-11-01", "2026-11-02", "2026-11-03"].into_iter().enumerate() {
        let item = partitions.next().await.unwrap().unwrap();
        assert_eq!((item.workflow_name.as_deref(), item.day), (Some("count"), day.parse().unwrap()));
        assert_eq!((item.files_merged, item.files_written, item.runs), (2, 1, 2));
        let file = &bench.other().files(Window::all()).await.unwrap()[at];
        assert_eq!((item.day, item.bytes), (file.day, file.bytes));
    }
    // The fourth day has one file.
    assert!(partitions.next().await.is_none());
    assert_eq!(partitions.report(), CompactReport { files_merged: 6, files_written: 3, ..CompactReport::default() });
    // They are in one commit.
    assert_eq!(bench.other().log().state().await.unwrap().commits, 1 + 7 + 1);

    // To find damage, all partitions are read.
    let mut partitions = bench.archive.compact().discard_damaged().partitions();
    for _ in 0..4 {
        let day = partitions.next().await.unwrap().unwrap();
        assert_eq!((day.files_merged, day.files_written, day.damaged_files), (0, 0, Vec::new()));
    }
    assert!(partitions.next().await.is_none());
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_of_a_compaction_no_run_is_lost_or_duplicated_and_the_report_is_accurate() {
    let bench = three_days().await;
    let expected = bench.archived().await;
    // Each day removes two files and adds one.
    for (commit_files, days_of_commit, commits) in [(1, 1, 3), (4, 2, 2), (1000, 3, 1)] {
        for step in 0.. {
            let store = copy(&bench.store).await;
            let (crash, archive) = (Crash::at(step), Archive::over(store.clone()));
            let before = archive.log().state().await.unwrap().commits;
            let crashing = Archive::over(store.crashing(crash.clone()));
            let mut partitions = crashing.compact().commit_files(commit_files).partitions();
            let (mut merged, mut errors) = (0, 0);
            while let Some(day) = partitions.next().await {
                match day {
                    Ok(day) => merged += day.files_merged,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Storage);
                        errors += 1;
                    }
                }
            }
            let operations = crash.operations();
            assert_eq!(partitions.report().files_merged, merged, "{operations:?}");
            assert_eq!(
                (listed(archive.runs(Window::all()).items()).await, rows(&archive).await),
                (expected.clone(), 6)
            );
            let (reported, committed) = (merged / 2, 6 - number_of_files(&archive).await);
            if !crash.has_happened() {
                assert_eq!((reported, committed, errors), (3, 3, 0));
                assert_eq!(archive.log().state().await.unwrap().commits, before + commits);
                assert!(step > 30, "{step} crashes");
                break;
            }
            assert!(errors > 0, "{operations:?}");
            // The last commit may have succeeded without a response.
            assert!((reported..=reported + days_of_commit).contains(&committed), "{operations:?}");
            assert!(committed.is_multiple_of(days_of_commit) || committed == 3, "together: {operations:?}");
            // The next one merges the rest, and what the crash left behind is deleted.
            archive.compact().send().await.unwrap();
            archive.sweep().grace_period(Duration::ZERO).send().await.unwrap();
            assert_eq!(
                (listed(archive.runs(Window::all()).items()).await, rows(&archive).await),
                (expected.clone(), 6)
            );
            assert_eq!(store.list("runs", None).await.unwrap().len(), 3);
        }
    }
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_error_in_one_day_does_not_affect_the_others() {
    let bench = three_days().await;
    let expected = bench.archived().await;
    let file = bench.archive.files(Window::all()).await.unwrap().remove(2);
    assert_eq!(file.day, "2026-11-02".parse().unwrap());
    let failing = Crash::default();
    failing.fail(&file.path);
    let archive = bench.crashing(&failing);
    let (mut partitions, mut items) = (archive.compact().partitions(), Vec::new());
    while let Some(day) = partitions.next().await {
        items.push(day.map(|day| day.day.to_string()).map_err(|error| error.kind()));
    }
    // The first day was committed before the error.
    assert_eq!(items, [Ok("2026-11-01".to_owned()), Err(ErrorKind::Storage), Ok("2026-11-03".to_owned())]);
    assert_eq!(partitions.report(), CompactReport { files_merged: 4, files_written: 2, ..CompactReport::default() });
    assert_eq!(archive.compact().send().await.unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!((number_of_files(&bench.other()).await, bench.archived().await), (4, expected));
    bench.end().await;
}

/// With healthy partitions in between, the files of the others are still replaced together.
#[tokio::test(start_paused = true)]
async fn a_compaction_that_reads_healthy_partitions_commits_once() {
    let bench = three_days().await;
    bench.archive.compact().send().await.unwrap();
    for number in [0, 2] {
        let file = bench.archive.files(Window::all()).await.unwrap().remove(number);
        bench.store.put(&file.path, "broken".into()).await.unwrap();
    }
    let commits = async || bench.other().log().state().await.unwrap().commits;
    let (before, mut partitions) = (commits().await, bench.archive.compact().discard_damaged().partitions());
    let mut damaged = Vec::new();
    while let Some(partition) = partitions.next().await {
        damaged.push(partition.unwrap().damaged_files.len());
    }
    assert_eq!((damaged, commits().await), (vec![1, 0, 1], before + 1));
    bench.end().await;
}

/// The error of a partition is reported although the commit of what was merged before it fails, too.
#[tokio::test(start_paused = true)]
async fn all_errors_of_a_compaction_are_items() {
    let bench = three_days().await;
    let failing = Crash::default();
    failing.fail(&bench.archive.files(Window::all()).await.unwrap().remove(2).path);
    failing.fail(&commit_path(bench.archive.log().state().await.unwrap().commits + 1));
    let archive = bench.crashing(&failing);
    let (mut partitions, mut errors) = (archive.compact().partitions(), Vec::new());
    while let Some(partition) = partitions.next().await {
        errors.push(partition.unwrap_err().to_string());
    }
    assert!(errors.len() == 2 && errors[0].contains("runs/") && errors[1].contains("manifest/"), "{errors:?}");
    assert_eq!(partitions.report(), CompactReport::default());
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn reports_are_accurate_if_the_response_to_a_commit_is_lost() {
    let bench = three_days().await;
    let expected = bench.archived().await;
    bench.store.crash().lose_response();
    let report = bench.archive.compact().send().await.unwrap();
    assert_eq!((report.files_merged, report.files_written, bench.archived().await), (6, 3, expected));
    bench.start([100]).await;
    bench.store.crash().lose_response();
    let report = bench.archive.collect(&bench.client, all()).send().await.unwrap();
    assert_eq!((report.archived, report.unchanged, rows(&bench.other()).await), (1, 6, 7), "{report}");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_compaction_that_is_dropped_keeps_what_it_has_committed() {
    let bench = three_days().await;
    let expected = bench.archived().await;
    let mut partitions = bench.archive.compact().commit_files(1).partitions();
    partitions.next().await.unwrap().unwrap();
    assert_eq!(partitions.report(), CompactReport { files_merged: 2, files_written: 1, ..CompactReport::default() });
    drop(partitions);
    assert_eq!((number_of_files(&bench.other()).await, bench.archived().await), (5, expected.clone()));
    let report = bench.archive.compact().send().await.unwrap();
    assert_eq!((report.files_merged, report.files_written, bench.archived().await), (4, 2, expected));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_day_that_another_process_merges_does_not_stop_the_others_of_its_commit() {
    let bench = three_days().await;
    let expected = bench.archived().await;
    let mut shared = 0;
    // The other process merges a day after more and more polls.
    for polls in 0.. {
        let store = copy(&bench.store).await;
        let (archive, other) = (Archive::over(store.clone()), Archive::over(store.clone()));
        let mut compaction = std::pin::pin!(archive.compact().send());
        let mut left = polls;
        let report = std::future::poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            compaction.as_mut().poll(cx).map(Some)
        });
        if report.await.is_some() {
            break;
        }
        let mut partitions = other.compact().commit_files(1).partitions();
        let theirs = partitions.next().await.map_or(0, |day| day.unwrap().files_merged);
        drop(partitions);
        let report = compaction.await.unwrap();
        shared += u64::from(theirs > 0 && report.files_merged > 0);
        assert_eq!((theirs + report.files_merged, report.files_written), (6, report.files_merged / 2), "{polls} polls");
        assert_eq!(number_of_files(&archive).await, 3);
        assert_eq!((listed(archive.runs(Window::all()).items()).await, rows(&archive).await), (expected.clone(), 6));
    }
    assert!(shared > 3, "{shared}");
    bench.end().await;
}

/// An archive with files that are not committed.
async fn with_unused_files(count: usize) -> Bench {
    let bench = Bench::new().await;
    bench.start([0]).await;
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    for number in 0..count {
        bench.store.put(&format!("runs/workflow=count/day=2026-11-01/{number}.parquet"), "four".into()).await.unwrap();
    }
    bench
}

#[tokio::test(start_paused = true)]
async fn a_sweep_has_an_item_for_each_hundred_files() {
    let bench = with_unused_files(250).await;
    let mut batches = bench.archive.sweep().grace_period(Duration::ZERO).batches();
    for (deleted, so_far) in [(100, 100), (100, 200), (50, 250)] {
        let batch = batches.next().await.unwrap().unwrap();
        assert_eq!((batch.files, batch.manifest_files, batch.bytes), (deleted, 0, 4 * deleted));
        assert_eq!(batches.report(), SweepReport { files: so_far, manifest_files: 0, bytes: 4 * so_far });
    }
    assert!(batches.next().await.is_none());
    assert_eq!((batches.report().files, bench.archived().await.len()), (250, 1));
    // A sweep that is dropped has deleted what it has reported.
    let bench = with_unused_files(250).await;
    let mut batches = bench.archive.sweep().grace_period(Duration::ZERO).batches();
    batches.next().await.unwrap().unwrap();
    drop(batches);
    assert_eq!(bench.store.list("runs", None).await.unwrap().len(), 151);
    let error = bench.archive.sweep().grace_period(91 * DAY).batches().next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_of_a_sweep_the_report_is_accurate() {
    let bench = with_unused_files(250).await;
    let mut crashes = 0;
    for step in (0..).step_by(37) {
        let store = copy(&bench.store).await;
        let crash = Crash::at(step);
        let crashing = Archive::over(store.crashing(crash.clone()));
        let mut batches = crashing.sweep().grace_period(Duration::ZERO).batches();
        let (mut items, mut failed) = (0, None);
        while let Some(batch) = batches.next().await {
            match batch {
                Ok(batch) => items += batch.files,
                Err(error) => failed = Some(error.kind()),
            }
        }
        let deleted = 251 - store.list("runs", None).await.unwrap().len() as u64;
        let reported = batches.report().files;
        if !crash.has_happened() {
            assert_eq!((items, deleted, reported, failed), (250, 250, 250, None));
            break;
        }
        crashes += 1;
        assert_eq!((items, failed), (reported / 100 * 100, Some(ErrorKind::Storage)));
        // The last file may be deleted without a response.
        assert!(deleted == reported || deleted == reported + 1, "{deleted} deleted, {reported} reported");
        assert_eq!(listed(Archive::over(store).runs(Window::all()).items()).await.len(), 1);
    }
    assert!(crashes > 10, "{crashes} crashes");
    bench.end().await;
}
