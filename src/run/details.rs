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
use crate::rpc::pb::v1::GetRunDetailsRequest;
use crate::rpc::rest_types::{Run as RestRun, TaskEvent};
use crate::transport::retry_delay;

/// How long REST is waited for when gRPC is ahead of it. It lags by a tenth of a second; under load, by seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long REST takes to show the next attempt, with some to spare.
const MOMENT: Duration = Duration::from_millis(200);

/// Gathers what is known about a run until it is of one piece.
///
/// `results` is what the result stream sent, if that is the reason to look.
///
/// Boxed, because it is seldom under way and large: who waits for a run should not carry it along.
pub(crate) fn look(client: &Client, run: RunId, results: Option<Vec<TaskEnd>>) -> BoxFuture<'_, Result<RunDetails>> {
    Box::pin(look_until_whole(client, run, results))
}

async fn look_until_whole(client: &Client, run: RunId, results: Option<Vec<TaskEnd>>) -> Result<RunDetails> {
    let deadline = Instant::now() + PATIENCE;
    let mut evidence = Evidence { results, ..Evidence::default() };
    let (mut looks, mut still) = (0, Still::default());
    loop {
        gather(client, run, &mut evidence).await?;
        let patient = Instant::now() < deadline;
        let finding = settled(&evidence, patient);
        if !patient || is_whole(&evidence, &finding, &mut still) {
            return details(run, evidence, &finding);
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
    let request = GetRunDetailsRequest { external_id: id.clone() };
    let (grpc, rest, events) =
        future::join3(rpc.admin.run_details(request), rpc.rest.run(&id), rpc.rest.task_events(&id)).await;
    match grpc {
        Ok(answer) => evidence.grpc = Some(grpc::run(&answer)?),
        // gRPC knows a run from the moment its trigger is answered.
        Err(error) if error.is_not_found() => return Err(Error::run_not_found(run)),
        // Too big to be sent this way: REST has it in pieces.
        Err(error) if error.kind() == ErrorKind::TooLarge => evidence.grpc = None,
        Err(error) => return Err(error),
    }
    evidence.rest = known(rest)?;
    evidence.events = known(events)?.unwrap_or_default();
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
    let input = grpc.as_ref().map(|run| run.input.clone());
    let mut tasks = Vec::new();
    for (name, task) in grpc.into_iter().flat_map(|run| run.tasks) {
        // In a run of one task, what holds for the run holds for its task; gRPC itself forgets.
        tasks.push(TaskDetails {
            id: task.id,
            name,
            status: status.clone(),
            output: outcome.as_ref().and_then(|outcome| outcome.output().cloned()),
            attempts: attempts.clone(),
        });
    }
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
        tasks,
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
