//! Fetches a run from all API views at the same time, until the responses are consistent.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{self, BoxFuture, Either, select};
use tokio::time::{Instant, timeout};

use super::assemble::details;
use super::attempts::attempts;
use super::evidence::Evidence;
use super::resolve::{Resolution, grpc_suffices, resolve, resolve_from_grpc};
use super::staleness::may_be_behind;
use super::view::{RunView, TaskView};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{Gate, Permit, Question, creation_deadline, pass};
use crate::model::{Attempt, RunDetails, RunId, RunStatus};
use crate::rpc::convert::{GrpcRun, ListRow, RestRun};
use crate::transport::Polling;

/// How long to wait for API views that disagree or do not respond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadTimeout {
    /// For the current state. Usually REST lags by a tenth of a second; under load, by up to eight seconds.
    Short,
    /// For the end of a run, also across a restart of the server.
    Long,
}

impl ReadTimeout {
    fn duration(self, client: &Client) -> Duration {
        let long = client.rpc_timeout() * 2;
        match self {
            Self::Short => long.min(Duration::from_secs(10)),
            Self::Long => long,
        }
    }
}

/// For how long the number of events must not change. It is longer than REST usually takes to show the next attempt.
const STABLE_FOR: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// How long to wait for REST after a gRPC response that determines the outcome.
const MAX_WAIT_FOR_REST: Duration = Duration::from_secs(1);

/// Fetches one run.
#[derive(Debug)]
pub(crate) struct RunFetch {
    run: RunId,
    evidence: Evidence,
    timeout: ReadTimeout,
    for_outcome: bool,
    /// The first attempt whose end is awaited.
    from_attempt: u32,
    rest_suffices: bool,
    is_dag: bool,
    started_at: Option<Instant>,
    gate: Option<Gate>,
}

impl RunFetch {
    pub(crate) fn new(run: RunId) -> Self {
        Self {
            run,
            evidence: Evidence::default(),
            timeout: ReadTimeout::Short,
            for_outcome: false,
            from_attempt: 1,
            rest_suffices: false,
            is_dag: false,
            started_at: None,
            gate: None,
        }
    }

    /// Uses the timeout of callers that wait for the end of the run.
    pub(crate) fn for_wait(mut self) -> Self {
        self.timeout = ReadTimeout::Long;
        self
    }

    /// Sets when this client started the run, if it did.
    pub(crate) fn started_at(mut self, at: Option<Instant>) -> Self {
        self.started_at = at;
        self
    }

    /// Sets the gate that each round of requests must pass.
    pub(crate) fn through(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Sets whether the run is known to be a DAG run. Then a request is omitted that only single-task runs need. It is sent later if the run
    /// is of a version of the workflow that has one task.
    pub(crate) fn known_dag(mut self, is_dag: bool) -> Self {
        self.is_dag = is_dag;
        self
    }

    /// Uses REST alone for a run that gRPC does not have. A server can keep runs for REST longer than it keeps them for gRPC. Callers whose
    /// command needs the run itself do not set it.
    pub(crate) fn for_reading(mut self) -> Self {
        self.rest_suffices = true;
        self
    }

    /// Only the outcome is needed: if gRPC determines it, REST may fail or be slow.
    pub(crate) fn for_outcome(mut self, question: Question) -> Self {
        let Question { from_attempt, started_at, workflow, results, .. } = question;
        self.for_outcome = true;
        self.from_attempt = from_attempt;
        self.started_at = started_at;
        self.evidence = Evidence { workflow, results, ..self.evidence };
        self
    }

    /// Fetches the run until the responses are consistent, or the timeout has passed.
    ///
    /// Boxed, because the future is large and rarely needed: it must not add to the size of a future that waits for a run.
    pub(crate) fn fetch(self, client: &Client) -> BoxFuture<'_, Result<RunDetails>> {
        Box::pin(self.fetch_until_consistent(client))
    }

