//! The traits of the public types: what can be shared between threads, and what can be stored and sent on.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

#[path = "support/files.rs"]
mod files;

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
    ChunkContent, ChunkGap, ChunkItem, Completed, Conflict, CronDetails, CronId, CronSpec, CronTrigger, DesiredLabel,
    Effect, EventDetails, EventId, EventTrigger, Failure, Gap, Idempotency, LabelValue, LogLevel, LogLine, Page,
    PageToken, Payload, RateLimitDetails, RateLimitWindow, RunAction, RunChange, RunDetails, RunReport, RunSummary,
    ScheduleDetails, ScheduleId, ScheduleTrigger, SseEvent, StatusCounts, TaskChange, TaskDetails, TaskId, TaskSummary,
    TenantId, Timeout, TimeoutKind, Total, Trigger, Until, Window, WorkerId, WorkflowId, WorkflowVersionId,
};
use hatchet::raw::RawChannel;
use hatchet::stream::{
    ChunkSse, LogItems, RunChunks, RunItems, RunOutcomes, RunReports, RunResults, RunWatch, RunsWatch, TagWatch,
    TaskItems, WorkerStatuses,
};
#[cfg(feature = "metrics")]
use hatchet::telemetry::MetricsRecorder;
use hatchet::telemetry::{AttemptResult, Measurement, PrometheusRecorder};
use hatchet::testing::{Call, CallRecord, Harness, HarnessBuilder, SentChunk, StartedRun, WrittenLine};
use hatchet::worker::{
    HealthBuilder, HealthServer, RunningWorker, TaskLogLayer, UnfinishedTask, WorkerBuilder, WorkerReport, WorkerState,
    WorkerStatus,
};
use hatchet::workflow::{
    BatchItem, BatchOptions, CancelCause, Concurrency, ConcurrencyStrategy, Condition, Definition, EventFilter,
    RateLimit, Sticky, TaskDefaults, WorkflowRef,
};
use hatchet::{
    Client, Config, Context, Error, ErrorKind, Outcome, Priority, RunFilter, RunHandle, RunId, RunStatus, Task,
    TaskError, Worker, Workflow,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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
    shared_and_shown::<TaskError>();
    shared_and_shown::<Worker>();
    shared_and_shown::<RunningWorker>();
    shared_and_shown::<Engine>();
    shared::<RawChannel>();
    shared_and_shown::<HealthServer>();
    shared_and_shown::<Harness>();
    shared_and_shown::<CallRecord<u8>>();

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
    shared_and_shown::<EventManyBuilder>();
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

/// Futures that own what they need can be spawned; those that borrow a handle can be sent with it.
///
/// They are not `Sync`, as those of most crates: a future is polled through `Pin<&mut Self>`, so its owner alone uses it, and a `Mutex` around
/// it is `Sync` because it is `Send`. Streams are `Sync`, because users store them in their own types, which may have to be.
#[test]
fn futures_can_be_spawned() {
    fn spawnable<T: Future + Send + 'static>(_: T) {}
    fn sent<T: Future + Send>(_: T) {}
    type Number = u32;
    #[expect(clippy::too_many_arguments, dead_code, reason = "it is not called: it compiles")]
    fn check(
        mut chunks: RunChunks,
        hatchet: &'static Client,
        run: &'static RunHandle<Number>,
        task: &'static Task<(), Number>,
        all: &'static RunQuery,
        context: &'static Context,
        (event, cron, schedule): (&'static EventHandle, &'static CronHandle, &'static ScheduleHandle),
        (mut watch, mut logs, mut items, mut reports): (RunWatch, LogItems, RunItems, RunReports),
        ([worker, other, third], running, engine): ([Worker; 3], RunningWorker, Engine),
    ) {
        spawnable(hatchet.run(task, &()).start());
        spawnable(hatchet.run(task, &()).outcome());
        spawnable(hatchet.run(task, &()).result());
        spawnable(hatchet.run_many(task, [()]).start());
        spawnable(hatchet.run_many(task, [()]).results());
        spawnable(context.run(task, &()).result());
        spawnable(context.run_many(task, [()]).results());
        spawnable(hatchet.run(task, &()).start_or_existing());
        spawnable(run.rerun().start());
        spawnable(run.cancel().send());
        spawnable(run.replay().send());
        spawnable(run.details().into_future());
        spawnable(hatchet.cancel_many([run.id()]).send());
        spawnable(hatchet.replay_many([run.id()]).send());
        spawnable(all.cancel().send());
        spawnable(all.replay().send());
        spawnable(hatchet.push("key", &json!({})).send());
        spawnable(hatchet.push_many("key", [json!({})]).send());
        spawnable(hatchet.schedule(task, &(), chrono::DateTime::UNIX_EPOCH).send());
        spawnable(hatchet.schedules().get());
        spawnable(hatchet.cron(task, &(), CronSpec::new("name", "* * * * *")).send());
        spawnable(hatchet.crons().get());
        spawnable(hatchet.rate_limit("key", 1, RateLimitWindow::Minute).send());
        spawnable(hatchet.rate_limits().get());
        spawnable(hatchet.rate_limit_handle("key").details().into_future());
        spawnable(hatchet.rate_limit_handle("key").delete().send());
        spawnable(worker.start());
        spawnable(other.run_until(std::future::pending::<()>()));
        spawnable(third.run_until_signal());
        sent(running.ready());
        sent(running.stopped());
        spawnable(running.pause().send());
        spawnable(running.set_labels([("a", 1)]).send());
        spawnable(running.shutdown());
        sent(context.put("chunk"));
        sent(context.put_bytes("chunk"));
        sent(context.put_json(&1));
        spawnable(context.refresh_timeout(std::time::Duration::ZERO).send());
        sent(engine.run_count());
        sent(engine.restart_after(std::time::Duration::ZERO));
        spawnable(engine.shutdown());
        spawnable(Engine::builder().start());
        spawnable(run.children().into_future());
        spawnable(event.details().into_future());
        spawnable(event.runs().into_future());
        spawnable(cron.details().into_future());
        spawnable(schedule.details().into_future());
        spawnable(schedule.run().into_future());
        spawnable(cron.pause().send());
        spawnable(cron.resume().send());
        spawnable(cron.delete().send());
        spawnable(schedule.reschedule(chrono::DateTime::UNIX_EPOCH).send());
        spawnable(schedule.delete().send());
        spawnable(hatchet.run_many(task, [()]).outcomes());
        spawnable(Harness::start(task));
        // These borrow.
        sent(hatchet.close());
        sent(run.outcome());
        sent(chunks.started());
        sent(run.result());
        sent(run.until(RunStatus::Running));
        sent(hatchet.raw_rest(http::Method::GET, "/", None));
        sent(all.page(1));
        sent(all.count());
        sent(all.counts_by_status());
        sent(context.cancelled());
        sent(watch.next());
        sent(logs.next());
        sent(items.next());
        sent(reports.next());
    }
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
    data::<ChunkItem>();
    data::<Until>();
    data::<CronDetails>();
    data::<CronSpec>();
    data::<ScheduleDetails>();
    data::<RateLimitDetails>();
    data::<RateLimitWindow>();
    named::<RateLimitWindow>();
    data::<EventDetails>();
    data::<WorkerReport>();
    data::<UnfinishedTask>();
    data::<WorkerStatus>();
    data::<CancelCause>();
    data::<WorkerState>();
    plain::<Measurement<'static>>();
    plain::<AttemptResult>();
    plain::<WrittenLine>();
    plain::<SentChunk>();
    plain::<StartedRun>();
    data::<Payload>();
    data::<RunStatus>();
    data::<Priority>();
    data::<LabelValue>();
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

#[test]
fn settings_can_be_read_from_files_of_users() {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    for value in [Compression::None, Compression::Gzip] {
        assert_eq!(text(&serde_json::to_value(value).unwrap()), Some(value.to_string()));
    }
    for value in [TlsStrategy::None, TlsStrategy::Tls, TlsStrategy::Mtls] {
        assert_eq!(text(&serde_json::to_value(value).unwrap()), Some(value.to_string()));
    }
    for value in [TlsVersion::Tls12, TlsVersion::Tls13] {
        assert_eq!(text(&serde_json::to_value(value).unwrap()), Some(value.to_string()));
    }
    let policy: RetryPolicy = round_trip(&serde_json::json!({"max_retries": 3}));
    assert_eq!(policy, RetryPolicy::max_retries(3));
}

#[test]
fn filters_and_reports_have_a_stable_form() {
    let filter = RunFilter::new(Window::last(std::time::Duration::from_secs(60))).workflow("greet");
    let json = serde_json::to_value(&filter).unwrap();
    assert_eq!(json["window"], serde_json::json!({"start": {"ago": {"secs": 60, "nanos": 0}}, "until": null}));
    assert_eq!(serde_json::from_value::<RunFilter>(json).unwrap(), filter);
    let error = "x".parse::<RunId>().unwrap_err();
    let json = serde_json::to_value(Effect::Unknown(error.clone())).unwrap();
    assert_eq!(json["unknown"]["message"], error.to_string());
    assert_eq!(serde_json::from_value::<Effect>(json).unwrap(), Effect::Unknown(error.clone()));
    assert_eq!(Effect::Unknown(error.clone()), Effect::Unknown(error));
    assert_eq!(
        serde_json::to_value(Effect::Skipped(RunStatus::Failed)).unwrap(),
        serde_json::json!({"skipped": "FAILED"})
    );
}

/// The same for archives.
#[test]
fn futures_of_archives_can_be_spawned() {
    fn spawnable<T: Future + Send + 'static>(_: T) {}
    fn sent<T: Future + Send>(_: T) {}
    #[expect(dead_code, reason = "it is not called: it compiles")]
    fn check(
        hatchet: &'static Client,
        (archive, history): (&'static Archive, &'static History),
        run: RunId,
        mut collector: RunningCollector,
        other: RunningWorker,
    ) {
        spawnable(archive.collect(hatchet, Retention::default()).send());
        spawnable(archive.compact().send());
        spawnable(archive.sweep().send());
        spawnable(archive.expire(Retention::default()).send());
        sent(archive.files(Window::all()));
        sent(archive.runs(Window::all()).page(1));
        sent(archive.runs(Window::all()).count());
        sent(archive.runs(Window::all()).counts_by_status());
        sent(history.runs(Window::all()).page(1));
        sent(history.runs(Window::all()).count());
        sent(history.runs(Window::all()).counts_by_status());
        spawnable(history.details(run).into_future());
        sent(archive.details(run));
        sent(collector.next_result());
        spawnable(collector.shutdown());
        spawnable(other.shutdown_with_timeout(std::time::Duration::ZERO));
    }
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
    let tested: Vec<_> = include_str!("traits.rs")
        .lines()
        .filter_map(|line| line.split_once("::<"))
        .map(|(_, rest)| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap())
        .collect();
    names.retain(|name| !tested.contains(&name.as_str()));
    assert!(names.is_empty(), "without a line in tests/traits.rs: {names:?}");
}

/// A new method that returns a future has to be added above.
#[test]
fn every_public_future_is_in_this_file() {
    let mut names = std::collections::BTreeSet::new();
    for text in sources() {
        for line in text.lines().map(str::trim_start) {
            let is_future = line.starts_with("pub async fn ") || line.contains("-> impl Future");
            if let Some(name) = line.strip_prefix("pub ").filter(|_| is_future) {
                let name = name.trim_start_matches("async ").trim_start_matches("fn ");
                names.insert(name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned());
            }
        }
    }
    assert!(names.len() > 25, "{names:?}");
    let tested: String = include_str!("traits.rs")
        .lines()
        .filter(|line| ["spawnable(", "sent("].iter().any(|call| line.trim_start().starts_with(call)))
        .collect();
    names.retain(|name| !tested.contains(&format!(".{name}(")) && !tested.contains(&format!("::{name}(")));
    assert!(names.is_empty(), "without a line in tests/traits.rs: {names:?}");
}

/// Whether the documentation above a line has an example.
fn has_example(before: &[&str]) -> bool {
    let documented = before.iter().rev().take_while(|line| {
        // Attributes may be between the documentation and the item, over several lines.
        !line.is_empty() && !line.ends_with(['}', ';'])
    });
    documented.into_iter().any(|line| line.starts_with("/// ```"))
}

#[test]
fn every_public_type_has_an_example() {
    let mut without = Vec::new();
    let mut count = 0;
    for text in sources() {
        let lines: Vec<_> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let item = ["pub struct ", "pub enum ", "pub trait "].iter().find_map(|kind| line.strip_prefix(kind));
            let Some(name) = item.and_then(|rest| rest.split(|c: char| !c.is_alphanumeric()).next()) else { continue };
            count += 1;
            if !has_example(&lines[..at]) {
                without.push(name.to_owned());
            }
        }
    }
    assert!(count > 80, "{count}");
    assert!(without.is_empty(), "public types without an example: {without:?}");
}

#[test]
fn many_public_items_have_an_example() {
    let (mut items, mut with_example) = (0_u32, 0_u32);
    for text in sources() {
        let lines: Vec<_> = text.lines().map(str::trim_start).collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(rest) = line.strip_prefix("pub ") else { continue };
            let rest = rest.trim_start_matches("const ").trim_start_matches("async ");
            let is_item = ["struct ", "enum ", "trait ", "fn "].iter().any(|kind| rest.starts_with(kind));
            if is_item && at > 0 && (lines[at - 1].starts_with("///") || lines[at - 1].starts_with("#[")) {
                items += 1;
                with_example += u32::from(has_example(&lines[..at]));
            }
        }
    }
    let percent = with_example * 100 / items;
    assert!(percent > 29, "{with_example} of {items} public items have an example: {percent} %");
}

const ID: &str = "7c0b6d4e-9a43-4f6e-8a3b-0c6f0a3a5f11";
const AT: &str = "2028-02-29T12:00:00.123456Z";

/// Deserializes a value, and serializes it to the same JSON. The value is the same after another round.
#[track_caller]
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(json: &Value) -> T {
    let value: T = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&value).unwrap(), *json);
    let text = serde_json::to_string(&value).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), value);
    value
}

