//! Which schedules and crons there are.

use super::cron::{self, CronDetails};
use super::schedule::{self, ScheduleDetails};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::model::metadata::check_key;
use crate::run::WorkflowCache;

impl Client {
    /// Asks for the schedules that are still to come.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// for schedule in hatchet.schedules().workflow("remind").list().await? {
    ///     println!("{} at {}", schedule.id, schedule.at);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn schedules(&self) -> ScheduleQuery {
        ScheduleQuery(Asked::new(self))
    }

    /// Asks for the crons there are, those of definitions among them.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// for cron in hatchet.crons().workflow("report").list().await? {
    ///     println!("{} {} {}", cron.name, cron.expression, if cron.enabled { "" } else { "(paused)" });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn crons(&self) -> CronQuery {
        CronQuery(Asked::new(self))
    }
}

#[derive(Debug, Clone)]
struct Asked {
    client: Client,
    workflow: Option<String>,
    metadata: Vec<(String, String)>,
}

impl Asked {
    fn new(client: &Client) -> Self {
        Self { client: client.clone(), workflow: None, metadata: Vec::new() }
    }

    async fn parameters(&self) -> Result<Vec<(&'static str, String)>> {
        for (key, value) in &self.metadata {
            check_key(key)?;
            if value.contains(':') {
                // The server cuts at each.
                return Err(Error::invalid(
                    "filter",
                    format_args!("found {value:?}, accepted: a value without a colon"),
                ));
            }
        }
        let mut all: Vec<_> =
            self.metadata.iter().map(|(key, value)| ("additionalMetadata", format!("{key}:{value}"))).collect();
        if let Some(workflow) = &self.workflow {
            all.push(("workflowId", WorkflowCache::find(&self.client, workflow).await?.to_string()));
        }
        Ok(all)
    }
}

macro_rules! query {
    ($(#[$doc:meta])* $name:ident, $what:literal, $details:ident, $call:ident, $convert:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        #[must_use = "nothing is asked before `list`"]
        pub struct $name(Asked);

        impl $name {
            #[doc = concat!("Only ", $what, " of this workflow.")]
            pub fn workflow(mut self, name: impl Into<String>) -> Self {
                self.0.workflow = Some(name.into());
                self
            }

            #[doc = concat!("Only ", $what, " with this tag; given several times, with all of them.")]
            pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
                self.0.metadata.push((key.into(), value.into()));
                self
            }

            /// Asks for all of them, page by page.
            ///
            /// # Errors
            /// [`WorkflowNotFound`](crate::ErrorKind::WorkflowNotFound); [`InvalidInput`](crate::ErrorKind::InvalidInput) for a
            /// tag that the server would misunderstand.
            ///
            /// # Cancel safety
            /// This method is cancel safe: it only reads.
            pub async fn list(self) -> Result<Vec<$details>> {
                let parameters = self.0.parameters().await?;
                let rows = self.0.client.rpc().rest.$call(&parameters).await?;
                rows.into_iter().map(|row| $convert(&self.0.client, row)).collect()
            }
        }
    };
}

query! {
    /// A question about schedules.
    ScheduleQuery, "schedules", ScheduleDetails, schedules, schedule::details
}

query! {
    /// A question about crons.
    CronQuery, "crons", CronDetails, crons, cron::details
}
