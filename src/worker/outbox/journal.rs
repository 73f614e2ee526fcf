//! A file with the ends of attempts that the engine has not accepted yet. They survive the process.
//!
//! The first line names the format and the tenant, whose engine alone knows the attempts. Each other line is a JSON value: an end, or the
//! number of an end that was accepted. When the file is opened, it is replaced by one with only the ends that remain. The last line may
//! have been cut off by a crash. If any other line cannot be read, the file is left as it is.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::model::{RunId, TaskId, WorkerId};
use crate::rpc::convert::{Report, ReportKind};
use crate::worker::key::Key;

/// The format in the first line.
const FORMAT: &str = "hatchet outbox 1";
/// How old an end may be when the file is opened. The engine keeps runs for 30 days by default, and does not wait that long for an attempt of
/// a worker that is gone. Ends that the engine cannot store for another reason would otherwise be kept forever.
const MAX_AGE: TimeDelta = TimeDelta::days(30);
/// The size at which the file is replaced, if most of its ends were accepted.
const COMPACT_BYTES: u64 = 16 << 20;

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// The first line.
    header: String,
    file: File,
    /// Keeps other workers from using the file.
    _lock: File,
    bytes: u64,
    /// Whether what was written in part could not be removed again.
    is_broken: bool,
    /// Ends that were accepted, which is not in the file because it could not be written.
    unwritten: Vec<u64>,
    /// The lines of the ends that remain, by number.
    remaining: BTreeMap<u64, String>,
    next: u64,
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    tenant: String,
}

/// An end in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    number: u64,
    run: RunId,
    task: TaskId,
    retry_count: u32,
    /// The batch of an attempt whose retry count is not known: then it is only the least that it can be.
    #[serde(default)]
    batch: Option<String>,
    worker: WorkerId,
    failed: bool,
    at: DateTime<Utc>,
    /// The output, or the error message.
    text: String,
    #[serde(default)]
    is_final: bool,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Accepted { accepted: u64 },
    End(Line),
}

/// The ends in a file, with their numbers.
pub(super) type Ends = Vec<(u64, Key, Report)>;

impl Journal {
    /// Opens or creates the file of a tenant, and returns the ends in it. Blocks the thread.
    pub(super) fn open(path: &Path, tenant: &str, now: DateTime<Utc>) -> io::Result<(Self, Ends)> {
        let lock = private().create(true).truncate(false).write(true).open(with_suffix(path, ".lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "another worker uses it"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let (mut remaining, mut ends, mut next) = (BTreeMap::new(), BTreeMap::new(), 1);
        let header = serde_json::to_string(&Header { format: FORMAT.to_owned(), tenant: tenant.to_owned() })?;
        for entry in read(path, &header, tenant)? {
            match entry {
                (Entry::Accepted { accepted }, _) => {
                    remaining.remove(&accepted);
                    ends.remove(&accepted);
                }
                (Entry::End(end), text) => {
                    next = next.max(end.number.saturating_add(1));
                    remaining.insert(end.number, text);
                    ends.insert(end.number, end);
                }
            }
        }
        let count = ends.len();
        ends.retain(|_, end| now - end.at <= MAX_AGE);
        remaining.retain(|number, _| ends.contains_key(number));
        if ends.len() < count {
            let (path, removed) = (path.display(), count - ends.len());
            tracing::warn!(%path, removed, max_age_days = MAX_AGE.num_days(), "removed expired results from the outbox file");
        }
        let (file, bytes) = rewrite(path, &header, &remaining)?;
        let ends = ends.into_values().map(|end| (end.number, end.key(), end.into_report())).collect();
        let path = path.to_owned();
        let (is_broken, unwritten) = (false, Vec::new());
        let journal = Self { path, header, file, _lock: lock, bytes, is_broken, unwritten, remaining, next };
        Ok((journal, ends))
    }

    /// Adds ends, and returns their numbers. Blocks the thread.
    pub(super) fn append<'a>(&mut self, ends: impl Iterator<Item = (Key, &'a Report)>) -> io::Result<Vec<u64>> {
        let (mut text, mut numbers) = (String::new(), Vec::new());
        for (key, report) in ends {
            let line = serde_json::to_string(&Line::new(self.next, key, report))?;
            text.push_str(&line);
            text.push('\n');
            self.remaining.insert(self.next, line);
            numbers.push(self.next);
            self.next += 1;
        }
        if let Err(error) = self.write(&text) {
            for number in &numbers {
                self.remaining.remove(number);
            }
            return Err(error);
        }
        Ok(numbers)
    }

