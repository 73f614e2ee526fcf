//! Schedules.

use serde_json::json;

use crate::embedded::core::store::ScheduledRun;
use crate::embedded::core::tests::*;
use crate::embedded::quirks::Quirk;

fn what() -> ScheduledRun {
    ScheduledRun {
        workflow: "w".into(),
        input: json!({"long": 1, "b": 2}),
        metadata: Some(json!({"k": "v"})),
        priority: None,
    }
}

impl Bench {
    fn schedule(&mut self, times: &[At]) -> Vec<Uuid> {
        let made = self.turn(|core, turn| core.schedule(turn, &what(), times)).unwrap();
        made.into_iter().map(|(id, _)| id).collect()
    }

    fn count(&self) -> usize {
        self.core.runs().len()
    }
}

#[test]
fn it_starts_its_run_at_its_time_and_disappears() {
    let mut bench = Bench::new(Quirks::all());
    bench.put(task());
    let at = bench.now + seconds(10);
    let ids = bench.schedule(&[at, at]);
    assert_ne!(ids[0], ids[1]);
    bench.pass(Duration::from_millis(9_999));
    assert_eq!(bench.count(), 0);
    bench.worker(10);
    bench.pass(Duration::from_millis(1));
    assert_eq!((bench.count(), bench.core.all_schedules().len()), (2, 0));
    let (_, action) = bench.actions().remove(0);
    // Shorter keys first, because it comes from the database.
    assert!(action.payload.contains(r#""input": {"b": 2, "long": 1}"#), "{}", action.payload);
    assert!(action.metadata.contains(r#""k": "v""#) && !action.metadata.contains("hatchet__"), "{}", action.metadata);
    assert_eq!(action.priority, 1);
}

#[test]
fn it_starts_a_dag() {
    let mut bench = Bench::new(Quirks::none());
    bench.put_all(vec![named("a", &[]), named("b", &["a"])], None).unwrap();
    bench.schedule(&[bench.now + seconds(1)]);
    bench.pass(seconds(1));
    bench.worker(10);
    assert_eq!(bench.assigned(), ["a"]);
    let run = bench.core.runs().newest_first(None).next().unwrap().id;
    bench.report(bench.of(run, "a").id, ReportKind::Completed, 0, r#"{"x": 1}"#);
    let (_, action) = bench.actions().remove(0);
    assert!(action.payload.contains(r#""parents": {"a": {"x": 1}}"#), "{}", action.payload);
}

#[test]
fn a_time_in_the_past_is_now_or_at_the_next_check() {
    for (quirks, wait) in [(Quirks::none(), 0), (Quirks::none().with(Quirk::LateSchedules), 2500)] {
        let mut bench = Bench::new(quirks);
        bench.put(task());
        bench.schedule(&[bench.now - TimeDelta::hours(1)]);
        bench.pass(Duration::from_millis(wait));
        assert_eq!(bench.count(), 1, "{quirks:?}");
        if wait > 0 {
            let created = bench.core.runs().newest_first(None).next().unwrap().created;
            assert_eq!(created, bench.now, "not before");
        }
    }
}

#[test]
fn it_can_be_moved_and_deleted() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(task());
    let ids = bench.schedule(&[bench.now + seconds(10), bench.now + seconds(10)]);
    let later = bench.now + seconds(60);
    assert!(bench.turn(|core, turn| core.reschedule(turn, ids[0], later)));
    assert!(bench.turn(|core, _| core.delete_schedule(ids[1])));
    assert!(!bench.turn(|core, _| core.delete_schedule(ids[1])));
    bench.pass(seconds(59));
    assert_eq!(bench.count(), 0);
    bench.pass(seconds(1));
    assert_eq!(bench.count(), 1);
    assert!(!bench.turn(|core, turn| core.reschedule(turn, ids[0], later)));
}

#[test]
fn moved_to_the_past_it_starts_once_at_the_next_check() {
    let mut bench = Bench::new(Quirks::none().with(Quirk::LateSchedules));
    bench.put(task());
    let ids = bench.schedule(&[bench.now + seconds(60)]);
    let past = bench.now - TimeDelta::hours(1);
    assert!(bench.turn(|core, turn| core.reschedule(turn, ids[0], past)));
    bench.pass(Duration::from_millis(1900));
    assert_eq!(bench.count(), 0);
    // Measured once: 2.0 s. The engine checks every five seconds.
    bench.pass(Duration::from_millis(600));
    assert_eq!(bench.count(), 1);
    bench.pass(seconds(120));
    assert_eq!(bench.count(), 1);
}

#[test]
fn it_uses_the_newest_version_but_not_its_priority() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(task());
    bench.schedule(&[bench.now + seconds(10)]);
    bench.put(TaskDefinition { retries: 2, ..task() });
    bench.pass(seconds(10));
    let run = bench.core.runs().newest_first(None).next().unwrap();
    assert_eq!((run.version.steps[0].definition.retries, run.priority), (2, 1));
}

#[test]
fn an_unknown_workflow_is_rejected() {
    let mut bench = Bench::new(Quirks::none());
    let rejected = bench.turn(|core, turn| core.schedule(turn, &what(), &[])).unwrap_err();
    assert_eq!(rejected, StatusError::not_found("workflow not found"));
}
