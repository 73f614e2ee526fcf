//! The runtimes that the embedded engine and its clients need.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use hatchet::embedded::{Engine, Fault, Quirk};
use hatchet::model::Window;
use hatchet::{Context, ErrorKind, Task};
use http::Method;
use tokio::runtime::Builder;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls a future on this thread, without any runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn clients_without_a_runtime_return_errors() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let engine = runtime.block_on(Engine::start()).unwrap();
    let hatchet = engine.client();
    let echo: Task<(), u8> = Task::new("echo", async |(): (), _: Context| Ok(1));
    let worker = hatchet.worker("worker").register(&echo).build().unwrap();
    let assert_rejected = |error: hatchet::Error| {
        let text = error.to_string();
        assert!(error.kind() == ErrorKind::Config && error.has_no_side_effects(), "{error:?}");
        assert!(text.ends_with("needs a Tokio runtime, but the current thread is not in one"), "{text}");
    };
    assert_rejected(block_on(worker.start()).unwrap_err());
    assert_rejected(block_on(hatchet.run(&echo, &()).start()).unwrap_err());
    assert_rejected(block_on(hatchet.runs(Window::all()).count()).unwrap_err());

    let running =
        runtime.block_on(async { hatchet.worker("worker").register(&echo).build().unwrap().start().await.unwrap() });
    let run = runtime.block_on(hatchet.run(&echo, &()).start()).unwrap();
    assert_rejected(block_on(run.details().into_future()).unwrap_err());
    assert_rejected(block_on(run.outcome()).unwrap_err());
    assert_rejected(block_on(run.result()).unwrap_err());
    let mut watch = run.watch();
    assert_rejected(block_on(watch.next()).unwrap().unwrap_err());
    assert_rejected(block_on(run.logs().next()).unwrap().unwrap_err());
    assert_rejected(block_on(hatchet.runs(Window::all()).items().next()).unwrap().unwrap_err());
    // The client still works.
    assert_eq!(runtime.block_on(run.result()).unwrap(), 1);
    assert_eq!(runtime.block_on(running.shutdown()).completed, 1);
    assert_eq!(block_on(engine.run_count()), 1, "the embedded engine needs no runtime of the caller");
}

/// The engine uses the timers of its own runtime.
#[test]
fn the_engine_does_not_need_the_callers_timers() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let engine = runtime.block_on(Engine::builder().quirks(Quirk::RestLag).start()).unwrap();
    let hatchet = engine.client();
    let echo: Task<(), u8> = Task::new("echo", async |(): (), _: Context| Ok(1));
    let running =
        runtime.block_on(async { hatchet.worker("worker").register(&echo).build().unwrap().start().await.unwrap() });
    let trigger = format!("/api/v1/stable/tenants/{}/workflow-runs/trigger", engine.tenant_id());
    engine
        .faults()
        .inject("POST /api/v1/stable/tenants/{tenant}/workflow-runs/trigger", Fault::Delay(Duration::from_millis(10)))
        .unwrap();
    let body = r#"{"workflowName": "echo", "input": {}}"#;
    let (status, _) = block_on(hatchet.raw_rest(Method::POST, &trigger, Some(body.into()))).unwrap();
    assert_eq!(status, 200, "the response waits until REST shows the run");
    runtime.block_on(running.shutdown());
}

#[test]
fn engines_need_a_runtime_with_timers_and_io() {
    let rejection = |error: hatchet::Error| (error.kind(), error.has_no_side_effects(), error.to_string());
    let rejected = |text: &str| (ErrorKind::Config, true, format!("an embedded engine needs {text}"));
    let error = block_on(Engine::start()).unwrap_err();
    assert_eq!(rejection(error), rejected("a Tokio runtime, but the current thread is not in one"));
    let bare = Builder::new_current_thread().build().unwrap();
    let error = bare.block_on(Engine::start()).unwrap_err();
    let text = "a Tokio runtime with timers enabled: call `enable_time` or `enable_all` on its builder";
    assert_eq!(rejection(error), rejected(text));
    let timers = Builder::new_current_thread().enable_time().build().unwrap();
    let error = timers.block_on(Engine::builder().listen().start()).unwrap_err();
    let text = "a Tokio runtime with I/O: call `enable_io` or `enable_all` on its builder";
    assert_eq!(rejection(error), rejected(text));
    // It needs no sockets if it does not listen.
    timers.block_on(async { Engine::start().await.unwrap().shutdown().await });
}
