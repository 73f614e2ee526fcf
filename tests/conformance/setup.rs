//! The engine and the client of a test.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Once};
use std::time::Duration;

use hatchet::config::TlsStrategy;
use hatchet::embedded::{Engine, Quirks};
use hatchet::model::Window;
use hatchet::worker::RunningWorker;
use hatchet::workflow::Definition;
use hatchet::{Client, Config, RunFilter, RunHandle, RunId, RunStatus};
use tokio::runtime;

use crate::support;
use crate::support::proxy::{Mode, Proxy};

/// The timeout of a test. An idle real engine may assign tasks up to 30 seconds late.
const TIMEOUT: Duration = Duration::from_secs(240);

/// An engine with a client, and names that are unique to the test.
pub(crate) struct Setup {
    pub(crate) hatchet: Client,
    /// The embedded engine. `None` for a real one.
    pub(crate) engine: Option<Engine>,
    row: &'static str,
    is_paused: bool,
}

impl Setup {
    /// Lets the clock run, for rows with sockets.
    pub(crate) fn use_real_time(&self) {
        if self.is_paused {
            tokio::time::resume();
        }
    }

    /// A name that no other test and no earlier run of the suite uses.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}-{name}-{}", self.row, std::process::id())
    }

    /// A client of the same engine with another configuration.
    pub(crate) fn client_with(
        &self,
        change: impl FnOnce(hatchet::config::ConfigBuilder) -> hatchet::config::ConfigBuilder,
    ) -> Client {
        match &self.engine {
            Some(engine) => engine.client_with(change(Config::builder())).unwrap(),
            None => Client::new(change(hatchet::config::ConfigBuilder::from_env()).build().unwrap()).unwrap(),
        }
    }

    /// A client of the same engine whose connection is lost on request. `None` for a real engine with TLS, or that cannot be reached over
    /// IP: the row is skipped there.
    pub(crate) async fn unreliable_client(&self) -> Option<Unreliable<'_>> {
        if let Some(engine) = &self.engine {
            return Some(Unreliable { hatchet: engine.client(), connection: Connection::Embedded(engine) });
        }
        let config = Config::from_env().unwrap();
        let address = tokio::net::lookup_host(config.authority()).await.ok().and_then(|mut found| found.next());
        let Some(address) = address.filter(|_| config.tls().strategy() == TlsStrategy::None) else {
            self.skipped(&"the engine is not reachable without TLS");
            return None;
        };
        let proxy = Proxy::start(address).await;
        let hatchet = self.client_with(|config| config.host_port(proxy.address.to_string()));
        Some(Unreliable { hatchet, connection: Connection::Real(proxy) })
    }

    /// Reports that the rest of a row is not tested on this engine.
    #[expect(clippy::print_stderr, reason = "a skipped row is reported")]
    pub(crate) fn skipped(&self, reason: &dyn std::fmt::Display) {
        eprintln!("{}: skipped: {reason}", self.row);
    }

    /// Starts a worker with one task or workflow.
    pub(crate) async fn worker(&self, what: impl Into<Definition>) -> RunningWorker {
        self.hatchet.worker(self.name("worker")).slots(10).register(what).build().unwrap().start().await.unwrap()
    }

    /// Waits until a condition is true. The lists of a loaded real engine lag by seconds.
    pub(crate) async fn eventually(&self, condition: impl AsyncFn() -> bool) {
        let is_true = self.fetch_until(condition, |is_true| *is_true).await;
        assert!(is_true, "the condition did not become true within 60 seconds");
    }

    /// Fetches until the result matches, or for 60 seconds, and returns the last result.
    pub(crate) async fn fetch_until<T>(&self, fetch: impl AsyncFn() -> T, matches: impl Fn(&T) -> bool) -> T {
        let limit = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let result = fetch().await;
            if matches(&result) || tokio::time::Instant::now() >= limit {
                return result;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The last ten minutes, which is longer than the timeout of a test.
    #[expect(clippy::unused_self, reason = "a method for symmetry with the others")]
    pub(crate) fn window(&self) -> Window {
        Window::last(Duration::from_secs(600))
    }
}

/// A client whose streams are lost on request, or that is disconnected. On a real engine, the REST API is still reached.
pub(crate) struct Unreliable<'a> {
    pub(crate) hatchet: Client,
    connection: Connection<'a>,
}

enum Connection<'a> {
    Embedded(&'a Engine),
    Real(Proxy),
}

impl Unreliable<'_> {
    /// Loses the open streams. They can be opened again.
    pub(crate) fn lose_streams(&self) {
        match &self.connection {
            Connection::Embedded(engine) => {
                for stream in ["SubscribeToWorkflowEvents", "SubscribeToWorkflowRuns"] {
                    engine.faults().interrupt(stream).unwrap();
                }
            }
            Connection::Real(proxy) => proxy.set(Mode::Cut),
        }
    }

    /// Makes all calls and streams fail: those of this client, and on the embedded engine those of all clients.
    pub(crate) fn disconnect(&self) {
        match &self.connection {
            Connection::Embedded(engine) => {
                support::reject_all_calls(engine);
                for stream in ["ListenV2", "SubscribeToWorkflowEvents", "SubscribeToWorkflowRuns"] {
                    engine.faults().interrupt(stream).unwrap();
                }
            }
            Connection::Real(proxy) => proxy.set(Mode::Reject),
        }
    }

    pub(crate) fn reconnect(&self) {
        match &self.connection {
            Connection::Embedded(engine) => engine.faults().clear(),
            Connection::Real(proxy) => proxy.set(Mode::Forward),
        }
    }
}

