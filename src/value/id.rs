//! Ids as newtypes, so that the id of a workflow cannot be passed for the id of a run.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $what:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// Ids are UUIDs of version 4: their order has no meaning. Parsing a string that is not a UUID fails.
        ///
        /// ```
        #[doc = concat!("use hatchet::model::", stringify!($name), ";")]
        ///
        #[doc = concat!("let id: ", stringify!($name), " = \"7c0b6d4e-9a43-4f6e-8a3b-0c6f0a3a5f11\".parse()?;")]
        /// assert_eq!(uuid::Uuid::from(id).get_version_num(), 4);
        /// # Ok::<(), hatchet::Error>(())
        /// ```
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// What messages call such an id.
            pub(crate) const KIND: &'static str = $what;
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0.as_hyphenated())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    )*};
}

ids! {
    /// The id of a run of a workflow.
    RunId, "run id";
    /// The id of a task within a run. The task of a single-task run has the id of its run.
    TaskId, "task id";
    /// The id of a workflow, in all its versions.
    WorkflowId, "workflow id";
    /// The id of one version of a workflow's definition.
    WorkflowVersionId, "workflow version id";
    /// The id of a worker. Each registration gets a new one.
    WorkerId, "worker id";
    /// The id of a pushed event.
    EventId, "event id";
    /// The id of a schedule. The run that it starts has another id.
    ScheduleId, "schedule id";
    /// The id of a cron. The runs that it starts have other ids.
    CronId, "cron id";
    /// The id of a tenant, which owns everything that a token can access.
    TenantId, "tenant id";
}

impl TaskId {
    /// Whether this is the task of a single-task run: the two have the same id.
    pub(crate) fn is_single_task_of(self, run: RunId) -> bool {
        self.0 == run.0
    }
}

impl From<RunId> for TaskId {
    /// The task of a single-task run has the id of its run.
    fn from(run: RunId) -> Self {
        Self(run.0)
    }
}
