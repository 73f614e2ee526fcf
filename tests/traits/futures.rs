//! The futures of public methods.
//!
//! Those that own what they need can be spawned; those that borrow a handle can be sent with it.
//!
//! They are not `Sync`, as those of most crates: a future is polled through `Pin<&mut Self>`, so its owner alone uses it, and a `Mutex` around
//! it is `Sync` because it is `Send`. Streams are `Sync`, because users store them in their own types, which may have to be.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::DateTime;
use hatchet::archive::{
    Archive, ArchiveQuery, ArchivedDetails, ArchivedRuns, CollectBuilder, CollectedBatches, CompactBuilder,
    CompactedPartitions, ExpireBuilder, History, HistoryDetails, HistoryQuery, HistoryRuns, Retention,
    RunningCollector, SweepBuilder, SweptBatches,
};
use hatchet::builder::{
    BulkCancelBuilder, BulkReplayBuilder, CancelBuilder, CancelManyBuilder, CommandBuilder, CronBuilder, CronQuery,
    EventBuilder, EventManyBuilder, RateLimitBuilder, RateLimitQuery, ReplayBuilder, ReplayManyBuilder, RerunBuilder,
    RunBuilder, RunManyBuilder, RunQuery, ScheduleBuilder, ScheduleQuery, TaskQuery,
};
use hatchet::embedded::{Engine, EngineBuilder};
use hatchet::handle::{CronHandle, EventHandle, ScheduleHandle};
use hatchet::model::{CronSpec, RateLimitWindow, Window};
use hatchet::stream::{
    ChunkSse, LogItems, RunChunks, RunItems, RunOutcomes, RunReports, RunResults, RunWatch, RunsWatch, TagWatch,
    TaskItems, WorkerStatuses,
};
use hatchet::testing::{Call, Harness, HarnessBuilder};
use hatchet::worker::{HealthBuilder, RunningWorker};
use hatchet::{Client, Context, RunHandle, RunId, RunStatus, Task, Worker};
use serde_json::json;

use super::sources;

type Number = u32;

fn spawnable<T: Future + Send + 'static>(_: T) {}
fn sent<T: Future + Send>(_: T) {}

/// A value that is never made: what has it is not called, because it only has to compile.
fn any<T>() -> T {
    panic!("it is not called: it compiles")
}

/// The futures of starting runs, and of waiting for them.
#[expect(dead_code, reason = "it is not called: it compiles")]
fn runs(hatchet: &'static Client, run: &'static RunHandle<Number>, task: &'static Task<(), Number>) {
    let context: &'static Context = any();
    spawnable(RunBuilder::start(hatchet.run(task, &())));
    spawnable(RunBuilder::start_or_existing(hatchet.run(task, &())));
    spawnable(RunBuilder::outcome(hatchet.run(task, &())));
    spawnable(RunBuilder::result(hatchet.run(task, &())));
    spawnable(RunBuilder::result(context.run(task, &())));
    spawnable(RunManyBuilder::start(hatchet.run_many(task, [()])));
    spawnable(RunManyBuilder::outcomes(hatchet.run_many(task, [()])));
    spawnable(RunManyBuilder::results(hatchet.run_many(task, [()])));
    spawnable(RunManyBuilder::results(context.run_many(task, [()])));
    spawnable(RerunBuilder::start(run.rerun()));
    spawnable(RerunBuilder::outcome(run.rerun()));
    spawnable(RerunBuilder::result(run.rerun()));
    sent(RunHandle::outcome(run));
    sent(RunHandle::result(run));
    sent(RunHandle::until(run, RunStatus::Running));
    spawnable(run.details().into_future());
    spawnable(run.children().into_future());
}

