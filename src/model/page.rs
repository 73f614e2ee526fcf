//! Pages of lists.

use serde::{Deserialize, Serialize};

use super::{RunSummary, Total};

/// The newest matching runs, and the number of all matching runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Page {
    /// The newest matching runs, newest first.
    pub runs: Vec<RunSummary>,
    /// The number of all matching runs.
    pub total: Total,
}
