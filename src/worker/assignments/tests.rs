use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn key(task: u8, retry_count: u32) -> Key {
    let id = Uuid::from_u128(u128::from(task) + 1);
    Key { run: id.into(), task: id.into(), retry_count }
}

fn types(types: &[(&str, u32)]) -> BTreeMap<String, u32> {
    types.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

fn default_slots(count: u32) -> SlotRequest {
    let slots = types(&[(DEFAULT_SLOT_TYPE, count)]);
    SlotRequest::new(&slots, &slots)
}

fn assignments(slots: u32) -> Assignments<()> {
    Assignments::new(Slots::new(&types(&[(DEFAULT_SLOT_TYPE, slots)])))
}

/// Whether all of this number of slots are free.
fn is_free(all: &Assignments<()>, slots: u32) -> bool {
    all.batches.is_empty() && all.slots.has(&default_slots(slots))
}

fn started(effects: Vec<Effect<()>>) -> Vec<Key> {
    let started = effects.into_iter().flat_map(|effect| match effect {
        Effect::Start(key, ()) => vec![key],
        Effect::StartBatch(keys, ()) => keys,
        _ => Vec::new(),
    });
    started.collect()
}

/// The function of an attempt ends, and its report is accepted.
fn done(assignments: &mut Assignments<()>, key: Key, reported: Reported) -> Vec<Effect<()>> {
    let mut effects = assignments.step(Event::Ended(key, End::Finished));
    if effects.contains(&Effect::Report(key)) {
        effects.extend(assignments.step(Event::Reported(key, reported)));
        effects.retain(|effect| *effect != Effect::Report(key));
    }
    effects
}

fn assigned(assignments: &mut Assignments<()>, task: u8, retry_count: u32) -> Vec<Effect<()>> {
    assignments.step(Event::Assigned(key(task, retry_count), default_slots(1), ()))
}

#[test]
fn attempts_wait_for_a_slot_in_their_order() {
    let mut all = assignments(1);
    assert_eq!(assigned(&mut all, 1, 0), [Effect::Start(key(1, 0), ())]);
    assert_eq!((assigned(&mut all, 2, 0), assigned(&mut all, 3, 0)), (Vec::new(), Vec::new()));
    assert_eq!(done(&mut all, key(1, 0), Reported::Completed), [Effect::Start(key(2, 0), ())]);
    assert_eq!(all.step(Event::Cancelled(key(3, 0))), []);
    assert_eq!(done(&mut all, key(2, 0), Reported::Failed), []);
    assert!(all.is_idle());
    assert_eq!(all.into_report().to_string(), "attempts: 1 completed, 1 failed, 1 cancelled, 0 unfinished");
}

#[test]
fn an_attempt_that_only_a_message_of_unknown_type_names_is_unfinished() {
    let mut all = assignments(1);
    let unknown = |all: &mut Assignments<()>, task| all.step(Event::AssignedUnknown(key(task, 0)));
    assert_eq!((unknown(&mut all, 1), unknown(&mut all, 1)), (Vec::new(), Vec::new()));
    // One that is assigned later, one that the worker has, and two that are cancelled, before or after the message.
    assert_eq!(unknown(&mut all, 2), []);
    assert_eq!(assigned(&mut all, 2, 0), [Effect::Start(key(2, 0), ())]);
    assert_eq!(unknown(&mut all, 2), []);
    done(&mut all, key(2, 0), Reported::Completed);
    assert_eq!(unknown(&mut all, 2), []);
    all.step(Event::Cancelled(key(3, 0)));
    assert_eq!((unknown(&mut all, 3), unknown(&mut all, 4)), (Vec::new(), Vec::new()));
    all.step(Event::Cancelled(key(4, 0)));
    // Nor do two that are cancelled and then assigned start.
    all.step(Event::Cancelled(key(5, 0)));
    assert_eq!((unknown(&mut all, 5), unknown(&mut all, 6)), (Vec::new(), Vec::new()));
    all.step(Event::Cancelled(key(6, 0)));
    assert_eq!((assigned(&mut all, 5, 0), assigned(&mut all, 6, 0)), (Vec::new(), Vec::new()));
    assert!(all.is_idle(), "a shutdown does not wait for them");
    let report = all.into_report();
    assert_eq!(report.to_string(), "attempts: 1 completed, 0 failed, 4 cancelled, 1 unfinished");
    assert_eq!(report.unfinished_attempts[0].task_id, key(1, 0).task);
}

#[test]
fn messages_of_unknown_type_do_not_fill_the_memory() {
    let mut all = assignments(1);
    for retry_count in 0..MAX_UNKNOWN + 10 {
        all.step(Event::AssignedUnknown(key(1, u32::try_from(retry_count).unwrap())));
    }
    assert_eq!(all.unknown.len(), MAX_UNKNOWN);
    assert_eq!(all.into_report().unfinished, MAX_UNKNOWN as u64 + 10);
}

#[test]
fn an_attempt_that_is_delivered_again_does_not_run_again() {
    let mut all = assignments(2);
    assert_eq!(assigned(&mut all, 1, 0).len(), 1);
    assert_eq!(assigned(&mut all, 1, 0), [], "while it runs");
    done(&mut all, key(1, 0), Reported::Completed);
    assert_eq!(assigned(&mut all, 1, 0), [], "after its end");
    all.step(Event::Cancelled(key(2, 0)));
    assert_eq!((assigned(&mut all, 2, 0), assigned(&mut all, 2, 0)), (Vec::new(), Vec::new()), "cancelled before");
    all.step(Event::StopAccepting);
    assert_eq!((assigned(&mut all, 3, 0), assigned(&mut all, 3, 0)), (Vec::new(), Vec::new()), "too late");
    assert_eq!(all.into_report().to_string(), "attempts: 1 completed, 0 failed, 1 cancelled, 1 unfinished");
}

#[test]
fn a_newer_attempt_replaces_an_earlier_one() {
    let mut all = assignments(1);
    assigned(&mut all, 1, 0);
    assert_eq!(assigned(&mut all, 1, 1), [Effect::Replace(key(1, 0))], "one of a task at a time");
    assert_eq!(assigned(&mut all, 1, 2), [Effect::Replace(key(1, 0))], "the waiting one is never started");
    assert_eq!(assigned(&mut all, 1, 1), [], "an older one that comes late");
    assert_eq!(all.step(Event::Ended(key(1, 0), End::Cancelled)), [Effect::Start(key(1, 2), ())]);
    done(&mut all, key(1, 2), Reported::Completed);
    assert_eq!(all.into_report().to_string(), "attempts: 1 completed, 0 failed, 2 cancelled, 0 unfinished");
}

#[test]
fn when_the_grace_period_is_over_all_attempts_are_dropped() {
    let mut all = assignments(1);
    assigned(&mut all, 1, 0);
    assigned(&mut all, 2, 0);
    assert_eq!(all.step(Event::DropAll), [Effect::Drop(key(1, 0))]);
    assert!(!all.accepting && !all.is_idle());
    all.step(Event::Ended(key(1, 0), End::Dropped));
    assert!(all.is_idle());
    assert_eq!(all.into_report().unfinished, 2);
}

#[test]
fn an_end_that_was_not_reported_is_withdrawn_if_the_engine_has_ended_the_attempt() {
    let mut all = assignments(1);
    assigned(&mut all, 1, 0);
    assert_eq!(all.step(Event::Ended(key(1, 0), End::Finished)), [Effect::Report(key(1, 0))]);
    assert_eq!(all.step(Event::Cancelled(key(1, 0))), [Effect::Withdraw(key(1, 0))]);
    // It is too late: the report was on its way.
    all.step(Event::Reported(key(1, 0), Reported::Completed));
    assigned(&mut all, 2, 0);
    all.step(Event::Ended(key(2, 0), End::Finished));
    assert_eq!(assigned(&mut all, 2, 1), [Effect::Withdraw(key(2, 0)), Effect::Start(key(2, 1), ())]);
    all.step(Event::Reported(key(2, 0), Reported::Withdrawn));
    assert_eq!(all.counts(), (1, 0, 0));
    all.step(Event::Cancelled(key(2, 1)));
    assert_eq!(all.step(Event::Ended(key(2, 1), End::Finished)), [], "it was cancelled just before its end");
    assert_eq!(all.into_report().to_string(), "attempts: 1 completed, 0 failed, 2 cancelled, 0 unfinished");
}

#[test]
fn a_released_slot_is_free_for_another_attempt() {
    let mut all = assignments(1);
    assigned(&mut all, 1, 0);
    assert_eq!(assigned(&mut all, 2, 0), []);
    assert_eq!(all.step(Event::Released(key(1, 0).task, 0)), [Effect::Start(key(2, 0), ())]);
    assert_eq!(all.step(Event::Released(key(1, 0).task, 0)), [], "once");
    assert_eq!(assigned(&mut all, 3, 0), []);
    assert_eq!(done(&mut all, key(1, 0), Reported::Completed), [], "it had no slot");
    assert_eq!(done(&mut all, key(2, 0), Reported::Completed), [Effect::Start(key(3, 0), ())]);
}

/// The engine frees the slots of a cancelled attempt before its function has ended.
#[test]
fn slots_of_each_type_are_occupied_until_the_function_has_ended() {
    let slots = types(&[(DEFAULT_SLOT_TYPE, 100), ("gpu", 2)]);
    let mut all = Assignments::new(Slots::new(&slots));
    let assigned = |all: &mut Assignments<()>, task, requested: &[(&str, u32)]| {
        started(all.step(Event::Assigned(key(task, 0), SlotRequest::new(&types(requested), &slots), ())))
    };
    assert_eq!(assigned(&mut all, 1, &[("gpu", 1)]), [key(1, 0)]);
    assert_eq!(all.step(Event::Cancelled(key(1, 0))), [Effect::Cancel(key(1, 0))]);
    assert_eq!(assigned(&mut all, 2, &[("gpu", 2)]), []);
    assert_eq!(assigned(&mut all, 3, &[]), [key(3, 0)], "it needs none of that kind");
    assert_eq!(started(all.step(Event::Ended(key(1, 0), End::Cancelled))), [key(2, 0)]);
    assert_eq!(assigned(&mut all, 4, &[("gpu", 1)]), []);
    assert_eq!(started(all.step(Event::Released(key(2, 0).task, 0))), [key(4, 0)]);
}

const BATCH: &str = "batch";

fn batch(assignments: &mut Assignments<()>, id: &str, tasks: &[u8]) -> Vec<Effect<()>> {
    let tasks = tasks.iter().map(|task| (key(*task, 0).run, key(*task, 0).task)).collect();
    assignments.step(Event::AssignedBatch(id.into(), tasks, ()))
}

fn batch_started(keys: &[Key]) -> Vec<Effect<()>> {
    vec![Effect::StartBatch(keys.to_vec(), ())]
}

#[test]
fn a_batch_occupies_one_slot_until_its_last_attempt_has_ended() {
    let mut all = assignments(2);
    assert_eq!(batch(&mut all, BATCH, &[1, 2, 3]), batch_started(&[key(1, 0), key(2, 0), key(3, 0)]));
    assert_eq!(all.counts(), (3, 0, 0));
    assert_eq!(batch(&mut all, BATCH, &[1, 2, 3]), [], "it was delivered again");
    assert_eq!(assigned(&mut all, 4, 0).len(), 1);
    assert_eq!(batch(&mut all, "b", &[5, 6]), []);
    assert_eq!((assigned(&mut all, 7, 0), all.counts()), (vec![], (4, 3, 0)));
    assert_eq!(done(&mut all, key(1, 0), Reported::Completed), []);
    assert_eq!(all.step(Event::Released(key(2, 0).task, 0)), []);
    assert_eq!(done(&mut all, key(2, 0), Reported::Failed), []);
    assert_eq!(done(&mut all, key(3, 0), Reported::Completed), batch_started(&[key(5, 0), key(6, 0)]));
    assert_eq!(done(&mut all, key(4, 0), Reported::Completed), [Effect::Start(key(7, 0), ())]);
    for task in 5..8 {
        done(&mut all, key(task, 0), Reported::Completed);
    }
    assert!(all.is_idle() && is_free(&all, 2));
    assert_eq!(all.into_report().to_string(), "attempts: 6 completed, 1 failed, 0 cancelled, 0 unfinished");
}

#[test]
fn one_attempt_of_a_batch_is_cancelled_and_the_others_continue() {
    let mut all = assignments(1);
    batch(&mut all, BATCH, &[1, 2]);
    // The engine names the actual attempt, which the worker cannot know.
    assert_eq!(all.step(Event::Cancelled(key(1, 7))), [Effect::Cancel(key(1, 0))]);
    batch(&mut all, "b", &[3, 4]);
    assert_eq!(all.step(Event::Cancelled(key(3, 2))), [], "while it waits");
    assert_eq!(all.step(Event::Ended(key(1, 0), End::Cancelled)), []);
    assert_eq!(all.step(Event::Ended(key(2, 0), End::Finished))[0], Effect::Report(key(2, 0)));
    assert_eq!(all.step(Event::Cancelled(key(2, 4))), [Effect::Withdraw(key(2, 0))], "before it was reported");
    all.step(Event::Reported(key(2, 0), Reported::Withdrawn));
    done(&mut all, key(4, 0), Reported::Completed);
    // A cancellation of the earlier attempt that comes late does not concern the next one.
    assert_eq!(batch(&mut all, "c", &[1]), batch_started(&[key(1, 8)]));
    assert_eq!(all.step(Event::Cancelled(key(1, 7))), []);
    done(&mut all, key(1, 8), Reported::Completed);
    assert!(all.is_idle());
    assert_eq!(all.into_report().to_string(), "attempts: 2 completed, 0 failed, 3 cancelled, 0 unfinished");
}

#[test]
fn a_cancellation_before_a_batch_may_be_about_its_attempt() {
    let mut all = assignments(1);
    all.step(Event::Cancelled(key(1, 3)));
    all.step(Event::Cancelled(key(2, 0)));
    // The engine must be asked about the first one.
    let effects = batch(&mut all, BATCH, &[1, 2, 3]);
    assert_eq!(effects, [Effect::Check, Effect::StartBatch(vec![key(1, 0), key(3, 0)], ())]);
    assert!(all.cancelled.is_empty());
}

#[test]
fn attempts_of_a_batch_are_held_until_they_are_reported() {
    let mut all = assignments(1);
    batch(&mut all, BATCH, &[1, 2]);
    assigned(&mut all, 3, 0);
    all.step(Event::Ended(key(1, 0), End::Finished));
    all.step(Event::Ended(key(2, 0), End::Finished));
    all.step(Event::Ended(key(3, 0), End::Finished));
    let mut held: Vec<_> = all.held().map(|(key, batch)| (Uuid::from(key.task), batch)).collect();
    held.sort();
    let expected = [1, 2].map(|task| (Uuid::from(key(task, 0).task), Some(Arc::from(BATCH))));
    assert_eq!(held, expected);
    all.step(Event::Reported(key(1, 0), Reported::Completed));
    assert_eq!(all.held().count(), 1);
}

#[test]
fn a_batch_waits_for_earlier_attempts_of_its_tasks() {
    let mut all = assignments(5);
    batch(&mut all, BATCH, &[1, 2]);
    assert_eq!(batch(&mut all, "b", &[2, 3]), [Effect::Replace(key(2, 0))]);
    done(&mut all, key(1, 0), Reported::Completed);
    assert_eq!(all.step(Event::Ended(key(2, 0), End::Cancelled)), batch_started(&[key(2, 1), key(3, 0)]));
    all.step(Event::StopAccepting);
    assert_eq!(batch(&mut all, "c", &[4]), []);
    assert_eq!(all.step(Event::DropAll).len(), 2);
    assert_eq!(all.step(Event::Abandon), []);
    assert!(all.is_idle());
    assert_eq!(all.into_report().to_string(), "attempts: 1 completed, 0 failed, 1 cancelled, 3 unfinished");
}

#[test]
fn nothing_is_started_on_hold() {
    let mut all = assignments(2);
    assert_eq!(all.step(Event::Hold(true)), []);
    assert_eq!(assigned(&mut all, 1, 0), []);
    assert_eq!(all.step(Event::Hold(false)), [Effect::Start(key(1, 0), ())]);
}

#[test]
fn what_is_abandoned_is_counted_as_unfinished() {
    let mut all = assignments(1);
    assigned(&mut all, 1, 0);
    all.step(Event::Ended(key(1, 0), End::Finished));
    assigned(&mut all, 2, 0);
    assigned(&mut all, 3, 0);
    assert_eq!(all.counts(), (1, 1, 1));
    assert_eq!(all.step(Event::Abandon), []);
    assert!(all.is_idle());
    assert_eq!(all.step(Event::Ended(key(2, 0), End::Finished)), [], "it is not waited for");
    let report = all.into_report();
    assert_eq!((report.unfinished, report.unfinished_attempts.iter().filter(|task| task.is_finished).count()), (3, 1));
}

#[test]
fn ended_tasks_are_forgotten_in_the_end() {
    let mut all = assignments(1);
    for number in 0..MAX_ENDED_TASKS as u128 + 7 {
        let id = Uuid::from_u128(number + 1);
        let key = Key { run: id.into(), task: id.into(), retry_count: 0 };
        all.step(Event::Assigned(key, default_slots(1), ()));
        done(&mut all, key, Reported::Completed);
    }
    assert_eq!((all.newest.len(), all.ended.len()), (MAX_ENDED_TASKS, MAX_ENDED_TASKS));
}

#[derive(Debug, Clone)]
enum Step {
    Assigned(u8, u32),
    AssignedBatch(u8, Vec<u8>),
    Cancelled(u8, u32),
    /// One of the running attempts ends.
    Ended(usize),
    StopAccepting,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..5, 0u32..4).prop_map(|(task, retry)| Step::Assigned(task, retry)),
        2 => (0u8..9, prop::collection::btree_set(5u8..9, 1..4))
            .prop_map(|(id, tasks)| Step::AssignedBatch(id, tasks.into_iter().collect())),
        3 => (0u8..9, 0u32..4).prop_map(|(task, retry)| Step::Cancelled(task, retry)),
        6 => any::<prop::sample::Index>().prop_map(|index| Step::Ended(index.index(64))),
        1 => Just(Step::StopAccepting),
    ]
}

