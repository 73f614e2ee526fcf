//! Looking at a run on all surfaces at the same time, until what they say is of one piece.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{self, BoxFuture};
use tokio::time::{Instant, sleep};

use super::behind::may_be_behind;
use super::classify::{Finding, resolve_from_grpc, settled};
use super::details::details;
use super::evidence::{Evidence, TaskEnd, TaskEvidence};
use super::history::attempts;
use super::logs;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::convert::grpc;
use crate::model::{Attempt, RunDetails, RunId, RunSummary, attempt_number};
use crate::transport::retry_delay;

/// How long the surfaces are waited for, when they do not agree yet or do not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// For who wants to know how things stand. REST lags by a tenth of a second; under load, by up to eight.
    Short,
    /// For who waits for the end, and can wait for a server that restarts.
    Long,
}

impl Patience {
    fn length(self, client: &Client) -> Duration {
        let long = client.config().rpc_timeout() * 2;
        match self {
            Self::Short => long.min(Duration::from_secs(10)),
            Self::Long => long,
        }
    }
}

/// How long REST takes to show the next attempt, with some to spare.
const MOMENT: Duration = Duration::from_millis(200);

/// How long a run may be unknown to the server after its trigger was accepted. If many runs are triggered at once, the engine
/// queues some of them, and creates them later.
const APPEARS_WITHIN: Duration = Duration::from_secs(10);
/// The same for a run of which only the id is known.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);

/// Which parts of a run to fetch, and for how long to retry.
#[derive(Debug)]
pub(crate) struct Look {
    run: RunId,
    evidence: Evidence,
    patience: Patience,
    started_at: Option<Instant>,
}

impl Look {
    /// The status of the run.
    pub(crate) fn at(run: RunId) -> Self {
        Self { run, evidence: Evidence::default(), patience: Patience::Short, started_at: None }
    }

    /// For a wait for the end.
    pub(crate) fn patiently(mut self) -> Self {
        self.patience = Patience::Long;
        self
    }

    /// When this client started the run, if it did.
    pub(crate) fn started_at(mut self, at: Option<Instant>) -> Self {
        self.started_at = at;
        self
    }

    /// Also fetches the first lines of the log if the run has a single task.
    pub(super) fn with_log(mut self) -> Self {
        self.evidence.log = Some(Vec::new());
        self
    }

    /// For the outcome of the run: if REST cannot be reached, gRPC is sufficient if it determines the outcome. `results`: the message of
    /// the result stream. `workflow`: the name of the workflow, if it is known.
    pub(crate) fn for_end(mut self, workflow: Option<Arc<str>>, results: Option<Vec<TaskEnd>>) -> Self {
        self.evidence = Evidence { workflow, results, grpc_suffices: true, ..self.evidence };
        self
    }

    /// Fetches the run until the responses are consistent.
    ///
    /// Boxed, because it is large and rarely runs: it should not add to the size of a future that waits for a run.
    pub(crate) fn fetch(self, client: &Client) -> BoxFuture<'_, Result<RunDetails>> {
        Box::pin(fetch_until_whole(client, self))
    }
}

/// The time until which a run may be unknown to the server.
pub(super) fn may_appear_until(started_at: Option<Instant>) -> Instant {
    started_at.map_or_else(|| Instant::now() + UNKNOWN_FOR, |at| at + APPEARS_WITHIN)
}

async fn fetch_until_whole(client: &Client, look: Look) -> Result<RunDetails> {
    let Look { run, mut evidence, patience, started_at } = look;
    let (deadline, may_appear_until) = (Instant::now() + patience.length(client), may_appear_until(started_at));
    let (mut looks, mut still) = (0, Still::default());
    loop {
        let gathered = gather(client, run, &mut evidence).await;
        let patient = Instant::now() < deadline;
        match gathered {
            // Neither is waited for: there may be no way to it.
            Err(error) if error.is_rest_unreached() => return Err(error.unsent()),
            Err(error) if patient && may_recover(&error) => {
                tracing::debug!(%run, %error, "fetch failed");
            }
            Err(error) if error.kind() == ErrorKind::RunNotFound && Instant::now() < may_appear_until => {}
            // A look does nothing.
            Err(error) => return Err(error.unsent()),
            Ok(()) if evidence.without_rest.is_some() => {
                let Some(finding) = resolve_from_grpc(run, &evidence) else { return Err(undecided(run, &evidence)) };
                return details(run, &evidence, &finding).map_err(Error::unsent);
            }
            Ok(()) => {
                let finding = settled(run, &evidence, patient);
                if !patient || is_whole(run, &evidence, &finding, &mut still) {
                    return details(run, &evidence, &finding).map_err(Error::unsent);
                }
            }
        }
        looks += 1;
        sleep(retry_delay(looks, fastrand::f64())).await;
    }
}

