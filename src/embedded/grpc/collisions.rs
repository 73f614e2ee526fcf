//! The details of a rejection because of idempotency keys.

use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};

use crate::embedded::core::store::{Collision, Collisions};
use crate::rpc::pb::v1::{BulkTriggerIdempotencyCollisionError, IdempotencyCollisionError};

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// The rejection of a call for several runs.
pub(super) fn bulk(message: String, found: &Collisions) -> Status {
    let detail = BulkTriggerIdempotencyCollisionError {
        successful_workflow_run_external_ids: found.successful.iter().map(ToString::to_string).collect(),
        collisions: found
            .collisions
            .iter()
            .map(|Collision { existing, colliding }| IdempotencyCollisionError {
                existing_run_external_id: existing.to_string(),
                colliding_run_external_id: colliding.to_string(),
            })
            .collect(),
    };
    status(message, "v1.BulkTriggerIdempotencyCollisionError", &detail)
}

/// The rejection of a call for one run, which does not name the id that it would have had.
pub(super) fn single(message: String, found: &Collisions) -> Status {
    let existing = found.collisions.first().map(|collision| collision.existing.to_string());
    let detail = IdempotencyCollisionError {
        existing_run_external_id: existing.unwrap_or_default(),
        colliding_run_external_id: String::new(),
    };
    status(message, "v1.IdempotencyCollisionError", &detail)
}

fn status(message: String, name: &str, detail: &impl prost::Message) -> Status {
    let detail = Any { type_url: format!("type.googleapis.com/{name}"), value: detail.encode_to_vec() };
    let code = Code::AlreadyExists;
    let details = RpcStatus { code: code as i32, message: message.clone(), details: vec![detail] }.encode_to_vec();
    Status::with_details(code, message, details.into())
}
