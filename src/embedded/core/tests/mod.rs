//! Tests of the state machine with explicit times and without a runtime.

mod definitions;
mod invariants;
mod runs;
mod triggers;
mod turns;
mod workers;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use uuid::Uuid;

use super::store::{
    Action, At, Definition, Effect, End, EventKind, Message, Registration, Report, ReportKind, Resource, Run, RunEvent,
    StatusError, StreamId, Task, TaskDefinition, TaskEventKind, Trigger, Turn, WorkflowOptions,
};
use super::{Core, RestStatus};
use crate::embedded::actor::mixed;
use crate::embedded::quirks::Quirks;

/// A core, its clock, and numbers that count up instead of being random.
struct Bench {
    core: Core,
    now: At,
    numbers: u64,
    streams: u64,
    round: u64,
    /// Whether the next commands arrive in one round.
    at_once: bool,
}

impl Bench {
    fn new(quirks: Quirks) -> Self {
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        Self { core: Core::new(Uuid::nil(), quirks), now, numbers: 0, streams: 0, round: 0, at_once: false }
    }

    /// One turn, as in the engine's task: first the due timers, then the command.
    fn turn<R>(&mut self, command: impl FnOnce(&mut Core, &mut Turn<'_>) -> R) -> R {
        self.round += u64::from(!self.at_once);
        let numbers = &mut self.numbers;
        // The high bits count, the low bits are mixed, so coins have both results.
        let mut random = || {
            *numbers += 1;
            u128::from(*numbers) << 64 | u128::from(mixed(*numbers))
        };
        let mut turn = Turn { now: self.now, random: &mut random, round: self.round };
        self.core.advance(&mut turn);
        let result = command(&mut self.core, &mut turn);
        self.core.finish_turn(&mut turn);
        result
    }

    /// Lets time pass, with a turn whenever a timer is due.
    fn pass(&mut self, length: Duration) {
        let end = self.now + length;
        while let Some(at) = self.core.next_timer().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.turn(|_, _| ());
        }
        self.now = end;
        self.turn(|_, _| ());
    }

    fn effects(&mut self) -> Vec<Effect> {
        self.core.effects().collect()
    }

    /// The actions among the effects, with their streams.
    fn actions(&mut self) -> Vec<(StreamId, Action)> {
        let action = |effect| match effect {
            Effect::Send(stream, Message::Action(action)) => Some((stream, *action)),
            _ => None,
        };
        self.effects().into_iter().filter_map(action).collect()
    }

    fn stream(&mut self) -> StreamId {
        self.streams += 1;
        StreamId(self.streams)
    }

    /// Stores the workflow `w` with one task `t` and starts it once.
    fn started(&mut self, task: TaskDefinition) -> Uuid {
        self.put(task);
        self.trigger()
    }

    fn put(&mut self, task: TaskDefinition) {
        self.put_all(vec![task], None).unwrap();
    }

    /// Stores the workflow `w` with several tasks. All have the same action.
    fn put_all(&mut self, tasks: Vec<TaskDefinition>, on_failure: Option<TaskDefinition>) -> Result<Uuid, StatusError> {
        self.define("w", tasks, on_failure, WorkflowOptions::default())
    }

    /// Stores a workflow with one task.
    fn put_with(&mut self, name: &str, task: TaskDefinition, options: WorkflowOptions) -> Result<(), StatusError> {
        self.define(name, vec![task], None, options).map(drop)
    }

    fn define(
        &mut self,
        name: &str,
        tasks: Vec<TaskDefinition>,
        on_failure: Option<TaskDefinition>,
        options: WorkflowOptions,
    ) -> Result<Uuid, StatusError> {
        let definition = Definition {
            name: name.into(),
            description: String::new(),
            // Not the default, because some runs that are started without a call ignore it.
            default_priority: Some(3),
            input_json_schema: None,
            tasks,
            on_failure,
            options,
        };
        self.turn(|core, turn| core.put_workflow(turn, definition)).map(|version| version.id)
    }

    /// A task of a DAG by its name.
    fn of(&self, run: Uuid, name: &str) -> &Task {
        let run = self.run(run);
        run.tasks.iter().find(|task| &*run.step(task).unwrap().readable_id == name).unwrap()
    }

