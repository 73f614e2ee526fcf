//! Events.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use chrono::TimeDelta;
use serde_json::{Value, json};
use uuid::Uuid;

use super::api::RestApi;
use super::json::{extend, meta, object, timestamp};
use super::query::Query;
use super::request::{OfOne, OfTenant};
use super::response::{Rejection, RestResult, respond};
use super::rows::RowPage;
use crate::embedded::core::store::{At, Event, Run};
use crate::embedded::core::{Core, MetadataFilter, RestStatus};
use crate::embedded::quirks::Quirk;

/// The default time range of the server.
const DEFAULT_WINDOW: TimeDelta = TimeDelta::hours(24);
/// The maximum total: the server counts no further.
const MAX_COUNTED: usize = 20_000;

pub(super) fn routes() -> Router<RestApi> {
    Router::new()
        .route("/api/v1/stable/tenants/{tenant}/events", get(list))
        .route("/api/v1/stable/tenants/{tenant}/events/keys", get(keys))
        .route("/api/v1/stable/tenants/{tenant}/events/{event}", get(one))
}

/// The runs of an event that REST shows.
fn runs<'a>(core: &'a Core, event: &'a Event, now: At) -> impl Iterator<Item = (&'a Run, Option<Uuid>)> {
    let known = core.shows_runs_of(event, now);
    event.runs.iter().filter(move |_| known).filter_map(move |(run, filter)| Some((core.rest_run(*run, now)?, *filter)))
}

/// The parts of an event that a response shows.
struct Row {
    event: Arc<Event>,
    /// The runs that it started, with their filters and statuses.
    runs: Vec<(Uuid, Option<Uuid>, RestStatus)>,
}

impl Row {
    fn new(core: &Core, event: &Arc<Event>, now: At) -> Self {
        let mut runs: Vec<_> =
            runs(core, event, now).map(|(run, filter)| (run.id, filter, run.rest_status())).collect();
        if core.has(Quirk::UnorderedRows) {
            runs.sort_by_key(|(run, ..)| *run);
        }
        Self { event: Arc::clone(event), runs }
    }

    fn render(&self) -> Value {
        let Self { event, runs } = self;
        let triggered: Vec<_> = runs
            .iter()
            .map(|(run, filter, _)| match filter {
                Some(filter) => json!({"workflowRunId": run.to_string(), "filterId": filter.to_string()}),
                None => json!({"workflowRunId": run.to_string()}),
            })
            .collect();
        let count = |status: RestStatus| runs.iter().filter(|(.., other)| *other == status).count();
        let mut row = json!({
            "metadata": meta(event.id, event.at),
            "additionalMetadata": object(&event.metadata),
            "key": &*event.key,
            "payload": object(&event.payload),
            "seenAt": timestamp(event.at),
            "tenantId": "",
            // It is null instead of an empty list.
            "triggeredRuns": if triggered.is_empty() { Value::Null } else { triggered.into() },
            "workflowRunSummary": {
                "queued": count(RestStatus::Queued),
                "running": count(RestStatus::Running),
                "succeeded": count(RestStatus::Completed),
                "failed": count(RestStatus::Failed),
                "cancelled": count(RestStatus::Cancelled),
            },
        });
        if let Some(scope) = &event.scope {
            extend(&mut row, json!({"scope": &**scope}));
        }
        row
    }
}

async fn one(request: OfOne) -> RestResult {
    let read = |core: &Core, id, now| Some(Row::new(core, core.event(id, now)?, now));
    let mut row = request.find("event", Rejection::NOT_FOUND, read).await?.1.render();
    extend(&mut row, json!({"triggeringWebhookName": ""}));
    Ok(respond(&row))
}

async fn list(OfTenant(api): OfTenant, query: Query) -> RestResult {
    let list = ListQuery::parse(&query)?;
    let found = api.core.call(move |core, turn| list.find(core, turn.now)).await?;
    Ok(found.render(|row| row.render()))
}

/// The keys of all events of the last day.
async fn keys(OfTenant(api): OfTenant) -> RestResult {
    let read = |core: &Core, now: At| {
        let recent = core.events(now, None).take_while(|event| now.signed_duration_since(event.at) < DEFAULT_WINDOW);
        let keys: BTreeSet<_> = recent.map(|event| &*event.key).collect();
        json!({ "rows": keys })
    };
    Ok(respond(&api.core.call(move |core, turn| read(core, turn.now)).await?))
}

/// The query of a list of events.
struct ListQuery {
    since: Option<At>,
    until: Option<At>,
    keys: Vec<String>,
    scopes: Vec<String>,
    ids: Vec<Uuid>,
    workflows: Vec<Uuid>,
    statuses: Vec<String>,
    metadata: MetadataFilter,
    offset: usize,
    limit: usize,
}

impl ListQuery {
    fn parse(query: &Query) -> Result<Self, Rejection> {
        let texts = |name: &str| query.all(name).map(str::to_owned).collect::<Vec<_>>();
        let limit = query.limit()?.unwrap_or(50);
        let metadata = MetadataFilter::all(query.all("additionalMetadata")).map_err(|_| Rejection::INTERNAL)?;
        if limit == 0 {
            return Err(Rejection::INTERNAL);
        }
        Ok(Self {
            since: query.time("since")?,
            until: query.time("until")?,
            keys: texts("keys"),
            scopes: texts("scopes"),
            ids: query.ids("eventIds")?,
            workflows: query.ids("workflowIds")?,
            statuses: texts("workflowRunStatuses"),
            metadata,
            offset: query.number("offset")?.unwrap_or(0),
            limit,
        })
    }

    fn matches(&self, core: &Core, event: &Event, now: At) -> bool {
        let contains = |texts: &[String], text: &str| texts.is_empty() || texts.iter().any(|other| other == text);
        let of_runs = |is: &dyn Fn(&Run) -> bool| runs(core, event, now).any(|(run, _)| is(run));
        contains(&self.keys, &event.key)
            && (self.scopes.is_empty() || event.scope.as_deref().is_some_and(|scope| contains(&self.scopes, scope)))
            && (self.ids.is_empty() || self.ids.contains(&event.id))
            && (self.workflows.is_empty() || of_runs(&|run| self.workflows.contains(&run.version.workflow)))
            && (self.statuses.is_empty() || of_runs(&|run| contains(&self.statuses, run.rest_status().name())))
            && self.metadata.matches(serde_json::from_str(&event.metadata).ok().as_ref())
    }

    fn find(&self, core: &Core, now: At) -> RowPage<Row> {
        let since = self.since.or_else(|| now.checked_sub_signed(DEFAULT_WINDOW));
        let found: Vec<_> = core
            .events(now, self.until)
            .take_while(|event| since.is_none_or(|since| event.at >= since))
            .filter(|event| self.matches(core, event, now))
            .take(MAX_COUNTED)
            .collect();
        let page = self.offset.checked_div(self.limit).unwrap_or_default().saturating_add(1);
        let pages = found.len().div_ceil(self.limit);
        let next = if page < pages { page.saturating_add(1) } else { page };
        let found = found.into_iter().skip(self.offset).take(self.limit);
        RowPage {
            pagination: json!({"current_page": page, "next_page": next, "num_pages": pages}),
            rows: found.map(|event| Row::new(core, event, now)).collect(),
        }
    }
}
