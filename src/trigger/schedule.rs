//! Runs at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::mark;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::metadata::Metadata;
use crate::model::payload::encode_input;
use crate::model::{Payload, Priority, ScheduleId, WorkflowId, convert, metadata};
use crate::rpc::trigger_types::ScheduleRow;
use crate::run::{RunHandle, Runnable};
use crate::time::is_sane;

/// How long the run of a schedule that is gone is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

impl Client {
    /// Prepares a run at a time; [`create`](ScheduleBuilder::create) makes the schedule.
    ///
    /// A time that has passed starts it at once; the engine looks every few seconds. Times are kept to the millisecond.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, remind: hatchet::Task<(), ()>) -> hatchet::Result<()> {
    /// let morning = "2027-01-01T09:00:00Z".parse().expect("a time");
    /// let schedule = hatchet.schedule(&remind, &(), morning).metadata("tenant", "acme").create().await?;
    /// schedule.delete().await?;
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
            metadata: Metadata::default(),
            priority: None,
            output: PhantomData,
        }
    }

    /// A handle on a schedule that was made before. No round trip: whether it is still to come, shows when it is asked for
    /// something.
    pub fn schedule_handle<O>(&self, id: ScheduleId) -> ScheduleHandle<O> {
        ScheduleHandle { client: self.clone(), id, made: None, output: PhantomData }
    }
}

/// A schedule that is about to be made.
#[derive(Debug)]
#[must_use = "nothing is scheduled before `create`"]
pub struct ScheduleBuilder<O> {
    client: Client,
    workflow: String,
    input: Result<String>,
    at: DateTime<Utc>,
    metadata: Metadata,
    priority: Option<Priority>,
    output: PhantomData<fn() -> O>,
}

impl<O> ScheduleBuilder<O> {
    /// Tags the schedule and its run; see [`RunBuilder::metadata`](crate::RunBuilder::metadata).
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into().into());
        self
    }

    /// How urgent the run is. Without it, the lowest: the engine does not look at the workflow's default here.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Makes the schedule.
    ///
    /// The engine links nothing from a run to its schedule, so the metadata gets a key of this crate, `hatchet__rs_schedule`,
    /// with a value that no other has. [`run`](ScheduleHandle::run) finds the run by it; it is in the run's
    /// [`engine_metadata`](crate::RunDetails::engine_metadata).
    ///
    /// # Errors
    /// [`WorkflowNotFound`](ErrorKind::WorkflowNotFound); [`InvalidInput`](ErrorKind::InvalidInput) and
    /// [`TooLarge`](ErrorKind::TooLarge) before anything is sent. For any other, ask
    /// [`never_reached_server`](Error::never_reached_server): if it is `false`, the schedule may have been created.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the schedule may have been created.
    pub async fn create(self) -> Result<ScheduleHandle<O>> {
        check(self.at)?;
        let mark = mark::fresh();
        let (input, metadata) = (self.input?, mark::encode(&self.metadata, mark::SCHEDULE, &mark)?);
        let (name, now) = (self.client.prefixed(&self.workflow), self.client.clock().now());
        let priority = self.priority.map(Priority::number);
        let made = self.client.rpc().workflows.schedule(name, self.at, input, metadata, priority).await;
        let id = made.map_err(|error| match error.kind() {
            ErrorKind::NotFound => error.with_kind(ErrorKind::WorkflowNotFound).unsent(),
            _ => error,
        })?;
        Ok(ScheduleHandle { id: convert::id(&id)?, client: self.client, made: Some((mark, now)), output: PhantomData })
    }
}

fn check(at: DateTime<Utc>) -> Result<()> {
    if is_sane(&at) {
        return Ok(());
    }
    Err(Error::invalid("schedule", format_args!("found the time {at}, accepted: years 1 to 9999")))
}

/// A schedule, and the type of what its run ends with. Cheap to clone; dropping it does nothing to the schedule.
///
/// As soon as its time has come, the engine forgets the schedule.
pub struct ScheduleHandle<O = Value> {
    client: Client,
    id: ScheduleId,
    /// The mark of one that this handle's client made, and when it did.
    made: Option<(String, DateTime<Utc>)>,
    output: PhantomData<fn() -> O>,
}

