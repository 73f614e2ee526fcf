//! The messages of workers: their registration, their assignments, and their reports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "embedded")]
use crate::model::Priority;
use crate::model::{LabelValue, RunId, TaskId, WorkerId};
use crate::rpc::pb;
use crate::time::to_proto;

/// The registration of a worker.
#[derive(Debug, Clone)]
pub(crate) struct NewWorker {
    pub(crate) name: String,
    pub(crate) actions: Vec<String>,
    /// The number of slots by kind.
    pub(crate) slots: BTreeMap<String, i32>,
    pub(crate) labels: BTreeMap<String, LabelValue>,
}

impl From<NewWorker> for pb::WorkerRegisterRequest {
    fn from(worker: NewWorker) -> Self {
        Self {
            worker_name: worker.name,
            actions: worker.actions,
            services: vec!["default".into()],
            slot_config: worker.slots.into_iter().collect(),
            labels: worker.labels.into_iter().map(|(key, value)| (key, value.into())).collect(),
            // The contract has no number for this language, and the server rejects one that it does not know.
            runtime_info: Some(pb::RuntimeInfo {
                sdk_version: Some(env!("CARGO_PKG_VERSION").into()),
                language: None,
                language_version: None,
                os: Some(std::env::consts::OS.into()),
                extra: Some("hatchet-rs".into()),
            }),
            ..Default::default()
        }
    }
}

/// A message of the engine to a worker about an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Action(pb::AssignedAction);

/// The kind of a message to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ActionKind {
    Start,
    Cancel,
    /// Several attempts of one task at once.
    StartBatch,
    /// A kind that this version of the crate does not know.
    Unknown(i32),
}

/// An attempt in the payload of a batch.
#[derive(Deserialize)]
struct Member<'a> {
    workflow_run_id: RunId,
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl From<pb::AssignedAction> for Action {
    fn from(action: pb::AssignedAction) -> Self {
        Self(action)
    }
}

impl Action {
    /// The assignment of an attempt that no engine has assigned.
    #[cfg(feature = "embedded")]
    pub(crate) fn synthetic(
        run: RunId,
        task: &str,
        payload: String,
        metadata: String,
        attempt: u32,
        priority: Priority,
    ) -> Self {
        Self(pb::AssignedAction {
            workflow_run_id: run.into(),
            task_run_external_id: run.into(),
            task_name: task.to_owned(),
            action_payload: payload,
            additional_metadata: Some(metadata),
            retry_count: i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX),
            priority: priority.number(),
            ..Default::default()
        })
    }

    pub(crate) fn kind(&self) -> ActionKind {
        match pb::ActionType::try_from(self.0.action_type) {
            Ok(pb::ActionType::StartStepRun) => ActionKind::Start,
            Ok(pb::ActionType::CancelStepRun) => ActionKind::Cancel,
            Ok(pb::ActionType::StartBatch) => ActionKind::StartBatch,
            _ => ActionKind::Unknown(self.0.action_type),
        }
    }

    /// The assignment of a batch without its payload, and the attempts in it, by their tasks, as if each had been assigned alone. The
    /// engine sends neither their retry counts nor their metadata. `task_name`: the name of the task.
    pub(crate) fn into_members(mut self, task_name: &str) -> Result<(Self, BTreeMap<TaskId, Self>)> {
        let payload = std::mem::take(&mut self.0.action_payload);
        let members: BTreeMap<TaskId, Member<'_>> = serde_json::from_str(&payload)
            .map_err(|error| Error::new(ErrorKind::Decode, "failed to parse a batch").with_source(error))?;
        let member = |(task, member): (TaskId, Member<'_>)| {
            let action = pb::AssignedAction {
                action_payload: member.payload.get().to_owned(),
                action_id: self.0.action_id.clone(),
                action_type: self.0.action_type,
                workflow_run_id: member.workflow_run_id.into(),
                task_run_external_id: task.into(),
                task_name: task_name.to_owned(),
                batch_id: self.0.batch_id.clone(),
                ..Default::default()
            };
            (task, Self(action))
        };
        let members = members.into_iter().map(member).collect();
        Ok((self, members))
    }

    /// The same attempt with a retry count that the engine did not send.
    pub(crate) fn with_retry_count(mut self, retry_count: u32) -> Self {
        self.0.retry_count = i32::try_from(retry_count).unwrap_or(i32::MAX);
        self
    }

    /// The id of the batch. Empty if there is none.
    pub(crate) fn batch(&self) -> &str {
        self.0.batch_id.as_deref().unwrap_or_default()
    }

    /// The number of attempts in the batch, as the engine has announced it.
    pub(crate) fn batch_size(&self) -> usize {
        let size = self.0.batch_start_payload.as_ref().map_or(0, |start| start.expected_size);
        usize::try_from(size).unwrap_or_default()
    }

    pub(crate) fn run(&self) -> &str {
        &self.0.workflow_run_id
    }

    pub(crate) fn task(&self) -> &str {
        &self.0.task_run_external_id
    }

    pub(crate) fn task_name(&self) -> &str {
        &self.0.task_name
    }

    /// The action, which identifies the task on the worker.
    pub(crate) fn name(&self) -> &str {
        &self.0.action_id
    }

    /// The workflow of the run, if the server sends it.
    pub(crate) fn workflow(&self) -> Option<&str> {
        self.0.workflow_id.as_deref()
    }

    pub(crate) fn workflow_version(&self) -> Option<&str> {
        self.0.workflow_version_id.as_deref()
    }

    /// 1, 2 or 3.
    pub(crate) fn priority(&self) -> i32 {
        self.0.priority
    }

    /// The task that started the run as its child. The engine names the field after the run.
    pub(crate) fn parent_task(&self) -> Option<&str> {
        self.0.parent_workflow_run_id.as_deref()
    }

    pub(crate) fn retry_count(&self) -> u32 {
        u32::try_from(self.0.retry_count).unwrap_or(0)
    }

    /// A JSON object with the input, the outputs of the parents, and more.
    pub(crate) fn payload(&self) -> &str {
        &self.0.action_payload
    }

    /// A JSON object. Empty if there is none.
    pub(crate) fn metadata(&self) -> &str {
        self.0.additional_metadata.as_deref().unwrap_or_default()
    }
}

