//! Measured behavior of concurrency limits that is in no recording.

use std::time::Duration;

use hatchet::embedded::Quirks;
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::Code;

use super::setup::{Setup, merged, registration_for};
use super::wire::Received;

const NAME: &str = "fx";
const EXCEEDS: &str = "Cancelled due to concurrency strategy";

fn one(more: &Value) -> Value {
    let task = json!({"readable_id": "work", "action": "fx:work", "timeout": "60s"});
    json!({"name": NAME, "tasks": [merged(&task, more)]})
}

fn limit(strategy: &str) -> Value {
    json!({"expression": "input.k", "max_runs": 1, "limit_strategy": strategy})
}

/// An engine with all quirks, a worker, and the actions that the worker has received.
async fn setup(definition: Value) -> (Setup, Received) {
    let setup = Setup::new(Quirks::all(), 7).await;
    setup.put(&definition).await;
    let (_, received) = setup.worker(&registration_for(NAME, &[definition])).await;
    sleep(Duration::from_secs(1)).await;
    (setup, received)
}

impl Setup {
    async fn keyed(&self, key: &str) -> String {
        let run = self.trigger(NAME, &json!({"input": json!({"k": key}).to_string()})).await.unwrap();
        sleep(Duration::from_millis(500)).await;
        run
    }

    /// The status in gRPC and in REST, and the events with their messages, oldest first.
    async fn seen(&self, run: &str) -> (String, String, Vec<(String, String)>) {
        let grpc = self.details(run).await.unwrap()["status"].as_str().unwrap().to_owned();
        let rest = self.shown(&format!("workflow-runs/{run}")).await["run"].clone();
        let mut events = self.rows(&format!("stable/tasks/{run}/task-events?limit=50")).await;
        events.sort_by_key(|event| event["id"].as_i64());
        let text = |event: &Value, field: &str| event[field].as_str().unwrap().to_owned();
        let events = events.iter().map(|event| (text(event, "eventType"), text(event, "message"))).collect();
        (grpc, rest["status"].as_str().unwrap().to_owned(), events)
    }

    async fn names(&self, run: &str) -> Vec<String> {
        self.seen(run).await.2.into_iter().map(|(name, _)| name).collect()
    }
}

/// The runs that the worker was sent, each with whether it was a cancellation.
fn actions(received: &Received) -> Vec<(String, bool)> {
    let messages = received.messages();
    let action = |(_, action): &(_, Value)| {
        let run = action["workflow_run_id"].as_str().unwrap().to_owned();
        (run, action["action_type"] == "CANCEL_STEP_RUN")
    };
    messages.iter().map(action).collect()
}

