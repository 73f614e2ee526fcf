//! Workers.

use std::cmp::Reverse;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::get;
use chrono::TimeDelta;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::json::extend;
use super::paging::{bad_request, millis};
use super::query::Query;
use super::request::OfTenant;
use super::{Answer, Authorization, Engine, Refusal, answer, id};
use crate::embedded::core::Core;
use crate::embedded::core::types::{At, Label};
use crate::embedded::core::workers::Worker;

/// The id of the only dispatcher.
const DISPATCHER: Uuid = uuid::uuid!("6f1c8a52-3d0b-4a57-9c2e-41d8b7e05f13");
/// Workers without a heartbeat for this long are not listed.
const DAY: TimeDelta = TimeDelta::hours(24);
/// The default limit of a list.
const MOST_LISTED: usize = 10_000;

pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/api/v1/tenants/{tenant}/worker", get(list))
        .route("/api/v1/workers/{worker}", get(one).patch(pause))
}

/// The fields that all answers have.
fn summary(id: Uuid, worker: &Worker, now: At) -> Value {
    let slots: Map<_, _> = worker
        .slots
        .iter()
        .map(|(kind, limit)| {
            let available =
                if kind == "default" { i64::try_from(worker.free()).unwrap_or_default() } else { i64::from(*limit) };
            (kind.clone(), json!({"available": available, "limit": limit}))
        })
        .collect();
    let created = millis(worker.created);
    let runtime = &worker.runtime;
    let mut info = json!({
        "languageVersion": runtime.language_version,
        "os": runtime.os,
        "runtimeExtra": runtime.extra,
        "sdkVersion": runtime.sdk_version,
    });
    if let Some(language) = runtime.language {
        extend(&mut info, json!({ "language": language }));
    }
    let mut row = json!({
        "metadata": {"id": id.to_string(), "createdAt": created, "updatedAt": created},
        "actions": Value::Null,
        "dispatcherId": DISPATCHER.to_string(),
        "name": worker.name,
        "runtimeInfo": info,
        "slotConfig": slots,
        "status": worker.status(now),
        "type": "SELFHOSTED",
    });
    if let Some(beat) = worker.last_beat {
        extend(&mut row, json!({"lastHeartbeatAt": millis(beat)}));
    }
    row
}

/// The same with actions and labels.
fn row(id: Uuid, worker: &Worker, now: At) -> Value {
    let created = millis(worker.created);
    let labels = worker.labels.iter().map(|(key, label)| {
        let mut shown = json!({
            "metadata": {"id": Uuid::nil().to_string(), "createdAt": created, "updatedAt": created},
            "key": key,
        });
        if let Some(value) = text(label) {
            extend(&mut shown, json!({ "value": value }));
        }
        shown
    });
    let labels: Vec<_> = labels.collect();
    let mut row = summary(id, worker, now);
    extend(&mut row, json!({"actions": worker.actions, "labels": labels}));
    row
}

/// The value of a label as a string.
fn text(label: &Label) -> Option<String> {
    match label {
        Label::Text(text) => Some(text.clone()),
        Label::Number(number) => Some(number.to_string()),
        Label::Nothing => None,
    }
}

/// The parameters of a list.
struct Asked {
    statuses: Vec<String>,
    labels: Vec<(String, String)>,
    offset: usize,
    limit: usize,
}

impl Asked {
    fn parse(query: &Query) -> Result<Self, Refusal> {
        let label = |text: &str| {
            let pair = text.split_once(':').filter(|(key, value)| !key.is_empty() && !value.is_empty());
            let problem = || bad_request(format!("invalid label filter format: {text}, expected key:value"));
            pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(problem)
        };
        Ok(Self {
            statuses: query.all("statuses").map(str::to_owned).collect(),
            labels: query.all("labels").map(label).collect::<Result<_, _>>()?,
            offset: query.number("offset")?.unwrap_or(0),
            limit: query.number("limit")?.unwrap_or(MOST_LISTED),
        })
    }

    fn takes(&self, worker: &Worker, now: At) -> bool {
        let has = |(key, value): &(String, String)| worker.labels.get(key).and_then(text).as_ref() == Some(value);
        worker.last_beat.is_some_and(|beat| now.signed_duration_since(beat) < DAY)
            && (self.statuses.is_empty() || self.statuses.iter().any(|status| status == worker.status(now)))
            && self.labels.iter().all(has)
    }

    fn answer(&self, core: &Core, now: At) -> Value {
        let mut all: Vec<_> = core.workers().filter(|(_, worker)| self.takes(worker, now)).collect();
        all.sort_by_key(|(id, worker)| Reverse((worker.created, *id)));
        let rows: Vec<_> =
            all.iter().skip(self.offset).take(self.limit).map(|(id, worker)| row(*id, worker, now)).collect();
        let (page, pages) = match self.limit {
            0 => (1, 0),
            limit => (self.offset.div_ceil(limit).saturating_add(1), all.len().div_ceil(limit)),
        };
        let next = if page == pages { page } else { page.saturating_add(1) };
        json!({"pagination": {"current_page": page, "next_page": next, "num_pages": pages}, "rows": rows})
    }
}

async fn list(OfTenant(engine): OfTenant, query: Query) -> Answer {
    let asked = Asked::parse(&query)?;
    Ok(answer(&engine.core.call(move |core, turn| asked.answer(core, turn.now)).await?))
}

/// The server fails with 500 for a worker without actions.
async fn one(State(engine): State<Engine>, Path(worker): Path<String>, authorization: Authorization) -> Answer {
    let id = id(&worker, "worker")?;
    let look = move |core: &Core, now| {
        let worker = core.worker(id)?;
        let workflows = core.workflows_of(worker).map(|(id, name)| json!({"id": id.to_string(), "name": name}));
        let more = json!({"recentStepRuns": [], "registeredWorkflows": workflows.collect::<Vec<_>>()});
        let mut row = row(id, worker, now);
        extend(&mut row, more);
        Some((row, worker.actions.is_empty()))
    };
    let found = engine.core.call(move |core, turn| look(core, turn.now)).await?;
    let (row, is_idle) = found.ok_or(Refusal::NOT_FOUND)?;
    engine.check(&authorization)?;
    if is_idle { Err(Refusal::INTERNAL) } else { Ok(answer(&row)) }
}

async fn pause(
    State(engine): State<Engine>,
    Path(worker): Path<String>,
    authorization: Authorization,
    body: Bytes,
) -> Answer {
    let worker = id(&worker, "worker")?;
    let is_there = engine.core.call(move |core, _| core.worker(worker).is_some()).await?;
    is_there.then_some(()).ok_or(Refusal::NOT_FOUND)?;
    engine.check(&authorization)?;
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let found = engine
        .core
        .call(move |core, turn| {
            if let Some(paused) = asked.get("isPaused").and_then(Value::as_bool) {
                core.pause(turn, worker, paused);
            }
            Some(summary(worker, core.worker(worker)?, turn.now))
        })
        .await?;
    Ok(answer(&found.ok_or(Refusal::NOT_FOUND)?))
}
