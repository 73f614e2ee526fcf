//! The traits of the public types: what can be shared between threads, and what can be stored and sent on.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

mod examples;
#[path = "../support/files.rs"]
mod files;
mod forms;
mod futures;

use std::fmt::{Debug, Display};
use std::fs;
use std::hash::Hash;
use std::str::FromStr;

use futures_core::Stream;
use hatchet::archive::{
    Archive, ArchiveFile, ArchiveQuery, ArchivedDetails, ArchivedRuns, CollectBuilder, CollectReport, CollectedBatch,
    CollectedBatches, CollectorBuilder, CompactBuilder, CompactReport, CompactedPartition, CompactedPartitions,
    ExpireBuilder, ExpireReport, History, HistoryDetails, HistoryDetailsBuilder, HistoryQuery, HistoryRuns, Retention,
    Rule, RunningCollector, SweepBuilder, SweepReport, SweptBatch, SweptBatches,
};
use hatchet::builder::{
    BulkCancelBuilder, BulkReplayBuilder, CancelBuilder, CancelManyBuilder, CancelReason, CommandBuilder, CronBuilder,
    CronQuery, DetailsBuilder, EventBuilder, EventManyBuilder, EventOptions, RateLimitBuilder, RateLimitQuery,
    ReadBuilder, ReplayBuilder, ReplayManyBuilder, ReplayOptions, RerunBuilder, RunBuilder, RunManyBuilder, RunOptions,
    RunQuery, ScheduleBuilder, ScheduleQuery, TaskQuery,
};
use hatchet::config::{
    Compression, ConfigBuilder, ConfigError, Entry, Explanation, Identity, Problem, RetryPolicy, Secret, Source, Tls,
    TlsStrategy, TlsVersion,
};
use hatchet::embedded::{Engine, EngineBuilder, Fault, Faults, Quirk, Quirks};
use hatchet::error::RetryAfter;
use hatchet::handle::{CronHandle, EventHandle, RateLimitHandle, Replayed, ScheduleHandle};
use hatchet::model::{
    Attempt, AttemptStatus, BulkReport, CancelRequest, Cancellation, Change, ChangeKind, ChildTrigger, Chunk,
    ChunkContent, ChunkGap, ChunkItem, ChunkRestart, Completed, Conflict, CronDetails, CronId, CronSpec, CronTrigger,
    DesiredLabel, Effect, EventDetails, EventId, EventTrigger, Failure, Gap, Idempotency, LabelValue, LogLevel,
    LogLine, Page, PageToken, Payload, RateLimitDetails, RateLimitWindow, RunAction, RunChange, RunDetails, RunReport,
    RunSummary, ScheduleDetails, ScheduleId, ScheduleTrigger, SseEvent, StatusCounts, TaskChange, TaskDetails, TaskId,
    TaskSummary, TenantId, Timeout, TimeoutKind, Total, Trigger, Until, Window, WorkerId, WorkflowId,
    WorkflowVersionId,
};
use hatchet::raw::RawChannel;
use hatchet::stream::{
    ChunkSse, LogItems, RunChunks, RunItems, RunOutcomes, RunReports, RunResults, RunWatch, RunsWatch, TagWatch,
    TaskItems, WorkerStatuses,
};
#[cfg(feature = "metrics")]
use hatchet::telemetry::MetricsRecorder;
use hatchet::telemetry::{AttemptResult, Measurement, PrometheusRecorder};
use hatchet::testing::{Call, CallRecord, Harness, HarnessBuilder, LoggedLine, SentChunk, StartedRun};
use hatchet::worker::{
    HealthBuilder, HealthServer, RunningWorker, TaskLogLayer, UnfinishedAttempt, WorkerBuilder, WorkerReport,
    WorkerState, WorkerStatus,
};
use hatchet::workflow::{
    BatchItem, BatchOptions, CancelCause, Concurrency, ConcurrencyStrategy, Condition, Definition, EventFilter,
    RateLimit, Sticky, TaskDefaults, WorkflowRef,
};
use hatchet::{
    Client, Config, Context, Error, ErrorKind, Outcome, Priority, RunFilter, RunHandle, RunId, RunStatus, Task,
    TaskError, Worker, Workflow,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// The input and the output of a task. `Cell` is not `Sync`: handles and builders have only its type.
type Input = std::cell::Cell<u8>;
type Output = std::cell::Cell<u16>;

fn shared<T: Send + Sync + 'static>() {}
fn shared_and_shown<T: Send + Sync + Debug + 'static>() {}
fn handle<T: Send + Sync + Debug + Clone + 'static>() {}
fn stream<T: Stream + Send + Sync + Unpin + Debug + 'static>() {}
fn plain<T: Send + Sync + Debug + Clone + PartialEq + 'static>() {}
fn data<T: Send + Sync + Debug + Clone + PartialEq + Serialize + DeserializeOwned + 'static>() {}
fn named<T: Display + FromStr>() {}
fn shown<T: Display>() {}
fn id<T: Display + FromStr + Copy + Ord + Hash + From<Uuid> + Into<Uuid> + Into<String> + Send + Sync + 'static>() {
    shared::<T>();
}

