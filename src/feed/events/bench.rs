//! The dispatch of run events, for `benches/instructions`.

use std::sync::Arc;

use super::driver::{EventsDriver, Inner};
use super::group::{Group, Subject, Tag};
use super::slot::Slot;
use crate::model::RunId;
use crate::rpc::convert::{RunEvent, RunEventKind};
use crate::transport::StreamEvent;

/// Passes messages of the stream to the watches of their runs, while this many runs are watched. Returns how many have arrived.
pub(super) fn dispatch(inner: &Arc<Inner>, tag: &Tag, watched: usize, messages: usize) -> usize {
    let group = Arc::new(Group::new(Subject::Tag(tag.clone())));
    let mut driver = EventsDriver::new(Arc::clone(inner), Arc::clone(&group));
    // What is made here does not depend on the number of messages.
    let all: Vec<_> = (0..watched)
        .map(|number| {
            let run = RunId::from(uuid::Uuid::from_u128(number as u128));
            let slot = Arc::new(Slot::default());
            group.lock().by_run.insert(run, vec![Arc::clone(&slot)]);
            (slot, RunEvent { run, at: None, kind: RunEventKind::Changed, is_last: false })
        })
        .collect();
    all.into_iter()
        .take(messages)
        .filter_map(|(slot, event)| {
            driver.on_stream(StreamEvent::Message(event));
            slot.take()
        })
        .count()
}