/// The ids of all runs that match a filter, in the order of the list.
pub(crate) async fn ids(hatchet: &Client, filter: RunFilter) -> Vec<RunId> {
    let (mut items, mut ids) = (hatchet.runs(filter).items(), Vec::new());
    while let Some(run) = items.next().await {
        ids.push(run.unwrap().id);
    }
    ids
}

/// All states of a run, as its watch returns them. Those of the tasks of a DAG begin with the name of the task.
pub(crate) async fn states<O>(run: &RunHandle<O>) -> Vec<String> {
    let (mut watch, mut states) = (run.watch(), Vec::new());
    while let Some(change) = watch.next().await {
        states.push(change.unwrap().to_string());
    }
    states
}

/// Watches a run until it has a status.
pub(crate) async fn until<O>(run: &RunHandle<O>, status: RunStatus) {
    let mut watch = run.watch();
    while !watch.next().await.expect("the run should reach the status").unwrap().has_status(&status) {}
}

/// Waits until a run is running, by gRPC only.
pub(crate) async fn until_started(hatchet: &Client, run: hatchet::RunId) {
    use hatchet::raw::pb::v1::admin_service_client::AdminServiceClient;
    use hatchet::raw::pb::v1::{GetRunDetailsRequest, RunStatus};
    loop {
        let request = GetRunDetailsRequest { external_id: run.to_string() };
        let details = AdminServiceClient::new(hatchet.raw_channel()).get_run_details(request).await.unwrap();
        if details.into_inner().status() == RunStatus::Running {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// With this number, the rows run only on the embedded engine, in real time, on a runtime with this number of threads.
const THREADS: &str = "HATCHET_TEST_THREADS";

thread_local! {
    /// The panics of the row that this thread works for.
    static PANICS: RefCell<Arc<AtomicU32>> = RefCell::default();
    static EXPECTED: Cell<u32> = const { Cell::new(0) };
}

/// Sets the number of expected panics in tasks.
pub(crate) fn expect_panics(count: u32) {
    EXPECTED.with(|expected| expected.set(count));
}

/// Runs a test on the embedded engine, under a paused clock and with all quirks, and on a real one if one is configured.
pub(crate) fn both<F: Future<Output = ()>>(row: &'static str, body: impl Fn(Setup) -> F) {
    if let Some(threads) = std::env::var_os(THREADS) {
        let threads = threads.to_str().and_then(|threads| threads.parse::<NonZeroUsize>().ok());
        threaded(row, &body, threads.unwrap_or_else(|| panic!("{THREADS}: expected a number of threads")).get());
        return;
    }
    embedded(row, &body, runtime::Builder::new_current_thread().start_paused(true), true);
    if std::env::var_os("HATCHET_CLIENT_TOKEN").is_some() {
        real(row, &body);
    }
}

fn threaded<F: Future<Output = ()>>(row: &'static str, body: &impl Fn(Setup) -> F, threads: usize) {
    let panics = PANICS.with(|panics| Arc::clone(&panics.borrow()));
    let mut builder = runtime::Builder::new_multi_thread();
    // A panic on any thread of the runtime is one of the row.
    builder.worker_threads(threads).on_thread_start(move || PANICS.set(Arc::clone(&panics)));
    embedded(row, body, &mut builder, false);
}

fn embedded<F: Future<Output = ()>>(
    row: &'static str,
    body: &impl Fn(Setup) -> F,
    runtime: &mut runtime::Builder,
    is_paused: bool,
) {
    count_panics();
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = Engine::builder().quirks(Quirks::all()).seed(7).start().await.unwrap();
        let setup = Setup { hatchet: engine.client(), engine: Some(engine), row, is_paused };
        tokio::time::timeout(TIMEOUT, body(setup)).await.expect("the test should end on the embedded engine");
    });
    drop(runtime);
    assert_eq!(take_panics(), EXPECTED.take(), "background panics");
}

fn real<F: Future<Output = ()>>(row: &'static str, body: &impl Fn(Setup) -> F) {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let setup = Setup { hatchet: Client::from_env().unwrap(), engine: None, row, is_paused: false };
        tokio::time::timeout(TIMEOUT, body(setup)).await.expect("the test should end on the real engine");
    });
    EXPECTED.take();
    take_panics();
}

fn take_panics() -> u32 {
    PANICS.with(|panics| panics.borrow().swap(0, Relaxed))
}

fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default_hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with(|panics| panics.borrow().fetch_add(1, Relaxed));
            default_hook(panic);
        }));
    });
}

/// Declares a test for each row of a file.
macro_rules! rows {
    ($($row:ident),* $(,)?) => {
        mod rows {
            $(#[test] fn $row() { crate::setup::both(stringify!($row), super::$row); })*
        }
    };
}
pub(crate) use rows;