#[tokio::test(start_paused = true)]
async fn definitions_with_limits_are_checked() {
    let setup = Setup::new(Quirks::all(), 7).await;
    let rejections = [
        ("limit_strategy", json!("DROP_NEWEST"), "DROP_NEWEST"),
        ("limit_strategy", json!("QUEUE_NEWEST"), "QUEUE_NEWEST"),
        ("limit_strategy", json!(5), "5"),
        ("limit_strategy", json!(6), "6"),
        ("limit_strategy", json!(9), "9"),
        ("expression", json!("input."), "Invalid CEL expression"),
        ("expression", json!("parents.a.x"), "Invalid CEL expression"),
        ("expression", json!(""), "CEL expression is required for concurrency"),
    ];
    for (field, value, problem) in rejections {
        let limit = merged(&limit("CANCEL_NEWEST"), &json!({field: value}));
        let of_workflow = merged(&one(&json!({})), &json!({"concurrency_arr": [limit]}));
        let older = merged(&one(&json!({})), &json!({"concurrency": limit}));
        let of_task = one(&json!({"concurrency": [limit]}));
        for (definition, prefix) in [(of_workflow, ""), (older, ""), (of_task, "Tasks[0].")] {
            let rejection = setup.wire.call("v1.AdminService.PutWorkflow", &definition).await.unwrap_err();
            let start = "Validation failed with the following errors:\n0: validation failed on field 'CreateWorkflowVersionOpts.";
            let expected = match (field, prefix, value == "") {
                ("expression", "", true) => problem.to_owned(),
                ("expression", _, true) => format!("{problem} (step work)"),
                ("expression", _, false) => format!("{start}{prefix}Concurrency[0].Expression': {problem}\n"),
                _ => format!(
                    "{start}{prefix}Concurrency[0].LimitStrategy': on condition 'oneof' [ CANCEL_IN_PROGRESS GROUP_ROUND_ROBIN CANCEL_NEWEST ]: got '{problem}'\n"
                ),
            };
            assert_eq!((rejection.code(), rejection.message()), (Code::InvalidArgument, &*expected));
        }
    }
    for accepted in [
        json!({"expression": "1"}),
        json!({"max_runs": 0}),
        json!({"max_runs": -1}),
        json!({"max_runs": null, "limit_strategy": null}),
        json!({"max_runs_expression": "input.n", "is_tenant_scoped": true, "name": "n"}),
    ] {
        let limit = merged(&limit("GROUP_ROUND_ROBIN"), &accepted);
        setup.put(&one(&json!({"concurrency": [limit]}))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_run_cancels_the_older_ones() {
    for of_workflow in [false, true] {
        let limits = json!([limit("CANCEL_IN_PROGRESS")]);
        let definition = if of_workflow {
            merged(&one(&json!({})), &json!({"concurrency_arr": limits}))
        } else {
            one(&json!({"concurrency": limits}))
        };
        let (setup, received) = setup(definition).await;
        let [first, second, other] = [setup.keyed("A").await, setup.keyed("A").await, setup.keyed("B").await];
        sleep(Duration::from_secs(1)).await;
        let (grpc, rest, events) = setup.seen(&first).await;
        assert_eq!((grpc.as_str(), rest.as_str()), ("CANCELLED", "CANCELLED"));
        assert_eq!(events[0], ("QUEUED".into(), "concurrency keys evaluated as: A".into()));
        assert_eq!(events.last().unwrap(), &("CANCELLED".into(), EXCEEDS.into()));
        let run = setup.shown(&format!("workflow-runs/{first}")).await;
        assert_eq!((&run["run"]["errorMessage"], &run["tasks"][0]["errorMessage"]), (&json!(""), &json!("")));
        for run in [&second, &other] {
            assert_eq!(setup.details(run).await.unwrap()["status"], "RUNNING");
        }
        let sent = [(&first, false), (&first, true), (&second, false), (&other, false)];
        assert_eq!(actions(&received), sent.map(|(run, cancel)| (run.clone(), cancel)));
    }
}

#[tokio::test(start_paused = true)]
async fn new_runs_are_cancelled_before_they_start() {
    let (setup, received) = setup(one(&json!({"concurrency": [limit("CANCEL_NEWEST")]}))).await;
    let [first, second] = [setup.keyed("A").await, setup.keyed("A").await];
    sleep(Duration::from_secs(1)).await;
    let (grpc, rest, events) = setup.seen(&second).await;
    assert_eq!((grpc.as_str(), rest.as_str()), ("CANCELLED", "CANCELLED"));
    let queued = ("QUEUED".into(), "concurrency keys evaluated as: A".into());
    assert_eq!(events, [queued, ("CANCELLED".into(), EXCEEDS.into())]);
    assert_eq!(actions(&received), [(first.clone(), false)]);
    assert_eq!(setup.details(&second).await.unwrap()["task_runs"]["work"]["error"], "");
    // A result that is asked for later has one entry.
    let results = setup.wire.results();
    results.subscribe(&json!({"workflow_run_id": second}));
    sleep(Duration::from_secs(2)).await;
    let (_, result) = results.received.messages().remove(0);
    assert_eq!((result["results"].as_array().unwrap().len(), &result["results"][0]["error"]), (1, &json!("")));
}

#[tokio::test(start_paused = true)]
async fn others_wait_in_the_order_of_their_creation() {
    let (setup, received) = setup(one(&json!({"concurrency": [limit("GROUP_ROUND_ROBIN")]}))).await;
    let runs = [setup.keyed("A").await, setup.keyed("A").await, setup.keyed("A").await];
    sleep(Duration::from_secs(1)).await;
    for waiting in &runs[1..] {
        let (grpc, rest, events) = setup.seen(waiting).await;
        assert_eq!((grpc.as_str(), rest.as_str()), ("QUEUED", "QUEUED"));
        assert_eq!(events, [("QUEUED".into(), "concurrency keys evaluated as: A".into())]);
    }
    for run in &runs {
        assert_eq!(actions(&received).last(), Some(&(run.clone(), false)));
        setup.end(run, "COMPLETED", "{}").await;
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_too_long_times_out_when_the_slot_is_free() {
    let limits = json!({"concurrency": [limit("GROUP_ROUND_ROBIN")], "schedule_timeout": "3s"});
    let (setup, _received) = setup(one(&limits)).await;
    let [first, second] = [setup.keyed("A").await, setup.keyed("A").await];
    sleep(Duration::from_secs(6)).await;
    assert_eq!(setup.names(&second).await, ["QUEUED"]);
    setup.end(&first, "COMPLETED", "{}").await;
    sleep(Duration::from_secs(1)).await;
    let (grpc, rest, events) = setup.seen(&second).await;
    assert_eq!((grpc.as_str(), rest.as_str()), ("CANCELLED", "FAILED"));
    assert_eq!(events.last().unwrap().0, "SCHEDULING_TIMED_OUT");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_cannot_be_evaluated_fails_the_task_without_retries() {
    for (expression, problem) in
        [("input.k", "no such key: k"), ("1", "expected string output for concurrency key, got int")]
    {
        let limit = json!({"expression": expression, "limit_strategy": "GROUP_ROUND_ROBIN"});
        let (setup, received) = setup(one(&json!({"concurrency": [limit], "retries": 2}))).await;
        let run = setup.trigger(NAME, &json!({})).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let text = format!("failed to parse step expression ({expression}): {problem}");
        let events = setup.rows(&format!("stable/tasks/{run}/task-events?limit=50")).await;
        assert_eq!(events.len(), 1);
        let event = ["eventType", "errorMessage", "message"].map(|field| events[0][field].clone());
        assert_eq!(event, [json!("FAILED"), json!(text), json!("")]);
        let details = setup.details(&run).await.unwrap();
        assert_eq!((&details["status"], &details["task_runs"]["work"]["error"]), (&json!("FAILED"), &json!(text)));
        let rest = setup.shown(&format!("workflow-runs/{run}")).await;
        let shown = [&rest["run"]["status"], &rest["run"]["errorMessage"], &rest["tasks"][0]["retryCount"]];
        assert_eq!(shown, [&json!("FAILED"), &json!(text), &json!(0)]);
        assert!(actions(&received).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dag_has_one_slot_for_the_whole_run() {
    let task = |name: &str, parents: &[&str]| json!({"readable_id": name, "action": format!("fx:{name}"), "timeout": "60s", "parents": parents});
    let definition = |strategy: &str| json!({"name": NAME, "tasks": [task("a", &[]), task("b", &["a"])], "concurrency_arr": [limit(strategy)]});
    let started = |received: &Received| {
        let messages = received.messages();
        let start = |(_, action): &(_, Value)| (action["workflow_run_id"].clone(), action["task_name"].clone());
        messages.iter().map(start).collect::<Vec<_>>()
    };
    let (setup, received) = setup(definition("GROUP_ROUND_ROBIN")).await;
    let runs = [setup.keyed("A").await, setup.keyed("A").await];
    for (run, name) in [(&runs[0], "a"), (&runs[0], "b"), (&runs[1], "a"), (&runs[1], "b")] {
        assert_eq!(started(&received).last(), Some(&(json!(run), json!(name))));
        let (_, action) = received.messages().pop().unwrap();
        setup.end(action["task_run_external_id"].as_str().unwrap(), "COMPLETED", "{}").await;
        sleep(Duration::from_millis(100)).await;
    }
    // The one that exceeds the limit is cancelled in both views. Only its first task has the message.
    setup.put(&definition("CANCEL_NEWEST")).await;
    sleep(Duration::from_secs(6)).await;
    setup.keyed("A").await;
    let run = setup.keyed("A").await;
    sleep(Duration::from_secs(1)).await;
    let details = setup.details(&run).await.unwrap();
    let shown = setup.shown(&format!("workflow-runs/{run}")).await;
    assert_eq!((&details["status"], &shown["run"]["status"]), (&json!("CANCELLED"), &json!("CANCELLED")));
    let events = shown["taskEvents"].as_array().unwrap();
    let cancels = events.iter().filter(|event| event["eventType"] == "CANCELLED");
    let mut messages: Vec<_> = cancels.map(|event| event["message"].as_str().unwrap()).collect();
    messages.sort_unstable();
    assert_eq!(messages, ["", EXCEEDS]);
}

#[tokio::test(start_paused = true)]
async fn definitions_are_shown_with_their_limits() {
    let (setup, _received) = setup(one(&json!({"concurrency": [limit("CANCEL_NEWEST")]}))).await;
    let run = setup.keyed("A").await;
    let config = setup.shown(&format!("workflow-runs/{run}")).await["workflowConfig"].clone();
    let shown = json!([{"Expression": "input.k", "LimitStrategy": "CANCEL_NEWEST", "MaxRuns": 1}]);
    assert_eq!((&config["Tasks"][0]["concurrency"], config.get("concurrency")), (&shown, None));
}