/// Whether it is worth it to ask again: a server restarts, or has trouble with its database.
pub(super) fn may_recover(error: &Error) -> bool {
    error.is_transient() || error.kind() == ErrorKind::Server && !error.forbids_retries()
}

/// Whether REST has caught up with what was found.
fn is_whole(run: RunId, evidence: &Evidence, finding: &Finding, still: &mut Still) -> bool {
    let tasks = evidence.tasks(run);
    let events = tasks.iter().map(|task| task.events.len()).sum();
    match finding {
        Finding::Lagging => false,
        // A run that REST does not know yet would have no times: that is worth a moment.
        Finding::Going(_) if evidence.rest.is_none() => false,
        Finding::Going(_) if events == 0 => true,
        Finding::Ended(..) if tasks.is_empty() || !tasks.iter().all(has_ended) => false,
        // Of a run that goes on, a task that has only just been made has no history yet.
        _ => !tasks.iter().filter(|task| !task.events.is_empty()).any(may_be_behind) || still.is(events),
    }
}

/// Whether the history of a task has its end: that of the attempt that the run shows, and not of one before.
fn has_ended(task: &TaskEvidence<'_>) -> bool {
    let newest = task.rest.map_or(0, |task| attempt_number(task.retry_count));
    task.attempts.last().is_some_and(|last| last.status.is_final() && last.number >= newest)
}

/// Tells whether the number of events has stayed the same for a moment.
#[derive(Default)]
struct Still(Option<(Instant, usize)>);

impl Still {
    fn is(&mut self, count: usize) -> bool {
        match self.0 {
            Some((since, known)) if known == count => since.elapsed() >= MOMENT,
            _ => {
                self.0 = Some((Instant::now(), count));
                false
            }
        }
    }
}

/// One look at all three surfaces, at the same time.
async fn gather(client: &Client, run: RunId, evidence: &mut Evidence) -> Result<()> {
    let id = run.to_string();
    let rpc = client.rpc();
    // In a run of one task, the task has the id of the run. In a run of several, no task has, and their events come with
    // the run.
    // A run that is known to be one of several tasks has no log of its own.
    let may_have_one = evidence.grpc.is_none() || evidence.is_of_one_task(run);
    let wants_log = evidence.log.is_some() && may_have_one;
    let log = async { if wants_log { logs::first_lines(client, run.into()).await.map(Some) } else { Ok(None) } };
    let (grpc, rest, events, log) =
        future::join4(rpc.admin.run_details(&id), rpc.rest.run(&id), rpc.rest.task_events(&id), log).await;
    match grpc {
        Ok(state) => evidence.grpc = Some(grpc::run(state)?),
        // gRPC knows a run from the moment its trigger is answered.
        Err(error) if error.is_not_found() => return Err(Error::run_not_found(run)),
        // Too big to be sent this way: REST has it in pieces.
        Err(error) if error.kind() == ErrorKind::TooLarge => evidence.grpc = None,
        Err(error) => return Err(error),
    }
    let out_of_reach = |error: &&Error| evidence.grpc_suffices && error.is_rest_unreached();
    evidence.without_rest = rest.as_ref().err().filter(out_of_reach).cloned();
    if evidence.without_rest.is_some() {
        return Ok(());
    }
    evidence.rest = known(rest)?;
    evidence.learn_workflow(client);
    evidence.events = known(events)?.unwrap_or_default();
    evidence.log = log?.or(evidence.log.take());
    Ok(())
}

/// The error for a run whose outcome only REST can report.
fn undecided(run: RunId, evidence: &Evidence) -> Error {
    let text = format!(
        "run {run} ended without an output; only the REST API can report whether it was cancelled, timed out or failed"
    );
    let error = Error::new(ErrorKind::Unavailable, text).unsent();
    match &evidence.without_rest {
        Some(cause) => error.with_kind(cause.kind()).with_source(cause.clone()).transient(),
        None => error,
    }
}

/// What was found, if it is there.
pub(super) fn known<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The newest attempts at a task, or at the tasks of a run, by their history alone; none while REST does not know them yet.
pub(crate) async fn newest_attempts(client: &Client, row: &RunSummary) -> Result<Vec<Attempt>> {
    let rpc = client.rpc();
    if let Some(events) = known(rpc.rest.task_events(&row.key().to_string()).await)? {
        return Ok(attempts(&events).pop().into_iter().collect());
    }
    let Some(rest) = known(rpc.rest.run(&row.id.to_string()).await)? else { return Ok(Vec::new()) };
    let evidence = Evidence { rest: Some(rest), ..Evidence::default() };
    Ok(evidence.tasks(row.id).into_iter().filter_map(|mut task| task.attempts.pop()).collect())
}
