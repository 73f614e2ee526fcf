//! The version of the engine, for which it is asked once per client and not for each definition or attempt that needs it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::time::Instant;

use crate::error::Result;
use crate::sync::{lock, running};

/// How long a version counts. An engine can be upgraded while a client is connected.
pub(crate) const MAX_VERSION_AGE: Duration = Duration::from_secs(300);

/// What is known of the version. Clones share it.
#[derive(Clone, Default)]
pub(super) struct KnownVersion(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The last version that the engine has reported, and until when it counts.
    known: Option<(String, Instant)>,
    /// Only its callers hold the call, so that it ends with the last of them.
    asking: Option<WeakShared<Asking>>,
}

/// The version as the engine reports it, and when. `None` if it cannot report it, which may be an error of a proxy.
type Asking = BoxFuture<'static, (Result<Option<String>>, Instant)>;

impl KnownVersion {
    /// Returns the known version, or asks. Those who ask at the same time share one call and its failure. After a failure, the last known
    /// version counts, if there is one: engines are rarely replaced by older ones.
    pub(super) async fn get<F>(&self, ask: impl FnOnce() -> F) -> Result<Option<String>>
    where
        F: Future<Output = Result<Option<String>>> + Send + 'static,
    {
        let asking = {
            let mut state = lock(&self.0);
            if let Some((version, until)) = &state.known
                && Instant::now() < *until
            {
                return Ok(Some(version.clone()));
            }
            let asked = state.asking.as_ref().and_then(running);
            asked.unwrap_or_else(|| {
                let asking: Shared<Asking> = ask().map(|asked| (asked, Instant::now())).boxed().shared();
                state.asking = asking.downgrade();
                asking
            })
        };
        let (asked, at) = asking.await;
        let mut state = lock(&self.0);
        let until = at + MAX_VERSION_AGE;
        match (asked, &mut state.known) {
            (Ok(Some(version)), known) => {
                *known = Some((version.clone(), until));
                Ok(Some(version))
            }
            (Ok(None) | Err(_), Some(known)) => {
                known.1 = until;
                Ok(Some(known.0.clone()))
            }
            (unknown, None) => unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures_util::future::join;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::error::{Error, ErrorKind};

    const SECOND: Duration = Duration::from_secs(1);

    /// An engine that responds after a second.
    #[derive(Default)]
    struct Engine(AtomicUsize);

    impl Engine {
        async fn ask(&self, known: &KnownVersion, response: Result<Option<&'static str>>) -> Result<Option<String>> {
            let ask = || {
                self.0.fetch_add(1, Relaxed);
                async {
                    sleep(SECOND).await;
                    response.map(|version| version.map(str::to_owned))
                }
            };
            known.get(ask).await
        }

        fn calls(&self) -> usize {
            self.0.load(Relaxed)
        }
    }

    fn unavailable() -> Error {
        Error::new(ErrorKind::Unavailable, "away").transient()
    }

    #[tokio::test(start_paused = true)]
    async fn a_version_is_asked_for_again_when_it_is_too_old() {
        let (engine, known) = (Engine::default(), KnownVersion::default());
        let (first, second) = join(engine.ask(&known, Ok(Some("v1"))), engine.ask(&known, Ok(Some("v2")))).await;
        assert_eq!((first.unwrap().as_deref(), second.unwrap().as_deref()), (Some("v1"), Some("v1")));
        advance(MAX_VERSION_AGE.saturating_sub(Duration::from_millis(1))).await;
        assert_eq!(engine.ask(&known, Ok(Some("v2"))).await.unwrap().as_deref(), Some("v1"));
        assert_eq!(engine.calls(), 1);
        advance(Duration::from_millis(1)).await;
        assert_eq!(engine.ask(&known, Ok(Some("v2"))).await.unwrap().as_deref(), Some("v2"));
        assert_eq!(engine.calls(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn only_versions_are_kept() {
        let (engine, known) = (Engine::default(), KnownVersion::default());
        let (first, second) = join(engine.ask(&known, Err(unavailable())), engine.ask(&known, Ok(Some("v1")))).await;
        assert!(first.is_err() && second.is_err() && engine.calls() == 1, "they share one call");
        assert_eq!(engine.ask(&known, Ok(None)).await.unwrap(), None);
        assert_eq!(engine.ask(&known, Ok(Some("v1"))).await.unwrap().as_deref(), Some("v1"));
        assert_eq!(engine.calls(), 3);
        // An old version counts while there is no other, and each failure is waited for once.
        for (calls, response) in [(4, Err(unavailable())), (5, Ok(None))] {
            advance(MAX_VERSION_AGE).await;
            for _ in 0..2 {
                assert_eq!(engine.ask(&known, response.clone()).await.unwrap().as_deref(), Some("v1"));
            }
            assert_eq!(engine.calls(), calls);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_nobody_waits_for_any_more_is_not_joined() {
        let (engine, known) = (Engine::default(), KnownVersion::default());
        assert!(engine.ask(&known, Ok(Some("v1"))).now_or_never().is_none());
        advance(2 * MAX_VERSION_AGE).await;
        assert_eq!(engine.ask(&known, Ok(Some("v2"))).await.unwrap().as_deref(), Some("v2"));
        assert_eq!(engine.calls(), 2);
    }
}
