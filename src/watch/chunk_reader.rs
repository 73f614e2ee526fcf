//! Reads the chunks of one run, and perhaps of its children, until the run has ended.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::ready;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::announced::Ending;
use super::beginning::Beginning;
use super::changes::RunWatch;
use super::continuity::{ALL_ARRIVED_AFTER, Continuity, is_reported};
use super::family::{Family, Found};
use super::follower::Watched;
use super::lateness::{Lateness, MAX_CLOCK_SKEW};
use super::lookup::{Lookup, lookup};
use super::reorder::{Place, Reorder};
use super::watch_failure::{Received, WatchFailure};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{ChunkEvent, ChunkSubscription, ParentRun, Turns};
use crate::model::{Change, Chunk, ChunkItem, ChunkPosition, RunId, RunStatus, TaskId};
use crate::run::RunHandle;
use crate::sync::lock;
use crate::time::at;

/// For how long chunks are expected after the end of the run, and after each event of it that follows: the engine may announce the end
/// before the last chunks.
const MAX_CHUNK_DELAY_AFTER_END: Duration = Duration::from_secs(1);
/// The same if an end has not been announced yet: all events are late.
const AFTER_END_IF_BEHIND: Duration = ALL_ARRIVED_AFTER;
/// What arrives later than this after the end is waited for only if it was sent before the end.
const LONG_AFTER_END: Duration = Duration::from_secs(30);

/// What the reader of chunks shares with its stream.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) dropped: AtomicU64,
    /// The chunks that were ignored because they had been returned or given up.
    pub(super) outdated: AtomicU64,
    pub(super) with_children: AtomicBool,
    /// The last chunks that were received in another stream.
    pub(super) resumed: Mutex<Vec<ChunkPosition>>,
    /// The run, when it was started.
    pub(super) run: Mutex<Option<RunHandle>>,
    /// The last status of the run.
    pub(super) status: Mutex<Option<RunStatus>>,
}

/// What is known of a stream when it begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// Whether the subscription was there before the run.
    pub(super) from_start: bool,
    pub(super) with_children: bool,
}

pub(super) struct Reader {
    client: Client,
    run: RunId,
    chunks: ChunkSubscription,
    shared: Arc<Shared>,
    watch: RunWatch,
    reorder: Reorder,
    continuity: Continuity,
    lateness: Lateness,
    /// Whether the subscription was there before the run.
    from_start: bool,
    beginning: Beginning,
    /// The last attempt of each task that was known while it had not ended.
    unended: HashMap<TaskId, Unended>,
    /// The last attempt of each task in the history of the run.
    last_attempts: HashMap<TaskId, u32>,
    /// The tasks of which a replay has sent chunks after the end, and when it has sent the first one.
    replayed: HashMap<TaskId, Option<DateTime<Utc>>>,
    /// Whether tasks have other ids than the run.
    is_dag: bool,
    /// With the chunks of children.
    family: Option<Family>,
    lookups: FuturesUnordered<Lookup<Option<RunId>>>,
    turns: Turns,
    ready: VecDeque<ChunkItem>,
    /// The number of chunks that were returned as missing, and of those that had been dropped when that was last returned without numbers.
    in_gaps: u64,
    reported: u64,
    /// The number of chunks that were dropped because the parent of their run is not known.
    lost_by_family: u64,
    /// When the last chunk of the run, or the last announcement of an end, arrived after its end, or the run ended.
    ended_at: Option<Instant>,
    /// When the run ended, by the clock of the client and in the history of the run.
    first_ended_at: Option<Instant>,
    finished_at: Option<DateTime<Utc>>,
    /// The runs that were being looked up at the end. Their chunks may be from before it.
    unknown_at_end: HashSet<RunId>,
    has_ended: bool,
    watch_failure: Option<WatchFailure>,
    /// The error that ends the stream, after the chunks that have arrived before it.
    error: Option<Error>,
}

/// An attempt that had not ended.
#[derive(Debug, Clone, Copy)]
struct Unended {
    attempt: u32,
    /// Since when that was known.
    since: Instant,
    has_run: bool,
}

