//! Events.

use serde_json::{Value, json};

use crate::embedded::core::store::{Filter, PushedEvent};
use crate::embedded::core::tests::*;
use crate::embedded::quirks::Quirk;

fn pushed(key: &str, payload: Value) -> PushedEvent {
    PushedEvent { key: key.into(), payload, metadata: json!({"own": "x"}), priority: None, scope: None }
}

fn listens(events: &[&str]) -> WorkflowOptions {
    WorkflowOptions { events: events.iter().map(|key| (*key).to_owned()).collect(), ..WorkflowOptions::default() }
}

fn filter(expression: &str, scope: &str, payload: Value) -> Filter {
    Filter::new(expression.into(), scope.into(), payload).unwrap()
}

impl Bench {
    fn push(&mut self, pushed: PushedEvent) -> Vec<(Uuid, Option<Uuid>)> {
        let (id, _) = self.turn(|core, turn| core.push(turn, pushed));
        self.core.event(id, self.now).unwrap().runs.clone()
    }
}

#[test]
fn each_matching_trigger_of_each_workflow_has_a_run() {
    let mut bench = Bench::new(Quirks::none());
    bench.put_with("one", task(), listens(&["k:*", "k:o*"])).unwrap();
    bench.put_with("two", task(), listens(&["k:one"])).unwrap();
    bench.put_with("three", task(), listens(&["other"])).unwrap();
    let runs = bench.push(pushed("k:one", json!({})));
    let names: Vec<_> = runs.iter().map(|(run, _)| &*bench.run(*run).version.name).collect();
    assert_eq!(names, ["one", "one", "two"]);
    assert!(bench.push(pushed("nobody", json!({}))).is_empty());
}

