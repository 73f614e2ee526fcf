//! The log lines of a run's tasks.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::stream::{self, TryStreamExt as _};

use super::fetch::{RunFetch, if_found};
use crate::boxed::BoxStream;
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{Gate, pass};
use crate::model::{CancelRequest, LogLine, Outcome, RunDetails, RunId, TaskDetails, TaskId};
use crate::rpc::convert::log_line;
use crate::sync::lock;

/// The number of lines in one request.
const PAGE_SIZE: usize = 1000;
/// The maximum number of lines that the server returns.
const MAX_PAGE: usize = 10_000;
/// The number of tasks whose logs are read concurrently.
const MAX_CONCURRENT_READS: usize = 8;
/// How the text of a line with the reason of a cancellation begins.
const CANCEL_TEXT: &str = "Cancellation requested";
/// The metadata key of such a line, which distinguishes it from a line with the same text.
const CANCEL_KEY: &str = "hatchet_rs__cancel";

/// A stream of a run's log lines; see [`RunHandle::logs`](crate::RunHandle::logs).
///
/// The stream ends after an error. Nothing is sent before the first item is requested.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// let mut lines = run.logs();
/// while let Some(line) = lines.next().await {
///     println!("{}", line?.message);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is sent before the stream is polled"]
pub struct LogItems {
    lines: BoxStream<Result<LogLine>>,
    request: Arc<Mutex<RequestOptions>>,
}

impl LogItems {
    pub(crate) fn new(client: Client, run: RunId) -> Self {
        let request = Arc::new(Mutex::new(RequestOptions::default()));
        let options = Arc::clone(&request);
        let open = async move {
            let client = client.with(*lock(&options))?;
            Ok(Box::new(Reader { client, run, tasks: None, since: None, ready: VecDeque::new() }))
        };
        let lines = BoxStream::opened(open, |mut reader: Box<Reader>| async move {
            match reader.next().await {
                Ok(line) => Some((Ok(line?), Some(reader))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Self { lines, request }
    }

    /// Sets the timeout of each call that the stream makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout). Calling this method after the first poll
    /// has no effect.
    pub fn timeout(self, timeout: Duration) -> Self {
        lock(&self.request).timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that the stream makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry). Calling this method after the first poll has no effect.
    pub fn retry(self, policy: RetryPolicy) -> Self {
        lock(&self.request).retry = Some(policy);
        self
    }

    /// Returns the next line, or `None` at the end.
    ///
    /// # Errors
    /// [`RunNotFound`](ErrorKind::RunNotFound) if the engine has no such run. [`Server`](ErrorKind::Server) if more than 10,000 lines of a task have
    /// the same timestamp. Also the errors of REST calls, such as [`Unavailable`](ErrorKind::Unavailable). An error is the last item.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no line is lost.
    pub async fn next(&mut self) -> Option<Result<LogLine>> {
        self.lines.next().await
    }
}

impl Stream for LogItems {
    type Item = Result<LogLine>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.lines.poll_next_unpin(cx)
    }
}

impl fmt::Debug for LogItems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogItems")
    }
}

struct Reader {
    client: Client,
    run: RunId,
    /// The tasks whose logs have not been read yet. Fetched for the first item.
    tasks: Option<VecDeque<TaskId>>,
    /// The lines of the first task up to this time have been read.
    since: Option<DateTime<Utc>>,
    ready: VecDeque<LogLine>,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<LogLine>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            let tasks = if let Some(tasks) = &mut self.tasks {
                tasks
            } else {
                let details = RunFetch::new(self.run).fetch(&self.client).await?;
                self.tasks.insert(details.tasks.iter().map(|task| task.id).collect())
            };
            let Some(task) = tasks.front().copied() else { return Ok(None) };
            let (lines, next) = page(&self.client, task, self.since).await?;
            self.ready.extend(lines);
            self.since = next;
            if next.is_none() {
                tasks.pop_front();
            }
        }
    }
}

/// The lines after a time, and the time after which to continue if there may be more.
async fn page(
    client: &Client,
    task: TaskId,
    since: Option<DateTime<Utc>>,
) -> Result<(Vec<LogLine>, Option<DateTime<Utc>>)> {
    let mut limit = PAGE_SIZE;
    loop {
        let mut parameters = vec![("limit", limit.to_string())];
        parameters.extend(since.map(|since| ("since", since.to_rfc3339_opts(SecondsFormat::Micros, true))));
        let lines = read(client, None, task, &parameters).await?;
        if lines.len() < limit {
            return Ok((lines, None));
        }
        if let Some(page) = before_last_timestamp(lines) {
            return Ok(page);
        }
        if limit >= MAX_PAGE {
            let text = format!(
                "the log of task {task} has more than {MAX_PAGE} lines with the same timestamp, which cannot be paged"
            );
            return Err(Error::new(ErrorKind::Server, text));
        }
        limit = (limit * 2).min(MAX_PAGE);
    }
}

/// The lines of a full page before its last timestamp: there may be more lines with that timestamp, which a request for later lines
/// would miss. `None` if all lines have the same timestamp.
fn before_last_timestamp(mut lines: Vec<LogLine>) -> Option<(Vec<LogLine>, Option<DateTime<Utc>>)> {
    let last = lines.last()?.created_at;
    lines.retain(|line| line.created_at < last);
    let next = lines.last()?.created_at;
    Some((lines, Some(next)))
}

