//! The requests of all watches of a client: how many are sent at once and per second, and in which order.
//!
//! A fetch is a task of its own, so a watch that is not polled holds nothing that others wait for. Its requests pass a gate, which lets
//! them through in the order of their arrival. A watch has one fetch at a time, so each gets its turn. A stream of many runs has a bounded
//! number of turns for all of them, so that other watches do not wait until all of its runs have been fetched. The watches of single runs
//! share another set of turns for requests that nothing has announced: their first fetch, and checks of runs without notifications.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::sharing::Sharing;
use super::tasks::Tasks;
use crate::error::Result;
use crate::model::{RunDetails, RunId};
use crate::rpc::convert::{RestRun, TaskResult};
use crate::time::{RateLimit, Reservation};

/// The maximum number of fetches whose requests are sent at the same time.
const MAX_CONCURRENT: usize = 32;
/// The requests of a fetch.
const REQUESTS_PER_FETCH: u32 = 3;
/// The part of the rate that is for precautions.
const PRECAUTION_SHARE: u32 = 10;
/// The number of fetches of one stream that wait for their requests or send them.
const MAX_TURNS: usize = 16;

/// Fetches runs for the watches of a client.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    tasks: Tasks,
    shared: Arc<State>,
    /// The turns that watches of single runs share for requests that nothing has announced.
    unannounced_turns: Turns,
}

/// What a caller wants to know of a run, and what it knows already. Only the same question has the same answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    pub(crate) run: RunId,
    /// The first attempt whose end is awaited: a later one than 1 after a replay.
    pub(crate) from_attempt: u32,
    /// When this client started the run, if it did: it may not exist yet.
    pub(crate) started_at: Option<Instant>,
    /// The workflow's name, if it is known.
    pub(crate) workflow: Option<Arc<str>>,
    /// The message of the result stream.
    pub(crate) results: Option<Vec<TaskResult>>,
    /// The turns of the stream that asks. Who is not in that stream does not wait for its turns.
    pub(crate) turns: Option<Turns>,
}

#[derive(Debug)]
struct State {
    concurrent: Arc<Semaphore>,
    rate: RateLimit,
    /// That of the fetches which are a precaution: a part of the others.
    precautions: RateLimit,
    /// The fetches that have not passed the gate yet. Who has the same question joins them.
    waiting: Sharing<Question, Arc<RunDetails>>,
    /// The lookups of what does not change in a run.
    lookups: Sharing<(), Option<Arc<RestRun>>>,
}

impl State {
    fn new(concurrent: usize, per_second: u32) -> Self {
        Self {
            concurrent: Arc::new(Semaphore::new(concurrent)),
            rate: RateLimit::new(per_second),
            precautions: RateLimit::part_of(per_second, PRECAUTION_SHARE),
            waiting: Sharing::default(),
            lookups: Sharing::default(),
        }
    }
}

/// What each round of requests of a fetch must pass.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    shared: Arc<State>,
    joinable: Option<Arc<Joinable>>,
    turns: Option<Turns>,
}

/// A fetch that others with the same question can join until its first round of requests.
#[derive(Debug)]
struct Joinable {
    question: Question,
    has_passed: AtomicBool,
}

/// Requests that have passed a gate.
#[derive(Debug)]
pub(crate) struct Permit {
    _concurrent: Option<OwnedSemaphorePermit>,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Gate {
    /// A gate of its own, for this many concurrent requests and this many per second.
    #[cfg(feature = "archive")]
    pub(crate) fn new(concurrent: usize, per_second: u32) -> Self {
        Self { shared: Arc::new(State::new(concurrent, per_second)), joinable: None, turns: None }
    }

    /// The limit of the rate, for requests that are sent again.
    pub(crate) fn rate(&self) -> &RateLimit {
        &self.shared.rate
    }

    /// The same gate, for a stream with these turns.
    pub(crate) fn with_turns(self, turns: Option<Turns>) -> Self {
        Self { turns, ..self }
    }

    /// Waits until some requests may be sent. They must be complete before the permit is dropped.
    pub(crate) async fn pass(&self, requests: u32) -> Permit {
        let turn = match &self.turns {
            Some(turns) => Arc::clone(&turns.0).acquire_owned().await.ok(),
            None => None,
        };
        let concurrent = Arc::clone(&self.shared.concurrent).acquire_owned().await.ok();
        self.shared.rate.pass(requests).await;
        // Who joined later would not get what changes from now on. In a later round, it is another fetch that waits with the question.
        if let Some(Joinable { question, has_passed }) = self.joinable.as_deref()
            && !has_passed.swap(true, Relaxed)
        {
            self.shared.waiting.remove(question.run, question);
        }
        Permit { _concurrent: concurrent, _turn: turn }
    }
}

/// The turns of all watches in one stream.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Semaphore>);

impl Turns {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_TURNS)))
    }
}

