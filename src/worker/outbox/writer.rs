//! Writes the journal. Not on the runtime's threads for blocking code: attempts can occupy all of those, and results must not wait for them.

use std::io;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Unsaved;
use super::journal::{Ends, Journal};
use crate::error::{Error, ErrorKind, Result};
use crate::time::Clock;

/// How long a write may take.
const MAX_WRITE: Duration = Duration::from_secs(15);

/// A journal, and the thread on which it is written.
#[derive(Debug)]
pub(in crate::worker) struct JournalWriter {
    journal: Journal,
    thread: Option<JournalThread>,
}

/// A journal, and the ends in it.
pub(in crate::worker) type Recovered = (JournalWriter, Ends);

/// The result of a write.
#[derive(Debug)]
pub(in crate::worker) struct Saved {
    /// `None` if the file cannot be used any longer. A full disk may have space again later.
    pub(in crate::worker) journal: Option<JournalWriter>,
    pub(super) entries: Vec<super::Entry>,
    /// The numbers of the entries in the file, or none if they are not in it.
    pub(super) numbers: Vec<u64>,
}

impl JournalWriter {
    /// Opens or creates the file of a tenant, and returns the ends in it.
    pub(in crate::worker) async fn open(path: &Path, tenant: &str, clock: &Clock) -> Result<Recovered> {
        let failed = |error: io::Error| {
            let text = format!("failed to open the outbox {}", path.display());
            Error::new(ErrorKind::Config, text).with_source(error)
        };
        // Virtual time must stand still meanwhile, which it does only for the threads of the runtime.
        let is_real = matches!(clock, Clock::System);
        let thread = is_real.then(JournalThread::start).transpose().map_err(failed)?;
        let (to_open, tenant, now) = (path.to_owned(), tenant.to_owned(), clock.now());
        let opened = run(thread.as_ref(), move || Journal::open(&to_open, &tenant, now)).await;
        let (journal, ends) = opened.ok_or_else(|| Error::closed("the runtime"))?.map_err(failed)?;
        Ok((Self { journal, thread }, ends))
    }

    /// Writes on the threads of the runtime.
    #[cfg(test)]
    pub(super) fn on_runtime(journal: Journal) -> Self {
        Self { journal, thread: None }
    }

    /// Writes ends that are new, and removes ends that were accepted. Results do not wait for a disk that hangs. What it writes after all
    /// names the same attempts, and is checked by the next process. Returns `None` if the runtime is shut down.
    pub(in crate::worker) async fn save(self, Unsaved { entries, accepted }: Unsaved) -> Option<Saved> {
        let Self { mut journal, thread } = self;
        let path = journal.path().to_owned();
        let entries = Arc::new(entries);
        let to_write = Arc::clone(&entries);
        let writing = run(thread.as_ref(), move || {
            let entries = to_write;
            let appended = journal.append(entries.iter().map(|entry| (entry.key, &entry.report)));
            let removed = journal.remove(&accepted);
            if let Some(error) = appended.as_ref().err().or(removed.as_ref().err()) {
                // The reports are sent nevertheless. They are only not safe from a crash.
                let path = journal.path().display();
                if journal.is_broken() {
                    tracing::error!(%path, %error, "failed to write to the outbox file; no longer using it");
                } else {
                    tracing::error!(%path, %error, "failed to write to the outbox file; results are sent without being stored");
                }
            }
            (journal, appended.unwrap_or_default())
        });
        let Ok(written) = timeout(MAX_WRITE, writing).await else {
            tracing::error!(path = %path.display(), limit = ?MAX_WRITE, "failed to write to the outbox file in time; no longer using it");
            return Some(Saved { journal: None, entries: Arc::unwrap_or_clone(entries), numbers: Vec::new() });
        };
        let (journal, numbers) = written?;
        let journal = (!journal.is_broken()).then_some(Self { journal, thread });
        Some(Saved { journal, entries: Arc::unwrap_or_clone(entries), numbers })
    }

