//! The REST calls about events, schedules, crons and rate limits.

use std::collections::HashSet;

use serde::de::DeserializeOwned;

use super::convert::Rows;
use super::convert::limit::RateLimitRow;
use super::convert::rest_events_and_crons::{CronRow, Event, NewCron, Row, ScheduleRow};
use super::rest::{Rest, with};
use crate::error::{Error, ErrorKind, Result, ServerStatus};
use crate::model::{CronId, EventId, ScheduleId};
use crate::transport::{Call, RestCall};

/// The number of rows in one request.
const PAGE_SIZE: usize = 200;
/// The number of rows that two pages have in common.
const OVERLAPPING_ROWS: usize = 10;

impl Rest {
    /// An event with the runs that it started. Not found for about a tenth of a second after it was pushed.
    pub(crate) async fn event(&self, event: EventId) -> Result<Event> {
        self.read(
            "reading the event",
            RestCall::get(&["stable", "tenants", self.tenant(), "events", &event.to_string()]),
        )
        .await
    }

    /// A schedule. Not found as soon as it has started its run.
    pub(crate) async fn schedule(&self, schedule: ScheduleId) -> Result<ScheduleRow> {
        self.read("reading the schedule", self.of_workflows(&["scheduled", &schedule.to_string()], RestCall::get)).await
    }

    /// All schedules that have not started their runs, with the tags of the parameters.
    pub(crate) async fn schedules(&self, parameters: &[(&str, String)]) -> Result<Vec<ScheduleRow>> {
        self.all("listing the schedules", self.of_workflows(&["scheduled"], RestCall::get), parameters).await
    }

    pub(crate) async fn delete_schedule(&self, schedule: ScheduleId) -> Result<()> {
        let name = "deleting the schedule";
        match self.send(name, &self.of_workflows(&["scheduled", &schedule.to_string()], RestCall::delete)).await {
            // It was deleted by an earlier try.
            Err(error) if error.is_not_found() => Ok(()),
            response => response.map(drop),
        }
    }

    /// Moves a schedule to another time.
    pub(crate) async fn reschedule(&self, schedule: ScheduleId, at: &str) -> Result<ScheduleRow> {
        let body = serde_json::json!({ "triggerAt": at }).to_string();
        let call = self.of_workflows(&["scheduled", &schedule.to_string()], |path| RestCall::patch(path, body));
        self.read("rescheduling", call).await
    }

    /// Creates a cron. The server rejects it if one with the same name and expression exists.
    pub(crate) async fn create_cron(&self, workflow: &str, cron: &NewCron) -> Result<CronRow> {
        let name = "creating the cron";
        let body = serde_json::to_string(cron).map_err(|error| Error::invalid("cron", error))?;
        let call = self.of_workflows(&[workflow, "crons"], |path| RestCall::post(path, body));
        let response = self.send_as(Call::once(name), &call).await?;
        super::rest::decode(name, &response)
    }

    pub(crate) async fn cron(&self, cron: CronId) -> Result<CronRow> {
        let error = match self
            .read("reading the cron", self.of_workflows(&["crons", &cron.to_string()], RestCall::get))
            .await
        {
            Err(error) if may_be_unknown(&error) => error,
            response => return response,
        };
        match self.find_cron(cron).await {
            Ok(Some(row)) => Ok(row),
            Ok(None) => Err(no_cron(cron, error).without_side_effects()),
            Err(_) => Err(error),
        }
    }

    pub(crate) async fn crons(&self, parameters: &[(&str, String)]) -> Result<Vec<CronRow>> {
        self.all("listing the crons", self.of_workflows(&["crons"], RestCall::get), parameters).await
    }

    /// Resumes or pauses a cron.
    pub(crate) async fn enable_cron(&self, cron: CronId, enabled: bool) -> Result<()> {
        let name = if enabled { "resuming the cron" } else { "pausing the cron" };
        let body = serde_json::json!({ "enabled": enabled }).to_string();
        let call = self.of_workflows(&["crons", &cron.to_string()], |path| RestCall::patch(path, body));
        self.change_cron(Call::idempotent(name), cron, &call).await
    }

    pub(crate) async fn delete_cron(&self, cron: CronId) -> Result<()> {
        let call = self.of_workflows(&["crons", &cron.to_string()], RestCall::delete);
        self.change_cron(Call::once("deleting the cron"), cron, &call).await
    }

    async fn change_cron(&self, kind: Call, cron: CronId, call: &RestCall) -> Result<()> {
        match self.send_as(kind, call).await {
            Err(error) if may_be_unknown(&error) => match self.find_cron(cron).await {
                Ok(None) => Err(no_cron(cron, error)),
                _ => Err(error),
            },
            response => response.map(drop),
        }
    }

    /// Finds a cron in the list, which shows whether it exists.
    async fn find_cron(&self, cron: CronId) -> Result<Option<CronRow>> {
        Ok(self.crons(&[]).await?.into_iter().find(|row| row.id() == cron))
    }

    /// All rate limits with the parameters.
    pub(crate) async fn rate_limits(&self, parameters: &[(&str, String)]) -> Result<Vec<RateLimitRow>> {
        self.all("listing the rate limits", self.rate_limit_path(RestCall::get), parameters).await
    }

    /// Deletes a rate limit. The server answers the same if it does not exist.
    pub(crate) async fn delete_rate_limit(&self, key: &str) -> Result<()> {
        let call = self.rate_limit_path(RestCall::delete).query("key", key);
        self.send("deleting the rate limit", &call).await.map(drop)
    }

    fn rate_limit_path(&self, call: impl FnOnce(&[&str]) -> RestCall) -> RestCall {
        call(&["tenants", self.tenant(), "rate-limits"])
    }

    /// A call below the tenant's workflows.
    fn of_workflows(&self, rest: &[&str], call: impl FnOnce(&[&str]) -> RestCall) -> RestCall {
        call(&[&["tenants", self.tenant(), "workflows"], rest].concat())
    }

    /// All rows of a list, page by page. A row that moves from one page to another meanwhile is returned once.
    async fn all<T: DeserializeOwned + Row>(
        &self,
        name: &'static str,
        list: RestCall,
        parameters: &[(&str, String)],
    ) -> Result<Vec<T>> {
        let (mut all, mut known, mut offset) = (Vec::new(), HashSet::new(), 0_usize);
        loop {
            let call = list.clone().query("limit", &PAGE_SIZE.to_string()).query("offset", &offset.to_string());
            let rows = self.read::<Rows<T>>(name, with(call, parameters)).await?.rows.unwrap_or_default();
            // Rows that are deleted meanwhile move the others up: a page without a row of the last one has missed some.
            if offset > 0 && !rows.iter().any(|row| known.contains(&row.id())) {
                offset = offset.saturating_sub(PAGE_SIZE / 2);
                continue;
            }
            let count = rows.len();
            all.extend(rows.into_iter().filter(|row| known.insert(row.id())));
            if count < PAGE_SIZE {
                return Ok(all);
            }
            offset += PAGE_SIZE - OVERLAPPING_ROWS;
        }
    }
}

fn no_cron(cron: CronId, error: Error) -> Error {
    let text = format!("the server has no cron {cron}");
    let response = error.status();
    let not_found = Error::new(ErrorKind::NotFound, text).with_source(error);
    response.into_iter().fold(not_found, Error::with_status)
}

/// The server has the same response for a cron that does not exist as for an internal error.
fn may_be_unknown(error: &Error) -> bool {
    error.status() == Some(ServerStatus::Http(500))
}
