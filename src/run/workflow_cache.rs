//! A cache of the workflows that the server has, by name.
//!
//! The server answers a trigger for an unknown workflow with the id of a run that it never creates. So the first run of a workflow
//! is fetched over gRPC, and then the name counts as known for a while, because a workflow can be deleted. Workflows that this
//! client registers are known without a request.
//!
//! Usually the server has created a run when it answers the trigger. If many runs are triggered at once, it may queue some and
//! create them later. So a missing run is not conclusive: then the list of workflows decides, over REST; and without REST, a
//! timeout.

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

/// The number of rows in one request. The server matches substrings of names, so there may be several rows.
const PAGE_SIZE: usize = 200;
/// How many runs of one call are asked for.
const MAX_RUNS_ASKED: usize = 3;
/// How long a name counts as known after it was confirmed.
const CONFIRMED_FOR: Duration = Duration::from_secs(60);

/// The known workflows, by their names on the server.
#[derive(Debug, Default)]
pub(crate) struct WorkflowCache {
    known: RwLock<HashMap<String, Known>>,
    /// Running confirmations, shared by all callers that need the same one.
    confirming: Mutex<HashMap<String, WeakShared<BoxFuture<'static, Confirmation>>>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// When it was last known that there is such a workflow.
    exists_at: Option<Instant>,
    /// Its id, and since when that is known: one that is deleted and stored again has another.
    id: Option<(WorkflowId, Instant)>,
}

fn is_recent(at: Instant) -> bool {
    at.elapsed() < CONFIRMED_FOR
}

/// Whether the workflow of a triggered run exists.
#[derive(Debug, Clone)]
enum Confirmation {
    Exists,
    /// It does not, as far as that was seen with this run.
    Missing {
        run: String,
        error: Error,
    },
    Unknown(Error),
}

impl WorkflowCache {
    pub(crate) fn of(client: &Client) -> Arc<Self> {
        client.shared(Self::default)
    }

    /// Adds a workflow that exists, by its name on the server.
    pub(crate) fn learn(&self, name: String, id: WorkflowId) {
        let now = Instant::now();
        let known = Known { exists_at: Some(now), id: Some((id, now)) };
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(name, known);
    }

    /// Remembers that there is such a workflow: a run of it was seen.
    fn confirmed(&self, name: String) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.entry(name).or_default().exists_at = Some(Instant::now());
    }

    fn forget(&self, name: &str) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn get(&self, name: &str) -> Known {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).copied().unwrap_or_default()
    }

    /// The id of a workflow, by its name without the namespace. Fetched over REST if it is not known.
    pub(crate) async fn find(client: &Client, name: &str) -> Result<WorkflowId> {
        match Self::of(client).get(&client.prefixed(name)).id.filter(|(_, at)| is_recent(*at)) {
            Some((id, _)) => Ok(id),
            // Boxed, because it is seldom under way and large.
            None => Box::pin(look_up(client, name)).await,
        }
    }

    /// Makes sure that a workflow exists of which a trigger was answered with these runs, unless it is known.
    ///
    /// # Errors
    /// [`WorkflowNotFound`](ErrorKind::WorkflowNotFound). Without the REST API, that is concluded from the run's not coming to be.
    pub(crate) async fn confirm(client: &Client, name: &str, runs: &[String]) -> Result<()> {
        let full = client.prefixed(name);
        match Self::of(client).get(&full).exists_at.filter(|at| is_recent(*at)) {
            Some(_) => Ok(()),
            None => Box::pin(confirm_runs(client, name, full, runs)).await,
        }
    }

    /// The confirmation of a name that is under way, or a new one by these runs. It goes on where the client lives, whoever
    /// waits for it.
    fn confirmation(&self, client: &Client, name: &str, runs: &[String]) -> Shared<BoxFuture<'static, Confirmation>> {
        let mut confirming = self.confirming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = confirming.get(name).and_then(WeakShared::upgrade).filter(|one| one.peek().is_none()) {
            return under_way;
        }
        let (client, user_name, runs) = (client.clone(), client.unprefixed(name), some_of(runs));
        let task = client.runtime().clone().spawn(async move { exists(&client, &user_name, &runs).await });
        let ended = || Confirmation::Unknown(Error::closed("the runtime that the client was made on"));
        let confirmation = task.map(move |confirmation| confirmation.unwrap_or_else(|_| ended())).boxed().shared();
        confirming.retain(|_, other| other.upgrade().is_some());
        // Whoever waits for it holds it.
        confirming.extend(confirmation.downgrade().map(|weak| (name.to_owned(), weak)));
        confirmation
    }

    /// The name of a workflow on the server that differs from `name` only in case, if there is one. Both include the namespace.
    pub(crate) async fn same_but_for_case(client: &Client, name: &str) -> Result<Option<String>> {
        let lowered = name.to_lowercase();
        find_workflow(client, name, |found| found != name && found.to_lowercase() == lowered)
            .await
            .map(|found| found.map(|(name, _)| name))
    }
}

