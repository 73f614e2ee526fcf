//! The evidence about a run, indexed by task. It is built once for each fetch.

use std::collections::{BTreeMap, HashMap};

use super::attempts::{attempts, replayed_after};
use super::evidence::Evidence;
use crate::model::{Attempt, Payload, RunId, RunStatus, TaskId, attempt_number};
use crate::rpc::convert::GrpcTask;
use crate::rpc::convert::{RestTask, TaskEvent, TaskEventKind};

/// A run, and its tasks that exist, in the order of the definition.
#[derive(Debug)]
pub(super) struct RunView<'a> {
    pub(super) run: RunId,
    pub(super) is_single_task: bool,
    pub(super) evidence: &'a Evidence,
    pub(super) tasks: Vec<TaskView<'a>>,
}

/// What is known of one task of a run.
#[derive(Debug)]
pub(super) struct TaskView<'a> {
    pub(super) id: TaskId,
    pub(super) name: &'a str,
    /// Its entries in the message of the result stream.
    pub(super) results: Vec<&'a Result<Payload, String>>,
    pub(super) grpc: Option<&'a GrpcTask>,
    pub(super) rest: Option<&'a RestTask>,
    pub(super) events: Vec<&'a TaskEvent>,
    /// The attempts according to the events, oldest first, and the numbers of those after which the task was replayed.
    pub(super) attempts: Vec<Attempt>,
    pub(super) replayed_after: Vec<u32>,
    /// The number of retries that its definition allows.
    pub(super) retries: i64,
}

impl<'a> RunView<'a> {
    pub(super) fn new(run: RunId, evidence: &'a Evidence) -> Self {
        let is_single_task = evidence.is_single_task(run) == Some(true);
        let mut definitions: HashMap<&str, (usize, i64)> = HashMap::new();
        for (place, task) in evidence.definitions().enumerate() {
            definitions.entry(&task.readable_id).or_insert((place, task.retries));
        }
        let mut by_task = ByTask::new(evidence);
        let mut tasks: Vec<_> = names(run, evidence, is_single_task)
            .into_iter()
            .map(|(id, name)| {
                let of_task = by_task.0.remove(&id).unwrap_or_default();
                let events = if is_single_task { evidence.events.iter().collect() } else { of_task.events };
                let (place, retries) = definitions.get(name).copied().unwrap_or((usize::MAX, 0));
                (place, TaskView::new(id, name, TaskEvidence { events, ..of_task }, retries))
            })
            .collect();
        tasks.sort_by_key(|(place, _)| *place);
        Self { run, is_single_task, evidence, tasks: tasks.into_iter().map(|(_, task)| task).collect() }
    }

    /// The status in REST, which is the stable one.
    pub(super) fn rest_status(&self) -> Option<&'a RunStatus> {
        self.evidence.rest.as_ref().map(|run| &run.run.status)
    }
}

/// What each API view has of one task.
#[derive(Default)]
struct TaskEvidence<'a> {
    results: Vec<&'a Result<Payload, String>>,
    grpc: Option<&'a GrpcTask>,
    rest: Option<&'a RestTask>,
    events: Vec<&'a TaskEvent>,
}

/// The evidence of each task, so that a run with thousands of tasks is not searched for each of them.
struct ByTask<'a>(HashMap<TaskId, TaskEvidence<'a>>);

impl<'a> ByTask<'a> {
    fn new(evidence: &'a Evidence) -> Self {
        let mut all: HashMap<TaskId, TaskEvidence<'a>> = HashMap::new();
        for result in evidence.results.iter().flatten() {
            all.entry(result.task).or_default().results.push(&result.result);
        }
        for task in evidence.grpc.iter().flat_map(|run| run.tasks.values()) {
            all.entry(task.id).or_default().grpc.get_or_insert(task);
        }
        for task in evidence.rest.iter().flat_map(|run| &run.tasks) {
            all.entry(task.task_external_id).or_default().rest.get_or_insert(task);
        }
        for event in evidence.rest.iter().flat_map(|run| &run.task_events) {
            if let Some(task) = event.task_id {
                all.entry(task).or_default().events.push(event);
            }
        }
        Self(all)
    }
}

