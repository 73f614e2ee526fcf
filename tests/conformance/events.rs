//! C2: events, and the other rows about them.

use std::collections::HashSet;
use std::time::Duration;

use hatchet::model::{EventId, Total, Trigger};
use hatchet::workflow::WorkflowRef;
use hatchet::{Context, ErrorKind, Priority, RunFilter, RunStatus, Task, TaskError};
use serde_json::{Value, json};

use crate::setup::{Setup, rows};
use crate::tasks::{Doubled, Number, double};

rows! {
    c2_an_event_starts_a_run_of_each_workflow_that_listens,
    c2_a_run_links_to_its_event,
    c2_events_without_listeners_start_no_run,
    c2_bulk_pushes_keep_the_order_and_survive_invalid_payloads,
    c6_details_contain_the_event_that_started_a_run,
    q4_runs_are_found_by_their_event,
    c9_events_have_the_namespace,
    c12_invalid_events_are_rejected_without_a_request,
    w10_wildcards_in_the_definition_start_runs,
}

async fn c2_an_event_starts_a_run_of_each_workflow_that_listens(setup: Setup) {
    let key = setup.name("order:paid");
    let (one, two, other) = (
        double(setup.name("one")).on_event(&key),
        double(setup.name("two")).on_event(&key).on_event(setup.name("never")),
        double(setup.name("other")).on_event(setup.name("other")),
    );
    let worker = setup.hatchet.worker(setup.name("worker")).register(&one).register(&two).register(&other);
    let worker = worker.build().unwrap().start().await.unwrap();
    let event = setup.hatchet.push(&key, &Number { n: 21 }).metadata("tenant", "acme").scope("s").send().await.unwrap();
    assert_eq!(event.key(), Some(key.as_str()));
    let runs = event.runs().await.unwrap();
    assert_eq!(runs.len(), 2);
    for run in &runs {
        let run = setup.hatchet.run_handle(run.id()).typed::<Doubled>();
        assert_eq!(run.result().await.unwrap(), Doubled { doubled: 42 });
        let details = run.details().await.unwrap();
        assert_eq!(details.metadata.get("tenant"), Some(&json!("acme")));
        assert_eq!(details.input.as_ref().unwrap().parse::<Number>().unwrap(), Number { n: 21 });
    }
    // The event is also found by its id alone.
    let by_id = setup.hatchet.event_handle(event.id());
    let mut details = by_id.details().await.unwrap();
    for _ in 0..100 {
        if details.counts.get(&RunStatus::Completed) == Some(2) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        details = by_id.details().await.unwrap();
    }
    assert_eq!((details.counts.get(&RunStatus::Completed), details.counts.total()), (Some(2), 2));
    assert_eq!((details.id, details.key.as_str(), details.scope.as_deref()), (event.id(), key.as_str(), Some("s")));
    assert_eq!(details.payload.parse::<Number>().unwrap(), Number { n: 21 });
    assert_eq!(details.metadata, [("tenant".to_owned(), json!("acme"))].into());
    assert!(details.created_at.is_some());
    let ids: HashSet<_> = runs.iter().map(hatchet::RunHandle::id).collect();
    assert_eq!(details.run_ids.into_iter().collect::<HashSet<_>>(), ids);
    worker.shutdown().await;
}

