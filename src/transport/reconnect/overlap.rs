//! What two streams deliver while one replaces the other: the pure core of a replacement without a gap.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// For how long the replaced stream is read after the first message of the new one, which can be behind.
pub(super) const OVERLAP_DURATION: Duration = Duration::from_secs(5);
/// The number of messages that are remembered. The streams that are replaced are idle, so they have few.
const MAX_UNMATCHED: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Replaced,
    New,
}

/// The messages that only one of the two streams has delivered.
#[derive(Debug)]
pub(super) struct Overlap<T> {
    /// When the new stream was requested.
    requested_at: Option<Instant>,
    /// When the replaced stream is no longer needed. Not before the new one has delivered a message: it may hang.
    end: Option<Instant>,
    unmatched: VecDeque<(Side, T)>,
    /// Whether the replaced stream has delivered nothing yet, so that it may have been lost.
    is_doubtful: bool,
}

impl<T> Default for Overlap<T> {
    fn default() -> Self {
        Self { requested_at: None, end: None, unmatched: VecDeque::new(), is_doubtful: false }
    }
}

impl<T: Clone + PartialEq> Overlap<T> {
    /// A stream was requested while another one is read.
    pub(super) fn begin(&mut self, now: Instant) {
        self.requested_at = Some(now);
        self.end = None;
        self.is_doubtful = true;
    }

    /// The new stream has delivered a message.
    pub(super) fn new_is_alive(&mut self, now: Instant) {
        if self.requested_at.is_some() {
            self.end.get_or_insert(now + OVERLAP_DURATION);
        }
    }

    /// The replaced stream has delivered a message. The other one may be behind. `is_needed`: the other one does not deliver it.
    pub(super) fn replaced_is_alive(&mut self, now: Instant, is_needed: bool) {
        if std::mem::take(&mut self.is_doubtful) || is_needed {
            self.end = self.end.map(|end| end.max(now + OVERLAP_DURATION));
        }
    }

    /// The server has ended the replaced stream, which was alive until then. The new one has begun, if it was not requested just now.
    pub(super) fn replaced_has_ended(&mut self, now: Instant) {
        self.is_doubtful &= self.requested_at.is_some_and(|requested| now < requested + OVERLAP_DURATION);
    }

    /// Whether only the replaced stream has delivered messages since the new one was requested. The new one may hang.
    pub(super) fn only_replaced_is_alive(&self) -> bool {
        self.requested_at.is_some() && self.end.is_none() && !self.is_doubtful
    }