    /// The tasks of a DAG in the gRPC view, with their statuses.
    fn tasks(&self, run: Uuid) -> Vec<(&str, RestStatus)> {
        let run = self.run(run);
        let views = run.grpc_views(self.now).into_iter();
        views.map(|(task, view)| (&*run.step(task).unwrap().readable_id, view.status)).collect()
    }

    /// The names of the tasks that were assigned to workers.
    fn assigned(&mut self) -> Vec<String> {
        self.actions()
            .into_iter()
            .filter(|(_, action)| !action.cancel)
            .map(|(_, action)| action.readable_id.to_string())
            .collect()
    }

    /// The run events among the effects.
    fn events(&mut self) -> Vec<RunEvent> {
        let event = |effect| match effect {
            Effect::Send(_, Message::Event(event)) => Some(event),
            _ => None,
        };
        self.effects().into_iter().filter_map(event).collect()
    }

    fn trigger(&mut self) -> Uuid {
        self.turn(|core, turn| core.trigger(turn, vec![trigger(None)])).unwrap()[0]
    }

    /// A worker that has registered, listens and has sent a heartbeat.
    fn worker(&mut self, slots: i32) -> (Uuid, StreamId) {
        let worker = self.turn(|core, turn| core.register(turn, registration(slots))).unwrap();
        let stream = self.stream();
        self.turn(|core, _| core.listen(worker, stream)).unwrap();
        self.heartbeat(worker);
        (worker, stream)
    }

    fn heartbeat(&mut self, worker: Uuid) {
        self.turn(|core, turn| core.heartbeat(turn, worker)).unwrap();
    }

    /// Lets time pass while a worker sends heartbeats.
    fn pass_with_heartbeats(&mut self, worker: Uuid, length: Duration) {
        let end = self.now + length;
        while self.now < end {
            self.heartbeat(worker);
            let left = (end - self.now).to_std().unwrap();
            self.pass(left.min(Duration::from_secs(2)));
        }
    }

    fn report(&mut self, task: Uuid, kind: ReportKind, retry_count: i32, payload: &str) {
        self.turn(|core, turn| core.report(turn, report(task, kind, retry_count, payload))).unwrap();
    }

    fn run(&self, id: Uuid) -> &Run {
        self.core.find_run(id).unwrap()
    }

    fn task(&self, id: Uuid) -> &Task {
        &self.run(id).tasks[0]
    }

    fn grpc(&self, id: Uuid) -> RestStatus {
        self.task(id).grpc_view(self.now).status
    }

    fn rest(&self, id: Uuid) -> RestStatus {
        self.task(id).rest_status()
    }

    fn kinds(&self, id: Uuid) -> Vec<(&'static str, i32)> {
        self.task(id).events.iter().map(|event| (event.kind.name(), event.retry_count)).collect()
    }

    fn text(&self, id: Uuid, kind: TaskEventKind) -> &str {
        self.task(id).events.iter().rfind(|event| event.kind == kind).unwrap().message.as_deref().unwrap()
    }
}

fn task() -> TaskDefinition {
    TaskDefinition {
        readable_id: "t".into(),
        action: "w:t".into(),
        parents: vec![],
        conditions: vec![],
        timeout: "60s".into(),
        schedule_timeout: Some("5m".into()),
        retries: 0,
        backoff_factor: None,
        backoff_max_seconds: None,
        concurrency: vec![],
        rate_limits: vec![],
        slots: BTreeMap::new(),
        labels: BTreeMap::new(),
        batch: None,
    }
}

fn named(name: &str, parents: &[&str]) -> TaskDefinition {
    let parents = parents.iter().map(|parent| (*parent).to_owned()).collect();
    TaskDefinition { readable_id: name.into(), parents, ..task() }
}

fn trigger(priority: Option<i32>) -> Trigger {
    let metadata = serde_json::Map::from_iter([("tag".to_owned(), "x".into())]);
    let input = serde_json::json!({"n": 1});
    Trigger { workflow: "w".into(), input, metadata, priority, parent: None, options: None }
}

fn registration(slots: i32) -> Registration {
    let slots = BTreeMap::from([("default".to_owned(), slots)]);
    Registration { name: "worker".into(), actions: vec!["w:t".into()], slots, ..Registration::default() }
}

fn report(task: Uuid, kind: ReportKind, retry_count: i32, payload: &str) -> Report {
    Report {
        task,
        worker: None,
        kind,
        at: None,
        retry_count: Some(retry_count),
        payload: payload.into(),
        should_not_retry: false,
        retry_after: None,
        batch: false,
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
