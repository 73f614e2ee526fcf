//! The checks of definitions against the engine, before they are stored.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::timeout;

use super::definition::Definition;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::RateLimitDetails;
use crate::model::engine_version::{EngineVersion, unsupported};

/// How long the check of rate limits may take: the worker starts without it.
const RATE_LIMITS_TIMEOUT: Duration = Duration::from_secs(5);

/// Checks that the engine supports the options of the definitions, and that the rate limits they use exist. Older engines ignore some
/// options without an error, and the engine answers a definition whose rate limit is missing with an internal error.
pub(crate) async fn check_engine(client: &Client, definitions: &[&Definition]) -> Result<()> {
    check_version(client, definitions).await?;
    check_rate_limits(client, definitions).await
}

async fn check_version(client: &Client, definitions: &[&Definition]) -> Result<()> {
    let requirements: Vec<_> = definitions.iter().flat_map(|definition| definition.requirements()).collect();
    if requirements.is_empty() {
        return Ok(());
    }
    let text = client.rpc().dispatcher.version().await?;
    let found = text.as_deref().and_then(EngineVersion::parse);
    if text.is_some() && found.is_none() {
        tracing::warn!(version = text, "the engine's version cannot be parsed, so it is assumed to have all options");
        return Ok(());
    }
    match unsupported(&requirements, found) {
        Some(text) => Err(Error::new(ErrorKind::Unimplemented, text).without_side_effects()),
        None => Ok(()),
    }
}

/// `None` if the engine supports the delay of a retry that a task chooses, and otherwise its version.
pub(crate) async fn version_without_retry_delays(client: &Client) -> Result<Option<String>> {
    let needed = EngineVersion::RETRY_DELAYS;
    let Some(text) = client.rpc().dispatcher.version().await? else {
        return Ok(Some("an engine that does not report its version".into()));
    };
    Ok(Some(text).filter(|text| EngineVersion::parse(text).is_some_and(|found| found < needed)))
}

/// Only REST lists rate limits, and a worker must be able to start without it.
async fn check_rate_limits(client: &Client, definitions: &[&Definition]) -> Result<()> {
    let consumed = || definitions.iter().flat_map(|definition| definition.static_rate_limits());
    let used: BTreeMap<_, _> = consumed().map(|(task, key, _)| (key, task)).collect();
    if used.is_empty() {
        return Ok(());
    }
    let found = used.keys().map(|key| async move {
        let rows = client.rpc().rest.rate_limits(&[("search", (*key).to_owned())]).await?;
        let found = rows.into_iter().map(RateLimitDetails::from).find(|limit| limit.key == **key);
        Ok::<_, Error>(found.map(|limit| limit.limit))
    });
    let found: BTreeMap<_, _> = match timeout(RATE_LIMITS_TIMEOUT, try_join_all(found)).await {
        Ok(Ok(found)) => used.keys().zip(found).filter_map(|(key, limit)| Some((*key, limit?))).collect(),
        Ok(Err(error)) => {
            tracing::warn!(%error, "failed to check that the rate limits of the tasks exist");
            return Ok(());
        }
        Err(_) => {
            tracing::warn!(timeout = ?RATE_LIMITS_TIMEOUT, "failed to check that the rate limits of the tasks exist");
            return Ok(());
        }
    };
    // Not an error: the limit can be changed at any time.
    for (task_name, key, units) in consumed() {
        if let (Some(units), Some(&limit)) = (units, found.get(key))
            && i64::from(units) > limit
        {
            tracing::warn!(
                task_name,
                key,
                units,
                limit,
                "a rate limit has fewer units than an attempt of a task consumes; the task never starts"
            );
        }
    }
    let missing = used.iter().filter(|(key, _)| !found.contains_key(**key)).map(|(key, task)| {
        format!("task {task:?}: rate limit {key:?}: expected a limit that exists, got none; create it with Client::rate_limit")
    });
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotFound, missing.join("; ")).without_side_effects())
}

#[cfg(test)]
mod tests {
    use super::super::{Concurrency, ConcurrencyStrategy, Context, RateLimit, Task, Workflow};
    use super::*;

    fn task(name: &str) -> Task<(), ()> {
        Task::new(name, async |(): (), _: Context| Ok(()))
    }

    #[test]
    fn requirements_name_the_definition_and_the_option() {
        let newest = || Concurrency::new("'a'", ConcurrencyStrategy::CancelQueuedExceptNewest);
        let limited = task("limited").concurrency(newest()).slots(2).retries(1);
        let flow = Workflow::<()>::new("flow").task(&limited).task(&task("plain"));
        let flow = flow.concurrency(Concurrency::new("'a'", ConcurrencyStrategy::CancelNewest).name("n"));
        let requirements = Definition::from(&flow).requirements();
        let texts: Vec<_> =
            requirements.iter().map(|needed| format!("{}: {}", needed.option, needed.version)).collect();
        assert_eq!(
            texts,
            [
                "workflow \"flow\": the name of a concurrency limit: v0.106.5",
                "task \"limited\": the concurrency strategy cancel_queued_except_newest: v0.105.16",
                "task \"limited\": slots: v0.78.23",
            ]
        );
        assert!(Definition::from(&task("plain")).requirements().is_empty());
    }

    #[test]
    fn static_rate_limits_are_collected() {
        let window = crate::model::RateLimitWindow::Minute;
        let task = task("ask").rate_limit(RateLimit::new("a")).rate_limit(RateLimit::dynamic("'b'", window).limit(1));
        assert_eq!(Definition::from(&task).static_rate_limits(), [("ask", "a", Some(1))]);
    }
}
