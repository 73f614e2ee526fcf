//! Starts a run by REST. Unlike gRPC, the response waits until REST shows the run.

use std::time::Duration;

use axum::body::Bytes;
use chrono::TimeDelta;
use serde_json::{Value, json};
use uuid::Uuid;

use super::body::Typed;
use super::json::{extend, meta, timestamp};
use super::paging::bad_request;
use super::request::OfTenant;
use super::response::{Rejection, RestResult, respond};
use super::run;
use crate::embedded::core::Core;
use crate::embedded::core::store::{At, Code, StatusError, Trigger};

/// The number of attempts to find the run, and the time between them.
const FIND_ATTEMPTS: usize = 10;
const FIND_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum size of an input, which is that of a gRPC message.
const MAX_INPUT: usize = 4 << 20;

pub(super) async fn start(OfTenant(api): OfTenant, bytes: Bytes) -> RestResult {
    let body = Typed::parse(&bytes, "gen.V1TriggerWorkflowRunRequest")?;
    let (trigger, only_id) = (trigger(&body)?, body.flag("return_only_id")?);
    let started = api.core.call(move |core, turn| (core.trigger(turn, vec![trigger]), turn.now)).await?;
    let (ids, now) = (started.0.map_err(rejection)?, started.1);
    let id = ids.first().copied().ok_or(Rejection::INTERNAL)?;
    if only_id {
        return Ok(respond(&id_only(id, now)));
    }
    for _ in 0..FIND_ATTEMPTS {
        let read = move |core: &Core, now: At| Some(run::details(core, core.rest_run(id, now)?, now));
        if let Some(found) = api.core.call(move |core, turn| read(core, turn.now)).await? {
            return Ok(respond(&found));
        }
        api.core.sleep(FIND_INTERVAL).await;
    }
    Err(Rejection::INTERNAL)
}

fn trigger(body: &Typed<'_>) -> Result<Trigger, Rejection> {
    let (workflow, input) = (body.text("workflowName")?.unwrap_or_default(), body.object("input")?);
    let (metadata, priority) = (body.object("additionalMetadata")?, body.number("priority")?);
    if let Some(priority) = priority.filter(|priority| !(1..=3).contains(priority)) {
        return Err(bad_request(format!("priority must be between 1 and 3, got {priority}")));
    }
    let input = input.map_or(Value::Null, Value::Object);
    let metadata = metadata.unwrap_or_default();
    let size = [workflow.len(), input.to_string().len(), json!(metadata).to_string().len()].into_iter().sum::<usize>();
    if size > MAX_INPUT {
        return Err(bad_request(format!("grpc: received message after decompression larger than max {MAX_INPUT}")));
    }
    let priority = priority.and_then(|priority| i32::try_from(priority).ok());
    Ok(Trigger { workflow, input, metadata, priority, parent: None, options: None })
}

fn rejection(error: StatusError) -> Rejection {
    match error.code {
        Code::InvalidArgument => bad_request(error.message),
        _ => Rejection::INTERNAL,
    }
}

/// The response of a request that returns immediately: it has the id, and all other fields of the run are empty.
fn id_only(id: Uuid, now: At) -> Value {
    let nil = Uuid::nil().to_string();
    let mut metadata = meta(id, now);
    // The server reads its clock twice.
    let updated = now.checked_add_signed(TimeDelta::microseconds(1)).unwrap_or(now);
    extend(&mut metadata, json!({"updatedAt": timestamp(updated)}));
    json!({
        "run": {
            "metadata": metadata,
            "displayName": "",
            "input": {},
            "output": {},
            "status": "",
            "tenantId": nil,
            "workflowId": nil,
        },
        "shape": null,
        "taskEvents": null,
        "tasks": null,
    })
}
