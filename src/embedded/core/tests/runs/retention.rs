//! Runs that are dropped when they are old.

use crate::embedded::core::store::{ParentLink, PushedEvent, Timer};
use crate::embedded::core::tests::*;

use RestStatus::{Completed, Queued};

const SECONDS_PER_DAY: u64 = 24 * 3600;
const DAY: Duration = Duration::from_secs(SECONDS_PER_DAY);

impl Bench {
    /// A bench whose time is noon.
    fn keeping(retention: TimeDelta) -> Self {
        let bench = Self::new(Quirks::none());
        Self { core: Core::new(Uuid::nil(), Quirks::none()).with_retention(retention), ..bench }
    }

    fn finish(&mut self, run: Uuid) {
        self.report(run, ReportKind::Completed, 0, "{}");
    }

    fn is_kept(&self, run: Uuid) -> bool {
        self.core.find_run(run).is_some()
    }

    fn has_retention_timer(&self) -> bool {
        self.core.timers.all().any(|(_, timer)| timer == Timer::Retention)
    }
}

#[test]
fn the_runs_of_a_day_are_dropped_together() {
    let mut bench = Bench::keeping(TimeDelta::days(2));
    bench.put(task());
    let first = bench.trigger();
    bench.finish(first);
    bench.pass(seconds(SECONDS_PER_DAY / 2 - 1));
    let last = bench.trigger();
    bench.finish(last);
    bench.pass(seconds(1));
    let next_day = bench.trigger();
    bench.finish(next_day);
    // It is midnight.
    bench.pass(seconds(2 * SECONDS_PER_DAY - 1));
    assert!([first, last, next_day].iter().all(|run| bench.is_kept(*run)));
    bench.pass(seconds(1));
    assert_eq!([first, last, next_day].map(|run| bench.is_kept(run)), [false, false, true]);
    assert_eq!((bench.core.find_task(first).is_none(), bench.core.runs().len()), (true, 1));
    assert_eq!(bench.core.runs().newest_first(None).map(|run| run.id).collect::<Vec<_>>(), [next_day]);
    bench.pass(DAY);
    assert!(!bench.is_kept(next_day) && bench.core.runs().len() == 0);
    assert!(!bench.has_retention_timer());
    let later = bench.trigger();
    assert!(bench.is_kept(later) && bench.has_retention_timer());
}

#[test]
fn the_events_of_a_day_are_dropped_together() {
    let mut bench = Bench::keeping(TimeDelta::days(2));
    let push = |bench: &mut Bench| {
        let (payload, metadata) = (serde_json::json!({}), serde_json::json!({}));
        let event = PushedEvent { key: "k".into(), payload, metadata, priority: None, scope: None };
        bench.turn(|core, turn| core.push(turn, event)).0
    };
    let shown = |bench: &Bench, event| bench.core.event(event, bench.now).is_some();
    // Without a run, the event alone sets the timer.
    let first = push(&mut bench);
    bench.pass(seconds(SECONDS_PER_DAY / 2));
    let next_day = push(&mut bench);
    bench.pass(seconds(2 * SECONDS_PER_DAY - 1));
    assert!(shown(&bench, first) && shown(&bench, next_day));
    bench.pass(seconds(1));
    assert_eq!([first, next_day].map(|event| shown(&bench, event)), [false, true]);
    assert_eq!(bench.core.events(bench.now, None).map(|event| event.id).collect::<Vec<_>>(), [next_day]);
    let later = push(&mut bench);
    bench.pass(DAY);
    assert_eq!([first, next_day, later].map(|event| shown(&bench, event)), [false, false, true]);
    bench.pass(2 * DAY);
    assert!(bench.core.events(bench.now, None).next().is_none() && !bench.has_retention_timer());
}

#[test]
fn runs_that_have_not_ended_stay_until_they_have() {
    let mut bench = Bench::keeping(TimeDelta::hours(1));
    bench.put(TaskDefinition { schedule_timeout: Some("1000h".into()), ..task() });
    let (waiting, ended) = (bench.trigger(), bench.trigger());
    bench.finish(ended);
    bench.pass(5 * DAY);
    assert_eq!((bench.rest(waiting), bench.is_kept(ended)), (Queued, false));
    bench.finish(waiting);
    assert_eq!(bench.rest(waiting), Completed);
    bench.pass(DAY);
    assert!(!bench.is_kept(waiting) && !bench.has_retention_timer());
}

#[test]
fn a_run_without_end_wakes_the_engine_once_a_day() {
    let mut bench = Bench::keeping(TimeDelta::days(1));
    bench.put(TaskDefinition { schedule_timeout: Some("10000h".into()), ..task() });
    bench.trigger();
    let (end, mut wakes) = (bench.now + 100 * DAY, 0);
    while let Some(at) = bench.core.next_timer().filter(|at| *at < end) {
        bench.now = at;
        bench.turn(|_, _| ());
        wakes += 1;
    }
    assert_eq!(wakes, 99);
}

#[test]
fn without_a_retention_nothing_is_dropped() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(task());
    let run = bench.trigger();
    bench.finish(run);
    assert!(bench.core.next_timer().is_none());
    bench.pass(1000 * DAY);
    assert!(bench.is_kept(run));
}

#[test]
fn dags_and_children_are_dropped_with_their_tasks() {
    let mut bench = Bench::keeping(TimeDelta::hours(1));
    bench.put_all(vec![named("a", &[]), named("b", &["a"])], None).unwrap();
    let dag = bench.trigger();
    let tasks = ["a", "b"].map(|name| bench.of(dag, name).id);
    let parent = ParentLink { task: tasks[0], index: Some(0), key: None };
    let child = Trigger { parent: Some(parent.clone()), ..trigger(None) };
    let child = bench.turn(|core, turn| core.trigger(turn, vec![child])).unwrap()[0];
    for run in [dag, child] {
        bench.turn(|core, turn| core.cancel(turn, &[run]));
    }
    bench.pass(2 * DAY);
    assert!(!bench.is_kept(dag) && !bench.is_kept(child));
    assert!(tasks.iter().all(|task| bench.core.find_task(*task).is_none()));
    let orphan = Trigger { parent: Some(parent), ..trigger(None) };
    let rejection = bench.turn(|core, turn| core.trigger(turn, vec![orphan])).unwrap_err();
    assert_eq!(rejection, StatusError::not_found("not found"));
}
