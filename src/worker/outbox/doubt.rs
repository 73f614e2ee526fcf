//! The results that wait because the engine may have ended their attempts: it is asked first.

use std::sync::Arc;

use super::{Entry, Outbox, Queue};
use crate::rpc::convert::ReportKind;
use crate::worker::key::Key;

/// Which attempts the engine may have ended, or assigned to other workers, without the worker knowing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::worker) enum Doubt {
    None,
    /// Some: a notification may have been lost. In doubt are those that the worker had at that time, and all of batches, whose results name no attempt
    /// and would be applied to the next one. The engine gives a run that was cancelled a second end if a late result arrives.
    Some,
    /// All: it has accepted no heartbeat for so long that it assigns them to other workers.
    All,
}

impl Outbox {
    /// The engine may have ended these attempts. Their results are not sent before it has been asked, as long as there is a doubt, and longer if
    /// they are in the outbox.
    pub(in crate::worker) fn add_doubtful(&mut self, keys: impl Iterator<Item = Key>) {
        self.doubtful.extend(keys);
        self.hold_back();
    }

    /// The engine has not ended these attempts, and notifies the worker if it does.
    pub(in crate::worker) fn end_doubt(&mut self, keys: impl Iterator<Item = Key>) {
        for key in keys {
            self.doubtful.remove(&key);
        }
    }

    pub(in crate::worker) fn has_doubtful(&self) -> bool {
        !self.doubtful.is_empty()
    }

    /// Sets which attempts the engine may have ended.
    pub(in crate::worker) fn set_doubt(&mut self, doubt: Doubt) {
        if doubt == Doubt::None {
            // Results that are being sent have not been checked.
            self.doubtful.retain(|key| self.places.contains_key(key));
        }
        if std::mem::replace(&mut self.doubt, doubt) < doubt {
            self.hold_back();
        }
    }

    /// The attempts whose results are not sent before [`set_checked`](Self::set_checked), with the ids of their batches.
    pub(in crate::worker) fn unchecked(&self) -> impl Iterator<Item = (Key, Option<Arc<str>>)> {
        self.unchecked.values().map(|entry| (entry.key, entry.report.batch.clone()))
    }

    pub(in crate::worker) fn has_unchecked(&self) -> bool {
        !self.unchecked.is_empty()
    }

    /// Sends the results of attempts about which the engine was asked. `answer` returns the retry count of each of those, if the engine has
    /// named it. All results are checked, because several can have the same key: that of an attempt of a batch may be a guess.
    pub(in crate::worker) fn set_checked(&mut self, answer: impl Fn(&(Key, Option<Arc<str>>)) -> Option<Option<u32>>) {
        let answer = |(number, entry): (&u64, &Entry)| {
            answer(&(entry.key, entry.report.batch.clone())).map(|retry_count| (*number, retry_count))
        };
        let answered: Vec<_> = self.unchecked.iter().filter_map(answer).collect();
        for (number, retry_count) in answered {
            let Some(mut entry) = self.unchecked.remove(&number) else { continue };
            if let Some(retry_count) = retry_count {
                entry.report = entry.report.with_retry_count(retry_count);
            }
            self.push(Entry { is_checked: true, ..entry });
        }
    }

    /// Whether a result must not be sent before the engine was asked about its attempt.
    pub(super) fn needs_check(&self, entry: &Entry) -> bool {
        let has_failed = self.outage.is_some() || entry.failing_since.is_some();
        let is_doubtful = match self.doubt {
            Doubt::All => true,
            _ if self.doubtful.contains(&entry.key) => true,
            Doubt::Some => entry.report.batch.is_some(),
            Doubt::None => has_failed && entry.report.batch.is_some(),
        };
        is_doubtful && !entry.is_checked && entry.report.kind != ReportKind::Started
    }

    /// Holds back results that were to be sent, because the engine may have ended their attempts.
    pub(super) fn hold_back(&mut self) {
        for entry in std::mem::take(&mut self.ready).into_values().flat_map(Queue::into_values) {
            // What was checked before may have been ended since.
            self.push(Entry { is_checked: false, ..entry });
        }
        self.delayed.values_mut().for_each(|entry| entry.is_checked = false);
    }
}
