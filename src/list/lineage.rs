//! From one run to those that it has to do with.

use super::items::RunItems;
use crate::error::Result;
use crate::model::trigger::RERUN_KEY;
use crate::model::{RunFilter, TaskId, Window};
use crate::run::RunHandle;

impl<O> RunHandle<O> {
    /// The reruns of this run, newest first, as far as the engine still has them.
    pub fn reruns(&self) -> RunItems {
        let filter = RunFilter::new(Window::all()).own_metadata(RERUN_KEY, &self.id().to_string());
        RunItems::new(self.client().clone(), filter)
    }

    /// The runs that one of this run's tasks has started, newest first. The task of a one-task run has the id of its run:
    /// `run.children_of(run.id())`.
    pub fn children_of(&self, task: impl Into<TaskId>) -> RunItems {
        RunItems::new(self.client().clone(), RunFilter::new(Window::all()).parent(task))
    }

    /// All runs that this run's tasks have started: task by task, each task's newest first.
    ///
    /// # Errors
    /// [`RunNotFound`](crate::ErrorKind::RunNotFound) if the engine has no such run.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn children(&self) -> Result<Vec<crate::model::RunSummary>> {
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