impl Reader {
    pub(super) fn new(chunks: ChunkSubscription, watched: Watched, options: Options, shared: Arc<Shared>) -> Self {
        let Options { from_start, with_children } = options;
        let (client, run, is_dag) = (watched.client.clone(), watched.run, watched.is_dag);
        let membership = Some(chunks.membership()).filter(|membership| membership.has_notifications());
        let watched = Watched { membership: membership.cloned(), ..watched };
        let mut reorder = Reorder::new(from_start);
        for position in lock(&shared.resumed).drain(..) {
            reorder.resume(position);
        }
        Self {
            client,
            run,
            chunks,
            watch: RunWatch::of(watched),
            reorder,
            continuity: Continuity::new(run, with_children),
            lateness: Lateness::default(),
            from_start,
            beginning: Beginning::new(from_start),
            unended: HashMap::new(),
            last_attempts: HashMap::new(),
            replayed: HashMap::new(),
            is_dag,
            family: with_children.then(|| Family::new(run)),
            lookups: FuturesUnordered::new(),
            turns: Turns::new(),
            shared,
            ready: VecDeque::new(),
            in_gaps: 0,
            reported: 0,
            lost_by_family: 0,
            ended_at: None,
            first_ended_at: None,
            finished_at: None,
            unknown_at_end: HashSet::new(),
            has_ended: false,
            watch_failure: None,
            error: None,
        }
    }

    pub(super) async fn next(&mut self) -> Option<Result<ChunkItem>> {
        loop {
            // Chunks can always be waiting, so this is not left to the timer.
            self.reorder.release_due(Instant::now(), &mut self.ready);
            if let Some(item) = self.ready.pop_front() {
                self.in_gaps += missing(&item);
                return Some(Ok(item));
            }
            if self.has_ended {
                return self.error.take().map(Err);
            }
            let ended_at = self.ended_at.filter(|_| self.unknown_at_end.is_empty());
            let over =
                ended_at.map(|at| at + if self.is_behind() { AFTER_END_IF_BEHIND } else { MAX_CHUNK_DELAY_AFTER_END });
            let fails_at = self.watch_failure.as_ref().map(WatchFailure::ends_at);
            let due = [self.reorder.due(), over, fails_at].into_iter().flatten().min();
            tokio::select! {
                biased;
                // Before the chunks, which can always be waiting.
                Some(found) = self.lookups.next() => match found {
                    (run, Ok(Some(parent))) => self.on_parent(run, parent),
                    (run, Ok(None)) => self.on_unknown(run),
                    (run, Err(error)) => self.on_failed_lookup(run, &error),
                },
                event = self.chunks.next() => if let Err(error) = self.take(event) {
                    self.fail(error);
                },
                change = self.watch.next(), if self.ended_at.is_none() && self.watch_failure.is_none() => match change {
                    Some(Ok(change)) => self.on_change(&change),
                    Some(Err(error)) if error.is_not_found() || error.kind() == ErrorKind::Closed => self.fail(error),
                    // The subscription may still deliver chunks.
                    Some(Err(error)) => self.watch_failure = Some(WatchFailure::new(error, Instant::now())),
                    None => {
                        let end = self.finished_at.and_then(|end| end.checked_add_signed(MAX_CLOCK_SKEW));
                        self.ended_at = Some(Instant::now());
                        self.first_ended_at = self.ended_at;
                        self.unknown_at_end = self.family.as_ref().map(|family| family.unknown(end)).unwrap_or_default();
                    }
                },
                () = at(due) => {
                    if let Some(failure) = self.watch_failure.take_if(|failure| failure.ends_at() <= Instant::now()) {
                        self.fail(failure.into_error());
                    } else if over.is_some_and(|over| over <= Instant::now()) {
                        self.reorder.release_all(&mut self.ready);
                        let is_uncertain = self.continuity.ended() || self.beginning.has_missed_tasks();
                        if is_uncertain || self.is_behind() || self.has_dropped_silently() {
                            self.ready.push_back(ChunkItem::Interrupted);
                        }
                        self.has_ended = true;
                    }
                }
            }
        }
    }

    /// Ends the stream. The chunks that wait for others are returned before the error.
    fn fail(&mut self, error: Error) {
        self.reorder.release_all(&mut self.ready);
        self.has_ended = true;
        self.error = Some(error);
    }

