//! Plays a recording again: the same requests at the same times, and then both sides' answers are compared.

use std::time::Duration;

use chrono::TimeDelta;
use hatchet::embedded::{Quirk, Quirks};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::compare::{Compare, Extra};
use super::recording::{FIRST_RUN, FIRST_WORKER, at_ms, created, list, load, workflow};
use super::stage::{Stage, registration_for};
use super::wire::{Heard, Results};

/// How long before the trigger the recorder opened its streams.
const BEFORE: Duration = Duration::from_millis(800);
const LOOK: &str = "v1.AdminService.GetRunDetails";

/// A recording, and what is known of it that it does not say itself.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// How the task differs from the usual one, where the recording leaves it out.
    pub(crate) task: Value,
    /// How far times may be from the recorded ones.
    pub(crate) slack_ms: i64,
    /// When the worker comes, for one that comes late.
    pub(crate) worker_at: Option<i64>,
    /// Whether chance decides what is shown.
    pub(crate) by_chance: bool,
}

enum Act<'a> {
    Worker,
    Ask(&'a Value),
    WatchRun,
    Sent(&'a Value),
    Step(&'a Value),
    Look(&'a Value),
    RestLook(&'a Value),
    Late(&'a Value),
    Settled,
    End,
    Revisit(&'a Value),
}

/// What was heard, with the key under which the recording has it.
struct Heards {
    results: Results,
    by_metadata: Option<Heard>,
    by_run: Option<Heard>,
    worker: Option<Heard>,
}

pub(crate) struct Replay<'a> {
    stage: Stage,
    registration: Value,
    scenario: &'a Scenario,
    recording: &'a Value,
    compare: Compare,
    start: Instant,
    /// How much later than recorded this goes, since something made it wait.
    late: Duration,
    heards: Heards,
}

/// Plays a recording and tells what differed.
pub(crate) async fn replay(scenario: &Scenario, quirks: Quirks, seed: u64) -> Vec<String> {
    let recording = load(scenario.name);
    let stage = Stage::set(quirks, seed).await;
    let name = format!("fx-{}", scenario.name);
    let mut compare = Compare::new(created(&recording), stage.now(), TimeDelta::milliseconds(scenario.slack_ms));
    compare.apart = quirks.has(Quirk::LateCreationTimes);
    let recorded = list(&recording, "/workflow");
    let definitions = match recorded {
        [] => vec![workflow(&recording, &name, &scenario.task)],
        some => some.iter().map(|put| put["request"].clone()).collect(),
    };
    for (at, definition) in definitions.iter().enumerate() {
        let put = stage.wire.call("v1.AdminService.PutWorkflow", definition).await.unwrap();
        if let Some(recorded) = recorded.get(at) {
            compare.check("workflow", Extra::Forbidden, &recorded["response"], &put);
        }
    }
    let registration = registration_for(&name, &definitions);
    let by_metadata = recording.pointer("/streams/events_by_metadata_request");
    let heards = Heards {
        results: stage.wire.results(),
        by_metadata: by_metadata.map(|request| stage.wire.listen("Dispatcher.SubscribeToWorkflowEvents", request)),
        by_run: None,
        worker: None,
    };
    let mut replay = Replay {
        stage,
        registration,
        scenario,
        recording: &recording,
        compare,
        start: Instant::now() + BEFORE,
        late: Duration::ZERO,
        heards,
    };
    replay.play().await;
    replay.compare.differences
}

impl<'a> Replay<'a> {
    async fn play(&mut self) {
        if self.scenario.worker_at.is_none() && self.recording.pointer("/worker/registered").is_some() {
            self.hire().await;
        }
        sleep_until(self.start).await;
        self.compare.ours = self.stage.now();
        let (trigger, rpc) = (&self.recording["trigger"], self.recording["trigger"]["rpc"].as_str().unwrap());
        let response = self.stage.wire.call(rpc, &trigger["request"]).await.unwrap();
        self.compare.check("trigger", Extra::Forbidden, &trigger["response"], &response);
        for (at, act) in self.acts() {
            sleep_until(self.start + Duration::from_millis(at.unsigned_abs()) + self.late).await;
            self.act(at, act).await;
        }
    }

    /// All that was done, by its time.
    fn acts(&self) -> Vec<(i64, Act<'a>)> {
        let recording = self.recording;
        let mut acts = Vec::new();
        acts.extend(self.scenario.worker_at.map(|at| (at, Act::Worker)));
        acts.extend(
            list(recording, "/streams/results_asked").iter().map(|ask| (at_ms(ask), Act::Ask(&ask["request"]))),
        );
        acts.extend(
            recording.pointer("/streams/events_by_run_attached_at_ms").map(|at| (at.as_i64().unwrap(), Act::WatchRun)),
        );
        acts.extend(list(recording, "/worker/sent").iter().map(|sent| (at_ms(sent), Act::Sent(sent))));
        acts.extend(
            list(recording, "/steps")
                .iter()
                .filter(|step| step.get("rpc").is_some())
                .map(|step| (at_ms(step), Act::Step(step))),
        );
        let looks = list(recording, "/grpc/get_run_details");
        acts.extend(looks.iter().map(|look| (at_ms(look), Act::Look(look))));
        acts.extend(list(recording, "/rest/earlier").iter().map(|look| (at_ms(look), Act::RestLook(look))));
        acts.push((at_ms(looks.last().unwrap()), Act::Settled));
        acts.extend(
            recording
                .pointer("/streams/late_subscriber")
                .map(|late| (late["asked_at_ms"].as_i64().unwrap(), Act::Late(late))),
        );
        let end = at_ms(&recording["streams"]["results_end"]);
        acts.push((end, Act::End));
        acts.extend(
            list(recording, "/revisited")
                .iter()
                .map(|again| (end + 1000 * again["after_s"].as_i64().unwrap(), Act::Revisit(again))),
        );
        acts.sort_by_key(|(at, _)| *at);
        acts
    }

    async fn act(&mut self, at: i64, act: Act<'_>) {
        match act {
            Act::Worker => self.hire().await,
            Act::Ask(request) => self.heards.results.ask(&self.ours(request)),
            Act::WatchRun => self.heards.by_run = Some(self.watch_run()),
            Act::Sent(sent) => self.send(sent).await,
            Act::Step(step) => {
                let response = self.call(step).await;
                self.compare.check(&format!("step {at}"), Extra::Forbidden, &step["response"], &response);
            }
            Act::Look(look) => self.look(look).await,
            Act::RestLook(look) => self.rest_look(look).await,
            Act::Late(late) => self.late_subscriber(late).await,
            Act::Settled => super::settled::check(&self.stage, self.recording, &mut self.compare).await,
            Act::End => self.end(),
            Act::Revisit(again) => self.revisit(again).await,
        }
    }

    fn ours(&self, request: &Value) -> Value {
        self.compare.translate(request, TimeDelta::from_std(self.late).unwrap())
    }

    async fn call(&self, call: &Value) -> Value {
        self.stage.wire.call(call["rpc"].as_str().unwrap(), &self.ours(&call["request"])).await.unwrap()
    }

    async fn hire(&mut self) {
        let recorded = &self.recording["worker"]["registered"];
        let (registered, heard) = self.stage.worker(recorded.get("request").unwrap_or(&self.registration)).await;
        self.compare.check("registered", Extra::Allowed, recorded.get("response").unwrap_or(recorded), &registered);
        self.heards.worker = Some(heard);
    }

    fn run(&self) -> String {
        self.compare.name(FIRST_RUN)
    }

    fn watch_run(&self) -> Heard {
        self.stage.wire.listen("Dispatcher.SubscribeToWorkflowEvents", &json!({"workflow_run_id": self.run()}))
    }

    /// What the worker said. It says nothing about an attempt before it has it.
    async fn send(&mut self, sent: &Value) {
        let mut request = self.ours(&sent["request"]);
        if sent["rpc"] == "Dispatcher.SendStepActionEvent" {
            let begun = Instant::now();
            let action = self.action(&request, &sent["request"]).await;
            self.late += begun.elapsed();
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
        let response = self.stage.wire.call(sent["rpc"].as_str().unwrap(), &request).await.unwrap();
        if let Some(recorded) = sent.get("response") {
            self.compare.check("sent", Extra::Forbidden, recorded, &response);
        }
    }

    async fn action(&self, report: &Value, recorded: &Value) -> Value {
        // Of a DAG's task that has not come up yet, the recording knows the name.
        let id = recorded["task_run_external_id"].as_str().unwrap();
        let (ids, about) = (&self.recording["ids"], &self.recording["ids_about"]);
        let alias = ids.as_object().unwrap().iter().find(|(alias, known)| alias.starts_with("task-") && *known == id);
        let name = alias.map_or(&Value::Null, |(alias, _)| &about[alias]);
        for _ in 0..20_000 {
            let messages = self.heards.worker.as_ref().unwrap().messages();
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
        panic!("the worker never got the attempt that it reports: {report}");
    }

    /// Looks once, or again and again for a status that the recorder waited for, too.
    async fn look(&mut self, look: &Value) {
        let (when, recorded) = (look["when"].as_str().unwrap(), &look["response"]);
        let begun = Instant::now();
        let response = loop {
            let response = self.stage.wire.call(LOOK, &self.ours(&look["request"])).await.unwrap();
            let waits = when.starts_with("first seen") && begun.elapsed() < Duration::from_secs(2);
            if !waits || response["status"] == recorded["status"] {
                break response;
            }
            sleep(Duration::from_millis(1)).await;
        };
        self.late += begun.elapsed();
        let mut recorded = recorded.clone();
        if at_ms(look) < 100 {
            if response["done"] == true && recorded["done"] == false {
                // Here reports do not lie in a queue for a while.
                return;
            }
            // The first look may come before or after the assignment.
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

    async fn rest_look(&mut self, look: &Value) {
        let path = format!("/api/v1/stable/workflow-runs/{}", self.run());
        let (run, status) = (self.stage.wire.get(&path).await, self.stage.wire.get(&format!("{path}/status")).await);
        // The first look may come before the store has anything but the run itself.
        if look["run"]["tasks"] != json!([]) {
            let path = format!("earlier {}", look["when"]);
            self.compare.check(
                &path,
                Extra::Allowed,
                &super::parallel::sorted(&look["run"]),
                &super::parallel::sorted(&run),
            );
        }
        self.compare.check("earlier status", Extra::Allowed, &look["run_status"], &status);
    }

    async fn late_subscriber(&mut self, late: &Value) {
        let begun = Instant::now();
        let (results, events) = (self.stage.wire.results(), self.watch_run());
        results.ask(&json!({"workflow_run_id": self.run()}));
        sleep(Duration::from_millis(1100)).await;
        self.late += begun.elapsed();
        self.heard("late results", &late["results"], &results.heard, begun);
        self.heard("late events", &late["events_by_run"], &events, begun);
        self.ended("late end", &late["events_by_run_end"], &events, begun);
        results.heard.close();
    }

    async fn revisit(&mut self, again: &Value) {
        let look = &again["get_run_details"];
        let response = self.stage.wire.call(LOOK, &self.ours(&look["request"])).await.unwrap();
        self.compare.check("revisited response", Extra::Forbidden, &look["response"], &response);
        let status = self.stage.wire.get(&format!("/api/v1/stable/workflow-runs/{}/status", self.run())).await;
        self.compare.check("revisited status", Extra::Allowed, &again["rest_run_status"], &status);
        let begun = Instant::now();
        let results = self.stage.wire.results();
        results.ask(&json!({"workflow_run_id": self.run()}));
        sleep(Duration::from_millis(1100)).await;
        // Recorded to the second.
        let slack = std::mem::replace(&mut self.compare.slack, TimeDelta::seconds(10));
        self.heard("revisited results", &again["results"], &results.heard, begun);
        self.compare.slack = slack;
        results.heard.close();
    }

    fn end(&mut self) {
        let (recording, start) = (self.recording, self.start);
        let streams = &recording["streams"];
        let results = self.heards.results.heard.clone();
        self.heard("results", &streams["results"], &results, start);
        self.ended("results end", &streams["results_end"], &results, start);
        let events =
            [("events_by_metadata", self.heards.by_metadata.clone()), ("events_by_run", self.heards.by_run.clone())];
        for (key, heard) in events {
            if let Some(heard) = heard {
                self.heard(key, streams.get(key).unwrap_or(&json!([])), &heard, start);
                self.ended(key, &streams[format!("{key}_end")], &heard, start);
            }
        }
        if let (Some(heard), Some(received)) = (self.heards.worker.clone(), recording.pointer("/worker/received")) {
            // All but the first are trimmed.
            let extra = if list(recording, "/worker/received").len() > 1 { Extra::Allowed } else { Extra::Forbidden };
            self.heard_with("received", extra, received, &heard, start);
        }
    }

    fn heard(&mut self, path: &str, recorded: &Value, heard: &Heard, from: Instant) {
        self.heard_with(path, Extra::Forbidden, recorded, heard, from);
    }

    fn heard_with(&mut self, path: &str, extra: Extra, recorded: &Value, heard: &Heard, from: Instant) {
        let ours = heard
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

    fn ended(&mut self, path: &str, recorded: &Value, heard: &Heard, from: Instant) {
        let end = match heard.end() {
            Some((at, code, _)) => {
                json!({"at_ms": (at - from).as_millis(), "by": "engine", "code": format!("{code:?}").to_uppercase()})
            }
            None => json!({"at_ms": recorded["at_ms"], "by": "recorder"}),
        };
        self.compare.check(path, Extra::Forbidden, recorded, &end);
    }
}
