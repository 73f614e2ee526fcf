//! Tasks that wait for a batch: their groups, and the deadlines of these.

use std::sync::Arc;
use std::time::Duration;

use super::expressions::Scope;
use super::payload;
use crate::embedded::core::format::json::jsonb_text;
use crate::embedded::core::store::{
    BatchGroup, BatchGroupId, BatchLimits, BatchOptions, Core, State, TaskKey, Timer, Turn,
};
use crate::embedded::quirks::Quirk;

/// The maximum size of a batch's payloads in bytes, unless a single one is larger.
const MAX_BYTES: usize = 4_000_000;
/// How late the engine notices at most that a group has waited for long enough, in milliseconds.
const MAX_LATE_MS: u32 = 400;

/// Why a batch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Full,
    TooLarge,
    Waited,
}

impl BatchLimits {
    fn new(options: &BatchOptions) -> Self {
        // The numbers have been checked: they are positive.
        Self {
            size: usize::try_from(options.max_size).unwrap_or(1).max(1),
            interval: Duration::from_millis(u64::try_from(options.max_interval_ms).unwrap_or_default()),
            runs: usize::try_from(options.group_max_runs).unwrap_or(1).max(1),
        }
    }
}

/// The options of a task that is assigned in batches.
fn options(core: &Core, key: TaskKey) -> Option<&BatchOptions> {
    let (run, task) = core.runs.task(key)?;
    run.step(task)?.definition.batch.as_ref()
}

/// The key of a task that is assigned in batches, or the error of a key that cannot be evaluated. Tasks with equal keys share batches.
fn group_key(core: &Core, key: TaskKey) -> Option<Result<String, String>> {
    let cel = &options(core, key)?.group_key;
    let text = Scope::of(core, key)?.string(cel, "batch key");
    let failed = |problem| format!("failed to parse batch group key expression ({}): {problem}", cel.text);
    Some(text.map(|text| text.trim().to_owned()).map_err(failed))
}

/// Checks that the key of a task can be evaluated.
pub(crate) fn check(core: &Core, key: TaskKey) -> Result<(), String> {
    group_key(core, key).transpose().map(drop)
}

/// Makes a task that has left its queue wait for a batch. Returns false if the task is not assigned in batches.
pub(crate) fn wait(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) -> bool {
    let Some(limits) = options(core, key).map(BatchLimits::new) else { return false };
    // A key that cannot be evaluated has failed the task before.
    let Some(Ok(group_key)) = group_key(core, key) else { return false };
    let Some((run, task)) = core.runs.task(key) else { return false };
    let Some(step) = run.step(task) else { return false };
    let State::Queued { timer, .. } = task.state else { return false };
    let place = (Arc::clone(&step.action), step.id, group_key.into());
    let bytes = jsonb_text(&payload::stored(run, task)).len();
    let group = core.batches.wait(place, limits, key, bytes);
    if core.batches.group(group).is_some_and(|group| group.size() == 1) {
        restart_interval(core, turn, group);
    }
    if let Some(task) = core.runs.task_mut(key) {
        task.state = State::Batched { timer };
    }
    true
}

/// Removes a task from those that wait for a batch, or from its batch.
pub(crate) fn leave(core: &mut Core, key: TaskKey) {
    if let Some(group) = core.batches.leave(key) {
        tidy(core, group);
    }
}

/// Clears the deadline of a group in which nobody waits, and removes it if none of its batches runs.
pub(crate) fn tidy(core: &mut Core, id: BatchGroupId) {
    let Some(group) = core.batches.group_mut(id).filter(|group| group.size() == 0) else { return };
    if let Some(timer) = group.deadline.take() {
        core.timers.clear(timer);
    }
    core.batches.tidy(id);
}

/// Lets the tasks that wait in a group wait for another interval.
pub(crate) fn restart_interval(core: &mut Core, turn: &mut Turn<'_>, id: BatchGroupId) {
    let late = if core.has(Quirk::LateTimeouts) { turn.below(MAX_LATE_MS) } else { 0 };
    let Some(group) = core.batches.group_mut(id).filter(|group| group.size() > 0) else { return };
    if let Some(timer) = group.deadline.take() {
        core.timers.clear(timer);
    }
    let at = turn.now + group.limits.interval + Duration::from_millis(late.into());
    group.deadline = Some(core.timers.set(at, Timer::Flush(id)));
}

/// The tasks that have waited in a group for long enough are to be assigned.
pub(crate) fn interval_over(core: &mut Core, id: BatchGroupId) {
    if let Some(group) = core.batches.group_mut(id) {
        group.deadline = None;
        core.batches.mark_changed(id);
    }
}

/// The number of tasks of a group that are to be assigned together now, and the reason. The first to arrive are the first.
pub(crate) fn due(group: &BatchGroup) -> Option<(usize, Reason)> {
    if group.bytes() > MAX_BYTES {
        let mut sum = 0_usize;
        let fit = group.waiting().take_while(|(_, bytes)| {
            sum = sum.saturating_add(*bytes);
            sum <= MAX_BYTES
        });
        return Some((fit.count().max(1), Reason::TooLarge));
    }
    if group.size() >= group.limits.size {
        return Some((group.limits.size, Reason::Full));
    }
    (group.deadline.is_none() && group.size() > 0).then(|| (group.size(), Reason::Waited))
}