    fn take(&mut self, event: ChunkEvent) -> Result<()> {
        let now = Instant::now();
        if self.watch_failure.is_some() {
            let received = self.received(&event);
            if let Some((failure, received)) = self.watch_failure.as_mut().zip(received) {
                failure.received(now, received);
            }
        }
        if event.run() == Some(self.run) && self.beginning.arrived(&event) {
            // The subscription is there now, so its last events are expected.
            self.continuity.lost(now);
            self.reorder.lost();
        }
        let chunk = match event {
            ChunkEvent::Chunk(chunk) => chunk,
            ChunkEvent::Created(run, task) => {
                self.is_dag |= run == self.run && !task.is_single_task_of(run);
                self.reorder.created(task);
                return Ok(());
            }
            ChunkEvent::AttemptEnded { run, task, attempt, is_completed, at } => {
                if self.has_ended_before(task, attempt) {
                    return Ok(());
                }
                if self.family.as_ref().is_none_or(|family| family.contains(run)) {
                    self.reorder.attempt_ended(task, attempt, at, is_completed);
                }
                if run == self.run {
                    self.continuity.announced(task, Ending::new(attempt, at));
                    self.more_may_follow(now, at);
                }
                return Ok(());
            }
            ChunkEvent::RunEnded { run, is_completed, at } => {
                if run == self.run {
                    self.continuity.run_ended(is_completed, at);
                    self.more_may_follow(now, at);
                }
                return Ok(());
            }
            ChunkEvent::Interrupted => {
                self.lost();
                return Ok(());
            }
            ChunkEvent::Failed(error) => return Err(error),
        };
        if self.is_of_replay(&chunk) {
            return Ok(());
        }
        if chunk.run_id == self.run {
            self.is_dag |= !chunk.task_id.is_single_task_of(self.run);
            self.more_may_follow(now, chunk.sent_at);
        }
        let chunk = match &mut self.family {
            None => Some(chunk),
            Some(family) => {
                let taken = family.take(chunk);
                if let Some(run) = taken.lookup {
                    self.lookups.push(parent_of(&self.client, run, &self.turns));
                }
                taken.chunk
            }
        };
        if let Some(chunk) = chunk {
            self.add(now, chunk);
        }
        self.count_dropped();
        Ok(())
    }

    /// What an event means for a stream without its watch. `None` if it is about another run.
    fn received(&self, event: &ChunkEvent) -> Option<Received> {
        let is_own = |run: RunId| run == self.run || self.family.as_ref().is_some_and(|family| family.contains(run));
        if !event.run().is_none_or(is_own) {
            return None;
        }
        Some(match event {
            ChunkEvent::Created(..) => Received::Beginning,
            ChunkEvent::Chunk(chunk) if self.reorder.place(chunk) == Place::NewAttempt => Received::Beginning,
            ChunkEvent::RunEnded { run, is_completed, .. } if *run == self.run => {
                if *is_completed && !self.is_dag {
                    Received::Completion
                } else {
                    Received::End
                }
            }
            _ => Received::Event,
        })
    }

    fn is_behind(&self) -> bool {
        self.lateness.is_behind(self.continuity.announcements())
    }

    /// Something about the run has arrived. If the run has ended, its last chunks may follow. A task that was cancelled can go on sending
    /// chunks: they do not keep the stream from ending.
    fn more_may_follow(&mut self, now: Instant, sent_at: Option<DateTime<Utc>>) {
        let Some(ended) = self.first_ended_at else { return };
        let is_from_before = || sent_at.zip(self.finished_at).is_some_and(|(sent, end)| sent <= end + MAX_CLOCK_SKEW);
        if now < ended + LONG_AFTER_END || is_from_before() {
            self.ended_at = Some(now);
        }
    }

    /// Whether an attempt began after the end of the run. The tasks of its children are not known.
    fn has_ended_before(&self, task: TaskId, attempt: Option<u32>) -> bool {
        let last = self.last_attempts.get(&task).filter(|_| self.first_ended_at.is_some());
        last.zip(attempt).is_some_and(|(last, attempt)| attempt > *last)
    }

