//! Which workflows the server has, by name.
//!
//! The server answers a trigger for an unknown workflow with the id of a run that it never creates. So the first run of a name is
//! asked for by its id, over gRPC, and then the name is known for a while: a workflow can be deleted. What this client registers
//! itself is known without asking.
//!
//! Nearly always the server knows a run from the moment its trigger is answered. Where many are triggered at once, it may be put
//! into a queue, and is created a moment later. So a run that is not found does not mean much yet: then the list of workflows
//! decides, over REST; and without REST, time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::time::{Instant, sleep};

use super::gather::may_appear_until;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{WorkflowId, convert};
use crate::transport::retry_delay;

/// Rows for each question. The server finds names by a part of them, so there may be more than the one.
const PAGE_SIZE: usize = 200;
/// How long a name counts as known after it was confirmed.
const CONFIRMED_FOR: Duration = Duration::from_secs(60);

/// What the server was seen to have, by the workflows' names on the server.
#[derive(Debug, Default)]
pub(crate) struct WorkflowCache {
    known: RwLock<HashMap<String, Known>>,
    /// Confirmations under way: whoever needs the same one waits for it.
    confirming: Mutex<HashMap<String, WeakShared<BoxFuture<'static, Confirmation>>>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// A workflow that is known by one of its runs has none here.
    id: Option<WorkflowId>,
    confirmed_at: Instant,
}

/// Whether a workflow exists, of which a run was triggered.
#[derive(Debug, Clone)]
enum Confirmation {
    Exists,
    /// It does not, by the list of workflows.
    Missing(Error),
    /// The run did not come to be, and nothing else could be asked.
    NoRun(Error),
    Unknown(Error),
}

impl WorkflowCache {
    pub(crate) fn of(client: &Client) -> Arc<Self> {
        client.shared(Self::default)
    }

    /// Remembers a workflow that is known to be there, by its name on the server.
    pub(crate) fn learn(&self, name: String, id: WorkflowId) {
        self.insert(name, Some(id));
    }

    fn insert(&self, name: String, id: Option<WorkflowId>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let id = id.or_else(|| known.get(&name)?.id);
        known.insert(name, Known { id, confirmed_at: Instant::now() });
    }

    fn forget(&self, name: &str) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn get(&self, name: &str) -> Option<Known> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        known.filter(|known| known.confirmed_at.elapsed() < CONFIRMED_FOR)
    }

    /// The id of a workflow, by the name that the user knows. Asks REST if it is not known.
    pub(crate) async fn find(client: &Client, name: &str) -> Result<WorkflowId> {
        match Self::of(client).get(&client.prefixed(name)).and_then(|known| known.id) {
            Some(id) => Ok(id),
            // Boxed, because it is seldom under way and large.
            None => Box::pin(look_up(client, name)).await,
        }
    }

    /// Makes sure that a workflow exists of which a trigger was answered with a run, unless it is known.
    ///
    /// # Errors
    /// [`WorkflowNotFound`](ErrorKind::WorkflowNotFound). Without the REST API, that is concluded from the run's not coming to be.
    pub(crate) async fn confirm(client: &Client, name: &str, run: &str) -> Result<()> {
        let full = client.prefixed(name);
        match Self::of(client).get(&full) {
            Some(_) => Ok(()),
            None => Box::pin(confirm_run(client, name, full, run)).await,
        }
    }

    /// The confirmation of a name that is under way, or a new one by this run.
    fn confirmation(&self, client: &Client, name: &str, run: &str) -> Shared<BoxFuture<'static, Confirmation>> {
        let mut confirming = self.confirming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = confirming.get(name).and_then(WeakShared::upgrade).filter(|one| one.peek().is_none()) {
            return under_way;
        }
        let (client, user_name, run) = (client.clone(), client.unprefixed(name), run.to_owned());
        let confirmation = async move { exists(&client, &user_name, &run).await }.boxed().shared();
        confirming.retain(|_, other| other.upgrade().is_some());
        // Not held here: it holds the client, which holds this.
        confirming.extend(confirmation.downgrade().map(|weak| (name.to_owned(), weak)));
        confirmation
    }

    /// The name of a workflow that differs from this one only in case, if the server has one. Both are names on the server.
    pub(crate) async fn same_but_for_case(client: &Client, name: &str) -> Result<Option<String>> {
        let lowered = name.to_lowercase();
        find_workflow(client, name, |found| found != name && found.to_lowercase() == lowered)
            .await
            .map(|found| found.map(|(name, _)| name))
    }
}

