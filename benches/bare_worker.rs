//! A worker over the generated stubs that keeps nothing of its assignments.

use std::convert::Infallible;
use std::time::Duration;

use hatchet::Client;
use hatchet::raw::pb::dispatcher_client::DispatcherClient;
use hatchet::raw::pb::{HeartbeatRequest, WorkerListenRequest, WorkerRegisterRequest};

/// Registers a worker with this task and these slots, and receives its assignments until it is dropped.
pub(crate) async fn receive(client: &Client, task: &str, slots: usize) -> Infallible {
    let mut dispatcher = DispatcherClient::new(client.raw_channel());
    let registration = WorkerRegisterRequest {
        worker_name: "bare".into(),
        actions: vec![format!("{task}:{task}")],
        slot_config: [("default".to_owned(), i32::try_from(slots).unwrap())].into(),
        ..Default::default()
    };
    let worker_id = dispatcher.register(registration).await.unwrap().into_inner().worker_id;
    let assignments = async {
        let request = WorkerListenRequest { worker_id: worker_id.clone() };
        let mut actions = dispatcher.clone().listen_v2(request).await.unwrap().into_inner();
        loop {
            drop(actions.message().await.unwrap().unwrap());
        }
    };
    let heartbeats = async {
        let mut dispatcher = dispatcher.clone();
        loop {
            let request = HeartbeatRequest { worker_id: worker_id.clone(), heartbeat_at: None };
            // The first heartbeats may be sent before the stream is open.
            let pause = if dispatcher.heartbeat(request).await.is_ok() { 2000 } else { 1 };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    };
    tokio::select! {
        biased;
        never = assignments => never,
        never = heartbeats => never,
    }
}