async fn read(
    client: &Client,
    gate: Option<&Gate>,
    task: TaskId,
    parameters: &[(&str, String)],
) -> Result<Vec<LogLine>> {
    let _permit = pass(gate, 1).await;
    // A task that REST does not have yet has no log yet.
    let rows = if_found(client.rpc().rest.logs(task, parameters).await)?.unwrap_or_default();
    Ok(rows.into_iter().map(|row| log_line(task, row)).collect())
}

/// The first lines of all tasks, oldest first.
pub(super) async fn first_lines(
    client: &Client,
    gate: Option<&Gate>,
    details: &RunDetails,
    count: usize,
) -> Result<Vec<LogLine>> {
    let limit = [("limit", count.to_string())];
    let reads = details.tasks.iter().map(|task| read(client, gate, task.id, &limit));
    // Truncated after each task: a run can have hundreds of tasks with many lines.
    let reads = stream::iter(reads.collect::<Vec<_>>()).buffered(MAX_CONCURRENT_READS);
    reads
        .try_fold(Vec::new(), async |mut all, lines| {
            all.extend(lines);
            all.sort_by_key(|line: &LogLine| line.created_at);
            all.truncate(count);
            Ok(all)
        })
        .await
}

/// Adds the reason of the cancellation, if the run was cancelled. It is in the logs of the tasks.
pub(super) async fn add_cancel_request(client: &Client, gate: Option<&Gate>, details: &mut RunDetails) -> Result<()> {
    if !matches!(details.outcome, Some(Outcome::Cancelled(_))) {
        return Ok(());
    }
    let search = [("limit", MAX_PAGE.to_string()), ("search", CANCEL_TEXT.to_owned())];
    let reads = details.tasks.iter().map(|task| read(client, gate, task.id, &search));
    let reads = stream::iter(reads.collect::<Vec<_>>()).buffered(MAX_CONCURRENT_READS);
    let found = reads
        .try_fold(None, async |last: Option<CancelRequest>, lines| {
            Ok(last_request(&details.tasks, &lines).into_iter().chain(last).max_by_key(|request| request.requested_at))
        })
        .await?;
    if let Some(Outcome::Cancelled(cancellation)) = &mut details.outcome {
        cancellation.request = found;
    }
    Ok(())
}

/// The last cancel request in some lines, except those from before a replay, which belong to an earlier end.
fn last_request(tasks: &[TaskDetails], lines: &[LogLine]) -> Option<CancelRequest> {
    let replayed = |line: &&LogLine| {
        let task = tasks.iter().find(|task| task.id == line.task_id);
        task.and_then(|task| task.replayed_after.last()).is_some_and(|last| line.attempt <= *last)
    };
    lines.iter().filter(|line| !replayed(line)).filter_map(request).max_by_key(|request| request.requested_at)
}

/// The text of the line with the reason of a cancellation, and its metadata.
pub(crate) fn cancel_line(reason: Option<&str>, by: Option<&str>) -> (String, String) {
    let by_text = by.map(|by| format!(" by {by}")).unwrap_or_default();
    let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let metadata = serde_json::json!({ CANCEL_KEY: true, "reason": reason, "by": by });
    (format!("{CANCEL_TEXT}{by_text}{why}"), metadata.to_string())
}

fn request(line: &LogLine) -> Option<CancelRequest> {
    let metadata = line.metadata.as_ref()?;
    metadata.get(CANCEL_KEY)?;
    let text = |key: &str| metadata.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
    Some(CancelRequest { reason: text("reason"), by: text("by"), requested_at: line.created_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LogLevel;
    use proptest::prelude::*;

    fn line(second: i64, message: &str, metadata: &str) -> LogLine {
        LogLine {
            task_id: "00000000-0000-4000-8001-000000000001".parse().unwrap(),
            attempt: 1,
            created_at: DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap(),
            level: LogLevel::Info,
            message: message.into(),
            metadata: serde_json::from_str(metadata).unwrap(),
        }
    }

    #[test]
    fn the_reason_of_a_cancel_is_read_back() {
        for (reason, by) in [(Some("bad deploy"), Some("ada")), (None, Some("ada")), (Some("x"), None), (None, None)] {
            let (message, metadata) = cancel_line(reason, by);
            assert!(message.starts_with(CANCEL_TEXT));
            let read = request(&line(7, &message, &metadata)).unwrap();
            assert_eq!(
                (read.reason.as_deref(), read.by.as_deref(), read.requested_at.timestamp() % 10),
                (reason, by, 7)
            );
        }
        assert_eq!(cancel_line(Some("late"), Some("ada")).0, "Cancellation requested by ada: late");
        assert_eq!(request(&line(1, "Cancellation requested: by a task", r#"{"reason":"x"}"#)), None);
    }

    proptest! {
        /// Whichever timestamps lines share, paging misses none and repeats none.
        #[test]
        fn pages_end_between_timestamps(seconds in proptest::collection::vec(0i64..6, 0..40), limit in 1usize..12) {
            let mut all: Vec<_> = seconds.iter().enumerate().map(|(at, second)| line(*second, &at.to_string(), "{}")).collect();
            all.sort_by_key(|line| line.created_at);
            let (mut since, mut seen, mut limit) = (None, Vec::new(), limit);
            loop {
                let after = all.iter().filter(|line| since.is_none_or(|since| line.created_at > since));
                let lines: Vec<_> = after.take(limit).cloned().collect();
                if lines.len() < limit {
                    seen.extend(lines);
                    break;
                }
                match before_last_timestamp(lines) {
                    Some((lines, next)) => { seen.extend(lines); since = next; }
                    None => limit *= 2,
                }
            }
            prop_assert_eq!(seen, all);
        }
    }
}
