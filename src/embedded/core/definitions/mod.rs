//! Workflow definitions: the engine's checks, in its words, and the versions that it makes of them.

pub(crate) mod check;
pub(crate) mod expressions;
mod graph;
pub(crate) mod options;
pub(crate) mod versions;
