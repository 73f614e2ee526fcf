//! Runs to start.
//!
//! The runs of a call have most fields in common. These are encoded once; each run adds its own fields. Protobuf defines that the
//! encodings of two parts of a message, one after the other, are the encoding of the whole message.

use bytes::{BufMut as _, Bytes};
use prost::{EncodeError, Message as _, encode_length_delimiter, length_delimiter_len};
use serde_json::Value;

use super::limit::MAX_ELEMENT_OVERHEAD;
use crate::model::{DesiredLabels, RunId, TaskId, WorkerId};
use crate::rpc::pb::v1::TriggerWorkflowRequest;

/// The key of the runs in `BulkTriggerWorkflowRequest`: field 1, with a length.
const WORKFLOWS_KEY: u8 = 1 << 3 | 2;

/// What the runs of one call have in common.
#[derive(Debug, Clone)]
pub(crate) struct CommonRun(TriggerWorkflowRequest);

impl CommonRun {
    /// The metadata is the text of a JSON object.
    pub(crate) fn new(workflow: String, metadata: String, priority: Option<i32>) -> Self {
        Self(TriggerWorkflowRequest {
            name: workflow,
            additional_metadata: Some(metadata),
            priority,
            ..Default::default()
        })
    }

    /// Requests a worker, and workers with labels.
    pub(crate) fn placed(mut self, worker: Option<WorkerId>, labels: &DesiredLabels) -> Self {
        self.0.desired_worker_id = worker.map(Into::into);
        self.0.desired_worker_labels = labels.iter().map(|(key, label)| (key.clone(), label.clone().into())).collect();
        self
    }

    /// Children of a task, by their keys if they have one.
    pub(crate) fn children_of(mut self, run: RunId, task: TaskId, key: Option<String>) -> Self {
        self.0.parent_id = Some(run.into());
        self.0.parent_task_run_external_id = Some(task.into());
        self.0.child_key = key;
        self
    }

    pub(crate) fn encode(&self) -> EncodedRun {
        EncodedRun(self.0.encode_to_vec().into())
    }
}

/// The same, encoded. It is cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct EncodedRun(Bytes);

impl EncodedRun {
    /// A run with an input, the text of a JSON object. A child has a number among the children of its parent.
    pub(crate) fn run(&self, input: String, child_index: Option<i32>) -> NewRun {
        NewRun { common: self.0.clone(), own: Own { input, child_index } }
    }
}

/// A run that is to be started.
#[derive(Debug, Clone)]
pub(crate) struct NewRun {
    common: Bytes,
    own: Own,
}

/// The fields of `TriggerWorkflowRequest` in which the runs of a call differ.
#[derive(Clone, PartialEq, prost::Message)]
struct Own {
    #[prost(string, tag = "2")]
    input: String,
    #[prost(int32, optional, tag = "5")]
    child_index: Option<i32>,
}

impl NewRun {
    /// The input.
    pub(crate) fn input(&self) -> &str {
        &self.own.input
    }

    /// The metadata, an object.
    pub(crate) fn metadata(&self) -> Value {
        let common = TriggerWorkflowRequest::decode(&*self.common).unwrap_or_default();
        serde_json::from_str(common.additional_metadata()).unwrap_or_default()
    }

    /// The number of bytes that it adds to a bulk request.
    pub(crate) fn size(&self) -> usize {
        self.encoded_len() + MAX_ELEMENT_OVERHEAD
    }

    pub(in crate::rpc) fn encoded_len(&self) -> usize {
        self.common.len() + self.own.encoded_len()
    }

    /// Appends its encoding.
    pub(in crate::rpc) fn encode(&self, message: &mut Vec<u8>) -> Result<(), EncodeError> {
        message.put_slice(&self.common);
        self.own.encode(message)
    }
}

/// The size of the encoding of a `BulkTriggerWorkflowRequest`.
pub(in crate::rpc) fn bulk_len(runs: &[NewRun]) -> usize {
    let of_run = |length: usize| 1 + length_delimiter_len(length) + length;
    runs.iter().map(|run| of_run(run.encoded_len())).sum()
}

/// Appends the encoding of a `BulkTriggerWorkflowRequest`.
pub(in crate::rpc) fn encode_bulk(runs: &[NewRun], message: &mut Vec<u8>) -> Result<(), EncodeError> {
    runs.iter().try_for_each(|run| {
        message.put_u8(WORKFLOWS_KEY);
        encode_length_delimiter(run.encoded_len(), message)?;
        run.encode(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::pb::BulkTriggerWorkflowRequest;

    fn common() -> CommonRun {
        CommonRun::new("greet".into(), r#"{"a":"b"}"#.into(), Some(3))
    }

    fn expected(input: &str) -> TriggerWorkflowRequest {
        TriggerWorkflowRequest { input: input.into(), ..common().0 }
    }

    #[test]
    fn a_run_is_encoded_in_two_parts() {
        let id: RunId = uuid::Uuid::from_u128(1).into();
        let common = common().children_of(id, id.into(), Some("key".into()));
        for (input, child_index) in [("{}", None), ("", Some(0)), (r#"{"n":1}"#, Some(7)), (&"x".repeat(70_000), None)]
        {
            let run = common.encode().run(input.into(), child_index);
            let mut message = Vec::new();
            run.encode(&mut message).unwrap();
            let decoded = TriggerWorkflowRequest::decode(&*message).unwrap();
            assert_eq!(decoded, TriggerWorkflowRequest { input: input.into(), child_index, ..common.0.clone() });
            assert_eq!((run.encoded_len(), run.input()), (decoded.encoded_len(), input));
            assert_eq!(run.metadata(), serde_json::json!({"a": "b"}));
        }
    }

    #[test]
    fn many_runs_are_encoded_as_the_generated_code_does() {
        let inputs = ["{}", r#"{"n":1}"#, &"x".repeat(70_000)];
        let runs: Vec<_> = inputs.iter().map(|input| common().encode().run((*input).into(), None)).collect();
        let mut message = Vec::new();
        encode_bulk(&runs, &mut message).unwrap();
        let request = BulkTriggerWorkflowRequest { workflows: inputs.map(expected).into() };
        assert_eq!(BulkTriggerWorkflowRequest::decode(&*message).unwrap(), request);
        assert_eq!((message.len(), bulk_len(&runs)), (request.encoded_len(), request.encoded_len()));
        assert!(message.len() <= runs.iter().map(NewRun::size).sum());
    }
}
