//! Runs again and again.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::sleep;

use super::mark;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::list::RunQuery;
use crate::model::cron::{Problem, Schedule};
use crate::model::metadata::Metadata;
use crate::model::payload::{encode_input, excerpt};
use crate::model::{CronId, Payload, Priority, Window, WorkflowId, convert, metadata};
use crate::rpc::trigger_types::{CronRow, NewCron};
use crate::run::Runnable;

/// The server accepts a cron that it cannot read, and drops it within a fraction of a second.
const LOOKS: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(300), Duration::from_millis(600)];

impl Client {
    /// Prepares a cron; [`create`](CronBuilder::create) makes it. Its name and its expression together must be new to the
    /// workflow.
    ///
    /// Expressions have five fields (minute, hour, day, month, weekday, where Sunday is 0), or six with seconds first, or are
    /// one of `@yearly`, `@monthly`, `@weekly`, `@daily` and `@hourly`, or `@every 90s`. Times are UTC unless the expression
    /// begins with `TZ=Europe/Oslo ` or the like. Crons that belong to a task's definition are [`Task::cron`](crate::Task::cron).
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, report: hatchet::Task<(), ()>) -> hatchet::Result<()> {
    /// let cron = hatchet.cron(&report, "mornings", "0 9 * * MON-FRI", &()).create().await?;
    /// cron.pause().await?;
    /// cron.resume().await?;
    /// cron.delete().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn cron<R: Runnable>(
        &self,
        workflow: &R,
        name: impl Into<String>,
        expression: impl Into<String>,
        input: &R::Input,
    ) -> CronBuilder<R::Output> {
        CronBuilder {
            client: self.clone(),
            workflow: workflow.workflow_name().to_owned(),
            name: name.into(),
            expression: expression.into(),
            input: encode_input("input", input),
            metadata: Metadata::default(),
            priority: None,
            output: PhantomData,
        }
    }

    /// A handle on a cron that was made before. No round trip: whether it exists, shows when it is asked for something.
    pub fn cron_handle<O>(&self, id: CronId) -> CronHandle<O> {
        CronHandle { client: self.clone(), id, mark: None, output: PhantomData }
    }
}

/// A cron that is about to be made.
#[derive(Debug)]
#[must_use = "there is no cron before `create`"]
pub struct CronBuilder<O> {
    client: Client,
    workflow: String,
    name: String,
    expression: String,
    input: Result<String>,
    metadata: Metadata,
    priority: Option<Priority>,
    output: PhantomData<fn() -> O>,
}

impl<O> CronBuilder<O> {
    /// Tags the cron and its runs; see [`RunBuilder::metadata`](crate::RunBuilder::metadata).
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into().into());
        self
    }

    /// How urgent the runs are. Without it, the lowest: the engine does not look at the workflow's default here.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Makes the cron, and sees that it stays.
    ///
    /// The server takes an expression that it cannot read, such as one of an unknown time zone, and drops the cron a moment
    /// later. So it is looked at for a second after it was made.
    ///
    /// The metadata gets a key of this crate, `hatchet__rs_cron`, by which [`runs`](CronHandle::runs) finds its runs.
    ///
    /// # Errors
    /// [`WorkflowNotFound`](ErrorKind::WorkflowNotFound); [`AlreadyExists`](ErrorKind::AlreadyExists) for a name and
    /// expression that the workflow has a cron of; [`InvalidInput`](ErrorKind::InvalidInput) for what can be seen to be wrong
    /// before anything is sent; [`Rejected`](ErrorKind::Rejected) for an expression that the server has dropped. For any other,
    /// ask [`never_reached_server`](Error::never_reached_server): if it is `false`, the cron may have been created.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the cron may have been created.
    pub async fn create(self) -> Result<CronHandle<O>> {
        check(&self.name, &self.expression)?;
        let mark = mark::fresh();
        let (input, metadata) = (self.input?, mark::encode(&self.metadata, mark::CRON, &mark)?);
        let raw = |text: String| RawValue::from_string(text).map_err(|error| Error::invalid("cron", error));
        let cron = NewCron {
            cron_name: self.name,
            cron_expression: self.expression,
            input: raw(input)?,
            additional_metadata: raw(metadata)?,
            priority: self.priority.map(Priority::number),
        };
        let rest = &self.client.rpc().rest;
        let made = rest.create_cron(&self.client.prefixed(&self.workflow), &cron).await.map_err(refusal)?;
        for pause in LOOKS {
            sleep(pause).await;
            match rest.cron(&made.metadata.id).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {
                    let text = format!("the server has dropped the cron: it cannot read {:?}", cron.cron_expression);
                    return Err(Error::new(ErrorKind::Rejected, text).unsent());
                }
                Err(error) => return Err(error.after_the_act()),
            }
        }
        Ok(CronHandle {
            id: convert::id(&made.metadata.id)?,
            client: self.client,
            mark: Some(mark),
            output: PhantomData,
        })
    }
}

fn check(name: &str, expression: &str) -> Result<()> {
    if name.is_empty() || name.contains('\0') {
        return Err(Error::invalid("cron name", format_args!("found {name:?}, accepted: a text without U+0000")));
    }
    // Which time zones there are, the server knows.
    Schedule::parse(expression).map(drop).map_err(|Problem(problem)| {
        Error::invalid("cron expression", format_args!("{problem} (in {:?})", excerpt(expression)))
    })
}

fn refusal(error: Error) -> Error {
    let text = error.to_string();
    if text.contains("already exists") {
        error.with_kind(ErrorKind::AlreadyExists)
    } else if text.contains("workflow not found") {
        error.with_kind(ErrorKind::WorkflowNotFound)
    } else {
        error
    }
}