/// A report of a worker about an attempt.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) kind: ReportKind,
    pub(crate) worker: WorkerId,
    pub(crate) at: DateTime<Utc>,
    /// The id of the batch that the attempt is part of. Then its retry count may be missing.
    pub(crate) batch: Option<Arc<str>>,
    /// Boxed, because a report is moved often.
    pub(in crate::rpc) event: Box<pb::StepActionEvent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ReportKind {
    Started,
    Completed,
    Failed,
}

impl ReportKind {
    fn number(self) -> i32 {
        let kind = match self {
            Self::Started => pb::StepActionEventType::StepEventTypeStarted,
            Self::Completed => pb::StepActionEventType::StepEventTypeCompleted,
            Self::Failed => pb::StepActionEventType::StepEventTypeFailed,
        };
        kind as i32
    }
}

impl Report {
    /// A report about the attempt of an assignment. `text`: the output, or the error message.
    ///
    /// Without the worker's id, the engine may not store which worker ran the attempt. A report about an attempt of a batch is about the
    /// current attempt of the task, because its retry count is not known.
    pub(crate) fn new(worker: WorkerId, action: &Action, kind: ReportKind, at: DateTime<Utc>, text: String) -> Self {
        let action = &action.0;
        // The engine identifies the attempt by its task and its retry count, and ignores the ids of the step.
        let event = pb::StepActionEvent {
            worker_id: worker.into(),
            task_run_external_id: action.task_run_external_id.clone(),
            action_id: action.action_id.clone(),
            event_timestamp: Some(to_proto(at)),
            event_type: kind.number(),
            event_payload: text,
            retry_count: (action.action_type != pb::ActionType::StartBatch as i32).then_some(action.retry_count),
            ..Default::default()
        };
        let batch = action.batch_id.as_deref().filter(|_| event.retry_count.is_none()).map(Into::into);
        Self { kind, worker, at, batch, event: Box::new(event) }
    }

    /// A report about an attempt whose assignment is not known any longer.
    pub(crate) fn of_attempt(
        worker: WorkerId,
        task: TaskId,
        retry_count: u32,
        kind: ReportKind,
        at: DateTime<Utc>,
        text: String,
    ) -> Self {
        let event = pb::StepActionEvent {
            worker_id: worker.into(),
            task_run_external_id: task.into(),
            event_timestamp: Some(to_proto(at)),
            event_type: kind.number(),
            event_payload: text,
            retry_count: Some(i32::try_from(retry_count).unwrap_or(i32::MAX)),
            ..Default::default()
        };
        Self { kind, worker, at, batch: None, event: Box::new(event) }
    }

    /// The same report, about an attempt of a batch whose retry count is not known.
    pub(crate) fn in_batch(mut self, batch: &str) -> Self {
        self.batch = Some(batch.into());
        self.event.retry_count = None;
        self
    }

    /// The same report, about the attempt with this retry count.
    pub(crate) fn with_retry_count(mut self, retry_count: u32) -> Self {
        self.event.retry_count = Some(i32::try_from(retry_count).unwrap_or(i32::MAX));
        self.batch = None;
        self
    }

    /// The retry count of the attempt, if it is known.
    pub(crate) fn retry_count(&self) -> Option<u32> {
        self.event.retry_count.and_then(|count| u32::try_from(count).ok())
    }

    /// The output, or the error message.
    pub(crate) fn text(&self) -> &str {
        &self.event.event_payload
    }

    /// Whether it is a failure that must not be retried.
    pub(crate) fn is_final_failure(&self) -> bool {
        self.event.should_not_retry == Some(true)
    }