/// Enough of the runs of one call to tell whether any of them comes to be.
fn some_of(runs: &[String]) -> Vec<String> {
    runs.iter().take(MAX_RUNS_ASKED).cloned().collect()
}

async fn confirm_runs(client: &Client, name: &str, full: String, runs: &[String]) -> Result<()> {
    let cache = WorkflowCache::of(client);
    let confirmation = match cache.confirmation(client, &full, runs).await {
        // That may have been another run, of a time when there was no such workflow.
        Confirmation::Missing { run, .. } if !runs.contains(&run) => exists(client, name, &some_of(runs)).await,
        other => other,
    };
    match confirmation {
        Confirmation::Exists => {
            cache.confirmed(full);
            Ok(())
        }
        Confirmation::Missing { error, .. } => {
            cache.forget(&full);
            Err(error)
        }
        // The server has accepted the trigger. A wait for the run reports whether it exists.
        Confirmation::Unknown(error) => {
            tracing::warn!(workflow = name, %error, "cannot confirm that a run was started");
            Ok(())
        }
    }
}

/// Whether a workflow exists, by runs of it or by the list of workflows, whichever knows it first.
async fn exists(client: &Client, name: &str, runs: &[String]) -> Confirmation {
    let deadline = may_appear_until(Some(Instant::now()));
    let mut tries = 0;
    let mut lists_workflows = true;
    // One of several may be one that is never created, so each has its turn.
    for run in runs.iter().cycle() {
        let missing = |error| Confirmation::Missing { run: run.clone(), error };
        match client.rpc().admin.run_details(run).await {
            Ok(_) => return Confirmation::Exists,
            // A run that is too large for the response exists.
            Err(error) if error.kind() == ErrorKind::TooLarge => return Confirmation::Exists,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Confirmation::Unknown(error),
        }
        if lists_workflows {
            match look_up(client, name).await {
                Ok(_) => return Confirmation::Exists,
                Err(error) if error.kind() == ErrorKind::WorkflowNotFound => return missing(error),
                // Then the run itself has to tell.
                Err(_) => lists_workflows = false,
            }
        }
        if Instant::now() >= deadline {
            let text = format!(
                "the server has no workflow {name:?}, or cannot evaluate the idempotency key of the run: the triggered run was not \
                created"
            );
            return missing(Error::new(ErrorKind::WorkflowNotFound, text));
        }
        tries += 1;
        sleep(retry_delay(tries, fastrand::f64())).await;
    }
    Confirmation::Exists
}

/// The error for a run whose idempotency key cannot be evaluated.
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

/// The first workflow whose name is wanted, among those whose names contain `name` in any case.
async fn find_workflow(
    client: &Client,
    name: &str,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Option<(String, WorkflowId)>> {
    let mut offset = 0;
    loop {
        // A read has no effect, so its errors do not mean that something was started.
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
