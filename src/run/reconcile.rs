//! Which runs of a bulk call were started, if some were not because other runs have their idempotency keys.
//!
//! The engine returns the ids of the runs that were started, in no order, and also ids of runs that it never creates. So each run is
//! fetched, and assigned to the first request with its input and metadata. The remaining requests are sent once more, one by one: then the
//! response has the run with the key.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::Value;

use super::handle::RunHandle;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::feed::invalid_idempotency_key;
use crate::model::RunId;
use crate::model::metadata::is_reserved;
use crate::rpc::convert::{NewRun, Triggered};

/// The number of concurrent fetches.
const MAX_CONCURRENT_READS: usize = 16;

/// One result for each of the runs, in order.
pub(super) async fn reconcile<O>(
    client: &Client,
    workflow: &Arc<str>,
    runs: Vec<NewRun>,
    ids: Vec<RunId>,
) -> Vec<Result<RunHandle<O>>> {
    let (mut started, failed) = fetch(client, ids).await;
    let matched: Vec<_> = runs.iter().map(|run| take(&mut started, run.input(), &run.metadata())).collect();
    let mut unassigned: Vec<RunId> = started.into_iter().map(|run| run.id).collect();
    let mut results = Vec::with_capacity(runs.len());
    for (run, id) in runs.iter().zip(matched) {
        results.push(match id {
            Some(id) => Ok(RunHandle::started(client, Arc::clone(workflow), id)),
            None => match &failed {
                // It may be one of the runs that could not be fetched.
                Some(error) => Err(error.clone().with_possible_side_effects()),
                None => start_again(client, workflow, run, &mut unassigned).await,
            },
        });
    }
    results
}

/// A run that was started.
struct Started {
    id: RunId,
    input: Value,
    metadata: Value,
}

/// The runs that exist, and an error if some could not be fetched.
async fn fetch(client: &Client, ids: Vec<RunId>) -> (VecDeque<Started>, Option<Error>) {
    let reads = stream::iter(ids.into_iter().map(|id| async move {
        match client.rpc().admin.run_details(id).await {
            Ok(run) => Ok(Some(Started {
                id,
                input: run.input.and_then(|input| serde_json::from_str(input.as_str()).ok()).unwrap_or_default(),
                metadata: Value::Object(run.metadata.into_iter().collect()),
            })),
            // The run was never created, because its key could not be evaluated. Runs with keys are created immediately.
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }));
    let fetched: Vec<Result<_>> = reads.buffered(MAX_CONCURRENT_READS).collect().await;
    let (mut found, mut failed) = (VecDeque::new(), None);
    for run in fetched {
        match run {
            Ok(run) => found.extend(run),
            Err(error) => failed = Some(error),
        }
    }
    (found, failed)
}

/// Removes the first run with this input and metadata. The engine adds metadata with reserved keys.
fn take(started: &mut VecDeque<Started>, input: &str, metadata: &Value) -> Option<RunId> {
    let input: Value = serde_json::from_str(input).unwrap_or_default();
    let tags = |metadata: &Value| -> Value {
        let all = metadata.as_object().into_iter().flatten().filter(|(key, _)| !is_reserved(key));
        Value::Object(all.map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    let metadata = tags(metadata);
    let at = started.iter().position(|run| is_same(&run.input, &input) && is_same(&tags(&run.metadata), &metadata))?;
    Some(started.remove(at)?.id)
}

/// Whether two values are the same for the engine, which stores numbers as doubles.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| is_same(value, other)))
        }
        _ => one == other,
    }
}

/// Sends the request for a run that was not started once more. If the key is free by now, the run is started.
async fn start_again<O>(
    client: &Client,
    workflow: &Arc<str>,
    run: &NewRun,
    unassigned: &mut Vec<RunId>,
) -> Result<RunHandle<O>> {
    let id = match client.rpc().workflows.trigger(run, false).await? {
        Triggered::Taken(existing) => {
            // The run has the key itself: the engine returns its input in another form.
            let Some(at) = unassigned.iter().position(|id| *id == existing) else {
                return Err(Error::collision(existing));
            };
            unassigned.remove(at)
        }
        Triggered::Run(id) => {
            match client.rpc().admin.run_details(id).await {
                Err(error) if error.is_not_found() => return Err(invalid_idempotency_key()),
                _ => {}
            }
            id
        }
    };
    Ok(RunHandle::started(client, Arc::clone(workflow), id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn id(number: u32) -> RunId {
        format!("00000000-0000-4000-8001-{number:012}").parse().unwrap()
    }

    fn runs<const N: usize>(runs: [(u32, Value, Value); N]) -> VecDeque<Started> {
        runs.map(|(number, input, metadata)| Started { id: id(number), input, metadata }).into()
    }

    #[test]
    fn an_id_belongs_to_the_first_run_with_its_input() {
        let mut started = runs([
            (1, json!({"n": 2}), json!({})),
            (2, json!({"n": 1, "a": "x"}), json!({})),
            (3, json!({"n": 2}), json!({})),
        ]);
        let mut take = |input| take(&mut started, input, &json!({}));
        assert_eq!(take(r#"{"a":"x","n":1}"#), Some(id(2)));
        assert_eq!(take(r#"{"n":1}"#), None);
        assert_eq!(take(r#"{"n":2}"#), Some(id(1)));
        assert_eq!(take(r#"{"n":2.0}"#), Some(id(3)));
        assert_eq!(take(r#"{"n":2}"#), None);
    }

    #[test]
    fn runs_with_the_same_input_differ_in_their_metadata() {
        let mut started =
            runs([(1, json!({}), json!({"key": "b", "hatchet__x": "x"})), (2, json!({}), json!({"key": "c"}))]);
        let mut take = |metadata| take(&mut started, "{}", &metadata);
        assert_eq!(take(json!({"key": "a"})), None);
        assert_eq!(take(json!({})), None, "its tags are other ones");
        assert_eq!(take(json!({"key": "c"})), Some(id(2)));
        assert_eq!(take(json!({"key": "b"})), Some(id(1)));
    }

    #[test]
    fn the_engine_loses_the_last_digits_of_large_numbers() {
        assert!(is_same(&json!([9_007_199_254_740_992_u64]), &json!([9_007_199_254_740_993_u64])));
        assert!(!is_same(&json!({"n": 1}), &json!({"n": "1"})));
        assert!(!is_same(&json!({"n": 1}), &json!({"m": 1})));
    }
}