    async fn fetch_until_consistent(mut self, client: &Client) -> Result<RunDetails> {
        // The time in the queue of the first requests does not count.
        let mut permit = self.pass().await;
        let mut polling = Polling::backoff(MAX_BACKOFF, Instant::now() + self.timeout.duration(client));
        let created_by = creation_deadline(self.started_at);
        let mut stability = Stability::default();
        loop {
            let fetched = self.fetch_once(client).await;
            drop(permit.take());
            // Fetching has no effect, so an error does not mean that something was done.
            let error = match fetched.map_err(Error::without_side_effects) {
                Ok(()) => match self.evaluate(client.namespace(), polling.is_over(), &mut stability) {
                    Some(result) => return result,
                    None => None,
                },
                Err(error) if error.kind() == ErrorKind::RunNotFound && Instant::now() < created_by => {
                    polling.pause().await;
                    permit = self.pass().await;
                    continue;
                }
                // A server that has no REST API is not waited for.
                Err(error) if error.may_recover() && !error.is_rest_unreached() => Some(error),
                Err(error) => return Err(error),
            };
            if !polling.again().await
                && let Some(error) = error
            {
                return Err(error);
            }
            permit = self.pass().await;
        }
    }

    /// The result, or `None` if the run must be fetched again. There is always a result if `is_last`.
    fn evaluate(
        &self,
        namespace: Option<&str>,
        is_last: bool,
        stability: &mut Stability,
    ) -> Option<Result<RunDetails>> {
        let view = RunView::new(self.run, &self.evidence);
        if let Some(error) = &self.evidence.without_rest {
            let details = resolve_from_grpc(&view).and_then(|resolution| details(&view, resolution, namespace));
            return Some(details.ok_or_else(|| needs_rest(self.run, error).without_side_effects()));
        }
        // A run that gRPC has dropped does not change any more.
        let is_last = is_last || self.evidence.is_dropped_by_grpc;
        let resolution = resolve(&view, is_last);
        let is_consistent = is_last || is_consistent(&view, &resolution, stability);
        let lagging = || {
            let text = format!("run {} has ended, but the server does not report its state yet; retry later", self.run);
            Error::new(ErrorKind::Server, text).without_side_effects()
        };
        is_consistent.then(|| details(&view, resolution, namespace).ok_or_else(lagging))
    }

    /// The task of a single-task run has the id of the run. The events of the tasks of a DAG run are part of the run.
    fn needs_events(&self) -> bool {
        self.evidence.is_single_task(self.run).unwrap_or(!self.is_dag)
    }

    /// Waits until the requests of one round may be sent.
    async fn pass(&self) -> Option<Permit> {
        pass(self.gate.as_ref(), if self.needs_events() { 3 } else { 2 }).await
    }