async fn c2_a_run_links_to_its_event(setup: Setup) {
    let task = double(setup.name("double")).on_event(setup.name("k"));
    let worker = setup.worker(&task).await;
    let event = setup.hatchet.push(setup.name("k"), &Number { n: 1 }).send().await.unwrap();
    let run = event.runs().await.unwrap().remove(0);
    // Only the metadata of a run contains its event.
    let metadata = run.details().await.unwrap().engine_metadata;
    let id: EventId = metadata["hatchet__event_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(metadata["hatchet__event_key"], json!(setup.name("k")));
    let event_of_run = setup.hatchet.event_handle(id);
    assert_eq!((id, event_of_run.details().await.unwrap().run_ids), (event.id(), vec![run.id()]));
    worker.shutdown().await;
}

async fn c2_events_without_listeners_start_no_run(setup: Setup) {
    let event = setup.hatchet.push(setup.name("unknown"), &json!({})).send().await.unwrap();
    assert!(event.runs().await.unwrap().is_empty());
    assert_eq!(event.details().await.unwrap().counts.total(), 0);
    let unknown = setup.hatchet.event_handle("00000000-0000-4000-8000-000000000000".parse().unwrap());
    let error = unknown.details().await.unwrap_err();
    assert_eq!((error.kind(), error.is_not_found()), (ErrorKind::NotFound, true));
}

async fn c2_bulk_pushes_keep_the_order_and_survive_invalid_payloads(setup: Setup) {
    let (key, task) = (setup.name("many"), double(setup.name("double")).on_event(setup.name("many")));
    let worker = setup.worker(&task).await;
    // Two calls because of the count, and several because of the size. One payload is too large for any call, and one is invalid.
    let small = (0..1005).map(|n| json!({ "n": n }));
    let large =
        [900_000, 5_000_000, 900_000, 900_000, 900_000, 900_000].map(|size| json!({"n": 1, "text": "x".repeat(size)}));
    let payloads: Vec<Value> = small.chain(large).chain([json!([1])]).collect();
    let events = setup.hatchet.push_many(&key, payloads).metadata("part", "x").send().await.unwrap();
    let ids: HashSet<EventId> = events.iter().flatten().map(hatchet::handle::EventHandle::id).collect();
    assert_eq!((events.len(), ids.len()), (1012, 1010));
    let errors: Vec<_> = [1006, 1011].map(|at| events[at].as_ref().unwrap_err()).into();
    assert_eq!(
        errors.iter().map(|error| error.kind()).collect::<Vec<_>>(),
        [ErrorKind::TooLarge, ErrorKind::InvalidInput]
    );
    assert!(
        errors[0].to_string().starts_with("payloads[1006] is too large: expected a message of at most "),
        "{}",
        errors[0]
    );
    assert!(
        errors[1].to_string().starts_with("invalid payloads[1011]: expected a JSON object, got [1]"),
        "{}",
        errors[1]
    );
    for at in [0, 999, 1000, 1004] {
        let event = events[at].as_ref().unwrap();
        assert_eq!(event.details().await.unwrap().payload.parse::<Value>().unwrap(), json!({ "n": at }));
        let run = event.runs().await.unwrap().remove(0);
        assert_eq!(run.result().await.unwrap()["doubled"], json!(2 * at));
    }
    worker.shutdown().await;
}

async fn c6_details_contain_the_event_that_started_a_run(setup: Setup) {
    let task = double(setup.name("double")).on_event(setup.name("k"));
    let worker = setup.worker(&task).await;
    let event = setup.hatchet.push(setup.name("k"), &Number { n: 1 }).scope("eu").send().await.unwrap();
    let run = event.runs().await.unwrap().remove(0);
    let Trigger::Event(trigger) = run.details().await.unwrap().trigger else {
        panic!("expected an event as the trigger")
    };
    assert_eq!((trigger.event_id, trigger.key), (event.id(), Some(setup.name("k"))));
    assert_eq!(trigger.payload.unwrap().parse::<Number>().unwrap(), Number { n: 1 });
    assert_eq!(trigger.scope.as_deref(), Some("eu"));
    // A list contains only the id and the key of the event.
    let listed =
        setup.hatchet.runs(RunFilter::new(setup.window()).event(event.id())).page(1).await.unwrap().items.remove(0);
    let Trigger::Event(listed) = listed.trigger() else { panic!("expected an event as the trigger") };
    assert_eq!((listed.event_id, listed.payload, listed.scope), (event.id(), None, None));
    let manual = setup.hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    assert_eq!(manual.details().await.unwrap().trigger, Trigger::Manual);
    worker.shutdown().await;
}

async fn q4_runs_are_found_by_their_event(setup: Setup) {
    let key = setup.name("k");
    let (one, two) = (double(setup.name("one")).on_event(&key), double(setup.name("two")).on_event(&key));
    let worker = setup.hatchet.worker(setup.name("worker")).register(&one).register(&two).build().unwrap();
    let worker = worker.start().await.unwrap();
    let event = setup.hatchet.push(&key, &Number { n: 1 }).send().await.unwrap();
    let other = setup.hatchet.push(&key, &Number { n: 1 }).send().await.unwrap();
    for event in [&event, &other] {
        let expected: HashSet<_> = event.runs().await.unwrap().iter().map(hatchet::RunHandle::id).collect();
        let query = setup.hatchet.runs(RunFilter::new(setup.window()).event(event.id()));
        let found = query.page(10).await.unwrap();
        assert_eq!(found.items.iter().map(|run| run.id).collect::<HashSet<_>>(), expected);
        assert_eq!(found.total, Total::Exactly(2));
        assert!(found.items.iter().all(|run| matches!(run.trigger(), Trigger::Event(_))));
    }
    worker.shutdown().await;
}

async fn c9_events_have_the_namespace(setup: Setup) {
    let namespaced = setup.client_with(|config| config.namespace("Team"));
    let key = setup.name("k");
    let task = Task::new(setup.name("trigger"), async |_: Number, context: Context| match context.trigger() {
        Trigger::Event(event) => Ok(event.key),
        other => Err(TaskError::non_retryable(other)),
    });
    let task = task.on_event(&key);
    let worker = namespaced.worker(setup.name("worker")).register(&task).build().unwrap().start().await.unwrap();
    let event = namespaced.push(&key, &Number { n: 1 }).send().await.unwrap();
    // The trigger of the run has the key as it was pushed: for its code, in a list, and in the details.
    let [run] = &event.runs().await.unwrap()[..] else { panic!("one run") };
    let run = run.clone().typed::<Option<String>>();
    assert_eq!(run.result().await.unwrap().as_ref(), Some(&key));
    let expected = format!("event {key} ({})", event.id());
    assert_eq!(run.details().await.unwrap().trigger.to_string(), expected);
    let filter = RunFilter::new(setup.window()).workflow(task.name());
    let listed = setup
        .fetch_until(async || namespaced.runs(filter.clone()).page(1).await.unwrap(), |page| !page.items.is_empty());
    assert_eq!(listed.await.items[0].trigger().to_string(), expected);
    assert_eq!((event.key(), event.details().await.unwrap().key), (Some(key.as_str()), key.clone()));
    // Outside of the namespace, no workflow listens to the key.
    let other = setup.hatchet.push(&key, &Number { n: 1 }).send().await.unwrap();
    assert!(other.runs().await.unwrap().is_empty());
    let same = setup.hatchet.event_handle(event.id()).details().await.unwrap();
    assert_eq!(same.key, format!("team_{key}"));
    worker.shutdown().await;
}

async fn c12_invalid_events_are_rejected_without_a_request(setup: Setup) {
    let hatchet = &setup.hatchet;
    let (key, valid) = (setup.name("k"), json!({}));
    let rejections = [
        (
            hatchet.push("", &valid).send().await.unwrap_err(),
            "invalid event key: expected at least one character, got an empty string",
        ),
        (hatchet.push("a\0", &valid).send().await.unwrap_err(), "invalid event key: expected a string without U+0000"),
        (hatchet.push(&key, &valid).scope("\0").send().await.unwrap_err(), "invalid event scope"),
        (hatchet.push(&key, &[1]).send().await.unwrap_err(), "invalid payload: expected a JSON object, got [1]"),
        (hatchet.push(&key, &json!({"a": "\0"})).send().await.unwrap_err(), "U+0000"),
        (
            hatchet.push(&key, &json!({"a": "x".repeat(5_000_000)})).send().await.unwrap_err(),
            "expected at most 4194304 bytes",
        ),
        (hatchet.push(&key, &valid).metadata("hatchet__event_id", "x").send().await.unwrap_err(), "invalid metadata: "),
        (hatchet.push_many("", [&valid]).send().await.unwrap_err(), "invalid event key"),
    ];
    for (error, text) in rejections {
        assert!(matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::TooLarge), "{error:?}");
        assert!(error.to_string().contains(text) && error.has_no_side_effects(), "expected {text:?}, got {error}");
    }
    let event = hatchet.push(&key, &valid).priority(Priority::High).send().await.unwrap();
    assert_eq!(event.details().await.unwrap().payload.parse::<Value>().unwrap(), valid);
}

async fn w10_wildcards_in_the_definition_start_runs(setup: Setup) {
    let key = |text: &str| format!("{}:{text}", setup.name("k"));
    let task = double(setup.name("double")).on_event(key("a:*")).on_event(key("x_y"));
    let worker = setup.worker(&task).await;
    for (text, count) in [("a:1", 1), ("a:", 1), ("a", 0), ("x_y", 1), ("xzy", 1), ("X_Y", 0)] {
        let event = setup.hatchet.push(key(text), &Number { n: 1 }).send().await.unwrap();
        assert_eq!(event.runs().await.unwrap().len(), count, "{text}");
    }
    let any: WorkflowRef<Number, Doubled> = WorkflowRef::new(task.name());
    assert_eq!(setup.hatchet.run(&any, &Number { n: 4 }).start().await.unwrap().result().await.unwrap().doubled, 8);
    worker.shutdown().await;
}
