//! The engine's response for runs that it did not start, because other runs have their idempotency keys.

use std::error::Error as _;

use prost::Message as _;

use super::NewRun;
use crate::error::{Error, ErrorKind};
use crate::model::{RunId, parse_id};
use crate::rpc::pb::v1::{BulkTriggerIdempotencyCollisionError, IdempotencyCollisionError};

/// The response to a trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Triggered {
    /// The run.
    Run(RunId),
    /// The run that has the idempotency key.
    Taken(RunId),
}

/// The response to a trigger of many.
#[derive(Debug, Clone)]
pub(crate) enum TriggeredMany {
    /// The id of each run, in the order of the requests.
    Runs(Vec<Result<RunId, Error>>),
    /// Some runs were not started. `ids` has those that were, and ids of runs that are never created, in no order; `runs` has the
    /// requests.
    Some { ids: Vec<RunId>, runs: Vec<NewRun> },
}

/// `google.rpc.Status`, the text that the details of a rejection come in.
#[derive(Clone, PartialEq, prost::Message)]
struct Rejection {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// The detail of a rejection that is of a type, if the rejection has one.
fn detail<T: prost::Message + Default>(error: &Error, name: &str) -> Option<T> {
    if error.kind() != ErrorKind::AlreadyExists {
        return None;
    }
    let status = error.source()?.downcast_ref::<tonic::Status>()?;
    let details = Rejection::decode(status.details()).ok()?.details;
    let found = details.into_iter().find(|any| any.type_url.rsplit('/').next() == Some(name))?;
    T::decode(&*found.value).ok()
}

/// The run that has the idempotency key, if the call failed because of it.
pub(in crate::rpc) fn taken(error: Error) -> Result<Triggered, Error> {
    let found: Option<IdempotencyCollisionError> = detail(&error, "v1.IdempotencyCollisionError");
    match found {
        Some(found) => Ok(Triggered::Taken(parse_id(&found.existing_run_external_id)?)),
        None => Err(error),
    }
}

/// The ids of the runs that were started, if the call failed because other runs have idempotency keys of some of its runs.
pub(in crate::rpc) fn some_taken(error: Error) -> Result<Vec<RunId>, Error> {
    let found: Option<BulkTriggerIdempotencyCollisionError> = detail(&error, "v1.BulkTriggerIdempotencyCollisionError");
    match found {
        Some(found) => found.successful_workflow_run_external_ids.iter().map(|id| parse_id(id)).collect(),
        None => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Any;
    use tonic::{Code, Status};

    use super::*;
    use crate::transport::{from_status, sent_by_server};

    fn id(number: u128) -> RunId {
        uuid::Uuid::from_u128(number).into()
    }

    fn rejection(name: &str, detail: &impl prost::Message) -> Error {
        let detail = Any { type_url: format!("type.googleapis.com/{name}"), value: detail.encode_to_vec() };
        let details = Rejection { details: vec![Any::default(), detail] }.encode_to_vec();
        from_status("Trigger", sent_by_server(Status::with_details(Code::AlreadyExists, "collision", details.into())))
    }

    #[test]
    fn the_details_of_a_rejection_are_read() {
        let one = IdempotencyCollisionError { existing_run_external_id: id(1).to_string(), ..Default::default() };
        let many = BulkTriggerIdempotencyCollisionError {
            successful_workflow_run_external_ids: vec![id(2).to_string(), id(3).to_string()],
            collisions: vec![one.clone()],
        };
        let (one, many) = (
            rejection("v1.IdempotencyCollisionError", &one),
            rejection("v1.BulkTriggerIdempotencyCollisionError", &many),
        );
        assert_eq!(some_taken(many).unwrap(), [id(2), id(3)]);
        assert_eq!(taken(one).unwrap(), Triggered::Taken(id(1)));
    }

    #[test]
    fn any_other_rejection_stays_one() {
        for error in [
            from_status("Trigger", sent_by_server(Status::already_exists("exists"))),
            from_status("Trigger", sent_by_server(Status::internal("broken"))),
            from_status("Trigger", sent_by_server(Status::with_details(Code::AlreadyExists, "", vec![0xff; 2].into()))),
        ] {
            let kind = error.kind();
            assert_eq!(taken(error).unwrap_err().kind(), kind);
        }
    }
}