fn outcomes() -> Vec<Value> {
    vec![
        json!({ "status": "COMPLETED", "output": { "n": 1 } }),
        json!({ "status": "COMPLETED", "output": 7.5 }),
        json!({ "status": "COMPLETED", "output": null }),
        json!({ "status": "FAILED", "task_name": "a", "message": "out of paper" }),
        json!({ "status": "FAILED", "task_name": null, "message": "" }),
        json!({ "status": "CANCELLED", "message": "", "request": null }),
        json!({
            "status": "CANCELLED", "message": "m",
            "request": { "reason": "customer asked", "by": "ada", "requested_at": AT },
        }),
        json!({ "status": "TIMED_OUT", "kind": "execution", "task_name": "a", "message": "Task exceeded timeout of 2s" }),
        json!({ "status": "TIMED_OUT", "kind": "schedule", "task_name": null, "message": "" }),
    ]
}

fn triggers() -> Vec<Value> {
    vec![
        json!({ "kind": "manual" }),
        json!({ "kind": "event", "event_id": ID, "key": "k", "payload": { "a": [1] }, "scope": "s" }),
        json!({ "kind": "event", "event_id": ID, "key": "k", "payload": null, "scope": null }),
        json!({ "kind": "event", "event_id": ID, "key": null, "payload": null, "scope": null }),
        json!({ "kind": "cron", "name": "nightly", "expression": "0 2 * * *", "scheduled_at": AT }),
        json!({ "kind": "cron", "name": null, "expression": "0 2 * * *", "scheduled_at": null }),
        json!({ "kind": "schedule", "key": "0123" }),
        json!({ "kind": "child", "parent_task_id": ID, "parent_run_id": ID }),
        json!({ "kind": "child", "parent_task_id": ID, "parent_run_id": null }),
    ]
}

