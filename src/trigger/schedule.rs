//! Schedules: single runs at a time in the future.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;
use tokio::time::Instant;

use super::correlation;
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, ErrorKind, Result};
use crate::model::metadata::Metadata;
use crate::model::payload::encode_input;
use crate::model::{Priority, RunFilter, ScheduleDetails, ScheduleId, metadata};
use crate::observe::if_found;
use crate::request::{CommandBuilder, ReadBuilder};
use crate::rpc::convert::rest_events_and_crons::ScheduleRow;
use crate::rpc::convert::rest_input;
use crate::run::{RunHandle, Runnable};
use crate::time::is_representable;
use crate::transport::Polling;

/// How long to wait for the run of a schedule that the engine has deleted.
const RUN_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

impl Client {
    /// Returns a builder for a run at a time in the future; [`send`](ScheduleBuilder::send) creates the schedule.
    ///
    /// If the time has passed, the run starts immediately. The engine checks schedules every few seconds. Times have millisecond
    /// precision on the server.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, remind: hatchet::Task<(), ()>) -> hatchet::Result<()> {
    /// let morning = "2027-01-01T09:00:00Z".parse().expect("a time");
    /// let schedule = hatchet.schedule(&remind, &(), morning).metadata("tenant", "acme").send().await?;
    /// schedule.delete().send().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn schedule<R: Runnable>(
        &self,
        workflow: &R,
        input: &R::Input,
        at: DateTime<Utc>,
    ) -> ScheduleBuilder<R::Output> {
        ScheduleBuilder {
            client: self.clone(),
            workflow: workflow.workflow_name().to_owned(),
            input: encode_input("input", input),
            at,
            metadata: Metadata::of(workflow.default_metadata()),
            priority: None,
            request: RequestOptions::default(),
            output: PhantomData,
        }
    }

    /// Returns a handle to an existing schedule.
    ///
    /// Nothing is sent, so this does not check that the schedule exists; the methods of the handle report a missing schedule.
    pub fn schedule_handle(&self, id: ScheduleId) -> ScheduleHandle {
        ScheduleHandle { client: self.clone(), id, created: None, output: PhantomData }
    }
}

/// A builder for a schedule; see [`Client::schedule`].
///
/// [`send`](Self::send) creates the schedule, with the default metadata of its workflow.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, remind: hatchet::Task<(), ()>) -> hatchet::Result<()> {
/// use std::time::{Duration, SystemTime};
///
/// let in_an_hour = (SystemTime::now() + Duration::from_secs(3600)).into();
/// let schedule = hatchet.schedule(&remind, &(), in_an_hour).send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is created until `send` is awaited"]
pub struct ScheduleBuilder<O> {
    client: Client,
    workflow: String,
    input: Result<String>,
    at: DateTime<Utc>,
    metadata: Metadata,
    priority: Option<Priority>,
    request: RequestOptions,
    output: PhantomData<fn() -> O>,
}

impl<O> ScheduleBuilder<O> {
    /// Adds a tag to the schedule and its run; see [`RunBuilder::metadata`](crate::builder::RunBuilder::metadata).
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into().into());
        self
    }

    /// Sets the priority of the run.
    ///
    /// The default is the lowest priority, because the engine ignores the workflow's default priority for schedules.
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

    /// Creates the schedule.
    ///
    /// The engine does not link the run to its schedule. So the metadata gets an additional tag with the key `hatchet__rs_schedule` and a
    /// unique value, by which [`run`](ScheduleHandle::run) finds the run. The tag is in the run's
    /// [`engine_metadata`](crate::model::RunDetails::engine_metadata).
    ///
    /// # Errors
    /// [`WorkflowNotFound`](ErrorKind::WorkflowNotFound) if the server has no such workflow. [`InvalidInput`](ErrorKind::InvalidInput) or
    /// [`TooLarge`](ErrorKind::TooLarge) if the request is invalid or too large; nothing is sent then. For all other errors, the schedule
    /// may have been created if [`has_no_side_effects`](Error::has_no_side_effects) returns `false`.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the schedule may have been created.
    pub async fn send(self) -> Result<ScheduleHandle<O>> {
        check(self.at)?;
        let key = correlation::new_key();
        let (input, metadata) = (self.input?, correlation::encode(&self.metadata, correlation::SCHEDULE, &key)?);
        let (name, now) = (self.client.prefixed(&self.workflow), self.client.clock().now());
        let client = self.client.with(self.request)?;
        let created = client.rpc().workflows.schedule(name, self.at, input, metadata, self.priority).await;
        let id = created.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::workflow_not_found(&self.workflow, error),
            _ => error,
        })?;
        Ok(ScheduleHandle { id, client: self.client, created: Some((key, now)), output: PhantomData })
    }
}

fn check(at: DateTime<Utc>) -> Result<()> {
    if is_representable(&at) {
        return Ok(());
    }
    Err(Error::invalid("schedule", format_args!("expected a time in the years 1 to 9999, got {at}")))
}

/// A handle to a schedule, with the type of its run's output.
///
/// A handle is cheap to clone. Dropping a handle does not affect the schedule.
///
/// The engine deletes a schedule when it starts the run.
///
/// ```no_run
/// # async fn example(schedule: hatchet::handle::ScheduleHandle<String>) -> hatchet::Result<()> {
/// match schedule.run().await? {
///     Some(run) => println!("started: {}", run.result().await?),
///     None => println!("scheduled at {}", schedule.details().await?.scheduled_at),
/// }
/// # Ok(())
/// # }
/// ```
pub struct ScheduleHandle<O = Value> {
    client: Client,
    id: ScheduleId,
    /// The correlation key and the time, if this client created the schedule.
    created: Option<(String, DateTime<Utc>)>,
    output: PhantomData<fn() -> O>,
}

