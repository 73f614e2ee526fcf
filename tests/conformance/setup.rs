//! The engine and the client of a test.

use std::cell::Cell;
use std::future::Future;
use std::sync::Once;
use std::time::Duration;

use hatchet::embedded::{Engine, Quirks};
use hatchet::model::Window;
use hatchet::worker::RunningWorker;
use hatchet::workflow::Definition;
use hatchet::{Client, Config, RunHandle, RunStatus};

/// The timeout of a test. An idle real engine may assign tasks up to 30 seconds late.
const TIMEOUT: Duration = Duration::from_secs(240);

/// An engine with a client, and names that are unique to the test.
pub(crate) struct Setup {
    pub(crate) hatchet: Client,
    /// The embedded engine. `None` for a real one.
    pub(crate) engine: Option<Engine>,
    row: &'static str,
}

impl Setup {
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

    /// Starts a worker with one task or workflow.
    pub(crate) async fn worker(&self, what: impl Into<Definition>) -> RunningWorker {
        self.hatchet.worker(self.name("worker")).slots(10).register(what).build().unwrap().start().await.unwrap()
    }

    /// Waits until a condition is true. The lists of a loaded real engine lag by seconds.
    pub(crate) async fn eventually(&self, condition: impl AsyncFn() -> bool) {
        let limit = tokio::time::Instant::now() + Duration::from_secs(60);
        while !condition().await {
            assert!(tokio::time::Instant::now() < limit, "the condition did not become true within 60 seconds");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The last ten minutes, which is longer than the timeout of a test.
    #[expect(clippy::unused_self, reason = "a method for symmetry with the others")]
    pub(crate) fn window(&self) -> Window {
        Window::last(Duration::from_secs(600))
    }
}

/// Watches a run until it has a status.
pub(crate) async fn until<O>(run: &RunHandle<O>, status: RunStatus) {
    let mut watch = run.watch();
    while *watch.next().await.expect("the run should reach the status").unwrap().status() != status {}
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

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
    static EXPECTED: Cell<u32> = const { Cell::new(0) };
}

/// Sets the number of expected panics in tasks.
pub(crate) fn expect_panics(count: u32) {
    EXPECTED.with(|expected| expected.set(count));
}

/// Runs a test on the embedded engine, with a paused clock and all quirks, and on a real engine if one is configured.
pub(crate) fn both<F: Future<Output = ()>>(row: &'static str, body: impl Fn(Setup) -> F) {
    embedded(row, &body);
    if std::env::var_os("HATCHET_CLIENT_TOKEN").is_some() {
        real(row, &body);
    }
}

fn embedded<F: Future<Output = ()>>(row: &'static str, body: &impl Fn(Setup) -> F) {
    count_panics();
    // One thread, so that the thread-local counter also counts background panics.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let engine = Engine::builder().quirks(Quirks::all()).seed(7).start().await.unwrap();
        let setup = Setup { hatchet: engine.client(), engine: Some(engine), row };
        tokio::time::timeout(TIMEOUT, body(setup)).await.expect("the test should end on the embedded engine");
    });
    let expected = EXPECTED.with(Cell::take);
    assert_eq!(PANICS.with(Cell::take), expected, "background panics");
}

fn real<F: Future<Output = ()>>(row: &'static str, body: &impl Fn(Setup) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let setup = Setup { hatchet: Client::from_env().unwrap(), engine: None, row };
        tokio::time::timeout(TIMEOUT, body(setup)).await.expect("the test should end on the real engine");
    });
    EXPECTED.with(Cell::take);
    PANICS.with(Cell::take);
}

fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default_hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with(|panics| panics.set(panics.get() + 1));
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
