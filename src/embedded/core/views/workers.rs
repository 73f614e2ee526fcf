//! What REST shows of workers.

use crate::embedded::core::store::{At, Worker};

impl Worker {
    pub(crate) fn status(&self, now: At) -> &'static str {
        match (self.is_active(now), self.paused_since().is_some()) {
            (false, _) => "INACTIVE",
            (true, true) => "PAUSED",
            (true, false) => "ACTIVE",
        }
    }
}
