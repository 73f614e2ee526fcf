//! Files that are damaged, missing, of another version, or not needed any more.

use parquet::file::reader::{FileReader as _, SerializedFileReader};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_damaged_file_is_named_and_the_others_are_read() {
    let directory = std::env::temp_dir().join(format!("hatchet-archive-{}", uuid::Uuid::new_v4()));
    for url in ["memory://", directory.to_str().unwrap()] {
        let mut bench = Bench::new().await;
        bench.store = Store::open(url, Vec::new()).unwrap();
        bench.archive = bench.other();
        let mut ids = Vec::new();
        for n in [0, 2, 4] {
            ids.extend(bench.start([n]).await);
            sleep(DAY).await;
        }
        bench.archive.collect(&bench.client, all()).send().await.unwrap();
        let live = bench.live().await;
        for damage in 0..5 {
            let file = bench.archive.files(Window::all()).await.unwrap().remove(1);
            let content = bench.store.read(&file.path).await.unwrap();
            let length = content.len();
            let damaged: Option<bytes::Bytes> = match damage {
                0 => Some(content.slice(..length - 100)),
                1 => Some(vec![0; length].into()),
                2 => Some(bytes::Bytes::new()),
                3 => Some([&content[..100], &[255; 200], &content[300..]].concat().into()),
                _ => None,
            };
            match damaged {
                Some(damaged) => bench.store.put(&file.path, damaged).await.unwrap(),
                None => bench.store.delete(&file.path).await.unwrap(),
            }
            let archive = bench.other();
            let mut runs = archive.runs(Window::all()).details();
            let (mut good, mut errors) = (0, Vec::new());
            while let Some(run) = runs.next().await {
                match run {
                    Ok(_) => good += 1,
                    Err(error) => errors.push(error),
                }
            }
            assert_eq!((good, errors.len()), (2, 1), "damage {damage}: {errors:?}");
            assert_eq!(errors[0].kind(), ErrorKind::Corrupt, "damage {damage}: {errors:?}");
            assert!(errors[0].to_string().contains(&file.path), "{}", errors[0]);
            // Its runs are archived again, and are then found by their ids.
            let report = archive.collect(&bench.client, all()).send().await.unwrap();
            assert_eq!((report.archived, report.unchanged), (1, 2), "damage {damage}: {report}");
            for id in &ids {
                assert_eq!(archive.details(*id).await.unwrap().id, *id);
            }
            // The damaged file is replaced for the next damage.
            let state = archive.log().state().await.unwrap();
            let remove = vec![file.path.clone()];
            let commit = Commit { version: VERSION, committed_at: Utc::now(), source: None, add: Vec::new(), remove };
            assert!(archive.log().commit(&state, &commit).await.unwrap());
            assert_eq!(bench.archived().await, live);
        }
        bench.end().await;
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_not_stored_as_it_was_written_is_not_committed() {
    let bench = Bench::new().await;
    bench.start([0, 2]).await;
    let log = Crash::default();
    log.damage();
    let error = bench.crashing(&log).collect(&bench.client, all()).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("bytes that were written, got"), "{error}");
    assert!(bench.archived().await.is_empty());
    assert_eq!(bench.other().collect(&bench.client, all()).send().await.unwrap().archived, 2);
    assert_eq!(bench.archived().await, bench.live().await);
    bench.end().await;
}

/// The calls of a store that the guide mentions.
#[tokio::test(start_paused = true)]
async fn the_number_of_calls_is_known() {
    let bench = Bench::new().await;
    for n in 0..3 {
        bench.start([n]).await;
        sleep(DAY).await;
    }
    let calls = |log: &Crash| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for operation in log.operations() {
            let (verb, path) = operation.split_once(' ').unwrap();
            let directory = path.split('/').take(2).collect::<Vec<_>>().join("/");
            let directory = if directory.starts_with("runs") { "runs".to_owned() } else { directory };
            *counts.entry(format!("{verb} {directory}")).or_default() += 1;
        }
        counts.into_iter().map(|(call, count)| format!("{call}: {count}")).collect::<Vec<_>>()
    };
    // Three files in one commit, after the one that begins the archive and still exists. Until then, it is checked that there are no files.
    let log = Crash::default();
    bench.crashing(&log).collect(&bench.client, all()).send().await.unwrap();
    assert_eq!(
        calls(&log),
        [
            "delete manifest/probes: 1",
            "list manifest/commits: 7",
            "list manifest/states: 6",
            "list runs: 6",
            "read manifest/commits: 1",
            "read runs: 3",
            "write manifest/commits: 2",
            "write manifest/probes: 2",
            "write runs: 3",
        ]
    );
    // The same again: each file is compared.
    let log = Crash::default();
    bench.crashing(&log).collect(&bench.client, all()).send().await.unwrap();
    assert_eq!(
        calls(&log),
        ["list manifest/commits: 5", "list manifest/states: 1", "read manifest/commits: 2", "read runs: 3"]
    );
    // A query reads small files at once.
    let log = Crash::default();
    assert_eq!(bench.crashing(&log).runs(Window::all()).count().await.unwrap(), 3);
    assert_eq!(
        calls(&log),
        ["list manifest/commits: 1", "list manifest/states: 1", "read manifest/commits: 2", "read runs: 3"]
    );
    bench.end().await;
}

