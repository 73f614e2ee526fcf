//! Concurrency limits of definitions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::engine_version::EngineVersion;
use super::expression::{key_problem, number_problem};
use super::name::parse_name;
use crate::error::{Error, Result};

/// What happens to runs that exceed a [`Concurrency`] limit.
///
/// ```
/// use hatchet::workflow::ConcurrencyStrategy;
///
/// let strategy: ConcurrencyStrategy = "cancel_newest".parse()?;
/// assert_eq!(strategy, ConcurrencyStrategy::CancelNewest);
/// # Ok::<(), hatchet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConcurrencyStrategy {
    /// Further runs wait: the oldest of each key is next, and the keys take turns. A run that waits longer than its schedule timeout
    /// times out, but only when another run ends.
    GroupRoundRobin,
    /// The newest runs continue. Older runs are cancelled, even if they are running.
    CancelInProgress,
    /// Existing runs continue. New runs are cancelled before they start.
    CancelNewest,
    /// Runs that have started continue. Of the queued runs, the newest are kept, as many as may run at the same time, and the others are
    /// cancelled. The oldest of the kept runs starts next, regardless of its priority. Requires engine v0.105.16 or later: with an older
    /// engine, the worker does not start.
    CancelQueuedExceptNewest,
    /// Runs that have started continue. Of the queued runs, the oldest are kept, as many as may run at the same time, and the others are
    /// cancelled. Requires engine v0.105.16 or later: with an older engine, the worker does not start.
    CancelQueuedExceptOldest,
}

impl ConcurrencyStrategy {
    const ALL: [Self; 5] = [
        Self::GroupRoundRobin,
        Self::CancelInProgress,
        Self::CancelNewest,
        Self::CancelQueuedExceptNewest,
        Self::CancelQueuedExceptOldest,
    ];
}

impl fmt::Display for ConcurrencyStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::GroupRoundRobin => "group_round_robin",
            Self::CancelInProgress => "cancel_in_progress",
            Self::CancelNewest => "cancel_newest",
            Self::CancelQueuedExceptNewest => "cancel_queued_except_newest",
            Self::CancelQueuedExceptOldest => "cancel_queued_except_oldest",
        })
    }
}

impl FromStr for ConcurrencyStrategy {
    type Err = Error;

    /// Parses a name such as `group_round_robin`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for any other string.
    fn from_str(name: &str) -> Result<Self> {
        parse_name("concurrency strategy", &Self::ALL, name)
    }
}

/// Limits how many runs of a workflow, or how many attempts of a task, execute at the same time.
///
/// An expression computes a key from the input, and the limit applies to each key.
///
/// The expression is CEL over `input` and `additional_metadata`, and must return a string. The expression `'all'` gives all runs the same
/// key. If the expression cannot be evaluated, the task fails without an attempt and is not retried: "failed to parse step expression (…)".
///
/// A run that the limit cancels has the message "Cancelled due to concurrency strategy"; see
/// [`Attempt::error`](crate::model::Attempt::error) and the outcome. For a workflow with several tasks, the limit holds from the first task
/// to the end of the run.
///
/// ```
/// use hatchet::workflow::{Concurrency, ConcurrencyStrategy};
/// use hatchet::{Context, Task};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Report { tenant: String }
///
/// // Two reports of each tenant at a time. The others wait.
/// let per_tenant = Concurrency::new("input.tenant", ConcurrencyStrategy::GroupRoundRobin).max_runs(2);
/// let render = Task::new("render", async |_: Report, _: Context| Ok(())).concurrency(per_tenant);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a limit has no effect before it is added to a definition"]
pub struct Concurrency {
    pub(crate) expression: String,
    pub(crate) strategy: ConcurrencyStrategy,
    max_runs: Option<u32>,
    pub(crate) max_runs_expression: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) is_tenant_scoped: bool,
}

impl Concurrency {
    /// Creates a limit of one run per key; [`max_runs`](Self::max_runs) sets another limit.
    pub fn new(expression: impl Into<String>, strategy: ConcurrencyStrategy) -> Self {
        Self {
            expression: expression.into(),
            strategy,
            max_runs: None,
            max_runs_expression: None,
            name: None,
            is_tenant_scoped: false,
        }
    }

    /// Sets the limit for each key, from 1 to 2,147,483,647. The default is 1.
    pub fn max_runs(mut self, max_runs: u32) -> Self {
        self.max_runs = Some(max_runs);
        self
    }

    /// Sets an expression that computes the limit from the input, for example `input.tier == 'premium' ? 10 : 1`.
    ///
    /// The limit of a key is the value of its newest run. Requires engine v0.106.5 or later. Older engines ignore the expression, so a
    /// worker that registers the definition checks the engine's version first.
    pub fn max_runs_expression(mut self, expression: impl Into<String>) -> Self {
        self.max_runs_expression = Some(expression.into());
        self
    }