fn log_line() -> Value {
    json!({ "task_id": ID, "attempt": 2, "created_at": AT, "level": "WARN", "message": "m", "metadata": { "k": [true] } })
}

fn summary() -> Value {
    json!({
        "id": ID, "parent_task_id": ID, "workflow_id": ID, "workflow_name": "w",
        "status": "TIMED_OUT", "attempt": 3, "error": "e", "metadata": { "k": "v" },
        "engine_metadata": { "hatchet__x": 1 }, "created_at": AT, "started_at": AT, "finished_at": null,
    })
}

#[test]
fn outcomes_have_a_stable_form() {
    for json in outcomes() {
        let outcome: Outcome = round_trip(&json);
        assert_eq!(outcome.status().as_str(), json["status"]);
    }
}

#[test]
fn triggers_have_a_stable_form() {
    for json in triggers() {
        let trigger: Trigger = round_trip(&json);
        assert_eq!(trigger.to_string().split(' ').next().unwrap(), json["kind"]);
    }
}

#[test]
fn details_have_a_stable_form() {
    for (outcome, trigger) in outcomes().into_iter().zip(triggers().into_iter().cycle()) {
        let attempt = json!({
            "number": 2, "status": "FAILED", "queued_at": AT, "started_at": AT, "finished_at": AT, "worker_id": ID,
            "error": "e",
        });
        let task = json!({
            "id": ID, "name": "a", "status": outcome["status"], "outcome": outcome, "attempts": [attempt],
            "replayed_after": [1, 2],
        });
        let details: RunDetails = round_trip(&json!({
            "id": ID, "workflow_id": ID, "workflow_name": "w", "workflow_version_id": ID, "status": outcome["status"],
            "outcome": outcome, "trigger": trigger, "input": { "n": 1 }, "metadata": { "k": "v" },
            "engine_metadata": { "hatchet__x": null }, "created_at": AT, "tasks": [task], "logs": [log_line()],
            "conflicts": [{ "task_name": "a", "grpc": "CANCELLED", "rest": "FAILED" }],
        }));
        assert_eq!((details.tasks.len(), details.logs.len(), details.conflicts.len()), (1, 1, 1));
    }
}

