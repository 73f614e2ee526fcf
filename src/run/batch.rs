//! Things that go in one call, as many as fit.
//!
//! If a call exceeds its deadline, the result of all of its items is unknown. So calls are kept short: the first one is small, and
//! later ones have as many items as the server processes in a fraction of the deadline.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};

/// What one call takes at the most.
const MAX_ITEMS: usize = 1000;
/// The maximum number of items in the first call, when the speed of the server is not known yet.
const FIRST_ITEMS: usize = 250;
/// The target duration of a call, as a fraction of its deadline.
const DEADLINE_SHARE: u32 = 10;

/// Computes the size of the next call. Pure: the durations of calls are passed in.
#[derive(Debug)]
pub(crate) struct BatchSizer {
    items: usize,
    max_items: usize,
    target: Duration,
}

impl BatchSizer {
    /// For calls of at most `max_items` with this deadline.
    pub(crate) fn new(max_items: usize, deadline: Duration) -> Self {
        Self { items: max_items.min(FIRST_ITEMS), max_items, target: deadline / DEADLINE_SHARE }
    }

    pub(crate) fn items(&self) -> usize {
        self.items
    }

    /// Records the duration of a call.
    pub(crate) fn record(&mut self, items: usize, elapsed: Duration) {
        if items == 0 {
            return;
        }
        let each = elapsed.as_nanos() / items as u128;
        // As many as would have been processed in the target duration, but at most four times the size of this call.
        let in_time = self.target.as_nanos().checked_div(each).and_then(|items| usize::try_from(items).ok());
        let growth = items.saturating_mul(4).max(self.items);
        self.items = in_time.unwrap_or(usize::MAX).min(growth).clamp(1, self.max_items);
    }
}

/// How long a call took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took(Duration);

impl Took {
    pub(crate) fn since(sent_at: Instant) -> Self {
        Self(sent_at.elapsed())
    }

    pub(crate) fn with<R>(self, results: Vec<Result<R>>) -> CallResults<R> {
        CallResults { results, took: self }
    }
}

/// What a call did: one result for each of its items.
#[derive(Debug)]
pub(crate) struct CallResults<R> {
    results: Vec<Result<R>>,
    took: Took,
}

/// Things of one call, with their places among all of them.
#[derive(Debug)]
struct Chunk<T> {
    places: Vec<usize>,
    items: Vec<T>,
    size: usize,
}

impl<T> Default for Chunk<T> {
    fn default() -> Self {
        Self { places: Vec::new(), items: Vec::new(), size: 0 }
    }
}

impl<T> Chunk<T> {
    /// Whether one more of this size fits.
    fn takes(&self, size: usize, items: usize, limit: usize) -> bool {
        self.items.len() < items && self.size + size <= limit
    }

    fn add(&mut self, place: usize, item: T, size: usize) {
        self.places.push(place);
        self.items.push(item);
        self.size += size;
    }
}

/// Sends items with their sizes, as many in one call as fit, one call after the other: one result for each, in order.
///
/// An item that cannot be sent yields an error and does not block the others. If the server is unreachable or the workflow is missing,
/// the remaining items are not sent.
pub(crate) async fn batched<T, R, F: Future<Output = CallResults<R>>>(
    items: impl IntoIterator<Item = Result<(T, usize)>>,
    limit: usize,
    deadline: Duration,
    call: impl Fn(Vec<T>) -> F,
) -> Vec<Result<R>> {
    let items = items.into_iter();
    let mut calls = BatchSizer::new(MAX_ITEMS, deadline);
    let mut results = Vec::with_capacity(items.size_hint().0);
    let (mut chunk, mut gone) = (Chunk::default(), None::<Error>);
    for item in items {
        let place = results.len();
        let result = match (item, &gone) {
            (Err(error), _) => Some(Err(error)),
            (Ok(_), Some(gone)) => Some(Err(gone.clone())),
            (Ok((item, size)), None) => {
                if !chunk.takes(size, calls.items(), limit) {
                    gone = send(std::mem::take(&mut chunk), &mut calls, &call, &mut results).await;
                }
                chunk.add(place, item, size);
                None
            }
        };
        results.push(result);
    }
    match gone {
        None => drop(send(chunk, &mut calls, &call, &mut results).await),
        Some(gone) => fill(&chunk.places, std::iter::repeat_with(|| Err(gone.clone())), &mut results),
    }
    let missing = || Err(Error::new(ErrorKind::Server, "the server's response has no result for this item"));
    results.into_iter().map(|result| result.unwrap_or_else(missing)).collect()
}

