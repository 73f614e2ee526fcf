//! All that is known about one run.

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
use crate::bed::{Bed, diamond, inputs, task};
use crate::pairs::{Pairs, timed};

/// Lines in the log of each task.
const LINES: usize = 3;
/// Looks of one measurement.
const LOOKS: usize = 100;

pub(crate) async fn all(bed: &Bed, sizes: Sizes) {
    let input = inputs(1).next().unwrap();
    let one = bed.client.run(&task("noop"), &input).start().await.unwrap();
    one.outcome().await.unwrap();
    print(bed, sizes, "one task", &one).await;
    let four = bed.client.run(&diamond(), &input).start().await.unwrap();
    four.outcome().await.unwrap();
    print(bed, sizes, "a DAG of 4 tasks", &four).await;
}

async fn print<O>(bed: &Bed, sizes: Sizes, what: &str, run: &RunHandle<O>) {
    let tasks: Vec<_> = run.details().await.unwrap().tasks.iter().map(|task| task.id).collect();
    let mut events = EventsServiceClient::new(bed.client.raw_channel());
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
        async || timed(LOOKS, async || raw(bed, &run.id().to_string(), &tasks).await).await,
        async || {
            timed(LOOKS, async || {
                let details = black_box(run.details().logs(RunDetails::MAX_LOGS).await.unwrap());
                assert_eq!(details.logs.len(), LINES * tasks.len());
            })
            .await
        },
    )
    .await;
    pairs.print(&format!("details of {what}"), LOOKS);
}

/// The calls that this takes, all at the same time.
async fn raw(bed: &Bed, run: &str, tasks: &[TaskId]) {
    let mut admin = AdminServiceClient::new(bed.client.raw_channel());
    let grpc = admin.get_run_details(GetRunDetailsRequest { external_id: run.to_owned() });
    let get = async |path: String| bed.get(&format!("/api/v1/stable/{path}")).await;
    let events = async {
        // Of a DAG they are in the run.
        if tasks.len() == 1 { Some(get(format!("tasks/{run}/task-events?limit=10000")).await) } else { None }
    };
    let logs = join_all(tasks.iter().map(|task| get(format!("tasks/{task}/logs?limit=1000"))));
    let rest = join(get(format!("workflow-runs/{run}")), events);
    let (grpc, rest, logs) = join3(grpc, rest, logs).await;
    black_box((grpc.unwrap(), rest, logs));
}
