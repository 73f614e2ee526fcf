//! Events to push.

use prost::Message as _;

use super::limit::MAX_ELEMENT_OVERHEAD;
use crate::rpc::pb::PushEventRequest;

/// An event to push.
#[derive(Debug, Clone)]
pub(crate) struct NewEvent(pub(in crate::rpc) PushEventRequest);

impl NewEvent {
    /// The fields that all events of a call share. The metadata is a JSON object.
    pub(crate) fn new(key: String, metadata: String, priority: Option<i32>, scope: Option<String>) -> Self {
        Self(PushEventRequest { key, additional_metadata: Some(metadata), priority, scope, ..Default::default() })
    }

    /// The same event with a payload, which is a JSON object.
    pub(crate) fn with_payload(&self, payload: String) -> Self {
        Self(PushEventRequest { payload, ..self.0.clone() })
    }

    /// The number of bytes that it adds to a bulk request.
    pub(crate) fn size(&self) -> usize {
        self.0.encoded_len() + MAX_ELEMENT_OVERHEAD
    }
}