/// Makes the call. Returns the error if there is no server to make the next one to.
async fn send<T, R, F: Future<Output = CallResults<R>>>(
    chunk: Chunk<T>,
    sizer: &mut BatchSizer,
    call: &impl Fn(Vec<T>) -> F,
    results: &mut [Option<Result<R>>],
) -> Option<Error> {
    if chunk.items.is_empty() {
        return None;
    }
    let count = chunk.items.len();
    let CallResults { results: received, took: Took(elapsed) } = call(chunk.items).await;
    sizer.record(count, elapsed);
    let gone = |error: &&Error| match error.kind() {
        ErrorKind::WorkflowNotFound => true,
        ErrorKind::Unavailable => error.has_no_side_effects(),
        _ => false,
    };
    let last = received.last().and_then(|result| result.as_ref().err()).filter(gone).cloned();
    fill(&chunk.places, received, results);
    // What is left is not sent.
    last.map(Error::without_side_effects)
}

fn fill<R>(places: &[usize], received: impl IntoIterator<Item = Result<R>>, results: &mut [Option<Result<R>>]) {
    for (place, result) in places.iter().zip(received) {
        if let Some(slot) = results.get_mut(*place) {
            *slot = Some(result);
        }
    }
}

/// The same error for all that shared a call.
pub(crate) fn all_failed<R>(count: usize, error: &Error) -> Vec<Result<R>> {
    (0..count).map(|_| Err(error.clone())).collect()
}