#[test]
fn lists_changes_and_logs_have_a_stable_form() {
    round_trip::<RunSummary>(&summary());
    round_trip::<TaskSummary>(&json!({
        "id": ID, "name": "a", "run_id": ID, "workflow_id": ID, "workflow_name": "w", "status": "TIMED_OUT", "attempt": 3,
        "error": "e", "metadata": { "k": "v" }, "engine_metadata": {}, "created_at": AT, "started_at": AT,
        "finished_at": null,
    }));
    for total in [json!({ "exactly": 7 }), json!({ "at_least": 7 }), json!({ "at_most": 7 }), json!("unknown")] {
        let page: Page<RunSummary> =
            round_trip(&json!({ "items": [summary(), summary()], "total": total, "next": null }));
        assert_eq!(page.items.len(), 2);
    }
    for outcome in outcomes().into_iter().chain([Value::Null]) {
        let change: Change = round_trip(&json!({ "run": {
            "run_id": ID, "state": { "attempt": 2, "status": "RUNNING" }, "changed_at": AT, "error": "e", "outcome": outcome,
        }}));
        assert_eq!(change.is_final(), !outcome.is_null());
    }
    let change: Change = round_trip(&json!({ "task": {
        "run_id": ID, "task_id": ID, "task_name": "a", "state": { "attempt": 2, "status": "RUNNING" }, "changed_at": AT,
        "error": "e",
    }}));
    assert_eq!((change.task_name(), change.is_final()), (Some("a"), false));
    let gap: Change =
        round_trip(&json!({ "gap": { "run_id": ID, "task_name": null, "first_attempt": 1, "last_attempt": 2 } }));
    assert_eq!((gap.status(), gap.attempt()), (None, 2));
    round_trip::<ChunkItem>(&json!({ "chunk": {
        "run_id": ID, "task_id": ID, "index": 7, "sent_at": AT, "text": "t",
    }}));
    round_trip::<ChunkItem>(&json!({ "chunk": {
        "run_id": ID, "task_id": ID, "index": null, "sent_at": null, "base64": "/w==",
    }}));
    round_trip::<ChunkItem>(&json!({ "gap": { "run_id": ID, "task_id": ID, "first_index": 1, "last_index": 2 } }));
    for kind in ["run", "task", "gap"] {
        round_trip::<ChangeKind>(&json!(kind));
    }
    for until in [json!({ "status": "RUNNING" }), json!({ "attempt": 2 }), json!("ended")] {
        round_trip::<Until>(&json!({ "all": [{ "any": [until, { "task": ["a", "COMPLETED"] }] }] }));
    }
    round_trip::<LogLine>(&log_line());
    for level in ["DEBUG", "INFO", "WARN", "ERROR", "TRACE"] {
        assert_eq!(round_trip::<LogLevel>(&json!(level)).as_str(), level);
    }
    for status in RunStatus::KNOWN.iter().map(RunStatus::as_str).chain(["PAUSED"]) {
        assert_eq!(round_trip::<RunStatus>(&json!(status)).as_str(), status);
    }
}