/// A cron, and the type of what its runs end with. Cheap to clone; dropping it does nothing to the cron.
pub struct CronHandle<O = Value> {
    client: Client,
    id: CronId,
    /// Of one that this handle's client made.
    mark: Option<String>,
    output: PhantomData<fn() -> O>,
}

/// All that is known about a cron.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CronDetails {
    /// The cron.
    pub id: CronId,
    /// Its name; empty for one of a definition.
    pub name: String,
    /// When it starts a run.
    pub expression: String,
    /// Whether it does so at present.
    pub enabled: bool,
    /// Whether it belongs to a definition: then each version creates it again, with another id.
    pub defined: bool,
    /// Its workflow.
    pub workflow: WorkflowId,
    /// The workflow's name, without the namespace.
    pub workflow_name: String,
    /// What its runs are started with.
    pub input: Payload,
    /// The user's metadata.
    pub metadata: BTreeMap<String, Value>,
    /// The keys that this crate added.
    pub engine_metadata: BTreeMap<String, Value>,
    /// How urgent its runs are.
    pub priority: Option<Priority>,
    /// When it was made, by the engine's clock.
    pub created_at: Option<DateTime<Utc>>,
}

impl<O> CronHandle<O> {
    /// The cron's id.
    pub fn id(&self) -> CronId {
        self.id
    }

    /// The client that it is asked through.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// When it starts runs, with what, and whether it does at present.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if it does not exist (any more).
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn details(&self) -> Result<CronDetails> {
        details(&self.client, self.client.rpc().rest.cron(&self.id.to_string()).await?)
    }

    /// The runs that it has started, of a window of time.
    ///
    /// Of a cron that this crate did not make, those of its workflow that name its expression and its name.
    ///
    /// # Errors
    /// Of a handle that was made from an id: as [`details`](Self::details).
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn runs(&self, window: Window) -> Result<RunQuery> {
        if let Some(mark) = &self.mark {
            return Ok(mark::runs(&self.client, window, mark::CRON, mark));
        }
        let details = self.details().await?;
        Ok(match mark::of(&details.engine_metadata, mark::CRON) {
            Some(mark) => mark::runs(&self.client, window, mark::CRON, &mark),
            None => named(&self.client, window, &details),
        })
    }

    /// Lets it start no more runs until it is resumed.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if it does not exist (any more).
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the cron may have been paused.
    pub async fn pause(&self) -> Result<()> {
        self.client.rpc().rest.enable_cron(&self.id.to_string(), false).await
    }

    /// Lets it start runs again, from the next time on that its expression names.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if it does not exist (any more).
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the cron may have been resumed.
    pub async fn resume(&self) -> Result<()> {
        self.client.rpc().rest.enable_cron(&self.id.to_string(), true).await
    }

    /// Deletes it. Its runs stay.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if it does not exist (any more).
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the cron may have been deleted.
    pub async fn delete(&self) -> Result<()> {
        self.client.rpc().rest.delete_cron(&self.id.to_string()).await
    }
}

/// The runs that name a cron.
fn named(client: &Client, window: Window, cron: &CronDetails) -> RunQuery {
    let filter = crate::model::RunFilter::new(window)
        .workflow(&cron.workflow_name)
        .own_metadata("hatchet__cron_expression", &cron.expression)
        .own_metadata("hatchet__cron_name", &cron.name);
    client.runs(filter)
}

impl<O> Clone for CronHandle<O> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), id: self.id, mark: self.mark.clone(), output: PhantomData }
    }
}

impl<O> fmt::Debug for CronHandle<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CronHandle").field("id", &self.id).finish_non_exhaustive()
    }
}

pub(super) fn details(client: &Client, row: CronRow) -> Result<CronDetails> {
    let (user, engine) = metadata::split(row.additional_metadata.unwrap_or_default());
    Ok(CronDetails {
        id: convert::id(&row.metadata.id)?,
        name: row.name,
        expression: row.cron,
        enabled: row.enabled,
        defined: row.method == "DEFAULT",
        workflow: convert::id(&row.workflow_id)?,
        workflow_name: client.unprefixed(&row.workflow_name),
        input: convert::rest::input(row.input.as_deref()),
        metadata: user,
        engine_metadata: engine,
        priority: row.priority.and_then(|number| Priority::try_from(number).ok()),
        created_at: row.metadata.created_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_seen_to_be_wrong_is_not_sent() {
        assert!(check("a", "0 9 * * *").is_ok() && check("a", "@hourly").is_ok());
        assert!(check("a", "TZ=Europe/Oslo 0 9 * * *").is_ok(), "the server knows the zones");
        for (name, expression, text) in [
            ("", "* * * * *", "invalid cron name: found \"\""),
            ("a", "not a cron", "invalid cron expression: found 3 fields, accepted: 5, or 6"),
            ("a", "", "invalid cron expression: found 0 fields"),
            ("a", "TZ=Europe/Oslo 0 9 * * 7", "invalid cron expression: found \"7\" as its weekday, accepted: 0 to 6"),
        ] {
            let error = check(name, expression).unwrap_err();
            assert!(error.to_string().starts_with(text) && error.never_reached_server(), "{error}");
        }
    }

    #[test]
    fn refusals_have_a_kind() {
        let kind = |text: &str| refusal(Error::new(ErrorKind::Rejected, text)).kind();
        assert_eq!(kind("cron trigger with that name-expression pair already exists"), ErrorKind::AlreadyExists);
        assert_eq!(kind("workflow not found"), ErrorKind::WorkflowNotFound);
        assert_eq!(kind("error creating cron trigger"), ErrorKind::Rejected);
    }
}
