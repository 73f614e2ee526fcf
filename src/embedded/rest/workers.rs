//! Workers.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::get;
use chrono::TimeDelta;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::api::{Authorization, RestApi, id};
use super::json::extend;
use super::paging::{bad_request, millis};
use super::query::Query;
use super::request::OfTenant;
use super::response::{Rejection, RestResult, respond};
use super::rows::RowPage;
use crate::embedded::core::Core;
use crate::embedded::core::store::{At, Label, Profile, Worker};

/// The id of the only dispatcher.
const DISPATCHER: Uuid = uuid::uuid!("6f1c8a52-3d0b-4a57-9c2e-41d8b7e05f13");
/// Workers without a heartbeat for this long are not listed.
const LISTED_FOR: TimeDelta = TimeDelta::hours(24);
/// The default limit of a list.
const DEFAULT_LIMIT: usize = 10_000;

pub(super) fn routes() -> Router<RestApi> {
    Router::new()
        .route("/api/v1/tenants/{tenant}/worker", get(list))
        .route("/api/v1/workers/{worker}", get(one).patch(pause))
}

/// The parts of a worker that a response shows.
struct Row {
    id: Uuid,
    profile: Arc<Profile>,
    created: At,
    last_heartbeat: Option<At>,
    /// The free slots, by their types.
    free: BTreeMap<String, i64>,
    status: &'static str,
}

impl Row {
    fn new(id: Uuid, worker: &Worker, now: At) -> Self {
        Self {
            id,
            profile: Arc::clone(&worker.profile),
            created: worker.created,
            last_heartbeat: worker.last_heartbeat,
            free: worker.profile.slots.keys().map(|kind| (kind.clone(), worker.free_slots(kind))).collect(),
            status: worker.status(now),
        }
    }

    /// The fields that all responses have.
    fn summary(&self) -> Value {
        let Profile { name, slots, runtime, .. } = &*self.profile;
        let slots: Map<_, _> = slots
            .iter()
            .map(|(kind, limit)| {
                let available = self.free.get(kind).copied().unwrap_or_default();
                (kind.clone(), json!({"available": available, "limit": limit}))
            })
            .collect();
        let created = millis(self.created);
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
            "metadata": {"id": self.id.to_string(), "createdAt": created, "updatedAt": created},
            "actions": Value::Null,
            "dispatcherId": DISPATCHER.to_string(),
            "name": name,
            "runtimeInfo": info,
            "slotConfig": slots,
            "status": self.status,
            "type": "SELFHOSTED",
        });
        if let Some(last) = self.last_heartbeat {
            extend(&mut row, json!({"lastHeartbeatAt": millis(last)}));
        }
        row
    }

    /// All fields, including actions and labels.
    fn render(&self) -> Value {
        let created = millis(self.created);
        let labels = self.profile.labels.iter().map(|(key, label)| {
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
        let mut row = self.summary();
        extend(&mut row, json!({"actions": self.profile.actions, "labels": labels}));
        row
    }
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
struct ListQuery {
    statuses: Vec<String>,
    labels: Vec<(String, String)>,
    offset: usize,
    limit: usize,
}

impl ListQuery {
    fn parse(query: &Query) -> Result<Self, Rejection> {
        let label = |text: &str| {
            let pair = text.split_once(':').filter(|(key, value)| !key.is_empty() && !value.is_empty());
            let problem = || bad_request(format!("invalid label filter format: {text}, expected key:value"));
            pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(problem)
        };
        Ok(Self {
            statuses: query.all("statuses").map(str::to_owned).collect(),
            labels: query.all("labels").map(label).collect::<Result<_, _>>()?,
            offset: query.number("offset")?.unwrap_or(0),
            limit: query.limit()?.unwrap_or(DEFAULT_LIMIT),
        })
    }

    fn matches(&self, worker: &Worker, now: At) -> bool {
        let has =
            |(key, value): &(String, String)| worker.profile.labels.get(key).and_then(text).as_ref() == Some(value);
        worker.last_heartbeat.is_some_and(|last| now.signed_duration_since(last) < LISTED_FOR)
            && (self.statuses.is_empty() || self.statuses.iter().any(|status| status == worker.status(now)))
            && self.labels.iter().all(has)
    }

    fn find(&self, core: &Core, now: At) -> RowPage<Row> {
        let mut all: Vec<_> = core.workers().filter(|(_, worker)| self.matches(worker, now)).collect();
        all.sort_by_key(|(id, worker)| Reverse((worker.created, *id)));
        let (page, pages) = match self.limit {
            0 => (1, 0),
            limit => (self.offset.div_ceil(limit).saturating_add(1), all.len().div_ceil(limit)),
        };
        let next = if page == pages { page } else { page.saturating_add(1) };
        let found = all.iter().skip(self.offset).take(self.limit);
        RowPage {
            pagination: json!({"current_page": page, "next_page": next, "num_pages": pages}),
            rows: found.map(|(id, worker)| Row::new(*id, worker, now)).collect(),
        }
    }
}

async fn list(OfTenant(api): OfTenant, query: Query) -> RestResult {
    let list = ListQuery::parse(&query)?;
    let found = api.core.call(move |core, turn| list.find(core, turn.now)).await?;
    Ok(found.render(|row| row.render()))
}

/// The server fails with 500 for a worker without actions.
async fn one(State(api): State<RestApi>, Path(worker): Path<String>, authorization: Authorization) -> RestResult {
    let id = id(&worker, "worker")?;
    let read = move |core: &Core, now| {
        let worker = core.worker(id)?;
        let workflows: Vec<_> = core.workflows_of(worker).map(|(id, name)| (id, name.to_owned())).collect();
        Some((Row::new(id, worker, now), workflows))
    };
    let (row, workflows) = api.find_and_authorize(&authorization, Rejection::NOT_FOUND, read).await?;
    if row.profile.actions.is_empty() {
        return Err(Rejection::INTERNAL);
    }
    let workflows: Vec<_> =
        workflows.into_iter().map(|(id, name)| json!({"id": id.to_string(), "name": name})).collect();
    let mut shown = row.render();
    extend(&mut shown, json!({"recentStepRuns": [], "registeredWorkflows": workflows}));
    Ok(respond(&shown))
}

async fn pause(
    State(api): State<RestApi>,
    Path(worker): Path<String>,
    authorization: Authorization,
    body: Bytes,
) -> RestResult {
    let worker = id(&worker, "worker")?;
    api.find_and_authorize(&authorization, Rejection::NOT_FOUND, move |core, _| core.worker(worker).map(drop)).await?;
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let found = api
        .core
        .call(move |core, turn| {
            if let Some(paused) = request.get("isPaused").and_then(Value::as_bool) {
                core.pause(turn, worker, paused);
            }
            Some(Row::new(worker, core.worker(worker)?, turn.now))
        })
        .await?;
    Ok(respond(&found.ok_or(Rejection::NOT_FOUND)?.summary()))
}
