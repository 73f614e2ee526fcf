//! The identity of an attempt.

use std::collections::{HashMap, HashSet};

use rustc_hash::FxBuildHasher;

use crate::error::Result;
use crate::model::{RunId, TaskId, attempt_number, parse_id};
use crate::rpc::convert::Action;

/// A map whose keys come from the engine that the worker trusts, or from the runtime. It needs no protection against chosen keys, which
/// would cost more than the lookup.
pub(super) type KeyMap<K, V> = HashMap<K, V, FxBuildHasher>;
pub(super) type KeySet<K> = HashSet<K, FxBuildHasher>;

/// Identifies one attempt: a result is sent for exactly that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) run: RunId,
    pub(super) task: TaskId,
    pub(super) retry_count: u32,
}

impl Key {
    pub(super) fn read(action: &Action) -> Result<Self> {
        Ok(Self { run: parse_id(action.run())?, task: parse_id(action.task())?, retry_count: action.retry_count() })
    }

    /// The number of the attempt, starting at 1.
    pub(super) fn attempt(&self) -> u32 {
        attempt_number(self.retry_count)
    }
}
