//! The root certificates that this machine trusts.

use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio_rustls::rustls::RootCertStore;

use crate::error::BoxError;

/// The root certificates of this machine, for the whole process.
pub(super) static NATIVE_ROOTS: Roots = Roots::new(native);

/// Root certificates that are read once, at their first use. Reading them may open many files.
pub(super) struct Roots {
    read: fn() -> Result<RootCertStore, BoxError>,
    store: OnceCell<Arc<RootCertStore>>,
}

impl Roots {
    const fn new(read: fn() -> Result<RootCertStore, BoxError>) -> Self {
        Self { read, store: OnceCell::const_new() }
    }

    /// Returns the root certificates, read on a blocking thread. After an error, the next call reads them again.
    pub(super) async fn get(&self) -> Result<Arc<RootCertStore>, BoxError> {
        let read = self.read;
        let store = self.store.get_or_try_init(|| async move { spawn_blocking(read).await?.map(Arc::new) });
        store.await.cloned()
    }
}

fn native() -> Result<RootCertStore, BoxError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // A few certificates may be unreadable. The others are still used.
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    Err(found.errors.into_iter().next().map_or_else(
        || "the system has no root certificates: install them, or set ConfigBuilder::tls_root_ca".into(),
        |error| Box::new(error) as BoxError,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread;

    #[tokio::test]
    async fn roots_are_read_once_on_a_blocking_thread() {
        static READS: AtomicUsize = AtomicUsize::new(0);
        static RUNTIME: std::sync::OnceLock<thread::ThreadId> = std::sync::OnceLock::new();
        fn read() -> Result<RootCertStore, BoxError> {
            READS.fetch_add(1, SeqCst);
            if RUNTIME.get() == Some(&thread::current().id()) {
                return Err("read on a thread of the runtime".into());
            }
            Ok(RootCertStore::empty())
        }
        static ROOTS: Roots = Roots::new(read);
        // This runtime has one thread.
        RUNTIME.set(thread::current().id()).unwrap();
        assert_eq!(READS.load(SeqCst), 0);
        let (first, second) = tokio::join!(ROOTS.get(), ROOTS.get());
        assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()));
        ROOTS.get().await.unwrap();
        assert_eq!(READS.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn errors_are_not_cached() {
        static READS: AtomicUsize = AtomicUsize::new(0);
        fn read() -> Result<RootCertStore, BoxError> {
            if READS.fetch_add(1, SeqCst) == 0 { Err("not now".into()) } else { Ok(RootCertStore::empty()) }
        }
        static ROOTS: Roots = Roots::new(read);
        assert_eq!(ROOTS.get().await.unwrap_err().to_string(), "not now");
        assert!(ROOTS.get().await.is_ok());
    }
}