/// The names of the tasks. Each API view lacks some: gRPC those that it has lost or cannot send, REST those that it does not have yet.
fn names(run: RunId, evidence: &Evidence, is_single_task: bool) -> BTreeMap<TaskId, &str> {
    let by_rest = evidence.rest.iter().flat_map(|run| &run.shape);
    let by_rest = by_rest.map(|item| (item.task_external_id, item.task_name.as_str()));
    let by_stream = evidence.results.iter().flatten().map(|result| (result.task, result.name.as_str()));
    let by_grpc = evidence.grpc.iter().flat_map(|run| &run.tasks).map(|(name, task)| (task.id, name.as_str()));
    let mut names: BTreeMap<_, _> = by_rest.chain(by_stream).chain(by_grpc).collect();
    if is_single_task && names.is_empty() {
        names.extend(evidence.definitions().next().map(|task| (run.into(), task.readable_id.as_str())));
    }
    names
}

impl<'a> TaskView<'a> {
    fn new(id: TaskId, name: &'a str, evidence: TaskEvidence<'a>, retries: i64) -> Self {
        let TaskEvidence { results, grpc, rest, events } = evidence;
        Self {
            id,
            name,
            results,
            grpc,
            rest,
            attempts: attempts(events.iter().copied()),
            replayed_after: replayed_after(events.iter().copied()),
            events,
            retries,
        }
    }

    /// Whether the task was replayed, and its new attempt has not started. Then the API views still show the end of the old one.
    pub(super) fn awaits_replay(&self) -> bool {
        let replayed = self.replayed_after.last();
        replayed.is_some() && replayed == self.attempts.last().map(|last| &last.number)
    }

    /// The number of the attempt whose status REST shows, if REST returns it.
    pub(super) fn rest_attempt(&self) -> Option<u32> {
        self.rest.and_then(|task| task.retry_count).map(attempt_number)
    }

    /// Whether the newest attempt was cancelled.
    pub(super) fn was_cancelled(&self) -> bool {
        self.attempts.last().is_some_and(|last| last.status == RunStatus::Cancelled)
    }

    /// The text of the newest attempt's event of a kind, if there is one.
    pub(super) fn event_text(&self, kind: &TaskEventKind) -> Option<String> {
        let newest = self.events.iter().map(|event| event.retry_count).max()?;
        let event = self.events.iter().find(|event| event.retry_count == newest && event.kind == *kind)?;
        let error = event.error_message.as_deref().filter(|text| !text.is_empty());
        Some(error.unwrap_or(&event.message).to_owned())
    }

    /// The status in REST, which is the stable one.
    pub(super) fn rest_status(&self) -> Option<&'a RunStatus> {
        self.rest.map(|task| &task.status)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{evidence, run};
    use super::*;

    #[test]
    fn the_task_of_a_single_task_run_has_all_events_and_results() {
        let evidence = evidence("COMPLETED", "COMPLETED", &[("STARTED", ""), ("FINISHED", "")], &[Ok("{}")]);
        let view = RunView::new(run(), &evidence);
        assert!(view.is_single_task);
        let [task] = &view.tasks[..] else { panic!("{:?}", view.tasks) };
        assert_eq!((task.name, task.events.len(), task.results.len(), task.attempts.len()), ("work", 2, 1, 1));
    }

    #[test]
    fn tasks_are_in_the_order_of_the_definition() {
        let mut evidence = evidence("", "RUNNING", &[], &[]);
        let rest = evidence.rest.as_mut().unwrap();
        let id = |number: u128| TaskId::from(uuid::Uuid::from_u128(number));
        rest.shape = serde_json::from_value(serde_json::json!([
            {"taskExternalId": id(1), "taskName": "b"}, {"taskExternalId": id(2), "taskName": "a"},
        ]))
        .unwrap();
        rest.tasks.clear();
        let config =
            serde_json::json!({"Name": "w", "Tasks": [{"ReadableId": "a"}, {"ReadableId": "b", "Retries": 3}]});
        rest.workflow_config = serde_json::from_value(config).unwrap();
        let view = RunView::new(run(), &evidence);
        assert!(!view.is_single_task);
        let tasks: Vec<_> = view.tasks.iter().map(|task| (task.name, task.retries)).collect();
        assert_eq!(tasks, [("a", 0), ("b", 3)]);
    }

    #[test]
    fn a_task_awaits_its_replay_until_the_next_attempt_is_queued() {
        let mut evidence = evidence("", "COMPLETED", &[("FINISHED", ""), ("RETRIED_BY_USER", "")], &[]);
        assert!(RunView::new(run(), &evidence).tasks[0].awaits_replay());
        let mut next = evidence.events[0].clone();
        next.retry_count = Some(1);
        evidence.events.push(next);
        assert!(!RunView::new(run(), &evidence).tasks[0].awaits_replay());
    }
}