    /// Whether a chunk is of a replay that began after the end of the run. The first chunk of an attempt shows that.
    fn is_of_replay(&mut self, chunk: &Chunk) -> bool {
        if let Some(first_sent_at) = self.replayed.get(&chunk.task_id) {
            return chunk.sent_at >= *first_sent_at;
        }
        let is_next = chunk.index == Some(0) && self.reorder.place(chunk) == Place::NewAttempt;
        let attempt = self.reorder.attempts(chunk.task_id).saturating_add(1);
        let is_of_replay = is_next && self.has_ended_before(chunk.task_id, Some(attempt));
        if is_of_replay {
            self.replayed.insert(chunk.task_id, chunk.sent_at);
        }
        is_of_replay
    }

    fn lost(&mut self) {
        self.continuity.lost(Instant::now());
        self.lateness.lost();
        self.reorder.lost();
    }

    fn add(&mut self, now: Instant, chunk: Chunk) {
        let place = self.reorder.place(&chunk);
        if self.continuity.chunk(chunk.task_id, place, chunk.sent_at) {
            self.reported = self.shared.dropped.load(Relaxed);
            self.ready.push_back(ChunkItem::Interrupted);
        }
        self.reorder.take(place, now, chunk, &mut self.ready);
        self.shared.outdated.store(self.reorder.outdated(), Relaxed);
    }

    fn count_dropped(&mut self) {
        let lost = self.family.as_ref().map_or(0, Family::dropped);
        if std::mem::replace(&mut self.lost_by_family, lost) < lost {
            self.lost();
        }
        self.shared.dropped.store(self.chunks.dropped().saturating_add(lost), Relaxed);
    }

    /// Whether more chunks were dropped than all gaps have, and nothing says so.
    fn has_dropped_silently(&self) -> bool {
        let in_gaps = self.in_gaps + self.ready.iter().map(missing).sum::<u64>();
        self.shared.dropped.load(Relaxed) > self.reported.saturating_add(in_gaps)
    }

    /// The parent of a run cannot be found. The run may have nothing to do with this stream, which continues.
    fn on_failed_lookup(&mut self, run: RunId, error: &Error) {
        tracing::debug!(run_id = %run, %error, "dropped the chunks of a run whose parent cannot be looked up");
        let Some(family) = &mut self.family else { return };
        let found = family.failed(run);
        self.on_found(run, found);
        self.count_dropped();
    }

    /// A run that has sent chunks does not exist.
    fn on_unknown(&mut self, run: RunId) {
        self.unknown_at_end.remove(&run);
        if let Some(family) = &mut self.family {
            family.not_found(run);
        }
        self.count_dropped();
    }

    fn on_parent(&mut self, run: RunId, parent: Option<RunId>) {
        let Some(family) = &mut self.family else { return };
        let found = family.found(run, parent);
        self.on_found(run, found);
    }

    /// Continues with what follows from a run whose parent is known.
    fn on_found(&mut self, run: RunId, found: Found) {
        let was_unknown = self.unknown_at_end.remove(&run);
        if let Some(run) = found.lookup {
            if was_unknown {
                self.unknown_at_end.insert(run);
            }
            self.lookups.push(parent_of(&self.client, run, &self.turns));
        }
        for chunk in found.chunks {
            self.add(Instant::now(), chunk);
        }
    }

    /// The history of the run shows the ends of attempts that were not announced because the stream was lost.
    fn on_change(&mut self, change: &Change) {
        let (task, state, at) = match change {
            Change::Run(change) => {
                *lock(&self.shared.status) = Some(change.attempt_status.status.clone());
                self.finished_at = change.changed_at.filter(|_| change.attempt_status.status.is_final());
                self.continuity.run_is(&change.attempt_status.status);
                if self.is_dag {
                    return;
                }
                // The only task has the id of the run.
                (change.run_id.into(), &change.attempt_status, change.changed_at)
            }
            Change::Task(change) => {
                self.is_dag = true;
                (change.task_id, &change.attempt_status, change.changed_at)
            }
            _ => return,
        };
        let now = Instant::now();
        let last = self.last_attempts.entry(task).or_default();
        *last = state.attempt.max(*last);
        let known = self.unended.get(&task).copied().filter(|known| known.attempt == state.attempt);
        if is_reported(&state.status) {
            let has_run = known.is_some_and(|known| known.has_run);
            // A task that was skipped has completed without having run: it has sent nothing, and the engine does not announce its end.
            if matches!(change, Change::Task(_)) && state.status == RunStatus::Completed && !has_run {
                return;
            }
            self.reorder.attempt_ended(task, Some(state.attempt), at, state.status == RunStatus::Completed);
            self.continuity.recorded(task, state.attempt, at, now);
            self.beginning.recorded(task);
            if self.from_start || known.is_some_and(|known| now >= known.since + MAX_CHUNK_DELAY_AFTER_END) {
                self.lateness.expect(task, state.attempt, at);
            }
        } else if state.status.is_final() {
            // A timeout or a cancellation, which is not announced as the end of an attempt. Its chunks can follow.
            self.continuity.recorded(task, state.attempt, at, now);
        } else {
            let known = known.unwrap_or(Unended { attempt: state.attempt, since: now, has_run: false });
            let has_run = known.has_run || state.status == RunStatus::Running;
            self.unended.insert(task, Unended { has_run, ..known });
        }
    }
}

