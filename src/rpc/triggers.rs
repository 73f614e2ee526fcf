//! REST: what starts runs by itself.

use std::collections::HashSet;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::rest::Rest;
use super::rest_types::Rows;
use super::trigger_types::{CronRow, Event, NewCron, ScheduleRow};
use crate::error::{Answer, Error, ErrorKind, Result};
use crate::transport::{Call, RestCall};

/// Rows for each question.
const PAGE: usize = 200;

impl Rest {
    /// An event with the runs that it started. Not found for about a tenth of a second after it was pushed.
    pub(crate) async fn event(&self, event: &str) -> Result<Event> {
        self.read("reading the event", RestCall::get(&["stable", "tenants", self.tenant(), "events", event])).await
    }

    /// A schedule. Not found as soon as it has started its run.
    pub(crate) async fn schedule(&self, schedule: &str) -> Result<ScheduleRow> {
        self.read("reading the schedule", self.of_workflows(&["scheduled", schedule], RestCall::get)).await
    }

    /// All schedules that have not started their runs yet, with a tag if one is given.
    pub(crate) async fn schedules(&self, parameters: &[(&str, String)]) -> Result<Vec<ScheduleRow>> {
        self.all("listing the schedules", "scheduled", parameters).await
    }

    pub(crate) async fn delete_schedule(&self, schedule: &str) -> Result<()> {
        let name = "deleting the schedule";
        match self.send(name, &self.of_workflows(&["scheduled", schedule], RestCall::delete)).await {
            // The second time, it is gone already.
            Err(error) if error.is_not_found() => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Moves a schedule to another time.
    pub(crate) async fn reschedule(&self, schedule: &str, at: &str) -> Result<ScheduleRow> {
        let body = serde_json::json!({ "triggerAt": at }).to_string();
        let call = self.of_workflows(&["scheduled", schedule], |path| RestCall::patch(path, body));
        self.read("rescheduling", call).await
    }

    /// Makes a cron. One of the same name and expression exists: refused.
    pub(crate) async fn create_cron(&self, workflow: &str, cron: &NewCron) -> Result<CronRow> {
        let name = "creating the cron";
        let body = serde_json::to_string(cron).map_err(|error| Error::invalid("cron", error))?;
        let call = self.of_workflows(&[workflow, "crons"], |path| RestCall::post(path, body));
        let answer = self.send_as(Call::once(name), &call).await?;
        super::rest::decode(name, &answer)
    }

    pub(crate) async fn cron(&self, cron: &str) -> Result<CronRow> {
        let name = "reading the cron";
        let answer = self.about_cron(name, cron, RestCall::get).await?;
        super::rest::decode(name, &answer)
    }

    pub(crate) async fn crons(&self, parameters: &[(&str, String)]) -> Result<Vec<CronRow>> {
        self.all("listing the crons", "crons", parameters).await
    }

    /// Lets a cron start runs, or no more.
    pub(crate) async fn enable_cron(&self, cron: &str, enabled: bool) -> Result<()> {
        let name = if enabled { "resuming the cron" } else { "pausing the cron" };
        let body = serde_json::json!({ "enabled": enabled }).to_string();
        self.about_cron(name, cron, |path| RestCall::patch(path, body)).await.map(drop)
    }

    pub(crate) async fn delete_cron(&self, cron: &str) -> Result<()> {
        self.about_cron("deleting the cron", cron, RestCall::delete).await.map(drop)
    }

    /// A call about one cron. The server answers with an internal error for one that is not there, as it does when something
    /// is wrong; which of the two it is, the list tells.
    async fn about_cron(
        &self,
        name: &'static str,
        cron: &str,
        call: impl FnOnce(&[&str]) -> RestCall,
    ) -> Result<Bytes> {
        let error = match self.send_as(Call::once(name), &self.of_workflows(&["crons", cron], call)).await {
            Err(error) if error.answer() == Some(Answer::Http(500)) => error,
            answer => return answer,
        };
        match self.crons(&[]).await {
            Ok(crons) if crons.iter().all(|row| row.as_ref() != cron) => {
                Err(Error::new(ErrorKind::NotFound, format!("the server has no cron {cron}"))
                    .with_source(error)
                    .unsent())
            }
            _ => Err(error),
        }
    }

    /// A call below the tenant's workflows.
    fn of_workflows(&self, rest: &[&str], call: impl FnOnce(&[&str]) -> RestCall) -> RestCall {
        call(&[&["tenants", self.tenant(), "workflows"], rest].concat())
    }

    /// All rows of a list, page by page. A row that moves from one page to another while that goes on is there once.
    async fn all<T: DeserializeOwned + AsRef<str>>(
        &self,
        name: &'static str,
        list: &str,
        parameters: &[(&str, String)],
    ) -> Result<Vec<T>> {
        let (mut all, mut known) = (Vec::new(), HashSet::new());
        for page in 0.. {
            let call = self
                .of_workflows(&[list], RestCall::get)
                .query("limit", &PAGE.to_string())
                .query("offset", &(page * PAGE).to_string());
            let call = parameters.iter().fold(call, |call, (name, value)| call.query(name, value));
            let rows = self.read::<Rows<T>>(name, call).await?.rows.unwrap_or_default();
            let is_full = rows.len() >= PAGE;
            all.extend(rows.into_iter().filter(|row| known.insert(row.as_ref().to_owned())));
            if !is_full {
                break;
            }
        }
        Ok(all)
    }
}