/// This compiles or it does not.
#[test]
fn types_of_archives_have_the_traits_of_their_kind() {
    handle::<Archive>();
    handle::<History>();
    shared_and_shown::<RunningCollector>();
    handle::<CollectBuilder>();
    handle::<CollectorBuilder>();
    handle::<CompactBuilder>();
    handle::<ExpireBuilder>();
    handle::<SweepBuilder>();
    handle::<ArchiveQuery>();
    handle::<HistoryDetailsBuilder>();
    handle::<HistoryQuery>();
    stream::<ArchivedRuns>();
    stream::<ArchivedDetails>();
    stream::<CollectedBatches>();
    stream::<CompactedPartitions>();
    stream::<HistoryDetails>();
    stream::<HistoryRuns>();
    stream::<SweptBatches>();
    data::<Retention>();
    data::<Rule>();
    data::<ArchiveFile>();
    data::<CollectReport>();
    data::<CollectedBatch>();
    data::<CompactReport>();
    data::<CompactedPartition>();
    data::<ExpireReport>();
    data::<SweepReport>();
    data::<SweptBatch>();
}

/// This compiles or it does not.
#[test]
fn handles_builders_and_streams_can_be_sent_and_shared() {
    handle::<Client>();
    handle::<Config>();
    handle::<Context>();
    handle::<BatchItem<()>>();
    handle::<RunHandle<Output>>();
    handle::<CronHandle<Output>>();
    handle::<ScheduleHandle<Output>>();
    handle::<EventHandle>();
    handle::<RateLimitHandle>();
    handle::<Replayed<Output>>();
    handle::<Task<Input, Output>>();
    handle::<Workflow<Input, Output>>();
    handle::<WorkflowRef<Input, Output>>();
    handle::<Definition>();
    handle::<Faults>();
    handle::<Error>();
    plain::<TaskError>();
    shared_and_shown::<Worker>();
    shared_and_shown::<RunningWorker>();
    shared_and_shown::<Engine>();
    shared::<RawChannel>();
    shared_and_shown::<HealthServer>();
    shared_and_shown::<Harness>();
    plain::<CallRecord<u8>>();

    shared_and_shown::<CommandBuilder>();
    shared_and_shown::<ReadBuilder<Output>>();
    shared_and_shown::<RunBuilder<Output>>();
    shared_and_shown::<RunManyBuilder<'_, Output>>();
    plain::<RunOptions>();
    plain::<ReplayOptions>();
    plain::<EventOptions>();
    plain::<CancelReason>();
    shared_and_shown::<RerunBuilder<Output>>();
    shared_and_shown::<CancelBuilder>();
    shared_and_shown::<CancelManyBuilder>();
    shared_and_shown::<ReplayBuilder<Output>>();
    shared_and_shown::<ReplayManyBuilder>();
    shared_and_shown::<BulkCancelBuilder>();
    shared_and_shown::<BulkReplayBuilder>();
    shared_and_shown::<DetailsBuilder>();
    shared_and_shown::<RunQuery>();
    shared_and_shown::<TaskQuery>();
    shared_and_shown::<CronBuilder<Output>>();
    shared_and_shown::<CronQuery>();
    shared_and_shown::<ScheduleBuilder<Output>>();
    shared_and_shown::<ScheduleQuery>();
    shared_and_shown::<EventBuilder>();
    shared_and_shown::<EventManyBuilder<'_>>();
    handle::<RateLimitBuilder>();
    handle::<RateLimitQuery>();
    handle::<WorkerBuilder>();
    handle::<ConfigBuilder>();
    handle::<EngineBuilder>();
    shared_and_shown::<HealthBuilder>();
    handle::<HarnessBuilder>();
    shared_and_shown::<Call<Output>>();
    handle::<PrometheusRecorder>();
    #[cfg(feature = "metrics")]
    plain::<MetricsRecorder>();
    handle::<TaskLogLayer>();

    stream::<RunWatch>();
    stream::<RunsWatch>();
    stream::<TagWatch>();
    stream::<RunChunks>();
    stream::<RunChunks<Output>>();
    stream::<ChunkSse>();
    stream::<RunOutcomes>();
    stream::<RunResults<Output>>();
    stream::<LogItems>();
    stream::<RunItems>();
    stream::<TaskItems>();
    stream::<RunReports>();
    stream::<WorkerStatuses>();
}

