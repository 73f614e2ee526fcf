//! Assigning batches to workers.

use serde_json::Value;
use uuid::Uuid;

use super::batches::{self, Reason};
use super::{payload, placement, queue};
use crate::embedded::core::format::duration;
use crate::embedded::core::format::json::compact_jsonb_text;
use crate::embedded::core::store::{
    At, BatchAction, BatchGroup, BatchGroupId, BatchLimits, Core, Effect, Message, SlotRequests, State, TaskEventKind,
    TaskKey, Timer, Turn,
};

/// Assigns the batches of all groups that have changed, if there are workers for them. This comes at the end of a turn, so that tasks
/// that were queued together are assigned together.
pub(crate) fn update(core: &mut Core, turn: &mut Turn<'_>) {
    for group in core.batches.take_changed() {
        record_waiting(core, turn, group);
        while let Some((size, reason)) = core.batches.group(group).and_then(batches::due) {
            let is_started = start(core, turn, group, size, reason);
            batches::restart_interval(core, turn, group);
            if !is_started {
                break;
            }
        }
        batches::tidy(core, group);
    }
}

/// Records for the new tasks of a group that they wait.
fn record_waiting(core: &mut Core, turn: &Turn<'_>, id: BatchGroupId) {
    let new = core.batches.take_new(id);
    let Some(text) = core.batches.group(id).filter(|_| !new.is_empty()).map(waiting_text) else { return };
    for key in new {
        core.record(key, TaskEventKind::WaitingForBatch, turn.now, None, Some(&text));
    }
}

/// Assigns the first tasks of a group to a worker. Returns false if there is none, or if too many batches of the group are running.
fn start(core: &mut Core, turn: &mut Turn<'_>, id: BatchGroupId, size: usize, reason: Reason) -> bool {
    let Some(group) = core.batches.group(id) else { return false };
    // Only keys that are not blank have a limit.
    if !group.key.is_empty() && group.runs() >= group.limits.runs {
        return false;
    }
    let (action, group_key, limits) = (group.action.clone(), group.key.clone(), group.limits);
    let tasks: Vec<_> = group.waiting().take(size).map(|(task, _)| task).collect();
    // Whatever the tasks request, a batch takes one slot. Its first task decides about the worker.
    let slots = SlotRequests::from([(placement::DEFAULT_SLOT.to_owned(), 1)]);
    let Some(first) = tasks.first().copied() else { return false };
    let Some(worker) = placement::worker_for(core, turn.now, first, &action, &slots) else { return false };
    let batch = turn.uuid();
    let timeout = queue::execution_timeout(core, first);
    if let Some(holder) = core.workers.get_mut(&worker) {
        holder.reserve_batch(batch, &tasks, turn.now + timeout, slots);
    }
    core.batches.start(batch, id, &tasks);
    let text = started_text(batch, &group_key, tasks.len(), limits, turn.now, reason);
    let noticed = queue::timeout_noticed(core, turn, timeout);
    for key in &tasks {
        start_task(core, turn, *key, worker, noticed, &text);
    }
    // If the stream of the worker has ended, the engine does not notice that. The tasks wait for their timeout.
    if let Some(stream) = core.workers.get(&worker).and_then(|holder| holder.streams().first().copied()) {
        let action = BatchAction {
            id: batch,
            name: action,
            key: group_key,
            reason: reason.text(limits),
            at: turn.now,
            size: tasks.len(),
            payload: payload_of(core, &tasks),
        };
        core.effects.push(Effect::Send(stream, Message::Batch(Box::new(action))));
    }
    true
}

fn start_task(core: &mut Core, turn: &Turn<'_>, key: TaskKey, worker: Uuid, timeout: At, text: &str) {
    let timer = core.timers.set(timeout, Timer::Execution(key));
    if let Some(task) = core.runs.task_mut(key) {
        if let State::Batched { timer: Some(timer) } = task.state {
            core.timers.clear(timer);
        }
        task.state = State::Running { worker, timer };
    }
    core.record(key, TaskEventKind::BatchFlushed, turn.now, Some(worker), Some(text));
}

/// The payloads of the tasks, by the ids of these.
fn payload_of(core: &Core, tasks: &[TaskKey]) -> String {
    let item = |key: &TaskKey| {
        let (run, task) = core.runs.task(*key)?;
        let payload: Value = serde_json::from_str(&payload::text(run, task)).unwrap_or_default();
        let payload = compact_jsonb_text(&payload);
        let (task, run) = (task.id, run.id);
        Some((task, format!(r#""{task}":{{"workflow_run_id":"{run}","payload":{payload}}}"#)))
    };
    let mut items: Vec<_> = tasks.iter().filter_map(item).collect();
    items.sort_unstable();
    let texts: Vec<_> = items.into_iter().map(|(_, text)| text).collect();
    format!("{{{}}}", texts.join(","))
}

impl Reason {
    fn text(self, limits: BatchLimits) -> String {
        match self {
            Self::Full => format!("batch size threshold {} reached", limits.size),
            Self::TooLarge => "batch max memory size reached".into(),
            Self::Waited => format!("batch max interval {} elapsed", duration::text(limits.interval)),
        }
    }
}

fn seconds(at: At) -> String {
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn key_text(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!(" Batch group key: {key}.") }
}

/// The message of the event of a task that waits.
fn waiting_text(group: &BatchGroup) -> String {
    let BatchLimits { size: max_size, interval, runs: max_runs } = group.limits;
    let interval = duration::text(interval);
    let flush = match group.deadline {
        Some((at, _)) => format!("Flush at {} (interval {interval}).", seconds(at)),
        None => format!("Flush after {interval} interval."),
    };
    let (size, key) = (group.size(), key_text(&group.key));
    format!("Waiting for batch ({size}/{max_size}).{key} {flush} Max concurrent batches per key: {max_runs}.")
}

/// The message of the event of a task whose batch is assigned.
fn started_text(batch: Uuid, key: &str, size: usize, limits: BatchLimits, at: At, reason: Reason) -> String {
    let BatchLimits { size: max_size, interval, runs: max_runs } = limits;
    let (key, at, reason, interval) = (key_text(key), seconds(at), reason.text(limits), duration::text(interval));
    format!(
        "Batch {batch} flushed ({size}/{max_size} tasks) at {at} because {reason}.{key} Max concurrent batches per key: {max_runs}. Configured batch max interval: {interval}."
    )
}
