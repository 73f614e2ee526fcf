//! The readable form of a run's details: a tree of its tasks, each with a bar on one time axis.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Attempt, Cancellation, Outcome, RunDetails, TaskDetails};
use crate::time::between;

/// The number of characters of a bar.
const WIDTH: usize = 40;

/// The run, and a line for each task, with its status, its times, and a bar on one time axis: `·` while it was queued, `█` while it ran.
///
/// ```text
/// run 5b1c… of order: COMPLETED in 1.2s
/// ├─ reserve  COMPLETED  attempt 1  310ms  ·██████████
/// └─ ship     COMPLETED  attempt 2  420ms             ···█████████···███████████
/// ```
impl fmt::Display for RunDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {}", self.id)?;
        if let Some(workflow) = &self.workflow_name {
            write!(f, " of {workflow}")?;
        }
        write!(f, ": {}", self.status)?;
        if let Some(elapsed) = self.elapsed() {
            write!(f, " in {}", short(elapsed))?;
        }
        let axis = Axis::of(self);
        let name_width = self.tasks.iter().map(|task| task.name.chars().count()).max().unwrap_or(0);
        let status_width = self.tasks.iter().map(|task| task.status.as_str().len()).max().unwrap_or(0);
        for (at, task) in self.tasks.iter().enumerate() {
            let branch = if at + 1 == self.tasks.len() { "└─" } else { "├─" };
            let ran_for = task.ran_for().map(short).unwrap_or_default();
            let bar = axis.as_ref().map(|axis| axis.bar(task)).unwrap_or_default();
            let attempt =
                if never_ran(task) { "did not run".to_owned() } else { format!("attempt {}", task.attempt()) };
            let line = format!(
                "{branch} {:name_width$}  {:status_width$}  {attempt}  {ran_for:>6}  {bar}",
                task.name,
                task.status.as_str(),
            );
            write!(f, "\n{}", line.trim_end())?;
            if let Some(message) = failure_of(task) {
                let stem = if at + 1 == self.tasks.len() { "   " } else { "│  " };
                write!(f, "\n{stem}   {message}")?;
            }
        }
        Ok(())
    }
}

/// Whether a task has ended without having been assigned to a worker: it was skipped, cancelled or timed out in the queue.
fn never_ran(task: &TaskDetails) -> bool {
    let has_run = |attempt: &Attempt| attempt.started_at.is_some() || attempt.worker_id.is_some();
    task.status.is_final() && !task.attempts.is_empty() && !task.attempts.iter().any(has_run)
}

/// The first line of what happened to a task that did not complete.
fn failure_of(task: &TaskDetails) -> Option<String> {
    let outcome = task.outcome.as_ref().filter(|outcome| outcome.output().is_none())?;
    let text = match outcome {
        Outcome::Cancelled(Cancellation { request: Some(request), message: None }) => {
            format!("was cancelled: {request}")
        }
        other => other.to_string(),
    };
    let first = text.lines().next().unwrap_or_default();
    first.contains(": ").then(|| first.to_owned())
}

/// The time axis of all bars.
struct Axis {
    start: DateTime<Utc>,
    length: Duration,
}

impl Axis {
    /// From the first known time to the last one. `None` if no time has passed.
    fn of(details: &RunDetails) -> Option<Self> {
        let attempts = || details.tasks.iter().flat_map(|task| &task.attempts);
        let times =
            || attempts().flat_map(|attempt| [attempt.queued_at, attempt.started_at, attempt.finished_at]).flatten();
        let start = details.created_at.into_iter().chain(times()).min()?;
        let length = between(Some(start), times().max()).filter(|length| !length.is_zero())?;
        Some(Self { start, length })
    }

    fn column(&self, at: DateTime<Utc>) -> usize {
        let elapsed = between(Some(self.start), Some(at)).unwrap_or_default();
        let columns = elapsed.as_micros() * WIDTH as u128 / self.length.as_micros().max(1);
        usize::try_from(columns).unwrap_or(WIDTH).min(WIDTH)
    }

