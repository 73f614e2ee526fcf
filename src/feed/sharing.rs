//! Requests that several callers share.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Mutex;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};

use crate::error::Result;
use crate::model::RunId;
use crate::sync::lock;

type Request<T> = Shared<BoxFuture<'static, Result<T>>>;
type WeakRequest<T> = WeakShared<BoxFuture<'static, Result<T>>>;

/// From this number of runs on, those whose callers have left are removed when the number has doubled.
const MIN_SWEEP: usize = 64;

/// The requests about each run that can be joined, by their question. A request ends when all of its callers have left.
pub(super) struct Sharing<Q, T: Clone>(Mutex<State<Q, T>>);

struct State<Q, T: Clone> {
    by_run: HashMap<RunId, Vec<(Q, WeakRequest<T>)>>,
    sweep_at: usize,
}

impl<Q, T: Clone> Default for Sharing<Q, T> {
    fn default() -> Self {
        Self(Mutex::new(State { by_run: HashMap::new(), sweep_at: MIN_SWEEP }))
    }
}

impl<Q: PartialEq, T: Clone> Sharing<Q, T> {
    /// Joins the request with a question, or begins it.
    pub(super) fn join<F>(&self, run: RunId, question: Q, begin: impl FnOnce(&Q) -> F) -> Request<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut state = lock(&self.0);
        if state.by_run.len() >= state.sweep_at {
            state.by_run.retain(|_, of_run| of_run.iter().any(|(_, request)| request.upgrade().is_some()));
            state.sweep_at = (2 * state.by_run.len()).max(MIN_SWEEP);
        }
        let of_run = state.by_run.entry(run).or_default();
        of_run.retain(|(_, request)| request.upgrade().is_some());
        let joined = of_run.iter().find(|(other, _)| *other == question).and_then(|(_, request)| request.upgrade());
        joined.unwrap_or_else(|| {
            let request = begin(&question).boxed().shared();
            of_run.extend(request.downgrade().map(|weak| (question, weak)));
            request
        })
    }

    /// From now on, nobody joins a request.
    pub(super) fn remove(&self, run: RunId, question: &Q) {
        let mut state = lock(&self.0);
        if let Some(of_run) = state.by_run.get_mut(&run) {
            of_run.retain(|(other, _)| other != question);
            if of_run.is_empty() {
                state.by_run.remove(&run);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.0).by_run.len()
    }
}

impl<Q, T: Clone> std::fmt::Debug for Sharing<Q, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Sharing").field(&lock(&self.0).by_run.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn requests_whose_callers_have_left_are_removed() {
        let sharing = Sharing::<(), ()>::default();
        let run = |number: u128| RunId::from(uuid::Uuid::from_u128(number));
        let kept: Vec<_> = (0..10).map(|number| sharing.join(run(number), (), |()| pending())).collect();
        for number in 10..10_000 {
            drop(sharing.join(run(number), (), |()| pending()));
        }
        assert!(sharing.len() <= MIN_SWEEP, "{}", sharing.len());
        let joined = sharing.join(run(3), (), |()| async { Ok(()) });
        assert!(joined.ptr_eq(&kept[3]), "those with callers can still be joined");
    }
}
