//! Runs that tasks start.

use crate::embedded::core::store::{Code, ParentLink};
use crate::embedded::core::tests::*;
use crate::embedded::quirks::Quirk;

fn child(parent: Uuid, index: Option<i32>, key: Option<&str>) -> Trigger {
    let metadata = serde_json::Map::from_iter([("own".to_owned(), "o".into())]);
    let parent = Some(ParentLink { task: parent, index, key: key.map(Into::into) });
    Trigger { metadata, parent, ..trigger(None) }
}

/// A running parent, and a worker with free slots for its children.
fn parent(quirks: Quirks) -> (Bench, Uuid) {
    let mut bench = Bench::new(quirks);
    bench.worker(10);
    let id = bench.started(task());
    bench.effects();
    (bench, id)
}

impl Bench {
    fn start(&mut self, triggers: Vec<Trigger>) -> Result<Vec<Uuid>, StatusError> {
        self.turn(|core, turn| core.trigger(turn, triggers))
    }

    fn child(&mut self, parent: Uuid, index: Option<i32>, key: Option<&str>) -> Uuid {
        self.start(vec![child(parent, index, key)]).unwrap()[0]
    }
}

#[test]
fn a_child_knows_its_parent_and_has_its_metadata() {
    let (mut bench, id) = parent(Quirks::none());
    let child_id = bench.child(id, Some(0), Some("k"));
    let (_, action) = bench.actions().remove(0);
    assert_eq!(action.parent, Some(ParentLink { task: id, index: Some(0), key: Some("k".into()) }));
    let read = |run| serde_json::from_str::<serde_json::Value>(&bench.run(run).metadata).unwrap();
    let (mine, parents) = (read(child_id), read(id));
    assert_eq!((&mine["own"], &mine["tag"]), (&"o".into(), &"x".into()));
    assert_eq!(mine["traceparent"], parents["traceparent"]);
    for key in ["hatchet__parent_step_run_id", "hatchet__parent_workflow_run_id"] {
        assert_eq!(mine[key], id.to_string());
    }
    // A grandchild inherits the other keys, and has the ids of its own parent.
    let grandchild = bench.child(child_id, None, None);
    let read: serde_json::Value = serde_json::from_str(&bench.run(grandchild).metadata).unwrap();
    assert_eq!((&read["tag"], &read["hatchet__parent_step_run_id"]), (&"x".into(), &child_id.to_string().into()));
}

#[test]
fn the_task_of_a_dag_is_a_parent_and_its_run_is_not() {
    let mut bench = Bench::new(Quirks::none());
    bench.put_all(vec![named("a", &[]), named("b", &["a"])], None).unwrap();
    let run = bench.trigger();
    let (a, b) = (bench.of(run, "a").id, bench.of(run, "b").id);
    let child_id = bench.child(a, Some(1), None);
    let metadata: serde_json::Value = serde_json::from_str(&bench.run(child_id).metadata).unwrap();
    assert_eq!(metadata["hatchet__parent_step_run_id"], a.to_string());
    assert_eq!(metadata["hatchet__parent_workflow_run_id"], run.to_string());
    // Nor is a task that has not been created.
    for nobody in [run, b, Uuid::from_u128(7)] {
        let rejection = bench.start(vec![trigger(None), child(nobody, None, None)]).unwrap_err();
        assert_eq!((rejection.code, &*rejection.message), (Code::NotFound, "not found"));
    }
    assert_eq!(bench.core.runs().len(), 2);
}

#[test]
fn the_same_child_is_started_once() {
    let (mut bench, id) = parent(Quirks::none());
    let first = bench.child(id, Some(1), None);
    assert_eq!(bench.child(id, Some(1), None), first);
    // Keys and indexes share one namespace, and a key has precedence over an index.
    assert_eq!(bench.child(id, Some(9), Some("1")), first);
    let keyed = bench.child(id, Some(2), Some("K"));
    assert_eq!(bench.child(id, Some(5), Some("K")), keyed);
    assert_ne!(bench.child(id, Some(2), None), keyed);
    // Without an index, no child is found again.
    assert_ne!(bench.child(id, None, Some("1")), first);
    assert_ne!(bench.child(id, None, None), bench.child(id, None, None));
}

