//! A budget for retries: they may be a tenth of the calls, not a multiple of them.
//!
//! With a fixed number of tries per call, a server that is down gets that many times its usual load, just when it can bear
//! it least. So each retry takes a token and each success gives a tenth of one back.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Counted in tenths of a retry.
const FULL: u32 = 200;
const RETRY: u32 = 10;
const SUCCESS: u32 = 1;

#[derive(Debug)]
pub(crate) struct RetryBudget(AtomicU32);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicU32::new(FULL))
    }
}

impl RetryBudget {
    /// Takes what one retry costs, if it is there.
    pub(super) fn take(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |tenths| tenths.checked_sub(RETRY)).is_ok()
    }

    /// Gives back what a success earns.
    pub(super) fn earn(&self) {
        // A full budget is the usual case: it is only read.
        if self.0.load(Relaxed) < FULL {
            let _ = self.0.fetch_update(Relaxed, Relaxed, |tenths| Some((tenths + SUCCESS).min(FULL)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_retries_and_then_one_for_ten_successes() {
        let budget = RetryBudget::default();
        assert_eq!((0..100).filter(|_| budget.take()).count(), 20);
        (0..9).for_each(|_| budget.earn());
        assert!(!budget.take());
        budget.earn();
        assert!(budget.take());
        (0..1000).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.take()).count(), 20);
    }
}
