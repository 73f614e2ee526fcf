//! The object store of an archive: a few operations, with deadlines, and errors that name the object.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};

use super::open::{self, Opened};
use super::unfinished::{self, UnfinishedFile};
use crate::error::{Error, ErrorKind, Result};

/// How long one operation may take, with the retries of the store's own client.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(120);

/// Objects below a URL.
#[derive(Debug, Clone)]
pub(super) struct Store {
    objects: Arc<dyn ObjectStore>,
    /// What to do if the store rejects requests, in the text of errors.
    advice: Option<&'static str>,
    /// The local directory of the objects.
    directory: Option<Arc<Path>>,
    /// The URL, for messages.
    url: Arc<str>,
    bytes_read: Arc<AtomicU64>,
    #[cfg(test)]
    crash: super::crash::Crash,
}

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) modified_at: DateTime<Utc>,
}

impl Store {
    /// Opens a directory, or the store of a URL. The options are added to those of the environment.
    pub(super) fn open(url: &str, options: Vec<(String, String)>) -> Result<Self> {
        let Opened { objects, advice, directory } = open::open(url, options)?;
        Ok(Self {
            objects,
            advice,
            directory: directory.map(Arc::from),
            url: url.into(),
            bytes_read: Arc::default(),
            #[cfg(test)]
            crash: super::crash::Crash::default(),
        })
    }

    #[cfg(test)]
    pub(super) fn crashing(&self, crash: super::crash::Crash) -> Self {
        Self { crash, ..self.clone() }
    }

    #[cfg(test)]
    pub(super) fn crash(&self) -> &super::crash::Crash {
        &self.crash
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The number of bytes that were read from objects.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Relaxed)
    }

    /// Creates an object. Returns `false` if it exists, and leaves it as it is.
    pub(super) async fn create(&self, path: &str, content: Bytes) -> Result<bool> {
        #[cfg(test)]
        if self.crash.is_rejected() {
            return Ok(false);
        }
        let mode = PutMode::Create;
        #[cfg(test)]
        let mode = if self.crash.replaces() { PutMode::Overwrite } else { mode };
        let options = PutOptions { mode, ..PutOptions::default() };
        let created = self.run("write", path, self.objects.put_opts(&key(path), content.into(), options)).await;
        match created {
            #[cfg(test)]
            Ok(_) if self.crash.is_response_lost() => Ok(false),
            Ok(_) => Ok(true),
            Err(Failure::Store(object_store::Error::AlreadyExists { .. })) => Ok(false),
            Err(failure) => Err(self.error("write", path, failure)),
        }
    }

    /// Replaces or creates an object.
    pub(super) async fn put(&self, path: &str, content: Bytes) -> Result<()> {
        #[cfg(test)]
        let content = self.crash.kept(content);
        let put = self.run("write", path, self.objects.put(&key(path), content.into())).await;
        put.map(drop).map_err(|failure| self.error("write", path, failure))
    }

    pub(super) async fn read(&self, path: &str) -> Result<Bytes> {
        let read = async { self.objects.get(&key(path)).await?.bytes().await };
        let read = self.run("read", path, read).await.map_err(|failure| self.error("read", path, failure))?;
        self.bytes_read.fetch_add(read.len() as u64, Relaxed);
        Ok(read)
    }

    pub(super) async fn read_ranges(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let read = self.run("read", path, self.objects.get_ranges(&key(path), ranges)).await;
        let read = read.map_err(|failure| self.error("read", path, failure))?;
        self.bytes_read.fetch_add(read.iter().map(|part| part.len() as u64).sum(), Relaxed);
        Ok(read)
    }

    /// The length of an object. `None` if there is none.
    pub(super) async fn length(&self, path: &str) -> Result<Option<u64>> {
        match self.run("read", path, self.objects.head(&key(path))).await {
            Ok(object) => Ok(Some(object.size)),
            Err(Failure::Store(object_store::Error::NotFound { .. })) => Ok(None),
            Err(failure) => Err(self.error("read", path, failure)),
        }
    }

    /// Lists the objects in a directory whose paths are greater than `after`, by path.
    pub(super) async fn list(&self, directory: &str, after: Option<&str>) -> Result<Vec<Object>> {
        let prefix = key(directory);
        let objects = match after {
            Some(after) => self.objects.list_with_offset(Some(&prefix), &key(after)),
            None => self.objects.list(Some(&prefix)),
        };
        let objects = self.run("list", directory, objects.try_collect::<Vec<_>>()).await;
        let mut objects: Vec<_> = objects
            .map_err(|failure| self.error("list", directory, failure))?
            .into_iter()
            .map(|object| Object {
                path: object.location.into(),
                bytes: object.size,
                modified_at: object.last_modified,
            })
            // Some compatible stores ignore the start.
            .filter(|object| after.is_none_or(|after| object.path.as_str() > after))
            .collect();
        objects.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(objects)
    }

    /// Whether a directory has no objects.
    pub(super) async fn is_empty(&self, directory: &str) -> Result<bool> {
        let prefix = key(directory);
        let mut objects = self.objects.list(Some(&prefix));
        let first = self.run("list", directory, objects.try_next()).await;
        first.map(|first| first.is_none()).map_err(|failure| self.error("list", directory, failure))
    }

    /// Deletes an object. It is not an error if there is none.
    pub(super) async fn delete(&self, path: &str) -> Result<()> {
        match self.run("delete", path, self.objects.delete(&key(path))).await {
            Ok(()) | Err(Failure::Store(object_store::Error::NotFound { .. })) => Ok(()),
            Err(failure) => Err(self.error("delete", path, failure)),
        }
    }

    /// The files that killed processes have left in a local directory, and that have not changed since `last`. Other stores have none.
    pub(super) async fn unfinished(&self, last: DateTime<Utc>) -> Result<Vec<UnfinishedFile>> {
        let Some(directory) = self.directory.clone() else { return Ok(Vec::new()) };
        self.run_blocking("list", "unfinished files", move || unfinished::find(&directory, last.into())).await
    }

    /// Deletes an unfinished file. It is not an error if there is none.
    pub(super) async fn delete_unfinished(&self, file: &UnfinishedFile) -> Result<()> {
        let (path, file) = (file.path.display().to_string(), file.clone());
        self.run_blocking("delete", &path, move || unfinished::delete(&file)).await
    }

    async fn run_blocking<T: Send + 'static>(
        &self,
        operation: &str,
        path: &str,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let failed =
            || Error::new(ErrorKind::Storage, format!("failed to {operation} {path} in the archive {}", self.url));
        let done = tokio::time::timeout(OPERATION_TIMEOUT, tokio::task::spawn_blocking(work)).await;
        let done = done.map_err(|_| self.error(operation, path, Failure::Timeout))?;
        let done = done.map_err(|error| failed().with_source(error))?;
        done.map_err(|error| failed().with_source(error))
    }

    #[cfg_attr(not(test), expect(unused_variables, reason = "tests count the operations"))]
    async fn run<T>(
        &self,
        operation: &'static str,
        path: &str,
        future: impl Future<Output = object_store::Result<T>>,
    ) -> std::result::Result<T, Failure> {
        #[cfg(test)]
        self.crash.delay().await;
        #[cfg(test)]
        self.crash.before(operation, path)?;
        let result = match tokio::time::timeout(OPERATION_TIMEOUT, future).await {
            Ok(result) => result.map_err(Failure::Store),
            Err(_) => Err(Failure::Timeout),
        };
        #[cfg(test)]
        self.crash.after()?;
        result
    }

    fn error(&self, operation: &str, path: &str, failure: Failure) -> Error {
        let text = format!("failed to {operation} {path} in the archive {}", self.url);
        let advice = self.advice.map_or_else(String::new, |advice| format!("; {advice}"));
        match failure {
            Failure::Store(error @ object_store::Error::NotFound { .. }) => {
                Error::new(ErrorKind::Storage, text).with_source(error)
            }
            Failure::Store(error) => Error::new(ErrorKind::Storage, format!("{text}{advice}")).with_source(error),
            Failure::Timeout => {
                Error::new(ErrorKind::Timeout, format!("{text} within {OPERATION_TIMEOUT:?}{advice}")).transient()
            }
            #[cfg(test)]
            Failure::Crash => Error::new(ErrorKind::Storage, format!("{text}: crashed")),
        }
    }
}

