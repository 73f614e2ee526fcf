//! Concurrency limits of a task: their keys, and the places of the task in their groups.

use std::cmp::Reverse;

use super::expressions;
use crate::embedded::core::store::{
    Concurrency, Core, Definition, Group, GroupId, Level, LimitStrategy, MaxRuns, Rank, Run, Scope, SharedLimit,
    SlotOwner, Task, TaskKey, Turn,
};

/// How many of a key have a slot, unless the limit has a number.
const DEFAULT_MAX_RUNS: i32 = 1;
const KEY: &str = "concurrency key";
const MAX_RUNS: &str = "max runs";

/// The limits of a task: those of its workflow, then its own. A limit of a workflow with one task is a limit of that task.
pub(crate) fn limits<'a>(core: &'a Core, run: &'a Run, task: &Task) -> impl Iterator<Item = (Scope, &'a Concurrency)> {
    let (id, step) = (run.version.id, task.step);
    let of_workflow = (0..).zip(&run.version.options.concurrency);
    let of_task = run.step(task).map(|step| &*step.definition.concurrency).unwrap_or_default();
    let own = (0..).zip(of_task);
    of_workflow
        .map(move |(index, limit)| (Scope { id, level: Level::Workflow, index }, limit))
        .chain(own.map(move |(index, limit)| (Scope { id, level: Level::Task(step), index }, limit)))
        .map(|(scope, limit)| {
            let shared = limit.shared_name().and_then(|name| core.shared_limits.get(name));
            shared.map_or((scope, limit), |shared| (shared.scope, &shared.limit))
        })
}

/// Who has the slots of a limit.
pub(crate) fn owner(run: &Run, key: TaskKey, scope: Scope) -> SlotOwner {
    if run.dag.is_some() && scope.level == Level::Workflow { SlotOwner::Run(key.run) } else { SlotOwner::Task(key) }
}

/// The keys of all limits of a task, or the error of the first key that cannot be evaluated.
pub(crate) fn keys(core: &Core, key: TaskKey) -> Result<Vec<String>, String> {
    let Some((run, task)) = core.runs.task(key) else { return Ok(Vec::new()) };
    let mut limits = limits(core, run, task).peekable();
    if limits.peek().is_none() {
        return Ok(Vec::new());
    }
    let Some(values) = expressions::Scope::of(core, key) else { return Ok(Vec::new()) };
    let key = |limit: &Concurrency| {
        let key = values.text(&limit.expression, KEY)?;
        evaluated(&values, limit)?;
        Ok(key)
    };
    limits.map(|(_, limit)| key(limit)).collect()
}

/// How many of the key of a task have a slot, if an expression says so. Zero lets all wait until a newer run has a greater number.
fn evaluated(values: &expressions::Scope, limit: &Concurrency) -> Result<Option<i32>, String> {
    let Some(cel) = &limit.max_runs_expression else { return Ok(None) };
    let number = values.number(cel, MAX_RUNS)?;
    let in_range = i32::try_from(number).ok().filter(|number| *number >= 0);
    let problem = || expressions::failed(&cel.text, &format!("expected {MAX_RUNS} of 0 to {}, got {number}", i32::MAX));
    in_range.map(Some).ok_or_else(problem)
}

/// Stores the tenant-scoped limits of a definition. A limit with a known name changes for all tasks that have it.
pub(crate) fn share(core: &mut Core, turn: &mut Turn<'_>, definition: &Definition) {
    let of_tasks = definition.all_tasks().flat_map(|task| &task.concurrency);
    for limit in definition.options.concurrency.iter().chain(of_tasks) {
        let Some(name) = limit.shared_name() else { continue };
        if let Some(shared) = core.shared_limits.get_mut(name) {
            shared.limit = limit.clone();
            let max_runs = limit.max_runs.unwrap_or(DEFAULT_MAX_RUNS);
            core.slots.redefine(shared.scope, strategy(limit), max_runs, limit.max_runs_expression.is_some());
        } else {
            let scope = Scope { id: turn.uuid(), level: Level::Tenant, index: 0 };
            core.shared_limits.insert(name.to_owned(), SharedLimit { scope, limit: limit.clone() });
        }
    }
}

fn strategy(limit: &Concurrency) -> LimitStrategy {
    limit.strategy.unwrap_or(LimitStrategy::CancelInProgress)
}