#[test]
fn data_can_be_compared_stored_and_sent_on() {
    data::<RunDetails>();
    data::<TaskDetails>();
    data::<Attempt>();
    data::<AttemptStatus>();
    data::<Conflict>();
    data::<RunSummary>();
    data::<Page<RunSummary>>();
    data::<PageToken>();
    data::<TaskSummary>();
    data::<Total>();
    data::<StatusCounts>();
    data::<Outcome>();
    data::<Completed>();
    data::<Failure>();
    data::<Cancellation>();
    data::<CancelRequest>();
    data::<Timeout>();
    data::<TimeoutKind>();
    data::<Trigger>();
    data::<EventTrigger>();
    data::<CronTrigger>();
    data::<ScheduleTrigger>();
    data::<ChildTrigger>();
    data::<LogLine>();
    data::<LogLevel>();
    data::<Change>();
    data::<RunChange>();
    data::<TaskChange>();
    data::<Gap>();
    data::<ChangeKind>();
    data::<Chunk>();
    data::<ChunkContent>();
    data::<SseEvent>();
    data::<ChunkGap>();
    data::<ChunkRestart>();
    data::<ChunkItem>();
    shown::<ChunkItem>();
    data::<Until>();
    data::<CronDetails>();
    data::<CronSpec>();
    data::<ScheduleDetails>();
    data::<RateLimitDetails>();
    data::<RateLimitWindow>();
    named::<RateLimitWindow>();
    data::<EventDetails>();
    data::<WorkerReport>();
    data::<UnfinishedAttempt>();
    data::<WorkerStatus>();
    data::<CancelCause>();
    data::<WorkerState>();
    plain::<Measurement<'static>>();
    plain::<AttemptResult>();
    plain::<LoggedLine>();
    plain::<SentChunk>();
    plain::<StartedRun>();
    data::<Payload>();
    data::<RunStatus>();
    data::<Priority>();
    data::<LabelValue>();
    shown::<LabelValue>();
    data::<RunId>();
    data::<TaskId>();
    data::<WorkflowId>();
    data::<WorkflowVersionId>();
    data::<WorkerId>();
    data::<EventId>();
    data::<CronId>();
    data::<ScheduleId>();
    data::<TenantId>();

    data::<RunFilter>();
    data::<Window>();
    data::<Idempotency>();
    data::<RunAction>();
    data::<Effect>();
    data::<RunReport>();
    data::<BulkReport>();
}

#[test]
fn definitions_and_settings_can_be_compared() {
    plain::<DesiredLabel>();
    data::<ErrorKind>();
    named::<ErrorKind>();
    plain::<RetryAfter>();
    shown::<RetryAfter>();
    plain::<RetryPolicy>();
    data::<Sticky>();
    named::<Sticky>();
    data::<ConcurrencyStrategy>();
    named::<ConcurrencyStrategy>();
    plain::<BatchOptions>();
    plain::<Concurrency>();
    plain::<Condition>();
    plain::<EventFilter>();
    plain::<RateLimit>();
    plain::<TaskDefaults>();
    plain::<Fault>();
    data::<Quirk>();
    named::<Quirk>();
    plain::<Quirks>();
    plain::<Compression>();
    plain::<TlsStrategy>();
    plain::<TlsVersion>();
    plain::<Source>();
    plain::<Entry>();
    handle::<Secret>();
    handle::<Tls>();
    handle::<Identity>();
    plain::<ConfigError>();
    plain::<Problem>();
    shown::<ConfigError>();
    shown::<Problem>();
    shown::<Source>();
    shared_and_shown::<Explanation<'static>>();
}