    async fn fetch_once(&mut self, client: &Client) -> Result<()> {
        let needs_events = self.needs_events();
        let (rpc, run, evidence) = (client.rpc(), self.run, &mut self.evidence);
        let events = async { if needs_events { rpc.rest.task_events(run.into()).await } else { Ok(Vec::new()) } };
        let (for_outcome, from_attempt) = (self.for_outcome, self.from_attempt);
        let (knows_workflow, results) = (evidence.workflow.is_some(), evidence.results.take());
        let is_sufficient = |grpc: &GrpcRun| {
            let is_dag = || grpc.tasks.values().any(|task| !task.id.is_single_task_of(run));
            // The shape of the output of a single task depends on the name of the workflow.
            let has_shape = grpc.status != RunStatus::Completed || knows_workflow || is_dag();
            // gRPC does not show the attempt.
            let is_of_attempt = from_attempt <= 1 || !grpc.done;
            grpc_suffices(grpc, results.as_deref()) && has_shape && is_of_attempt
        };
        let suffices = |grpc: &Result<GrpcRun>| for_outcome && grpc.as_ref().is_ok_and(is_sufficient);
        let by_rest = future::join(rpc.rest.run(run), events);
        let (grpc, by_rest) = match select(pin!(rpc.admin.run_details(run)), pin!(by_rest)).await {
            Either::Left((grpc, by_rest)) if suffices(&grpc) => (grpc, timeout(MAX_WAIT_FOR_REST, by_rest).await),
            Either::Left((grpc, by_rest)) => (grpc, Ok(by_rest.await)),
            Either::Right((by_rest, grpc)) => (grpc.await, Ok(by_rest)),
        };
        let suffices = suffices(&grpc);
        evidence.results = results;
        let (rest, events) = by_rest.unwrap_or_else(|_| (Err(slow_rest()), Ok(Vec::new())));
        evidence.is_dropped_by_grpc = false;
        match grpc {
            Ok(grpc) => evidence.grpc = Some(grpc),
            Err(error) if error.is_not_found() && self.rest_suffices => {
                match if_found(rest.as_ref().map(|_| ()).map_err(Clone::clone)) {
                    Ok(Some(())) => {}
                    Ok(None) => return Err(Error::run_not_found(run)),
                    // There is only gRPC.
                    Err(error) if for_outcome && error.is_rest_unreached() => {
                        return Err(Error::run_not_found(run));
                    }
                    // It is not known whether the run exists.
                    Err(error) => return Err(error),
                }
                evidence.grpc = None;
                evidence.is_dropped_by_grpc = true;
            }
            // gRPC has a run as soon as its trigger is answered.
            Err(error) if error.is_not_found() => return Err(Error::run_not_found(run)),
            // The run is too large for this call. REST has it.
            Err(error) if error.kind() == ErrorKind::TooLarge => evidence.grpc = None,
            Err(error) => return Err(error),
        }
        let is_failure = |error: &&Error| !error.is_not_found();
        let failed = rest.as_ref().err().filter(is_failure).or(events.as_ref().err().filter(is_failure));
        evidence.without_rest = failed.filter(|error| suffices || for_outcome && error.is_rest_unreached()).cloned();
        if evidence.without_rest.is_some() {
            // What REST has returned before may be of an earlier attempt.
            (evidence.rest, evidence.events) = (None, Vec::new());
            return Ok(());
        }
        evidence.rest = if_found(rest)?;
        evidence.set_workflow(|name| client.unprefixed(name));
        let is_other_version = !needs_events && evidence.is_single_task(run) == Some(true);
        let events = if is_other_version { rpc.rest.task_events(run.into()).await } else { events };
        evidence.events = if_found(events)?.unwrap_or_default();
        Ok(())
    }
}

fn slow_rest() -> Error {
    Error::new(ErrorKind::Timeout, format!("the REST API did not respond within {MAX_WAIT_FOR_REST:?}")).transient()
}

/// Whether REST has caught up.
fn is_consistent(view: &RunView<'_>, resolution: &Resolution, stability: &mut Stability) -> bool {
    if view.evidence.rest.as_ref().is_some_and(RestRun::lacks_parent) {
        return false;
    }
    let events = view.tasks.iter().map(|task| task.events.len()).sum();
    match resolution {
        Resolution::Lagging => false,
        // REST does not have the run yet. Without it, the times are missing.
        Resolution::Running(_) if view.evidence.rest.is_none() => false,
        Resolution::Running(_) if events == 0 => true,
        Resolution::Ended(..) if view.tasks.is_empty() || !view.tasks.iter().all(shows_end) => false,
        Resolution::Ended(..) if view.tasks.iter().any(|task| is_only_in_events(view, task)) => false,
        // While the run continues, a task that was created just now has no events.
        _ => {
            !view.tasks.iter().filter(|task| !task.events.is_empty()).any(may_be_behind) || stability.is_stable(events)
        }
    }
}

/// Whether the events of a task contain the end of the attempt that the run shows.
fn shows_end(task: &TaskView<'_>) -> bool {
    let newest = task.rest_attempt().unwrap_or(0);
    task.attempts.last().is_some_and(|last| last.status.is_final() && last.number >= newest)
}

/// Whether REST has the events of a task and not the task itself, whose output nothing else has: the run is too large for gRPC.
fn is_only_in_events(view: &RunView<'_>, task: &TaskView<'_>) -> bool {
    view.evidence.grpc.is_none() && task.rest.is_none() && task.results.is_empty() && !task.attempts.is_empty()
}

/// Whether the number of events has stayed the same for [`STABLE_FOR`].
#[derive(Default)]
struct Stability(Option<(Instant, usize)>);