/// Finds the first limit, from a position on, under which a task has no slot, and makes the task wait there. Returns the position, or `None`
/// if it has all slots. An error is that of an expression: a tenant-scoped limit may have another one than when the task was created.
pub(crate) fn wait(core: &mut Core, key: TaskKey, from: u16, urgency: u8) -> Result<Option<u16>, String> {
    let Some((run, task)) = core.runs.task(key) else { return Ok(None) };
    let start = usize::from(from);
    let next = (from..)
        .zip(limits(core, run, task).skip(start))
        .map(|(position, (scope, limit))| (position, scope, limit))
        .find(|(_, scope, _)| core.slots.has_slot(owner(run, key, *scope), *scope) != Some(true));
    let Some((position, scope, limit)) = next else { return Ok(None) };
    let owner = owner(run, key, scope);
    if core.slots.has_slot(owner, scope).is_some() {
        // Another task of its run waits already.
        return Ok(Some(position));
    }
    let created = match owner {
        SlotOwner::Run(_) => run.created,
        SlotOwner::Task(_) => run.created(task),
    };
    let Some(values) = expressions::Scope::of(core, key) else { return Ok(None) };
    let text = values.text(&limit.expression, KEY)?;
    let fixed = MaxRuns::Fixed(limit.max_runs.unwrap_or(DEFAULT_MAX_RUNS));
    let max_runs = evaluated(&values, limit)?.map_or(fixed, MaxRuns::Evaluated);
    let strategy = strategy(limit);
    let rank = Rank { urgency: Reverse(urgency), created, owner };
    core.slots.wait(GroupId { scope, key: text.into() }, strategy, max_runs, rank);
    Ok(Some(position))
}

/// Who gets a slot, and who loses its slot or its place.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) filled: Vec<Rank>,
    pub(crate) cancelled: Vec<Rank>,
}

/// Decides about those that wait in a group. With a limit of zero or less, they wait forever.
///
/// The strategies for those that wait are not in the engine that is reproduced, but in later ones. What they do was read from the source of
/// the engine's scheduler (`pkg/scheduling/v1/concurrency/strategy.go`, as of v0.110), and not measured: free slots go to the oldest, without
/// regard to priorities; then all are cancelled but the newest or the oldest, as many as the limit allows to run; those that have a slot
/// are never cancelled.
pub(crate) fn decide(group: &Group) -> Decision {
    let Some(max) = usize::try_from(group.max_runs).ok().filter(|max| *max > 0) else { return Decision::default() };
    let free = max.saturating_sub(group.running.len());
    match group.strategy {
        LimitStrategy::GroupRoundRobin => {
            Decision { filled: group.waiting.iter().take(free).copied().collect(), cancelled: Vec::new() }
        }
        LimitStrategy::CancelNewest => Decision {
            filled: group.waiting.iter().take(free).copied().collect(),
            cancelled: group.waiting.iter().skip(free).copied().collect(),
        },
        LimitStrategy::CancelInProgress => {
            let mut all: Vec<_> = group.running.iter().chain(&group.waiting).copied().collect();
            all.sort_by_key(|rank| (rank.urgency, Reverse((rank.created, rank.owner))));
            let filled = all.iter().take(max).filter(|rank| group.waiting.contains(rank)).copied().collect();
            Decision { filled, cancelled: all.into_iter().skip(max).collect() }
        }
        LimitStrategy::CancelQueuedExceptNewest => {
            let (filled, waiting) = oldest(group, free);
            let cancelled = waiting.len().saturating_sub(max);
            Decision { filled, cancelled: waiting.into_iter().take(cancelled).collect() }
        }
        LimitStrategy::CancelQueuedExceptOldest => {
            let (filled, waiting) = oldest(group, free);
            Decision { filled, cancelled: waiting.into_iter().skip(max).collect() }
        }
    }
}