/// Why an operation failed.
#[derive(Debug)]
pub(super) enum Failure {
    Store(object_store::Error),
    Timeout,
    #[cfg(test)]
    Crash,
}

/// The key of a path whose parts are already escaped.
fn key(path: &str) -> Key {
    // Any other path would be escaped.
    Key::parse(path).unwrap_or_else(|_| Key::from(path))
}

#[cfg(test)]
impl From<super::crash::Crashed> for Failure {
    fn from(_: super::crash::Crashed) -> Self {
        Self::Crash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::manifest::Partition;

    #[tokio::test]
    async fn objects_are_listed_by_the_paths_that_they_were_created_with() {
        let directory = std::env::temp_dir().join(format!("hatchet-archive-{}", uuid::Uuid::new_v4()));
        let names = ["greet", "a/b", "é ü", "50%", "..", "a=b", "x~y*z?", "-_."];
        // See tests/archive_store.rs.
        let other = std::env::var("HATCHET_ARCHIVE_TEST_URL").map(|url| format!("{url}/{}", uuid::Uuid::new_v4()));
        for url in ["memory://", directory.to_str().unwrap()].into_iter().chain(other.as_deref().ok()) {
            let store = Store::open(url, Vec::new()).unwrap();
            let mut paths = Vec::new();
            for name in names {
                let path = Partition::of(name, DateTime::UNIX_EPOCH).path("file");
                assert!(store.create(&path, "content".into()).await.unwrap());
                assert!(!store.create(&path, "other".into()).await.unwrap());
                assert_eq!(store.read(&path).await.unwrap(), "content");
                paths.push(path);
            }
            paths.sort();
            let listed = store.list("runs", None).await.unwrap();
            assert_eq!(listed.iter().map(|object| object.path.clone()).collect::<Vec<_>>(), paths);
            let after: Vec<_> = store.list("runs", Some(&paths[3])).await.unwrap();
            assert_eq!(after.len(), names.len() - 4);
            for path in &paths {
                store.delete(path).await.unwrap();
                store.delete(path).await.unwrap();
            }
            assert_eq!(store.list("runs", None).await.unwrap(), []);
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[tokio::test]
    async fn errors_name_the_object_and_the_archive() {
        let store = Store::open("memory://", Vec::new()).unwrap();
        let error = store.read("runs/missing").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage);
        assert_eq!(error.to_string(), "failed to read runs/missing in the archive memory://");
    }
}
