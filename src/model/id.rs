//! Identifiers as types of their own, so that a workflow's id cannot be passed where a run's belongs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Error;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $what:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// A UUID (version 4, so its own order means nothing). Parsing checks the form before anything is sent.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                text.parse().map(Self).map_err(|_| Error::invalid($what, format_args!("found {text:?}, accepted: a UUID")))
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
    /// Names a run of a workflow.
    RunId, "run id";
    /// Names a task within a run. The task of a one-task run has the id of its run.
    TaskId, "task id";
    /// Names a workflow, in all its versions.
    WorkflowId, "workflow id";
    /// Names one version of a workflow's definition.
    WorkflowVersionId, "workflow version id";
    /// Names a worker; each registration gets a new one.
    WorkerId, "worker id";
    /// Names an event that was pushed.
    EventId, "event id";
    /// Names a schedule, which is not the run that it starts.
    ScheduleId, "schedule id";
    /// Names a cron, which is none of the runs that it starts.
    CronId, "cron id";
    /// Names a tenant: the owner of everything that a token can see.
    TenantId, "tenant id";
}

/// Ids that are compared with texts.
macro_rules! compared {
    ($($name:ident),*) => {$(
        impl $name {
            /// Whether a text names this.
            pub(crate) fn is(self, text: &str) -> bool {
                self.0.as_hyphenated().encode_lower(&mut [0; uuid::fmt::Hyphenated::LENGTH]) == text
            }
        }
    )*};
}

compared!(RunId, TaskId);

impl WorkerId {
    pub(crate) const fn as_uuid(self) -> Uuid {
        self.0
    }
}

#[cfg(feature = "embedded")]
impl TenantId {
    pub(crate) const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl TaskId {
    /// The run that a task is, if it is the task of a one-task run: those have the same id.
    pub(crate) fn is_of_its_own(self, run: RunId) -> bool {
        self.0 == run.0
    }
}

impl From<RunId> for TaskId {
    /// The task of a one-task run has the id of its run.
    fn from(run: RunId) -> Self {
        Self(run.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uuids_are_ids() {
        let id: RunId = "00000000-0000-4000-8001-000000000001".parse().unwrap();
        assert_eq!(id.to_string(), "00000000-0000-4000-8001-000000000001");
        assert_eq!(format!("{id:?}"), "RunId(00000000-0000-4000-8001-000000000001)");
        let error = "zz".parse::<RunId>().unwrap_err();
        assert_eq!(error.to_string(), "invalid run id: found \"zz\", accepted: a UUID");
    }
}
