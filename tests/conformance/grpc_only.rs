//! C13: what works where only the gRPC port can be reached.

use std::net::TcpListener;
use std::time::Duration;

use hatchet::config::ConfigBuilder;
use hatchet::embedded::{Engine, Quirks};
use hatchet::model::{Effect, Window};
use hatchet::workflow::WorkflowRef;
use hatchet::{Client, Context, ErrorKind, Outcome, RunFilter, Task, TaskError};

use tokio::time::Instant;

use crate::tasks::{Doubled, Number, double, endless};
use crate::world::{World, rows, until_started};

rows! {
    c13_grpc_is_enough_to_start_wait_and_work,
    c13_a_workflow_that_does_not_exist_is_noticed_over_grpc,
    c13_what_needs_rest_fails_soon_and_says_so,
}

/// A client that reaches gRPC and not REST. The embedded engine listens for it, in real time: a socket is the subject.
async fn grpc_only(world: &World) -> (Client, Option<Engine>) {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = format!("http://{closed}");
    if world.engine.is_none() {
        return (Client::new(ConfigBuilder::from_env().server_url(server).build().unwrap()).unwrap(), None);
    }
    world.use_real_time();
    let engine = Engine::builder().quirks(Quirks::all()).listen(0, 0).start().await.unwrap();
    let token = engine.environment().into_iter().find(|(name, _)| *name == "HATCHET_CLIENT_TOKEN").unwrap().1;
    let (grpc, _) = engine.addresses().unwrap();
    let config = ConfigBuilder::default()
        .token(token)
        .host_port(grpc.to_string())
        .tls_strategy(hatchet::config::TlsStrategy::None);
    (Client::new(config.server_url(server).build().unwrap()).unwrap(), Some(engine))
}

async fn c13_grpc_is_enough_to_start_wait_and_work(world: World) {
    let (hatchet, _engine) = grpc_only(&world).await;
    let task = double(world.name("double"));
    let fails: Task<Number, Doubled> =
        Task::new(world.name("fails"), async |_: Number, _: Context| Err(TaskError::new("no stock")));
    let worker = hatchet.worker(world.name("worker")).register(&task).register(&fails);
    let worker = worker.build().unwrap().start().await.unwrap();
    let begun = Instant::now();
    assert_eq!(hatchet.run(&task, &Number { n: 4 }).result().await.unwrap(), Doubled { doubled: 8 });
    let many = hatchet.run_many(&task, (0..50).map(|n| Number { n })).results().await.unwrap();
    let many: Vec<_> = many.into_iter().map(|result| result.unwrap().doubled).collect();
    assert_eq!(many, (0..50).map(|n| n * 2).collect::<Vec<_>>());
    let Outcome::Failed(failure) =
        hatchet.run(&fails, &Number { n: 1 }).start().await.unwrap().outcome().await.unwrap()
    else {
        panic!("it fails")
    };
    assert_eq!(failure.message, "no stock");
    // By its id alone, after its end.
    let run = hatchet.run(&task, &Number { n: 5 }).start().await.unwrap();
    run.result().await.unwrap();
    let again = hatchet.run_handle(run.id()).typed::<Doubled>();
    assert_eq!(again.result().await.unwrap(), Doubled { doubled: 10 });
    assert!(begun.elapsed() < Duration::from_secs(30), "nothing waited for REST: {:?}", begun.elapsed());
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.failed, report.total()), (52, 1, 53));
}

async fn c13_a_workflow_that_does_not_exist_is_noticed_over_grpc(world: World) {
    let (hatchet, _engine) = grpc_only(&world).await;
    let nobody: WorkflowRef<Number, Doubled> = WorkflowRef::new(world.name("nobody"));
    let one = hatchet.run(&nobody, &Number { n: 1 }).start().await.unwrap_err();
    let many = hatchet.run_many(&nobody, (0..3).map(|n| Number { n })).start().await.unwrap_err();
    for error in [one, many] {
        assert_eq!(error.kind(), ErrorKind::WorkflowNotFound, "{error:?}");
    }
}

async fn c13_what_needs_rest_fails_soon_and_says_so(world: World) {
    let (hatchet, _engine) = grpc_only(&world).await;
    let task = endless(world.name("endless"));
    let worker = hatchet.worker(world.name("worker")).register(&task).shutdown_grace_period(Duration::ZERO);
    let worker = worker.build().unwrap().start().await.unwrap();
    let run = hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    let begun = Instant::now();
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
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // A cancel without a reason needs none, and who waits is told what cannot be known.
    until_started(&hatchet, run.id()).await;
    assert!(matches!(run.cancel().send().await.unwrap().effect, Effect::Applied));
    let error = run.outcome().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("only the REST API can report whether it was cancelled"), "{error}");
    worker.shutdown().await;
}
