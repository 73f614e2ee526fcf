//! Idempotency keys.

use serde_json::json;

use crate::embedded::core::store::{Code, Collision, Collisions, Idempotency, ParentLink};
use crate::embedded::core::tests::*;
use crate::embedded::quirks::Quirk;

const TTL: i32 = 0;
const STATUS: i32 = 1;

fn once(method: i32) -> WorkflowOptions {
    let idempotency = Idempotency::new("input.key".into(), 8000, method).unwrap();
    WorkflowOptions { idempotency: Some(idempotency), ..WorkflowOptions::default() }
}

fn keyed(key: impl Into<serde_json::Value>) -> Trigger {
    let key = key.into();
    Trigger { input: json!({ "key": key }), ..trigger(None) }
}

fn bench(quirks: Quirks, method: i32) -> Bench {
    let mut bench = Bench::new(quirks);
    bench.put_with("w", TaskDefinition { retries: 1, ..task() }, once(method)).unwrap();
    bench
}

impl Bench {
    fn claim(&mut self, keys: &[&str]) -> Result<Vec<Uuid>, Collisions> {
        let triggers = keys.iter().map(|key| keyed(*key)).collect();
        self.turn(|core, turn| core.trigger(turn, triggers)).map_err(|rejected| match rejected.code {
            Code::AlreadyExists(found) => *found,
            code => panic!("{code:?}"),
        })
    }

    fn existing(&mut self, key: &str) -> Option<Uuid> {
        self.claim(&[key]).err().map(|found| found.collisions[0].existing)
    }
}

#[test]
fn a_key_expires() {
    let mut bench = bench(Quirks::none(), TTL);
    bench.worker(1);
    let first = bench.claim(&["a"]).unwrap()[0];
    assert_eq!(bench.existing("a"), Some(first));
    assert_eq!(bench.existing("b"), None);
    bench.report(first, ReportKind::Completed, 0, "{}");
    assert_eq!(bench.existing("a"), Some(first), "though the run has ended");
    bench.pass(Duration::from_millis(7999));
    assert_eq!(bench.existing("a"), Some(first));
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.existing("a"), None);
}

#[test]
fn the_end_of_a_run_frees_a_key_of_its_kind() {
    let mut bench = bench(Quirks::none(), STATUS);
    bench.worker(1);
    let first = bench.claim(&["a"]).unwrap()[0];
    bench.report(first, ReportKind::Failed, 0, "no");
    assert_eq!(bench.existing("a"), Some(first), "there is another attempt");
    bench.report(first, ReportKind::Failed, 1, "no");
    let second = bench.claim(&["a"]).unwrap()[0];
    bench.turn(|core, turn| core.cancel(turn, &[second]));
    assert!(bench.claim(&["a"]).is_ok());
}

#[test]
fn a_run_whose_key_cannot_be_evaluated_is_never_created_in_a_bulk() {
    let mut bench = bench(Quirks::none().with(Quirk::NeverCreatedRuns), TTL);
    let triggers = vec![Trigger { input: json!({}), ..trigger(None) }, keyed("a")];
    let ids = bench.turn(|core, turn| core.trigger(turn, triggers)).unwrap();
    let found: Vec<_> = ids.iter().map(|id| bench.core.find_run(*id).is_some()).collect();
    assert_eq!((found, bench.core.runs().len()), (vec![false, true], 1));
}

#[test]
fn an_event_with_a_key_that_is_taken_starts_nothing() {
    let mut bench = Bench::new(Quirks::none());
    let rules = WorkflowOptions { events: vec!["k".into()], ..once(TTL) };
    bench.put_with("w", task(), rules).unwrap();
    let pushed = || crate::embedded::core::store::PushedEvent {
        key: "k".into(),
        payload: json!({"key": "a"}),
        metadata: json!({}),
        priority: None,
        scope: None,
    };
    for runs in [1, 0] {
        let (id, _) = bench.turn(|core, turn| core.push(turn, pushed()));
        assert_eq!(bench.core.event(id, bench.now).unwrap().runs.len(), runs);
    }
}

