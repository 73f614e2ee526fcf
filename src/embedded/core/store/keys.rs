//! Idempotency keys in use.

use std::collections::HashMap;

use uuid::Uuid;

use super::turn::At;

/// With fewer keys than this, expired keys are not removed.
const MIN_KEYS_TO_CLEAR: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct Keys {
    taken: HashMap<Box<str>, Holder>,
    /// The number of keys at which expired ones are removed next.
    clear_at: usize,
}

#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) run: Uuid,
    pub(crate) until: At,
    /// Whether the end of the run frees the key as well.
    pub(crate) ends_with_run: bool,
}

impl Keys {
    /// The run that has a key.
    pub(crate) fn holder(&self, key: &str, now: At) -> Option<Uuid> {
        self.taken.get(key).filter(|holder| holder.until > now).map(|holder| holder.run)
    }

    pub(crate) fn take(&mut self, key: &str, holder: Holder, now: At) {
        if self.taken.len() >= self.clear_at.max(MIN_KEYS_TO_CLEAR) {
            self.taken.retain(|_, holder| holder.until > now);
            self.clear_at = 2 * self.taken.len();
        }
        self.taken.insert(key.into(), holder);
    }

    /// Frees the key of a run that has ended.
    pub(crate) fn free(&mut self, key: &str, run: Uuid) {
        if self.taken.get(key).is_some_and(|holder| holder.run == run && holder.ends_with_run) {
            self.taken.remove(key);
        }
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.taken.len()
    }
}
