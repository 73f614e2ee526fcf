//! Helpers that several test programs share.

#![allow(dead_code, reason = "each test program uses only some of them")]

pub(crate) mod proxy;

use std::time::Duration;

use hatchet::config::{ConfigBuilder, TlsStrategy};
use hatchet::embedded::{Engine, Fault, Faults, Quirks};
use hatchet::worker::RunningWorker;
use hatchet::workflow::Definition;
use hatchet::{Client, Config, Context, RunHandle, RunStatus, Task};

/// The token of a listening engine.
pub(crate) fn token(engine: &Engine) -> String {
    engine.environment().into_iter().find(|(name, _)| *name == "HATCHET_CLIENT_TOKEN").unwrap().1
}

/// The configuration of a client that connects to a listening engine over its sockets.
pub(crate) fn config(engine: &Engine) -> ConfigBuilder {
    let builder = Config::builder().tls_strategy(TlsStrategy::None);
    engine.environment().into_iter().fold(builder, |builder, (name, value)| match name {
        "HATCHET_CLIENT_TOKEN" => builder.token(value),
        "HATCHET_CLIENT_HOST_PORT" => builder.host_port(value),
        "HATCHET_CLIENT_SERVER_URL" => builder.server_url(value),
        _ => builder,
    })
}

/// An engine with all quirks and a fixed seed, and its client.
pub(crate) async fn engine_with_quirks() -> (Engine, Client) {
    let engine = Engine::builder().quirks(Quirks::all()).seed(7).start().await.unwrap();
    let hatchet = engine.client();
    (engine, hatchet)
}

/// The rejection of a call of gRPC or REST by a server that is unavailable.
pub(crate) fn unavailable(call: &str) -> Fault {
    if call.contains(' ') { Fault::RejectRest(503) } else { Fault::RejectGrpc(14) }
}

/// Rejects all calls until the faults are cleared. Open streams stay open.
pub(crate) fn reject_all_calls(engine: &Engine) {
    for call in Faults::calls() {
        engine.faults().inject_always(call, unavailable(call)).unwrap();
    }
}

/// Starts a worker for one task or workflow.
pub(crate) async fn start_worker(hatchet: &Client, definition: impl Into<Definition>) -> RunningWorker {
    hatchet.worker("worker").register(definition).build().unwrap().start().await.unwrap()
}

/// Starts a run of a task that never ends, and a worker for it that does not wait for the task when it shuts down.
pub(crate) async fn start_stuck_run(hatchet: &Client) -> (RunningWorker, RunHandle<()>) {
    let stuck: Task<(), ()> = Task::new("stuck", async |(): (), _: Context| std::future::pending().await);
    let worker = hatchet.worker("worker").shutdown_grace_period(Duration::ZERO).register(&stuck);
    let worker = worker.build().unwrap().start().await.unwrap();
    (worker, hatchet.run(&stuck, &()).start().await.unwrap())
}

/// Waits until a run is running.
pub(crate) async fn until_running<O>(run: &RunHandle<O>) {
    let mut watch = run.watch();
    while !watch.next().await.unwrap().unwrap().has_status(&RunStatus::Running) {}
}