#[test]
fn a_replay_does_not_take_its_key_again() {
    let mut bench = bench(Quirks::none(), STATUS);
    bench.worker(10);
    let first = bench.claim(&["a"]).unwrap()[0];
    bench.report(first, ReportKind::Completed, 0, "{}");
    bench.turn(|core, turn| core.replay(turn, &[first]));
    // A new run takes the key, which does not affect another replay.
    let second = bench.claim(&["a"]).unwrap()[0];
    assert_eq!((bench.rest(first), bench.rest(second)), (RestStatus::Running, RestStatus::Running));
    bench.report(first, ReportKind::Completed, 1, "{}");
    assert_eq!(bench.existing("a"), Some(second));
    bench.turn(|core, turn| core.replay(turn, &[first]));
    assert_eq!(bench.rest(first), RestStatus::Running);
}

#[test]
fn a_dag_keeps_its_key_until_it_has_ended_or_its_first_task_has() {
    for (quirks, early) in [(Quirks::none(), false), (Quirks::none().with(Quirk::EarlyFreeKeys), true)] {
        let mut bench = bench(quirks, STATUS);
        bench.define("w", vec![named("a", &[]), named("b", &["a"])], Some(named("f", &[])), once(STATUS)).unwrap();
        bench.worker(10);
        let first = bench.claim(&["a"]).unwrap()[0];
        assert_eq!(bench.existing("a"), Some(first));
        bench.report(bench.of(first, "a").id, ReportKind::Completed, 0, "{}");
        assert!(!bench.run(first).has_ended());
        assert_eq!(bench.existing("a").is_none(), early, "{quirks:?}");
        // A run does not free a key that another run has.
        let holder = bench.existing("a");
        bench.report(bench.of(first, "b").id, ReportKind::Completed, 0, "{}");
        assert!(bench.run(first).has_ended());
        assert_eq!(bench.existing("a"), holder.filter(|_| early), "{quirks:?}");
    }
}

#[test]
fn a_known_child_needs_no_key() {
    let mut bench = bench(Quirks::none(), TTL);
    bench.worker(10);
    let parent = bench.claim(&["parent"]).unwrap()[0];
    let child = |index: i32, key: serde_json::Value| {
        let parent = Some(ParentLink { task: parent, index: Some(index), key: None });
        vec![Trigger { parent, ..keyed(key) }]
    };
    let child_ids = bench.turn(|core, turn| core.trigger(turn, child(0, json!("a")))).unwrap();
    for key in [json!("a"), json!("parent"), json!(5)] {
        assert_eq!(bench.turn(|core, turn| core.trigger(turn, child(0, key))).unwrap(), child_ids);
    }
    let rejected = bench.turn(|core, turn| core.trigger(turn, child(1, json!("a")))).unwrap_err();
    assert!(matches!(rejected.code, Code::AlreadyExists(found) if found.collisions[0].existing == child_ids[0]));
}

#[test]
fn what_a_child_inherits_may_be_its_key() {
    let mut bench = bench(Quirks::none(), TTL);
    let parent = bench.claim(&["parent"]).unwrap()[0];
    let idempotency = Idempotency::new("additional_metadata.tag".into(), 8000, TTL).unwrap();
    bench
        .put_with("child", task(), WorkflowOptions { idempotency: Some(idempotency), ..WorkflowOptions::default() })
        .unwrap();
    let parent = Some(ParentLink { task: parent, index: Some(0), key: None });
    let trigger = Trigger { workflow: "child".into(), metadata: serde_json::Map::new(), parent, ..trigger(None) };
    let child_id = bench.turn(|core, turn| core.trigger(turn, vec![trigger])).unwrap()[0];
    assert_eq!(bench.run(child_id).key(), Some("x"));
}

