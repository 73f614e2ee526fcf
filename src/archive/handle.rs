//! The handle to an archive.

use std::fmt;
use std::sync::Arc;

use super::filter::Criteria;
use super::log::{Log, refused};
use super::manifest::{Conflict, Source};
use super::reading::Reading;
use super::schema::Column;
use super::store::Store;
use crate::client::Client;
use crate::error::Result;

/// An archive of runs; see the [module documentation](super). It is cheap to clone.
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
pub struct Archive(Arc<Inner>);

struct Inner {
    store: Store,
    log: Log,
}

impl Archive {
    /// Opens an archive by the path of a folder or the [URL of a store](super#stores). A folder that does not exist is created. Nothing is
    /// read before the first use; a new archive is empty.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the URL is invalid or the feature of its store is not enabled.
    /// [`Storage`](crate::ErrorKind::Storage) if the folder cannot be created or opened.
    pub fn open(url: &str) -> Result<Self> {
        Ok(Self::over(Store::open(url)?))
    }

    pub(super) fn over(store: Store) -> Self {
        let log = Log::new(store.clone());
        Self(Arc::new(Inner { store, log }))
    }

    /// Returns the URL or the path that the archive was opened with.
    pub fn url(&self) -> &str {
        self.0.store.url()
    }

    /// Returns the number of bytes that this archive and its clones have read from the store.
    pub fn bytes_read(&self) -> u64 {
        self.0.store.bytes_read()
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(super) fn log(&self) -> &Log {
        &self.0.log
    }

    /// Checks that the archive has no runs of another tenant or namespace, and returns those of the client.
    pub(super) async fn check_source(&self, client: &Client) -> Result<Source> {
        let source = Source { tenant_id: client.tenant_id()?, namespace: client.namespace().map(str::to_owned) };
        match &self.0.log.state().await?.source {
            Some(other) if *other != source => Err(refused(Conflict::Source(other.clone()))),
            _ => Ok(source),
        }
    }

    /// Reads the runs that match, in the current state of the archive.
    pub(super) async fn reading(&self, criteria: Criteria, columns: &'static [Column]) -> Result<Reading> {
        let state = self.0.log.state().await?;
        Ok(Reading::new(self.0.store.clone(), &state, criteria, columns))
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("url", &self.url()).finish_non_exhaustive()
    }
}
