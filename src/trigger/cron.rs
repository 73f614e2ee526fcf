//! Crons: runs at recurring times.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::sleep;

use super::correlation;
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, ErrorKind, Result};
use crate::list::RunQuery;
use crate::model::metadata::Metadata;
use crate::model::payload::encode_input;
use crate::model::{CronDetails, CronId, CronSpec, Priority, RunFilter, Window, metadata};
use crate::request::{CommandBuilder, ReadBuilder};
use crate::rpc::convert::rest_events_and_crons::{CronRow, NewCron};
use crate::rpc::convert::rest_input;
use crate::run::Runnable;

/// When to check that a new cron still exists: the engine accepts an expression that it cannot parse, and deletes the cron within a
/// fraction of a second.
const CHECK_INTERVALS: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(300), Duration::from_millis(600)];

impl Client {
    /// Returns a builder for a cron; [`send`](CronBuilder::send) creates the cron.
    ///
    /// A workflow cannot have two crons with the same name and expression. For crons that belong to a definition, use
    /// [`Task::cron`](crate::Task::cron).
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, report: hatchet::Task<(), ()>) -> hatchet::Result<()> {
    /// use hatchet::model::CronSpec;
    ///
    /// let cron = hatchet.cron(&report, &(), CronSpec::new("mornings", "0 9 * * MON-FRI")).send().await?;
    /// cron.pause().send().await?;
    /// cron.resume().send().await?;
    /// cron.delete().send().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn cron<R: Runnable>(&self, workflow: &R, input: &R::Input, spec: CronSpec) -> CronBuilder<R::Output> {
        CronBuilder {
            client: self.clone(),
            workflow: workflow.workflow_name().to_owned(),
            spec,
            input: encode_input("input", input),
            metadata: Metadata::of(workflow.default_metadata()),
            priority: None,
            request: RequestOptions::default(),
            output: PhantomData,
        }
    }

    /// Returns a handle to an existing cron.
    ///
    /// Nothing is sent, so this does not check that the cron exists; the methods of the handle report a missing cron.
    pub fn cron_handle(&self, id: CronId) -> CronHandle {
        CronHandle { client: self.clone(), id, key: None, output: PhantomData }
    }
}

/// A builder for a cron; see [`Client::cron`].
///
/// [`send`](Self::send) creates the cron, enabled, with the default metadata of its workflow.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, report: hatchet::Task<(), ()>) -> hatchet::Result<()> {
/// use hatchet::Priority;
/// use hatchet::model::CronSpec;
///
/// let spec = CronSpec::new("hourly", "@hourly");
/// let cron = hatchet.cron(&report, &(), spec).metadata("tenant", "acme").priority(Priority::High).send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is created until `send` is awaited"]
pub struct CronBuilder<O> {
    client: Client,
    workflow: String,
    spec: CronSpec,
    input: Result<String>,
    metadata: Metadata,
    priority: Option<Priority>,
    request: RequestOptions,
    output: PhantomData<fn() -> O>,
}

impl<O> CronBuilder<O> {
    /// Adds a tag to the cron and its runs; see [`RunBuilder::metadata`](crate::builder::RunBuilder::metadata).
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into().into());
        self
    }

    /// Sets the priority of the runs.
    ///
    /// The default is the lowest priority, because the engine ignores the workflow's default priority for crons.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.request.retry = Some(policy);
        self
    }

    /// Creates the cron, and checks that it continues to exist.
    ///
    /// The engine accepts an expression that it cannot parse, for example one with an unknown time zone, and deletes the cron a moment
    /// later. So this method fetches the cron repeatedly for one second after its creation. If the fetch fails, the method logs a warning
    /// and returns the handle.
    ///
    /// The metadata gets an additional tag with the key `hatchet__rs_cron`, by which [`runs`](CronHandle::runs) finds the runs.
    ///
    /// # Errors
    /// [`WorkflowNotFound`](ErrorKind::WorkflowNotFound) if the server has no such workflow. [`AlreadyExists`](ErrorKind::AlreadyExists) if
    /// the workflow has a cron with the same name and expression. [`InvalidInput`](ErrorKind::InvalidInput) if the request is invalid;
    /// nothing is sent then. [`Rejected`](ErrorKind::Rejected) if the engine has deleted the cron within that second. For all other errors,
    /// the cron may have been created if [`has_no_side_effects`](Error::has_no_side_effects) returns `false`.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the cron may have been created.
    pub async fn send(self) -> Result<CronHandle<O>> {
        self.spec.check()?;
        let key = correlation::new_key();
        let (input, metadata) = (self.input?, correlation::encode(&self.metadata, correlation::CRON, &key)?);
        let raw = |text: String| RawValue::from_string(text).map_err(|error| Error::invalid("cron", error));
        let cron = NewCron {
            cron_name: self.spec.name,
            cron_expression: self.spec.expression,
            input: raw(input)?,
            additional_metadata: raw(metadata)?,
            priority: self.priority.map(Priority::number),
        };
        let client = self.client.with(self.request)?;
        let rest = &client.rpc().rest;
        let created = rest.create_cron(&self.client.prefixed(&self.workflow), &cron).await;
        let created = created.map_err(|error| with_kind(error, &self.workflow))?;
        let id = created.metadata.id;
        for interval in CHECK_INTERVALS {
            sleep(interval).await;
            match rest.cron(id).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {
                    let text = format!(
                        "the engine deleted the cron after its creation, probably because it cannot parse the expression {:?}",
                        cron.cron_expression
                    );
                    return Err(Error::new(ErrorKind::Rejected, text).without_side_effects());
                }
                // The cron was created. Without a handle, its caller could not delete it.
                Err(error) => {
                    tracing::warn!(%error, cron_id = %id, "failed to check that a new cron exists");
                    break;
                }
            }
        }
        Ok(CronHandle { id, client: self.client, key: Some(key), output: PhantomData })
    }
}

