//! Tests that a panic in the core is reported to all callers.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::Engine;
use crate::config::TlsStrategy;
use crate::model::Window;
use crate::{Client, Config, Context, ErrorKind, Task};

fn message(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<String>().unwrap()
}

/// The panic message of a future.
async fn panic_of<T>(future: impl Future<Output = T>) -> String {
    let panic = AssertUnwindSafe(future).catch_unwind().await.err().unwrap();
    message(&*panic).to_owned()
}

async fn break_core(engine: &Engine) -> String {
    panic_of(engine.handle().call(|_, _| panic!("the core is broken"))).await
}

#[tokio::test(start_paused = true)]
async fn all_callers_panic_with_the_message_of_the_core() {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<(), ()> = Task::new("task", async |(): (), _: Context| Ok(()));
    assert_eq!(break_core(&engine).await, "the core is broken");
    assert_eq!(panic_of(engine.run_count()).await, "the core is broken");
    assert_eq!(panic_of(hatchet.runs(Window::all()).count()).await, "the core is broken");
    assert_eq!(panic_of(hatchet.run(&task, &()).start()).await, "the core is broken");
    assert_eq!(panic_of(engine.shutdown()).await, "the core is broken");
}

#[tokio::test(start_paused = true)]
async fn dropping_a_panicked_engine_panics() {
    let engine = Engine::start().await.unwrap();
    break_core(&engine).await;
    assert_eq!(panic_of(async { drop(engine) }).await, "the core is broken");
}

#[tokio::test(start_paused = true)]
async fn pending_waits_end_immediately() {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let stuck: Task<(), ()> = Task::new("stuck", async |(): (), _: Context| std::future::pending().await);
    let worker = hatchet.worker("worker").register(&stuck).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&stuck, &()).start().await.unwrap();
    let waiting = tokio::spawn({
        let run = run.clone();
        async move { run.result().await }
    });
    let mut watch = run.watch();
    let watching = tokio::spawn(async move { while watch.next().await.unwrap().is_ok() {} });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    break_core(&engine).await;
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.to_string().ends_with("the embedded engine panicked: the core is broken"), "{error:?}");
    assert_eq!(start.elapsed(), Duration::ZERO);
    let panic = watching.await.unwrap_err().into_panic();
    assert_eq!(message(&*panic), "the core is broken");
    let text = "the background task of the worker panicked: the core is broken";
    assert_eq!(worker.stopped().await.unwrap_err().to_string(), text);
    assert_eq!(panic_of(worker.shutdown()).await, text);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(panic_of(engine.shutdown()).await, "the core is broken");
}

#[tokio::test]
async fn other_processes_get_the_message() {
    let engine = Engine::builder().listen().start().await.unwrap();
    let (grpc, rest) = (engine.grpc_address().unwrap(), engine.rest_address().unwrap());
    let config = Config::builder().tls_strategy(TlsStrategy::None).token(engine.environment()[0].1.clone());
    let config = config.host_port(grpc.to_string()).server_url(format!("http://{rest}"));
    let hatchet = Client::new(config.build().unwrap()).unwrap();
    break_core(&engine).await;
    let unknown = "00000000-0000-4000-8000-000000000001".parse().unwrap();
    for error in [
        hatchet.run_handle(unknown).details().await.unwrap_err(),
        hatchet.runs(Window::all()).count().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Server, "{error:?}");
        assert!(format!("{error:?}").contains("the embedded engine panicked: the core is broken"), "{error:?}");
    }
    assert_eq!(panic_of(engine.shutdown()).await, "the core is broken");
}
