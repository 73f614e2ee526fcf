//! The handle to an archive.

use std::fmt;
use std::sync::Arc;

use super::filter::Criteria;
use super::log::Log;
use super::reading::Reading;
use super::schema::Column;
use super::store::Store;
use crate::error::Result;

/// An archive of runs; see the [module documentation](super). It is cheap to clone.
///
/// An archive has the runs of one tenant and of one namespace. Several processes can write to it at the same time.
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
    /// Opens an archive: a folder, which is created, or the [URL of a store](super#stores). Nothing is read before the first use, and an archive
    /// that does not exist is empty.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for the URL, also if its feature is not enabled.
    /// [`Storage`](crate::ErrorKind::Storage) if the folder cannot be created.
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
