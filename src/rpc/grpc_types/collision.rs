//! What the engine says of runs that it did not start, since others have their idempotency keys.

use std::error::Error as _;

use prost::Message as _;

use super::NewRun;
use crate::error::{Error, ErrorKind};
use crate::rpc::pb::v1::{BulkTriggerIdempotencyCollisionError, IdempotencyCollisionError};

/// The answer to a trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Triggered {
    /// The id of the run.
    Run(String),
    /// The run that has the key.
    Taken(String),
}

/// The answer to a trigger of many.
#[derive(Debug, Clone)]
pub(crate) enum TriggeredMany {
    /// An id for each, in their order.
    Runs(Vec<String>),
    /// The ids of those that were started, and of some that never exist, in no order; and what was asked for. The others
    /// were not started.
    Some { ids: Vec<String>, runs: Vec<NewRun> },
}

/// `google.rpc.Status`, the text that the details of a refusal come in.
#[derive(Clone, PartialEq, prost::Message)]
struct Refusal {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// The detail of a refusal that is of a type, if the refusal has one.
fn detail<T: prost::Message + Default>(error: &Error, name: &str) -> Option<T> {
    if error.kind() != ErrorKind::AlreadyExists {
        return None;
    }
    let status = error.source()?.downcast_ref::<tonic::Status>()?;
    let details = Refusal::decode(status.details()).ok()?.details;
    let found = details.into_iter().find(|any| any.type_url.rsplit('/').next() == Some(name))?;
    T::decode(&*found.value).ok()
}

/// The run that has the key, if that is why a run was not started.
pub(in crate::rpc) fn taken(error: Error) -> Result<Triggered, Error> {
    let found: Option<IdempotencyCollisionError> = detail(&error, "v1.IdempotencyCollisionError");
    found.map(|found| Triggered::Taken(found.existing_run_external_id)).ok_or(error)
}

/// Those that were started all the same, if that is why not all were.
pub(in crate::rpc) fn some_taken(error: Error) -> Result<Vec<String>, Error> {
    let found: Option<BulkTriggerIdempotencyCollisionError> = detail(&error, "v1.BulkTriggerIdempotencyCollisionError");
    found.map(|found| found.successful_workflow_run_external_ids).ok_or(error)
}

#[cfg(test)]
mod tests {
    use prost_types::Any;
    use tonic::{Code, Status};

    use super::*;
    use crate::transport::{from_status, sent_by_server};

    fn refusal(name: &str, detail: &impl prost::Message) -> Error {
        let detail = Any { type_url: format!("type.googleapis.com/{name}"), value: detail.encode_to_vec() };
        let details = Refusal { details: vec![Any::default(), detail] }.encode_to_vec();
        from_status("Trigger", sent_by_server(Status::with_details(Code::AlreadyExists, "collision", details.into())))
    }

    #[test]
    fn the_details_of_a_refusal_are_read() {
        let one = IdempotencyCollisionError { existing_run_external_id: "a".into(), ..Default::default() };
        let many = BulkTriggerIdempotencyCollisionError {
            successful_workflow_run_external_ids: vec!["b".into(), "c".into()],
            collisions: vec![one.clone()],
        };
        let (one, many) =
            (refusal("v1.IdempotencyCollisionError", &one), refusal("v1.BulkTriggerIdempotencyCollisionError", &many));
        assert_eq!(some_taken(many).unwrap(), ["b", "c"]);
        assert_eq!(taken(one).unwrap(), Triggered::Taken("a".into()));
    }

    #[test]
    fn any_other_refusal_stays_one() {
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
