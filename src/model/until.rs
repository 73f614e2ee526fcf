//! Conditions to wait for.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Change, RunStatus};

/// A condition on the changes of a run; see [`RunHandle::until`](crate::RunHandle::until).
///
/// A condition that was true once remains true, so conditions can be combined although a run has one status at a time.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use hatchet::RunStatus;
/// use hatchet::model::Until;
///
/// run.until(RunStatus::Running).await?;
/// let paid = Until::task("charge", RunStatus::Completed).and(Until::task("reserve", RunStatus::Completed));
/// match run.until(paid.or(Until::attempt(3))).await? {
///     Some(change) => println!("{change}"),
///     None => println!("the run has ended before that"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Until(Condition);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Condition {
    Status(RunStatus),
    Attempt(u32),
    Task(String, RunStatus),
    Ended,
    EndedWith(RunStatus),
    Any(Vec<Condition>),
    All(Vec<Condition>),
}

impl Until {
    /// Creates a condition that is true when the run has this status, in any attempt. A failed attempt may be retried, so a status such as
    /// [`RunStatus::Failed`] does not mean that the run has ended: for that, use [`ended_with`](Self::ended_with).
    pub fn status(status: RunStatus) -> Self {
        Self(Condition::Status(status))
    }

    /// Creates a condition that is true when the run has reached this attempt, or a later one.
    pub fn attempt(number: u32) -> Self {
        Self(Condition::Attempt(number))
    }

    /// Creates a condition that is true when the task with this name has this status, in any attempt.
    ///
    /// Only the tasks of a DAG run have statuses of their own.
    pub fn task(name: impl Into<String>, status: RunStatus) -> Self {
        Self(Condition::Task(name.into(), status))
    }

    /// Creates a condition that is true when the run has ended.
    pub fn ended() -> Self {
        Self(Condition::Ended)
    }

    /// Creates a condition that is true when the run has ended with this status.
    pub fn ended_with(status: RunStatus) -> Self {
        Self(Condition::EndedWith(status))
    }

    /// Returns a condition that is true when at least one of the two conditions is true.
    #[must_use]
    pub fn or(self, other: impl Into<Self>) -> Self {
        let mut all = match self.0 {
            Condition::Any(all) => all,
            one => vec![one],
        };
        all.push(other.into().0);
        Self(Condition::Any(all))
    }

    /// Returns a condition that is true when both conditions are true, or have been true at different times.
    #[must_use]
    pub fn and(self, other: impl Into<Self>) -> Self {
        let mut all = match self.0 {
            Condition::All(all) => all,
            one => vec![one],
        };
        all.push(other.into().0);
        Self(Condition::All(all))
    }

    /// Takes a change, and returns whether the condition is true. What was true once is removed.
    pub(crate) fn take(&mut self, change: &Change) -> bool {
        self.0.take(change)
    }
}

impl Condition {
    fn take(&mut self, change: &Change) -> bool {
        match self {
            Self::Status(status) => change.task_name().is_none() && change.has_status(status),
            Self::Attempt(number) => matches!(change, Change::Run(run) if run.attempt_status.attempt >= *number),
            Self::Task(name, status) => change.task_name() == Some(name) && change.has_status(status),
            Self::Ended => change.is_final(),
            Self::EndedWith(status) => change.is_final() && change.has_status(status),
            // The wait ends with the first one, so the others need not take the change.
            Self::Any(all) => all.iter_mut().any(|one| one.take(change)),
            Self::All(all) => {
                all.retain_mut(|one| !one.take(change));
                all.is_empty()
            }
        }
    }
}

impl From<RunStatus> for Until {
    fn from(status: RunStatus) -> Self {
        Self::status(status)
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut join = |all: &[Self], word: &str| {
            for (at, one) in all.iter().enumerate() {
                if at > 0 {
                    write!(f, " {word} ")?;
                }
                match one {
                    Self::Any(_) | Self::All(_) => write!(f, "({one})")?,
                    _ => write!(f, "{one}")?,
                }
            }
            Ok(())
        };
        match self {
            Self::Any(all) => join(all, "or"),
            Self::All(all) => join(all, "and"),
            Self::Status(status) => status.fmt(f),
            Self::Attempt(number) => write!(f, "attempt {number}"),
            Self::Task(name, status) => write!(f, "{name}: {status}"),
            Self::Ended => f.write_str("ended"),
            Self::EndedWith(status) => write!(f, "ended with {status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AttemptStatus, Outcome, RunChange, TaskChange};

    fn run(attempt: u32, status: RunStatus, outcome: Option<Outcome>) -> Change {
        let attempt_status = AttemptStatus::new(attempt, status);
        let run_id = uuid::Uuid::from_u128(1).into();
        Change::Run(RunChange { run_id, attempt_status, changed_at: None, error: None, outcome })
    }

    fn task(name: &str, status: RunStatus) -> Change {
        let id = uuid::Uuid::from_u128(1);
        Change::Task(TaskChange {
            run_id: id.into(),
            task_id: id.into(),
            task_name: name.into(),
            attempt_status: AttemptStatus::new(1, status),
            changed_at: None,
            error: None,
        })
    }

    /// The number of changes after which a condition is true.
    fn met(condition: impl Into<Until>, changes: &[Change]) -> Option<usize> {
        let mut condition = condition.into();
        changes.iter().position(|change| condition.take(change)).map(|index| index + 1)
    }

    #[test]
    fn conditions_are_true_after_the_change_that_they_name() {
        use RunStatus::{Completed, Queued, Running};
        let outcome = Outcome::Completed(super::super::Completed { output: crate::model::Payload::output("{}") });
        let changes = [
            run(1, Queued, None),
            task("a", Queued),
            run(1, Running, None),
            task("a", Completed),
            task("b", Completed),
            run(2, Queued, None),
            run(2, Completed, Some(outcome)),
        ];
        assert_eq!(met(Queued, &changes), Some(1));
        assert_eq!(met(Running, &changes), Some(3), "not the status of a task");
        assert_eq!(met(Until::task("b", Completed), &changes), Some(5));
        assert_eq!(met(Until::task("c", Completed), &changes), None);
        assert_eq!(met(Until::attempt(2), &changes), Some(6));
        assert_eq!(met(Until::ended(), &changes), Some(7));
        assert_eq!(met(Until::ended_with(Completed), &changes), Some(7));
        assert_eq!(met(Until::ended_with(RunStatus::Failed), &changes), None);
        let again = [run(1, RunStatus::Failed, None), run(2, Completed, None)];
        assert_eq!(
            (met(RunStatus::Failed, &again), met(Until::ended_with(RunStatus::Failed), &again)),
            (Some(1), None)
        );
        let both = Until::task("b", Completed).and(Until::task("a", Completed)).and(Running);
        assert_eq!(met(both.clone(), &changes), Some(5), "not at the same time");
        assert_eq!(met(both.clone().or(Until::status(Running)), &changes), Some(3));
        assert_eq!(met(Until::ended().and(both), &changes), Some(7));
    }

    #[test]
    fn conditions_are_shown_with_parentheses() {
        let either = Until::status(RunStatus::Running).or(Until::attempt(2));
        assert_eq!(either.to_string(), "RUNNING or attempt 2");
        assert_eq!(Until::ended().and(either).to_string(), "ended and (RUNNING or attempt 2)");
        assert_eq!(Until::task("a", RunStatus::Failed).to_string(), "a: FAILED");
        assert_eq!(Until::ended_with(RunStatus::Failed).to_string(), "ended with FAILED");
    }
}