#[test]
fn it_is_found_however_it_and_its_parent_have_ended() {
    let (mut bench, id) = parent(Quirks::none());
    let child_id = bench.child(id, Some(0), None);
    bench.report(child_id, ReportKind::Failed, 0, "no");
    bench.report(id, ReportKind::Completed, 0, "{}");
    assert_eq!(bench.child(id, Some(0), None), child_id);
    assert_eq!(bench.rest(child_id), RestStatus::Failed);
    let late = bench.child(id, Some(1), None);
    assert_eq!(bench.rest(late), RestStatus::Running);
    // A cancelled child stays the same child, and can be replayed.
    bench.turn(|core, turn| core.cancel(turn, &[late]));
    assert_eq!((bench.child(id, Some(1), None), bench.rest(late)), (late, RestStatus::Cancelled));
    bench.turn(|core, turn| core.replay(turn, &[late]));
    assert_eq!(bench.rest(late), RestStatus::Running);
    // A replay of the parent starts none of them again.
    bench.turn(|core, turn| core.replay(turn, &[id]));
    assert_eq!(bench.child(id, Some(0), None), child_id);
    // After its cancellation, new ones can still be started.
    bench.turn(|core, turn| core.cancel(turn, &[id]));
    let new = bench.child(id, Some(2), None);
    assert_eq!(bench.rest(new), RestStatus::Running);
}

#[test]
fn of_another_workflow_it_is_the_same_child() {
    let (mut bench, id) = parent(Quirks::none());
    bench.put_with("other", task(), WorkflowOptions::default()).unwrap();
    let first = bench.child(id, Some(0), None);
    let other = Trigger { workflow: "other".into(), ..child(id, Some(0), None) };
    assert_eq!(bench.start(vec![other]).unwrap(), [first]);
}

#[test]
fn its_own_metadata_wins_and_keys_of_the_engine_are_not_inherited() {
    let mut bench = Bench::new(Quirks::none());
    bench.worker(10);
    bench.put(task());
    let metadata =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    let root = Trigger {
        metadata: metadata(&[("own", "parent's"), ("hatchet__x", "y"), ("hatchet__parent_step_run_id", "as sent")]),
        ..trigger(None)
    };
    let id = bench.start(vec![root]).unwrap()[0];
    let child_id = bench.child(id, Some(0), None);
    let read = |run| serde_json::from_str::<serde_json::Value>(&bench.run(run).metadata).unwrap();
    assert_eq!(read(id)["hatchet__parent_step_run_id"], "as sent");
    assert_eq!((&read(child_id)["own"], read(child_id).get("hatchet__x")), (&"o".into(), None));
}

#[test]
fn its_priority_is_its_workflows_and_not_its_parents() {
    let mut bench = Bench::new(Quirks::none());
    bench.worker(10);
    bench.put(task());
    let id = bench.start(vec![Trigger { priority: Some(2), ..trigger(None) }]).unwrap()[0];
    let child_id = bench.child(id, Some(0), None);
    assert_eq!((bench.run(id).priority, bench.run(child_id).priority), (2, 3));
}

#[test]
fn a_cancelled_parent_leaves_its_children_alone() {
    let (mut bench, id) = parent(Quirks::none());
    let child_id = bench.child(id, Some(0), None);
    bench.effects();
    bench.turn(|core, turn| core.cancel(turn, &[id]));
    let sent: Vec<_> = bench.actions().into_iter().map(|(_, action)| (action.task, action.cancel)).collect();
    assert_eq!((sent, bench.rest(child_id)), (vec![(id, true)], RestStatus::Running));
}

#[test]
fn so_does_a_parent_that_ends_or_restarts() {
    for (retries, kind, end) in [
        (0, ReportKind::Completed, RestStatus::Completed),
        (0, ReportKind::Failed, RestStatus::Failed),
        (1, ReportKind::Failed, RestStatus::Running),
    ] {
        let mut bench = Bench::new(Quirks::all());
        let (worker, _) = bench.worker(10);
        let id = bench.started(TaskDefinition { retries, ..task() });
        let child_id = bench.child(id, Some(0), None);
        bench.effects();
        bench.report(id, kind, 0, "{}");
        bench.pass_with_heartbeats(worker, seconds(10));
        let sent: Vec<_> = bench.actions().into_iter().map(|(_, action)| action.task).collect();
        assert_eq!((bench.rest(id), sent), (end, vec![id; usize::try_from(retries).unwrap()]), "{kind:?} {retries}");
        assert_eq!(
            (bench.rest(child_id), bench.task(child_id).retry_count),
            (RestStatus::Running, 0),
            "{kind:?} {retries}"
        );
    }
}

