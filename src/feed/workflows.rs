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
use tokio::time::Instant;

use super::fetcher::{Gate, pass};
use super::tasks::Tasks;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{RunId, WorkflowId};
use crate::rpc::Rpc;
use crate::runtime;
use crate::sync::{lock, running};
use crate::transport::Polling;

/// The number of rows in one request. The server matches substrings of names, so there may be several rows.
const PAGE_SIZE: usize = 200;
/// The number of runs of one call that are fetched.
const MAX_RUNS_FETCHED: usize = 3;
/// How long a name counts as known after it was confirmed.
const CONFIRMED_FOR: Duration = Duration::from_secs(60);
/// How long a run may be unknown to the server after its trigger was accepted. If many runs are triggered at once, the engine
/// queues some of them, and creates them later.
const NEW_RUN_DELAY: Duration = Duration::from_secs(10);
/// The same for a run that this client did not start.
const KNOWN_RUN_DELAY: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// The time until which a run may be unknown to the server. `started_at`: when this client started it, if it did.
pub(crate) fn creation_deadline(started_at: Option<Instant>) -> Instant {
    started_at.map_or_else(|| Instant::now() + KNOWN_RUN_DELAY, |at| at + NEW_RUN_DELAY)
}

/// The known workflows, by their names on the server.
#[derive(Debug)]
pub(crate) struct WorkflowCache {
    rpc: Rpc,
    tasks: Tasks,
    namespace: String,
    known: RwLock<HashMap<String, Known>>,
    /// Running confirmations, shared by all callers that need the same one.
    confirming: Mutex<HashMap<String, WeakShared<BoxFuture<'static, Confirmation>>>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// When the workflow was last known to exist.
    exists_at: Option<Instant>,
    /// Its id, and when that became known: a workflow that is deleted and stored again has another id.
    id: Option<(WorkflowId, Instant)>,
}

fn is_recent(at: Instant) -> bool {
    at.elapsed() < CONFIRMED_FOR
}

/// Whether the workflow of a triggered run exists.
#[derive(Debug, Clone)]
enum Confirmation {
    Exists,
    /// It does not exist, because this run does not.
    Missing {
        run: RunId,
        error: Error,
    },
    Unknown(Error),
}

impl WorkflowCache {
    pub(super) fn new(rpc: Rpc, tasks: Tasks, namespace: String) -> Self {
        Self { rpc, tasks, namespace, known: RwLock::default(), confirming: Mutex::default() }
    }

    /// Adds a workflow that exists, by its name on the server.
    pub(crate) fn add(&self, name: String, id: WorkflowId) {
        let now = Instant::now();
        let known = Known { exists_at: Some(now), id: Some((id, now)) };
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(name, known);
    }

    /// Records that a run of the workflow was fetched.
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

    fn prefixed(&self, name: &str) -> String {
        format!("{}{name}", self.namespace)
    }

    /// The id of a workflow, by its name without the namespace. Fetched over REST if it is not known.
    pub(crate) async fn id_of(&self, name: &str) -> Result<WorkflowId> {
        self.id_through(name, None).await
    }

    /// The same, with a gate that each request must pass.
    pub(crate) async fn id_through(&self, name: &str, gate: Option<&Gate>) -> Result<WorkflowId> {
        match self.get(&self.prefixed(name)).id.filter(|(_, at)| is_recent(*at)) {
            Some((id, _)) => Ok(id),
            // Boxed, because the future is large and rarely needed.
            None => Box::pin(self.fetch(name, gate)).await,
        }
    }

