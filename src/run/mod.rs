//! Commands on runs: starting one and many, cancelling, replaying, rerunning.

mod batch;
pub(crate) mod cancel;
mod cancel_reason;
mod effect;
mod handle;
mod inputs;
mod many;
mod options;
mod placement;
mod reconcile;
pub(crate) mod replay;
mod rerun;
mod resend;
mod start;

pub(crate) use batch::{Took, all_failed, batched, fits};
pub use cancel::{CancelBuilder, CancelManyBuilder};
pub use cancel_reason::CancelReason;
pub use handle::RunHandle;
pub(crate) use inputs::{Each, Inputs};
pub use many::RunManyBuilder;
pub use options::{ReplayOptions, RunOptions};
pub use replay::{ReplayBuilder, ReplayManyBuilder, Replayed};
pub use rerun::RerunBuilder;
pub(crate) use start::{Numbered, Parent};
pub use start::{RunBuilder, Runnable, WorkflowRef};
