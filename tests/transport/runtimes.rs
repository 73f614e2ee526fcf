//! Clients and calls without a runtime, on runtimes without timers or I/O, and after the runtime has shut down.

use hatchet::model::Window;
use hatchet::{Client, ErrorKind};
use tokio::runtime::{Builder, Runtime};

use crate::servers::{self, Setup};

fn setup() -> (Runtime, Setup) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let setup = runtime.block_on(servers::setup());
    (runtime, setup)
}

#[test]
fn clients_need_a_runtime_with_timers_and_io() {
    let (_runtime, setup) = setup();
    let client = || Client::new(setup.config.clone().build().unwrap());
    let bare = Builder::new_current_thread().build().unwrap();
    let timed = Builder::new_current_thread().enable_time().build().unwrap();
    for (error, expected) in [
        (client().unwrap_err(), "needs a Tokio runtime, but the current thread is not in one"),
        (bare.block_on(async { client().unwrap_err() }), "with timers"),
        (timed.block_on(async { client().unwrap_err() }), "with I/O"),
    ] {
        assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Config, true), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn calls_need_a_runtime_with_timers() {
    let (runtime, setup) = setup();
    let hatchet = runtime.block_on(async { Client::new(setup.config.clone().build().unwrap()).unwrap() });
    let bare = Builder::new_current_thread().build().unwrap();
    let error = bare.block_on(async { hatchet.runs(Window::all()).count().await.unwrap_err() });
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Config, true), "{error:?}");
}

/// Connections live on the runtime on which the client was created, so a caller's runtime needs no I/O and may shut down at any
/// time.
#[test]
fn calls_may_come_from_any_runtime() {
    let (runtime, setup) = setup();
    let hatchet = runtime.block_on(async { Client::new(setup.config.clone().build().unwrap()).unwrap() });
    for _ in 0..3 {
        let timed = Builder::new_current_thread().enable_time().build().unwrap();
        timed.block_on(async { hatchet.runs(Window::all()).count().await }).unwrap();
        timed.block_on(async { hatchet.run(&setup.task, &()).start().await }).unwrap();
    }
    runtime.block_on(async { hatchet.runs(Window::all()).count().await }).unwrap();
}

#[test]
fn calls_after_the_shutdown_of_the_clients_runtime_return_errors() {
    let (runtime, setup) = setup();
    let ended = Builder::new_current_thread().enable_all().build().unwrap();
    let hatchet = ended.block_on(async { Client::new(setup.config.clone().build().unwrap()).unwrap() });
    drop(ended);
    let unknown = "00000000-0000-4000-8001-000000000001".parse().unwrap();
    for error in [
        runtime.block_on(async { hatchet.runs(Window::all()).count().await.unwrap_err() }),
        runtime.block_on(async { hatchet.run_handle(unknown).details().await.unwrap_err() }),
    ] {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
        assert!(error.has_no_side_effects() && !error.is_transient(), "{error:?}");
    }
}
