//! Converts runs to rows, and rows to runs.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::exact;
use super::schema::{Column, Row};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    Completed, Outcome, Payload, RunDetails, RunId, RunStatus, RunSummary, StatusCounts, TaskDetails, Trigger,
};

/// The columns of a [`RunSummary`], and those that filters need.
pub(super) const SUMMARY_COLUMNS: &[Column] = &[
    Column::RunId,
    Column::CreatedAt,
    Column::WorkflowName,
    Column::WorkflowId,
    Column::Status,
    Column::Attempt,
    Column::StartedAt,
    Column::FinishedAt,
    Column::Error,
    Column::EventId,
    Column::ParentTaskId,
    Column::Metadata,
    Column::NonStringMetadata,
    Column::EngineMetadata,
    Column::ArchivedAt,
];

/// The columns without which a run is still a record of what happened.
pub(super) const PAYLOAD_COLUMNS: &[Column] = &[Column::Input, Column::Output, Column::Logs];

/// The columns that identify a run and its version.
pub(super) const VERSION_COLUMNS: &[Column] = &[
    Column::RunId,
    Column::CreatedAt,
    Column::WorkflowName,
    Column::Status,
    Column::Attempt,
    Column::FinishedAt,
    Column::ArchivedAt,
];

/// What changes when a run is replayed, or when the engine corrects its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    attempt: i64,
    finished_at: Option<i64>,
    status: String,
}

impl Version {
    pub(super) fn of(row: &Row) -> Self {
        Self {
            attempt: row.int(Column::Attempt).unwrap_or(0),
            finished_at: row.int(Column::FinishedAt),
            status: row.text(Column::Status).unwrap_or_default().to_owned(),
        }
    }

    /// The version of a run in a list.
    pub(super) fn of_listed(run: &RunSummary) -> Self {
        Self {
            attempt: run.attempt.into(),
            finished_at: run.finished_at.map(|at| at.timestamp_micros()),
            status: run.status.as_str().to_owned(),
        }
    }
}

/// When a run was archived of which a damaged file has lost payloads: each complete copy is newer.
pub(super) const INCOMPLETE: i64 = 0;

/// The order of the rows of one run: the last is valid. Times of workers do not decide, because their clocks differ.
pub(super) fn age(row: &Row) -> (Option<i64>, Option<i64>, Option<i64>) {
    (row.int(Column::Attempt), row.int(Column::ArchivedAt), row.int(Column::FinishedAt))
}

/// The place of a row: newest first, and then by id.
pub(super) fn key(row: &Row) -> Option<(i64, &str)> {
    Some((row.int(Column::CreatedAt)?, row.text(Column::RunId)?))
}