async fn confirm_run(client: &Client, name: &str, full: String, run: &str) -> Result<()> {
    let cache = WorkflowCache::of(client);
    let confirmation = match cache.confirmation(client, &full, run).await {
        // That may have been another run, of a time when there was no such workflow.
        Confirmation::Missing(_) | Confirmation::NoRun(_) => exists(client, name, run).await,
        other => other,
    };
    match confirmation {
        Confirmation::Exists => {
            cache.insert(full, None);
            Ok(())
        }
        Confirmation::Missing(error) | Confirmation::NoRun(error) => {
            cache.forget(&full);
            Err(error)
        }
        // The server has taken the trigger: whoever waits for the run will find out.
        Confirmation::Unknown(error) => {
            tracing::warn!(workflow = name, run, %error, "cannot confirm that a run was started");
            Ok(())
        }
    }
}

/// Whether a workflow exists, by a run of it or by the list of workflows, whichever knows it first.
async fn exists(client: &Client, name: &str, run: &str) -> Confirmation {
    let deadline = may_appear_until(Some(Instant::now()));
    let mut tries = 0;
    let mut lists_workflows = true;
    loop {
        match client.rpc().admin.run_details(run).await {
            Ok(_) => return Confirmation::Exists,
            // A run that is too big to be shown is one.
            Err(error) if error.kind() == ErrorKind::TooLarge => return Confirmation::Exists,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Confirmation::Unknown(error),
        }
        if lists_workflows {
            match look_up(client, name).await {
                Ok(_) => return Confirmation::Exists,
                Err(error) if error.kind() == ErrorKind::WorkflowNotFound => return Confirmation::Missing(error),
                // Then the run itself has to tell.
                Err(_) => lists_workflows = false,
            }
        }
        if Instant::now() >= deadline {
            let text = format!(
                "the server has no workflow {name:?}, or cannot evaluate the idempotency key of the run: the run that it answered \
                 with has not come to be"
            );
            return Confirmation::NoRun(Error::new(ErrorKind::WorkflowNotFound, text));
        }
        tries += 1;
        sleep(retry_delay(tries, fastrand::f64())).await;
    }
}

/// The error of a run whose idempotency key cannot be evaluated.
pub(super) fn invalid_idempotency_key() -> Error {
    let text = "nothing was started: the idempotency key of the run cannot be evaluated";
    Error::new(ErrorKind::Rejected, text).unsent()
}

async fn look_up(client: &Client, name: &str) -> Result<WorkflowId> {
    let full = client.prefixed(name);
    let cache = WorkflowCache::of(client);
    if let Some((full, id)) = find_workflow(client, &full, |found| found == full).await? {
        cache.learn(full, id);
        return Ok(id);
    }
    cache.forget(&full);
    Err(Error::new(ErrorKind::WorkflowNotFound, format!("the server has no workflow {name:?}")).unsent())
}

/// The first workflow with such a name, among those that have `name` in theirs, whatever its case.
async fn find_workflow(
    client: &Client,
    name: &str,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Option<(String, WorkflowId)>> {
    let mut offset = 0;
    loop {
        // A question does nothing, whatever it is asked for.
        let rows = client.rpc().rest.workflows(name, offset, PAGE_SIZE).await.map_err(Error::unsent)?;
        let (count, found) = (rows.len(), rows.into_iter().find(|row| is_wanted(&row.name)));
        if let Some(row) = found {
            return Ok(Some((row.name, convert::id(&row.metadata.id).map_err(Error::unsent)?)));
        }
        if count < PAGE_SIZE {
            return Ok(None);
        }
        offset += count;
    }
}