/// The futures of commands and reads.
#[expect(dead_code, reason = "it is not called: it compiles")]
fn requests(hatchet: &'static Client, run: &'static RunHandle<Number>, task: &'static Task<(), Number>) {
    let (all, tasks): (&'static RunQuery, &'static TaskQuery) = any();
    let (event, cron, schedule): (&'static EventHandle, &'static CronHandle, &'static ScheduleHandle) = any();
    spawnable(CancelBuilder::send(run.cancel()));
    spawnable(CancelManyBuilder::send(hatchet.cancel_many([run.id()])));
    spawnable(ReplayBuilder::send(run.replay()));
    spawnable(ReplayManyBuilder::send(hatchet.replay_many([run.id()])));
    spawnable(BulkCancelBuilder::send(all.cancel()));
    spawnable(BulkReplayBuilder::send(all.replay()));
    sent(RunQuery::page(all, 1));
    sent(RunQuery::count(all));
    sent(RunQuery::counts_by_status(all));
    sent(TaskQuery::page(tasks, 1));
    sent(TaskQuery::count(tasks));
    spawnable(EventBuilder::send(hatchet.push("key", &json!({}))));
    spawnable(EventManyBuilder::send(hatchet.push_many("key", [json!({})])));
    spawnable(ScheduleBuilder::send(hatchet.schedule(task, &(), DateTime::UNIX_EPOCH)));
    spawnable(ScheduleQuery::get(hatchet.schedules()));
    spawnable(CronBuilder::send(hatchet.cron(task, &(), CronSpec::new("name", "* * * * *"))));
    spawnable(CronQuery::get(hatchet.crons()));
    spawnable(RateLimitBuilder::send(hatchet.rate_limit("key", 1, RateLimitWindow::Minute)));
    spawnable(RateLimitQuery::get(hatchet.rate_limits()));
    spawnable(CommandBuilder::send(hatchet.rate_limit_handle("key").delete()));
    spawnable(CommandBuilder::send(cron.pause()));
    spawnable(CommandBuilder::send(cron.resume()));
    spawnable(CommandBuilder::send(cron.delete()));
    spawnable(CommandBuilder::send(schedule.reschedule(DateTime::UNIX_EPOCH)));
    spawnable(CommandBuilder::send(schedule.delete()));
    spawnable(hatchet.rate_limit_handle("key").details().into_future());
    spawnable(event.details().into_future());
    spawnable(event.runs().into_future());
    spawnable(cron.details().into_future());
    spawnable(schedule.details().into_future());
    spawnable(schedule.run().into_future());
    sent(Client::close(hatchet));
    sent(Client::raw_rest(hatchet, http::Method::GET, "/", None));
}

/// The futures of streams.
#[expect(dead_code, reason = "it is not called: it compiles")]
fn streams() {
    sent(RunWatch::next(any()));
    sent(RunsWatch::next(any()));
    sent(TagWatch::next(any()));
    sent(RunChunks::<Number>::next(any()));
    sent(RunChunks::<Number>::started(any()));
    sent(ChunkSse::next(any()));
    sent(RunResults::<Number>::next(any()));
    sent(RunOutcomes::next(any()));
    sent(RunItems::next(any()));
    sent(TaskItems::next(any()));
    sent(RunReports::next(any()));
    sent(LogItems::next(any()));
    sent(WorkerStatuses::next(any()));
    sent(ArchivedRuns::next(any()));
    sent(ArchivedDetails::next(any()));
    sent(HistoryRuns::next(any()));
    sent(HistoryDetails::next(any()));
    sent(CollectedBatches::next(any()));
    sent(CompactedPartitions::next(any()));
    sent(SweptBatches::next(any()));
    sent(RunningCollector::next_result(any()));
}

/// The futures of workers, of tasks, and of engines.
#[expect(dead_code, reason = "it is not called: it compiles")]
fn workers(context: &'static Context, task: &'static Task<(), Number>) {
    let (worker, engine): (&'static RunningWorker, &'static Engine) = any();
    spawnable(Worker::start(any()));
    spawnable(Worker::run_until(any(), std::future::pending::<()>()));
    spawnable(Worker::run_until_signal(any()));
    sent(RunningWorker::ready(worker));
    sent(RunningWorker::stopped(worker));
    spawnable(RunningWorker::run_until(any(), std::future::pending::<()>()));
    spawnable(RunningWorker::run_until_signal(any()));
    spawnable(RunningWorker::shutdown(any()));
    spawnable(RunningWorker::shutdown_with_timeout(any(), Duration::ZERO));
    spawnable(CommandBuilder::send(worker.pause()));
    spawnable(CommandBuilder::send(worker.set_labels([("a", 1)])));
    spawnable(HealthBuilder::start(any()));
    sent(Context::cancelled(context));
    sent(Context::put(context, "chunk"));
    sent(Context::put_bytes(context, "chunk"));
    sent(Context::put_json(context, &1));
    spawnable(CommandBuilder::send(context.refresh_timeout(Duration::ZERO)));
    spawnable(Engine::start());
    spawnable(EngineBuilder::start(any()));
    sent(Engine::run_count(engine));
    sent(Engine::restart_after(engine, Duration::ZERO));
    spawnable(Engine::shutdown(any()));
    spawnable(Harness::start(task));
    spawnable(HarnessBuilder::start(any()));
    spawnable(Harness::shutdown(any()));
    spawnable(Call::<Number>::run(any()));
}

/// The futures of archives.
#[expect(dead_code, reason = "it is not called: it compiles")]
fn archives(hatchet: &'static Client, archive: &'static Archive, run: RunId) {
    let (stored, past, history): (&'static ArchiveQuery, &'static HistoryQuery, &'static History) = any();
    spawnable(CollectBuilder::send(archive.collect(hatchet, Retention::default())));
    spawnable(CompactBuilder::send(archive.compact()));
    spawnable(SweepBuilder::send(archive.sweep()));
    spawnable(ExpireBuilder::send(archive.expire(Retention::default())));
    sent(Archive::files(archive, Window::all()));
    sent(Archive::details(archive, run));
    sent(ArchiveQuery::page(stored, 1));
    sent(ArchiveQuery::count(stored));
    sent(ArchiveQuery::counts_by_status(stored));
    sent(HistoryQuery::page(past, 1));
    sent(HistoryQuery::count(past));
    sent(HistoryQuery::counts_by_status(past));
    spawnable(history.details(run).into_future());
    spawnable(RunningCollector::shutdown(any()));
    spawnable(RunningCollector::shutdown_with_timeout(any(), Duration::ZERO));
}

/// The public methods of a source file that return a future, each with its type.
fn futures_in(text: &str) -> Vec<String> {
    let (mut owner, mut found) = (String::new(), Vec::new());
    let name =
        |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned();
    // Formatted code: an implementation begins in the first column.
    for line in text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().lines() {
        if let Some(rest) = line.strip_prefix("impl") {
            // `impl<O: DeserializeOwned> Type<O> {`, or of a trait, which has no public methods.
            let rest = rest.strip_prefix('<').map_or(rest, |generic| {
                let mut depth = 1;
                let end = generic.find(|c| {
                    depth += i32::from(c == '<') - i32::from(c == '>');
                    depth == 0
                });
                end.map_or(rest, |end| &generic[end + 1..])
            });
            owner = name(rest.trim_start());
        }
        let line = line.trim_start();
        let is_future = line.starts_with("pub async fn ") || line.contains("-> impl Future");
        if let Some(method) = line.strip_prefix("pub ").filter(|_| is_future) {
            let method = method.trim_start_matches("async ").trim_start_matches("fn ");
            found.push(format!("{owner}::{}", name(method)));
        }
    }
    found
}

/// A new method that returns a future has to be added above.
#[test]
fn every_public_future_is_in_this_file() {
    let mut futures: BTreeSet<_> = sources().flat_map(|text| futures_in(&text)).collect();
    assert!(futures.len() > 90, "{futures:?}");
    let tested: BTreeSet<_> = include_str!("futures.rs")
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("spawnable(").or(line.trim_start().strip_prefix("sent(")))
        .map(|call| call.split('(').next().unwrap().replace("::<Number>", ""))
        .collect();
    futures.retain(|name| !tested.contains(name));
    assert!(futures.is_empty(), "without a line in tests/traits/futures.rs: {futures:?}");
}

#[test]
fn methods_are_distinguished_by_their_types() {
    let text = "impl<O: Into<Vec<u8>>> First<O> {\n    pub async fn next(&mut self) {}\n}\nimpl Second {\n    \
                pub fn next(&mut self) -> impl Future<Output = ()> {}\n    pub fn new() -> Self {}\n}\n";
    assert_eq!(futures_in(text), ["First::next", "Second::next"]);
}
