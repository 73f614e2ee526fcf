//! The events of runs that are being started, whose ids are not known yet.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::chunk_event::{ChunkEvent, MAX_QUEUED, MAX_QUEUED_BYTES};
use crate::model::RunId;

/// The maximum number of losses whose positions among the events are kept.
const MAX_LOSSES: usize = 256;

/// The last events of runs without readers, while runs are being started.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// The runs that are being started, by what came before.
    starts: BTreeMap<EarlyPosition, usize>,
    by_run: HashMap<RunId, VecDeque<(EarlyPosition, ChunkEvent)>>,
    /// The runs of the events, in the order of their arrival.
    order: BTreeMap<EarlyPosition, RunId>,
    /// When chunks may have been lost.
    losses: VecDeque<EarlyPosition>,
    /// The last event that was dropped because too many were kept.
    dropped: Option<EarlyPosition>,
    last: EarlyPosition,
    bytes: usize,
}

/// A place in the order of all events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EarlyPosition(u64);

impl Early {
    /// A run is being started.
    pub(super) fn start(&mut self) -> EarlyPosition {
        *self.starts.entry(self.last).or_default() += 1;
        self.last
    }

    /// A run was started, or could not be started. What came before the other starts is not needed any longer.
    pub(super) fn end(&mut self, since: EarlyPosition) {
        if let Some(count) = self.starts.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.starts.remove(&since);
            }
        }
        let Some(oldest) = self.starts.first_key_value().map(|(position, _)| *position) else {
            *self = Self { last: self.last, ..Self::default() };
            return;
        };
        while self.order.first_key_value().is_some_and(|(position, _)| *position <= oldest) {
            self.drop_first();
        }
        while self.losses.front().is_some_and(|position| *position <= oldest) {
            self.losses.pop_front();
        }
    }

    /// Keeps an event of a run.
    pub(super) fn push(&mut self, run: RunId, event: ChunkEvent) {
        if self.starts.is_empty() {
            return;
        }
        let size = event.size();
        // The runs that are being started now have sent the newest chunks.
        while self.order.len() >= MAX_QUEUED || self.bytes.saturating_add(size) > MAX_QUEUED_BYTES {
            let Some(dropped) = self.drop_first() else { break };
            self.dropped = Some(dropped);
        }
        self.last.0 += 1;
        self.bytes = self.bytes.saturating_add(size);
        self.order.insert(self.last, run);
        self.by_run.entry(run).or_default().push_back((self.last, event));
    }

    /// Chunks may have been lost before those that come now.
    pub(super) fn interrupt(&mut self) {
        if !self.starts.is_empty() && self.losses.back() != Some(&self.last) {
            self.last.0 += 1;
            self.losses.push_back(self.last);
        }
        // The oldest losses are merged into one.
        while self.losses.len() > MAX_LOSSES {
            self.dropped = self.dropped.max(self.losses.pop_front());
        }
    }

    /// Removes the events of a run that was started, and returns them with the losses among them.
    pub(super) fn take(&mut self, run: RunId, since: EarlyPosition) -> Vec<ChunkEvent> {
        let events = self.by_run.remove(&run).unwrap_or_default();
        for (position, event) in &events {
            self.order.remove(position);
            self.bytes = self.bytes.saturating_sub(event.size());
        }
        let first_loss = self.dropped.filter(|dropped| *dropped > since);
        let losses = first_loss.into_iter().chain(self.losses.iter().copied().filter(|position| *position > since));
        let mut all: Vec<_> = events.into_iter().filter(|(position, _)| *position > since).collect();
        all.extend(losses.map(|position| (position, ChunkEvent::Interrupted)));
        all.sort_by_key(|(position, _)| *position);
        all.into_iter().map(|(_, event)| event).collect()
    }

    /// Drops the oldest event.
    fn drop_first(&mut self) -> Option<EarlyPosition> {
        let (position, run) = self.order.pop_first()?;
        if let Some(events) = self.by_run.get_mut(&run) {
            if let Some((_, event)) = events.pop_front() {
                self.bytes = self.bytes.saturating_sub(event.size());
            }
            if events.is_empty() {
                self.by_run.remove(&run);
            }
        }
        Some(position)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Chunk, ChunkContent};

    fn run(number: u128) -> RunId {
        uuid::Uuid::from_u128(number).into()
    }

    fn push(early: &mut Early, number: u128, text: &str) {
        let task_id = uuid::Uuid::from_u128(number).into();
        let content = ChunkContent::Text(text.into());
        early.push(
            run(number),
            ChunkEvent::Chunk(Chunk { run_id: run(number), task_id, index: None, sent_at: None, content }),
        );
    }

    fn take(early: &mut Early, number: u128, since: EarlyPosition) -> Vec<String> {
        let text = |event| match event {
            ChunkEvent::Chunk(chunk) => chunk.to_string(),
            other => format!("{other:?}").to_lowercase(),
        };
        early.take(run(number), since).into_iter().map(text).collect()
    }

    #[test]
    fn losses_stay_where_they_were() {
        let mut early = Early::default();
        early.interrupt();
        let since = early.start();
        push(&mut early, 1, "a");
        push(&mut early, 2, "other");
        early.interrupt();
        early.interrupt();
        push(&mut early, 1, "b");
        let later = early.start();
        assert_eq!(take(&mut early, 1, since), ["a", "interrupted", "b"]);
        push(&mut early, 3, "c");
        assert_eq!(take(&mut early, 3, later), ["c"], "it was started after the loss");
        assert_eq!((early.len(), early.bytes), (1, 5));
    }

    /// A client that always starts some run does not keep the events of all others.
    #[test]
    fn what_came_before_the_oldest_start_is_dropped() {
        let mut early = Early::default();
        let mut since = early.start();
        for number in 0..3 * MAX_QUEUED as u128 {
            push(&mut early, number, "x");
            early.interrupt();
            if number % 10 == 0 {
                let next = early.start();
                early.end(since);
                since = next;
            }
            assert!(early.len() <= 10 && early.losses.len() <= 10 && early.by_run.len() <= 10);
        }
        let last = early.start();
        push(&mut early, 7, "y");
        assert_eq!(take(&mut early, 7, last), ["y"], "nothing was lost since its start");
        early.end(since);
        early.end(last);
        assert_eq!((early.len(), early.bytes, early.losses.len(), early.starts.len()), (0, 0, 0, 0));
        push(&mut early, 1, "z");
        assert_eq!(early.len(), 0, "no run is being started");
    }

    #[test]
    fn the_oldest_losses_are_merged() {
        let mut early = Early::default();
        let since = early.start();
        for _ in 0..MAX_LOSSES + 2 {
            push(&mut early, 2, "other");
            early.interrupt();
        }
        assert_eq!(early.losses.len(), MAX_LOSSES);
        push(&mut early, 1, "a");
        assert_eq!(
            take(&mut early, 1, since).len(),
            MAX_LOSSES + 2,
            "one for the two oldest losses, one for each other loss, and the chunk"
        );
    }

    #[test]
    fn the_newest_events_are_kept() {
        let mut early = Early::default();
        let since = early.start();
        for _ in 0..MAX_QUEUED {
            push(&mut early, 2, "other");
        }
        push(&mut early, 1, "early");
        let later = early.start();
        push(&mut early, 3, "later");
        // The first ones were dropped, which may have been of this run.
        assert_eq!(take(&mut early, 1, since), ["interrupted", "early"]);
        push(&mut early, 4, &"x".repeat(MAX_QUEUED_BYTES));
        assert_eq!((early.len(), early.bytes), (1, MAX_QUEUED_BYTES));
        assert_eq!(take(&mut early, 3, later), ["interrupted"]);
    }
}