    /// Whether a message of the new stream would show that the replaced one was lost.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_doubtful
    }

    pub(super) fn end(&self) -> Option<Instant> {
        self.end
    }

    /// The stream that is read if both have messages. The replaced one has them in order, from its time on. But if it gets far ahead, the
    /// other one is read, so that its messages are still remembered when their twins arrive.
    pub(super) fn next_side(&self) -> Side {
        if self.unmatched.len() < MAX_UNMATCHED / 2 {
            return Side::Replaced;
        }
        let replaced = self.unmatched.iter().filter(|(side, _)| *side == Side::Replaced).count();
        if replaced > self.unmatched.len() / 2 { Side::New } else { Side::Replaced }
    }

    /// Whether a message has not been delivered by the other stream. Each is delivered once by each of them, or only by one.
    pub(super) fn is_new(&mut self, now: Instant, side: Side, message: &T) -> bool {
        // One stream can be behind the other.
        if self.requested_at.is_none() || self.end.is_some_and(|end| now >= end + OVERLAP_DURATION) {
            *self = Self::default();
            return true;
        }
        let twin = self.unmatched.iter().position(|(other, seen)| *other != side && seen == message);
        if let Some(twin) = twin {
            self.unmatched.remove(twin);
            return false;
        }
        if self.unmatched.len() >= MAX_UNMATCHED {
            // Those of the other stream can still arrive here.
            let oldest = self.unmatched.iter().position(|(other, _)| *other == side);
            self.unmatched.remove(oldest.unwrap_or_default());
        }
        self.unmatched.push_back((side, message.clone()));
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_replaced_stream_that_is_needed_is_read_until_it_is_silent() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        for (is_needed, expected) in [(false, 5), (true, 9)] {
            let mut overlap = Overlap::<u32>::default();
            overlap.begin(start);
            overlap.replaced_is_alive(start, is_needed);
            overlap.new_is_alive(start);
            overlap.replaced_is_alive(start + 2 * second, is_needed);
            overlap.replaced_is_alive(start + 4 * second, is_needed);
            assert_eq!(overlap.end(), Some(start + expected * second));
        }
    }

    #[test]
    fn outside_of_an_overlap_every_message_is_new() {
        let (mut overlap, now) = (Overlap::default(), Instant::now());
        assert!(overlap.is_new(now, Side::New, &1) && overlap.is_new(now, Side::New, &1));
        overlap.begin(now);
        assert!(overlap.is_new(now, Side::Replaced, &1) && overlap.end().is_none(), "the new one may hang");
        overlap.new_is_alive(now);
        assert!(overlap.end().is_some());
        assert!(
            !overlap.is_new(now + 2 * OVERLAP_DURATION - Duration::from_millis(1), Side::New, &1),
            "it may be behind"
        );
        assert!(overlap.is_new(now, Side::Replaced, &2));
        assert!(overlap.is_new(now + 2 * OVERLAP_DURATION, Side::New, &2));
        assert!(overlap.unmatched.is_empty(), "nothing is kept");
    }

    #[test]
    fn the_number_of_remembered_messages_is_limited() {
        let (mut overlap, now) = (Overlap::default(), Instant::now());
        overlap.begin(now);
        assert!((0..2 * MAX_UNMATCHED).all(|number| overlap.is_new(now, Side::New, &number)));
        assert_eq!(overlap.unmatched.len(), MAX_UNMATCHED);
    }

    /// However many come at once, and whatever only one of them delivers.
    #[test]
    fn no_stream_gets_too_far_ahead_of_the_other() {
        const COUNT: usize = 10 * MAX_UNMATCHED;
        for missed in [0, MAX_UNMATCHED / 2 + 1, MAX_UNMATCHED, 3 * MAX_UNMATCHED] {
            let (mut replaced, mut new) = (0..COUNT, missed..COUNT);
            let (mut overlap, now, mut returned) = (Overlap::default(), Instant::now(), Vec::new());
            overlap.begin(now);
            while !replaced.is_empty() || !new.is_empty() {
                let side = match overlap.next_side() {
                    Side::Replaced if replaced.is_empty() => Side::New,
                    Side::New if new.is_empty() => Side::Replaced,
                    side => side,
                };
                let message = if side == Side::New { new.next() } else { replaced.next() };
                returned.extend(message.filter(|message| overlap.is_new(now, side, message)));
            }
            assert_eq!(returned.len(), COUNT, "{missed} missed");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

        /// Both streams deliver the same messages, but the new one only from some message on, and the replaced one only up to another. However
        /// they interleave, each message is returned once.
        #[test]
        fn each_message_is_returned_once(
            count in 0usize..20,
            missed in 0usize..20,
            cut in 0usize..20,
            order in proptest::collection::vec(any::<bool>(), 40),
        ) {
            // No two are equal: they have the time at which they were sent.
            let messages: Vec<_> = (0..count).collect();
            let missed = missed.min(messages.len());
            let cut = cut.clamp(missed, messages.len().max(missed));
            let (mut replaced, mut new) = (messages[..cut].iter(), messages[missed..].iter());
            let (mut overlap, now, mut returned) = (Overlap::default(), Instant::now(), Vec::<&usize>::new());
            overlap.begin(now);
            for is_replaced in order.into_iter().chain([true, false].repeat(20)) {
                let (side, next) = if is_replaced { (Side::Replaced, replaced.next()) } else { (Side::New, new.next()) };
                returned.extend(next.filter(|message| overlap.is_new(now, side, message)));
            }
            let mut expected: Vec<_> = messages.iter().collect();
            returned.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(returned, expected);
        }
    }
}
