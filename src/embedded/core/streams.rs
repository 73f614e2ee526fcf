//! Who listens for what: results of runs, and events of runs by id or by metadata.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::dag::SKIPPED;
use super::store::{End, Run, RunIx};
use super::timers::Timer;
use super::types::{At, Effect, EventKind, Fault, Message, Resource, RunEvent, RunResult, StreamId, TaskResult, Turn};
use super::views::is_old;
use super::{Core, Index, Quirk};

/// How often a stream of results looks for runs that had ended before they were asked for.
const POLL: Duration = Duration::from_secs(1);
/// How long a stream by run id looks for its run.
const SEARCH: Duration = Duration::from_millis(10_100);
/// What the outputs of a run may have together, to be sent as its result.
const LARGEST: usize = 4 << 20;
/// How long REST and the streams by run id do not know a new run.
pub(super) const LAG: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) worker_of: HashMap<StreamId, Uuid>,
    results: HashMap<StreamId, Results>,
    waiting: Index<Uuid>,
    events: HashMap<StreamId, Events>,
    by_run: Index<Uuid>,
    by_tag: Index<(String, String)>,
}

#[derive(Debug)]
struct Results {
    opened: At,
    asked: HashSet<Uuid>,
    /// Ended before they were asked for.
    late: Vec<RunIx>,
}

#[derive(Debug)]
struct Events {
    of: Subject,
    /// Runs that a stream by metadata has seen and that have not completed.
    active: HashSet<Uuid>,
}

#[derive(Debug, Clone)]
enum Subject {
    Run(Uuid),
    Tag((String, String)),
}

impl Streams {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let streams = self.worker_of.is_empty() && self.results.is_empty() && self.events.is_empty();
        streams && self.waiting.is_empty() && self.by_run.is_empty() && self.by_tag.is_empty()
    }

    pub(super) fn take_all(&mut self) -> Vec<StreamId> {
        let all = std::mem::take(self);
        let mut streams: Vec<_> =
            all.worker_of.into_keys().chain(all.results.into_keys()).chain(all.events.into_keys()).collect();
        streams.sort_unstable();
        streams
    }
}

impl Core {
    pub(crate) fn open_results(&mut self, turn: &Turn<'_>, stream: StreamId) {
        self.streams.results.insert(stream, Results { opened: turn.now, asked: HashSet::new(), late: Vec::new() });
    }

    /// Asks for the result of a run. One that does not exist is waited for, for ever.
    pub(crate) fn ask_result(&mut self, turn: &Turn<'_>, stream: StreamId, run: Uuid) {
        let Some(results) = self.streams.results.get_mut(&stream) else { return };
        if !results.asked.insert(run) {
            return;
        }
        match self.runs.index(run).filter(|ix| self.runs.get(*ix).is_some_and(Run::is_ended)) {
            None => self.streams.waiting.entry(run).or_default().push(stream),
            Some(ix) => {
                if results.late.is_empty() {
                    let open = (turn.now - results.opened).num_milliseconds().unsigned_abs();
                    let next = Duration::from_millis(1000 - open % 1000).min(POLL);
                    self.timers.set(turn.now + next, Timer::Poll(stream));
                }
                results.late.push(ix);
            }
        }
    }

    pub(super) fn poll(&mut self, turn: &Turn<'_>, stream: StreamId) {
        let Some(results) = self.streams.results.get_mut(&stream) else { return };
        for run in std::mem::take(&mut results.late).into_iter().filter_map(|ix| self.runs.get(ix)) {
            if run.is_ended() {
                results.asked.remove(&run.id);
                self.effects.push(Effect::Send(stream, Message::Result(result(run, turn.now))));
            } else {
                // Begun anew meanwhile: then it is waited for.
                self.streams.waiting.entry(run.id).or_default().push(stream);
            }
        }
    }

    pub(super) fn send_results(&mut self, turn: &Turn<'_>, run: RunIx) {
        let Some(run) = self.runs.get(run) else { return };
        for stream in self.streams.waiting.remove(&run.id).unwrap_or_default() {
            let Some(results) = self.streams.results.get_mut(&stream) else { continue };
            results.asked.remove(&run.id);
            self.effects.push(Effect::Send(stream, Message::Result(result(run, turn.now))));
        }
    }

    /// Watches one run by its id.
    pub(crate) fn watch_run(&mut self, turn: &mut Turn<'_>, stream: StreamId, run: Uuid) {
        self.streams.events.insert(stream, Events { of: Subject::Run(run), active: HashSet::new() });
        match self.runs.find(run) {
            None => {
                self.timers.set(turn.now + SEARCH, Timer::Attach(stream));
            }
            Some(found) if self.has(Quirk::LateAttach) && turn.now < found.created + LAG => {
                self.timers.set(turn.now + POLL, Timer::Attach(stream));
            }
            Some(_) => self.attach(turn, stream),
        }
    }