/// Rejects an item that fits into no call.
pub(crate) fn fits(what: &str, at: usize, size: usize, limit: usize) -> Result<()> {
    if size <= limit {
        return Ok(());
    }
    let text = format!(
        "{what}[{at}] is too large: expected a message of at most {limit} bytes (max_send_message_length), got {size}"
    );
    Err(Error::new(ErrorKind::TooLarge, text).without_side_effects())
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);
    const IMMEDIATELY: Took = Took(Duration::ZERO);

    /// Calls a server that takes `each` for every item: the sizes of the calls for `total` items, and the longest call.
    async fn calls_at(each: Duration, total: usize) -> (Vec<usize>, Duration) {
        let (calls, longest) = (RefCell::new(Vec::new()), Cell::new(Duration::ZERO));
        let results = batched((0..total).map(|at| Ok((at, 1))), usize::MAX, DEADLINE, async |items: Vec<usize>| {
            let took = each * u32::try_from(items.len()).unwrap();
            calls.borrow_mut().push(items.len());
            longest.set(longest.get().max(took));
            Took(took).with(items.into_iter().map(Ok).collect())
        });
        assert_eq!(results.await.len(), total);
        (calls.into_inner(), longest.get())
    }

    #[tokio::test(start_paused = true)]
    async fn calls_take_a_fraction_of_the_deadline() {
        let (calls, _) = calls_at(Duration::ZERO, 3000).await;
        assert_eq!(calls, [250, 1000, 1000, 750]);
        let (calls, longest) = calls_at(Duration::from_millis(1), 3000).await;
        assert_eq!((calls, longest), (vec![250, 1000, 1000, 750], Duration::from_secs(1)));
        // As slow as a loaded engine: a call with 1000 items would take half of the deadline.
        let (calls, longest) = calls_at(Duration::from_millis(14), 1000).await;
        assert_eq!((calls, longest), (vec![250, 214, 214, 214, 108], Duration::from_millis(3500)));
        let (calls, longest) = calls_at(Duration::from_millis(100), 400).await;
        assert_eq!((calls, longest), (vec![250, 30, 30, 30, 30, 30], Duration::from_secs(25)));
    }

    #[test]
    fn calls_shrink_immediately_and_grow_in_steps() {
        let mut sizer = BatchSizer::new(MAX_ITEMS, DEADLINE);
        sizer.record(250, Duration::from_secs(60));
        assert_eq!(sizer.items(), 12);
        for expected in [48, 192, 768, 1000, 1000] {
            sizer.record(sizer.items(), Duration::from_millis(1));
            assert_eq!(sizer.items(), expected);
        }
        // The duration of a small call is not representative.
        sizer.record(1, Duration::ZERO);
        assert_eq!(sizer.items(), 1000);
        sizer.record(1, Duration::from_secs(60));
        assert_eq!(sizer.items(), 1, "never none");
    }

    fn gone() -> Error {
        Error::new(ErrorKind::Unavailable, "nobody is there").without_side_effects()
    }

    proptest! {
        /// For all sizes and durations, no call exceeds either limit, no item is omitted, and results are in the order of the items.
        #[test]
        fn calls_keep_both_limits(sizes in proptest::collection::vec(0usize..400, 0..3000), limit in 400usize..600_000) {
            let calls = RefCell::new(Vec::new());
            // A size of nothing stands for what cannot be sent.
            let items = sizes.iter().enumerate().map(|(at, size)| match size {
                0 => Err(Error::invalid("item", at)),
                size => Ok(((at, *size), *size)),
            });
            let results = batched(items, limit, DEADLINE, async |items: Vec<(usize, usize)>| {
                calls.borrow_mut().push(items.clone());
                IMMEDIATELY.with(items.into_iter().map(|(at, _)| Ok(at)).collect())
            });
            let results = results.now_or_never().unwrap();
            let calls = calls.into_inner();
            let size = |call: &[(usize, usize)]| call.iter().map(|(_, size)| size).sum::<usize>();
            prop_assert!(calls.iter().all(|call| !call.is_empty() && call.len() <= MAX_ITEMS && size(call) <= limit));
            // Calls take no time, so the sizer only grows.
            let mut sizer = BatchSizer::new(MAX_ITEMS, DEADLINE);
            for (call, next) in calls.iter().zip(calls.iter().skip(1)) {
                let is_full = call.len() == sizer.items();
                prop_assert!(is_full || size(call) + next[0].1 > limit, "one more would have fitted");
                sizer.record(call.len(), Duration::ZERO);
            }
            prop_assert_eq!(results.len(), sizes.len());
            for (at, (result, size)) in results.iter().zip(&sizes).enumerate() {
                prop_assert_eq!(result.as_ref().ok(), (*size > 0).then_some(&at));
            }
        }
    }

    #[test]
    fn remaining_items_are_not_sent_if_the_server_is_unreachable() {
        let calls = Cell::new(0);
        let items = (0..2500).map(|at| if at == 2400 { Err(Error::invalid("item", at)) } else { Ok((at, 1)) });
        let results = batched(items, usize::MAX, DEADLINE, async |items: Vec<usize>| {
            calls.set(calls.get() + 1);
            let gone = || all_failed(items.len(), &gone());
            IMMEDIATELY.with(if calls.get() == 1 { items.iter().copied().map(Ok).collect() } else { gone() })
        });
        let results = results.now_or_never().unwrap();
        assert_eq!((calls.get(), results.len()), (2, 2500));
        for (at, result) in results.into_iter().enumerate() {
            let expected = match at {
                0..250 => Ok(at),
                2400 => Err(ErrorKind::InvalidInput),
                _ => Err(ErrorKind::Unavailable),
            };
            assert_eq!(result.map_err(|error| error.kind()), expected);
        }
    }

    #[test]
    fn items_without_a_result_are_errors() {
        let results =
            batched((0..3).map(|at| Ok((at, 1))), 9, DEADLINE, async |_: Vec<usize>| IMMEDIATELY.with(vec![Ok(0)]))
                .now_or_never();
        let kinds: Vec<_> = results.unwrap().into_iter().map(|result| result.map_err(|error| error.kind())).collect();
        assert_eq!(kinds, [Ok(0), Err(ErrorKind::Server), Err(ErrorKind::Server)]);
    }
}