    /// Makes sure that a workflow exists, unless it is known. `runs`: the ids that the server returned for a trigger of it.
    ///
    /// The confirmation is shared by all callers and has a deadline of its own. After `timeout`, the timeout of this caller's request, the
    /// caller no longer waits for it: the server has accepted the trigger.
    ///
    /// # Errors
    /// [`WorkflowNotFound`](ErrorKind::WorkflowNotFound). Without the REST API, that is concluded when the run is not created.
    pub(crate) fn confirm<'a>(
        self: &'a Arc<Self>,
        name: &'a str,
        runs: &'a [RunId],
        timeout: Duration,
    ) -> impl Future<Output = Result<()>> + Send + use<'a> {
        let full = self.prefixed(name);
        let is_known = self.get(&full).exists_at.is_some_and(is_recent);
        // Boxed, because it is large and rarely needed.
        let confirming = (!is_known).then(|| Box::pin(self.confirm_within(name, full, runs, timeout)));
        async move {
            match confirming {
                Some(confirming) => confirming.await,
                None => Ok(()),
            }
        }
    }

    async fn confirm_within(
        self: &Arc<Self>,
        name: &str,
        full: String,
        runs: &[RunId],
        timeout: Duration,
    ) -> Result<()> {
        let over = runtime::timer("a call", Instant::now() + timeout.min(NEW_RUN_DELAY.saturating_mul(6)))?;
        tokio::select! {
            biased;
            confirmed = self.confirm_runs(name, full, runs) => confirmed,
            () = over => {
                tracing::warn!(workflow = name, run_id = first_id(runs), runs = runs.len(), ?timeout, "cannot confirm in time that a run was started");
                Ok(())
            }
        }
    }

    async fn confirm_runs(self: &Arc<Self>, name: &str, full: String, runs: &[RunId]) -> Result<()> {
        let confirmation = match self.confirmation(name, &full, runs).await {
            // That run may have been triggered earlier, when the workflow did not exist.
            Confirmation::Missing { run, .. } if !runs.contains(&run) => self.exists(name, first(runs)).await,
            other => other,
        };
        match confirmation {
            Confirmation::Exists => {
                self.confirmed(full);
                Ok(())
            }
            Confirmation::Missing { error, .. } => {
                self.forget(&full);
                Err(error)
            }
            // The server has accepted the trigger. A wait for the run reports whether it exists.
            Confirmation::Unknown(error) => {
                tracing::warn!(workflow = name, run_id = first_id(runs), runs = runs.len(), %error, "cannot confirm that a run was started");
                Ok(())
            }
        }
    }

    /// The running confirmation of a name, or a new one. It continues when its caller is dropped, as others may wait for it.
    fn confirmation(
        self: &Arc<Self>,
        name: &str,
        full: &str,
        runs: &[RunId],
    ) -> Shared<BoxFuture<'static, Confirmation>> {
        let mut confirming = lock(&self.confirming);
        if let Some(confirmation) = confirming.get(full).and_then(running) {
            return confirmation;
        }
        let (cache, name, runs) = (Arc::clone(self), name.to_owned(), first(runs).to_vec());
        let task = self.tasks.spawn(async move { cache.exists(&name, &runs).await });
        let tasks = self.tasks.clone();
        let confirmation = task
            .map(move |ended| ended.ok().flatten().unwrap_or_else(|| Confirmation::Unknown(tasks.ended())))
            .boxed()
            .shared();
        confirming.retain(|_, other| other.upgrade().is_some());
        // The callers that wait for it own it.
        confirming.extend(confirmation.downgrade().map(|weak| (full.to_owned(), weak)));
        confirmation
    }

    /// Whether a workflow exists, by its runs or by the list of workflows.
    async fn exists(&self, name: &str, runs: &[RunId]) -> Confirmation {
        let mut polling = Polling::backoff(MAX_BACKOFF, creation_deadline(Some(Instant::now())));
        // Some services can reach only gRPC. For them, only the run can show that the workflow exists.
        let mut has_list = true;
        let mut list_error = None;
        // One of the runs may be one that is never created, so they take turns.
        for run in runs.iter().copied().cycle() {
            match self.rpc.admin.run_details(run).await {
                Ok(_) => return Confirmation::Exists,
                // A run that is too large for the response exists.
                Err(error) if error.kind() == ErrorKind::TooLarge => return Confirmation::Exists,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Confirmation::Unknown(error),
            }
            if has_list {
                match self.fetch(name, None).await {
                    Ok(_) => return Confirmation::Exists,
                    Err(error) if error.kind() == ErrorKind::WorkflowNotFound => {
                        return Confirmation::Missing { run, error };
                    }
                    Err(error) => {
                        has_list = !error.is_rest_unreached();
                        list_error = Some(error);
                    }
                }
            }
            if !polling.again().await {
                let text = format!(
                    "the server has no workflow {name:?}, or cannot evaluate the idempotency key of the run: the run was \
                    not created within {NEW_RUN_DELAY:?}"
                );
                let error = Error::new(ErrorKind::WorkflowNotFound, text);
                let error = list_error.into_iter().fold(error, Error::with_source);
                return Confirmation::Missing { run, error };
            }
        }
        Confirmation::Unknown(Error::new(ErrorKind::Server, "the server did not return a valid run id"))
    }

    /// Fetches the id of a workflow.
    async fn fetch(&self, name: &str, gate: Option<&Gate>) -> Result<WorkflowId> {
        let full = self.prefixed(name);
        if let Some((full, id)) = self.find(&full, gate, |found| found == full).await? {
            self.add(full, id);
            return Ok(id);
        }
        self.forget(&full);
        let text = format!("the server has no workflow {name:?}: start a worker that registers it");
        Err(Error::new(ErrorKind::WorkflowNotFound, text).without_side_effects())
    }

    /// The name of a workflow on the server that differs from `name` only in case, if there is one. Both include the namespace.
    pub(crate) async fn same_except_case(&self, name: &str) -> Result<Option<String>> {
        let lowered = name.to_lowercase();
        let found = self.find(name, None, |found| found != name && found.to_lowercase() == lowered).await?;
        Ok(found.map(|(name, _)| name))
    }

    /// The first workflow whose name matches, among those whose names contain `name` in any case.
    async fn find(
        &self,
        name: &str,
        gate: Option<&Gate>,
        matches: impl Fn(&str) -> bool,
    ) -> Result<Option<(String, WorkflowId)>> {
        let rpc = gate.map_or_else(|| self.rpc.clone(), |gate| self.rpc.with_retry_rate(gate.rate()));
        let mut offset = 0;
        loop {
            let permit = pass(gate, 1).await;
            // A read has no effect, so its errors do not mean that something was started.
            let rows = rpc.rest.workflows(name, offset, PAGE_SIZE).await.map_err(Error::without_side_effects)?;
            drop(permit);
            let (count, found) = (rows.len(), rows.into_iter().find(|row| matches(&row.name)));
            if let Some(row) = found {
                return Ok(Some((row.name, row.metadata.id)));
            }
            if count < PAGE_SIZE {
                return Ok(None);
            }
            offset += count;
        }
    }
}

