//! What a query selects: runs or tasks that match a filter, as query parameters of the server's list.

use std::fmt;
use std::sync::Arc;

use futures_util::future::{self, BoxFuture};

use super::statuses;
use crate::client::Client;
use crate::config::RequestOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{Gate, pass};
use crate::model::{PageToken, RunFilter, RunStatus, WorkflowId};
use crate::rpc::convert::{ListRow, list_row};
use crate::rpc::convert::{Row, Rows};

/// If none of at least this many rows has a requested status, the server has ignored the filter. They cannot all have changed their
/// status at the same moment.
const MIN_ROWS_TO_CHECK: usize = 10;

/// What the rows of a list are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Runs,
    Tasks,
}

/// A filter, and what it selects.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    pub(super) client: Client,
    pub(super) filter: RunFilter,
    pub(super) kind: Kind,
    /// The statuses to select if the filter has none. Without any, all statuses are selected.
    pub(super) default_statuses: Vec<RunStatus>,
    /// The page to continue after.
    pub(super) after: Option<PageToken>,
    pub(super) request: RequestOptions,
    /// What each request must pass.
    pub(super) gate: Option<Gate>,
    /// What the filter lacks.
    pub(super) lookup: Option<Lookup>,
}

/// Completes a filter with what only the server knows.
#[derive(Clone)]
pub(super) struct Lookup(Arc<dyn Fn(Client, RunFilter) -> BoxFuture<'static, Result<RunFilter>> + Send + Sync>);

impl Lookup {
    pub(super) fn new<F>(complete: impl Fn(Client, RunFilter) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<RunFilter>> + Send + 'static,
    {
        Self(Arc::new(move |client, filter| Box::pin(complete(client, filter))))
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
    }
}

/// A selection that is ready to be requested: its options are applied, and its names are resolved.
#[derive(Debug, Clone)]
pub(super) struct ListRequest {
    pub(super) client: Client,
    pub(super) filter: RunFilter,
    pub(super) kind: Kind,
    pub(super) after: Option<PageToken>,
    /// Query parameters. They do not include the end of the time window, from which the pages begin.
    pub(super) parameters: Vec<(&'static str, String)>,
    /// Identifies the filter that the user gave, for page tokens.
    pub(super) fingerprint: u64,
    pub(super) gate: Option<Gate>,
}

impl Selection {
    pub(super) fn of_runs(client: Client, filter: RunFilter) -> Self {
        Self {
            client,
            filter,
            kind: Kind::Runs,
            default_statuses: Vec::new(),
            after: None,
            request: RequestOptions::default(),
            gate: None,
            lookup: None,
        }
    }

    /// Checks the filter and the options, and converts them.
    pub(super) async fn resolve(&self) -> Result<ListRequest> {
        let (client, mut filter) = (self.client.with(self.request)?, self.filter.clone());
        filter.check(self.kind == Kind::Tasks)?;
        if let Some(Lookup(complete)) = &self.lookup {
            filter = complete(client.clone(), filter).await?;
        }
        let mut all = vec![
            ("since", format_time(filter.window.start(client.clock().now()))),
            ("only_tasks", (self.kind == Kind::Tasks).to_string()),
            ("additional_metadata_operator", if filter.any_metadata.is_empty() { "AND" } else { "OR" }.to_owned()),
        ];
        let workflows: Vec<WorkflowId> = {
            let id = |name| client.feed().workflows.id_through(name, self.gate.as_ref());
            future::try_join_all(filter.workflows.iter().map(|name| id(name.as_str()))).await?
        };
        all.extend(workflows.iter().map(|id| ("workflow_ids", id.to_string())));
        all.extend(status_parameters(&filter.statuses));
        let tags = filter.metadata.iter().chain(&filter.any_metadata).chain(&filter.own_metadata);
        all.extend(tags.map(|(key, value)| ("additional_metadata", format!("{key}:{value}"))));
        all.extend(filter.event.map(|id| ("triggering_event_external_id", id.to_string())));
        all.extend(filter.parent.map(|id| ("parent_task_external_id", id.to_string())));
        all.extend(filter.worker.map(|id| ("worker_id", id.to_string())));
        let fingerprint = fingerprint(&all);
        if filter.statuses.is_empty() {
            filter.statuses.clone_from(&self.default_statuses);
            all.extend(status_parameters(&filter.statuses));
        }
        let after = self.after.clone();
        if after.as_ref().is_some_and(|token| token.filter != fingerprint) {
            let problem = "expected a token of a page with the same filter, got one of another filter";
            return Err(Error::invalid("page token", problem));
        }
        let gate = self.gate.clone();
        Ok(ListRequest { client, filter, kind: self.kind, after, parameters: all, fingerprint, gate })
    }
}

impl ListRequest {
    /// Whether the server's list includes rows that do not match: of other namespaces, or with other statuses.
    pub(super) fn includes_others(&self) -> bool {
        self.is_in_all_namespaces() || statuses::needs_derivation(&self.filter.statuses)
    }

    pub(super) fn is_in_all_namespaces(&self) -> bool {
        self.client.namespace().is_some() && self.filter.is_of_all_workflows()
    }

    /// Fetches rows, and checks that they match the filter: a server that does not support a criterion ignores it.
    pub(super) async fn fetch(
        &self,
        until: Option<chrono::DateTime<chrono::Utc>>,
        limit: usize,
        offset: usize,
    ) -> Result<Vec<ListRow>> {
        let mut all = self.parameters.clone();
        all.extend(until.map(|until| ("until", format_time(until))));
        all.extend([("limit", limit.to_string()), ("offset", offset.to_string())]);
        let permit = pass(self.gate.as_ref(), 1).await;
        let rows = self.client.rpc().rest.runs(&all).await?.rows.unwrap_or_default();
        drop(permit);
        let parameters = self.parameters.iter();
        let requested: Vec<_> =
            parameters.filter(|(name, _)| *name == "statuses").map(|(_, status)| status.as_str()).collect();
        // A single row may have changed its status meanwhile. It is skipped later.
        let matches = |row: &Row| requested.is_empty() || requested.contains(&row.status.as_str());
        if let Some(row) = rows.first().filter(|_| rows.len() >= MIN_ROWS_TO_CHECK && !rows.iter().any(matches)) {
            let requested = requested.join(" or ");
            let text = format!("expected rows with the status {requested} from the server, got {}", row.status);
            return Err(Error::new(ErrorKind::Server, text));
        }
        rows.into_iter().map(|row| list_row(row, self.kind == Kind::Tasks, self.client.namespace())).collect()
    }

    /// The server's count of the rows: the number of pages if a page has one row.
    pub(super) async fn count(&self) -> Result<u64> {
        let mut all = self.parameters.clone();
        all.extend(self.filter.window.end().map(|until| ("until", format_time(until))));
        all.extend([("limit", "1".to_owned()), ("offset", "0".to_owned())]);
        let Rows { pagination, .. } = self.client.rpc().rest.runs(&all).await?;
        Ok(u64::try_from(pagination.num_pages).unwrap_or(0))
    }

    /// The parameters that counts by status support.
    pub(super) fn parameters_for_counts(&self) -> Vec<(&'static str, String)> {
        let supported =
            ["since", "workflow_ids", "additional_metadata", "triggering_event_external_id", "parent_task_external_id"];
        let until = self.filter.window.end().map(|until| ("until", format_time(until)));
        self.parameters.iter().filter(|(name, _)| supported.contains(name)).cloned().chain(until).collect()
    }
}

fn status_parameters(statuses: &[RunStatus]) -> impl Iterator<Item = (&'static str, String)> + use<> {
    statuses::requested(statuses).into_iter().map(|status| ("statuses", status.as_str().to_owned()))
}

/// Identifies a filter by its parameters. The start of its time window is not included, because it may be relative to now.
pub(crate) fn fingerprint(parameters: &[(&'static str, String)]) -> u64 {
    // FNV-1a, which is the same in each process and version.
    let bytes = parameters
        .iter()
        .filter(|(name, _)| *name != "since")
        .flat_map(|(name, value)| [*name, value.as_str(), "&"])
        .flat_map(str::bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn format_time(at: chrono::DateTime<chrono::Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}
