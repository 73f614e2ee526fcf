//! The log lines of a run's tasks.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use chrono::{DateTime, SecondsFormat, Utc};
use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::stream::{self, TryStreamExt as _, unfold};

use super::gather::{Look, known};
use super::handle::RunHandle;
use crate::client::Client;
use crate::error::Result;
use crate::model::convert::rest;
use crate::model::{CancelRequest, LogLine, Outcome, RunDetails, RunId, TaskDetails, TaskId};

/// Lines for each question.
const PAGE: usize = 1000;
/// Beyond this, the server refuses.
const LARGEST: usize = 10_000;
/// Tasks whose logs are read at the same time.
const AT_ONCE: usize = 8;
/// How a line begins that says why a run was cancelled.
const CANCEL_TEXT: &str = "Cancellation requested";
/// How such a line is told from one that only looks like it.
const CANCEL_KEY: &str = "hatchet_rs__cancel";

impl<O> RunHandle<O> {
    /// Returns a stream of all log lines of the run's tasks: task by task, the oldest line of each task first.
    ///
    /// The engine truncates lines at 10 000 characters, and sets their timestamps when it receives them. Lines that are written during
    /// the iteration are included.
    pub fn logs(&self) -> LogItems {
        let walk =
            Walk { client: self.client().clone(), run: self.id(), tasks: None, since: None, ready: VecDeque::new() };
        let lines = unfold(Some(walk), |walk| async move {
            let mut walk = walk?;
            match walk.next().await {
                Ok(line) => Some((Ok(line?), Some(walk))),
                Err(error) => Some((Err(error), None)),
            }
        });
        LogItems(Box::pin(lines.fuse()))
    }
}

/// A stream of a run's log lines; see [`RunHandle::logs`]. It ends after an error. Nothing is sent before the first item is requested.
pub struct LogItems(Pin<Box<dyn Stream<Item = Result<LogLine>> + Send>>);

impl LogItems {
    /// Returns the next line, or `None` at the end.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no item is lost.
    pub async fn next(&mut self) -> Option<Result<LogLine>> {
        self.0.next().await
    }
}

impl Stream for LogItems {
    type Item = Result<LogLine>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for LogItems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogItems")
    }
}

struct Walk {
    client: Client,
    run: RunId,
    /// The tasks whose logs are still to be read. Found at the first item.
    tasks: Option<VecDeque<TaskId>>,
    /// Of the first of them, lines up to here have been read.
    since: Option<DateTime<Utc>>,
    ready: VecDeque<LogLine>,
}

