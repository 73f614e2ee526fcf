//! The children and the reruns of a run.

use super::items::RunItems;
use super::selection::Selection;
use crate::error::Result;
use crate::model::trigger::RERUN_KEY;
use crate::model::{RunFilter, RunSummary, TaskId, Window};
use crate::run::RunHandle;

impl<O> RunHandle<O> {
    /// Returns a stream of the reruns of this run, newest first, as far as the engine still has them.
    pub fn reruns(&self) -> RunItems {
        let filter = RunFilter::new(Window::all()).own_metadata(RERUN_KEY, &self.id().to_string());
        RunItems::new(Selection::of_runs(self.client().clone(), filter))
    }

    /// Returns a stream of the runs that one of this run's tasks has started, newest first. The task of a single-task run has the id of
    /// its run: `run.children_of(run.id())`.
    pub fn children_of(&self, task: impl Into<TaskId>) -> RunItems {
        let filter = RunFilter::new(Window::all()).parent(task);
        RunItems::new(Selection::of_runs(self.client().clone(), filter))
    }

    /// Returns all runs that this run's tasks have started: task by task, the newest child of each task first.
    ///
    /// # Errors
    /// [`RunNotFound`](crate::ErrorKind::RunNotFound) if the engine has no such run.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn children(&self) -> Result<Vec<RunSummary>> {
        let mut all = Vec::new();
        for task in self.tasks().await? {
            let mut children = self.children_of(task);
            while let Some(child) = children.next().await {
                all.push(child?);
            }
        }
        Ok(all)
    }
}