/// What each operation of another process returns: a number of runs or files, or the error.
async fn results(bench: &Bench) -> Vec<Result<u64>> {
    let other = || bench.other();
    let query = other().runs(Window::all());
    let (mut details, mut history) =
        (query.details(), History::new(&bench.client, &other()).runs(Window::all()).items());
    let id = uuid::Uuid::nil().into();
    let missing = |result: Result<RunDetails>| match result {
        Err(error) if error.kind() == ErrorKind::RunNotFound => Ok(0),
        result => result.map(|_| 1),
    };
    vec![
        query.count().await,
        query.page(10).await.map(|page| page.items.len() as u64),
        details.next().await.transpose().map(|found| u64::from(found.is_some())),
        history.next().await.transpose().map(|found| u64::from(found.is_some())),
        missing(other().details(id).await),
        other().files(Window::all()).await.map(|files| files.len() as u64),
        other().expire(Retention::older_than(Duration::ZERO)).send().await.map(|report| report.runs),
        other().compact().send().await.map(|report| report.files_merged),
        other().sweep().grace_period(Duration::ZERO).send().await.map(|report| report.files),
        other().collect(&bench.client, all()).send().await.map(|report| report.archived),
    ]
}

#[tokio::test(start_paused = true)]
async fn files_without_a_manifest_are_kept_and_an_error() {
    let bench = Bench::new().await;
    // A new archive is empty.
    let new = results(&bench).await;
    assert!(new.iter().all(|result| result.as_ref().is_ok_and(|count| *count == 0)), "{new:?}");
    bench.start(0..3).await;
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    sleep(DAY).await;
    bench.start([4]).await;
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    let (runs, manifest) =
        (bench.store.list("runs", None).await.unwrap(), bench.store.list("manifest", None).await.unwrap());
    let mut kept = Vec::new();
    for object in manifest {
        kept.push((object.path.clone(), bench.store.read(&object.path).await.unwrap()));
        bench.store.delete(&object.path).await.unwrap();
    }
    for result in results(&bench).await {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().starts_with("the manifest of the archive memory:// is lost: it has files in `runs`"));
        assert!(error.to_string().contains("restore the directory `manifest`"), "{error}");
    }
    // A process that has read the manifest before does not sweep, either.
    let error = bench.archive.sweep().grace_period(Duration::ZERO).send().await.unwrap_err();
    assert!(error.to_string().contains("its newest commit manifest/commits/00000000000000000003.json"), "{error}");
    assert_eq!(bench.store.list("runs", None).await.unwrap(), runs);
    assert_eq!(bench.store.list("manifest", None).await.unwrap(), []);
    // When it is restored, nothing is lost.
    for (path, content) in kept {
        bench.store.put(&path, content).await.unwrap();
    }
    assert_eq!(bench.archived().await, bench.live().await);
    assert_eq!(bench.other().sweep().grace_period(Duration::ZERO).send().await.unwrap(), SweepReport::default());
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_process_leaves_in_a_directory_is_swept() {
    let directory = std::env::temp_dir().join(format!("hatchet-archive-{}", uuid::Uuid::new_v4()));
    for url in [directory.to_str().unwrap().to_owned(), format!("file://{}", directory.display())] {
        let mut bench = Bench::new().await;
        bench.store = Store::open(&url, Vec::new()).unwrap();
        bench.archive = bench.other();
        bench.start([0]).await;
        bench.archive.collect(&bench.client, all()).send().await.unwrap();
        let file = bench.archive.files(Window::all()).await.unwrap().remove(0).path;
        let unfinished = [format!("{file}#1"), "manifest/commits/00000000000000000003.json#12".to_owned()];
        // These names are not those of the store.
        let others = ["runs/notes#a".to_owned(), "other#1".to_owned()];
        for path in unfinished.iter().chain(&others) {
            std::fs::write(directory.join(path), "four").unwrap();
        }
        let exists = |paths: &[String]| paths.iter().map(|path| directory.join(path).exists()).collect::<Vec<_>>();
        // A write may be in progress.
        assert_eq!(bench.archive.sweep().send().await.unwrap(), SweepReport::default());
        assert_eq!(exists(&unfinished), [true, true]);
        let swept = bench.archive.sweep().grace_period(Duration::ZERO).send().await.unwrap();
        // The other file in `runs` is one that was not committed.
        assert_eq!(swept, SweepReport { files: 3, manifest_files: 0, bytes: 12 });
        assert_eq!((exists(&unfinished), exists(&others)), (vec![false, false], vec![false, true]));
        assert_eq!(bench.archived().await, bench.live().await);
        bench.end().await;
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn files_with_older_and_newer_schemas_are_read() {
    let bench = Bench::new().await;
    let ids = bench.start([0, 2]).await;
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    let state = bench.archive.log().state().await.unwrap();
    let file = state.files().next().unwrap();
    let reader = super::decode::FileReader::open(&bench.store, file).await.unwrap();
    let rows: Vec<Row> = reader.rows(0, Column::ALL).await.unwrap();
    for (columns, version) in [(super::convert::SUMMARY_COLUMNS, 0), (Column::ALL, 2)] {
        let mut columns = columns.to_vec();
        columns.push(Column::Trigger);
        columns.sort();
        columns.dedup();
        // Files of the first versions are found by their ids, too, although the manifest does not say where their filters are.
        let content = encode_columns(&rows, &columns, version).unwrap().content;
        let path = Partition::of("count", bench.engine.now()).path(&version.to_string());
        let bytes = content.len() as u64;
        bench.store.put(&path, content).await.unwrap();
        let state = bench.archive.log().state().await.unwrap();
        let remove = state.files().map(|file| file.path.clone()).collect();
        let add = vec![File { path, bytes, id_filters: Vec::new(), ..file.clone() }];
        let commit = Commit { version: VERSION, committed_at: Utc::now(), source: None, add, remove };
        assert!(bench.archive.log().commit(&state, &commit).await.unwrap());
        assert_eq!(bench.archived().await, bench.live().await);
        assert_eq!(bench.archive.details(ids[0]).await.unwrap().status, RunStatus::Completed);
    }
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn days_expire_as_a_whole_and_files_are_deleted_after_a_grace_period() {
    // Ages are measured by the system clock by default, so the engine starts in 2001.
    let engine = Engine::builder().start_time("2001-01-01T10:00:00Z".parse().unwrap()).start().await.unwrap();
    let client = engine.client();
    let task = Task::new("count", async |input: Input, _: Context| Ok(input.n));
    let kept = Task::new("kept", async |input: Input, _: Context| Ok(input.n));
    let worker = client.worker("worker").register(&task).register(&kept).build().unwrap().start().await.unwrap();
    for task in [&task, &kept] {
        client.run(task, &Input { n: 1 }).result().await.unwrap();
    }
    let archive = Archive::open("memory://").unwrap();
    archive.collect(&client, all()).send().await.unwrap();
    let retention = Retention::older_than(365 * DAY).workflow("kept", Rule::never());
    let dry = archive.expire(retention.clone()).dry_run().send().await.unwrap();
    assert_eq!((dry.runs, rows(&archive).await), (1, 2), "{dry}");
    archive.store().crash().lose_response();
    assert_eq!(archive.expire(retention.clone()).send().await.unwrap().runs, 1, "also if the response is lost");
    assert_eq!(rows(&archive).await, 1);
    assert_eq!(archive.expire(retention).send().await.unwrap(), ExpireReport::default());
    assert_eq!(archive.sweep().send().await.unwrap(), SweepReport::default());
    assert_eq!(archive.sweep().grace_period(Duration::ZERO).send().await.unwrap().files, 1);
    assert_eq!(listed(archive.runs(Window::all()).items()).await.len(), 1);
    worker.shutdown().await;
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_archive_can_have_the_clock_of_the_engine() {
    let start = "2001-01-01T10:00:00Z".parse().unwrap();
    let engine = Engine::builder().start_time(start).start().await.unwrap();
    let client = engine.client();
    let task = Task::new("count", async |input: Input, _: Context| Ok(input.n));
    let worker = client.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    client.run(&task, &Input { n: 1 }).result().await.unwrap();
    let archive = Archive::open("memory://").unwrap();
    archive.collect(&client, all()).send().await.unwrap();
    let virtual_time = archive.clone().with_clock_of(&client);
    sleep(9 * DAY).await;
    let last = |archive: &Archive, days| archive.runs(Window::last(days * DAY));
    assert_eq!(last(&archive, 10).count().await.unwrap(), 0);
    assert_eq!(last(&virtual_time, 10).count().await.unwrap(), 1);
    assert_eq!(virtual_time.files(Window::last(10 * DAY)).await.unwrap().len(), 1);
    let expire = || virtual_time.expire(Retention::older_than(10 * DAY)).send();
    assert_eq!(expire().await.unwrap().runs, 0);
    sleep(2 * DAY).await;
    assert_eq!(last(&virtual_time, 10).count().await.unwrap(), 0);
    let report = expire().await.unwrap();
    assert_eq!((report.runs, report.to_string().as_str()), (1, "1 run in 1 file removed"));
    worker.shutdown().await;
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_compaction_leaves_damaged_files_or_discards_them() {
    let bench = Bench::new().await;
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.extend(bench.start([n]).await);
        bench.archive.collect(&bench.client, all()).send().await.unwrap();
        sleep(HOUR).await;
    }
    let archived = bench.archived().await;
    let has = |file: &ArchiveFile, id: RunId| file.min_created_at == archived[&id].created_at;
    let files = bench.archive.files(Window::all()).await.unwrap();
    let damaged = files.iter().find(|file| has(file, ids[1])).unwrap().path.clone();
    let content = bench.store.read(&damaged).await.unwrap();
    bench.store.put(&damaged, content.slice(..100)).await.unwrap();

    let merged =
        CompactReport { files_merged: 2, files_written: 1, damaged_files: vec![damaged.clone()], ..Default::default() };
    assert_eq!(bench.other().compact().send().await.unwrap(), merged);
    assert_eq!(merged.to_string(), "2 files merged into 1, 1 damaged file left");
    let unchanged = CompactReport { damaged_files: vec![damaged.clone()], ..CompactReport::default() };
    assert_eq!(bench.other().compact().send().await.unwrap(), unchanged);
    // If the file is restored, nothing is lost.
    bench.store.put(&damaged, content.clone()).await.unwrap();
    assert_eq!(bench.archived().await, archived);
    bench.store.delete(&damaged).await.unwrap();
    let discarded =
        CompactReport { files_merged: 1, files_written: 1, files_discarded: 1, damaged_files: vec![damaged] };
    assert_eq!(discarded.to_string(), "1 file merged into 1, 1 damaged file removed");
    assert_eq!(bench.other().compact().discard_damaged().send().await.unwrap(), discarded);
    assert_eq!(bench.archived().await.into_keys().collect::<BTreeSet<_>>(), [ids[0], ids[2]].into());
    assert_eq!(bench.other().compact().discard_damaged().send().await.unwrap(), CompactReport::default());
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_if_there_is_nothing_to_discard_or_to_merge() {
    let bench = Bench::new().await;
    bench.start(0..8).await;
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    bench.start(8..16).await;
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    // A day of several files of the largest size.
    let compact = |archive: &Archive| archive.compact().max_rows(3);
    assert_eq!(compact(&bench.archive).send().await.unwrap().files_written, 6);
    let log = Crash::default();
    let archive = bench.crashing(&log);
    assert_eq!(compact(&archive).discard_damaged().send().await.unwrap(), CompactReport::default());
    let writes = || log.operations().into_iter().filter(|operation| operation.starts_with("write")).collect::<Vec<_>>();
    assert_eq!(writes(), Vec::<String>::new());
    assert!(file_reads(&log) > 0, "the files are read to find damage");

    // Without discarding, a damaged new file leaves only compacted ones: what is written for nothing is deleted.
    sleep(HOUR).await;
    bench.start([100]).await;
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    let files = bench.archive.files(Window::all()).await.unwrap();
    let new = files.into_iter().max_by_key(|file| file.min_created_at).unwrap();
    let content = bench.store.read(&new.path).await.unwrap();
    bench.store.put(&new.path, content.slice(..100)).await.unwrap();
    let objects = bench.store.list("runs", None).await.unwrap();
    let report = compact(&bench.other()).send().await.unwrap();
    assert_eq!(report, CompactReport { damaged_files: vec![new.path.clone()], ..CompactReport::default() });
    assert_eq!(bench.store.list("runs", None).await.unwrap().len(), objects.len());
    // With it, the day is written again without the damaged file.
    let report = compact(&bench.other()).discard_damaged().send().await.unwrap();
    assert_eq!((report.files_merged, report.files_written, report.files_discarded), (6, 6, 1), "{report}");
    assert_eq!(bench.archived().await.len(), 16);
    bench.end().await;
}

/// The content of a file with eight other bytes at the start of a column.
fn damage(content: &[u8], column: Column) -> Vec<u8> {
    let reader = SerializedFileReader::new(bytes::Bytes::copy_from_slice(content)).unwrap();
    let group = reader.metadata().row_group(0);
    let chunk = group.columns().iter().find(|chunk| chunk.column_path().string() == column.name()).unwrap();
    let start = usize::try_from(chunk.byte_range().0).unwrap();
    let mut content = content.to_vec();
    content[start..start + 8].iter_mut().for_each(|byte| *byte = !*byte);
    content
}

#[tokio::test(start_paused = true)]
async fn discarding_a_damaged_file_keeps_runs_whose_payloads_are_damaged_until_they_are_collected_again() {
    let bench = Bench::new().await;
    let ids = bench.start((0..6).map(|n| 2 * n)).await;
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    let archived = bench.archived().await;
    let file = bench.archive.files(Window::all()).await.unwrap().remove(0);
    let content = bench.store.read(&file.path).await.unwrap();
    bench.store.put(&file.path, damage(&content, Column::Input).into()).await.unwrap();
    // What a list shows is not damaged, and a collection compares no more than that.
    assert_eq!(bench.archived().await, archived);
    assert_eq!(bench.other().details(ids[0]).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(bench.other().collect(&bench.client, all()).send().await.unwrap().unchanged, 6);

    let report = bench.other().compact().discard_damaged().send().await.unwrap();
    assert_eq!(report.to_string(), "0 files merged into 1, 1 damaged file removed");
    assert_eq!(bench.archived().await, archived);
    for id in &ids {
        let details = bench.other().details(*id).await.unwrap();
        let output = bench.client.run_handle(*id).details().await.unwrap().output().unwrap().parse::<Value>().unwrap();
        assert_eq!((details.input.as_ref(), details.output().unwrap().parse::<Value>().unwrap()), (None, output));
    }
    let report = bench.other().collect(&bench.client, all()).send().await.unwrap();
    assert_eq!((report.archived, report.unchanged), (6, 0), "{report}");
    for id in &ids {
        assert!(bench.other().details(*id).await.unwrap().input.unwrap().parse::<Input>().is_ok());
    }
    bench.other().compact().send().await.unwrap();
    assert_eq!((rows(&bench.other()).await, bench.archived().await), (6, archived));
    assert_eq!(bench.other().collect(&bench.client, all()).send().await.unwrap().unchanged, 6);

    // Without the facts, there is nothing to keep.
    let file = bench.other().files(Window::all()).await.unwrap().remove(0);
    let content = bench.store.read(&file.path).await.unwrap();
    bench.store.put(&file.path, damage(&content, Column::Tasks).into()).await.unwrap();
    bench.other().compact().discard_damaged().send().await.unwrap();
    assert_eq!(bench.archived().await.len(), 0);
    bench.end().await;
}

/// The reads of data files.
pub(super) fn file_reads(crash: &Crash) -> usize {
    crash.operations().iter().filter(|operation| operation.starts_with("read runs/")).count()
}

#[tokio::test(start_paused = true)]
async fn a_repeated_collection_reads_each_file_once() {
    let bench = Bench::new().await;
    for n in 0..3 {
        // Several pages of the list.
        bench.client.run_many(&bench.task, (0..300).map(|at| Input { n: 2 * at + 600 * n })).start().await.unwrap();
        sleep(Duration::from_secs(60)).await;
        bench.archive.collect(&bench.client, all()).send().await.unwrap();
    }
    let log = Crash::default();
    let report = bench.crashing(&log).collect(&bench.client, all()).send().await.unwrap();
    assert_eq!((report.archived, report.unchanged), (0, 900), "{report}");
    assert_eq!(file_reads(&log), 3, "{:?}", log.operations());
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_query_opens_a_file_only_when_it_arrives_there() {
    let bench = Bench::new().await;
    for n in 0..4 {
        bench.start([n]).await;
        sleep(HOUR).await;
        bench.archive.collect(&bench.client, all()).send().await.unwrap();
    }
    let log = Crash::default();
    let mut runs = bench.crashing(&log).runs(Window::all()).items();
    for at in 1..=4 {
        runs.next().await.unwrap().unwrap();
        // The next row shows that the run has no newer version.
        assert_eq!(file_reads(&log), 4.min(at + 1), "{:?}", log.operations());
    }
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_lookup_reads_only_the_filters_of_other_files() {
    let bench = Bench::new().await;
    let oldest = bench.start([0]).await;
    for day in 0..5 {
        sleep(DAY).await;
        bench.client.run_many(&bench.task, (0..200).map(|n| Input { n: 2 * (200 * day + n) })).start().await.unwrap();
    }
    sleep(HOUR).await;
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    let archive = bench.other();
    archive.files(Window::all()).await.unwrap();
    let before = archive.bytes_read();
    assert_eq!(archive.details(oldest[0]).await.unwrap().id, oldest[0]);
    let files = archive.files(Window::all()).await.unwrap();
    let own = files.iter().find(|file| file.rows == 1).unwrap().bytes;
    let (largest, total) =
        (files.iter().map(|file| file.bytes).max().unwrap(), files.iter().map(|file| file.bytes).sum());
    // A filter can be wrong, once in a thousand times.
    let read = archive.bytes_read() - before;
    assert!(read < 5 * 600 + own + largest, "{read} bytes");
    assert!(2 * read < total, "{read} of {total} bytes");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn all_requests_of_a_collection_are_limited() {
    let bench = Bench::new().await;
    let slow = slow("slow");
    let worker = bench.client.worker("other").slots(100).register(&slow).build().unwrap().start().await.unwrap();
    bench.client.run_many(&slow, vec![json!({}); 20]).start().await.unwrap();
    sleep(HOUR).await;
    let list = bench.archive.collect(&bench.client, all()).requests_per_second(1).dry_run();
    let started = tokio::time::Instant::now();
    assert_eq!(list.send().await.unwrap().archived, 20);
    // One request for the engine's retention, one for the runs that have not ended, 14 that find the day of the runs, one for the list, and
    // one for each run that timed out. The first is sent at once.
    assert_eq!(started.elapsed(), Duration::from_secs(1 + 1 + 14 + 1 + 20 - 1));
    worker.shutdown().await;
    bench.end().await;
}
