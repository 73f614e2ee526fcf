//! Invariants under any sequence of commands, with any quirks.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::embedded::core::store::{
    BatchOptions, Cel, Concurrency, Condition, ConditionAction, Idempotency, Label, LimitStrategy, On, ParentLink,
    Pause, PausedRuns, PushedEvent, ScheduledRun, SlotOwner, State, Sticky, TaskKey, TaskLimit, Timer, Waits, Window,
};

use crate::embedded::quirks::Quirk;

/// One command: its kind, and three small numbers that select its arguments.
type Step = (u8, u8, u8, u8);

/// A bench, and what its commands have created.
struct Play {
    bench: Bench,
    runs: Vec<Uuid>,
    workers: Vec<Uuid>,
    open: Vec<StreamId>,
    results: Vec<StreamId>,
    closed: BTreeSet<StreamId>,
    /// The debug output of all effects.
    effects: Vec<String>,
}

fn pick<T: Copy>(items: &[T], choice: u8) -> Option<T> {
    (!items.is_empty()).then(|| items[usize::from(choice) % items.len()])
}

/// Puts one of many workflows: with a single task, or a chain, a fan, a diamond.
fn put(bench: &mut Bench, a: u8, b: u8, c: u8) {
    if c.is_multiple_of(2) {
        // A chain, a fan, a diamond; with an on-failure task or without.
        let shapes: [&[(&str, &[&str])]; 3] = [
            &[("a", &[]), ("b", &["a"])],
            &[("a", &[]), ("x", &[]), ("b", &["a", "x"])],
            &[("a", &[]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"])],
        ];
        let mut tasks: Vec<_> = shapes[usize::from(a % 3)].iter().map(|(name, parents)| named(name, parents)).collect();
        let action = [ConditionAction::Queue, ConditionAction::Skip, ConditionAction::Cancel][usize::from(b % 3)];
        let on = [On::Sleep("2s".into()), On::event("e".into(), "").unwrap()];
        let conditions = on.into_iter().zip(0..).map(|(on, group)| Condition {
            action,
            group: group * u16::from(c.is_multiple_of(3)),
            data_key: "k".into(),
            on,
        });
        if c.is_multiple_of(4) {
            tasks[usize::from(a) % 2].conditions = conditions.collect();
        }
        tasks[usize::from(b) % 2].concurrency = limits(c, a, b);
        bench.define("w", tasks, (b.is_multiple_of(2)).then(|| named("f", &[])), options(a, b, c)).unwrap();
        return;
    }
    let backoff_factor = (b.is_multiple_of(2)).then_some(1.3);
    let timeout = ["0s", "3s", "60s"][usize::from(c % 3)].into();
    let task = TaskDefinition {
        retries: i32::from(a % 4),
        backoff_factor,
        timeout,
        concurrency: limits(b, c, a),
        rate_limits: rate_limits(c, a),
        slots: slots(b, c),
        batch: batch(a, c),
        ..task()
    };
    bench.put_with("w", task, options(a, b, c)).unwrap();
}

impl Play {
    fn new(quirks: Quirks) -> Self {
        let mut bench = Bench::new(quirks);
        bench.turn(|core, turn| core.put_rate_limit(turn, "k", 2, Window::Second));
        bench.put(TaskDefinition { retries: 1, timeout: "4s".into(), schedule_timeout: Some("40s".into()), ..task() });
        Self {
            bench,
            runs: vec![],
            workers: vec![],
            open: vec![],
            results: vec![],
            closed: BTreeSet::new(),
            effects: vec![],
        }
    }

    fn step(&mut self, step: Step) {
        let (kind, a, b, _) = step;
        match kind % 21 {
            0..=2 | 17 | 18 => self.begin(step),
            3..=8 | 19 => self.work(step),
            16 => self.bench.pass(Duration::from_millis(u64::from(a) * u64::from(b))),
            _ => {
                if let Some(run) = pick(&self.runs, a) {
                    self.touch(run, step);
                }
            }
        }
        // Including runs that crons, schedules and events have started.
        self.runs = self.bench.core.runs().newest_first(None).map(|run| run.id).collect();
        self.check();
    }

    /// Definitions, and what starts runs.
    fn begin(&mut self, (kind, a, b, c): Step) {
        let run = pick(&self.runs, a);
        let bench = &mut self.bench;
        match kind % 21 {
            0 if c % 5 == 0 => {
                let workflow = bench.core.latest("w").unwrap().workflow;
                let runs = if a % 2 == 0 { PausedRuns::Queue } else { PausedRuns::Drop };
                let (from, ttl) = (bench.now, seconds(u64::from(b)));
                let pause = Pause { from, crons: runs, schedules: runs, ttl };
                bench.turn(|core, turn| match b % 3 {
                    0 => core.pause_workflow(turn, workflow, pause),
                    _ => core.unpause_workflow(turn, workflow),
                });
            }
            0 => put(bench, a, b, c),
            1 | 2 => {
                let parent = run.filter(|_| c % 3 == 0).and_then(|run| self.task(run, b));
                let parent =
                    |at| parent.map(|(task, _)| ParentLink { task, index: Some(i32::from(at % 2)), key: None });
                let triggers = (0..a % 4)
                    .map(|at| Trigger { parent: parent(at), ..trigger(Some(1 + i32::from(b.wrapping_add(at) % 3))) });
                let triggers = triggers.collect();
                // If keys collide, all other runs are started.
                drop(self.bench.turn(|core, turn| core.trigger(turn, triggers)));
            }
            17 => {
                let payload = serde_json::json!({ "n": b });
                let key = if c % 5 == 0 { "e".to_owned() } else { format!("k:{c}") };
                let pushed = PushedEvent { key, payload, metadata: ().into(), priority: None, scope: None };
                bench.turn(|core, turn| core.push(turn, pushed));
            }
            18 => {
                let what = ScheduledRun { workflow: "w".into(), input: ().into(), metadata: None, priority: None };
                let at = bench.now + TimeDelta::seconds(i64::from(b) - 20);
                let made = bench.turn(|core, turn| core.schedule(turn, &what, &[at, at])).unwrap();
                // A schedule in the past has already started its run.
                let is_there = c % 2 == 0 && at > bench.now;
                assert!(!is_there || bench.turn(|core, _| core.delete_schedule(made[1].0)));
            }
            _ => {}
        }
    }

    /// Commands of workers, except reports.
    fn work(&mut self, (kind, a, b, _): Step) {
        let worker = pick(&self.workers, a);
        let bench = &mut self.bench;
        match (kind % 21, worker) {
            (3, _) => {
                let mut registered = registration(i32::from(a % 4) - 1);
                registered.slots.insert("gpu".into(), i32::from(b % 3));
                self.workers.push(bench.turn(|core, turn| core.register(turn, registered)).unwrap());
            }
            (4, Some(worker)) => {
                let stream = bench.stream();
                bench.turn(|core, _| core.listen(worker, stream)).unwrap();
                self.open.push(stream);
            }
            (5 | 6, Some(worker)) => drop(bench.turn(|core, turn| core.heartbeat(turn, worker))),
            (7, _) => {
                if let Some(stream) = pick(&self.open, a) {
                    bench.turn(|core, turn| core.close_stream(turn, stream));
                    self.open.retain(|open| *open != stream);
                    self.closed.insert(stream);
                }
            }
            (8, Some(worker)) if b % 4 == 0 => bench.turn(|core, _| core.unsubscribe(worker)).unwrap(),
            (8, Some(worker)) => drop(bench.turn(|core, turn| core.pause(turn, worker, b % 2 == 0))),
            (19, _) if b % 5 == 0 => {
                let key = ["k", "d", "new"][usize::from(a % 3)];
                let window = if b % 2 == 0 { Window::Second } else { Window::Minute };
                bench.turn(|core, turn| core.put_rate_limit(turn, key, i32::from(a % 5) - 1, window));
            }
            (19, Some(worker)) => {
                let labels = BTreeMap::from([("n".to_owned(), Label::Number(i32::from(b % 3)))]);
                bench.turn(|core, _| core.upsert_labels(worker, labels)).unwrap();
            }
            _ => {}
        }
    }

    /// Commands on a run, its tasks and its streams.
    fn touch(&mut self, run: Uuid, (kind, _, b, c): Step) {
        let bench = &mut self.bench;
        match kind % 21 {
            9..=11 => {
                use ReportKind::{Acknowledged, Cancelled, Completed, Failed, Started};
                let Some((task, current)) = self.task(run, b) else { return };
                let bench = &mut self.bench;
                let retry_count = if c % 8 == 0 { current + i32::from(c % 3) - 1 } else { current };
                let kind = [Completed, Failed, Started, Failed, Completed, Acknowledged, Cancelled][usize::from(b % 7)];
                let payload = ["{}", "", "no JSON", r#"{"a": 1}"#][usize::from(c % 4)];
                let report = Report {
                    should_not_retry: c % 5 == 0,
                    batch: c % 2 == 0,
                    ..report(task, kind, retry_count, payload)
                };
                bench.turn(|core, turn| core.report(turn, report)).unwrap();
            }
            12 if c % 2 == 0 => bench.turn(|core, turn| core.cancel(turn, &[run])),
            12 => {
                if let Some((task, _)) = self.task(run, b) {
                    self.bench.turn(|core, turn| core.cancel(turn, &[task]));
                }
            }
            13 => {
                let stream = bench.stream();
                self.open.push(stream);
                match b % 3 {
                    0 => bench.turn(|core, turn| core.watch_run(turn, stream, run)),
                    1 => bench.turn(|core, turn| core.watch_run(turn, stream, Uuid::from_u128(c.into()))),
                    _ => bench.turn(|core, _| core.watch_tag(stream, "tag", "x")),
                }
            }
            14 => {
                let stream = pick(&self.results, b)
                    .filter(|stream| c % 4 != 0 && self.open.contains(stream))
                    .unwrap_or_else(|| {
                        let stream = bench.stream();
                        bench.turn(|core, turn| core.open_results(turn, stream));
                        self.results.push(stream);
                        self.open.push(stream);
                        stream
                    });
                bench.turn(|core, turn| core.ask_result(turn, stream, run));
            }
            15 if c % 3 == 0 => {
                if let Some((task, _)) = self.task(run, b) {
                    drop(self.bench.turn(|core, turn| core.release_slot(turn, task)));
                }
            }
            15 => {
                if let Some((task, _)) = self.task(run, b) {
                    self.bench.turn(|core, turn| core.chunk(turn, task, b"chunk\xff", None, None)).unwrap();
                }
            }
            20 => {
                let ids = self.task(run, b).filter(|_| c % 3 == 0).map_or(run, |(task, _)| task);
                self.bench.turn(|core, turn| core.replay(turn, &[ids, run]));
            }
            _ => {}
        }
    }

    /// A created task of a run, and its attempt.
    fn task(&self, run: Uuid, choice: u8) -> Option<(Uuid, i32)> {
        let tasks: Vec<_> = self.bench.run(run).present().map(|task| (task.id, task.retry_count)).collect();
        pick(&tasks, choice / 7)
    }

    /// Checks and stores the effects.
    fn take_effects(&mut self) {
        for effect in self.bench.effects() {
            self.effects.push(format!("{effect:?}"));
            match effect {
                Effect::Send(stream, _) => assert!(!self.closed.contains(&stream), "sent to a closed stream"),
                Effect::End(stream, _) => {
                    assert!(self.closed.insert(stream), "ended a closed stream");
                    self.open.retain(|open| *open != stream);
                }
            }
        }
    }

    fn check(&mut self) {
        self.take_effects();
        let core = &self.bench.core;
        for worker in core.workers.values() {
            assert!(worker.profile.slots.keys().all(|kind| worker.free_slots(kind) >= 0), "more tasks than slots");
        }
        let (mut queued, mut running, mut paused, mut batched) = (0, 0, 0, 0);
        let (mut timers, mut limited) = (Vec::new(), Vec::new());
        for run in core.runs().newest_first(None) {
            let over = run.present().all(|task| task.state == State::Ended);
            let waiting = run.dag.iter().flat_map(|dag| &dag.nodes).any(|node| node.waits != Waits::Nothing);
            let sleeps = run.dag.iter().flat_map(|dag| &dag.nodes).any(|node| node.waits == Waits::Conditions);
            assert_eq!(over && !waiting, run.has_ended(), "{run:?}");
            assert!(!over || !waiting || sleeps, "it never ends: {run:?}");
            assert!(!run.has_ended() || run.is_shown_as_ended(), "{run:?}");
            for (node, index) in run.dag.iter().flat_map(|dag| dag.nodes.iter().zip(0..)) {
                let key = TaskKey { run: core.runs.index(run.id).unwrap(), index };
                assert_eq!(core.waiting.contains(&key), node.waits == Waits::Conditions, "{node:?}");
            }
            for task in run.present() {
                let key = core.runs.task_key(task.id).unwrap();
                let has_final = task.current_finals().next().is_some();
                // A task that was started a second time as if it were the first time still has its first end.
                assert_eq!(task.state == State::Ended || has_final && run.is_restarted(), has_final, "{task:?}");
                match &task.state {
                    State::Queued { timer, order } => {
                        queued += 1;
                        assert!(
                            core.queues.entries().any(|(at, held)| (at, held) == (*order, key)),
                            "not in its queue"
                        );
                        timers.push((timer.expect("queued for ever"), Timer::Schedule(key)));
                    }
                    State::Running { worker, timer } => {
                        running += 1;
                        assert!(core.workers[worker].running().contains_key(&key), "unknown to its worker");
                        timers.push((*timer, Timer::Execution(key)));
                    }
                    State::Limited { timer, .. } => {
                        timers.extend(timer.map(|timer| (timer, Timer::Schedule(key))));
                        limited.push(key);
                    }
                    State::Paused { timer, .. } => {
                        assert!(core.paused.contains(&key), "it is never queued again");
                        paused += 1;
                        timers.push((*timer, Timer::Expire(key)));
                    }
                    State::Batched { timer } => {
                        batched += 1;
                        let mut groups = core.batches.all().flat_map(|(_, group)| group.waiting());
                        assert!(groups.any(|(waits, _)| waits == key), "in no group");
                        timers.push((timer.expect("it waits for ever"), Timer::Schedule(key)));
                    }
                    State::Backoff { timer } => timers.push((*timer, Timer::Requeue(key))),
                    State::Absent | State::Ended => {}
                }
            }
        }
        self.check_slots(&limited);
        self.check_batches(batched);
        let core = &self.bench.core;
        assert_eq!(core.paused.len(), paused);
        assert_eq!(core.queues.entries().count(), queued, "more in queues than is queued");
        let is_queued = |key: &TaskKey| matches!(core.runs.task(*key).unwrap().1.state, State::Queued { .. });
        assert!(core.rate_limits.units.keys().all(is_queued), "units of a task that is not queued");
        assert!(core.rate_limits.held.keys().all(is_queued), "a task that is held and not queued");
        assert_eq!(core.workers.values().map(|worker| worker.running().len()).sum::<usize>(), running);
        timers.extend(core.kept_timeouts.iter().map(|(key, timer)| (*timer, Timer::TimedOutCancel(*key))));
        let of_tasks = |timer: &Timer| {
            use Timer::{Execution, Expire, Requeue, Schedule, TimedOutCancel};
            matches!(timer, Schedule(_) | Execution(_) | Expire(_) | Requeue(_) | TimedOutCancel(_))
        };
        let timeouts = core.timers.all().filter(|(_, timer)| of_tasks(timer));
        timers.sort_unstable_by_key(|(key, _)| *key);
        assert_eq!(timeouts.collect::<Vec<_>>(), timers, "a timer that no task has, or one too few");
        self.bench.turn(|_, _| ());
        self.take_effects();
        assert!(self.bench.core.next_timer().is_none_or(|at| at > self.bench.now), "a timer in the past");
    }
}

impl Play {
    /// Checks that all that wait for a batch have a deadline, and that no group is left over.
    fn check_batches(&self, batched: usize) {
        let core = &self.bench.core;
        let mut waiting = 0;
        for (id, group) in core.batches.all() {
            waiting += group.size();
            assert!(group.size() > 0 || group.runs() > 0, "{group:?}");
            assert_eq!(group.size() > 0, group.deadline.is_some(), "{group:?}");
            assert!(group.runs() <= group.limits.runs || group.key.is_empty(), "{group:?}");
            let is_set = |timer| core.timers.all().any(|set| set == (timer, Timer::Flush(id)));
            assert!(group.deadline.is_none_or(is_set), "{group:?}");
        }
        assert_eq!(waiting, batched);
        let deadlines = core.timers.all().filter(|(_, timer)| matches!(timer, Timer::Flush(_))).count();
        assert_eq!(deadlines, core.batches.all().filter(|(_, group)| group.deadline.is_some()).count());
        let running = core.batches.tasks() - waiting;
        assert!(running <= core.workers.values().map(|worker| worker.running().len()).sum());
    }

    /// Checks that slots are not exceeded, that only those have them that can use them, and that each task that waits has a place.
    fn check_slots(&self, limited: &[TaskKey]) {
        let core = &self.bench.core;
        let is_active = |owner: SlotOwner| match owner {
            SlotOwner::Run(run) => core.runs.get(run).is_some_and(|run| !run.has_ended()),
            SlotOwner::Task(key) => core.runs.task(key).is_some_and(|(_, task)| {
                matches!(
                    task.state,
                    State::Limited { .. }
                        | State::Paused { .. }
                        | State::Queued { .. }
                        | State::Batched { .. }
                        | State::Running { .. }
                )
            }),
        };
        let mut waiting = BTreeSet::new();
        for (id, group) in core.slots.groups() {
            let max = usize::try_from(group.max_runs).unwrap_or_default();
            assert!(group.running.len() <= max, "{id:?}: {group:?}");
            let is_full = group.running.len() == max;
            assert!(group.waiting.is_empty() || is_full, "a free slot: {id:?}: {group:?}");
            for rank in group.running.iter().chain(&group.waiting) {
                assert!(is_active(rank.owner), "{:?} in {id:?}", rank.owner);
            }
            waiting.extend(group.waiting.iter().map(|rank| rank.owner));
        }
        for key in limited {
            let has_place = waiting.contains(&SlotOwner::Task(*key)) || waiting.contains(&SlotOwner::Run(key.run));
            assert!(has_place, "{key:?} waits forever");
        }
    }
}

/// Options of all kinds, and often none.
fn options(a: u8, b: u8, c: u8) -> WorkflowOptions {
    let wish = |number: u8| number.is_multiple_of(3);
    WorkflowOptions {
        events: if wish(a) { vec!["k:*".into(), "k:1_".into()] } else { vec![] },
        crons: if wish(b) { vec!["*/7 * * * * *".into()] } else { vec![] },
        sticky: wish(c).then_some(if a.is_multiple_of(2) { Sticky::Soft } else { Sticky::Hard }),
        concurrency: limits(a, b, c),
        idempotency: a.is_multiple_of(5).then(|| Idempotency::new("'one'".into(), 3000, i32::from(b % 2)).unwrap()),
        ..WorkflowOptions::default()
    }
}

/// Requests of slots of two types, and often none.
fn slots(a: u8, b: u8) -> BTreeMap<String, i32> {
    let requests = [("default".to_owned(), i32::from(a % 2) + 1), ("gpu".to_owned(), i32::from(b % 2) + 1)];
    requests.into_iter().take(usize::from(a % 5)).skip(usize::from(b % 3)).collect()
}

/// Batches of few sizes and keys, and often none.
fn batch(a: u8, b: u8) -> Option<BatchOptions> {
    let key = ["'one'", "input.n", "additional_metadata.tag", ""][usize::from(b % 4)];
    let (size, interval) = (i32::from(b % 3) + 1, i32::from(b) * 20 + 1);
    let options = || BatchOptions::new(size, Some(interval), Some(key.into()), Some(i32::from(a % 2) + 1), false);
    a.is_multiple_of(3).then(|| options().unwrap())
}

/// Rate limits with few keys, and often none.
fn rate_limits(a: u8, b: u8) -> Vec<TaskLimit> {
    let cel = |text: &str| Some(Cel::of_rate_limit(text.into()).unwrap());
    let fixed = TaskLimit {
        key: "k".into(),
        units: Some(i32::from(b % 4) - 1),
        key_expression: None,
        units_expression: None,
        limit_expression: None,
        window: None,
    };
    let dynamic = TaskLimit {
        key: "d".into(),
        units_expression: cel("input.n"),
        limit_expression: cel(if b.is_multiple_of(2) { "2" } else { "-1" }),
        window: Some(Window::Second),
        ..fixed.clone()
    };
    [fixed, dynamic].into_iter().take(usize::from(a % 5)).skip(usize::from(b % 2)).collect()
}

/// Concurrency limits of all strategies, with few keys; and often none.
fn limits(a: u8, b: u8, c: u8) -> Vec<Concurrency> {
    let strategies = [
        LimitStrategy::CancelInProgress,
        LimitStrategy::CancelNewest,
        LimitStrategy::GroupRoundRobin,
        LimitStrategy::CancelQueuedExceptNewest,
        LimitStrategy::CancelQueuedExceptOldest,
    ];
    let keys = ["'one'", "additional_metadata.tag", "input.nothing"];
    let limit = |number: u8| {
        let (strategy, key) = (strategies[usize::from(number % 5)], keys[usize::from(number % 7 / 3)]);
        Concurrency::new(key.into(), Some(i32::from(number % 4)), Some(strategy), None).unwrap()
    };
    [a, b].into_iter().take(usize::from(c % 4) / 2 * 2).map(limit).collect()
}

fn play(quirks: Quirks, steps: &[Step]) -> Vec<String> {
    let mut play = Play::new(quirks);
    for step in steps {
        play.step(*step);
    }
    if steps.len().is_multiple_of(2) {
        play.bench.core.end_streams();
    } else {
        play.open.iter().for_each(|stream| play.bench.turn(|core, turn| core.close_stream(turn, *stream)));
        assert!(play.bench.core.streams.is_empty(), "something is left of streams that are gone");
    }
    play.check();
    play.effects
}

fn quirks() -> impl Strategy<Value = Quirks> {
    proptest::collection::vec(any::<bool>(), Quirk::ALL.len())
        .prop_map(|on| Quirk::ALL.iter().zip(on).filter(|(_, on)| *on).map(|(quirk, _)| *quirk).collect())
}

proptest! {
    #[test]
    fn no_sequence_breaks_it_and_each_is_deterministic(quirks in quirks(), steps in proptest::collection::vec(any::<Step>(), 0..120)) {
        prop_assert_eq!(play(quirks, &steps), play(quirks, &steps));
    }
}
