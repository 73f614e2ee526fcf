//! How new and replayed tasks are queued.

use super::{batches, concurrency, finals, queue, rates};
use crate::embedded::core::store::{Core, End, TaskEventKind, TaskKey, Turn};

/// Queues a task. If one of its expressions cannot be evaluated, the task fails instead, without an attempt. Returns whether it was
/// queued.
pub(crate) fn begin(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) -> bool {
    let queued = keys(core, key).and_then(|keys| {
        let message = message(&keys);
        core.record(key, TaskEventKind::Queued, turn.now, None, message.as_deref());
        queue::enqueue(core, turn, key, None)
    });
    match queued {
        Ok(()) => true,
        Err(problem) => {
            core.record(key, TaskEventKind::Failed, turn.now, None, Some(&problem));
            finals::end(core, turn, key, End::Failed(problem.into()));
            false
        }
    }
}

/// The keys of its concurrency limits, or the error of the first expression that cannot be evaluated.
fn keys(core: &Core, key: TaskKey) -> Result<Vec<String>, String> {
    let keys = concurrency::keys(core, key)?;
    rates::check(core, key)?;
    batches::check(core, key)?;
    Ok(keys)
}

/// What the event of a queued task says about its concurrency keys.
fn message(keys: &[String]) -> Option<String> {
    let start = || "concurrency keys evaluated as:".to_owned();
    (!keys.is_empty()).then(|| keys.iter().fold(start(), |text, key| text + " " + key))
}