/// All that is known about a schedule.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ScheduleDetails {
    /// The schedule.
    pub id: ScheduleId,
    /// Its workflow.
    pub workflow: WorkflowId,
    /// The workflow's name, without the namespace.
    pub workflow_name: String,
    /// When the run is to be started.
    pub at: DateTime<Utc>,
    /// What it is to be started with.
    pub input: Payload,
    /// The user's metadata.
    pub metadata: BTreeMap<String, Value>,
    /// The keys that this crate added.
    pub engine_metadata: BTreeMap<String, Value>,
    /// How urgent the run will be.
    pub priority: Option<Priority>,
    /// When the schedule was made, by the engine's clock.
    pub created_at: Option<DateTime<Utc>>,
}

impl<O> ScheduleHandle<O> {
    /// The schedule's id. It is not the id of its run.
    pub fn id(&self) -> ScheduleId {
        self.id
    }

    /// The client that it is asked through.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What its run is known by: the [`key`](crate::ScheduleTrigger::key) of the run's trigger. None for a handle that was made
    /// from an id.
    pub fn key(&self) -> Option<&str> {
        self.made.as_ref().map(|(mark, _)| mark.as_str())
    }

    /// When it is to start its run, with what, and who made it.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if it has started its run, or was deleted.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn details(&self) -> Result<ScheduleDetails> {
        details(
            &self.client,
            self.client.rpc().rest.schedule(&self.id.to_string()).await.map_err(|error| self.gone(error))?,
        )
    }

    /// Moves it to another time.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if it has started its run, or was deleted.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the schedule may have been moved.
    pub async fn reschedule(&self, at: DateTime<Utc>) -> Result<ScheduleDetails> {
        check(at)?;
        // In UTC: of any other zone the server keeps the digits and drops the rest.
        let at = at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let moved = self.client.rpc().rest.reschedule(&self.id.to_string(), &at).await;
        details(&self.client, moved.map_err(|error| self.gone(error))?)
    }

    /// Deletes the schedule. Succeeds if it is already gone; [`run`](Self::run) reports whether it has started its run.
    ///
    /// # Errors
    /// Those of the connection.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the schedule may have been deleted.
    pub async fn delete(&self) -> Result<()> {
        self.client.rpc().rest.delete_schedule(&self.id.to_string()).await
    }

    /// The run that it has started; none before its time, and none if it was deleted.
    ///
    /// A run whose schedule is gone is waited for, up to ten seconds: under load, the server's history lags by up to eight.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for a handle that was made from an id, when the schedule is gone: then nothing leads
    /// to its run. Keep the handle, or look for a metadata tag of your own.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn run(&self) -> Result<Option<RunHandle<O>>> {
        let Some((mark, made)) = &self.made else {
            // Only as long as the schedule is there does it tell; and then it has not started its run.
            return self.details().await.map(|_| None);
        };
        let query = mark::runs(&self.client, mark::since(*made), mark::SCHEDULE, mark);
        let mut deadline = None;
        loop {
            if let Some(run) = query.newest().await? {
                return Ok(Some(self.client.run_handle(run.id)));
            }
            let deadline = match deadline {
                Some(deadline) => deadline,
                None => match self.client.rpc().rest.schedule(&self.id.to_string()).await {
                    Ok(_) => return Ok(None),
                    Err(error) if error.is_not_found() => *deadline.insert(Instant::now() + PATIENCE),
                    Err(error) => return Err(error),
                },
            };
            if Instant::now() >= deadline {
                return Ok(None);
            }
            sleep(PAUSE).await;
        }
    }

    fn gone(&self, error: Error) -> Error {
        if !error.is_not_found() {
            return error;
        }
        let text = format!("the server has no schedule {}: it has started its run, or was deleted", self.id);
        Error::new(ErrorKind::NotFound, text).with_source(error).unsent()
    }
}

impl<O> Clone for ScheduleHandle<O> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), id: self.id, made: self.made.clone(), output: PhantomData }
    }
}

impl<O> fmt::Debug for ScheduleHandle<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScheduleHandle").field("id", &self.id).finish_non_exhaustive()
    }
}

pub(super) fn details(client: &Client, row: ScheduleRow) -> Result<ScheduleDetails> {
    let (user, engine) = metadata::split(row.additional_metadata.unwrap_or_default());
    Ok(ScheduleDetails {
        id: convert::id(&row.metadata.id)?,
        workflow: convert::id(&row.workflow_id)?,
        workflow_name: client.unprefixed(&row.workflow_name),
        at: row.trigger_at,
        input: convert::rest::input(row.input.as_deref()),
        metadata: user,
        engine_metadata: engine,
        priority: row.priority.and_then(|number| Priority::try_from(number).ok()),
        created_at: row.metadata.created_at,
    })
}