    /// Sets the name of the limit. Requires engine v0.106.5 or later.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Shares the limit between all workflows of the tenant that declare a limit with the same [name](Self::name), which is required.
    ///
    /// If workflows share several limits, each workflow must add them in the same order. The client's namespace is not added to the name.
    /// Requires engine v0.106.5 or later.
    pub fn tenant_scoped(mut self) -> Self {
        self.is_tenant_scoped = true;
        self
    }

    /// The limit that is sent. With an expression, it applies only to runs from before the expression.
    pub(crate) fn limit(&self) -> i32 {
        self.max_runs.map_or(1, |limit| i32::try_from(limit).unwrap_or(i32::MAX))
    }

    /// What the engine would reject, or would never run.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<_> = key_problem(&self.expression).into_iter().collect();
        if let Some(limit) = self.max_runs.filter(|&limit| limit < 1 || i32::try_from(limit).is_err()) {
            problems.push(format!("expected a maximum of 1 to {} runs, got {limit}", i32::MAX));
        }
        if let Some(expression) = &self.max_runs_expression {
            problems.extend(number_problem(expression));
            if self.max_runs.is_some() {
                problems.push("expected max_runs or max_runs_expression, got both".into());
            }
        }
        match self.name.as_deref() {
            Some(name) if name.trim().is_empty() || name.contains('\0') => {
                problems.push(format!("expected a non-empty name without U+0000, got {name:?}"));
            }
            None if self.is_tenant_scoped => {
                problems.push("expected a name for a limit that workflows share, got none".into());
            }
            _ => {}
        }
        problems.into_iter().map(|problem| format!("concurrency: {problem}")).collect()
    }

    /// The options that need a newer engine than the oldest that this crate supports.
    pub(crate) fn requirements(&self) -> Vec<(String, EngineVersion)> {
        use ConcurrencyStrategy::{CancelQueuedExceptNewest, CancelQueuedExceptOldest};
        let is_new = matches!(self.strategy, CancelQueuedExceptNewest | CancelQueuedExceptOldest);
        let strategy =
            is_new.then(|| (format!("the concurrency strategy {}", self.strategy), EngineVersion::QUEUED_STRATEGIES));
        let options = [
            ("max_runs_expression", self.max_runs_expression.is_some()),
            ("the name of a concurrency limit", self.name.is_some()),
            ("a tenant-scoped concurrency limit", self.is_tenant_scoped),
        ];
        let options = options
            .into_iter()
            .filter(|(_, is_set)| *is_set)
            .map(|(name, _)| (name.to_owned(), EngineVersion::SHARED_LIMITS));
        strategy.into_iter().chain(options).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_could_never_run_are_rejected() {
        let limit = |expression: &str| Concurrency::new(expression, ConcurrencyStrategy::GroupRoundRobin);
        assert_eq!(limit("input.tenant").problems(), Vec::<String>::new());
        assert_eq!(limit("'all'").max_runs(5).name("n").tenant_scoped().problems(), Vec::<String>::new());
        assert_eq!(
            limit("").max_runs(0).problems(),
            [
                "concurrency: expected a CEL expression, got \"\"",
                "concurrency: expected a maximum of 1 to 2147483647 runs, got 0",
            ]
        );
        assert_eq!(
            limit("1").max_runs(u32::MAX).max_runs_expression("(").tenant_scoped().problems(),
            [
                "concurrency: expected a CEL expression that returns a string, got \"1\"",
                "concurrency: expected a maximum of 1 to 2147483647 runs, got 4294967295",
                "concurrency: expected a CEL expression, got \"(\": at character 2: expected an operand, got the end",
                "concurrency: expected max_runs or max_runs_expression, got both",
                "concurrency: expected a name for a limit that workflows share, got none",
            ]
        );
        assert_eq!(
            limit("'a'").max_runs_expression("'5'").problems(),
            ["concurrency: expected a CEL expression that returns a number, got \"'5'\""]
        );
        assert_eq!(
            limit("'a'").name(" ").problems(),
            ["concurrency: expected a non-empty name without U+0000, got \" \""]
        );
    }

    #[test]
    fn newer_options_name_their_version() {
        let texts = |limit: &Concurrency| {
            let all = limit.requirements().into_iter();
            all.map(|(option, version)| format!("{option} {version}")).collect::<Vec<_>>()
        };
        let old = Concurrency::new("'a'", ConcurrencyStrategy::CancelNewest).max_runs(3);
        assert!(texts(&old).is_empty());
        let new =
            Concurrency::new("'a'", ConcurrencyStrategy::CancelQueuedExceptOldest).max_runs_expression("2").name("n");
        assert_eq!(
            texts(&new.tenant_scoped()),
            [
                "the concurrency strategy cancel_queued_except_oldest v0.105.16",
                "max_runs_expression v0.106.5",
                "the name of a concurrency limit v0.106.5",
                "a tenant-scoped concurrency limit v0.106.5",
            ]
        );
    }
}
