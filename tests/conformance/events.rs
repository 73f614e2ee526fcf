//! C2: events, and the other rows about them.

use std::collections::HashSet;
use std::time::Duration;

use hatchet::model::{EventId, Total, Trigger};
use hatchet::workflow::WorkflowRef;
use hatchet::{ErrorKind, Priority, RunFilter, RunStatus};
use serde_json::{Value, json};

use crate::tasks::{Doubled, Number, double};
use crate::world::{World, rows};

rows! {
    c2_an_event_starts_a_run_of_each_workflow_that_listens,
    c2_from_a_run_back_to_its_event,
    c2_an_event_that_nobody_listens_to,
    c2_many_events_in_order_and_a_bad_one_loses_no_other,
    c6_details_tell_the_event_that_started_a_run,
    q4_runs_that_an_event_has_started,
    c9_events_have_the_namespace,
    c12_bad_events_are_refused_before_anything_is_sent,
    w10_wildcards_in_the_definition_start_runs,
}

async fn c2_an_event_starts_a_run_of_each_workflow_that_listens(world: World) {
    let key = world.name("order:paid");
    let (one, two, other) = (
        double(world.name("one")).on_event(&key),
        double(world.name("two")).on_event(&key).on_event(world.name("never")),
        double(world.name("other")).on_event(world.name("other")),
    );
    let worker = world.hatchet.worker(world.name("worker")).register(&one).register(&two).register(&other);
    let worker = worker.build().unwrap().start().await.unwrap();
    let event = world.hatchet.push(&key, &Number { n: 21 }).metadata("tenant", "acme").scope("s").send().await.unwrap();
    assert_eq!(event.key(), Some(key.as_str()));
    let runs = event.runs().await.unwrap();
    assert_eq!(runs.len(), 2);
    for run in &runs {
        let run = world.hatchet.run_handle(run.id()).typed::<Doubled>();
        assert_eq!(run.result().await.unwrap(), Doubled { doubled: 42 });
        let details = run.details().await.unwrap();
        assert_eq!(details.metadata.get("tenant"), Some(&json!("acme")));
        assert_eq!(details.input.parse::<Number>().unwrap(), Number { n: 21 });
    }
    // And the event itself, by its id alone.
    let again = world.hatchet.event_handle(event.id());
    let mut details = again.details().await.unwrap();
    for _ in 0..100 {
        if details.counts.get(&RunStatus::Completed) == Some(2) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        details = again.details().await.unwrap();
    }
    assert_eq!((details.counts.get(&RunStatus::Completed), details.counts.total()), (Some(2), 2));
    assert_eq!((details.id, details.key.as_str(), details.scope.as_deref()), (event.id(), key.as_str(), Some("s")));
    assert_eq!(details.payload.parse::<Number>().unwrap(), Number { n: 21 });
    assert_eq!(details.metadata, [("tenant".to_owned(), json!("acme"))].into());
    assert!(details.created_at.is_some());
    let ids: HashSet<_> = runs.iter().map(hatchet::RunHandle::id).collect();
    assert_eq!(details.runs.into_iter().collect::<HashSet<_>>(), ids);
    worker.shutdown().await;
}