#[test]
fn names_and_ids_are_displayed_and_parsed() {
    id::<RunId>();
    id::<TaskId>();
    id::<WorkflowId>();
    id::<WorkflowVersionId>();
    id::<WorkerId>();
    id::<EventId>();
    id::<CronId>();
    id::<ScheduleId>();
    id::<TenantId>();
    named::<RunStatus>();
    named::<LogLevel>();
    shown::<Outcome>();
    shown::<Failure>();
    shown::<Cancellation>();
    shown::<Timeout>();
    named::<TimeoutKind>();
    shown::<Trigger>();
    shown::<Change>();
    shown::<Gap>();
    shown::<ChunkGap>();
    shown::<ChunkRestart>();
    shown::<Chunk>();
    shown::<SseEvent>();
    shown::<Until>();
    shown::<AttemptStatus>();
    shown::<Conflict>();
    shown::<Total>();
    shown::<StatusCounts>();
    shown::<CronSpec>();
    shown::<Payload>();
    shown::<WorkerReport>();
    shown::<RunReport>();
    shown::<BulkReport>();
    shown::<Effect>();
    named::<RunAction>();
    named::<CancelCause>();
    named::<WorkerState>();
    named::<Priority>();
    named::<TlsStrategy>();
    named::<TlsVersion>();
    named::<Compression>();
    shown::<TaskError>();
    shown::<Error>();
}

#[test]
fn closed_enums_are_parsed_as_they_are_displayed() {
    fn round_trip<T: Display + FromStr + PartialEq + Debug + Copy>(all: &[T], invalid: &str) {
        for value in all {
            assert_eq!(value.to_string().parse().ok(), Some(*value));
        }
        assert!(invalid.parse::<T>().is_err());
    }
    round_trip(&[Priority::Low, Priority::Medium, Priority::High], "highest");
    round_trip(&[TlsStrategy::None, TlsStrategy::Tls, TlsStrategy::Mtls], "ssl");
    round_trip(&[TlsVersion::Tls12, TlsVersion::Tls13], "1.1");
    round_trip(&[Compression::None, Compression::Gzip], "br");
    round_trip(&[RunAction::Cancel, RunAction::Replay], "cancelled");
    round_trip(&[Sticky::Soft, Sticky::Hard], "sticky");
    round_trip(&[ConcurrencyStrategy::GroupRoundRobin, ConcurrencyStrategy::CancelQueuedExceptOldest], "queue_newest");
    round_trip(&[RateLimitWindow::Second, RateLimitWindow::Year], "decade");
    round_trip(&[ChangeKind::Run, ChangeKind::Task, ChangeKind::Gap], "runs");
    round_trip(&[AttemptResult::Completed, AttemptResult::Dropped], "ok");
    round_trip(&[ErrorKind::Config, ErrorKind::RateLimited], "RateLimited");
    round_trip(&[TimeoutKind::Execution, TimeoutKind::Schedule], "run");
}

/// The text of each source file.
fn sources() -> impl Iterator<Item = String> {
    files::in_directory("src").into_iter().map(|path| fs::read_to_string(path).unwrap())
}

/// A new type has to be added above.
#[test]
fn every_public_type_is_in_this_file() {
    let mut names = Vec::new();
    for text in sources() {
        let lines = text.lines().map(str::trim_start);
        let items = lines.filter_map(|line| line.strip_prefix("pub struct ").or(line.strip_prefix("pub enum ")));
        let name = |item: &str| item.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned();
        names.extend(items.map(name).filter(|name| !name.is_empty()));
    }
    assert!(names.len() > 80, "{names:?}");
    let tested: Vec<_> = include_str!("main.rs")
        .lines()
        .filter_map(|line| line.split_once("::<"))
        .map(|(_, rest)| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap())
        .collect();
    names.retain(|name| !tested.contains(&name.as_str()));
    assert!(names.is_empty(), "without a line in tests/traits/main.rs: {names:?}");
}