    /// The same report, of a failure that must not be retried.
    pub(crate) fn without_retry(mut self) -> Self {
        self.event.should_not_retry = Some(true);
        self
    }

    /// The same report, of a failure that must be retried after a delay.
    pub(crate) fn with_retry_after(mut self, delay: Duration) -> Self {
        self.event.retry_after_ms = Some(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
        self
    }

    /// The same report with another text.
    pub(crate) fn with_text(mut self, change: impl FnOnce(String) -> String) -> Self {
        self.event.event_payload = change(self.event.event_payload);
        self
    }

    /// The same report, with a later time if its own is before this one.
    pub(crate) fn not_before(mut self, at: DateTime<Utc>) -> Self {
        if self.at < at {
            self.at = at;
            self.event.event_timestamp = Some(to_proto(at));
        }
        self
    }

    /// The same attempt, which has failed with this text and must not be retried.
    pub(crate) fn into_failure(mut self, text: String) -> Self {
        self.kind = ReportKind::Failed;
        self.event.event_type = self.kind.number();
        self.event.event_payload = text;
        self.without_retry()
    }

    /// The delay before the retry of a failure.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.event.retry_after_ms.and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis)
    }

    /// The size of the payload in bytes.
    pub(crate) fn size(&self) -> usize {
        self.event.event_payload.len()
    }

    /// One message for reports of one worker and one kind. The strings are moved out of the reports; [`restore`](Self::restore) moves them
    /// back. The engine stores one time for all of them, and ignores the job and the action.
    pub(in crate::rpc) fn batch<'a>(
        reports: impl Iterator<Item = &'a mut Self>,
        at: DateTime<Utc>,
    ) -> pb::BatchActionEvent {
        let mut batch = pb::BatchActionEvent { event_timestamp: Some(to_proto(at)), ..Default::default() };
        for Self { event, .. } in reports {
            batch.worker_id.clone_from(&event.worker_id);
            batch.action_id.clone_from(&event.action_id);
            batch.event_type = event.event_type;
            batch.items.push(pb::BatchActionEventItem {
                task_run_external_id: std::mem::take(&mut event.task_run_external_id),
                event_payload: std::mem::take(&mut event.event_payload),
                retry_count: event.retry_count,
                should_not_retry: event.should_not_retry,
                retry_after_ms: event.retry_after_ms,
            });
        }
        batch
    }

    pub(in crate::rpc) fn restore<'a>(reports: impl Iterator<Item = &'a mut Self>, batch: pb::BatchActionEvent) {
        for (Self { event, .. }, item) in reports.zip(batch.items) {
            event.task_run_external_id = item.task_run_external_id;
            event.event_payload = item.event_payload;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_that_is_not_known_is_carried() {
        let action = |action_type| Action::from(pb::AssignedAction { action_type, ..Default::default() });
        assert_eq!(action(pb::ActionType::StartStepRun as i32).kind(), ActionKind::Start);
        assert_eq!(action(77).kind(), ActionKind::Unknown(77));
    }

    #[test]
    fn the_assignment_of_a_batch_does_not_keep_the_payloads_of_its_attempts() {
        let id = "00000000-0000-4000-8001-000000000001";
        let batch = Action::from(pb::AssignedAction {
            action_payload: format!(r#"{{"{id}":{{"workflow_run_id":"{id}","payload":{{"input":7}}}}}}"#),
            action_id: "task:task".into(),
            batch_id: Some("b".into()),
            ..Default::default()
        });
        let (batch, members) = batch.into_members("task").unwrap();
        assert_eq!((batch.payload(), batch.batch(), batch.name()), ("", "b", "task:task"));
        let members: Vec<_> = members.values().map(|member| (member.payload(), member.run(), member.batch())).collect();
        assert_eq!(members, [(r#"{"input":7}"#, id, "b")]);
    }

    #[test]
    fn a_batch_borrows_the_texts_of_its_reports() {
        let action = Action::from(pb::AssignedAction {
            task_run_external_id: "task".into(),
            retry_count: 3,
            ..Default::default()
        });
        let worker = uuid::Uuid::from_u128(7).into();
        let report = |text: &str| Report::new(worker, &action, ReportKind::Failed, DateTime::default(), text.into());
        let before = [report("a"), report("b").without_retry()];
        let mut reports = before.clone();
        let batch = Report::batch(reports.iter_mut(), DateTime::default());
        assert_eq!((batch.worker_id.clone(), batch.event_type), (worker.to_string(), ReportKind::Failed.number()));
        let items =
            batch.items.iter().map(|item| (item.event_payload.as_str(), item.retry_count, item.should_not_retry));
        assert_eq!(items.collect::<Vec<_>>(), [("a", Some(3), None), ("b", Some(3), Some(true))]);
        Report::restore(reports.iter_mut(), batch);
        for (one, other) in before.iter().zip(&reports) {
            assert_eq!(one.event, other.event);
        }
    }
}
