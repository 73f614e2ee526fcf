//! Evidence for tests.

use std::collections::BTreeMap;

use super::evidence::Evidence;
use crate::model::{Payload, RunId, RunStatus};
use crate::rpc::convert::{GrpcRun, GrpcTask, RestRun, TaskEvent, TaskResult};

const RUN: &str = "00000000-0000-4000-8001-000000000001";

pub(super) fn run() -> RunId {
    RUN.parse().unwrap()
}

/// The evidence of a single-task run: the statuses in gRPC and REST, the events of its attempt, the entries of the result stream.
pub(super) fn evidence(grpc: &str, rest: &str, events: &[(&str, &str)], results: &[Result<&str, &str>]) -> Evidence {
    let task =
        GrpcTask { id: run().into(), status: RunStatus::from_name(grpc), error: Some(String::new()), output: None };
    Evidence {
        is_dropped_by_grpc: false,
        results: (!results.is_empty()).then(|| {
            results
                .iter()
                .map(|result| TaskResult { task: run().into(), name: "work".into(), result: result.map(Payload::output).map_err(str::to_owned) })
                .collect()
        }),
        grpc: (!grpc.is_empty()).then(|| GrpcRun {
            status: RunStatus::from_name(grpc),
            done: RunStatus::from_name(grpc).is_final(),
            input: Some(Payload::input("{}")),
            metadata: BTreeMap::new(),
            tasks: [("work".to_owned(), task)].into(),
        }),
        rest: (!rest.is_empty()).then(|| {
            let body = format!(r#"{{"run":{{"metadata":{{"id":"{RUN}"}},"status":"{rest}"}},"shape":[{{"taskExternalId":"{RUN}","taskName":"work"}}],"tasks":[{{"taskExternalId":"{RUN}","status":"{rest}","output":{{}}}}]}}"#);
            serde_json::from_str::<RestRun>(&body).unwrap()
        }),
        without_rest: None,
        workflow: Some("work".into()),
        events: events
            .iter()
            .map(|(kind, text)| {
                let body = format!(
                    r#"{{"eventType":"{kind}","timestamp":"2026-11-23T14:00:00Z","retryCount":0,"message":"{}","errorMessage":"{}"}}"#,
                    if *kind == "FAILED" { "" } else { text },
                    if *kind == "FAILED" { text } else { "" },
                );
                serde_json::from_str::<TaskEvent>(&body).unwrap()
            })
            .collect(),
    }
}