/// The number of chunks that an item reports as missing.
fn missing(item: &ChunkItem) -> u64 {
    match item {
        ChunkItem::Gap(gap) => gap.last_index.abs_diff(gap.first_index).saturating_add(1),
        _ => 0,
    }
}

/// Finds the parent of a run.
fn parent_of(client: &Client, run: RunId, turns: &Turns) -> Lookup<Option<RunId>> {
    let parents = client.feed().parents.clone();
    if let Some(ParentRun(parent)) = parents.get(run) {
        return Box::pin(ready((run, Ok(Some(parent)))));
    }
    lookup(client, run, turns, move |found| {
        let parent = found.parent_run();
        if !found.lacks_parent() {
            parents.insert(run, parent);
        }
        parent
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::time::sleep;

    use super::*;
    use crate::embedded::Engine;
    use crate::scripted::{Scripted, client};
    use crate::workflow::Task;

    #[tokio::test(start_paused = true)]
    async fn the_parent_of_a_run_is_looked_up_once_for_all_streams() {
        let requests: Arc<AtomicUsize> = Arc::default();
        let counted = Arc::clone(&requests);
        let body = r#"{"run":{"metadata":{"id":"00000000-0000-0000-0000-000000000001"},"status":"RUNNING"}}"#;
        let (client, _) = client(move |name, _| {
            counted.fetch_add(usize::from(name.starts_with("GET ")), Relaxed);
            Scripted::Rest(200, body.into())
        });
        let run = RunId::from(uuid::Uuid::from_u128(1));
        for _ in 0..2 {
            let (found, parent) = parent_of(&client, run, &Turns::new()).await;
            assert_eq!((found, parent.unwrap()), (run, Some(None)));
        }
        assert_eq!(requests.load(Relaxed), 1);
    }

    /// The stream still waits for late chunks when the replay begins.
    #[tokio::test(start_paused = true)]
    async fn a_replay_right_after_the_end_is_not_returned() {
        let engine = Engine::start().await.unwrap();
        let hatchet = engine.client();
        let task = Task::new("task", async |(): (), context: crate::Context| {
            context.put(format!("{}.0", context.attempt())).await?;
            context.put(format!("{}.1", context.attempt())).await?;
            sleep(Duration::from_secs(5)).await;
            context.put("later").await?;
            Ok(())
        });
        let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
        let mut chunks = hatchet.run(&task, &()).chunks();
        let run = chunks.started().await.unwrap();
        let mut items = Vec::new();
        for _ in 0..3 {
            items.push(chunks.next().await.unwrap().unwrap());
        }
        let replay = async {
            run.result().await.unwrap();
            sleep(Duration::from_millis(500)).await;
            run.replay().send().await.unwrap();
        };
        let read = async {
            while let Some(item) = chunks.next().await.transpose().unwrap() {
                items.push(item);
            }
            (Instant::now(), items)
        };
        let started = Instant::now();
        let ((), (ended, items)) = tokio::join!(replay, read);
        let texts: Vec<_> = items
            .iter()
            .map(|item| if let ChunkItem::Chunk(chunk) = item { chunk.to_string() } else { format!("{item:?}") })
            .collect();
        assert_eq!(texts, ["1.0", "1.1", "later"]);
        assert!(ended - started < Duration::from_secs(2), "{:?}", ended - started);
        worker.shutdown().await;
    }
}