    fn bar(&self, task: &TaskDetails) -> String {
        let mut bar = [' '; WIDTH];
        for Attempt { queued_at, started_at, finished_at, .. } in &task.attempts {
            let mut fill = |from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>, mark: char| {
                let Some(from) = from.map(|at| self.column(at)) else { return };
                let to = to.map_or(WIDTH, |at| self.column(at));
                bar.iter_mut().take(to).skip(from).for_each(|cell| *cell = mark);
                // Even the shortest attempt is visible.
                if let Some(cell) = bar.get_mut(from.min(WIDTH - 1)).filter(|cell| mark == '█' && **cell != '█') {
                    *cell = mark;
                }
            };
            fill(*queued_at, started_at.or(*finished_at), '·');
            fill(*started_at, *finished_at, '█');
        }
        bar.iter().collect::<String>().trim_end().to_owned()
    }
}

/// A duration with two or three digits: `310ms`, `1.2s`, `3m20s`.
fn short(length: Duration) -> String {
    match length.as_secs() {
        0 => format!("{}ms", length.as_millis()),
        1..60 => format!("{:.1}s", length.as_secs_f64()),
        seconds @ 60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Failure, Outcome, RunStatus};

    fn at(millis: i64) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_millis(1_800_000_000_000 + millis)
    }

    fn attempt(number: u32, status: &RunStatus, times: [i64; 3]) -> Attempt {
        let [queued_at, started_at, finished_at] = times.map(at);
        Attempt { number, status: status.clone(), queued_at, started_at, finished_at, worker_id: None, error: None }
    }

    fn task(name: &str, status: RunStatus, attempts: Vec<Attempt>) -> TaskDetails {
        let failure = Failure { task_name: None, message: Some("out of paper\nand ink".into()) };
        TaskDetails {
            id: uuid::Uuid::from_u128(name.len() as u128).into(),
            name: name.into(),
            outcome: (status == RunStatus::Failed).then_some(Outcome::Failed(failure)),
            status,
            attempts,
            replayed_after: Vec::new(),
        }
    }

    #[test]
    fn details_are_a_tree_with_bars_on_one_axis() {
        let mut details: RunDetails = serde_json::from_value(serde_json::json!({
            "id": uuid::Uuid::from_u128(1), "workflow_name": "order", "status": "FAILED", "trigger": {"kind": "manual"},
            "outcome": {"status": "FAILED", "task_name": null, "message": ""}, "input": {}, "metadata": {}, "engine_metadata": {},
            "created_at": at(0), "tasks": [], "logs": [], "conflicts": [],
        }))
        .unwrap();
        let (completed, failed) = (RunStatus::Completed, RunStatus::Failed);
        let retried = vec![attempt(1, &failed, [500, 600, 700]), attempt(2, &failed, [700, 900, 1000])];
        details.tasks = vec![
            task("reserve", completed.clone(), vec![attempt(1, &completed, [0, 100, 500])]),
            task("ship", failed, retried),
            task(
                "refund",
                completed.clone(),
                vec![Attempt { started_at: None, ..attempt(1, &completed, [1000, 0, 1000]) }],
            ),
        ];
        let expected = [
            "run 00000000-0000-0000-0000-000000000001 of order: FAILED in 1.0s",
            "├─ reserve  COMPLETED  attempt 1   400ms  ····████████████████",
            "├─ ship     FAILED     attempt 2   200ms                      ····████········████",
            "│     failed: out of paper",
            "└─ refund   COMPLETED  did not run",
        ];
        assert_eq!(details.to_string(), expected.join("\n"));
    }

    #[test]
    fn details_without_times_have_no_bars() {
        let details = task("work", RunStatus::Queued, Vec::new());
        assert_eq!(short(Duration::from_secs(3725)), "1h2m");
        assert_eq!((details.ran_for(), short(Duration::from_secs(200))), (None, "3m20s".into()));
    }
}
