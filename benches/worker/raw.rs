//! A worker over the generated stubs, with only the necessary work: no deadlines, no retries, no checks, no cancels.

use std::time::Duration;

use hatchet::Client;
use hatchet::raw::RawChannel;
use hatchet::raw::pb::dispatcher_client::DispatcherClient;
use hatchet::raw::pb::{ActionType, AssignedAction, HeartbeatRequest, WorkerListenRequest, WorkerRegisterRequest};
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::{Payload, Times, WORKFLOW, raw_report};

/// Starts a worker, and returns when the engine assigns tasks to it.
pub(crate) async fn start(client: &Client, slots: u32, times: Option<Times>) -> JoinHandle<()> {
    let (ready, is_ready) = oneshot::channel();
    let task = tokio::spawn(work(client.clone(), slots, times, ready));
    is_ready.await.unwrap();
    task
}

async fn work(client: Client, slots: u32, times: Option<Times>, ready: oneshot::Sender<()>) {
    let mut dispatcher = DispatcherClient::new(client.raw_channel());
    let registration = WorkerRegisterRequest {
        worker_name: "bench".into(),
        actions: vec![format!("{WORKFLOW}:{WORKFLOW}")],
        slot_config: [("default".to_owned(), slots.cast_signed())].into(),
        ..Default::default()
    };
    let worker_id = dispatcher.register(registration).await.unwrap().into_inner().worker_id;
    let heartbeats = async {
        let (mut dispatcher, worker_id) = (dispatcher.clone(), worker_id.clone());
        let mut ready = Some(ready);
        loop {
            let request = HeartbeatRequest { worker_id: worker_id.clone(), heartbeat_at: None };
            // The first heartbeats may be sent before the stream is open.
            let is_accepted = dispatcher.heartbeat(request).await.is_ok();
            if let Some(ready) = ready.take_if(|_| is_accepted) {
                let _ = ready.send(());
            }
            tokio::time::sleep(Duration::from_millis(if is_accepted { 2000 } else { 1 })).await;
        }
    };
    let assignments = async {
        let request = WorkerListenRequest { worker_id: worker_id.clone() };
        let mut actions = dispatcher.clone().listen_v2(request).await.unwrap().into_inner();
        while let Some(action) = actions.message().await.unwrap() {
            assert_eq!(action.action_type, ActionType::StartStepRun as i32);
            tokio::spawn(task(dispatcher.clone(), worker_id.clone(), action, times.clone()));
        }
    };
    tokio::select! {
        biased;
        () = assignments => panic!("the stream ended"),
        () = heartbeats => {}
    }
}

#[derive(Deserialize)]
struct Assignment {
    input: Payload,
}

/// Reports the start, runs the code, and reports the end.
async fn task(
    mut dispatcher: DispatcherClient<RawChannel>,
    worker_id: String,
    mut action: AssignedAction,
    times: Option<Times>,
) {
    let payload = std::mem::take(&mut action.action_payload);
    let started = raw_report::started(worker_id, action);
    let mut completed = raw_report::completed(&started, String::new());
    let report = async { dispatcher.send_step_action_event(started).await.unwrap() };
    let code = async {
        let input = serde_json::from_str::<Assignment>(&payload).unwrap().input;
        if let Some(times) = times {
            times.measure().await;
        }
        serde_json::to_string(&input).unwrap()
    };
    // The code does not wait for the report of its start.
    let (_, output) = tokio::join!(report, code);
    completed.event_payload = output;
    dispatcher.send_step_action_event(completed).await.unwrap();
}
