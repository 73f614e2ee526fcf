//! How long it takes from an assignment to the code, and from the code to the report, with a server that does nothing else.

use std::time::Instant;

use hatchet::config::TlsStrategy;
use hatchet::embedded::Engine;
use hatchet::raw::pb::{ActionType, AssignedAction, StepActionEventType};
use hatchet::{Client, Config};

use crate::dispatcher::{Dispatcher, ID};
use crate::{Payload, Times, WORKFLOW, Worker};

/// The microseconds from the assignment to the first line of the code, and from its last line until the server has received the report, of
/// one attempt after the other.
pub(crate) async fn latencies(is_raw: bool, count: usize) -> [Vec<f64>; 2] {
    // For the REST API.
    let engine = Engine::builder().listen().start().await.unwrap();
    let Dispatcher { address, assignments, mut reports } = Dispatcher::start().await;
    let config = engine.environment().into_iter().fold(Config::builder(), |config, (name, value)| match name {
        "HATCHET_CLIENT_TOKEN" => config.token(value),
        "HATCHET_CLIENT_SERVER_URL" => config.server_url(value),
        _ => config,
    });
    let config = config.tls_strategy(TlsStrategy::None).host_port(address.to_string()).build().unwrap();
    let (client, times) = (Client::new(config).unwrap(), Times::default());
    let worker = Worker::start(&client, is_raw, 100, Some(times.clone())).await;
    let mut found = [Vec::new(), Vec::new()];
    for _ in 0..count {
        let assigned = AssignedAction {
            action_type: ActionType::StartStepRun as i32,
            action_id: format!("{WORKFLOW}:{WORKFLOW}"),
            action_payload: format!(r#"{{"input":{}}}"#, serde_json::to_string(&Payload::of(10)).unwrap()),
            workflow_run_id: ID.into(),
            task_run_external_id: uuid::Uuid::new_v4().to_string(),
            ..Default::default()
        };
        let start = Instant::now();
        assignments.send(assigned).unwrap();
        let (_, started) = reports.recv().await.unwrap();
        assert_eq!(started.event_type(), StepActionEventType::StepEventTypeStarted);
        let (end, completed) = reports.recv().await.unwrap();
        assert_eq!(completed.event_type(), StepActionEventType::StepEventTypeCompleted);
        let (code_start, code_end) = times.take();
        for (times, elapsed) in found.iter_mut().zip([code_start - start, end - code_end]) {
            times.push(elapsed.as_secs_f64() * 1e6);
        }
    }
    worker.stop();
    engine.shutdown().await;
    found
}
