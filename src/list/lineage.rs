//! The children and the reruns of a run.

use super::query::RunQuery;
use crate::client::Client;
use crate::error::Result;
use crate::model::trigger::RERUN_KEY;
use crate::model::{RunFilter, RunId, RunSummary, TaskId, Window};
use crate::observe::RunFetch;
use crate::request::ReadBuilder;
use crate::run::RunHandle;

impl<O> RunHandle<O> {
    /// Returns a query for the reruns of this run that the engine still has.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
    /// println!("{} reruns", run.reruns().count().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn reruns(&self) -> RunQuery {
        self.client().runs(RunFilter::new(Window::all()).own_metadata(RERUN_KEY, &self.id().to_string()))
    }

    /// Returns a query for the runs that one of this run's tasks has started.
    ///
    /// The task of a single-task run has the id of its run, so for such a run, use `run.children_of(run.id())`.
    pub fn children_of(&self, task: impl Into<TaskId>) -> RunQuery {
        self.client().runs(RunFilter::new(Window::all()).parent(task))
    }

    /// Returns a request for all runs that this run's tasks have started: task by task, the newest child of each task first.
    ///
    /// # Errors
    /// [`RunNotFound`](crate::ErrorKind::RunNotFound) if the engine has no such run.
    ///
    /// # Cancel safety
    /// The request is cancel safe: it only reads.
    pub fn children(&self) -> ReadBuilder<Vec<RunSummary>> {
        let id = self.id();
        ReadBuilder::new(self.client(), move |client| async move { children(&client, id).await })
    }
}

async fn children(client: &Client, run: RunId) -> Result<Vec<RunSummary>> {
    let mut all = Vec::new();
    for task in RunFetch::new(run).fetch(client).await?.tasks {
        let mut children = client.runs(RunFilter::new(Window::all()).parent(task.id)).items();
        while let Some(child) = children.next().await {
            all.push(child?);
        }
    }
    Ok(all)
}
