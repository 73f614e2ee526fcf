//! Starting runs, and finding out about one: handle, outcome, details.

mod chunk;
mod classify;
mod details;
mod directory;
mod evidence;
mod handle;
mod history;
mod many;
mod placement;
mod settle;
mod start;

pub(crate) use chunk::{Chunk, fail, fits};
pub(crate) use classify::quick;
pub(crate) use details::{Patience, events, look};
pub(crate) use directory::Directory;
pub(crate) use evidence::TaskEnd;
pub use handle::RunHandle;
pub(crate) use history::attempts;
pub use many::RunManyBuilder;
pub(crate) use start::watch_tag;
pub use start::{RunBuilder, Runnable, WorkflowRef};
