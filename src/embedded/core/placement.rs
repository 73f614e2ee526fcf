//! Which workers a task may go to, and which of them it should.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Core;
use super::rules::{Comparator, Sticky, Wanted};
use super::store::{Run, Task, TaskKey};
use super::types::{At, Label};
use super::workers::Worker;

impl Core {
    /// The best of the free workers for a task. The one with most free slots, of those that are equally good.
    pub(super) fn worker_for(&self, now: At, key: TaskKey, action: &str) -> Option<Uuid> {
        let (run, task) = self.runs.task(key)?;
        let sticky = run.version.rules.sticky;
        let desired = run.desired_worker(task);
        let of_run = run.special.as_ref().map(|special| &special.labels);
        let of_step = run.step(task).map(|step| &step.definition.labels);
        let free = self.free_workers(now, action);
        // A sticky run does not look at labels.
        match (sticky, desired) {
            (None, _) => {}
            (Some(_), None) => return most_free(free.map(|(id, worker)| (0, id, worker))),
            (Some(Sticky::Hard), Some(desired)) => {
                return most_free(free.filter(|(id, _)| *id == desired).map(|(id, worker)| (0, id, worker)));
            }
            (Some(Sticky::Soft), Some(desired)) => {
                return most_free(free.map(|(id, worker)| (i64::from(id == desired), id, worker)));
            }
        }
        let wanted = wanted(of_step, of_run);
        most_free(free.filter_map(|(id, worker)| Some((weight(&wanted, worker)?, id, worker))))
    }

    /// Whether any worker will do, if it has the action.
    pub(super) fn takes_any(&self, key: TaskKey) -> bool {
        let Some((run, task)) = self.runs.task(key) else { return true };
        let of_run = run.special.as_ref().is_none_or(|special| special.labels.is_empty());
        let bound = run.version.rules.sticky.is_some() && run.desired_worker(task).is_some();
        of_run && !bound && run.step(task).is_none_or(|step| step.definition.labels.is_empty())
    }
}

impl Run {
    /// The worker that a task of a sticky run should go to: the one of a parent, and if it has none, the one that was asked
    /// for.
    fn desired_worker(&self, task: &Task) -> Option<Uuid> {
        let parents = self.step(task).map(|step| &*step.parents).unwrap_or_default();
        if parents.is_empty() {
            return self.special.as_ref()?.worker;
        }
        parents.iter().find_map(|place| self.tasks.get(usize::from(*place))?.last_worker())
    }
}

fn most_free<'a>(workers: impl Iterator<Item = (i64, Uuid, &'a Worker)>) -> Option<Uuid> {
    workers.max_by_key(|(weight, _, worker)| (*weight, worker.free())).map(|(_, id, _)| id)
}

/// What a run wants takes the place of what its task wants, label by label.
fn wanted<'a>(
    of_step: Option<&'a BTreeMap<String, Wanted>>,
    of_run: Option<&'a BTreeMap<String, Wanted>>,
) -> BTreeMap<&'a str, &'a Wanted> {
    of_step
        .into_iter()
        .flatten()
        .chain(of_run.into_iter().flatten())
        .map(|(key, wanted)| (key.as_str(), wanted))
        .collect()
}

/// How good a worker is, or nothing if it is out of the question.
fn weight(wanted: &BTreeMap<&str, &Wanted>, worker: &Worker) -> Option<i64> {
    wanted.iter().try_fold(0, |sum, (key, wanted)| {
        let is = worker.profile.labels.get(*key).is_some_and(|label| fits(wanted, label));
        match (is, wanted.required) {
            (true, _) => Some(sum + i64::from(wanted.weight)),
            (false, false) => Some(sum),
            (false, true) => None,
        }
    })
}

/// A text and a number are neither the same nor different, and texts have no order.
fn fits(wanted: &Wanted, label: &Label) -> bool {
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
            let wanted = Wanted { value, required: true, comparator, weight: 100 };
            assert!(fitting.iter().all(|label| fits(&wanted, label)), "{wanted:?}");
            assert!(!others.iter().any(|label| fits(&wanted, label)), "{wanted:?}");
        }
    }
}