impl PartialEq for Turns {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Passes a gate, if there is one.
pub(crate) async fn pass(gate: Option<&Gate>, requests: u32) -> Option<Permit> {
    match gate {
        Some(gate) => Some(gate.pass(requests).await),
        None => None,
    }
}

impl Fetcher {
    pub(super) fn new(tasks: Tasks, requests_per_second: u32) -> Self {
        let shared = Arc::new(State::new(MAX_CONCURRENT, requests_per_second));
        Self { tasks, shared, unannounced_turns: Turns::new() }
    }

    /// The gate for requests that belong to no single run.
    pub(crate) fn gate(&self) -> Gate {
        Gate { shared: Arc::clone(&self.shared), joinable: None, turns: None }
    }

    /// The turns that watches of single runs share for their first fetch, and for checks of runs without notifications. There can be thousands
    /// of them: this leaves most of the rate to watches that were notified of a change.
    pub(crate) fn unannounced_turns(&self) -> Turns {
        self.unannounced_turns.clone()
    }

    /// Reserves the time of a fetch that is a precaution: of a run about which nothing has been heard. However many such runs there are,
    /// they leave most of the rate to others.
    pub(crate) fn reserve_precaution(&self) -> Reservation {
        self.shared.precautions.reserve(REQUESTS_PER_FETCH)
    }

    /// Runs a fetch as a task. It is aborted when its future is dropped. Cancel safe.
    pub(crate) async fn spawn<T: Send + 'static>(
        &self,
        fetch: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.tasks.check()?;
        let task = AbortOnDropHandle::new(self.tasks.spawn(fetch));
        match task.await {
            Ok(Some(result)) => result,
            // The embedded engine has panicked in a call: its callers must, too.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Ok(None) | Err(_) => Err(self.tasks.ended()),
        }
    }