/// The row of a run that has ended. The list's times and attempt are used: they identify the version of the run in the next list.
pub(super) fn row(run: &RunSummary, details: &RunDetails, has_payloads: bool, archived_at: i64) -> Result<Row> {
    let mut row = Row::default();
    row.set(Column::RunId, run.id.to_string());
    row.set(Column::CreatedAt, run.created_at.timestamp_micros());
    row.set(Column::WorkflowName, workflow_of(run).to_owned());
    row.set(Column::WorkflowId, run.workflow_id.to_string());
    row.set(Column::WorkflowVersionId, details.workflow_version_id.as_ref().map(ToString::to_string));
    row.set(Column::Status, details.status.as_str().to_owned());
    row.set(Column::Attempt, i64::from(run.attempt));
    row.set(Column::StartedAt, run.started_at.map(|at| at.timestamp_micros()));
    row.set(Column::FinishedAt, run.finished_at.map(|at| at.timestamp_micros()));
    row.set(Column::QueuedMs, millis(details.queued_for()));
    row.set(Column::RanMs, millis(details.ran_for()));
    row.set(Column::ElapsedMs, millis(details.elapsed()));
    row.set(Column::RetryCount, i64::from(details.retry_count()));
    row.set(Column::Error, run.error.clone());
    let cancellation = details.cancellation();
    row.set(Column::CancelReason, cancellation.and_then(|request| request.reason.clone()));
    row.set(Column::CancelledBy, cancellation.and_then(|request| request.by.clone()));
    let mut trigger = details.trigger.clone();
    if let Trigger::Event(event) = &mut trigger
        && !has_payloads
    {
        event.payload = None;
    }
    let payload = match &trigger {
        Trigger::Event(event) => event.payload.as_ref(),
        _ => None,
    };
    row.set(
        Column::Trigger,
        exact::with_payload(&trigger, &["payload"], payload).map_err(unserializable)?.get().to_owned(),
    );
    row.set(
        Column::EventId,
        match &details.trigger {
            Trigger::Event(event) => Some(event.event_id.to_string()),
            _ => None,
        },
    );
    row.set(Column::ParentRunId, details.parent_run_id().as_ref().map(ToString::to_string));
    row.set(Column::ParentTaskId, run.parent_task_id.as_ref().map(ToString::to_string));
    row.set(Column::OriginalRunId, details.original_run_id().as_ref().map(ToString::to_string));
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let entries: Vec<_> = details.metadata.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    row.set(Column::Metadata, entries);
    let others: BTreeMap<_, _> = details.metadata.iter().filter(|(_, value)| !value.is_string()).collect();
    row.set(Column::NonStringMetadata, (!others.is_empty()).then(|| json(&others)).transpose()?);
    row.set(Column::EngineMetadata, json(&details.engine_metadata)?);
    if has_payloads {
        row.set(Column::Input, details.input.as_ref().and_then(text_of));
        row.set(Column::Output, details.output().and_then(text_of));
        row.set(Column::Logs, (!details.logs.is_empty()).then(|| json(&details.logs)).transpose()?);
    }
    row.set(Column::Outcome, details.outcome.clone().map(without_output).map(|outcome| json(&outcome)).transpose()?);
    // The output of the only task is that of the run.
    let keeps_outputs = has_payloads && !details.is_single_task();
    let tasks: Vec<_> = details
        .tasks
        .iter()
        .cloned()
        .map(|task| if keeps_outputs { task } else { without_task_output(task) })
        .collect();
    row.set(Column::Tasks, exact::tasks(&tasks).map_err(unserializable)?);
    row.set(Column::Conflicts, (!details.conflicts.is_empty()).then(|| json(&details.conflicts)).transpose()?);
    row.set(Column::ArchivedAt, archived_at);
    Ok(row)
}

/// The name of the workflow of a run in the archive, where each run has one: it is empty if the server does not return it.
pub(super) fn workflow_of(run: &RunSummary) -> &str {
    run.workflow_name.as_deref().unwrap_or_default()
}

fn workflow_name(row: &Row) -> Result<Option<String>> {
    Ok(Some(required(row, Column::WorkflowName)?.to_owned()).filter(|name| !name.is_empty()))
}

pub(super) fn run_id(row: &Row) -> Result<RunId> {
    parsed(row, Column::RunId)
}

/// The run of a row as in a list.
pub(super) fn summary(row: &Row) -> Result<RunSummary> {
    Ok(RunSummary {
        id: parsed(row, Column::RunId)?,
        parent_task_id: optional(row, Column::ParentTaskId)?,
        workflow_id: parsed(row, Column::WorkflowId)?,
        workflow_name: workflow_name(row)?,
        status: status(row)?,
        attempt: row.int(Column::Attempt).and_then(|attempt| u32::try_from(attempt).ok()).unwrap_or(1),
        error: row.text(Column::Error).map(str::to_owned),
        metadata: metadata(row)?,
        engine_metadata: json_or_default(row, Column::EngineMetadata)?,
        created_at: time(row, Column::CreatedAt).ok_or_else(|| missing(Column::CreatedAt))?,
        started_at: time(row, Column::StartedAt),
        finished_at: time(row, Column::FinishedAt),
    })
}

