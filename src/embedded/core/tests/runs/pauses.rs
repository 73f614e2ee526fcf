//! Pauses of workflows.

use serde_json::json;

use crate::embedded::core::store::{Concurrency, CronSpec, LimitStrategy, Pause, PausedRuns, ScheduledRun};
use crate::embedded::core::tests::*;
use crate::embedded::quirks::Quirk;

use RestStatus::{Cancelled, Completed, Queued, Running};

impl Bench {
    fn workflow(&self) -> Uuid {
        self.core.latest("w").unwrap().workflow
    }

    fn pause_workflow(&mut self, runs: PausedRuns, ttl: Duration) {
        let (id, from) = (self.workflow(), self.now);
        let pause = Pause { from, crons: runs, schedules: runs, ttl };
        self.turn(|core, turn| core.pause_workflow(turn, id, pause));
    }

    fn unpause_workflow(&mut self) {
        let id = self.workflow();
        self.turn(|core, turn| core.unpause_workflow(turn, id));
    }
}

#[test]
fn tasks_wait_for_the_end_of_a_pause() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(TaskDefinition { schedule_timeout: Some("30s".into()), ..task() });
    let before = bench.trigger();
    bench.pause_workflow(PausedRuns::Queue, seconds(600));
    let (worker, _) = bench.worker(5);
    let after = bench.trigger();
    bench.pass_with_heartbeats(worker, seconds(60));
    assert_eq!((bench.rest(before), bench.rest(after), bench.grpc(after)), (Queued, Queued, Queued));
    assert_eq!(bench.kinds(after), [("QUEUED", 0)], "they do not time out");
    bench.unpause_workflow();
    assert_eq!(bench.assigned().len(), 2);
    assert_eq!((bench.rest(before), bench.rest(after)), (Running, Running));
    bench.unpause_workflow();
    assert_eq!(bench.rest(after), Running);
}

#[test]
fn a_task_that_waits_too_long_for_the_end_is_cancelled() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(task());
    let (worker, _) = bench.worker(5);
    bench.pause_workflow(PausedRuns::Queue, seconds(3));
    let run = bench.trigger();
    bench.pass_with_heartbeats(worker, seconds(2));
    assert_eq!(bench.rest(run), Queued);
    bench.pass_with_heartbeats(worker, seconds(1));
    assert_eq!((bench.rest(run), bench.grpc(run)), (Cancelled, Cancelled));
    assert_eq!(bench.text(run, TaskEventKind::Cancelled), "paused workflow queue item TTL expired.");
    // One that waits can be cancelled and replayed.
    let run = bench.trigger();
    bench.turn(|core, turn| core.cancel(turn, &[run]));
    assert_eq!(bench.rest(run), Cancelled);
    bench.pause_workflow(PausedRuns::Queue, seconds(600));
    bench.turn(|core, turn| core.replay(turn, &[run]));
    assert_eq!(bench.rest(run), Queued);
    bench.unpause_workflow();
    assert_eq!(bench.rest(run), Running);
}

#[test]
fn running_tasks_and_other_workflows_go_on() {
    let mut bench = Bench::new(Quirks::none());
    bench.put_all(vec![named("a", &[]), named("b", &["a"])], None).unwrap();
    bench.worker(5);
    let run = bench.trigger();
    bench.pause_workflow(PausedRuns::Queue, seconds(600));
    let a = bench.of(run, "a").id;
    bench.report(a, ReportKind::Completed, 0, "{}");
    assert_eq!(bench.tasks(run), [("a", Queued), ("b", Queued)], "the next task of the run waits");
    bench.put_with("v", task(), WorkflowOptions::default()).unwrap();
    let other = bench.turn(|core, turn| core.trigger(turn, vec![Trigger { workflow: "v".into(), ..trigger(None) }]));
    assert_eq!(bench.rest(other.unwrap()[0]), Running);
    // What a pause held up runs after the workflow has been deleted.
    let id = bench.workflow();
    assert!(bench.turn(|core, turn| core.delete_workflow(turn, id)));
    let b = bench.of(run, "b").id;
    bench.report(b, ReportKind::Completed, 0, "{}");
    assert_eq!(bench.run(run).rest_status(), Completed);
}

#[test]
fn schedules_and_crons_are_queued_or_dropped() {
    for runs in [PausedRuns::Queue, PausedRuns::Drop] {
        let mut bench = Bench::new(Quirks::none());
        bench.put(task());
        let (worker, _) = bench.worker(50);
        let what = ScheduledRun { workflow: "w".into(), input: json!({}), metadata: None, priority: None };
        let at = bench.now + TimeDelta::seconds(5);
        bench.turn(|core, turn| core.schedule(turn, &what, &[at])).unwrap();
        let spec = CronSpec {
            workflow: "w".into(),
            name: "c".into(),
            expression: "*/4 * * * * *".into(),
            input: None,
            metadata: None,
            priority: None,
        };
        bench.turn(|core, turn| core.create_cron(turn, spec)).unwrap();
        bench.pause_workflow(runs, seconds(600));
        bench.pass_with_heartbeats(worker, seconds(9));
        let queued = runs == PausedRuns::Queue;
        assert_eq!(bench.core.runs().len(), if queued { 3 } else { 0 });
        assert_eq!(bench.core.all_schedules().len(), usize::from(!queued), "it waits for the end of the pause");
        bench.unpause_workflow();
        bench.pass(Duration::ZERO);
        assert_eq!((bench.core.runs().len(), bench.core.all_schedules().len()), (if queued { 3 } else { 1 }, 0));
        assert!(bench.core.runs().newest_first(None).all(|run| run.rest_status() == Running));
    }
}

#[test]
fn a_limited_task_keeps_its_slot_while_it_is_paused() {
    let mut bench = Bench::new(Quirks::none());
    let limit = Concurrency::new("'x'".into(), None, Some(LimitStrategy::GroupRoundRobin), None).unwrap();
    bench.put(TaskDefinition { concurrency: vec![limit], ..task() });
    bench.worker(5);
    bench.pause_workflow(PausedRuns::Queue, seconds(600));
    let runs = [bench.trigger(), bench.trigger()];
    bench.unpause_workflow();
    assert_eq!(runs.map(|run| bench.rest(run)), [Running, Queued]);
    bench.report(runs[0], ReportKind::Completed, 0, "{}");
    assert_eq!(bench.rest(runs[1]), Running);
}

#[test]
fn a_pause_is_late_as_a_quirk() {
    let mut bench = Bench::new(Quirk::LatePause.into());
    bench.put(task());
    let (worker, _) = bench.worker(5);
    let first = bench.trigger();
    bench.pause_workflow(PausedRuns::Queue, seconds(600));
    let second = bench.trigger();
    bench.pass_with_heartbeats(worker, Duration::from_millis(3400));
    let third = bench.trigger();
    assert_eq!([first, second, third].map(|run| bench.rest(run)), [Running, Running, Queued]);
    // Without a run in the five seconds before, it is not.
    bench.unpause_workflow();
    bench.pass_with_heartbeats(worker, seconds(6));
    bench.pause_workflow(PausedRuns::Queue, seconds(600));
    let fourth = bench.trigger();
    assert_eq!(bench.rest(fourth), Queued);
}