    /// Removes ends that were accepted. Blocks the thread.
    pub(super) fn remove(&mut self, accepted: &[u64]) -> io::Result<()> {
        for number in accepted {
            self.remaining.remove(number);
        }
        self.unwritten.extend(accepted);
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for number in &self.unwritten {
            text.extend(["{\"accepted\":", &number.to_string(), "}\n"]);
        }
        self.write(&text)?;
        self.unwritten.clear();
        if self.bytes <= COMPACT_BYTES {
            return Ok(());
        }
        let remaining: usize = self.remaining.values().map(String::len).sum();
        if u64::try_from(remaining).unwrap_or(u64::MAX) < self.bytes / 2 {
            (self.file, self.bytes) = rewrite(&self.path, &self.header, &self.remaining)?;
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file cannot be used any longer.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            self.remove_partial_line();
            return Err(error);
        }
        self.bytes += u64::try_from(text.len()).unwrap_or_default();
        Ok(())
    }

    /// Removes what was written in part, for example because the disk is full: further lines must not follow it.
    fn remove_partial_line(&mut self) {
        let removed = self.file.set_len(self.bytes).and_then(|()| self.file.seek(SeekFrom::Start(self.bytes)));
        self.is_broken = removed.is_err();
    }
}

/// Options for a file that only the owner can read: it contains outputs and error messages.
fn private() -> OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "other systems have no modes of files"))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// The entries of a file, with their lines. None if it does not exist.
fn read(path: &Path, header: &str, tenant: &str) -> io::Result<Vec<(Entry, String)>> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let is_complete = content.ends_with(b"\n");
    let mut lines: Vec<_> = content.split(|byte| *byte == b'\n').collect();
    // After the last line break, or the last line of a process that was killed.
    let last = lines.pop().filter(|_| !is_complete);
    let mut lines = lines.into_iter().enumerate();
    let found = match lines.next() {
        Some((_, found)) => serde_json::from_slice::<Header>(found).ok().filter(|found| found.format == FORMAT),
        None if last.is_none_or(|last| header.as_bytes().starts_with(last)) => return Ok(Vec::new()),
        None => None,
    };
    let found = found
        .ok_or_else(|| invalid("expected an outbox file in the format of this version, got another file".into()))?;
    if found.tenant != tenant {
        return Err(invalid(format!(
            "expected an outbox of tenant {tenant}, got one of tenant {}; use one file per tenant",
            found.tenant
        )));
    }
    let entry = |(number, line): (usize, &[u8])| {
        let text = String::from_utf8_lossy(line).into_owned();
        let entry = serde_json::from_str(&text).map_err(|error| invalid(format!("line {}: {error}", number + 1)))?;
        Ok((entry, text))
    };
    lines.map(entry).collect()
}

/// Replaces the file by one with these lines. A crash leaves the old file or the new one.
fn rewrite(path: &Path, header: &str, lines: &BTreeMap<u64, String>) -> io::Result<(File, u64)> {
    let new = with_suffix(path, ".new");
    // One that a crash has left may have another mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private().create_new(true).write(true).open(&new)?;
    let mut bytes = header.len() as u64 + 1;
    file.write_all(header.as_bytes())?;
    file.write_all(b"\n")?;
    for line in lines.values() {
        file.write_all(line.as_bytes())?;
        file.write_all(b"\n")?;
        bytes += line.len() as u64 + 1;
    }
    file.sync_all()?;
    fs::rename(&new, path)?;
    Ok((file, bytes))
}

impl Line {
    fn new(number: u64, key: Key, report: &Report) -> Self {
        Self {
            number,
            run: key.run,
            task: key.task,
            // That of a key can be a guess, although the report has the actual one.
            retry_count: report.retry_count().unwrap_or(key.retry_count),
            batch: report.batch.as_deref().map(str::to_owned),
            worker: report.worker,
            failed: report.kind == ReportKind::Failed,
            at: report.at,
            text: report.text().to_owned(),
            is_final: report.is_final_failure(),
            retry_after_ms: report.retry_after().and_then(|delay| delay.as_millis().try_into().ok()),
        }
    }

    fn key(&self) -> Key {
        Key { run: self.run, task: self.task, retry_count: self.retry_count }
    }

