//! Starting runs, and finding out about one: handle, outcome, details.

mod behind;
pub(crate) mod cancel;
mod chunk;
mod classify;
mod details;
mod evidence;
mod gather;
mod handle;
mod history;
mod logs;
mod many;
mod placement;
pub(crate) mod replay;
mod rerun;
mod settle;
mod start;
mod workflow_cache;

pub use cancel::{CancelBuilder, CancelManyBuilder};
pub(crate) use chunk::{Took, all_failed, fits, in_chunks};
pub(crate) use classify::quick;
pub(crate) use evidence::TaskEnd;
pub(crate) use gather::{Look, newest_attempts};
pub use handle::RunHandle;
pub use logs::LogItems;
pub use many::RunManyBuilder;
pub use replay::{ReplayBuilder, ReplayManyBuilder, Replayed};
pub use rerun::RerunBuilder;
pub(crate) use start::{Parent, watch_tag};
pub use start::{RunBuilder, Runnable, WorkflowRef};
pub(crate) use workflow_cache::WorkflowCache;