    /// Closes the file, and waits until the thread has ended.
    pub(in crate::worker) async fn close(self) {
        if let Some(thread) = self.thread {
            thread.stop().await;
        }
    }
}

/// Runs code that blocks. Returns `None` if the runtime is shut down.
async fn run<T: Send + 'static>(
    thread: Option<&JournalThread>,
    code: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    match thread {
        Some(thread) => thread.run(code).await,
        None => spawn_blocking(code).await.ok(),
    }
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
struct JournalThread {
    jobs: mpsc::Sender<Box<dyn FnOnce() + Send>>,
    ended: oneshot::Receiver<()>,
}

impl JournalThread {
    fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (end, ended) = oneshot::channel();
        let work = move || {
            let _end = end;
            for job in queue {
                job();
            }
        };
        thread::Builder::new().name("hatchet-outbox".into()).spawn(work)?;
        Ok(Self { jobs, ended })
    }

    async fn run<T: Send + 'static>(&self, code: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (reply, result) = oneshot::channel();
        // If nobody waits any longer, the result is dropped.
        let job = move || drop(reply.send(code()));
        self.jobs.send(Box::new(job)).ok()?;
        result.await.ok()
    }

    /// Ends the thread, and waits until it has ended.
    async fn stop(self) {
        drop(self.jobs);
        let _ = self.ended.await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use futures_util::FutureExt as _;
    use tokio::time::Instant;
    use uuid::Uuid;

    use super::super::{Limits, Outbox};
    use super::*;
    use crate::rpc::convert::{Report, ReportKind};
    use crate::worker::key::Key;

    #[tokio::test(start_paused = true)]
    async fn results_do_not_wait_for_a_disk_that_hangs() {
        let directory = std::env::temp_dir().join(format!("hatchet-outbox-{:016x}", fastrand::u64(..)));
        fs::create_dir(&directory).unwrap();
        let (mut writer, _) = JournalWriter::open(&directory.join("outbox"), "tenant", &Clock::System).await.unwrap();
        // The thread of the journal is busy until the end of the test.
        let thread = writer.thread.take().unwrap();
        let (release, held) = mpsc::channel::<()>();
        thread.jobs.send(Box::new(move || assert!(held.recv().is_err()))).unwrap();
        writer.thread = Some(thread);
        let mut outbox = Outbox::new(Limits { reports: 9, bytes: 99 }, true, true);
        let key = Key { run: Uuid::nil().into(), task: Uuid::nil().into(), retry_count: 0 };
        let at = chrono::DateTime::default();
        let text = "{}".to_owned();
        outbox.add(key, Report::of_attempt(Uuid::nil().into(), key.task, 0, ReportKind::Completed, at, text));
        let start = Instant::now();
        let saved = writer.save(outbox.take_unsaved().unwrap()).await.unwrap();
        assert_eq!(start.elapsed(), MAX_WRITE);
        assert!(saved.journal.is_none() && saved.numbers.is_empty() && saved.entries.len() == 1);
        outbox.saved(saved);
        assert_eq!(outbox.next_call(Instant::now()).unwrap().entries[0].report.text(), "{}");
        drop(release);
        let _ = fs::remove_dir_all(directory);
    }

    #[tokio::test]
    async fn the_thread_does_what_it_was_given_and_ends() {
        let thread = JournalThread::start().unwrap();
        let name = thread.run(|| thread::current().name().map(str::to_owned)).await.unwrap();
        assert_eq!(name.as_deref(), Some("hatchet-outbox"));
        let (sender, receiver) = mpsc::channel();
        // It is done although nobody waits for the result.
        assert!(thread.run(move || sender.send(7)).now_or_never().is_none_or(|sent| sent == Some(Ok(()))));
        thread.stop().await;
        assert_eq!(receiver.recv(), Ok(7));
    }
}