impl<O> ScheduleHandle<O> {
    /// Returns the id of the schedule. The run has another id.
    pub fn id(&self) -> ScheduleId {
        self.id
    }

    /// Returns the client that this handle uses.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns a handle to the same schedule with another output type. Nothing is sent.
    pub fn typed<T>(self) -> ScheduleHandle<T> {
        ScheduleHandle { client: self.client, id: self.id, created: self.created, output: PhantomData }
    }

    /// Returns the correlation key of the schedule, which is also the [`key`](crate::model::ScheduleTrigger::key) of the run's trigger, or
    /// `None` if the handle was created from an id.
    pub fn key(&self) -> Option<&str> {
        self.created.as_ref().map(|(key, _)| key.as_str())
    }

    /// Returns a request for the details of the schedule.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the schedule has started its run or was deleted.
    ///
    /// # Cancel safety
    /// The request is cancel safe: it only reads.
    pub fn details(&self) -> ReadBuilder<ScheduleDetails> {
        let id = self.id;
        ReadBuilder::new(&self.client, move |client| async move { fetch(&client, id).await })
    }

    /// Returns a command that moves the schedule to another time.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the schedule has started its run or was deleted.
    pub fn reschedule(&self, at: DateTime<Utc>) -> CommandBuilder<ScheduleDetails> {
        let id = self.id;
        CommandBuilder::new(&self.client, move |client| async move {
            check(at)?;
            // In UTC, because the server ignores other zones.
            let at = at.to_rfc3339_opts(SecondsFormat::Millis, true);
            let moved = client.rpc().rest.reschedule(id, &at).await;
            Ok(details(&client, moved.map_err(|error| not_found(id, error))?))
        })
    }

    /// Returns a command that deletes the schedule.
    ///
    /// The command also succeeds if the schedule does not exist; [`run`](Self::run) reports whether the schedule has started its run.
    ///
    /// # Errors
    /// The errors of [`CommandBuilder::send`](crate::builder::CommandBuilder::send). A schedule that does not exist is not an error.
    pub fn delete(&self) -> CommandBuilder {
        let id = self.id;
        CommandBuilder::new(&self.client, move |client| async move { client.rpc().rest.delete_schedule(id).await })
    }

    /// Returns a request for the run that the schedule started.
    ///
    /// The result is `None` if the schedule has not started its run yet, or was deleted.
    ///
    /// If the schedule no longer exists, the request waits up to ten seconds for the run, because the engine's history lags by up to eight
    /// seconds under load.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for a handle that was created from an id, if the schedule no longer exists, because such a handle
    /// cannot find the run. Keep the original handle, or search for the run by a tag.
    ///
    /// # Cancel safety
    /// The request is cancel safe: it only reads.
    pub fn run(&self) -> ReadBuilder<Option<RunHandle<O>>> {
        let (id, created) = (self.id, self.created.clone());
        ReadBuilder::new(&self.client, move |client| async move {
            match created {
                Some((key, created_at)) => find_run(&client, id, &key, created_at).await,
                // A schedule that exists has not started its run.
                None => fetch(&client, id).await.map(|_| None),
            }
        })
    }
}

async fn fetch(client: &Client, id: ScheduleId) -> Result<ScheduleDetails> {
    let row = client.rpc().rest.schedule(id).await.map_err(|error| not_found(id, error))?;
    Ok(details(client, row))
}

/// Finds the run of a schedule by its correlation key.
async fn find_run<O>(
    client: &Client,
    schedule: ScheduleId,
    key: &str,
    created_at: DateTime<Utc>,
) -> Result<Option<RunHandle<O>>> {
    let since = correlation::since(created_at);
    let query = client.runs(RunFilter::new(since).own_metadata(correlation::SCHEDULE, key));
    let mut polling = None;
    loop {
        if let Some(run) = query.newest(1).await?.into_iter().next() {
            return Ok(Some(client.without_options().run_handle(run.id).typed()));
        }
        let polling = match &mut polling {
            Some(polling) => polling,
            None if if_found(client.rpc().rest.schedule(schedule).await)?.is_some() => return Ok(None),
            none => none.insert(Polling::every(POLL_INTERVAL, Instant::now() + RUN_TIMEOUT)),
        };
        if !polling.again().await {
            return Ok(None);
        }
    }
}

fn not_found(schedule: ScheduleId, error: Error) -> Error {
    if !error.is_not_found() {
        return error;
    }
    let text = format!("the server has no schedule {schedule}: it has started its run, or was deleted");
    Error::new(ErrorKind::NotFound, text).with_source(error).without_side_effects()
}

impl<O> Clone for ScheduleHandle<O> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), id: self.id, created: self.created.clone(), output: PhantomData }
    }
}

impl<O> fmt::Debug for ScheduleHandle<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScheduleHandle").field("id", &self.id).finish_non_exhaustive()
    }
}

pub(super) fn details(client: &Client, row: ScheduleRow) -> ScheduleDetails {
    let (user, engine) = metadata::split(row.additional_metadata.unwrap_or_default());
    ScheduleDetails {
        id: row.metadata.id,
        workflow_id: row.workflow_id,
        workflow_name: client.unprefixed(&row.workflow_name),
        scheduled_at: row.trigger_at,
        input: rest_input(row.input.as_deref()),
        metadata: user,
        engine_metadata: engine,
        priority: row.priority.and_then(|number| Priority::try_from(number).ok()),
        created_at: row.metadata.created_at,
    }
}
