//! Which workers are assigned which queued tasks.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::queue::execution_timeout;
use super::{batches, rates};
use crate::embedded::core::store::{
    At, Comparator, Core, DesiredLabel, Label, Run, SlotRequests, Step, Sticky, Task, TaskEventKind, TaskKey, Turn,
    Worker,
};
use crate::embedded::quirks::Quirk;

/// The type of the slots of tasks that request none.
pub(crate) const DEFAULT_SLOT: &str = "default";

/// Takes tasks of an action from their queue, each for a worker with a free slot, as long as there are both. Those that exceed a rate
/// limit stay in the queue. Those that are assigned in batches leave it without a worker.
pub(crate) fn pick(core: &mut Core, turn: &mut Turn<'_>, action: &str) -> Vec<(TaskKey, Uuid)> {
    let mut picked = Vec::new();
    let mut passed = None;
    while let Some((order, key)) = core.queues.after(action, passed) {
        if !rates::allow(core, turn, key, action) {
            core.queues.take_one_new(action, order);
            passed = Some(order);
            continue;
        }
        if batches::wait(core, turn, key) {
            core.queues.remove(action, order);
            rates::consume(core, key);
            continue;
        }
        let slots = slot_requests(core, key);
        let Some(worker) = worker_for(core, turn.now, key, action, &slots) else {
            // A task that accepts only some workers does not block the tasks behind it.
            if takes_any(core, key) || !ready_workers(core, turn.now, action).any(|(_, worker)| worker.has_free_slot())
            {
                break;
            }
            passed = Some(order);
            continue;
        };
        let end = turn.now + execution_timeout(core, key);
        let Some(holder) = core.workers.get_mut(&worker) else { break };
        core.queues.remove(action, order);
        holder.reserve(key, end, slots);
        rates::consume(core, key);
        picked.push((key, worker));
    }
    // The most urgent tasks are picked, and then sent in the order of their creation.
    picked.sort_unstable();
    picked
}

/// Records for the tasks that remain in a queue that they have no worker, once for each attempt.
pub(crate) fn record_unassigned(core: &mut Core, turn: &Turn<'_>, action: &str) {
    for key in core.queues.take_new(action) {
        core.record(key, TaskEventKind::NoWorker, turn.now, None, None);
    }
}

/// The best of the free workers for a task. Of equally good ones, that with most free slots.
pub(crate) fn worker_for(core: &Core, now: At, key: TaskKey, action: &str, requests: &SlotRequests) -> Option<Uuid> {
    let (run, task) = core.runs.task(key)?;
    let sticky = run.version.options.sticky;
    let desired = desired_worker(run, task);
    let of_run = run.options.as_ref().map(|options| &options.labels);
    let of_step = run.step(task).map(|step| &step.definition.labels);
    let free = ready_workers(core, now, action).filter(|(_, worker)| worker.has_slots(requests));
    let free_slots = |worker: &Worker| requests.keys().map(|kind| worker.free_slots(kind)).min();
    let wanted = wanted(of_step, of_run);
    let weight = |id, worker| match (sticky, desired) {
        (None, _) => weight(&wanted, worker),
        // Labels have no effect on a sticky run.
        (Some(_), None) => Some(0),
        (Some(Sticky::Hard), Some(desired)) => (id == desired).then_some(0),
        (Some(Sticky::Soft), Some(desired)) => Some(i64::from(id == desired)),
    };
    let rated = free.filter_map(|(id, worker)| Some((weight(id, worker)?, free_slots(worker), id)));
    rated.max_by_key(|(weight, free, _)| (*weight, *free)).map(|(.., id)| id)
}

/// Whether a task accepts all workers that have its action.
fn takes_any(core: &Core, key: TaskKey) -> bool {
    let Some((run, task)) = core.runs.task(key) else { return true };
    let of_run = run.options.as_ref().is_none_or(|options| options.labels.is_empty());
    let bound = run.version.options.sticky.is_some() && desired_worker(run, task).is_some();
    let takes_any = |step: &Step| step.definition.labels.is_empty() && step.definition.slots.is_empty();
    of_run && !bound && run.step(task).is_none_or(takes_any)
}