#[test]
fn workflows_share_their_keys() {
    let mut bench = bench(Quirks::none(), TTL);
    bench.put_with("other", task(), once(TTL)).unwrap();
    let first = bench.claim(&["a"]).unwrap()[0];
    let trigger = Trigger { workflow: "other".into(), ..keyed("a") };
    let rejected = bench.turn(|core, turn| core.trigger(turn, vec![trigger])).unwrap_err();
    let Code::AlreadyExists(found) = rejected.code else { panic!("{rejected:?}") };
    assert_eq!((found.collisions[0].existing, rejected.message.as_str()), (first, "idempotency key collision"));
}

#[test]
fn runs_without_a_collision_are_started() {
    let mut bench = bench(Quirks::none().with(Quirk::NeverCreatedRuns), TTL);
    let first = bench.claim(&["a"]).unwrap()[0];
    let keys = [json!("b"), json!("a"), json!(5), json!("c"), json!("c")];
    let triggers = keys.into_iter().map(keyed).collect();
    let rejected = bench.turn(|core, turn| core.trigger(turn, triggers)).unwrap_err();
    let Code::AlreadyExists(found) = rejected.code else { panic!("{rejected:?}") };
    let Collisions { successful, collisions } = *found;
    let exist: Vec<_> = successful.iter().map(|id| bench.core.find_run(*id).is_some()).collect();
    assert_eq!(exist, [true, false, true], "a run that is never created is among them");
    let existing: Vec<_> = collisions.iter().map(|Collision { existing, .. }| *existing).collect();
    assert_eq!(existing, [first, successful[2]]);
    assert!(collisions.iter().all(|one| bench.core.find_run(one.colliding).is_none()));
}

#[test]
fn a_run_whose_key_cannot_be_evaluated_is_never_created_or_is_rejected() {
    for key in [json!(null), json!(5), json!("hatchet_internal_x"), json!({})] {
        let mut shown = bench(Quirks::none().with(Quirk::NeverCreatedRuns), TTL);
        let ids = shown.turn(|core, turn| core.trigger(turn, vec![keyed(key.clone())])).unwrap();
        assert!(shown.core.find_run(ids[0]).is_none(), "{key}");
        let mut hidden = bench(Quirks::none(), TTL);
        let rejected = hidden.turn(|core, turn| core.trigger(turn, vec![keyed(key)])).unwrap_err();
        assert_eq!(rejected, StatusError::invalid("the idempotency key of a run of w cannot be evaluated"));
    }
    let mut bench = bench(Quirks::none(), TTL);
    assert_eq!([bench.existing("").is_some(), bench.existing("").is_some()], [false, true], "an empty key is one");
}

#[test]
fn expired_keys_are_removed() {
    let mut bench = bench(Quirks::none(), TTL);
    for n in 0..5000 {
        bench.claim(&[&format!("{n}")]).unwrap();
        bench.now += TimeDelta::seconds(1);
    }
    assert!(bench.core.keys.count() <= 1024, "{}", bench.core.keys.count());
}

#[test]
fn what_is_rejected() {
    let rejection = |text: &str, ttl: i64, method: i32| {
        let rules = WorkflowOptions {
            idempotency: Some(Idempotency::new(text.into(), ttl, method).unwrap()),
            ..WorkflowOptions::default()
        };
        Bench::new(Quirks::none()).put_with("w", task(), rules).unwrap_err().message
    };
    for (found, problem) in [
        (rejection("", 1, 0), "Expression': on condition 'required'\n"),
        (rejection("input.", 1, 0), "Expression': Invalid CEL expression\n"),
        (rejection("input.a", 0, 0), "TTLMs': on condition 'required'\n"),
        (rejection("input.a", -5, 0), "TTLMs': on condition 'min' [ 1 ]: got invalid type\n"),
        (rejection("input.a", 1, 7), "Method': on condition 'oneof' [ TTL STATUS ]: got invalid type\n"),
    ] {
        let start = "Validation failed with the following errors:\n0: validation failed on field 'CreateWorkflowVersionOpts.Idempotency.";
        assert_eq!(found, format!("{start}{problem}"));
    }
    let rejected = Idempotency::new("'a'.format([1])".into(), 1, 0).unwrap_err();
    assert_eq!(rejected.message, "the embedded engine does not implement the CEL expression `'a'.format([1])` yet");
}
