//! Which worker is assigned which task.

use crate::embedded::core::store::{Comparator, DesiredLabel, Label, RunOptions, Sticky};
use crate::embedded::core::tests::*;

fn wanted(value: &str, required: bool) -> BTreeMap<String, DesiredLabel> {
    let wanted =
        DesiredLabel { value: Label::Text(value.into()), required, comparator: Comparator::Equal, weight: 100 };
    BTreeMap::from([("model".to_owned(), wanted)])
}

fn options(worker: Option<Uuid>, labels: BTreeMap<String, DesiredLabel>) -> Trigger {
    Trigger { options: Some(Box::new(RunOptions { worker, labels, ..RunOptions::default() })), ..trigger(None) }
}

impl Bench {
    fn labelled(&mut self, slots: i32, model: &str) -> (Uuid, StreamId) {
        let labels = BTreeMap::from([("model".to_owned(), Label::Text(model.into()))]);
        let worker =
            self.turn(|core, turn| core.register(turn, Registration { labels, ..registration(slots) })).unwrap();
        let stream = self.stream();
        self.turn(|core, _| core.listen(worker, stream)).unwrap();
        self.heartbeat(worker);
        (worker, stream)
    }

    fn go(&mut self, trigger: &Trigger, times: usize) -> Vec<StreamId> {
        self.turn(|core, turn| core.trigger(turn, vec![trigger.clone(); times])).unwrap();
        self.actions().into_iter().map(|(stream, _)| stream).collect()
    }
}

fn sticky(sticky: Sticky) -> WorkflowOptions {
    WorkflowOptions { sticky: Some(sticky), ..WorkflowOptions::default() }
}

#[test]
fn a_sticky_run_goes_to_its_desired_worker() {
    for kind in [Sticky::Soft, Sticky::Hard] {
        let mut bench = Bench::new(Quirks::none());
        bench.put_with("w", task(), sticky(kind)).unwrap();
        let (one, stream) = bench.worker(8);
        bench.worker(50);
        assert_eq!(bench.go(&options(Some(one), BTreeMap::new()), 8), vec![stream; 8]);
        // If that one is full or gone, the kind of stickiness decides.
        let others = bench.go(&options(Some(one), BTreeMap::new()), 1).len()
            + bench.go(&options(Some(Uuid::nil()), BTreeMap::new()), 1).len();
        assert_eq!(others, if kind == Sticky::Soft { 2 } else { 0 });
    }
}

#[test]
fn the_tasks_of_a_sticky_dag_go_where_their_parents_were() {
    for (kind, follows) in [(Some(Sticky::Soft), true), (Some(Sticky::Hard), true), (None, false)] {
        let mut bench = Bench::new(Quirks::none());
        let tasks = vec![named("a", &[]), named("b", &["a"]), named("c", &["b"])];
        bench.define("w", tasks, None, WorkflowOptions { sticky: kind, ..WorkflowOptions::default() }).unwrap();
        let (_, first) = bench.worker(3);
        let run = bench.trigger();
        // From now on there is a worker with more free slots.
        let (_, second) = bench.worker(50);
        let mut streams = vec![];
        for name in ["a", "b", "c"] {
            streams.extend(bench.actions().into_iter().map(|(stream, _)| stream));
            bench.report(bench.of(run, name).id, ReportKind::Completed, 0, "{}");
        }
        let later = if follows { first } else { second };
        assert_eq!(streams, [first, later, later], "{kind:?}");
    }
}

#[test]
fn a_desired_worker_has_no_effect_on_a_workflow_that_is_not_sticky() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(task());
    bench.worker(8);
    assert_eq!(bench.go(&options(Some(Uuid::nil()), BTreeMap::new()), 3).len(), 3);
}

#[test]
fn a_task_that_waits_for_its_worker_does_not_block_others() {
    let mut bench = Bench::new(Quirks::none());
    bench
        .put_with("w", TaskDefinition { schedule_timeout: Some("6s".into()), ..task() }, sticky(Sticky::Hard))
        .unwrap();
    bench.worker(8);
    let waiting =
        bench.turn(|core, turn| core.trigger(turn, vec![options(Some(Uuid::nil()), BTreeMap::new())])).unwrap()[0];
    assert_eq!(bench.go(&trigger(None), 3).len(), 3);
    assert_eq!(bench.kinds(waiting), [("QUEUED", 0), ("REQUEUED_NO_WORKER", 0)]);
    bench.pass(seconds(6));
    assert_eq!((bench.grpc(waiting), bench.rest(waiting)), (RestStatus::Cancelled, RestStatus::Failed));
}

#[test]
fn required_and_preferred_labels() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(TaskDefinition { labels: wanted("large", false), ..task() });
    let (_, small) = bench.labelled(50, "small");
    assert_eq!(bench.go(&trigger(None), 1), [small], "liked only");
    let (_, large) = bench.labelled(3, "large");
    assert_eq!(bench.go(&trigger(None), 4), [large, large, large, small], "the better first, until it is full");
    // The requirement of the run replaces that of the task.
    assert_eq!(bench.go(&options(None, wanted("small", false)), 2), [small, small]);
    assert_eq!(bench.go(&options(None, wanted("medium", true)), 2), []);

    // A worker that changes its label gets the waiting task at its next heartbeat.
    let (changing, stream) = bench.labelled(2, "none");
    let labels = BTreeMap::from([("model".to_owned(), Label::Text("medium".into()))]);
    bench.turn(|core, _| core.upsert_labels(changing, labels)).unwrap();
    bench.heartbeat(changing);
    assert_eq!(bench.actions().into_iter().map(|(stream, _)| stream).collect::<Vec<_>>(), [stream, stream]);
}

#[test]
fn without_requirements_any_worker_is_assigned() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(task());
    let (_, few) = bench.worker(1);
    let (_, many) = bench.worker(5);
    assert_eq!(bench.go(&trigger(None), 1), [many]);
    assert_eq!(bench.go(&trigger(None), 5).iter().filter(|stream| **stream == few).count(), 1);
}