    fn into_report(self) -> Report {
        let kind = if self.failed { ReportKind::Failed } else { ReportKind::Completed };
        let report = Report::of_attempt(self.worker, self.task, self.retry_count, kind, self.at, self.text);
        let report = match &self.batch {
            Some(batch) => report.in_batch(batch),
            None => report,
        };
        match self.retry_after_ms {
            _ if self.is_final => report.without_retry(),
            Some(millis) => report.with_retry_after(Duration::from_millis(millis)),
            None => report,
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::writer::JournalWriter;
    use super::*;

    const TENANT: &str = "707d0855-80ab-4e1f-a156-f1c4546cbf52";
    const HEADER: &str = r#"{"format":"hatchet outbox 1","tenant":"707d0855-80ab-4e1f-a156-f1c4546cbf52"}"#;

    fn open(path: &Path) -> io::Result<(Journal, Ends)> {
        Journal::open(path, TENANT, now())
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap()
    }

    fn end(task: u128, text: &str) -> (Key, Report) {
        let key = Key { run: Uuid::from_u128(1).into(), task: Uuid::from_u128(task).into(), retry_count: 2 };
        let worker = Uuid::from_u128(7).into();
        let at = DateTime::from_timestamp(1_700_000_000, 5_000_000).unwrap();
        let kind = if text == "broken" { ReportKind::Failed } else { ReportKind::Completed };
        (key, Report::of_attempt(worker, key.task, 2, kind, at, text.into()))
    }

    fn append(journal: &mut Journal, ends: &[(Key, Report)]) -> Vec<u64> {
        journal.append(ends.iter().map(|(key, report)| (*key, report))).unwrap()
    }

    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("hatchet-outbox-{:016x}", fastrand::u64(..)));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("outbox")
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn unaccepted_results_survive_a_crash() {
        let directory = Directory::new();
        let (mut journal, ends) = open(&directory.file()).unwrap();
        assert!(ends.is_empty());
        let [one, two, three] = [end(1, "{}"), end(2, "broken"), end(3, "\"a\\nb\"")];
        let two = (two.0, two.1.without_retry());
        let numbers = append(&mut journal, &[one, two.clone(), three.clone()]);
        journal.remove(&numbers[..1]).unwrap();
        // The process is killed in the middle of a line.
        journal.file.write_all(br#"{"number":9,"run":"#).unwrap();
        drop(journal);
        let (mut journal, ends) = open(&directory.file()).unwrap();
        let found: Vec<_> = ends.iter().map(|(number, key, report)| (*number, *key, format!("{report:?}"))).collect();
        let expected = [(numbers[1], two.0, format!("{:?}", two.1)), (numbers[2], three.0, format!("{:?}", three.1))];
        assert_eq!(found, expected);
        let more = append(&mut journal, &[end(4, "{}")]);
        assert!(more[0] > numbers[2], "numbers are not used twice");
        drop(journal);
        assert_eq!(open(&directory.file()).unwrap().1.len(), 3);
    }

    #[test]
    fn a_file_belongs_to_a_tenant() {
        let directory = Directory::new();
        let (mut journal, _) = open(&directory.file()).unwrap();
        append(&mut journal, &[end(1, "{}")]);
        drop(journal);
        let content = fs::read_to_string(directory.file()).unwrap();
        assert!(content.starts_with(&format!("{HEADER}\n")), "{content}");
        let error = Journal::open(&directory.file(), "another", now()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("expected an outbox of tenant another, got one of tenant {TENANT}; use one file per tenant")
        );
        assert_eq!(fs::read_to_string(directory.file()).unwrap(), content, "it is left as it is");
        assert_eq!(open(&directory.file()).unwrap().1.len(), 1);
    }

    #[test]
    fn other_files_are_left_as_they_are() {
        let directory = Directory::new();
        for content in ["a = 1\n", "{}\n", "a", &format!("{HEADER}\n{{\n{{\"accepted\":1}}\n")] {
            fs::write(directory.file(), content).unwrap();
            assert_eq!(open(&directory.file()).unwrap_err().kind(), io::ErrorKind::InvalidData, "{content}");
            assert_eq!(fs::read_to_string(directory.file()).unwrap(), content);
        }
        for content in ["", &HEADER[..7], HEADER, &format!("{HEADER}\n{{\"num")] {
            fs::write(directory.file(), content).unwrap();
            assert!(open(&directory.file()).unwrap().1.is_empty(), "{content}");
        }
    }

    #[test]
    fn results_that_are_too_old_are_removed() {
        let directory = Directory::new();
        let (mut journal, _) = open(&directory.file()).unwrap();
        let (_, report) = end(1, "{}");
        append(&mut journal, &[end(1, "{}"), end(2, "{}")]);
        drop(journal);
        let latest = report.at + MAX_AGE;
        for (now, expected) in [(latest, 2), (latest + TimeDelta::milliseconds(1), 0), (latest, 0)] {
            let (journal, ends) = Journal::open(&directory.file(), TENANT, now).unwrap();
            assert_eq!((ends.len(), journal.remaining.len()), (expected, expected), "{now}");
        }
    }

    #[test]
    fn the_delay_of_a_retry_is_kept() {
        let directory = Directory::new();
        let (mut journal, _) = open(&directory.file()).unwrap();
        let (key, report) = end(1, "broken");
        append(&mut journal, &[(key, report.with_retry_after(Duration::from_secs(3600)))]);
        drop(journal);
        let ends = open(&directory.file()).unwrap().1;
        assert_eq!(ends[0].2.retry_after(), Some(Duration::from_secs(3600)));
    }

    #[test]
    fn attempts_of_a_batch_are_still_without_a_retry_count() {
        let directory = Directory::new();
        let (mut journal, _) = open(&directory.file()).unwrap();
        let (key, report) = end(1, "{}");
        let report = report.in_batch("b");
        append(&mut journal, &[(key, report.clone())]);
        drop(journal);
        let ends = open(&directory.file()).unwrap().1;
        assert_eq!((ends[0].1, format!("{:?}", ends[0].2)), (key, format!("{report:?}")));
    }

    #[test]
    fn a_failure_of_a_batch_keeps_its_actual_retry_count() {
        let directory = Directory::new();
        let (mut journal, _) = open(&directory.file()).unwrap();
        let (key, report) = end(1, "broken");
        let report = report.in_batch("b").with_retry_count(7);
        append(&mut journal, &[(key, report.clone())]);
        drop(journal);
        let ends = open(&directory.file()).unwrap().1;
        assert_eq!((ends[0].1, format!("{:?}", ends[0].2)), (Key { retry_count: 7, ..key }, format!("{report:?}")));
    }

    #[test]
    fn what_was_written_in_part_does_not_corrupt_what_follows() {
        let directory = Directory::new();
        let (mut journal, _) = open(&directory.file()).unwrap();
        let one = append(&mut journal, &[end(1, "{}")]);
        // The disk is full.
        journal.file.write_all(br#"{"number":2,"run":"#).unwrap();
        journal.remove_partial_line();
        assert!(!journal.is_broken);
        // It has space again.
        journal.unwritten.extend(one);
        append(&mut journal, &[end(3, "{}")]);
        journal.remove(&[]).unwrap();
        drop(journal);
        let ends = open(&directory.file()).unwrap().1;
        assert_eq!(ends.iter().map(|(_, key, _)| *key).collect::<Vec<_>>(), [end(3, "").0]);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_file_that_cannot_be_repaired_is_not_used_any_longer() {
        let directory = Directory::new();
        let (mut journal, _) = open(&directory.file()).unwrap();
        let good = std::mem::replace(&mut journal.file, OpenOptions::new().write(true).open("/dev/full").unwrap());
        let mut outbox = super::super::Outbox::new(super::super::Limits { reports: 9, bytes: 99 }, true, true);
        let (key, report) = end(1, "{}");
        outbox.add(key, report);
        let writer = JournalWriter::on_runtime(journal);
        let saved = writer.save(outbox.take_unsaved().unwrap()).await.unwrap();
        assert!(saved.journal.is_none() && saved.numbers.is_empty() && saved.entries.len() == 1);
        assert_eq!(good.metadata().unwrap().len(), HEADER.len() as u64 + 1);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_the_files() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = Directory::new();
        for path in [directory.file(), with_suffix(&directory.file(), ".new")] {
            fs::write(&path, "").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        drop(open(&directory.file()).unwrap());
        for path in [directory.file(), with_suffix(&directory.file(), ".lock")] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn two_workers_do_not_share_a_file() {
        let directory = Directory::new();
        let _journal = open(&directory.file()).unwrap();
        let error = open(&directory.file()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(format!("{error:?}").contains("another worker uses it"), "{error:?}");
    }

    #[test]
    fn the_file_does_not_grow_without_bound() {
        let directory = Directory::new();
        let (mut journal, _) = open(&directory.file()).unwrap();
        let large = "x".repeat(1 << 20);
        for task in 0..40 {
            let numbers = append(&mut journal, &[end(task, &large)]);
            journal.remove(&numbers).unwrap();
        }
        assert!(fs::metadata(directory.file()).unwrap().len() < COMPACT_BYTES + (2 << 20));
        drop(journal);
        assert!(open(&directory.file()).unwrap().1.is_empty());
    }
}
