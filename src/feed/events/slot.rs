//! The notifications of a run that wait for its watch: at most the last of each kind, however rarely they are taken.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use crate::model::{RunId, RunStatus, TaskId};
use crate::rpc::convert::Row;
use crate::sync::lock;

/// The notifications of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Notifications {
    /// The first task whose creation was announced.
    pub(crate) created: Option<(TaskId, Option<DateTime<Utc>>)>,
    /// Whether the end of a task or of the run was announced.
    pub(crate) has_changed: bool,
    pub(crate) listing: Option<Listing>,
    /// Whether events may have been lost before a list.
    pub(crate) was_lost: bool,
}

/// What a list of tasks that have not ended says about a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Listing {
    /// All of its tasks that are running, and those that are queued if the list has them.
    Rows { rows: Vec<TaskRow>, with_queued: bool },
    /// The list was too long to contain all runs.
    Unknown,
    /// There is no list: REST has not responded, or the client is closed.
    Failed,
}

/// A task in a list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TaskRow {
    pub(crate) run: RunId,
    pub(crate) task: TaskId,
    pub(crate) attempt: u32,
    pub(crate) status: RunStatus,
    pub(crate) created_at: Option<DateTime<Utc>>,
    pub(crate) started_at: Option<DateTime<Utc>>,
}

impl From<Row> for TaskRow {
    fn from(row: Row) -> Self {
        Self {
            run: row.workflow_run_external_id,
            task: row.task_external_id.unwrap_or_else(|| row.workflow_run_external_id.into()),
            attempt: row.attempt.or(row.retry_count.map(crate::model::attempt_number)).unwrap_or(1),
            status: row.status,
            created_at: row.metadata.created_at.or(row.created_at),
            started_at: row.started_at,
        }
    }
}

impl Notifications {
    pub(crate) fn is_empty(&self) -> bool {
        self.created.is_none() && !self.has_changed && self.listing.is_none()
    }
}

/// The place where the notifications of a run wait for a watch.
#[derive(Debug, Default)]
pub(super) struct Slot {
    notifications: Mutex<Notifications>,
    notify: Notify,
    /// Whether it has received a list.
    was_listed: AtomicBool,
}

impl Slot {
    pub(super) fn with(notifications: Notifications) -> Self {
        Self { notifications: Mutex::new(notifications), ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Notifications> {
        lock(&self.notifications)
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Notifications)) {
        change(&mut self.lock());
        self.notify.notify_one();
    }

    /// Passes on what a list shows of the run.
    pub(super) fn list(&self, listing: Listing, is_after_loss: bool) {
        self.was_listed.store(true, Relaxed);
        self.update(|notifications| {
            notifications.listing = Some(listing);
            notifications.was_lost |= is_after_loss;
        });
    }

    pub(super) fn was_listed(&self) -> bool {
        self.was_listed.load(Relaxed)
    }

    pub(super) fn has_notifications(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Takes the notifications, if there are any.
    pub(super) fn take(&self) -> Option<Notifications> {
        Some(std::mem::take(&mut *self.lock())).filter(|notifications| !notifications.is_empty())
    }

    /// Waits until there may be notifications. Cancel safe.
    pub(super) async fn changed(&self) {
        self.notify.notified().await;
    }
}
