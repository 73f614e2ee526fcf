//! Which of many runs were started, when some were not since others have their idempotency keys.
//!
//! The engine answers with the ids of those that were started, in no order, and ids of runs that never exist are among
//! them. So each id is looked up, and belongs to the first run that was asked for with its input. What is left is asked for
//! once more, one by one: then the answer names the run that has the key.

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
use crate::rpc::convert::{NewRun, Triggered};

/// Looks at the same time.
const LOOKS: usize = 16;

/// One result for each of the runs, in their order.
pub(super) async fn reconcile<O>(
    client: &Client,
    workflow: &Arc<str>,
    runs: Vec<NewRun>,
    ids: Vec<RunId>,
) -> Vec<Result<RunHandle<O>>> {
    let mut started = match inputs(client, ids).await {
        Ok(started) => started,
        Err(error) => return runs.iter().map(|_| Err(error.clone().with_possible_side_effects())).collect(),
    };
    let matched: Vec<_> = runs.iter().map(|run| take(&mut started, run.input())).collect();
    let mut left: Vec<RunId> = started.into_iter().map(|(id, _)| id).collect();
    let mut results = Vec::with_capacity(runs.len());
    for (run, id) in runs.iter().zip(matched) {
        results.push(match id {
            Some(id) => Ok(RunHandle::started(client, Arc::clone(workflow), id)),
            None => again(client, workflow, run, &mut left).await,
        });
    }
    results
}

/// The runs that exist, with their inputs.
async fn inputs(client: &Client, ids: Vec<RunId>) -> Result<VecDeque<(RunId, Value)>> {
    let looks = stream::iter(ids.into_iter().map(|id| async move {
        match client.rpc().admin.run_details(id).await {
            Ok(run) => Ok(Some((id, serde_json::from_str(run.input.as_str()).unwrap_or_default()))),
            // A phantom: its key could not be evaluated. Runs with keys are never put into a queue, so they are there at once.
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }));
    let found: Vec<Result<_>> = looks.buffered(LOOKS).collect().await;
    found.into_iter().filter_map(Result::transpose).collect()
}

/// Takes the first run with an input out.
fn take(started: &mut VecDeque<(RunId, Value)>, input: &str) -> Option<RunId> {
    let input: Value = serde_json::from_str(input).unwrap_or_default();
    let at = started.iter().position(|(_, other)| is_same(other, &input))?;
    started.remove(at).map(|(id, _)| id)
}

/// Whether two values are one to the engine, which keeps numbers as doubles.
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

/// Asks for one that was not started. If the key has become free by now, it is started, as was asked for.
async fn again<O>(client: &Client, workflow: &Arc<str>, run: &NewRun, left: &mut Vec<RunId>) -> Result<RunHandle<O>> {
    let id = match client.rpc().workflows.trigger(run).await? {
        Triggered::Taken(existing) => {
            // It has its key itself: the engine shows its input otherwise than it was given.
            let Some(at) = left.iter().position(|id| *id == existing) else { return Err(Error::collision(existing)) };
            left.remove(at)
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

    #[test]
    fn an_id_belongs_to_the_first_run_with_its_input() {
        let id = |number: u32| -> RunId { format!("00000000-0000-4000-8001-{number:012}").parse().unwrap() };
        let mut started: VecDeque<_> =
            [(id(1), json!({"n": 2})), (id(2), json!({"n": 1, "a": "x"})), (id(3), json!({"n": 2}))].into();
        assert_eq!(take(&mut started, r#"{"a":"x","n":1}"#), Some(id(2)));
        assert_eq!(take(&mut started, r#"{"n":1}"#), None);
        assert_eq!(take(&mut started, r#"{"n":2}"#), Some(id(1)));
        assert_eq!(take(&mut started, r#"{"n":2.0}"#), Some(id(3)));
        assert_eq!(take(&mut started, r#"{"n":2}"#), None);
    }

    #[test]
    fn the_engine_loses_the_last_digits_of_large_numbers() {
        assert!(is_same(&json!([9_007_199_254_740_992_u64]), &json!([9_007_199_254_740_993_u64])));
        assert!(!is_same(&json!({"n": 1}), &json!({"n": "1"})));
        assert!(!is_same(&json!({"n": 1}), &json!({"m": 1})));
    }
}
