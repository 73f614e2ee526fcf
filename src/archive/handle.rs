//! The handle to an archive.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::filter::Criteria;
use super::log::{Log, rejected};
use super::manifest::{Conflict, Source};
use super::reading::{Reading, matching_files};
use super::schema::Column;
use super::store::Store;
use crate::client::Client;
use crate::error::Result;
use crate::time::Clock;

/// An archive of runs; see the [module documentation](super).
///
/// An `Archive` is cheap to clone.
///
/// An archive contains the runs of one tenant and one namespace. Several processes can write to it at the same time.
///
/// ```
/// # fn example() -> hatchet::Result<()> {
/// use hatchet::archive::Archive;
///
/// let archive = Archive::open("memory://")?;
/// assert_eq!(archive.url(), "memory://");
/// # Ok(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Clone)]
pub struct Archive {
    inner: Arc<Inner>,
    /// The clock by which ages are measured.
    clock: Clock,
}

struct Inner {
    store: Store,
    log: Log,
}

impl Archive {
    /// Opens an archive by the path of a directory or the [URL of a store](super#stores).
    ///
    /// A directory that does not exist is created. Nothing is read before the first use. If there is no archive at the path or URL, it is a
    /// new, empty archive. To check that an archive exists, check that [`files`](Self::files) with
    /// [`Window::all`](crate::model::Window::all) returns files.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the URL is empty or invalid, if the feature of its store is not enabled, or if
    /// an option of the store in the environment is invalid or missing. [`Storage`](crate::ErrorKind::Storage) if the directory cannot be
    /// created or opened.
    pub fn open(url: &str) -> Result<Self> {
        Ok(Self::over(Store::open(url, Vec::new())?))
    }

    /// Opens an archive with [options](super#stores) of its store, for credentials and endpoints that are not in the environment.
    ///
    /// An option has the name of the environment variable, in upper or lower case, and takes precedence over that variable.
    ///
    /// ```no_run
    /// # fn example(secret: String) -> hatchet::Result<()> {
    /// use hatchet::archive::Archive;
    ///
    /// let options = [
    ///     ("aws_endpoint", "https://minio.example:9000".to_owned()),
    ///     ("aws_access_key_id", "archiver".to_owned()),
    ///     ("aws_secret_access_key", secret),
    /// ];
    /// let archive = Archive::open_with_options("s3://bucket/runs", options)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`open`](Self::open). Also [`InvalidInput`](crate::ErrorKind::InvalidInput) for an option that the store does not have.
    pub fn open_with_options<K: Into<String>, V: Into<String>>(
        url: &str,
        options: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        let options = options.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Ok(Self::over(Store::open(url, options)?))
    }

    pub(super) fn over(store: Store) -> Self {
        let log = Log::new(store.clone());
        Self { inner: Arc::new(Inner { store, log }), clock: Clock::System }
    }

    /// Returns the same archive with the clock of a client, for tests on virtual time: the clock of the embedded engine, or the system
    /// clock if the client is connected to another engine.
    ///
    /// By default, an archive uses the system clock. The clock determines the end of [`Window::last`](crate::model::Window::last) and the
    /// ages of [`expire`](Self::expire). [`sweep`](Self::sweep) always uses the system clock, as stores do for the times of files.
    /// [`collect`](Self::collect) and [`History`](super::History) always use the clock of their client.
    ///
    /// ```no_run
    /// # async fn example() -> hatchet::Result<()> {
    /// use std::time::Duration;
    /// use hatchet::archive::Archive;
    /// use hatchet::embedded::Engine;
    /// use hatchet::model::Window;
    ///
    /// const DAY: Duration = Duration::from_secs(24 * 3600);
    /// let engine = Engine::start().await?;
    /// let archive = Archive::open("memory://")?.with_clock_of(&engine.client());
    /// tokio::time::sleep(100 * DAY).await;
    /// let runs = archive.runs(Window::last(30 * DAY)).count().await?; // from day 70 to day 100
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_clock_of(self, client: &Client) -> Self {
        Self { clock: client.clock(), ..self }
    }

    /// The current time of its clock.
    pub(super) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Returns the URL or the path that the archive was opened with.
    pub fn url(&self) -> &str {
        self.inner.store.url()
    }

    /// Returns the number of bytes that this archive and its clones have read from the store.
    ///
    /// A cloud store transfers more: parts of a file that are less than 1 MiB apart are fetched together, with the bytes between them.
    pub fn bytes_read(&self) -> u64 {
        self.inner.store.bytes_read()
    }

    pub(super) fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(super) fn log(&self) -> &Log {
        &self.inner.log
    }

    /// Checks that the archive has no runs of another tenant or namespace, and returns those of the client.
    pub(super) async fn check_source(&self, client: &Client) -> Result<Source> {
        let source = Source { tenant_id: client.tenant_id(), namespace: client.namespace().map(str::to_owned) };
        match &self.inner.log.state().await?.source {
            Some(other) if *other != source => Err(rejected(Conflict::Source(other.clone()))),
            _ => Ok(source),
        }
    }

    /// An upper bound on the number of runs that match: the rows of the files that can contain them.
    pub(super) async fn max_matching(&self, criteria: &Criteria) -> Result<u64> {
        let state = self.inner.log.state().await?;
        Ok(matching_files(&state, criteria).into_iter().map(|file| file.rows).sum())
    }

    /// Reads the runs that match, in the current state of the archive.
    pub(super) async fn reading(&self, criteria: Criteria, columns: &'static [Column]) -> Result<Reading> {
        let state = self.inner.log.state().await?;
        Ok(Reading::new(self.inner.store.clone(), &state, criteria, columns))
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("url", &self.url()).finish_non_exhaustive()
    }
}