#[test]
fn the_run_has_the_payload_and_refers_to_its_event() {
    let mut bench = Bench::new(Quirks::none());
    bench.put_with("w", task(), listens(&["k"])).unwrap();
    bench.worker(10);
    let metadata = json!({
        "own": "x", "hatchet__event_id": "lie", "hatchet__source_workflow_run_id": "kept",
        "hatchet__cron_name": "lie", "hatchet__x": "lie", "hatchet__source_step_run_id": "lie",
    });
    let event = PushedEvent { metadata, priority: Some(3), ..pushed("k", json!({"n": 1})) };
    let (id, _) = bench.turn(|core, turn| core.push(turn, event));
    let (_, action) = bench.actions().remove(0);
    let sent = action.event.unwrap();
    assert_eq!((sent.id, &*sent.key, action.priority), (id, "k", 3));
    assert!(action.payload.starts_with(r#"{"input":{"n":1},"triggered_by":"manual""#), "{}", action.payload);
    assert!(action.payload.contains(r#""triggers":{"filter_payload":null}"#), "{}", action.payload);
    let metadata: Value = serde_json::from_str(&action.metadata).unwrap();
    let mut keys: Vec<_> = metadata.as_object().unwrap().keys().collect();
    keys.sort();
    // Other reserved keys of the client are removed.
    let source = "hatchet__source_workflow_run_id";
    assert_eq!(keys, ["hatchet__event_id", "hatchet__event_key", source, "own", "traceparent"]);
    assert_eq!((&metadata["own"], &metadata["hatchet__source_workflow_run_id"]), (&json!("x"), &json!("kept")));
    assert_eq!(
        (&metadata["hatchet__event_id"], &metadata["hatchet__event_key"]),
        (&json!(id.to_string()), &json!("k"))
    );
    assert!(metadata["traceparent"].is_string());
    // Each run of an event has its own.
    bench.put_with("second", task(), listens(&["k"])).unwrap();
    let sent = PushedEvent { metadata: json!({"traceparent": "sent"}), ..pushed("k", json!({})) };
    let traces: std::collections::HashSet<_> = bench
        .push(sent)
        .into_iter()
        .map(|(run, _)| serde_json::from_str::<Value>(&bench.run(run).metadata).unwrap()["traceparent"].to_string())
        .collect();
    assert!(traces.len() == 2 && !traces.contains("\"sent\""), "{traces:?}");

    // The default is the workflow's priority.
    let runs = bench.push(pushed("k", json!([1])));
    assert_eq!(bench.run(runs[0].0).priority, 3);
    assert_eq!(&*bench.run(runs[0].0).input, "null");
}

#[test]
fn every_task_of_a_dag_refers_to_its_event() {
    let mut bench = Bench::new(Quirks::none());
    let rules = WorkflowOptions { filters: vec![filter("true", "A", json!({"q": 1}))], ..listens(&["k"]) };
    bench.define("w", vec![named("a", &[]), named("b", &["a"])], Some(named("f", &[])), rules).unwrap();
    bench.worker(10);
    let (id, _) =
        bench.turn(|core, turn| core.push(turn, PushedEvent { scope: Some("A".into()), ..pushed("k", json!({})) }));
    let run = bench.core.event(id, bench.now).unwrap().runs[0].0;
    for (name, kind) in [("a", ReportKind::Completed), ("b", ReportKind::Failed), ("f", ReportKind::Completed)] {
        let (_, action) = bench.actions().remove(0);
        let sent = action.event.unwrap();
        assert_eq!((&*action.readable_id, sent.id, &*sent.key), (name, id, "k"));
        let payload: Value = serde_json::from_str(&action.payload).unwrap();
        assert_eq!(payload["triggers"], json!({"filter_payload": {"q": 1}}), "{name}");
        assert!(action.metadata.contains(&id.to_string()), "{name}");
        bench.report(bench.of(run, name).id, kind, 0, "{}");
    }
    assert!(bench.run(run).has_ended());
}

#[test]
fn filters_of_its_scope_decide() {
    let mut bench = Bench::new(Quirks::none());
    let filters = vec![
        filter("input.n > 1.0", "A", json!({"from": "first"})),
        filter("payload.q == 1 && event_key == 'k'", "A", json!({"q": 1})),
        filter("input.v >", "A", json!({})),
        filter("", "A", json!({})),
        filter("true", "", json!({})),
    ];
    bench.put_with("w", task(), WorkflowOptions { filters, ..listens(&["k"]) }).unwrap();
    let mut count = |scope: Option<&str>, n: i32| {
        let event = PushedEvent { scope: scope.map(Into::into), ..pushed("k", json!({"n": n})) };
        bench.push(event).iter().map(|(_, filter)| filter.unwrap()).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(
        [count(None, 2), count(Some("B"), 2), count(Some("A"), 1), count(Some("A"), 2), count(Some(""), 1)],
        [0, 0, 1, 2, 1]
    );

    // The worker gets its payload.
    bench.worker(10);
    let payloads: Vec<_> = bench.actions().into_iter().map(|(_, action)| action.payload).collect();
    assert!(payloads.iter().any(|payload| payload.contains(r#""filter_payload":{"from":"first"}"#)), "{payloads:?}");

    // A version without filters has those of the version before it.
    bench.put_with("w", TaskDefinition { retries: 1, ..task() }, listens(&["k"])).unwrap();
    assert!(bench.push(pushed("k", json!({"n": 2}))).is_empty());
}

#[test]
fn rest_shows_it_a_moment_later() {
    let mut bench = Bench::new(Quirks::none().with(Quirk::RestLag));
    let (id, _) = bench.turn(|core, turn| core.push(turn, pushed("k", json!({}))));
    assert!(bench.core.event(id, bench.now).is_none() && bench.core.events(bench.now, None).next().is_none());
    bench.pass(Duration::from_millis(120));
    assert!(bench.core.event(id, bench.now).is_some() && bench.core.events(bench.now, None).next().is_some());
}

#[test]
fn the_same_trigger_twice_is_rejected() {
    let mut bench = Bench::new(Quirks::none());
    assert_eq!(bench.put_with("w", task(), listens(&["k", "k"])).unwrap_err(), StatusError::internal());
    assert!(
        Filter::new("input.id.matches('a')".into(), String::new(), json!({})).is_err(),
        "and so is what cannot be followed"
    );
}
