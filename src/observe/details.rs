//! The request for the details of a run.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use super::fetch::{RunFetch, if_found};
use super::logs;
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, Result};
use crate::feed::{Gate, pass};
use crate::model::{RunDetails, RunId, Trigger};
use crate::rpc::convert::rest_input;
use crate::transport::Polling;

/// How long to wait for an event that started a run. The server's history contains it later than the run.
const EVENT_TIMEOUT: Duration = Duration::from_millis(700);
const EVENT_INTERVAL: Duration = Duration::from_millis(100);

/// A builder for a request that fetches the details of a run; see [`RunHandle::details`](crate::RunHandle::details).
///
/// The request is sent when the builder is awaited.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// let details = run.details().logs(100).await?;
/// for line in &details.logs {
///     println!("{} {}", line.created_at, line.message);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is fetched until the builder is awaited"]
pub struct DetailsBuilder {
    client: Client,
    run: RunId,
    started_at: Option<Instant>,
    is_dag: bool,
    logs: usize,
    request: RequestOptions,
    gate: Option<Gate>,
}

impl DetailsBuilder {
    pub(crate) fn new(client: Client, run: RunId, started_at: Option<Instant>) -> Self {
        Self { client, run, started_at, is_dag: false, logs: 0, request: RequestOptions::default(), gate: None }
    }

    /// Sets whether the run is known to be a DAG run.
    pub(crate) fn known_dag(mut self, is_dag: bool) -> Self {
        self.is_dag = is_dag;
        self
    }

    /// Also fetches the first `count` log lines of the run's tasks, with one request for each task.
    ///
    /// The default is 0, and the maximum is [`RunDetails::MAX_LOGS`]. To read all lines, use [`RunHandle::logs`](crate::RunHandle::logs).
    pub fn logs(mut self, count: usize) -> Self {
        self.logs = count;
        self
    }

    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout). If calls fail or the API views disagree,
    /// the fetch is repeated for up to twice this timeout, but no longer than 10 seconds.
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

    /// Sets the gate that all requests must pass.
    #[cfg(feature = "archive")]
    pub(crate) fn through(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    async fn fetch(self) -> Result<RunDetails> {
        check_logs(self.logs)?;
        let client = self.client.with(self.request)?;
        let fetch = RunFetch::new(self.run).for_reading().started_at(self.started_at).known_dag(self.is_dag);
        // Who fetches a run for later needs all of it.
        let is_strict = self.gate.is_some();
        let fetch = self.gate.clone().into_iter().fold(fetch, RunFetch::through);
        let mut details = fetch.fetch(&client).await?;
        let gate = self.gate.as_ref();
        add_event(&client, gate, &mut details.trigger).await?;
        if self.logs > 0 {
            details.logs = logs::first_lines(&client, gate, &details, self.logs).await?;
        }
        // The outcome is complete without the request.
        if let Err(error) = logs::add_cancel_request(&client, gate, &mut details).await {
            if is_strict {
                return Err(error);
            }
            tracing::warn!(%error, run_id = %self.run, "failed to read the cancel request");
        }
        Ok(details)
    }
}

/// Rejects more log lines than details can have.
pub(crate) fn check_logs(count: usize) -> Result<()> {
    if count > RunDetails::MAX_LOGS {
        let problem = format!("expected at most {}, got {count}", RunDetails::MAX_LOGS);
        return Err(Error::invalid("number of log lines", problem));
    }
    Ok(())
}

impl IntoFuture for DetailsBuilder {
    type Output = Result<RunDetails>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.fetch())
    }
}

impl fmt::Debug for DetailsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetailsBuilder").field("run", &self.run).field("logs", &self.logs).finish_non_exhaustive()
    }
}

