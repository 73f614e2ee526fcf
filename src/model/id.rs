//! Parsing ids, and reading those that the server sends.

use std::str::FromStr;

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::value::{CronId, EventId, RunId, ScheduleId, TaskId, TenantId, WorkerId, WorkflowId, WorkflowVersionId};

macro_rules! parsed {
    ($($name:ident),*) => {$(
        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let id = text.parse::<Uuid>();
                id.map(Into::into).map_err(|_| Error::invalid(Self::KIND, format_args!("expected a UUID, got {text:?}")))
            }
        }
    )*};
}

parsed!(RunId, TaskId, WorkflowId, WorkflowVersionId, WorkerId, EventId, ScheduleId, CronId, TenantId);

/// Parses an id that the server sent.
pub(crate) fn parse_id<T: FromStr<Err = Error>>(text: &str) -> Result<T> {
    text.parse().map_err(|error: Error| error.with_kind(ErrorKind::Decode))
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
        assert_eq!(error.to_string(), "invalid run id: expected a UUID, got \"zz\"");
    }
}