impl Walk {
    async fn next(&mut self) -> Result<Option<LogLine>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            let tasks = if let Some(tasks) = &mut self.tasks {
                tasks
            } else {
                let details = Look::at(self.run).fetch(&self.client).await?;
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

/// Lines after a moment, and the moment to go on after, if there may be more.
async fn page(
    client: &Client,
    task: TaskId,
    since: Option<DateTime<Utc>>,
) -> Result<(Vec<LogLine>, Option<DateTime<Utc>>)> {
    let mut limit = PAGE;
    loop {
        let mut parameters = vec![("limit", limit.to_string())];
        parameters.extend(since.map(|since| ("since", since.to_rfc3339_opts(SecondsFormat::Micros, true))));
        let lines = read(client, task, &parameters).await?;
        if lines.len() < limit {
            return Ok((lines, None));
        }
        if let Some(whole) = whole(lines) {
            return Ok(whole);
        }
        if limit >= LARGEST {
            let text =
                format!("the log of task {task} has more than {LARGEST} lines of one moment, which cannot be paged");
            return Err(crate::error::Error::new(crate::error::ErrorKind::Server, text));
        }
        limit = (limit * 2).min(LARGEST);
    }
}

/// Of a full page, the lines before its last moment: of that moment there may be more, and a question after it would leave
/// them out. `None` if there is but one moment.
fn whole(mut lines: Vec<LogLine>) -> Option<(Vec<LogLine>, Option<DateTime<Utc>>)> {
    let last = lines.last()?.at;
    lines.retain(|line| line.at < last);
    let next = lines.last()?.at;
    Some((lines, Some(next)))
}

async fn read(client: &Client, task: TaskId, parameters: &[(&str, String)]) -> Result<Vec<LogLine>> {
    // A task that REST does not know yet has no log yet.
    let rows = known(client.rpc().rest.logs(&task.to_string(), parameters).await)?.unwrap_or_default();
    Ok(rows.into_iter().map(|row| rest::log_line(task, row)).collect())
}

/// The first lines of a task's log.
pub(super) async fn first_lines(client: &Client, task: TaskId) -> Result<Vec<LogLine>> {
    read(client, task, &[("limit", RunDetails::LOGS.to_string())]).await
}

/// Adds what only the logs know: the first lines, of which those of a run of one task are there, and why the run was cancelled.
pub(super) async fn add(client: &Client, details: &mut RunDetails) -> Result<()> {
    if !details.is_of_one_task() {
        let reads = details.tasks.iter().map(|task| first_lines(client, task.id));
        // Cut after each task: a run can have hundreds of tasks that log much.
        let first =
            stream::iter(reads.collect::<Vec<_>>()).buffered(AT_ONCE).try_fold(Vec::new(), async |mut all, lines| {
                all.extend(lines);
                all.sort_by_key(|line: &LogLine| line.at);
                all.truncate(RunDetails::LOGS);
                Ok(all)
            });
        details.logs = first.await?;
    }
    if !matches!(details.outcome, Some(Outcome::Cancelled(_))) {
        return Ok(());
    }
    let mut found = last_request(&details.tasks, &details.logs);
    // It may be further down; and that of one task was read along with its state, so it may have been written since.
    let may_be_late = found.is_none() && details.is_of_one_task();
    if may_be_late || details.logs.len() >= RunDetails::LOGS {
        let search = [("limit", LARGEST.to_string()), ("search", CANCEL_TEXT.to_owned())];
        let reads = details.tasks.iter().map(|task| read(client, task.id, &search));
        let said = stream::iter(reads.collect::<Vec<_>>()).buffered(AT_ONCE);
        let last = said.try_fold(None, async |last: Option<CancelRequest>, lines| {
            Ok(last_request(&details.tasks, &lines).into_iter().chain(last).max_by_key(|request| request.at))
        });
        found = last.await?;
    }
    if let Some(Outcome::Cancelled(cancellation)) = &mut details.outcome {
        cancellation.request = found;
    }
    Ok(())
}

/// The last of the requests among some lines that is not from before a replay: that was about an earlier end.
fn last_request(tasks: &[TaskDetails], lines: &[LogLine]) -> Option<CancelRequest> {
    let replayed = |line: &&LogLine| {
        let task = tasks.iter().find(|task| task.id == line.task);
        task.and_then(|task| task.replayed_after.last()).is_some_and(|last| line.attempt <= *last)
    };
    lines.iter().filter(|line| !replayed(line)).filter_map(request).max_by_key(|request| request.at)
}

/// The line that says why a run was cancelled, and its metadata.
pub(super) fn cancel_line(reason: Option<&str>, by: Option<&str>) -> (String, String) {
    let by_text = by.map(|by| format!(" by {by}")).unwrap_or_default();
    let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let metadata = serde_json::json!({ CANCEL_KEY: true, "reason": reason, "by": by });
    (format!("{CANCEL_TEXT}{by_text}{why}"), metadata.to_string())
}

fn request(line: &LogLine) -> Option<CancelRequest> {
    line.metadata.get(CANCEL_KEY)?;
    let text = |key: &str| line.metadata.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
    Some(CancelRequest { reason: text("reason"), by: text("by"), at: line.at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LogLevel;
    use proptest::prelude::*;

    fn line(second: i64, message: &str, metadata: &str) -> LogLine {
        LogLine {
            task: "00000000-0000-4000-8001-000000000001".parse().unwrap(),
            attempt: 1,
            at: DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap(),
            level: LogLevel::Info,
            message: message.into(),
            metadata: serde_json::from_str(metadata).unwrap(),
        }
    }

    #[test]
    fn what_is_written_about_a_cancel_is_read_back() {
        for (reason, by) in [(Some("bad deploy"), Some("ada")), (None, Some("ada")), (Some("x"), None), (None, None)] {
            let (message, metadata) = cancel_line(reason, by);
            assert!(message.starts_with(CANCEL_TEXT));
            let read = request(&line(7, &message, &metadata)).unwrap();
            assert_eq!((read.reason.as_deref(), read.by.as_deref(), read.at.timestamp() % 10), (reason, by, 7));
        }
        assert_eq!(cancel_line(Some("late"), Some("ada")).0, "Cancellation requested by ada: late");
        assert_eq!(request(&line(1, "Cancellation requested: by a task", r#"{"reason":"x"}"#)), None);
    }

    proptest! {
        /// Whatever moments lines share, paging misses none and repeats none.
        #[test]
        fn pages_are_cut_between_moments(seconds in proptest::collection::vec(0i64..6, 0..40), limit in 1usize..12) {
            let mut all: Vec<_> = seconds.iter().enumerate().map(|(at, second)| line(*second, &at.to_string(), "{}")).collect();
            all.sort_by_key(|line| line.at);
            let (mut since, mut seen, mut limit) = (None, Vec::new(), limit);
            loop {
                let after = all.iter().filter(|line| since.is_none_or(|since| line.at > since));
                let lines: Vec<_> = after.take(limit).cloned().collect();
                if lines.len() < limit {
                    seen.extend(lines);
                    break;
                }
                match whole(lines) {
                    Some((lines, next)) => { seen.extend(lines); since = next; }
                    None => limit *= 2,
                }
            }
            prop_assert_eq!(seen, all);
        }
    }
}
