//! Concurrency limits of definitions.

use super::cel::Cel;

/// Limits how many runs of a workflow, or attempts of a task, have a slot at the same time. Each key has slots of its own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Concurrency {
    /// The key.
    pub(crate) expression: Cel,
    pub(crate) max_runs: Option<i32>,
    /// The number of runs of a key, by its newest one.
    pub(crate) max_runs_expression: Option<Cel>,
    pub(crate) name: Option<String>,
    /// Whether all tasks that have a limit with this name share it.
    pub(crate) is_tenant_scoped: bool,
    pub(crate) strategy: Option<LimitStrategy>,
    /// The name of a field that was set and that this version of the engine does not know.
    pub(crate) unknown_field: Option<&'static str>,
}

impl Concurrency {
    /// The name of a tenant-scoped limit.
    pub(crate) fn shared_name(&self) -> Option<&str> {
        self.name.as_deref().filter(|_| self.is_tenant_scoped)
    }
}

/// What happens to those that exceed a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitStrategy {
    /// The newest have the slots. All others are cancelled.
    CancelInProgress,
    /// Those that have slots keep them. All others are cancelled.
    CancelNewest,
    /// They wait.
    GroupRoundRobin,
    /// The newest wait, as many as have slots. The others are cancelled.
    CancelQueuedExceptNewest,
    /// The oldest wait, as many as have slots. The others are cancelled.
    CancelQueuedExceptOldest,
}

impl LimitStrategy {
    /// Its name in the contract.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CancelInProgress => "CANCEL_IN_PROGRESS",
            Self::CancelNewest => "CANCEL_NEWEST",
            Self::GroupRoundRobin => "GROUP_ROUND_ROBIN",
            Self::CancelQueuedExceptNewest => "CANCEL_QUEUED_EXCEPT_NEWEST",
            Self::CancelQueuedExceptOldest => "CANCEL_QUEUED_EXCEPT_OLDEST",
        }
    }
}
