//! The details of one run.

use std::hint::black_box;

use futures_util::future::{join, join_all, join3};
use hatchet::RunHandle;
use hatchet::model::RunDetails;
use hatchet::model::TaskId;
use hatchet::raw::pb::PutLogRequest;
use hatchet::raw::pb::events_service_client::EventsServiceClient;
use hatchet::raw::pb::v1::GetRunDetailsRequest;
use hatchet::raw::pb::v1::admin_service_client::AdminServiceClient;

use crate::Sizes;
use crate::pairs::{Pairs, timed};
use crate::setup::{Setup, diamond, inputs, task};

/// The number of log lines of each task.
const LINES: usize = 3;
/// The number of fetches in one measurement.
const FETCHES: usize = 100;

pub(crate) async fn all(setup: &Setup, sizes: Sizes) {
    let input = inputs(1).next().unwrap();
    let one = setup.client.run(&task("noop"), &input).start().await.unwrap();
    one.outcome().await.unwrap();
    print(setup, sizes, "one task", &one).await;
    let four = setup.client.run(&diamond(), &input).start().await.unwrap();
    four.outcome().await.unwrap();
    print(setup, sizes, "a DAG of 4 tasks", &four).await;
}

async fn print<O>(setup: &Setup, sizes: Sizes, what: &str, run: &RunHandle<O>) {
    let tasks: Vec<_> = run.details().await.unwrap().tasks.iter().map(|task| task.id).collect();
    let mut events = EventsServiceClient::new(setup.client.raw_channel());
    for task in &tasks {
        for number in 0..LINES {
            let line = PutLogRequest {
                task_run_external_id: task.to_string(),
                message: format!("line {number}"),
                level: Some("INFO".into()),
                metadata: "{}".into(),
                ..Default::default()
            };
            events.put_log(line).await.unwrap();
        }
    }
    let pairs = Pairs::measure(
        sizes.rounds,
        async || timed(FETCHES, async || raw(setup, &run.id().to_string(), &tasks).await).await,
        async || {
            timed(FETCHES, async || {
                let details = black_box(run.details().logs(RunDetails::MAX_LOGS).await.unwrap());
                assert_eq!(details.logs.len(), LINES * tasks.len());
            })
            .await
        },
    )
    .await;
    pairs.print(&format!("details of {what}"), FETCHES);
}

/// The calls that the SDK makes, all concurrently.
async fn raw(setup: &Setup, run: &str, tasks: &[TaskId]) {
    let mut admin = AdminServiceClient::new(setup.client.raw_channel());
    let grpc = admin.get_run_details(GetRunDetailsRequest { external_id: run.to_owned() });
    let get = async |path: String| setup.get(&format!("/api/v1/stable/{path}")).await;
    let events = async {
        // The details of a DAG run contain the events.
        if tasks.len() == 1 { Some(get(format!("tasks/{run}/task-events?limit=10000")).await) } else { None }
    };
    let logs = join_all(tasks.iter().map(|task| get(format!("tasks/{task}/logs?limit=1000"))));
    let rest = join(get(format!("workflow-runs/{run}")), events);
    let (grpc, rest, logs) = join3(grpc, rest, logs).await;
    black_box((grpc.unwrap(), rest, logs));
}
