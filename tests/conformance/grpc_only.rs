//! C13: calls that work if only the gRPC port is reachable.

use std::net::TcpListener;
use std::time::Duration;

use hatchet::config::ConfigBuilder;
use hatchet::embedded::{Engine, Quirks};
use hatchet::model::{Effect, Window};
use hatchet::workflow::WorkflowRef;
use hatchet::{Client, Context, ErrorKind, Outcome, RunFilter, Task, TaskError};

use tokio::time::Instant;

use crate::setup::{Setup, rows, until_started};
use crate::support;
use crate::tasks::{Doubled, Number, double, endless};

rows! {
    c13_starts_waits_and_workers_need_only_grpc,
    c13_unknown_workflows_are_reported_over_grpc,
    c13_calls_that_need_rest_fail_fast,
}

/// A client that can connect to gRPC, but not to REST. For the embedded engine, it uses sockets and real time.
async fn grpc_only(setup: &Setup) -> (Client, Option<Engine>) {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = format!("http://{closed}");
    if setup.engine.is_none() {
        return (Client::new(ConfigBuilder::from_env().server_url(server).build().unwrap()).unwrap(), None);
    }
    setup.use_real_time();
    let engine = Engine::builder().quirks(Quirks::all()).listen().start().await.unwrap();
    let config = support::config(&engine).server_url(server);
    (Client::new(config.build().unwrap()).unwrap(), Some(engine))
}

async fn c13_starts_waits_and_workers_need_only_grpc(setup: Setup) {
    let (hatchet, _engine) = grpc_only(&setup).await;
    let task = double(setup.name("double"));
    let fails: Task<Number, Doubled> =
        Task::new(setup.name("fails"), async |_: Number, _: Context| Err(TaskError::new("no stock")));
    let worker = hatchet.worker(setup.name("worker")).register(&task).register(&fails);
    let worker = worker.build().unwrap().start().await.unwrap();
    let start = Instant::now();
    assert_eq!(hatchet.run(&task, &Number { n: 4 }).result().await.unwrap(), Doubled { doubled: 8 });
    let many = hatchet.run_many(&task, (0..50).map(|n| Number { n })).results().await.unwrap();
    let many: Vec<_> = many.into_iter().map(|result| result.unwrap().doubled).collect();
    assert_eq!(many, (0..50).map(|n| n * 2).collect::<Vec<_>>());
    let Outcome::Failed(failure) =
        hatchet.run(&fails, &Number { n: 1 }).start().await.unwrap().outcome().await.unwrap()
    else {
        panic!("the run should fail")
    };
    assert_eq!(failure.message.as_deref(), Some("no stock"));
    // A run is also found by its id alone after its end.
    let run = hatchet.run(&task, &Number { n: 5 }).start().await.unwrap();
    run.result().await.unwrap();
    let by_id = hatchet.run_handle(run.id()).typed::<Doubled>();
    assert_eq!(by_id.result().await.unwrap(), Doubled { doubled: 10 });
    // One that does not exist is reported, although REST could have it.
    let missing = hatchet.run_handle(uuid::Uuid::from_u128(0x5a5a_0001).into());
    assert_eq!(missing.outcome().await.unwrap_err().kind(), ErrorKind::RunNotFound);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}: a call has waited for REST", start.elapsed());
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.failed, report.total()), (52, 1, 53));
}

async fn c13_unknown_workflows_are_reported_over_grpc(setup: Setup) {
    let (hatchet, _engine) = grpc_only(&setup).await;
    let unknown: WorkflowRef<Number, Doubled> = WorkflowRef::new(setup.name("unknown"));
    let one = hatchet.run(&unknown, &Number { n: 1 }).start().await.unwrap_err();
    let many = hatchet.run_many(&unknown, (0..3).map(|n| Number { n })).start().await.unwrap_err();
    for error in [one, many] {
        assert_eq!(error.kind(), ErrorKind::WorkflowNotFound, "{error:?}");
    }
}

async fn c13_calls_that_need_rest_fail_fast(setup: Setup) {
    let (hatchet, _engine) = grpc_only(&setup).await;
    let task = endless(setup.name("endless"));
    let worker = hatchet.worker(setup.name("worker")).register(&task).shutdown_grace_period(Duration::ZERO);
    let worker = worker.build().unwrap().start().await.unwrap();
    let run = hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    let start = Instant::now();
    let errors = [
        run.details().await.map(drop).unwrap_err(),
        run.watch().next().await.unwrap().map(drop).unwrap_err(),
        hatchet.runs(RunFilter::new(Window::all())).page(1).await.map(drop).unwrap_err(),
        run.cancel().reason("no REST").send().await.map(drop).unwrap_err(),
        run.replay().send().await.map(drop).unwrap_err(),
        hatchet.crons().get().await.map(drop).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.to_string().contains(": the REST API at http://127.0.0.1:"), "{error}");
        assert!(error.to_string().ends_with(" cannot be reached"), "{error}");
        assert!(error.has_no_side_effects(), "{error:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    // A cancellation without a reason does not need REST. A wait reports that the outcome is unknown.
    until_started(&hatchet, run.id()).await;
    assert!(matches!(run.cancel().send().await.unwrap().effect, Effect::Applied));
    let error = run.outcome().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("only the REST API can report whether it was cancelled"), "{error}");
    worker.shutdown().await;
}