#[test]
fn an_attempt_that_is_assigned_after_a_later_one_is_counted_once() {
    let mut all = assignments(1);
    for (retry_count, total) in [(2, 0), (0, 1), (0, 1), (2, 1), (100, 1), (1, 1), (99, 2), (99, 2), (3, 2)] {
        all.step(Event::Assigned(key(1, retry_count), default_slots(1), ()));
        // The newest one runs.
        assert_eq!(all.report.cancelled, total, "after {retry_count}");
    }
}

proptest! {
    #[test]
    fn every_attempt_starts_at_most_once_and_is_counted_once(
        slots in 1u32..4,
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut all = assignments(slots);
        let (mut running, mut ever, mut seen): (Vec<Key>, HashSet<Key>, HashSet<Key>) = Default::default();
        let (mut accepted, mut batches): (_, HashMap<TaskId, u8>) = (0, HashMap::new());
        for step in steps {
            let effects = match step {
                Step::Assigned(task, retry_count) => {
                    let key = key(task, retry_count);
                    // An attempt that is assigned after a later one is counted, too.
                    accepted += u64::from(seen.insert(key));
                    all.step(Event::Assigned(key, default_slots(1), ()))
                }
                Step::AssignedBatch(id, tasks) => {
                    let is_new = |task: &&u8| batches.insert(key(**task, 0).task, id) != Some(id);
                    accepted += u64::try_from(tasks.iter().filter(is_new).count()).unwrap();
                    batch(&mut all, &format!("b{id}"), &tasks)
                }
                Step::Cancelled(task, retry_count) => all.step(Event::Cancelled(key(task, retry_count))),
                Step::Ended(_) if running.is_empty() => continue,
                Step::Ended(index) => {
                    let key = running.swap_remove(index % running.len());
                    done(&mut all, key, Reported::Completed)
                }
                Step::StopAccepting => all.step(Event::StopAccepting),
            };
            for key in started(effects) {
                prop_assert!(ever.insert(key), "started twice: {key:?}");
                prop_assert!(running.iter().all(|other| other.task != key.task), "two of one task");
                running.push(key);
            }
            let in_batches = running.iter().filter(|key| batches.contains_key(&key.task)).count();
            prop_assert!(running.len() - in_batches + all.batches.len() <= slots as usize);
            prop_assert!(!running.is_empty() || is_free(&all, slots));
        }
        all.step(Event::DropAll);
        for key in running {
            prop_assert!(started(all.step(Event::Ended(key, End::Dropped))).is_empty());
        }
        prop_assert!(all.is_idle());
        prop_assert_eq!(all.into_report().total(), accepted);
    }
}