/// Adds the payload and the scope of the event that started a run, if the server's history contains the event.
async fn add_event(client: &Client, gate: Option<&Gate>, trigger: &mut Trigger) -> Result<()> {
    let Trigger::Event(trigger) = trigger else { return Ok(()) };
    let mut polling = Polling::every(EVENT_INTERVAL, Instant::now() + EVENT_TIMEOUT);
    let event = loop {
        let permit = pass(gate, 1).await;
        let response = client.rpc().rest.event(trigger.event_id).await;
        drop(permit);
        match if_found(response)? {
            None if polling.again().await => {}
            event => break event,
        }
    };
    if let Some(event) = event {
        trigger.payload = Some(rest_input(event.payload.as_deref()));
        trigger.scope = event.scope;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::ErrorKind;
    use crate::rpc::pb::v1::RunStatus as GrpcStatus;
    use crate::scripted::{Calls, Scripted, client, single_task_run};

    const EVENT: &str = "00000000-0000-4000-8002-000000000001";

    /// A server with a completed run that an event has started. `respond`: the responses to other calls, by their number.
    fn server(respond: impl Fn(&str, usize) -> Option<Scripted> + Send + Sync + 'static) -> (Client, Calls) {
        client(move |call, count| match call {
            "GetRunDetails" => single_task_run::grpc_with_metadata(
                GrpcStatus::Completed,
                &json!({"hatchet__event_id": EVENT, "hatchet__event_key": "order:paid"}),
            ),
            single_task_run::REST => single_task_run::rest("COMPLETED", 1),
            call if call.ends_with("/task-events") => single_task_run::events(&[("STARTED", 1), ("FINISHED", 1)]),
            call => respond(call, count).unwrap_or_else(|| panic!("{call} is not expected")),
        })
    }

    fn event(call: &str, found: bool) -> Option<Scripted> {
        let event = json!({"metadata": {"id": EVENT}, "key": "order:paid", "payload": {"n": 1}, "scope": "eu"});
        let found = if found { Scripted::Rest(200, event.to_string()) } else { Scripted::Rest(404, String::new()) };
        call.ends_with(&format!("/events/{EVENT}")).then_some(found)
    }

    fn count_of(calls: &Calls, part: &str) -> usize {
        calls.names().iter().filter(|name| name.contains(part)).map(|name| calls.count(name)).sum()
    }

    /// The history receives the event after its run.
    #[tokio::test(start_paused = true)]
    async fn the_event_that_started_a_run_is_waited_for() {
        let (client, calls) = server(|call, count| event(call, count > 2));
        let start = Instant::now();
        let details = client.run_handle(single_task_run::id()).details().await.unwrap();
        let Trigger::Event(trigger) = &details.trigger else { panic!("{}", details.trigger) };
        let payload = trigger.payload.as_ref().map(|payload| payload.as_str().to_owned());
        assert_eq!((payload.as_deref(), trigger.scope.as_deref()), (Some(r#"{"n":1}"#), Some("eu")));
        assert_eq!((count_of(&calls, "/events/"), start.elapsed()), (3, 2 * EVENT_INTERVAL));
        assert_eq!(count_of(&calls, "/logs"), 0, "nobody has asked for log lines");
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_is_not_in_the_history_is_not_waited_for_long() {
        let (client, _) = server(|call, _| event(call, false));
        let start = Instant::now();
        let details = client.run_handle(single_task_run::id()).details().await.unwrap();
        let Trigger::Event(trigger) = &details.trigger else { panic!("{}", details.trigger) };
        assert_eq!((trigger.key.as_deref(), &trigger.payload), (Some("order:paid"), &None));
        assert_eq!(start.elapsed(), EVENT_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn log_lines_are_fetched_only_on_request() {
        let line = json!({"createdAt": "2026-11-23T14:00:01Z", "message": "charged", "level": "INFO"});
        let (client, calls) = server(move |call, _| {
            let logs = call.contains("/logs").then(|| Scripted::Rest(200, json!({"rows": [line]}).to_string()));
            logs.or_else(|| event(call, true))
        });
        let run = client.run_handle(single_task_run::id());
        assert!(run.details().await.unwrap().logs.is_empty() && count_of(&calls, "/logs") == 0);
        let details = run.details().logs(5).await.unwrap();
        assert_eq!(details.logs.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), ["charged"]);
        let error = run.details().logs(RunDetails::MAX_LOGS + 1).await.unwrap_err();
        assert_eq!((error.kind(), count_of(&calls, "/logs")), (ErrorKind::InvalidInput, 1), "nothing is sent");
    }
}