/// The details of a row with all columns.
pub(super) fn details(row: &Row) -> Result<RunDetails> {
    let id: RunId = parsed(row, Column::RunId)?;
    // It is stored without its wrapper.
    let output = row.text(Column::Output).map(Payload::input);
    let with_output = |outcome| match outcome {
        Outcome::Completed(_) => {
            Outcome::Completed(Completed { output: output.clone().unwrap_or_else(|| Payload::input("null")) })
        }
        other => other,
    };
    let outcome: Option<Outcome> = json_or_default(row, Column::Outcome)?;
    let mut tasks: Vec<TaskDetails> = json_or_default(row, Column::Tasks)?;
    if let Some(json) = row.text(Column::Tasks) {
        exact::restore_outputs(&mut tasks, json).map_err(|error| invalid_json(Column::Tasks, json, error))?;
    }
    let mut trigger: Trigger = from_json(row, Column::Trigger)?;
    let json = required(row, Column::Trigger)?;
    exact::restore_payload(&mut trigger, json).map_err(|error| invalid_json(Column::Trigger, json, error))?;
    for task in tasks.iter_mut().filter(|task| task.id.is_single_task_of(id)) {
        task.outcome = task.outcome.take().map(&with_output);
    }
    Ok(RunDetails {
        id,
        workflow_id: optional(row, Column::WorkflowId)?,
        workflow_name: workflow_name(row)?,
        workflow_version_id: optional(row, Column::WorkflowVersionId)?,
        status: status(row)?,
        outcome: outcome.map(with_output),
        trigger,
        input: row.text(Column::Input).map(Payload::input),
        metadata: metadata(row)?,
        engine_metadata: json_or_default(row, Column::EngineMetadata)?,
        created_at: time(row, Column::CreatedAt),
        tasks,
        logs: json_or_default(row, Column::Logs)?,
        conflicts: json_or_default(row, Column::Conflicts)?,
    })
}

/// The JSON text of a payload. Workers of other SDKs can complete a task without an output.
fn text_of(payload: &Payload) -> Option<String> {
    Some(payload.unwrapped().to_owned()).filter(|text| !text.trim().is_empty())
}

fn without_output(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Completed(_) => Outcome::Completed(Completed { output: Payload::output("null") }),
        other => other,
    }
}

/// A task without its output.
fn without_task_output(task: TaskDetails) -> TaskDetails {
    TaskDetails { outcome: task.outcome.map(without_output), ..task }
}

fn millis(length: Option<Duration>) -> Option<i64> {
    i64::try_from(length?.as_millis()).ok()
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(unserializable)
}

fn unserializable(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Encode, "failed to serialize a run for the archive").with_source(error)
}

pub(super) fn status(row: &Row) -> Result<RunStatus> {
    Ok(RunStatus::from_name(required(row, Column::Status)?))
}

/// Run counts by status name. Timed-out runs are counted, so their number is known even if it is 0.
pub(super) fn status_counts(mut counts: BTreeMap<String, u64>) -> StatusCounts {
    counts.entry(RunStatus::TimedOut.as_str().to_owned()).or_insert(0);
    StatusCounts::new(counts.into_iter().map(|(name, count)| (RunStatus::from_name(&name), count)))
}

fn metadata(row: &Row) -> Result<BTreeMap<String, Value>> {
    let mut others: BTreeMap<String, Value> = json_or_default(row, Column::NonStringMetadata)?;
    let entries = row.map(Column::Metadata).iter();
    Ok(entries
        .map(|(key, text)| (key.clone(), others.remove(key).unwrap_or_else(|| Value::String(text.clone()))))
        .collect())
}

pub(super) fn time(row: &Row, column: Column) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(row.int(column)?)
}

fn required(row: &Row, column: Column) -> Result<&str> {
    row.text(column).ok_or_else(|| missing(column))
}

fn missing(column: Column) -> Error {
    Error::new(ErrorKind::Corrupt, format!("expected a value in the column {} of the archive, got none", column.name()))
}

fn parsed<T: std::str::FromStr>(row: &Row, column: Column) -> Result<T> {
    parse(required(row, column)?, column)
}

fn parse<T: std::str::FromStr>(text: &str, column: Column) -> Result<T> {
    text.parse().map_err(|_| invalid(column, &format_args!("expected an id, got {text:?}")))
}

fn optional<T: std::str::FromStr>(row: &Row, column: Column) -> Result<Option<T>> {
    row.text(column).map(|text| parse(text, column)).transpose()
}

fn from_json<T: DeserializeOwned>(row: &Row, column: Column) -> Result<T> {
    let text = required(row, column)?;
    serde_json::from_str(text).map_err(|error| invalid_json(column, text, error))
}

fn invalid_json(column: Column, text: &str, error: serde_json::Error) -> Error {
    invalid(column, &format_args!("expected valid JSON, got {} bytes of other text", text.len())).with_source(error)
}

pub(super) fn json_or_default<T: DeserializeOwned + Default>(row: &Row, column: Column) -> Result<T> {
    if row.text(column).is_none() { Ok(T::default()) } else { from_json(row, column) }
}

fn invalid(column: Column, problem: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("cannot read the column {} of the archive: {problem}", column.name()))
}