/// The oldest of those that wait, and the others, from the oldest to the newest.
fn oldest(group: &Group, count: usize) -> (Vec<Rank>, Vec<Rank>) {
    let mut waiting: Vec<_> = group.waiting.iter().copied().collect();
    waiting.sort_by_key(|rank| (rank.created, rank.owner));
    let others = waiting.split_off(count.min(waiting.len()));
    (waiting, others)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::embedded::core::store::RunIx;

    fn rank(urgency: u8, second: i64) -> Rank {
        let created = DateTime::from_timestamp(second, 0).unwrap();
        Rank { urgency: Reverse(urgency), created, owner: SlotOwner::Task(TaskKey { run: RunIx::default(), index: 0 }) }
    }

    fn decided(strategy: LimitStrategy, max_runs: i32, running: &[Rank], waiting: &[Rank]) -> Decision {
        let (running, waiting) = (running.iter().copied().collect(), waiting.iter().copied().collect());
        decide(&Group { strategy, max_runs, set_by: None, running, waiting })
    }

    #[test]
    fn the_oldest_get_the_slots_and_the_others_wait() {
        let (first, second, third) = (rank(1, 1), rank(1, 2), rank(1, 3));
        let decision = decided(LimitStrategy::GroupRoundRobin, 2, &[first], &[third, second]);
        assert_eq!(decision, Decision { filled: vec![second], cancelled: vec![] });
        let urgent = rank(3, 9);
        let decision = decided(LimitStrategy::GroupRoundRobin, 1, &[], &[first, urgent]);
        assert_eq!(decision, Decision { filled: vec![urgent], cancelled: vec![] });
    }

    #[test]
    fn those_with_slots_keep_them_and_the_others_are_cancelled() {
        let (first, second, third) = (rank(1, 1), rank(1, 2), rank(3, 3));
        let decision = decided(LimitStrategy::CancelNewest, 1, &[first], &[second, third]);
        assert_eq!(decision, Decision { filled: vec![], cancelled: vec![third, second] });
        let decision = decided(LimitStrategy::CancelNewest, 2, &[first], &[second, third]);
        assert_eq!(decision, Decision { filled: vec![third], cancelled: vec![second] });
    }

    #[test]
    fn the_newest_get_the_slots_of_others() {
        let (first, second, third) = (rank(1, 1), rank(1, 2), rank(1, 3));
        let decision = decided(LimitStrategy::CancelInProgress, 1, &[first], &[second, third]);
        assert_eq!(decision, Decision { filled: vec![third], cancelled: vec![second, first] });
        let urgent = rank(2, 0);
        let decision = decided(LimitStrategy::CancelInProgress, 1, &[urgent], &[third]);
        assert_eq!(decision, Decision { filled: vec![], cancelled: vec![third] });
    }

    #[test]
    fn as_many_wait_as_may_run_and_the_others_are_cancelled() {
        use LimitStrategy::{CancelQueuedExceptNewest, CancelQueuedExceptOldest};
        let ranks: Vec<_> = (1..=8).map(|second| rank(1, second)).collect();
        // Two slots, of which one is taken.
        for (strategy, cancelled) in [(CancelQueuedExceptNewest, &ranks[2..6]), (CancelQueuedExceptOldest, &ranks[4..])]
        {
            let decision = decided(strategy, 2, &ranks[..1], &ranks[1..]);
            assert_eq!(decision, Decision { filled: vec![ranks[1]], cancelled: cancelled.to_vec() });
            let decision = decided(strategy, 2, &ranks[..2], &ranks[2..4]);
            assert_eq!(decision, Decision::default(), "none too many");
            assert_eq!(
                decided(strategy, 2, &ranks[..3], &[]),
                Decision::default(),
                "none is cancelled that has a slot"
            );
        }
        // Priorities have no effect.
        let urgent = rank(3, 9);
        let decision = decided(CancelQueuedExceptOldest, 1, &[], &[ranks[0], ranks[1], urgent]);
        assert_eq!(decision, Decision { filled: vec![ranks[0]], cancelled: vec![urgent] });
        let decision = decided(CancelQueuedExceptNewest, 1, &[], &[ranks[0], ranks[1], urgent]);
        assert_eq!(decision, Decision { filled: vec![ranks[0]], cancelled: vec![ranks[1]] });
    }

    #[test]
    fn a_limit_below_one_lets_all_wait() {
        for strategy in [
            LimitStrategy::CancelInProgress,
            LimitStrategy::CancelNewest,
            LimitStrategy::GroupRoundRobin,
            LimitStrategy::CancelQueuedExceptNewest,
            LimitStrategy::CancelQueuedExceptOldest,
        ] {
            for max_runs in [0, -1] {
                assert_eq!(decided(strategy, max_runs, &[], &[rank(1, 1), rank(1, 2)]), Decision::default());
            }
        }
    }
}