/// Sets the kind of an error that the server distinguishes only by its text.
fn with_kind(error: Error, workflow: &str) -> Error {
    let text = error.to_string();
    if text.contains("already exists") {
        error.with_kind(ErrorKind::AlreadyExists)
    } else if text.contains("workflow not found") {
        Error::workflow_not_found(workflow, error)
    } else {
        error
    }
}

/// A handle to a cron, with the type of its runs' outputs.
///
/// A handle is cheap to clone. Dropping a handle does not affect the cron.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, id: hatchet::model::CronId) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// let cron = hatchet.cron_handle(id);
/// println!("{} runs", cron.runs(Window::all()).count().await?);
/// # Ok(())
/// # }
/// ```
pub struct CronHandle<O = Value> {
    client: Client,
    id: CronId,
    /// The correlation key, if this client created the cron.
    key: Option<String>,
    output: PhantomData<fn() -> O>,
}

impl<O> CronHandle<O> {
    /// Returns the id. Another process can pass it to [`Client::cron_handle`].
    pub fn id(&self) -> CronId {
        self.id
    }

    /// Returns the client that this handle uses.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns a handle to the same cron with another output type. Nothing is sent.
    pub fn typed<T>(self) -> CronHandle<T> {
        CronHandle { client: self.client, id: self.id, key: self.key, output: PhantomData }
    }

    /// Returns a request for the details of the cron.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the cron does not exist.
    ///
    /// # Cancel safety
    /// The request is cancel safe: it only reads.
    pub fn details(&self) -> ReadBuilder<CronDetails> {
        let id = self.id;
        ReadBuilder::new(&self.client, move |client| async move { fetch(&client, id).await })
    }

    /// Returns a query for the runs that the cron has started and that were created in a time window.
    ///
    /// For a cron that was created by another SDK, these are the runs of its workflow that were started by a cron with the same name and
    /// expression.
    ///
    /// If this client did not create the cron, each page, stream or count of the query first fetches the details of the cron, and can
    /// return the errors of [`details`](Self::details).
    pub fn runs(&self, window: Window) -> RunQuery {
        let filter = RunFilter::new(window);
        if let Some(key) = &self.key {
            return self.client.runs(filter.own_metadata(correlation::CRON, key));
        }
        let id = self.id;
        self.client.runs(filter).completed_by(move |client, filter| async move {
            let cron = fetch(&client, id).await?;
            match correlation::key_of(&cron.engine_metadata, correlation::CRON) {
                Some(key) => Ok(filter.own_metadata(correlation::CRON, &key)),
                None => by_name(&client, filter, &cron).await,
            }
        })
    }

    /// Returns a command that pauses the cron. A paused cron starts no runs.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the cron does not exist.
    pub fn pause(&self) -> CommandBuilder {
        self.enable(false)
    }

    /// Returns a command that resumes the cron. The next run starts at the next time of the expression.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the cron does not exist.
    pub fn resume(&self) -> CommandBuilder {
        self.enable(true)
    }

    fn enable(&self, enabled: bool) -> CommandBuilder {
        let id = self.id;
        CommandBuilder::new(&self.client, move |client| async move { client.rpc().rest.enable_cron(id, enabled).await })
    }

    /// Returns a command that deletes the cron. Its runs are not deleted.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the cron does not exist.
    pub fn delete(&self) -> CommandBuilder {
        let id = self.id;
        CommandBuilder::new(&self.client, move |client| async move { client.rpc().rest.delete_cron(id).await })
    }
}

async fn fetch(client: &Client, id: CronId) -> Result<CronDetails> {
    Ok(details(client, client.rpc().rest.cron(id).await?))
}

/// Selects the runs with the name and the expression of a cron.
async fn by_name(client: &Client, filter: RunFilter, cron: &CronDetails) -> Result<RunFilter> {
    client.check_own(&cron.workflow_name, Some(cron.workflow_id)).await?;
    Ok(filter
        .workflow(&cron.workflow_name)
        .own_metadata("hatchet__cron_expression", &cron.expression)
        .own_metadata("hatchet__cron_name", cron.name.as_deref().unwrap_or_default()))
}

impl<O> Clone for CronHandle<O> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), id: self.id, key: self.key.clone(), output: PhantomData }
    }
}

impl<O> fmt::Debug for CronHandle<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CronHandle").field("id", &self.id).finish_non_exhaustive()
    }
}

pub(super) fn details(client: &Client, row: CronRow) -> CronDetails {
    let (user, engine) = metadata::split(row.additional_metadata.unwrap_or_default());
    CronDetails {
        id: row.metadata.id,
        name: Some(row.name).filter(|name| !name.is_empty()),
        expression: row.cron,
        is_enabled: row.enabled,
        from_definition: row.method == "DEFAULT",
        workflow_id: row.workflow_id,
        workflow_name: client.unprefixed(&row.workflow_name),
        input: rest_input(row.input.as_deref()),
        metadata: user,
        engine_metadata: engine,
        priority: row.priority.and_then(|number| Priority::try_from(number).ok()),
        created_at: row.metadata.created_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_have_a_kind() {
        let kind = |text: &str| with_kind(Error::new(ErrorKind::Rejected, text), "w").kind();
        assert_eq!(kind("cron trigger with that name-expression pair already exists"), ErrorKind::AlreadyExists);
        assert_eq!(kind("workflow not found"), ErrorKind::WorkflowNotFound);
        assert_eq!(kind("error creating cron trigger"), ErrorKind::Rejected);
    }
}