#[test]
fn crons_schedules_events_and_reports_have_a_stable_form() {
    for priority in [json!("low"), json!("medium"), json!("high"), Value::Null] {
        round_trip::<CronDetails>(&json!({
            "id": ID, "name": "nightly", "expression": "0 2 * * *", "is_enabled": true, "from_definition": false,
            "workflow_id": ID, "workflow_name": "w", "input": {}, "metadata": { "k": "v" }, "engine_metadata": {},
            "priority": priority, "created_at": AT,
        }));
        round_trip::<ScheduleDetails>(&json!({
            "id": ID, "workflow_id": ID, "workflow_name": "w", "scheduled_at": AT, "input": { "n": 1 }, "metadata": {},
            "engine_metadata": { "hatchet__x": "y" }, "priority": priority, "created_at": null,
        }));
    }
    round_trip::<CronSpec>(&json!({ "name": "nightly", "expression": "0 2 * * *" }));
    let event: EventDetails = round_trip(&json!({
        "id": ID, "key": "k", "payload": { "n": 1 }, "metadata": {}, "engine_metadata": {}, "scope": "s",
        "created_at": AT, "run_ids": [ID], "counts": { "COMPLETED": 1, "FAILED": 2 },
    }));
    assert_eq!(event.counts.total(), 3);
    let report: WorkerReport = round_trip(&json!({
        "completed": 1, "failed": 2, "cancelled": 3, "unfinished": 1,
        "unfinished_tasks": [{ "run_id": ID, "task_id": ID, "attempt": 2, "is_finished": true }],
    }));
    assert_eq!(report.total(), 7);
    round_trip::<LabelValue>(&json!(7));
    round_trip::<LabelValue>(&json!("eu"));
    let error = json!({
        "kind": "timeout", "message": "m", "is_transient": true, "has_no_side_effects": false, "source": "s",
    });
    let effects =
        [json!("applied"), json!({ "skipped": "COMPLETED" }), json!("not_found"), json!({ "unknown": error })];
    let reports: Vec<_> = effects
        .iter()
        .map(|effect| json!({ "run_id": ID, "action": "cancel", "effect": effect, "attempt": null }))
        .collect();
    let report: BulkReport = round_trip(&json!({
        "action": "cancel", "applied": 1, "skipped": 1, "finished_first": 0, "no_effect": 0, "not_found": 1,
        "unknown": 1, "exceptions": reports, "stopped_by": error,
    }));
    assert!(report.stopped_by.unwrap().is_timeout());
    assert!(matches!(&report.exceptions[3].effect, Effect::Unknown(error) if error.is_transient()));
    let event: SseEvent =
        round_trip(&json!({ "name": "n", "id": "7", "retry": { "secs": 3, "nanos": 0 }, "data": "d" }));
    assert_eq!(event.retry, Some(std::time::Duration::from_secs(3)));
}