async fn c2_from_a_run_back_to_its_event(world: World) {
    let task = double(world.name("double")).on_event(world.name("k"));
    let worker = world.worker(&task).await;
    let event = world.hatchet.push(world.name("k"), &Number { n: 1 }).send().await.unwrap();
    let run = event.runs().await.unwrap().remove(0);
    // A run of an event says so in its metadata, and nowhere else.
    let metadata = run.details().await.unwrap().engine_metadata;
    let id: EventId = metadata["hatchet__event_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(metadata["hatchet__event_key"], json!(world.name("k")));
    let back = world.hatchet.event_handle(id);
    assert_eq!((id, back.details().await.unwrap().runs), (event.id(), vec![run.id()]));
    worker.shutdown().await;
}

async fn c2_an_event_that_nobody_listens_to(world: World) {
    let event = world.hatchet.push(world.name("nobody"), &json!({})).send().await.unwrap();
    assert!(event.runs().await.unwrap().is_empty());
    assert_eq!(event.details().await.unwrap().counts.total(), 0);
    let unknown = world.hatchet.event_handle("00000000-0000-4000-8000-000000000000".parse().unwrap());
    let error = unknown.details().await.unwrap_err();
    assert_eq!((error.kind(), error.is_not_found()), (ErrorKind::NotFound, true));
}

async fn c2_many_events_in_order_and_a_bad_one_loses_no_other(world: World) {
    let (key, task) = (world.name("many"), double(world.name("double")).on_event(world.name("many")));
    let worker = world.worker(&task).await;
    // Over two calls by their number; and over several by their bytes, with one that fits into none and one that is none.
    let small = (0..1005).map(|n| json!({ "n": n }));
    let large =
        [900_000, 5_000_000, 900_000, 900_000, 900_000, 900_000].map(|size| json!({"n": 1, "text": "x".repeat(size)}));
    let payloads: Vec<Value> = small.chain(large).chain([json!([1])]).collect();
    let events = world.hatchet.push_many(&key, payloads).metadata("part", "x").send().await.unwrap();
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

async fn c6_details_tell_the_event_that_started_a_run(world: World) {
    let task = double(world.name("double")).on_event(world.name("k"));
    let worker = world.worker(&task).await;
    let event = world.hatchet.push(world.name("k"), &Number { n: 1 }).scope("eu").send().await.unwrap();
    let run = event.runs().await.unwrap().remove(0);
    let Trigger::Event(trigger) = run.details().await.unwrap().trigger else { panic!("it does not say so") };
    assert_eq!((trigger.event_id, trigger.key), (event.id(), world.name("k")));
    assert_eq!(trigger.payload.unwrap().parse::<Number>().unwrap(), Number { n: 1 });
    assert_eq!(trigger.scope.as_deref(), Some("eu"));
    // A list has its id and its key only.
    let listed =
        world.hatchet.runs(RunFilter::new(world.window()).event(event.id())).page(1).await.unwrap().items.remove(0);
    let Trigger::Event(listed) = listed.trigger() else { panic!("it does not say so") };
    assert_eq!((listed.event_id, listed.payload, listed.scope), (event.id(), None, None));
    let manual = world.hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    assert_eq!(manual.details().await.unwrap().trigger, Trigger::Manual);
    worker.shutdown().await;
}

async fn q4_runs_that_an_event_has_started(world: World) {
    let key = world.name("k");
    let (one, two) = (double(world.name("one")).on_event(&key), double(world.name("two")).on_event(&key));
    let worker = world.hatchet.worker(world.name("worker")).register(&one).register(&two).build().unwrap();
    let worker = worker.start().await.unwrap();
    let event = world.hatchet.push(&key, &Number { n: 1 }).send().await.unwrap();
    let other = world.hatchet.push(&key, &Number { n: 1 }).send().await.unwrap();
    for event in [&event, &other] {
        let expected: HashSet<_> = event.runs().await.unwrap().iter().map(hatchet::RunHandle::id).collect();
        let query = world.hatchet.runs(RunFilter::new(world.window()).event(event.id()));
        let found = query.page(10).await.unwrap();
        assert_eq!(found.items.iter().map(|run| run.id).collect::<HashSet<_>>(), expected);
        assert_eq!(found.total, Total::Exactly(2));
        assert!(found.items.iter().all(|run| matches!(run.trigger(), Trigger::Event(_))));
    }
    worker.shutdown().await;
}

async fn c9_events_have_the_namespace(world: World) {
    let spaced = world.client_with(|config| config.namespace("Team"));
    let (key, task) = (world.name("k"), double(world.name("double")).on_event(world.name("k")));
    let worker = spaced.worker(world.name("worker")).register(&task).build().unwrap().start().await.unwrap();
    let event = spaced.push(&key, &Number { n: 1 }).send().await.unwrap();
    assert_eq!(event.runs().await.unwrap().len(), 1);
    assert_eq!((event.key(), event.details().await.unwrap().key), (Some(key.as_str()), key.clone()));
    // It is not there without it.
    let other = world.hatchet.push(&key, &Number { n: 1 }).send().await.unwrap();
    assert!(other.runs().await.unwrap().is_empty());
    let same = world.hatchet.event_handle(event.id()).details().await.unwrap();
    assert_eq!(same.key, format!("team_{key}"));
    worker.shutdown().await;
}

async fn c12_bad_events_are_refused_before_anything_is_sent(world: World) {
    let hatchet = &world.hatchet;
    let (key, fine) = (world.name("k"), json!({}));
    let refusals = [
        (
            hatchet.push("", &fine).send().await.unwrap_err(),
            "invalid event key: expected at least one character, got an empty string",
        ),
        (hatchet.push("a\0", &fine).send().await.unwrap_err(), "invalid event key: expected a string without U+0000"),
        (hatchet.push(&key, &fine).scope("\0").send().await.unwrap_err(), "invalid event scope"),
        (hatchet.push(&key, &[1]).send().await.unwrap_err(), "invalid payload: expected a JSON object, got [1]"),
        (hatchet.push(&key, &json!({"a": "\0"})).send().await.unwrap_err(), "U+0000"),
        (
            hatchet.push(&key, &json!({"a": "x".repeat(5_000_000)})).send().await.unwrap_err(),
            "expected at most 4194304 bytes",
        ),
        (hatchet.push(&key, &fine).metadata("hatchet__event_id", "x").send().await.unwrap_err(), "invalid metadata: "),
        (hatchet.push_many("", [&fine]).send().await.unwrap_err(), "invalid event key"),
    ];
    for (error, text) in refusals {
        assert!(matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::TooLarge), "{error:?}");
        assert!(error.to_string().contains(text) && error.has_no_side_effects(), "{error} has no {text:?}");
    }
    let event = hatchet.push(&key, &fine).priority(Priority::High).send().await.unwrap();
    assert_eq!(event.details().await.unwrap().payload.parse::<Value>().unwrap(), fine);
}

async fn w10_wildcards_in_the_definition_start_runs(world: World) {
    let key = |text: &str| format!("{}:{text}", world.name("k"));
    let task = double(world.name("double")).on_event(key("a:*")).on_event(key("x_y"));
    let worker = world.worker(&task).await;
    for (text, count) in [("a:1", 1), ("a:", 1), ("a", 0), ("x_y", 1), ("xzy", 1), ("X_Y", 0)] {
        let event = world.hatchet.push(key(text), &Number { n: 1 }).send().await.unwrap();
        assert_eq!(event.runs().await.unwrap().len(), count, "{text}");
    }
    let any: WorkflowRef<Number, Doubled> = WorkflowRef::new(task.name());
    assert_eq!(world.hatchet.run(&any, &Number { n: 4 }).start().await.unwrap().result().await.unwrap().doubled, 8);
    worker.shutdown().await;
}
