//! Queries for schedules and crons.

use std::time::Duration;

use super::{cron, schedule};
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, Result};
use crate::model::metadata::check_key;
use crate::model::{CronDetails, ScheduleDetails};

impl Client {
    /// Returns a query for the schedules that have not started their runs.
    ///
    /// If the client has a [namespace](crate::config::ConfigBuilder::namespace), only schedules of workflows in that namespace match.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// for schedule in hatchet.schedules().workflow("remind").get().await? {
    ///     println!("{} at {}", schedule.id, schedule.scheduled_at);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn schedules(&self) -> ScheduleQuery {
        ScheduleQuery { client: self.clone(), filter: Filter::default() }
    }

    /// Returns a query for crons, including those of definitions.
    ///
    /// If the client has a [namespace](crate::config::ConfigBuilder::namespace), only crons of workflows in that namespace match.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// for cron in hatchet.crons().workflow("report").get().await? {
    ///     println!("{} {}", cron.expression, if cron.is_enabled { "" } else { "(paused)" });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn crons(&self) -> CronQuery {
        CronQuery { client: self.clone(), filter: Filter::default() }
    }
}

/// The options that both queries have in common.
#[derive(Debug, Clone, Default)]
struct Filter {
    workflow: Option<String>,
    metadata: Vec<(String, String)>,
    request: RequestOptions,
}

impl Filter {
    async fn parameters(&self, client: &Client) -> Result<Vec<(&'static str, String)>> {
        for (key, value) in &self.metadata {
            check_key(key)?;
            // The server splits at each colon.
            if value.contains(':') {
                return Err(Error::invalid("filter", format_args!("expected a value without a colon, got {value:?}")));
            }
        }
        let mut all: Vec<_> =
            self.metadata.iter().map(|(key, value)| ("additionalMetadata", format!("{key}:{value}"))).collect();
        if let Some(workflow) = &self.workflow {
            all.push(("workflowId", client.feed().workflows.id_of(workflow).await?.to_string()));
        }
        Ok(all)
    }
}

/// A query for schedules; see [`Client::schedules`].
///
/// [`get`](Self::get) sends it. By default, the schedules of all workflows match.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// let of_acme = hatchet.schedules().metadata("tenant", "acme").get().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until `get` is awaited"]
pub struct ScheduleQuery {
    client: Client,
    filter: Filter,
}

impl ScheduleQuery {
    /// Matches only schedules of this workflow. If this method is called several times, the last workflow applies.
    pub fn workflow(mut self, name: impl Into<String>) -> Self {
        self.filter.workflow = Some(name.into());
        self
    }

    /// Matches only schedules with this tag.
    ///
    /// The value must not contain a colon. If this method is called several times, schedules with all of the tags match.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.filter.metadata.push((key.into(), value.into()));
        self
    }

    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.filter.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.filter.request.retry = Some(policy);
        self
    }

    /// Returns all matching schedules. The request reads them page by page.
    ///
    /// # Errors
    /// [`WorkflowNotFound`](crate::ErrorKind::WorkflowNotFound) if the server has no such workflow.
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the server would misinterpret a tag.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn get(self) -> Result<Vec<ScheduleDetails>> {
        let client = self.client.with(self.filter.request)?;
        let parameters = self.filter.parameters(&client).await?;
        let rows = client.rpc().rest.schedules(&parameters).await?;
        let own = rows.into_iter().filter(|row| client.is_own(&row.workflow_name));
        Ok(own.map(|row| schedule::details(&self.client, row)).collect())
    }
}

/// A query for crons; see [`Client::crons`].
///
/// [`get`](Self::get) sends it. By default, the crons of all workflows match.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// let of_acme = hatchet.crons().metadata("tenant", "acme").get().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until `get` is awaited"]
pub struct CronQuery {
    client: Client,
    filter: Filter,
}

impl CronQuery {
    /// Matches only crons of this workflow. If this method is called several times, the last workflow applies.
    pub fn workflow(mut self, name: impl Into<String>) -> Self {
        self.filter.workflow = Some(name.into());
        self
    }

    /// Matches only crons with this tag.
    ///
    /// The value must not contain a colon. If this method is called several times, crons with all of the tags match.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.filter.metadata.push((key.into(), value.into()));
        self
    }

    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.filter.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.filter.request.retry = Some(policy);
        self
    }

    /// Returns all matching crons. The request reads them page by page.
    ///
    /// # Errors
    /// [`WorkflowNotFound`](crate::ErrorKind::WorkflowNotFound) if the server has no such workflow.
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the server would misinterpret a tag.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn get(self) -> Result<Vec<CronDetails>> {
        let client = self.client.with(self.filter.request)?;
        let parameters = self.filter.parameters(&client).await?;
        let rows = client.rpc().rest.crons(&parameters).await?;
        let own = rows.into_iter().filter(|row| client.is_own(&row.workflow_name));
        Ok(own.map(|row| cron::details(&self.client, row)).collect())
    }
}
