//! Replays a recording: sends the same requests at the same times, and compares the responses.

use std::time::Duration;

use chrono::TimeDelta;
use hatchet::embedded::{Quirk, Quirks};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::compare::{Compare, Extra};
use super::recording::{FIRST_RUN, FIRST_WORKER, at_ms, created, list, load, workflow};
use super::setup::{Setup, registration_for};
use super::wire::{Received, Results};

/// The time between the opening of the streams and the trigger in the recordings.
const STREAM_LEAD: Duration = Duration::from_millis(800);
const GET_RUN_DETAILS: &str = "v1.AdminService.GetRunDetails";

/// A recording, with facts that it does not contain.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The changes to the default workflow, if the recording does not contain the workflow.
    pub(crate) task: Value,
    /// The tolerance of times.
    pub(crate) tolerance_ms: i64,
    /// When the worker starts, if it starts after the trigger.
    pub(crate) worker_at: Option<i64>,
    /// Whether the engine behaved randomly.
    pub(crate) is_random: bool,
}

enum Action<'a> {
    StartWorker,
    SubscribeResult(&'a Value),
    WatchRun,
    SendReport(&'a Value),
    Step(&'a Value),
    FetchDetails(&'a Value),
    FetchRest(&'a Value),
    LateSubscriber(&'a Value),
    CheckFinalState,
    CheckStreams,
    Revisit(&'a Value),
}

/// The open streams, by their keys in the recording.
struct Streams {
    results: Results,
    by_metadata: Option<Received>,
    by_run: Option<Received>,
    worker: Option<Received>,
}

pub(crate) struct Replay<'a> {
    setup: Setup,
    registration: Value,
    scenario: &'a Scenario,
    recording: &'a Value,
    compare: Compare,
    start: Instant,
    /// The delay relative to the recording.
    delay: Duration,
    streams: Streams,
}

/// Replays a recording, and returns the differences.
pub(crate) async fn replay(scenario: &Scenario, quirks: Quirks, seed: u64) -> Vec<String> {
    let recording = load(scenario.name);
    let setup = Setup::new(quirks, seed).await;
    let name = format!("fx-{}", scenario.name);
    let mut compare = Compare::new(created(&recording), setup.now(), TimeDelta::milliseconds(scenario.tolerance_ms));
    compare.distinct_times = quirks.contains(Quirk::LateCreationTimes);
    let recorded = list(&recording, "/workflow");
    let definitions = match recorded {
        [] => vec![workflow(&recording, &name, &scenario.task)],
        some => some.iter().map(|put| put["request"].clone()).collect(),
    };
    for (at, definition) in definitions.iter().enumerate() {
        let put = setup.wire.call("v1.AdminService.PutWorkflow", definition).await.unwrap();
        if let Some(recorded) = recorded.get(at) {
            compare.check("workflow", Extra::Forbidden, &recorded["response"], &put);
        }
    }
    let registration = registration_for(&name, &definitions);
    let by_metadata = recording.pointer("/streams/events_by_metadata_request");
    let streams = Streams {
        results: setup.wire.results(),
        by_metadata: by_metadata.map(|request| setup.wire.listen("Dispatcher.SubscribeToWorkflowEvents", request)),
        by_run: None,
        worker: None,
    };
    let mut replay = Replay {
        setup,
        registration,
        scenario,
        recording: &recording,
        compare,
        start: Instant::now() + STREAM_LEAD,
        delay: Duration::ZERO,
        streams,
    };
    replay.run_actions().await;
    replay.compare.differences
}

impl<'a> Replay<'a> {
    async fn run_actions(&mut self) {
        if self.scenario.worker_at.is_none() && self.recording.pointer("/worker/registered").is_some() {
            self.start_worker().await;
        }
        sleep_until(self.start).await;
        self.compare.ours = self.setup.now();
        let (trigger, rpc) = (&self.recording["trigger"], self.recording["trigger"]["rpc"].as_str().unwrap());
        let response = self.setup.wire.call(rpc, &trigger["request"]).await.unwrap();
        self.compare.check("trigger", Extra::Forbidden, &trigger["response"], &response);
        for (at, action) in self.actions() {
            sleep_until(self.start + Duration::from_millis(at.unsigned_abs()) + self.delay).await;
            self.run_action(at, action).await;
        }
    }

    /// The recorded actions, by time.
    fn actions(&self) -> Vec<(i64, Action<'a>)> {
        let recording = self.recording;
        let mut actions = Vec::new();
        actions.extend(self.scenario.worker_at.map(|at| (at, Action::StartWorker)));
        actions.extend(
            list(recording, "/streams/results_asked")
                .iter()
                .map(|sent| (at_ms(sent), Action::SubscribeResult(&sent["request"]))),
        );
        actions.extend(
            recording
                .pointer("/streams/events_by_run_attached_at_ms")
                .map(|at| (at.as_i64().unwrap(), Action::WatchRun)),
        );
        actions.extend(list(recording, "/worker/sent").iter().map(|sent| (at_ms(sent), Action::SendReport(sent))));
        actions.extend(
            list(recording, "/steps")
                .iter()
                .filter(|step| step.get("rpc").is_some())
                .map(|step| (at_ms(step), Action::Step(step))),
        );
        let fetches = list(recording, "/grpc/get_run_details");
        actions.extend(fetches.iter().map(|fetched| (at_ms(fetched), Action::FetchDetails(fetched))));
        actions.extend(
            list(recording, "/rest/earlier").iter().map(|fetched| (at_ms(fetched), Action::FetchRest(fetched))),
        );
        actions.push((at_ms(fetches.last().unwrap()), Action::CheckFinalState));
        actions.extend(
            recording
                .pointer("/streams/late_subscriber")
                .map(|late| (late["asked_at_ms"].as_i64().unwrap(), Action::LateSubscriber(late))),
        );
        let end = at_ms(&recording["streams"]["results_end"]);
        actions.push((end, Action::CheckStreams));
        actions.extend(
            list(recording, "/revisited")
                .iter()
                .map(|again| (end + 1000 * again["after_s"].as_i64().unwrap(), Action::Revisit(again))),
        );
        actions.sort_by_key(|(at, _)| *at);
        actions
    }

    async fn run_action(&mut self, at: i64, action: Action<'_>) {
        match action {
            Action::StartWorker => self.start_worker().await,
            Action::SubscribeResult(request) => self.streams.results.subscribe(&self.ours(request)),
            Action::WatchRun => self.streams.by_run = Some(self.watch_run()),
            Action::SendReport(sent) => self.send(sent).await,
            Action::Step(step) => {
                let response = self.call(step).await;
                self.compare.check(&format!("step {at}"), Extra::Forbidden, &step["response"], &response);
            }
            Action::FetchDetails(fetched) => self.fetch_details(fetched).await,
            Action::FetchRest(fetched) => self.fetch_rest(fetched).await,
            Action::LateSubscriber(late) => self.late_subscriber(late).await,
            Action::CheckFinalState => super::final_state::check(&self.setup, self.recording, &mut self.compare).await,
            Action::CheckStreams => self.check_streams(),
            Action::Revisit(again) => self.revisit(again).await,
        }
    }

    fn ours(&self, request: &Value) -> Value {
        self.compare.translate(request, TimeDelta::from_std(self.delay).unwrap())
    }

    async fn call(&self, call: &Value) -> Value {
        self.setup.wire.call(call["rpc"].as_str().unwrap(), &self.ours(&call["request"])).await.unwrap()
    }

    async fn start_worker(&mut self) {
        let recorded = &self.recording["worker"]["registered"];
        let (registered, received) = self.setup.worker(recorded.get("request").unwrap_or(&self.registration)).await;
        self.compare.check("registered", Extra::Allowed, recorded.get("response").unwrap_or(recorded), &registered);
        self.streams.worker = Some(received);
    }

    fn run(&self) -> String {
        self.compare.name(FIRST_RUN)
    }

    fn watch_run(&self) -> Received {
        self.setup.wire.listen("Dispatcher.SubscribeToWorkflowEvents", &json!({"workflow_run_id": self.run()}))
    }

    /// Sends the report of a worker, after it has received the attempt.
    async fn send(&mut self, sent: &Value) {
        let mut request = self.ours(&sent["request"]);
        if sent["rpc"] == "Dispatcher.SendStepActionEvent" {
            let start = Instant::now();
            let action = self.assigned_action(&request, &sent["request"]).await;
            self.delay += start.elapsed();
            self.compare.check(
                "task",
                Extra::Forbidden,
                &sent["request"]["task_run_external_id"],
                &action["task_run_external_id"],
            );
            request = self.ours(&sent["request"]);
            for key in ["job_id", "job_run_id", "task_id", "task_run_external_id", "action_id"] {
                request[key] = action[key].clone();
            }
            request["worker_id"] = self.compare.name(FIRST_WORKER).into();
        }
        let response = self.setup.wire.call(sent["rpc"].as_str().unwrap(), &request).await.unwrap();
        if let Some(recorded) = sent.get("response") {
            self.compare.check("sent", Extra::Forbidden, recorded, &response);
        }
    }

    async fn assigned_action(&self, report: &Value, recorded: &Value) -> Value {
        // The recording contains the name of a DAG task whose id is still unknown.
        let id = recorded["task_run_external_id"].as_str().unwrap();
        let (ids, about) = (&self.recording["ids"], &self.recording["ids_about"]);
        let alias = ids.as_object().unwrap().iter().find(|(alias, known)| alias.starts_with("task-") && *known == id);
        let name = alias.map_or(&Value::Null, |(alias, _)| &about[alias]);
        for _ in 0..20_000 {
            let messages = self.streams.worker.as_ref().unwrap().messages();
            let found = messages.into_iter().find(|(_, action)| {
                action["action_type"] == "START_STEP_RUN"
                    && action["retry_count"] == report["retry_count"]
                    && (action["task_run_external_id"] == report["task_run_external_id"]
                        || action["task_name"] == *name)
            });
            if let Some((_, action)) = found {
                return action;
            }
            sleep(Duration::from_millis(1)).await;
        }
        panic!("expected the assignment of the reported attempt, got none: {report}");
    }

    /// Fetches details once, or repeatedly if the recorder also waited for a status.
    async fn fetch_details(&mut self, fetched: &Value) {
        let (when, recorded) = (fetched["when"].as_str().unwrap(), &fetched["response"]);
        let start = Instant::now();
        let response = loop {
            let response = self.setup.wire.call(GET_RUN_DETAILS, &self.ours(&fetched["request"])).await.unwrap();
            let waits = when.starts_with("first seen") && start.elapsed() < Duration::from_secs(2);
            if !waits || response["status"] == recorded["status"] {
                break response;
            }
            sleep(Duration::from_millis(1)).await;
        };
        self.delay += start.elapsed();
        let mut recorded = recorded.clone();
        if at_ms(fetched) < 100 {
            if response["done"] == true && recorded["done"] == false {
                // In the embedded engine, reports are not queued.
                return;
            }
            // The first fetch may be before or after the assignment.
            for pointer in ["/status", "/task_runs/work/status", "/task_runs/a/status"] {
                if let Some(status @ (Value::String(_) | Value::Null)) = recorded.pointer_mut(pointer)
                    && ["QUEUED", "RUNNING"].iter().any(|early| status == early)
                {
                    *status = response.pointer(pointer).unwrap().clone();
                }
            }
        }
        let tasks = |details: &Value| details["task_runs"].clone();
        let path = format!("details {when:?} response");
        self.compare.check(&path, Extra::Forbidden, &tasks(&recorded), &tasks(&response));
        self.compare.check(&path, Extra::Allowed, &recorded, &response);
    }

    async fn fetch_rest(&mut self, fetched: &Value) {
        let path = format!("/api/v1/stable/workflow-runs/{}", self.run());
        let (run, status) = (self.setup.wire.get(&path).await, self.setup.wire.get(&format!("{path}/status")).await);
        // At the first fetch, REST may have only the run itself.
        if fetched["run"]["tasks"] != json!([]) {
            let path = format!("earlier {}", fetched["when"]);
            self.compare.check(
                &path,
                Extra::Allowed,
                &super::parallel::sorted(&fetched["run"]),
                &super::parallel::sorted(&run),
            );
        }
        self.compare.check("earlier status", Extra::Allowed, &fetched["run_status"], &status);
    }

    async fn late_subscriber(&mut self, late: &Value) {
        let start = Instant::now();
        let (results, events) = (self.setup.wire.results(), self.watch_run());
        results.subscribe(&json!({"workflow_run_id": self.run()}));
        sleep(Duration::from_millis(1100)).await;
        self.delay += start.elapsed();
        self.check_received("late results", &late["results"], &results.received, start);
        self.check_received("late events", &late["events_by_run"], &events, start);
        self.check_end("late end", &late["events_by_run_end"], &events, start);
        results.received.close();
    }

    async fn revisit(&mut self, again: &Value) {
        let fetched = &again["get_run_details"];
        let response = self.setup.wire.call(GET_RUN_DETAILS, &self.ours(&fetched["request"])).await.unwrap();
        self.compare.check("revisited response", Extra::Forbidden, &fetched["response"], &response);
        let status = self.setup.wire.get(&format!("/api/v1/stable/workflow-runs/{}/status", self.run())).await;
        self.compare.check("revisited status", Extra::Allowed, &again["rest_run_status"], &status);
        let start = Instant::now();
        let results = self.setup.wire.results();
        results.subscribe(&json!({"workflow_run_id": self.run()}));
        sleep(Duration::from_millis(1100)).await;
        // These times were recorded in seconds.
        let tolerance = std::mem::replace(&mut self.compare.tolerance, TimeDelta::seconds(10));
        self.check_received("revisited results", &again["results"], &results.received, start);
        self.compare.tolerance = tolerance;
        results.received.close();
    }

    fn check_streams(&mut self) {
        let (recording, start) = (self.recording, self.start);
        let streams = &recording["streams"];
        let results = self.streams.results.received.clone();
        self.check_received("results", &streams["results"], &results, start);
        self.check_end("results end", &streams["results_end"], &results, start);
        let events =
            [("events_by_metadata", self.streams.by_metadata.clone()), ("events_by_run", self.streams.by_run.clone())];
        for (key, received) in events {
            if let Some(received) = received {
                self.check_received(key, streams.get(key).unwrap_or(&json!([])), &received, start);
                self.check_end(key, &streams[format!("{key}_end")], &received, start);
            }
        }
        if let (Some(received), Some(recorded)) = (self.streams.worker.clone(), recording.pointer("/worker/received")) {
            // If there are several messages, they are trimmed except for the first one.
            let extra = if list(recording, "/worker/received").len() > 1 { Extra::Allowed } else { Extra::Forbidden };
            self.check_messages("received", extra, recorded, &received, start);
        }
    }

    fn check_received(&mut self, path: &str, recorded: &Value, received: &Received, from: Instant) {
        self.check_messages(path, Extra::Forbidden, recorded, received, from);
    }

    fn check_messages(&mut self, path: &str, extra: Extra, recorded: &Value, received: &Received, from: Instant) {
        let ours = received
            .messages()
            .into_iter()
            .map(|(at, message)| json!({"at_ms": (at - from).as_millis(), "message": message}));
        let mut ours: Value = ours.collect();
        if path == "events_by_run" {
            let attached = at_ms(&json!({"at_ms": self.recording["streams"]["events_by_run_attached_at_ms"]}));
            ours = super::parallel::since(&self.compare, attached, recorded, &ours);
        }
        let ours = super::parallel::aligned(&self.compare, recorded, &ours);
        let (recorded, ours) = super::parallel::by_run(&mut self.compare, path, recorded, &ours);
        self.compare.check(path, extra, &recorded, &ours);
    }

    fn check_end(&mut self, path: &str, recorded: &Value, received: &Received, from: Instant) {
        let end = match received.end() {
            Some((at, code, _)) => {
                json!({"at_ms": (at - from).as_millis(), "by": "engine", "code": format!("{code:?}").to_uppercase()})
            }
            None => json!({"at_ms": recorded["at_ms"], "by": "recorder"}),
        };
        self.compare.check(path, Extra::Forbidden, recorded, &end);
    }
}
