//! Where a row runs.

use std::cell::Cell;
use std::future::Future;
use std::sync::Once;
use std::time::Duration;

use hatchet::embedded::{Engine, Quirks};
use hatchet::model::Window;
use hatchet::worker::RunningWorker;
use hatchet::workflow::Definition;
use hatchet::{Client, Config, RunHandle, RunStatus};

/// A row may take so long on a real engine, which lets tasks lie for half a minute when it is idle.
const LIMIT: Duration = Duration::from_secs(240);

/// One engine to run a row against, and names of the row's own.
pub(crate) struct World {
    pub(crate) hatchet: Client,
    /// The embedded engine, unless this is a real one.
    pub(crate) engine: Option<Engine>,
    row: &'static str,
}

impl World {
    /// A name that no other row and no earlier run of the suite has used.
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

    /// A worker with one task or workflow, at work.
    pub(crate) async fn worker(&self, what: impl Into<Definition>) -> RunningWorker {
        self.hatchet.worker(self.name("worker")).slots(10).register(what).build().unwrap().start().await.unwrap()
    }

    /// Waits until something is so: the lists of a real engine lag by seconds under load.
    pub(crate) async fn eventually(&self, is_so: impl AsyncFn() -> bool) {
        let limit = tokio::time::Instant::now() + Duration::from_secs(60);
        while !is_so().await {
            assert!(tokio::time::Instant::now() < limit, "it never came to be so");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The last ten minutes: no row takes longer.
    #[expect(clippy::unused_self, reason = "it belongs to the world all the same")]
    pub(crate) fn window(&self) -> Window {
        Window::last(Duration::from_secs(600))
    }
}

/// Watches a run until it is in a state.
pub(crate) async fn until<O>(run: &RunHandle<O>, status: RunStatus) {
    let mut watch = run.watch();
    while *watch.next().await.expect("it comes to that state").unwrap().status() != status {}
}

/// Waits until a run is with a worker, by gRPC alone.
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

/// Says that so many panics of tasks belong to the row.
pub(crate) fn expect_panics(count: u32) {
    EXPECTED.with(|expected| expected.set(count));
}

/// Runs a row on the embedded engine, under a paused clock and with all quirks; and on a real one if there is one.
pub(crate) fn both<F: Future<Output = ()>>(row: &'static str, body: impl Fn(World) -> F) {
    embedded(row, &body);
    if std::env::var_os("HATCHET_CLIENT_TOKEN").is_some() {
        real(row, &body);
    }
}

fn embedded<F: Future<Output = ()>>(row: &'static str, body: &impl Fn(World) -> F) {
    count_panics();
    // One thread, so that a panic anywhere in the background is one of this thread's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let engine = Engine::builder().quirks(Quirks::all()).seed(7).start().await.unwrap();
        let world = World { hatchet: engine.client(), engine: Some(engine), row };
        tokio::time::timeout(LIMIT, body(world)).await.expect("the row comes to an end on the embedded engine");
    });
    let expected = EXPECTED.with(Cell::take);
    assert_eq!(PANICS.with(Cell::take), expected, "background panics");
}

fn real<F: Future<Output = ()>>(row: &'static str, body: &impl Fn(World) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World { hatchet: Client::from_env().unwrap(), engine: None, row };
        tokio::time::timeout(LIMIT, body(world)).await.expect("the row comes to an end on the real engine");
    });
    EXPECTED.with(Cell::take);
    PANICS.with(Cell::take);
}

fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with(|panics| panics.set(panics.get() + 1));
            usual(panic);
        }));
    });
}

/// The rows of a file: a test for each.
macro_rules! rows {
    ($($row:ident),* $(,)?) => {
        mod rows {
            $(#[test] fn $row() { crate::world::both(stringify!($row), super::$row); })*
        }
    };
}
pub(crate) use rows;
