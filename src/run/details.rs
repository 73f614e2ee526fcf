//! All about one run, gathered from gRPC and REST at the same time.

use std::time::Duration;

use futures_util::future::{self, BoxFuture};
use tokio::time::{Instant, sleep};

use super::classify::{Finding, attempts_of, may_be_behind, settled};
use super::evidence::{Evidence, TaskEnd};
use super::history::attempts;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::convert::{self, grpc};
use crate::model::{RunDetails, RunId, TaskDetails, metadata};
use crate::rpc::rest_types::{Run as RestRun, TaskEvent};
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

/// Gathers what is known about a run until it is of one piece.
///
/// `results` is what the result stream sent, if that is the reason to look.
///
/// Boxed, because it is seldom under way and large: who waits for a run should not carry it along.
pub(crate) fn look(
    client: &Client,
    run: RunId,
    results: Option<Vec<TaskEnd>>,
    patience: Patience,
) -> BoxFuture<'_, Result<RunDetails>> {
    Box::pin(look_until_whole(client, run, results, patience))
}

async fn look_until_whole(
    client: &Client,
    run: RunId,
    results: Option<Vec<TaskEnd>>,
    patience: Patience,
) -> Result<RunDetails> {
    let deadline = Instant::now() + patience.length(client);
    let mut evidence = Evidence { results, ..Evidence::default() };
    let (mut looks, mut still) = (0, Still::default());
    loop {
        let gathered = gather(client, run, &mut evidence).await;
        let patient = Instant::now() < deadline;
        match gathered {
            // A server that restarts, or has trouble with its database, is asked again.
            Err(error) if patient && (error.is_transient() || error.kind() == ErrorKind::Server) => {
                tracing::debug!(%run, %error, "a look has failed");
            }
            Err(error) => return Err(error),
            Ok(()) => {
                let finding = settled(&evidence, patient);
                if !patient || is_whole(&evidence, &finding, &mut still) {
                    return details(run, evidence, &finding);
                }
            }
        }
        looks += 1;
        sleep(retry_delay(looks, fastrand::f64())).await;
    }
}

/// Whether REST has caught up with what was found.
fn is_whole(evidence: &Evidence, finding: &Finding, still: &mut Still) -> bool {
    match finding {
        Finding::Lagging => false,
        // A run that REST does not know yet would have no times: that is worth a moment.
        Finding::Going(_) if evidence.rest.is_none() => false,
        Finding::Going(_) if evidence.events.is_empty() => true,
        Finding::Ended(..) if !attempts(&evidence.events).pop().is_some_and(|last| last.status.is_final()) => false,
        _ => !may_be_behind(evidence) || still.is(evidence.events.len()),
    }
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
    let (grpc, rest, events) =
        future::join3(rpc.admin.run_details(&id), rpc.rest.run(&id), rpc.rest.task_events(&id)).await;
    match grpc {
        Ok(state) => evidence.grpc = Some(grpc::run(state)?),
        // gRPC knows a run from the moment its trigger is answered.
        Err(error) if error.is_not_found() => return Err(Error::run_not_found(run)),
        // Too big to be sent this way: REST has it in pieces.
        Err(error) if error.kind() == ErrorKind::TooLarge => evidence.grpc = None,
        Err(error) => return Err(error),
    }
    evidence.rest = known(rest)?;
    evidence.events = known(events)?.unwrap_or_default();
    // Their tasks would have to be told apart, and that is not there yet: no answer is better than a wrong one.
    let by_grpc = evidence.grpc.as_ref().map_or(0, |run| run.tasks.len());
    let by_rest = evidence.rest.as_ref().and_then(|run| Some(run.workflow_config.as_ref()?.tasks.len())).unwrap_or(0);
    if by_grpc.max(by_rest) > 1 {
        return Err(Error::new(
            ErrorKind::Unimplemented,
            format!("run {run} has several tasks, which is not there yet"),
        ));
    }
    Ok(())
}

fn known<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn details(run: RunId, evidence: Evidence, finding: &Finding) -> Result<RunDetails> {
    let attempts = attempts_of(&evidence, finding);
    let Evidence { grpc, rest, .. } = evidence;
    let (outcome, conflicts) = match finding {
        Finding::Ended(outcome, conflicts) => (Some(outcome.clone()), conflicts.clone()),
        _ => (None, Vec::new()),
    };
    let status = match finding {
        Finding::Ended(outcome, _) => outcome.status(),
        Finding::Going(status) => status.clone(),
        Finding::Lagging => crate::model::RunStatus::Running,
    };
    let (user, engine) = metadata::split(all_metadata(grpc.as_ref(), rest.as_ref()));
    // What was too big for gRPC is in REST, in pieces.
    let input = grpc.as_ref().map(|run| run.input.clone()).or_else(|| {
        let input = rest.as_ref()?.run.input.as_ref()?.input.as_ref()?;
        Some(crate::model::Payload::new(input.get()))
    });
    let by_grpc = grpc.and_then(|run| run.tasks.into_iter().next()).map(|(name, task)| (name, task.id));
    let by_rest = || Some((rest.as_ref()?.workflow_config.as_ref()?.tasks.first()?.readable_id.clone(), run.into()));
    let task = by_grpc.or_else(by_rest).map(|(name, id)| TaskDetails {
        id,
        name,
        // In a run of one task, what holds for the run holds for its task; gRPC itself forgets.
        status: status.clone(),
        output: outcome.as_ref().and_then(|outcome| outcome.output().cloned()),
        attempts,
    });
    let rest = rest.map(|rest| rest.run);
    Ok(RunDetails {
        id: run,
        workflow: optional_id(rest.as_ref().map(|run| run.workflow_id.as_str()))?,
        workflow_version: optional_id(rest.as_ref().and_then(|run| run.workflow_version_id.as_deref()))?,
        status,
        outcome,
        input: input.unwrap_or_else(|| crate::model::Payload::new("")),
        metadata: user,
        engine_metadata: engine,
        // The run's own `createdAt` is its start.
        created_at: rest.and_then(|run| run.metadata.created_at),
        tasks: task.into_iter().collect(),
        conflicts,
    })
}

fn optional_id<T: std::str::FromStr<Err = Error>>(text: Option<&str>) -> Result<Option<T>> {
    text.filter(|text| !text.is_empty()).map(convert::id).transpose()
}

fn all_metadata(
    grpc: Option<&grpc::GrpcRun>,
    rest: Option<&RestRun>,
) -> std::collections::BTreeMap<String, serde_json::Value> {
    grpc.map(|run| run.metadata.clone()).or_else(|| rest?.run.additional_metadata.clone()).unwrap_or_default()
}

/// The newest events of a run's one task; none while REST does not know the run yet.
pub(crate) async fn events(client: &Client, run: RunId) -> Result<Vec<TaskEvent>> {
    Ok(known(client.rpc().rest.task_events(&run.to_string()).await)?.unwrap_or_default())
}
