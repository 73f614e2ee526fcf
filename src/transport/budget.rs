//! A budget that limits retries to a tenth of the successful calls.
//!
//! With only a fixed number of tries per call, a failing server would receive a multiple of its usual load. So each retry costs one
//! unit of the budget, and each success refunds a tenth of a unit.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The maximum and initial budget, in tenths of a retry.
const MAX_BUDGET_TENTHS: u32 = 200;
const RETRY_COST: u32 = 10;
const SUCCESS_REFUND: u32 = 1;

#[derive(Debug)]
pub(crate) struct RetryBudget(AtomicU32);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicU32::new(MAX_BUDGET_TENTHS))
    }
}

impl RetryBudget {
    /// Withdraws the cost of a retry. Returns `false` if the budget is too low.
    pub(super) fn withdraw(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |tenths| tenths.checked_sub(RETRY_COST)).is_ok()
    }

    /// Deposits the refund of a successful call.
    pub(super) fn deposit(&self) {
        // Usually the budget is full. This avoids the write.
        if self.0.load(Relaxed) < MAX_BUDGET_TENTHS {
            self.add(SUCCESS_REFUND);
        }
    }

    /// Deposits the cost of a retry that was not sent.
    pub(super) fn refund(&self) {
        self.add(RETRY_COST);
    }

    fn add(&self, more: u32) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |tenths| Some((tenths + more).min(MAX_BUDGET_TENTHS)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_successes_refund_one_retry() {
        let budget = RetryBudget::default();
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 20);
        (0..9).for_each(|_| budget.deposit());
        assert!(!budget.withdraw());
        budget.deposit();
        assert!(budget.withdraw());
        budget.refund();
        assert!(budget.withdraw(), "it was not sent");
        assert!(!budget.withdraw());
        (0..1000).for_each(|_| budget.deposit());
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 20);
    }
}
