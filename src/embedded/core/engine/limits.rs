//! Commands on rate limits.

use crate::embedded::core::runs::rates;
use crate::embedded::core::store::{Core, Turn, Window};

impl Core {
    /// Creates a rate limit, or changes it.
    pub(crate) fn put_rate_limit(&mut self, turn: &mut Turn<'_>, key: &str, limit: i32, window: Window) {
        rates::put(self, turn, key, limit, window);
    }

    /// Deletes a rate limit, if it exists. Returns false if a workflow uses it.
    pub(crate) fn delete_rate_limit(&mut self, key: &str) -> bool {
        if self.workflows.oldest_first().any(|(_, workflow)| workflow.latest.uses_rate_limit(key)) {
            return false;
        }
        if let Some(timer) = self.rate_limits.remove(key).and_then(|limit| limit.timer) {
            self.timers.clear(timer);
        }
        true
    }
}
