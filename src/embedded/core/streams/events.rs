//! Streams that watch events of runs, by run or by tag.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::embedded::core::store::{
    Core, Effect, EventKind, EventStream, Message, Resource, RunEvent, StatusError, StreamId, Subject, Timer, Turn,
};
use crate::embedded::quirks::Quirk;

/// How long a stream by run id searches for its run.
const SEARCH_TIMEOUT: Duration = Duration::from_millis(10_100);
/// How late a stream by run id attaches to a new run.
const ATTACH_DELAY: Duration = Duration::from_secs(1);
/// How long REST and the streams by run id do not find a new run.
pub(crate) const NEW_RUN_LAG: Duration = Duration::from_millis(100);

/// Watches one run by its id.
pub(crate) fn watch_run(core: &mut Core, turn: &Turn<'_>, stream: StreamId, run: Uuid) {
    open(core, stream, Subject::Run(run));
    match core.runs.find(run) {
        None => {
            core.timers.set(turn.now + SEARCH_TIMEOUT, Timer::Attach(stream));
        }
        Some(found) if core.has(Quirk::LateSubscription) && turn.now < found.created + NEW_RUN_LAG => {
            core.timers.set(turn.now + ATTACH_DELAY, Timer::Attach(stream));
        }
        Some(_) => attach(core, stream),
    }
}

/// Watches all runs with a tag.
pub(crate) fn watch_tag(core: &mut Core, stream: StreamId, key: &str, value: &str) {
    let tag = (key.to_owned(), value.to_owned());
    core.streams.events.by_tag.add(tag.clone(), stream);
    open(core, stream, Subject::Tag(tag));
}

fn open(core: &mut Core, stream: StreamId, subject: Subject) {
    core.streams.events.open.insert(stream, EventStream { subject, active: HashSet::new() });
}

/// Connects a stream to its run, or ends the stream if there is nothing to watch.
pub(crate) fn attach(core: &mut Core, stream: StreamId) {
    let events = &mut core.streams.events;
    let Some(Subject::Run(id)) = events.open.get(&stream).map(|watching| watching.subject.clone()) else { return };
    let end = match core.runs.find(id) {
        None => Err(StatusError::not_found(format!("workflow run {id} not found"))),
        Some(run) if run.has_ended() => Ok(()),
        Some(_) => return events.by_run.add(id, stream),
    };
    events.open.remove(&stream);
    core.effects.push(Effect::End(stream, end));
}

pub(crate) fn close(core: &mut Core, stream: StreamId) {
    let events = &mut core.streams.events;
    events.chunks.close(stream);
    match events.open.remove(&stream).map(|closed| closed.subject) {
        Some(Subject::Run(run)) => events.by_run.remove(&run, stream),
        Some(Subject::Tag(tag)) => events.by_tag.remove(&tag, stream),
        None => {}
    }
}

/// Sends an event to all streams that watch its run.
pub(crate) fn publish(core: &mut Core, event: &RunEvent) {
    if core.streams.events.open.is_empty() {
        return;
    }
    for stream in watchers(core, event.run) {
        send(core, stream, event.clone());
    }
}

/// The streams that watch a run.
pub(super) fn watchers(core: &Core, run: Uuid) -> Vec<StreamId> {
    let mut watchers = core.streams.events.by_run.get(&run).to_vec();
    watchers.extend(watchers_by_tag(core, run));
    watchers
}

/// Ends all streams that watch a run.
pub(crate) fn break_watchers(core: &mut Core, run: Uuid, error: &StatusError) {
    for stream in watchers(core, run) {
        close(core, stream);
        core.effects.push(Effect::End(stream, Err(error.clone())));
    }
}

fn watchers_by_tag(core: &Core, run: Uuid) -> Vec<StreamId> {
    let by_tag = &core.streams.events.by_tag;
    if by_tag.is_empty() {
        return Vec::new();
    }
    let Some(run) = core.runs.find(run) else { return Vec::new() };
    let metadata: Map<String, Value> = serde_json::from_str(&run.metadata).unwrap_or_default();
    let tags = metadata.into_iter().filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())));
    tags.flat_map(|tag| by_tag.get(&tag)).copied().collect()
}

pub(super) fn send(core: &mut Core, stream: StreamId, mut event: RunEvent) {
    let Some(watching) = core.streams.events.open.get_mut(&stream) else { return };
    if matches!(watching.subject, Subject::Tag(_)) {
        // It hangs up when all runs that it has shown have completed. A failed run keeps it open forever.
        let completed = event.resource == Resource::Run && event.kind == EventKind::Completed;
        if completed {
            watching.active.remove(&event.run)
        } else {
            watching.active.insert(event.run)
        };
        event.hangup = completed && watching.active.is_empty();
    }
    let hangup = event.hangup;
    core.effects.push(Effect::Send(stream, Message::Event(event)));
    if hangup {
        close(core, stream);
        core.effects.push(Effect::End(stream, Ok(())));
    }
}