/// For the log.
fn first_id(runs: &[RunId]) -> Option<impl tracing::Value> {
    runs.first().map(tracing::field::display)
}

/// As many runs of a call as are needed to see whether the workflow exists.
fn first(runs: &[RunId]) -> &[RunId] {
    runs.get(..MAX_RUNS_FETCHED).unwrap_or(runs)
}

/// The error for a run whose idempotency key cannot be evaluated.
pub(crate) fn invalid_idempotency_key() -> Error {
    let text = "nothing was started: the idempotency key of the run cannot be evaluated";
    Error::new(ErrorKind::Rejected, text).without_side_effects()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use crate::scripted::{Calls, Scripted, client};

    const SECOND: Duration = Duration::from_secs(1);

    fn run() -> RunId {
        uuid::Uuid::from_u128(1).into()
    }

    /// A server that does not find the run, and whose list of workflows is scripted.
    fn server(list: impl Fn(usize) -> Scripted + Send + Sync + 'static) -> (Client, Calls) {
        client(move |call, count| match call {
            "GetRunDetails" => Scripted::Status(5),
            call if call.starts_with("GET ") => list(count),
            other => panic!("{other} is not expected"),
        })
    }

    async fn confirm(client: &Client, runs: &[RunId], timeout: Duration) -> Result<()> {
        client.feed().workflows.confirm("greet", runs, timeout).await
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_confirmed_without_a_run() {
        let (client, calls) = server(|_| Scripted::Rest(200, r#"{"rows":[]}"#.into()));
        confirm(&client, &[], 30 * SECOND).await.unwrap();
        assert_eq!(confirm(&client, &[run()], 30 * SECOND).await.unwrap_err().kind(), ErrorKind::WorkflowNotFound);
        assert_eq!(calls.count("GetRunDetails"), 1, "the workflow was not known");
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_fails_once_is_read_again() {
        let (client, _) = server(|count| match count {
            1 => Scripted::Rest(500, "{}".into()),
            _ => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
        });
        let started = Instant::now();
        let error = confirm(&client, &[run()], 30 * SECOND).await.unwrap_err();
        assert_eq!(error.to_string(), "the server has no workflow \"greet\": start a worker that registers it");
        assert!(started.elapsed() < SECOND, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_waits_only_for_its_own_timeout() {
        let (client, _) = server(|_| Scripted::Rest(500, "{}".into()));
        let started = Instant::now();
        confirm(&client, &[run()], SECOND / 2).await.unwrap();
        assert_eq!(started.elapsed(), SECOND / 2);
        // The confirmation that both share has continued.
        let error = confirm(&client, &[run()], 30 * SECOND).await.unwrap_err();
        assert!(error.to_string().ends_with("the run was not created within 10s"), "{error}");
        assert!(std::error::Error::source(&error).is_some(), "the error of the list");
    }
}
