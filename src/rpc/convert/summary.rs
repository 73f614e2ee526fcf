//! Rows of lists, and log lines, from the REST API's JSON.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::rest_run::{LogRow, Row};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{LogLevel, LogLine, Payload, RunSummary, TaskId, TaskSummary, attempt_number, metadata, trigger};

/// The input of a run, or the payload of an event. A missing one is an empty object.
pub(crate) fn rest_input(raw: Option<&RawValue>) -> Payload {
    Payload::input(raw.map_or("{}", RawValue::get))
}

/// A row of a list of runs or of tasks.
#[derive(Debug, Clone)]
pub(crate) struct ListRow {
    pub(crate) run: RunSummary,
    /// The id and the name of the task, in a list of tasks.
    pub(crate) task: Option<(TaskId, Option<String>)>,
    /// Whether the workflow is in another namespace than the client.
    pub(crate) is_foreign: bool,
}

impl ListRow {
    /// The unique id of the row. The task of a single-task run has the id of its run.
    pub(crate) fn key(&self) -> TaskId {
        self.task.as_ref().map_or_else(|| self.run.id.into(), |(task, _)| *task)
    }
}

impl From<ListRow> for RunSummary {
    fn from(row: ListRow) -> Self {
        row.run
    }
}

impl From<ListRow> for TaskSummary {
    fn from(row: ListRow) -> Self {
        let id = row.key();
        let run = row.run;
        Self {
            id,
            name: row.task.and_then(|(_, name)| name),
            run_id: run.id,
            workflow_id: run.workflow_id,
            workflow_name: run.workflow_name,
            status: run.status,
            attempt: run.attempt,
            error: run.error,
            metadata: run.metadata,
            engine_metadata: run.engine_metadata,
            created_at: run.created_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
        }
    }
}

/// Converts a row, for a client that may have a namespace.
pub(crate) fn list_row(row: Row, of_tasks: bool, namespace: Option<&str>) -> Result<ListRow> {
    let full = row.workflow_name.filter(|name| !name.is_empty());
    let own = match namespace {
        Some(namespace) => full.as_deref().and_then(|full| full.strip_prefix(namespace)),
        None => full.as_deref(),
    };
    let (metadata, mut engine_metadata) = metadata::split(row.additional_metadata.unwrap_or_default());
    trigger::remove_namespace(&mut engine_metadata, namespace);
    // The row's own `createdAt` is the time of a DAG run's first event. Lists are sorted and paged by `metadata.createdAt`.
    let created_at = row.metadata.created_at.or(row.created_at).ok_or_else(|| {
        Error::new(ErrorKind::Decode, format!("the row of run {} has no creation time", row.workflow_run_external_id))
    })?;
    let task = row.task_external_id.filter(|_| of_tasks).map(|id| (id, task_name(&row.display_name)));
    // Without its name, it is not known whether the workflow is in the namespace.
    let is_foreign = namespace.is_some() && own.is_none();
    let run = RunSummary {
        id: row.workflow_run_external_id,
        parent_task_id: row.parent_task_external_id,
        workflow_id: row.workflow_id,
        workflow_name: own.map(str::to_owned).or(full),
        status: row.status,
        attempt: row.attempt.or(row.retry_count.map(attempt_number)).unwrap_or(1),
        error: row.error_message.filter(|text| !text.is_empty()),
        metadata,
        engine_metadata,
        created_at,
        started_at: row.started_at,
        finished_at: row.finished_at,
    };
    Ok(ListRow { run, task, is_foreign })
}

/// The name of a task, from its display name, which is the name, a hyphen, and the creation time.
fn task_name(display: &str) -> Option<String> {
    let (name, made) = display.rsplit_once('-')?;
    made.parse::<u64>().ok().map(|_| name.to_owned())
}

/// A line of a task's log.
pub(crate) fn log_line(task: TaskId, row: LogRow) -> LogLine {
    LogLine {
        task_id: task,
        attempt: row.attempt.unwrap_or(1),
        created_at: row.created_at,
        level: LogLevel::from_name(row.level.as_deref().unwrap_or("INFO")),
        message: row.message,
        // The engine stores an empty object for a line without metadata.
        metadata: row
            .metadata
            .filter(|metadata| !matches!(metadata, Value::Null) && metadata != &Value::Object(Map::new())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunStatus;

    #[test]
    fn a_task_is_shown_under_its_name() {
        assert_eq!(task_name("work-2-1795442743751").as_deref(), Some("work-2"));
        assert_eq!((task_name("work-2x"), task_name("work")), (None, None));
    }

    fn row(more: &str) -> RunSummary {
        let id = "00000000-0000-4000-8001-000000000001";
        let body = format!(
            r#"{{"metadata":{{"id":"{id}","createdAt":"2026-11-24T10:00:00.123456Z"}},"workflowId":"{id}",
                "workflowRunExternalId":"{id}"{more}}}"#
        );
        list_row(serde_json::from_str(&body).unwrap(), false, None).unwrap().run
    }

    #[test]
    fn a_row_without_a_workflow_name_has_none() {
        for more in ["", r#","workflowName":null"#, r#","workflowName":"""#] {
            let run = row(&format!(r#","status":"COMPLETED"{more}"#));
            assert_eq!(run.workflow_name, None, "{more}");
        }
        assert_eq!(row(r#","status":"COMPLETED","workflowName":"w""#).workflow_name.as_deref(), Some("w"));
    }

    #[test]
    fn created_at_is_the_time_by_which_lists_are_sorted() {
        let created = row(r#","status":"COMPLETED","createdAt":"2026-11-24T10:00:01Z""#).created_at;
        assert_eq!(created.to_rfc3339(), "2026-11-24T10:00:00.123456+00:00");
    }

    #[test]
    fn attempt_numbers_saturate() {
        assert_eq!(row(r#","status":"COMPLETED""#).attempt, 1);
        assert_eq!(row(r#","status":"COMPLETED","retryCount":2147483647"#).attempt, 2_147_483_648);
        assert_eq!(row(r#","status":"COMPLETED","retryCount":4294967295"#).attempt, u32::MAX);
        assert_eq!(row(r#","status":"COMPLETED","attempt":4294967295,"retryCount":1"#).attempt, u32::MAX);
    }

    #[test]
    fn s10_a_status_name_that_is_not_known_is_carried() {
        let row = row(r#","status":"PAUSED""#);
        assert_eq!(row.status, RunStatus::Unknown("PAUSED".into()));
    }
}
