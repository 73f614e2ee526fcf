//! Events that are to be taken in.

use prost::Message as _;

use crate::rpc::pb::PushEventRequest;

/// Around each event in a message of many: its field number and length.
const FRAME: usize = 6;

/// An event that is to be taken in.
#[derive(Debug, Clone)]
pub(crate) struct NewEvent(pub(in crate::rpc) PushEventRequest);

impl NewEvent {
    /// What the events of one call have in common. The metadata is the text of a JSON object.
    pub(crate) fn new(key: String, metadata: String, priority: Option<i32>, scope: Option<String>) -> Self {
        Self(PushEventRequest { key, additional_metadata: Some(metadata), priority, scope, ..Default::default() })
    }

    /// The same event with a payload, the text of a JSON object.
    pub(crate) fn with_payload(&self, payload: String) -> Self {
        Self(PushEventRequest { payload, ..self.0.clone() })
    }

    /// The bytes that it adds to a message of many.
    pub(crate) fn size(&self) -> usize {
        self.0.encoded_len() + FRAME
    }
}