    /// Watches all runs with a tag.
    pub(crate) fn watch_tag(&mut self, stream: StreamId, key: &str, value: &str) {
        let tag = (key.to_owned(), value.to_owned());
        self.streams.by_tag.entry(tag.clone()).or_default().push(stream);
        self.streams.events.insert(stream, Events { of: Subject::Tag(tag), active: HashSet::new() });
    }

    pub(super) fn attach(&mut self, _: &mut Turn<'_>, stream: StreamId) {
        let Some(Subject::Run(id)) = self.streams.events.get(&stream).map(|events| events.of.clone()) else { return };
        match self.runs.find(id) {
            None => {
                let fault = Fault::not_found(format!("workflow run {id} not found"));
                self.streams.events.remove(&stream);
                self.effects.push(Effect::End(stream, Err(fault)));
            }
            Some(run) if run.is_ended() => {
                self.streams.events.remove(&stream);
                self.effects.push(Effect::End(stream, Ok(())));
            }
            Some(_) => self.streams.by_run.entry(id).or_default().push(stream),
        }
    }

    /// The other side has gone away.
    pub(crate) fn close_stream(&mut self, turn: &mut Turn<'_>, stream: StreamId) {
        if let Some(worker) = self.streams.worker_of.remove(&stream) {
            self.stop_listening(turn, worker, stream);
        }
        if let Some(results) = self.streams.results.remove(&stream) {
            for run in results.asked {
                forget(&mut self.streams.waiting, &run, stream);
            }
        }
        self.end_events(stream);
    }

    fn end_events(&mut self, stream: StreamId) {
        match self.streams.events.remove(&stream).map(|events| events.of) {
            Some(Subject::Run(run)) => forget(&mut self.streams.by_run, &run, stream),
            Some(Subject::Tag(tag)) => forget(&mut self.streams.by_tag, &tag, stream),
            None => {}
        }
    }

    /// Shows an event to all who watch its run.
    pub(super) fn publish(&mut self, event: &RunEvent) {
        if self.streams.events.is_empty() {
            return;
        }
        for stream in self.streams.by_run.get(&event.run).cloned().unwrap_or_default() {
            self.show(stream, event.clone());
        }
        for stream in self.tag_watchers(event) {
            self.show(stream, event.clone());
        }
    }

    fn tag_watchers(&self, event: &RunEvent) -> Vec<StreamId> {
        if self.streams.by_tag.is_empty() {
            return Vec::new();
        }
        let Some(run) = self.runs.find(event.run) else { return Vec::new() };
        let metadata: Map<String, Value> = serde_json::from_str(&run.metadata).unwrap_or_default();
        let tags = metadata.into_iter().filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())));
        tags.filter_map(|tag| self.streams.by_tag.get(&tag)).flatten().copied().collect()
    }

    fn show(&mut self, stream: StreamId, mut event: RunEvent) {
        let Some(events) = self.streams.events.get_mut(&stream) else { return };
        if matches!(events.of, Subject::Tag(_)) {
            // It hangs up when no run is left that it has seen and that has not completed: a failed one stays for ever.
            let completed = event.resource == Resource::Run && event.kind == EventKind::Completed;
            if completed {
                events.active.remove(&event.run)
            } else {
                events.active.insert(event.run)
            };
            event.hangup = completed && events.active.is_empty();
        }
        let hangup = event.hangup;
        self.effects.push(Effect::Send(stream, Message::Event(event)));
        if hangup {
            self.end_events(stream);
            self.effects.push(Effect::End(stream, Ok(())));
        }
    }
}

fn forget<K: std::hash::Hash + Eq>(index: &mut Index<K>, key: &K, stream: StreamId) {
    if let Some(streams) = index.get_mut(key) {
        streams.retain(|other| *other != stream);
        if streams.is_empty() {
            index.remove(key);
        }
    }
}

fn result(run: &Run, at: At) -> RunResult {
    let rows = run.present().flat_map(|task| {
        let name = run.step(task).map(|step| step.readable_id.clone()).unwrap_or_default();
        let mut finals: Vec<_> = task.current_finals().collect();
        if !is_old(task, at) {
            finals.reverse();
        }
        finals.into_iter().map(move |row| TaskResult {
            task: task.id,
            readable_id: name.clone(),
            end: match &row.end {
                End::Completed(output) => Ok(output.clone()),
                End::Skipped => Ok(SKIPPED.into()),
                End::Failed(text) | End::TimedOut(text) => Err(text.clone()),
                End::Cancelled | End::ScheduleTimedOut => Err("".into()),
            },
        })
    });
    let mut tasks: Vec<TaskResult> = rows.collect();
    let size: usize = tasks.iter().map(|row| row.end.as_ref().map_or_else(|text| text.len(), |text| text.len())).sum();
    // What does not go into one message is left out, all of it.
    if size > LARGEST {
        tasks.clear();
    }
    RunResult { run: run.id, at, tasks }
}