    /// Fetches the details of a run. If another caller waits with the same question, its response is shared. Cancel safe.
    pub(crate) async fn details<F: Future<Output = Result<RunDetails>> + Send + 'static>(
        &self,
        question: Question,
        fetch: impl FnOnce(Question, Gate) -> F,
    ) -> Result<Arc<RunDetails>> {
        let fetch_as_task = |question: &Question| {
            let turns = question.turns.clone();
            let joinable = Joinable { question: question.clone(), has_passed: AtomicBool::new(false) };
            let gate = Gate { joinable: Some(Arc::new(joinable)), turns, ..self.gate() };
            let fetch = fetch(question.clone(), gate);
            let fetcher = self.clone();
            async move { fetcher.spawn(fetch).await.map(Arc::new) }
        };
        self.shared.waiting.join(question.run, question, fetch_as_task).await
    }

    /// Looks up what does not change in a run. If another caller looks it up, its response is shared. `None` if the server does not have the
    /// run. Cancel safe.
    pub(crate) async fn lookup(
        &self,
        run: RunId,
        fetch: impl Future<Output = Result<Option<RestRun>>> + Send + 'static,
    ) -> Result<Option<Arc<RestRun>>> {
        let fetcher = self.clone();
        let lookup = async move {
            let found = fetcher.spawn(fetch).await;
            // A caller that comes later looks it up again.
            fetcher.shared.lookups.remove(run, &());
            Ok(found?.map(Arc::new))
        };
        self.shared.lookups.join(run, (), |()| lookup).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;
    use tokio::runtime::Handle;
    use tokio::time::sleep;

    use super::*;
    use crate::error::Error;

    const MILLI: Duration = Duration::from_millis(1);

    fn fetcher(per_second: u32) -> Fetcher {
        Fetcher::new(Tasks::new(Handle::current()), per_second)
    }

    fn run(number: usize) -> RunId {
        uuid::Uuid::from_u128(number as u128).into()
    }

    fn question(number: usize) -> Question {
        Question { run: run(number), from_attempt: 1, started_at: None, workflow: None, results: None, turns: None }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_limited_per_second() {
        let (fetcher, start) = (fetcher(100), Instant::now());
        sleep(Duration::from_secs(60)).await;
        let mut at = Vec::new();
        for _ in 0..50 {
            drop(fetcher.gate().pass(3).await);
            at.push(start.elapsed().as_millis() - 60_000);
        }
        // One second's requests at once, and then three every 30 ms.
        assert_eq!(at.iter().filter(|at| **at == 0).count(), 33);
        assert_eq!(at.last(), Some(&500));
    }

    #[tokio::test(start_paused = true)]
    async fn fetches_are_in_order_and_limited_in_number() {
        let (fetcher, most) = (fetcher(100_000), Arc::new(AtomicUsize::new(0)));
        let active = Arc::new(AtomicUsize::new(0));
        let order = Arc::new(Mutex::new(Vec::new()));
        let all = (0..100).map(|number| {
            let (active, most, order) = (Arc::clone(&active), Arc::clone(&most), Arc::clone(&order));
            fetcher.details(question(number), move |_, gate| async move {
                let _permit = gate.pass(1).await;
                order.lock().unwrap().push(number);
                most.fetch_max(active.fetch_add(1, Relaxed) + 1, Relaxed);
                sleep(10 * MILLI).await;
                active.fetch_sub(1, Relaxed);
                Err(Error::closed("it"))
            })
        });
        let start = Instant::now();
        join_all(all).await;
        assert_eq!((most.load(Relaxed), start.elapsed()), (MAX_CONCURRENT, 40 * MILLI));
        assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn callers_share_a_fetch_that_has_not_passed_the_gate() {
        let (fetcher, count) = (fetcher(100_000), Arc::new(AtomicUsize::new(0)));
        let fetch = |delay: Duration| {
            let (fetcher, count) = (fetcher.clone(), Arc::clone(&count));
            async move {
                sleep(delay).await;
                let fetch = fetcher.details(question(1), move |_, gate| async move {
                    let _permit = gate.pass(1).await;
                    sleep(10 * MILLI).await;
                    count.fetch_add(1, Relaxed);
                    Err(Error::closed("it"))
                });
                fetch.await.unwrap_err()
            }
        };
        // A caller that comes during the fetch needs its own: the state may have changed.
        tokio::join!(fetch(Duration::ZERO), fetch(Duration::ZERO), fetch(5 * MILLI));
        assert_eq!(count.load(Relaxed), 2);
        assert_eq!(fetcher.shared.waiting.len(), 0, "nothing is left");
    }

    /// A fetch has several rounds of requests. When one passes the gate again, another one may wait with the same question.
    #[tokio::test(start_paused = true)]
    async fn later_rounds_of_a_fetch_do_not_stop_the_sharing_of_others() {
        let (fetcher, count) = (fetcher(100), Arc::new(AtomicUsize::new(0)));
        let start = Instant::now();
        let fetch = |begins: Duration| {
            let (fetcher, count) = (fetcher.clone(), Arc::clone(&count));
            async move {
                sleep(begins).await;
                let fetch = fetcher.details(question(1), move |_, gate| async move {
                    count.fetch_add(1, Relaxed);
                    // Each round takes all requests of a second.
                    for _ in 0..2 {
                        drop(gate.pass(100).await);
                    }
                    Err(Error::closed("it"))
                });
                fetch.await.unwrap_err();
                start.elapsed()
            }
        };
        // The first fetch passes at 0 and 1 s. The second one begins between, and passes at 2 and 3 s. The last caller joins it.
        let ended = tokio::join!(fetch(Duration::ZERO), fetch(500 * MILLI), fetch(1500 * MILLI));
        assert_eq!(count.load(Relaxed), 2);
        assert_eq!(ended, (1000 * MILLI, 3000 * MILLI, 3000 * MILLI));
        assert_eq!(fetcher.shared.waiting.len(), 0, "nothing is left");
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_same_question_is_shared() {
        let (fetcher, asked) = (fetcher(100_000), Arc::new(Mutex::new(Vec::new())));
        let named = Question { workflow: Some("a".into()), ..question(1) };
        let questions = [
            question(1),
            named.clone(),
            Question { from_attempt: 2, ..question(1) },
            Question { results: Some(Vec::new()), ..question(1) },
            Question { started_at: Some(Instant::now()), ..question(1) },
            Question { turns: Some(Turns::new()), ..question(1) },
            question(2),
        ];
        let twice = questions.iter().chain(&questions).map(|question| {
            let asked = Arc::clone(&asked);
            fetcher.details(question.clone(), move |question, gate| async move {
                let _permit = gate.pass(1).await;
                asked.lock().unwrap().push(question);
                Err(Error::closed("it"))
            })
        });
        join_all(twice).await;
        assert_eq!(*asked.lock().unwrap(), questions);
        assert_eq!(fetcher.shared.waiting.len(), 0, "nothing is left");
    }

    #[tokio::test(start_paused = true)]
    async fn lookups_of_the_same_run_are_shared_until_they_have_ended() {
        let (fetcher, count) = (fetcher(100_000), Arc::new(AtomicUsize::new(0)));
        let lookup = |number: usize, delay: Duration| {
            let (fetcher, count) = (fetcher.clone(), Arc::clone(&count));
            async move {
                sleep(delay).await;
                let request = async move {
                    sleep(10 * MILLI).await;
                    count.fetch_add(1, Relaxed);
                    Ok(None)
                };
                assert!(fetcher.lookup(run(number), request).await.unwrap().is_none());
            }
        };
        tokio::join!(lookup(1, Duration::ZERO), lookup(1, 9 * MILLI), lookup(2, Duration::ZERO));
        assert_eq!(count.load(Relaxed), 2);
        lookup(1, Duration::ZERO).await;
        assert_eq!(count.load(Relaxed), 3, "it is not stored");
        // One that is dropped ends, and the next caller begins again.
        assert!(tokio::time::timeout(MILLI, lookup(1, Duration::ZERO)).await.is_err());
        lookup(1, Duration::ZERO).await;
        assert_eq!(count.load(Relaxed), 4);
        assert_eq!(fetcher.shared.lookups.len(), 0, "nothing is left");
    }

    /// A stream of 1000 runs needs 3000 requests, at 100 per second. Another watch waits for the requests of 16 of its runs.
    #[tokio::test(start_paused = true)]
    async fn a_stream_of_many_runs_delays_others_only_by_its_turns() {
        let (fetcher, turns) = (fetcher(100), Turns::new());
        let fetch = |question: Question| {
            let fetch = fetcher.details(question, |_, gate| async move {
                let _permit = gate.pass(3).await;
                Err(Error::closed("it"))
            });
            fetch.map(|failed| failed.unwrap_err())
        };
        let start = Instant::now();
        let many = (0..1000).map(|number| fetch(Question { turns: Some(turns.clone()), ..question(number) }));
        let other = async {
            sleep(2 * Duration::from_secs(1)).await;
            let start = Instant::now();
            fetch(question(7)).await;
            start.elapsed()
        };
        let (_, delay) = tokio::join!(join_all(many), other);
        assert_eq!(delay, 480 * MILLI);
        // With the 3 of the other watch. The first 100 are sent at once.
        assert_eq!(start.elapsed(), 29_030 * MILLI);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_ends_with_its_last_caller() {
        let fetcher = fetcher(100_000);
        let endless = fetcher.details(question(1), |_, gate| async move {
            let _permit = gate.pass(1).await;
            std::future::pending().await
        });
        assert!(tokio::time::timeout(MILLI, endless).await.is_err());
        tokio::task::yield_now().await;
        assert_eq!(fetcher.shared.concurrent.available_permits(), MAX_CONCURRENT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_is_not_polled_blocks_nobody() {
        let fetcher = fetcher(100_000);
        let fetch = |number| {
            fetcher.details(question(number), |_, gate| async move {
                let _permit = gate.pass(1).await;
                Err(Error::closed("it"))
            })
        };
        let mut idle: Vec<_> = (0..2 * MAX_CONCURRENT).map(|number| Box::pin(fetch(number))).collect();
        for caller in &mut idle {
            assert!(caller.as_mut().now_or_never().is_none());
        }
        fetch(1000).await.unwrap_err();
    }
}
