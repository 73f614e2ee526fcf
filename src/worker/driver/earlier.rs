//! The results of attempts of an earlier process.

use super::super::key::{Key, KeyMap};
use super::super::outbox::Outbox;
use super::super::ownership::{Checked, Held};
use crate::model::WorkerId;
use crate::rpc::convert::Report;

/// Results that the journal had when the worker started. Nothing else is known of their attempts, which the engine may have ended.
#[derive(Debug, Default)]
pub(super) struct EarlierResults {
    /// Those that are not in the outbox before the engine was asked, with their numbers in the journal.
    unchecked: Vec<(u64, Key, Report)>,
    /// The attempts whose results are in the outbox, and whether their retry counts are guesses.
    in_outbox: KeyMap<Key, bool>,
}

impl EarlierResults {
    pub(super) fn new(unchecked: Vec<(u64, Key, Report)>) -> Self {
        Self { unchecked, in_outbox: KeyMap::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.unchecked.len() + self.in_outbox.len()
    }

    pub(super) fn has_unchecked(&self) -> bool {
        !self.unchecked.is_empty()
    }

    /// The attempts about which the engine must be asked.
    pub(super) fn unchecked(&self) -> impl Iterator<Item = Held> {
        self.unchecked.iter().map(|(_, key, report)| (*key, report.batch.clone()))
    }

    /// Whether the result of this attempt is in the outbox.
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.in_outbox.contains_key(key)
    }

    /// The attempts whose results are in the outbox, and whose retry counts are known.
    pub(super) fn identified(&self) -> impl Iterator<Item = Key> {
        self.in_outbox.iter().filter(|(_, is_guess)| !**is_guess).map(|(key, _)| *key)
    }

    /// Adds a result to the outbox.
    pub(super) fn report(&mut self, number: u64, key: Key, report: Report, outbox: &mut Outbox) {
        self.in_outbox.insert(key, report.batch.is_some());
        outbox.add_saved(number, key, report);
    }

    /// The result of this attempt is not in the outbox any longer.
    pub(super) fn resolved(&mut self, key: &Key) {
        self.in_outbox.remove(key);
    }

    /// Adds the results to the outbox whose attempts the engine has not ended. `is_again`: whether an incomplete check is repeated.
    pub(super) fn checked(&mut self, worker: WorkerId, checked: &Checked, is_again: bool, outbox: &mut Outbox) {
        // What is lost is certain, the rest is not.
        for (number, key, report) in std::mem::take(&mut self.unchecked) {
            let held = (key, report.batch.clone());
            if checked.lost.contains_key(&held) {
                outbox.discard_saved(number);
                continue;
            }
            // Those that name their attempt do not wait for another check.
            if is_again && report.batch.is_some() {
                self.unchecked.push((number, key, report));
                continue;
            }
            let (key, report) = match checked.retry_counts.get(&held) {
                Some(&retry_count) => (Key { retry_count, ..key }, report.with_retry_count(retry_count)),
                None => (key, report),
            };
            tracing::info!(run_id = %key.run, task_id = %key.task, attempt = key.attempt(), worker_id = %worker, "reporting the result of an attempt of an earlier process");
            self.report(number, key, report, outbox);
        }
    }

    /// Withdraws the result of an attempt that the engine has ended.
    pub(super) fn withdraw(&mut self, ended: Key, outbox: &mut Outbox) {
        // A retry count that is not known is only the least that it can be. An attempt before the one that has ended is over, too.
        let is_meant = |key: &Key, is_guess: bool| {
            *key == ended || is_guess && key.task == ended.task && key.retry_count <= ended.retry_count
        };
        self.in_outbox.retain(|key, is_guess| !(is_meant(key, *is_guess) && outbox.withdraw_recovered(*key)));
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;
    use uuid::Uuid;

    use super::super::super::outbox::Limits;
    use super::*;
    use crate::rpc::convert::ReportKind;

    fn worker() -> WorkerId {
        Uuid::nil().into()
    }

    fn outbox() -> Outbox {
        Outbox::new(Limits { reports: 9, bytes: 9999 }, false, true)
    }

    fn result(task: u128, batch: Option<&str>) -> (Key, Report) {
        let key = Key { run: Uuid::from_u128(task).into(), task: Uuid::from_u128(task).into(), retry_count: 1 };
        let at = chrono::DateTime::default();
        let report = Report::of_attempt(worker(), key.task, 1, ReportKind::Completed, at, "{}".into());
        (key, batch.into_iter().fold(report, Report::in_batch))
    }

    /// The retry counts in the reports that can be sent.
    fn sent(outbox: &mut Outbox) -> Vec<Option<u32>> {
        std::iter::from_fn(|| outbox.next_call(Instant::now()))
            .flat_map(|call| call.entries)
            .map(|entry| entry.report.retry_count())
            .collect()
    }

    #[test]
    fn what_the_engine_has_answered_decides_what_becomes_of_a_result() {
        let results = [result(1, None), result(2, Some("a")), result(3, None), result(4, Some("a"))];
        let unchecked = (1..).zip(results).map(|(number, (key, report))| (number, key, report)).collect();
        let (mut earlier, mut outbox) = (EarlierResults::new(unchecked), outbox());
        let held: Vec<_> = earlier.unchecked().collect();
        let mut checked = Checked { is_incomplete: true, ..Checked::default() };
        checked.lost.insert(held[0].clone(), None);
        checked.retry_counts.insert(held[2].clone(), 1);
        earlier.checked(worker(), &checked, true, &mut outbox);
        // The first one is over, the third one is reported, and the others do not name their attempts.
        assert_eq!((earlier.len(), earlier.unchecked().count(), sent(&mut outbox)), (3, 2, vec![Some(1)]));
        let checked = Checked { retry_counts: [(held[1].clone(), 5)].into(), ..Checked::default() };
        earlier.checked(worker(), &checked, false, &mut outbox);
        assert_eq!((earlier.has_unchecked(), sent(&mut outbox)), (false, vec![Some(5), None]));
        let guess = held[3].0;
        assert!(earlier.contains(&guess) && earlier.identified().all(|key| key != guess));
        assert!(earlier.identified().any(|key| key == Key { retry_count: 5, ..held[1].0 }));
    }

    #[test]
    fn a_result_that_is_being_sent_is_withdrawn_when_that_has_failed() {
        let (mut earlier, mut outbox) = (EarlierResults::default(), outbox());
        let (key, report) = result(1, None);
        earlier.report(1, key, report, &mut outbox);
        assert_eq!(sent(&mut outbox).len(), 1);
        earlier.withdraw(key, &mut outbox);
        assert!(earlier.contains(&key));
        earlier.resolved(&key);
        assert_eq!(earlier.len(), 0);
    }
}