/// The workers that could be assigned a task of the action if they had free slots.
fn ready_workers<'a>(core: &'a Core, now: At, action: &str) -> impl Iterator<Item = (Uuid, &'a Worker)> {
    let late_pause = core.has(Quirk::LatePause);
    let workers = core.workers.iter().map(|(id, worker)| (*id, worker));
    workers.filter(move |(_, worker)| worker.is_ready(now, action, late_pause))
}

/// The desired worker of a task in a sticky run: that of a parent, or for a task without parents, that of the trigger.
fn desired_worker(run: &Run, task: &Task) -> Option<Uuid> {
    let parents = run.step(task).map(|step| &*step.parents).unwrap_or_default();
    if parents.is_empty() {
        return run.options.as_ref()?.worker;
    }
    parents.iter().find_map(|index| run.tasks.get(usize::from(*index))?.last_worker())
}

/// The slots that a task takes.
fn slot_requests(core: &Core, key: TaskKey) -> SlotRequests {
    let step = core.runs.task(key).and_then(|(run, task)| run.step(task));
    let mut requests = step.map(|step| step.definition.slots.clone()).unwrap_or_default();
    if requests.is_empty() || core.has(Quirk::ExtraDefaultSlots) {
        requests.entry(DEFAULT_SLOT.to_owned()).or_insert(1);
    }
    requests
}

/// The requirements of a task for labels, replaced label by label by those of its run.
fn wanted<'a>(
    of_step: Option<&'a BTreeMap<String, DesiredLabel>>,
    of_run: Option<&'a BTreeMap<String, DesiredLabel>>,
) -> BTreeMap<&'a str, &'a DesiredLabel> {
    of_step
        .into_iter()
        .flatten()
        .chain(of_run.into_iter().flatten())
        .map(|(key, wanted)| (key.as_str(), wanted))
        .collect()
}

/// The weight of a worker, or `None` if it does not meet a requirement.
fn weight(wanted: &BTreeMap<&str, &DesiredLabel>, worker: &Worker) -> Option<i64> {
    wanted.iter().try_fold(0, |sum, (key, wanted)| {
        let is = worker.profile.labels.get(*key).is_some_and(|label| fits(wanted, label));
        match (is, wanted.required) {
            (true, _) => Some(sum + i64::from(wanted.weight)),
            (false, false) => Some(sum),
            (false, true) => None,
        }
    })
}

/// Whether a label meets a requirement. Strings and numbers are neither equal nor different, and strings have no order.
fn fits(wanted: &DesiredLabel, label: &Label) -> bool {
    use Comparator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    match (label, &wanted.value, wanted.comparator) {
        (Label::Text(label), Label::Text(wanted), Equal) => label == wanted,
        (Label::Text(label), Label::Text(wanted), NotEqual) => label != wanted,
        (Label::Number(label), Label::Number(wanted), comparator) => match comparator {
            Equal => label == wanted,
            NotEqual => label != wanted,
            Greater => label > wanted,
            GreaterOrEqual => label >= wanted,
            Less => label < wanted,
            LessOrEqual => label <= wanted,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_compared_within_their_kind() {
        use Comparator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        let (text, number) = (|text: &str| Label::Text(text.into()), Label::Number);
        for (comparator, value, fitting, others) in [
            (Equal, text("a"), vec![text("a")], vec![text("b"), number(1), Label::Nothing]),
            (NotEqual, text("a"), vec![text("b")], vec![text("a"), number(1), Label::Nothing]),
            (Equal, number(2), vec![number(2)], vec![number(1), text("2")]),
            (NotEqual, number(2), vec![number(1)], vec![number(2), text("a")]),
            (Greater, number(2), vec![number(3)], vec![number(2), text("3")]),
            (GreaterOrEqual, number(2), vec![number(2), number(3)], vec![number(1)]),
            (Less, number(2), vec![number(1)], vec![number(2)]),
            (LessOrEqual, number(2), vec![number(1), number(2)], vec![number(3)]),
            (Greater, text("a"), vec![], vec![text("b")]),
        ] {
            let wanted = DesiredLabel { value, required: true, comparator, weight: 100 };
            assert!(fitting.iter().all(|label| fits(&wanted, label)), "{wanted:?}");
            assert!(!others.iter().any(|label| fits(&wanted, label)), "{wanted:?}");
        }
    }
}
