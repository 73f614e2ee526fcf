//! Crons.

use serde_json::{Value, json};

use crate::embedded::core::store::CronSpec;
use crate::embedded::core::tests::*;
use crate::embedded::quirks::Quirk;

fn spec(name: &str, text: &str) -> CronSpec {
    CronSpec {
        workflow: "w".into(),
        name: name.into(),
        expression: text.into(),
        input: Some(json!({"n": 1})),
        metadata: Some(json!({"k": "v"})),
        priority: None,
    }
}

fn defined(crons: &[&str]) -> WorkflowOptions {
    let crons = crons.iter().map(|text| (*text).to_owned()).collect();
    WorkflowOptions { crons, cron_input: Some(json!({"from": "definition"})), ..WorkflowOptions::default() }
}

impl Bench {
    fn create(&mut self, spec: CronSpec) -> Result<Uuid, StatusError> {
        self.turn(|core, turn| core.create_cron(turn, spec))
    }

    fn started_at(&self) -> Vec<String> {
        let mut all: Vec<_> =
            self.core.runs().newest_first(None).map(|run| run.created.format("%T").to_string()).collect();
        all.reverse();
        all
    }
}

#[test]
fn a_cron_of_a_definition_fires_until_a_version_lacks_it() {
    let mut bench = Bench::new(Quirks::none());
    bench.now += TimeDelta::milliseconds(500);
    bench.put_with("w", task(), defined(&["*/3 * * * * *"])).unwrap();
    bench.pass(seconds(7));
    assert_eq!(bench.started_at(), ["12:00:03", "12:00:06"]);
    let run = bench.core.runs().newest_first(None).next().unwrap();
    assert_eq!((&*run.input, run.priority), (r#"{"from":"definition"}"#, 3));
    let metadata: Value = serde_json::from_str(&run.metadata).unwrap();
    assert_eq!(metadata["hatchet__cron_expression"], "*/3 * * * * *");
    assert_eq!(metadata["hatchet__cron_name"], "");
    assert_eq!(metadata["hatchet__cron_scheduled_at"], "2026-01-01T12:00:06Z");
    bench.put_with("w", task(), WorkflowOptions::default()).unwrap();
    bench.pass(seconds(60));
    assert_eq!((bench.started_at().len(), bench.core.all_crons().len()), (2, 0));
}

#[test]
fn its_runs_have_its_expression_and_its_time_but_not_its_id() {
    let mut bench = Bench::new(Quirks::all());
    bench.put_with("w", task(), defined(&["*/3 * * * * *"])).unwrap();
    let cron = bench.core.all_crons()[0].id.to_string();
    let (worker, _) = bench.worker(10);
    bench.pass_with_heartbeats(worker, seconds(6));
    let actions: Vec<_> = bench.actions().into_iter().map(|(_, action)| action).collect();
    let mut traces = std::collections::HashSet::new();
    for action in &actions {
        // In the database's style.
        assert!(action.payload.contains(r#""input": {"from": "definition"}"#), "{}", action.payload);
        assert!(!action.payload.contains(&cron) && !action.metadata.contains(&cron), "{action:?}");
        let metadata: Value = serde_json::from_str(&action.metadata).unwrap();
        let mut keys: Vec<_> = metadata.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        let [text, name, at] = ["expression", "name", "scheduled_at"].map(|key| format!("hatchet__cron_{key}"));
        assert_eq!(keys, [&text, &name, &at, "traceparent"]);
        traces.insert(metadata["traceparent"].to_string());
    }
    assert_eq!((actions.len(), traces.len()), (2, 2), "each run has its own");
}

#[test]
fn a_removed_cron_fires_once_more_if_it_is_due_before_the_engine_checks() {
    for (text, more) in [("*/3 * * * * *", vec!["12:00:03"]), ("0 * * * * *", vec![])] {
        let mut bench = Bench::new(Quirks::none().with(Quirk::LingeringCrons));
        bench.put_with("w", task(), defined(&[text])).unwrap();
        bench.pass(seconds(1));
        bench.put_with("w", task(), WorkflowOptions::default()).unwrap();
        assert!(bench.core.all_crons().is_empty());
        bench.pass(seconds(100));
        assert_eq!(bench.started_at(), more, "{text}");
    }
}

#[test]
fn a_cron_uses_its_time_zone() {
    let mut bench = Bench::new(Quirks::none());
    bench.put_with("w", task(), defined(&["TZ=Europe/Oslo 5 13 * * *"])).unwrap();
    bench.create(spec("c", "CRON_TZ=Asia/Kolkata 45 17 * * *")).unwrap();
    bench.create(spec("d", "@every 500s")).unwrap();
    bench.pass(seconds(1000));
    assert_eq!(bench.started_at(), ["12:05:00", "12:08:20", "12:15:00", "12:16:40"]);
}

#[test]
fn a_cron_of_rest_can_be_paused_and_deleted_and_survives_versions() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(task());
    let id = bench.create(spec("c", "* * * * *")).unwrap();
    bench.put(TaskDefinition { retries: 1, ..task() });
    bench.pass(seconds(60));
    assert_eq!(bench.started_at(), ["12:01:00"]);
    assert!(bench.turn(|core, turn| core.enable_cron(turn, id, false)));
    bench.pass(seconds(150));
    assert!(bench.turn(|core, turn| core.enable_cron(turn, id, true)));
    bench.pass(seconds(30));
    assert_eq!(bench.started_at(), ["12:01:00", "12:04:00"]);
    assert!(bench.turn(|core, _| core.delete_cron(id)));
    assert!(!bench.turn(|core, _| core.delete_cron(id)));
    bench.pass(seconds(600));
    assert_eq!(bench.started_at().len(), 2);
    assert_eq!(bench.core.next_timer(), None, "neither it nor its runs have a timer");
}

#[test]
fn what_is_rejected() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(task());
    bench.create(spec("c", "* * * * *")).unwrap();
    bench.create(spec("c", "0 * * * *")).unwrap();
    for (spec, text) in [
        (spec("", "* * * * *"), "cron name is required"),
        (CronSpec { workflow: "nobody".into(), ..spec("c", "* * * * *") }, "workflow not found"),
        (spec("c", "* * * * *"), "cron trigger with that name-expression pair already exists"),
        (spec("d", "not a cron"), "Invalid cron expression"),
    ] {
        assert_eq!(bench.create(spec).unwrap_err(), StatusError::invalid(text));
    }
    let rejected = bench.put_with("w", task(), defined(&["* * * * *", "@daily"])).unwrap_err();
    assert_eq!(
        rejected.message,
        "Validation failed with the following errors:\n0: validation failed on field 'CreateWorkflowVersionOpts.CronTriggers[1]': Invalid cron expression\n"
    );
    assert_eq!(bench.put_with("w", task(), defined(&["* * * * *", "* * * * *"])).unwrap_err(), StatusError::internal());
    let rejected = bench.put_with("w", task(), defined(&["TZ=Europe/Atlantis 0 9 * * *"])).unwrap_err();
    assert!(rejected.message.contains("CronTriggers[0]': Invalid cron expression"), "{}", rejected.message);
}

#[test]
fn an_invalid_cron_soon_vanishes() {
    let mut bench = Bench::new(Quirks::none().with(Quirk::DisappearingCrons));
    bench.put(task());
    let id = bench.create(spec("c", "not a cron")).unwrap();
    assert!(bench.core.find_cron(id).is_some());
    bench.pass(seconds(1));
    assert!(bench.core.find_cron(id).is_none() && bench.started_at().is_empty());
}

#[test]
fn a_cron_of_rest_ignores_the_workflows_priority() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(task());
    bench.create(spec("c", "* * * * *")).unwrap();
    bench.pass(seconds(60));
    let run = bench.core.runs().newest_first(None).next().unwrap();
    assert_eq!((run.priority, &*run.input), (1, r#"{"n":1}"#));
    let metadata: Value = serde_json::from_str(&run.metadata).unwrap();
    assert_eq!((&metadata["k"], &metadata["hatchet__cron_name"]), (&json!("v"), &json!("c")));
}