#[derive(Serialize, Deserialize)]
struct Number {
    n: u32,
}

/// What an engine reports can be stored, and is the same after that. Only the text of a payload may differ from the one of the engine.
#[tokio::test(start_paused = true)]
async fn what_the_engine_reports_can_be_stored() {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task = Task::new(
        "task",
        async |Number { n }: Number, _: Context| {
            if n == 0 { Err(TaskError::non_retryable("zero")) } else { Ok([n, n + 1]) }
        },
    );
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    for n in 0..2 {
        let run = hatchet.run(&task, &Number { n }).metadata("k", "v").start().await.unwrap();
        let mut watch = run.watch();
        while let Some(change) = watch.next().await {
            round_trip::<Change>(&serde_json::to_value(change.unwrap()).unwrap());
        }
        let details = run.details().await.unwrap();
        let again: RunDetails = round_trip(&serde_json::to_value(&details).unwrap());
        let output = |details: &RunDetails| details.output().map(|output| output.parse::<[u32; 2]>().unwrap());
        assert_eq!(output(&again), output(&details));
        assert_eq!((&again.tasks[0].attempts, &again.trigger, &again.metadata), {
            (&details.tasks[0].attempts, &details.trigger, &details.metadata)
        });
    }
    let page = hatchet.runs(Window::all()).page(10).await.unwrap();
    let again: Page<RunSummary> = round_trip(&serde_json::to_value(&page).unwrap());
    assert_eq!(again.items.len(), 2);
    round_trip::<WorkerReport>(&serde_json::to_value(worker.shutdown().await).unwrap());
    engine.shutdown().await;
}