#[test]
fn so_it_does_with_a_dag_as_a_child() {
    let (mut bench, id) = parent(Quirks::none());
    bench.define("dag", vec![named("a", &[]), named("b", &["a"])], None, WorkflowOptions::default()).unwrap();
    let of_dag = Trigger { workflow: "dag".into(), ..child(id, Some(0), None) };
    let child_id = bench.start(vec![of_dag]).unwrap()[0];
    bench.turn(|core, turn| core.cancel(turn, &[id]));
    assert_eq!(bench.run(child_id).rest_status(), RestStatus::Running);
}

#[test]
fn the_input_of_the_second_call_is_dropped() {
    let (mut bench, id) = parent(Quirks::none());
    let child_id = bench.child(id, Some(0), None);
    let (input, metadata) = (bench.run(child_id).input.clone(), bench.run(child_id).metadata.clone());
    let again = Trigger {
        input: serde_json::json!({"other": 1}),
        metadata: serde_json::Map::from_iter([("other".to_owned(), "o".into())]),
        ..child(id, Some(0), None)
    };
    assert_eq!(bench.start(vec![again]).unwrap(), [child_id]);
    assert_eq!((&bench.run(child_id).input, &bench.run(child_id).metadata), (&input, &metadata));
}

#[test]
fn twice_in_one_call_is_two_children() {
    let (mut bench, id) = parent(Quirks::none());
    bench.effects();
    let both = bench.start(vec![child(id, Some(0), None), child(id, Some(0), None)]).unwrap();
    assert_ne!(both[0], both[1]);
    assert_eq!(bench.actions().len(), 2, "both run");
    assert_eq!(bench.child(id, Some(0), None), both[0]);
}

#[test]
fn a_known_child_among_new_ones_runs_again_as_a_quirk() {
    for (quirks, starts) in [(Quirks::none(), 1), (Quirks::none().with(Quirk::RestartedChildren), 2)] {
        let (mut bench, id) = parent(quirks);
        let child_id = bench.child(id, Some(0), None);
        bench.report(child_id, ReportKind::Completed, 0, r#"{"old": 1}"#);
        bench.effects();
        // Without new runs in the call, it is only found.
        assert_eq!(
            bench.start(vec![child(id, Some(0), None), child(id, Some(0), None)]).unwrap(),
            [child_id, child_id]
        );
        assert!(bench.actions().is_empty());

        // As in other runs, an input that is not an object is not stored.
        let new = Trigger { input: serde_json::json!([2]), ..child(id, Some(0), None) };
        let ids = bench.start(vec![new, child(id, Some(1), None)]).unwrap();
        assert_eq!(ids[0], child_id);
        let given = bench.actions();
        assert_eq!((given.len(), bench.core.children(id).count()), (starts, 1 + starts));
        if starts == 2 {
            let again = &given.iter().find(|(_, action)| action.task == child_id).unwrap().1;
            assert!(again.payload.contains(r#""input":null"#) && again.retry_count == 0, "{}", again.payload);
            bench.report(child_id, ReportKind::Completed, 0, r#"{"new": 1}"#);
            assert_eq!(bench.task(child_id).grpc_view(bench.now).output, Some(r#"{"old": 1}"#));
            assert_eq!(bench.task(child_id).finals.len(), 2);
        }
    }
}

#[test]
fn of_children_started_in_one_round_two_are_created_as_a_quirk() {
    for (quirks, runs) in [(Quirks::none(), 1), (Quirks::none().with(Quirk::RacingChildren), 2)] {
        let (mut bench, id) = parent(quirks);
        bench.at_once = true;
        let all: std::collections::BTreeSet<_> = (0..8).map(|_| bench.child(id, Some(0), None)).collect();
        bench.at_once = false;
        assert_eq!((all.len(), bench.actions().len(), bench.core.children(id).count()), (runs, runs, runs));
        let later = bench.child(id, Some(0), None);
        assert!(all.contains(&later) && bench.actions().is_empty(), "one that comes later is the same again");
    }
}