impl Stability {
    fn is_stable(&mut self, count: usize) -> bool {
        match self.0 {
            Some((since, last)) if last == count => since.elapsed() >= STABLE_FOR,
            _ => {
                self.0 = Some((Instant::now(), count));
                false
            }
        }
    }
}

/// The error for a run whose outcome only REST can report.
fn needs_rest(run: RunId, cause: &Error) -> Error {
    let text = format!(
        "run {run} ended without an output; only the REST API can report whether it was cancelled, timed out or failed"
    );
    Error::new(cause.kind(), text).with_source(cause.clone()).transient().rest_unreached()
}

/// The value, or `None` if the server does not have it.
pub(crate) fn if_found<T>(response: Result<T>) -> Result<Option<T>> {
    match response {
        Ok(response) => Ok(Some(response)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The newest attempt of each task of a row, according to the events alone. Empty while REST does not have them.
pub(crate) async fn newest_attempts(client: &Client, gate: Option<&Gate>, row: &ListRow) -> Result<Vec<Attempt>> {
    let rpc = client.rpc();
    let permit = pass(gate, 1).await;
    // A row does not show whether it is a DAG run: all rows of a list of runs have the type of one.
    if let Some(events) = if_found(rpc.rest.task_events(row.key()).await)? {
        return Ok(attempts(&events).pop().into_iter().collect());
    }
    drop(permit);
    let _permit = pass(gate, 1).await;
    let evidence = Evidence { rest: if_found(rpc.rest.run(row.run.id).await)?, ..Evidence::default() };
    Ok(RunView::new(row.run.id, &evidence).tasks.into_iter().filter_map(|mut task| task.attempts.pop()).collect())
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{evidence, run};
    use super::*;
    use crate::embedded::{Engine, Fault};
    use crate::model::trigger::PARENT_RUN_KEY;
    use crate::rpc::pb::v1::RunStatus as Status;
    use crate::scripted::{Scripted, single_task_run};
    use crate::workflow::{Context, Task, Workflow};

    #[tokio::test(start_paused = true)]
    async fn a_count_is_stable_after_it_has_not_changed_for_a_while() {
        let mut stability = Stability::default();
        assert!(!stability.is_stable(3));
        tokio::time::advance(STABLE_FOR / 2).await;
        assert!(!stability.is_stable(4), "it has changed");
        tokio::time::advance(STABLE_FOR).await;
        assert!(stability.is_stable(4));
    }

    #[test]
    fn a_child_without_its_tasks_is_not_consistent() {
        let mut evidence = evidence("COMPLETED", "COMPLETED", &[("FINISHED", "")], &[]);
        let consistent = |evidence: &Evidence| {
            let resolution = Resolution::Running(RunStatus::Running);
            is_consistent(&RunView::new(run(), evidence), &resolution, &mut Stability::default())
        };
        assert!(consistent(&evidence));
        let rest = evidence.rest.as_mut().unwrap();
        rest.run.additional_metadata = Some([(PARENT_RUN_KEY.into(), "a parent".into())].into());
        let tasks = std::mem::take(&mut rest.tasks);
        assert!(!consistent(&evidence));
        evidence.rest.as_mut().unwrap().tasks = tasks;
        assert!(consistent(&evidence));
    }

    #[test]
    fn an_end_is_consistent_only_with_its_event() {
        let mut stability = Stability::default();
        let mut consistent = |events: &[(&str, &str)]| {
            let evidence = evidence("COMPLETED", "COMPLETED", events, &[]);
            let view = RunView::new(run(), &evidence);
            let resolution = resolve(&view, false);
            assert!(matches!(resolution, Resolution::Ended(..)));
            is_consistent(&view, &resolution, &mut stability)
        };
        assert!(!consistent(&[("STARTED", "")]));
        assert!(consistent(&[("STARTED", ""), ("FINISHED", "")]));
    }

    #[test]
    fn an_end_without_the_tasks_is_not_consistent_if_only_rest_has_the_outputs() {
        let mut evidence = evidence("", "COMPLETED", &[("STARTED", ""), ("FINISHED", "")], &[]);
        let consistent = |evidence: &Evidence| {
            let view = RunView::new(run(), evidence);
            let resolution = resolve(&view, false);
            assert!(matches!(resolution, Resolution::Ended(..)));
            is_consistent(&view, &resolution, &mut Stability::default())
        };
        assert!(consistent(&evidence));
        // Its events are there earlier, under load.
        let tasks = std::mem::take(&mut evidence.rest.as_mut().unwrap().tasks);
        assert!(!consistent(&evidence));
        evidence.rest.as_mut().unwrap().tasks = tasks;
        assert!(consistent(&evidence));
    }

    #[test]
    fn a_run_that_rest_lacks_is_not_consistent() {
        let evidence = evidence("QUEUED", "", &[], &[]);
        let view = RunView::new(run(), &evidence);
        let resolution = Resolution::Running(RunStatus::Queued);
        assert!(!is_consistent(&view, &resolution, &mut Stability::default()));
    }

    /// An engine with a run that waits for a worker.
    async fn queued() -> (Engine, Client, RunId) {
        let engine = Engine::start().await.unwrap();
        let client = engine.client();
        let task: Task<(), ()> = Task::new("task", async |(): (), _: Context| Ok(()));
        let worker = client.worker("worker").register(&task).build().unwrap().start().await.unwrap();
        worker.shutdown().await;
        let id = client.run(&task, &()).start().await.unwrap().id();
        (engine, client, id)
    }

    const SECOND: Duration = Duration::from_secs(1);
    const REST: &str = "GET /api/v1/stable/workflow-runs/{run}";

    #[tokio::test(start_paused = true)]
    async fn a_run_that_does_not_exist_is_reported_after_the_time_of_its_creation() {
        let (_engine, client, _) = queued().await;
        for (is_new, least) in [(false, SECOND), (true, 10 * SECOND)] {
            let started = Instant::now();
            let error = RunFetch::new(run()).started_at(is_new.then_some(started)).fetch(&client).await.unwrap_err();
            assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::RunNotFound, true));
            assert!((least..=least + MAX_BACKOFF).contains(&started.elapsed()), "{:?}", started.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_waits_for_rest() {
        let (engine, client, id) = queued().await;
        engine.faults().inject_times(REST, Fault::RejectRest(500), 3).unwrap();
        assert_eq!(RunFetch::new(id).fetch(&client).await.unwrap().status, RunStatus::Queued);
        assert_eq!(engine.faults().planned(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_views_are_fetched_at_the_same_time() {
        let (engine, client, id) = queued().await;
        for call in ["GetRunDetails", REST, "GET /api/v1/stable/tasks/{task}/task-events"] {
            engine.faults().inject(call, Fault::Delay(3 * SECOND)).unwrap();
        }
        let started = Instant::now();
        RunFetch::new(id).fetch(&client).await.unwrap();
        assert_eq!((started.elapsed(), engine.faults().planned()), (3 * SECOND, 0));
    }

    const EVENTS: &str = "GET /api/v1/stable/tasks/{task}/task-events";

    #[tokio::test(start_paused = true)]
    async fn the_events_of_a_task_are_not_requested_for_a_known_dag_run() {
        let engine = Engine::start().await.unwrap();
        let client = engine.client();
        let task = |name| Task::new(name, async |(): (), _: Context| Ok(()));
        let (first, second): (Task<(), ()>, Task<(), ()>) = (task("first"), task("second"));
        let one: Workflow<()> = Workflow::new("workflow").task(&first);
        let two = one.clone().task_after(&second, [&first]);
        for (version, requests) in [(&two, 0), (&one, 1)] {
            let worker = client.worker("worker").register(version).build().unwrap().start().await.unwrap();
            // A program with a newer definition than the server's: the run has one task only.
            let run = client.run(&two, &()).start().await.unwrap();
            run.outcome().await.unwrap();
            engine.faults().inject_times(EVENTS, Fault::Delay(Duration::ZERO), 10).unwrap();
            let details = run.details().await.unwrap();
            assert!(details.tasks.iter().all(|task| task.attempts.len() == 1), "{details}");
            assert_eq!(10 - engine.faults().planned(), requests);
            engine.faults().clear();
            worker.shutdown().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_rest_loses_for_a_while_is_fetched_again() {
        let rest = |count| match count {
            1 => single_task_run::rest("RUNNING", 1),
            2 => Scripted::Rest(404, "{}".into()),
            _ => single_task_run::rest("COMPLETED", 1),
        };
        let events = |count| match count {
            1 => single_task_run::events(&[("STARTED", 1)]),
            2 => Scripted::Rest(404, "{}".into()),
            _ => single_task_run::events(&[("STARTED", 1), ("FINISHED", 1)]),
        };
        let (client, calls) = single_task_run::client(
            |_| single_task_run::grpc(Status::Completed),
            rest,
            events,
            |_| panic!("there is no command"),
        );
        let details = RunFetch::new(single_task_run::id()).fetch(&client).await.unwrap();
        assert_eq!((details.status, details.tasks[0].attempts.len()), (RunStatus::Completed, 1));
        assert_eq!((calls.count("GetRunDetails"), calls.count(single_task_run::REST)), (3, 3));
    }

    /// The first responses are from before the replay, and the second ones from after it.
    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_replayed_between_two_fetches_is_running() {
        let (client, calls) = single_task_run::client(
            |count| single_task_run::grpc(if count == 1 { Status::Completed } else { Status::Running }),
            |count| single_task_run::rest("RUNNING", if count == 1 { 1 } else { 2 }),
            |count| {
                let all = [("STARTED", 1), ("FINISHED", 1), ("RETRIED_BY_USER", 2), ("QUEUED", 2), ("STARTED", 2)];
                single_task_run::events(if count == 1 { &all[..1] } else { &all })
            },
            |_| panic!("there is no command"),
        );
        let details = RunFetch::new(single_task_run::id()).fetch(&client).await.unwrap();
        assert_eq!((&details.status, details.attempt(), &details.outcome), (&RunStatus::Running, 2, &None));
        assert!(calls.count("GetRunDetails") >= 2, "{calls:?}");
    }

    /// gRPC is healthy, and REST is not: it rejects the request, is unavailable, or does not respond in time.
    #[tokio::test(start_paused = true)]
    async fn an_outcome_that_grpc_determines_does_not_depend_on_rest() {
        let engine = Engine::start().await.unwrap();
        let client = engine.client();
        let task: Task<(), u32> = Task::new("task", async |(): (), _: Context| Ok(7));
        let worker = client.worker("worker").register(&task).build().unwrap().start().await.unwrap();
        let run = client.run(&task, &()).start().await.unwrap();
        assert_eq!(run.result().await.unwrap(), 7);
        let ended = client.run_handle(run.id()).typed::<u32>();
        let second = Duration::from_secs(1);
        for (fault, most) in [
            (Fault::RejectRest(400), Duration::ZERO),
            (Fault::RejectRest(403), MAX_WAIT_FOR_REST),
            (Fault::RejectRest(503), MAX_WAIT_FOR_REST),
            (Fault::Delay(3600 * second), MAX_WAIT_FOR_REST),
        ] {
            engine.faults().inject_always("GET /api/v1/stable/workflow-runs/{run}", fault.clone()).unwrap();
            let start = Instant::now();
            assert_eq!(run.result().await.unwrap(), 7, "{fault:?}");
            assert!(start.elapsed() <= most + second / 10, "{fault:?}: {:?}", start.elapsed());
            engine.faults().clear();
        }
        assert_eq!(ended.result().await.unwrap(), 7);
        // gRPC does not show the attempt, so REST is needed after a replay.
        let replayed = run.replay().send().await.unwrap().run;
        assert_eq!(replayed.result().await.unwrap(), 7);
        for (fault, expected) in
            [(Fault::Delay(2 * MAX_WAIT_FOR_REST), Ok(7)), (Fault::RejectRest(400), Err(ErrorKind::Rejected))]
        {
            engine.faults().inject_always("GET /api/v1/stable/workflow-runs/{run}", fault).unwrap();
            let result = timeout(60 * second, replayed.result()).await.expect("the wait ends");
            assert_eq!(result.map_err(|error| error.kind()), expected);
            engine.faults().clear();
        }
        worker.shutdown().await;
    }
}
