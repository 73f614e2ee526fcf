//! Streams that wait for the results of runs.

use std::collections::HashSet;
use std::time::Duration;

use chrono::TimeDelta;
use uuid::Uuid;

use crate::embedded::core::store::{
    At, Core, Effect, End, Message, ResultStream, Run, RunIx, RunResult, SKIPPED, StreamId, Task, TaskResult, Timer,
    Turn,
};

/// How often a stream checks for results of runs that had ended before it asked for them.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long streams and gRPC show the first of two final rows, before they change to the last.
const FIRST_FINAL_SHOWN_FOR: TimeDelta = TimeDelta::minutes(5);
/// The maximum size of all outputs of a run together, to be sent as its result.
const MAX_RESULT_BYTES: usize = 4 << 20;

pub(crate) fn open(core: &mut Core, turn: &Turn<'_>, stream: StreamId) {
    let opened = ResultStream { opened: turn.now, asked: HashSet::new(), ended_before: Vec::new() };
    core.streams.results.open.insert(stream, opened);
}

/// Asks for the result of a run. If the run does not exist, the stream waits for it forever.
pub(crate) fn ask(core: &mut Core, turn: &Turn<'_>, stream: StreamId, run: Uuid) {
    let results = &mut core.streams.results;
    let Some(asking) = results.open.get_mut(&stream) else { return };
    if !asking.asked.insert(run) {
        return;
    }
    match core.runs.index(run).filter(|ix| core.runs.get(*ix).is_some_and(Run::has_ended)) {
        None => results.waiting.add(run, stream),
        Some(ix) => {
            if asking.ended_before.is_empty() {
                let open = (turn.now - asking.opened).num_milliseconds().unsigned_abs();
                let next = Duration::from_millis(1000 - open % 1000).min(POLL_INTERVAL);
                core.timers.set(turn.now + next, Timer::Poll(stream));
            }
            asking.ended_before.push(ix);
        }
    }
}

/// Sends the results of runs that had ended before the stream asked for them.
pub(crate) fn poll(core: &mut Core, turn: &Turn<'_>, stream: StreamId) {
    let results = &mut core.streams.results;
    let Some(asking) = results.open.get_mut(&stream) else { return };
    for run in std::mem::take(&mut asking.ended_before).into_iter().filter_map(|ix| core.runs.get(ix)) {
        if run.has_ended() {
            asking.asked.remove(&run.id);
            core.effects.push(Effect::Send(stream, Message::Result(result(run, turn.now))));
        } else {
            // It was restarted in the meantime, so the stream waits for its next end.
            results.waiting.add(run.id, stream);
        }
    }
}

/// Sends the result of a run that has ended to the streams that wait for it.
pub(crate) fn send(core: &mut Core, turn: &Turn<'_>, run: RunIx) {
    let Some(run) = core.runs.get(run) else { return };
    let results = &mut core.streams.results;
    for stream in results.waiting.take(&run.id) {
        let Some(asking) = results.open.get_mut(&stream) else { continue };
        asking.asked.remove(&run.id);
        core.effects.push(Effect::Send(stream, Message::Result(result(run, turn.now))));
    }
}

pub(crate) fn close(core: &mut Core, stream: StreamId) {
    let results = &mut core.streams.results;
    if let Some(closed) = results.open.remove(&stream) {
        for run in closed.asked {
            results.waiting.remove(&run, stream);
        }
    }
}

fn result(run: &Run, at: At) -> RunResult {
    let rows = run.present().flat_map(|task| {
        let name = run.step(task).map(|step| step.readable_id.clone()).unwrap_or_default();
        let mut finals: Vec<_> = task.current_finals().collect();
        if !task.shows_last_final(at) {
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
    // A result that does not fit into one message is sent without any output.
    if size > MAX_RESULT_BYTES {
        tasks.clear();
    }
    RunResult { run: run.id, at, tasks }
}

impl Task {
    /// Whether minutes have passed since the last final row. From then on, gRPC shows the last instead of the first.
    pub(crate) fn shows_last_final(&self, now: At) -> bool {
        self.last_final().is_some_and(|last| now >= last.at + FIRST_FINAL_SHOWN_FOR)
    }
}
