//! A server that assigns to a worker what the worker does not have.

use std::time::Duration;

use hatchet::raw::pb::{ActionType, AssignedAction, StepActionEventType};
use hatchet::{Context, Task};
use tokio::time::timeout;

use crate::dispatcher::{Dispatcher, ID};
use crate::servers::setup;

/// The engine may assign an action that an earlier version of the worker had. A retry would not help.
#[tokio::test]
async fn an_unknown_action_is_a_failure_that_names_it() {
    let assigned = AssignedAction {
        action_type: ActionType::StartStepRun as i32,
        action_id: "orders:refund".into(),
        action_payload: r#"{"input":{}}"#.into(),
        workflow_run_id: ID.into(),
        task_run_external_id: ID.into(),
        retry_count: 2,
        ..Default::default()
    };
    let setup = setup().await;
    let Dispatcher { address, assignments, mut reports } = Dispatcher::start().await;
    assignments.send(assigned).unwrap();
    let charge: Task<(), ()> = Task::new("charge", async |(): (), _: Context| panic!("it is another action"));
    let worker = setup.client(address).worker("worker").register(&charge.retries(3)).build().unwrap();
    let worker = worker.start().await.unwrap();
    let mut report = async || timeout(Duration::from_secs(20), reports.recv()).await.unwrap().unwrap().1;
    assert_eq!(report().await.event_type(), StepActionEventType::StepEventTypeStarted);
    let failed = report().await;
    assert_eq!(failed.event_type(), StepActionEventType::StepEventTypeFailed);
    assert_eq!(failed.event_payload, "this worker has no task for the action orders:refund");
    assert_eq!((failed.should_not_retry, failed.retry_count), (Some(true), Some(2)));
    assert_eq!((failed.action_id.as_str(), failed.task_run_external_id.as_str()), ("orders:refund", ID));
    let status = worker.status();
    assert_eq!((status.running, status.queued), (0, 0), "its slot is free again");
    drop(worker);
}
