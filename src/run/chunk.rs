//! Things that go in one call, as many as fit.

use crate::error::{Error, ErrorKind, Result};

/// What one call takes at the most.
const MOST: usize = 1000;

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
    fn takes(&self, size: usize, limit: usize) -> bool {
        self.items.len() < MOST && self.size + size <= limit
    }

    fn add(&mut self, place: usize, item: T, size: usize) {
        self.places.push(place);
        self.items.push(item);
        self.size += size;
    }
}

/// Sends things with their sizes, as many in one call as fit, one call after the other: one result for each, in their order.
///
/// What cannot be sent is an error in its place and does not hold up the others. When there is no server to call, what is left
/// is not tried.
pub(crate) async fn in_chunks<T, R, F: Future<Output = Vec<Result<R>>>>(
    things: impl IntoIterator<Item = Result<(T, usize)>>,
    limit: usize,
    call: impl Fn(Vec<T>) -> F,
) -> Vec<Result<R>> {
    let things = things.into_iter();
    let mut results = Vec::with_capacity(things.size_hint().0);
    let (mut chunk, mut gone) = (Chunk::default(), None::<Error>);
    for thing in things {
        let place = results.len();
        let result = match (thing, &gone) {
            (Err(error), _) => Some(Err(error)),
            (Ok(_), Some(gone)) => Some(Err(gone.clone())),
            (Ok((thing, size)), None) => {
                if !chunk.takes(size, limit) {
                    gone = send(std::mem::take(&mut chunk), &call, &mut results).await;
                }
                chunk.add(place, thing, size);
                None
            }
        };
        results.push(result);
    }
    match gone {
        None => drop(send(chunk, &call, &mut results).await),
        Some(gone) => fill(&chunk.places, std::iter::repeat_with(|| Err(gone.clone())), &mut results),
    }
    let missing = || Err(Error::new(ErrorKind::Server, "the server's answer says nothing about this one"));
    results.into_iter().map(|result| result.unwrap_or_else(missing)).collect()
}

/// Makes the call. Returns the error if there is no server to make the next one to.
async fn send<T, R, F: Future<Output = Vec<Result<R>>>>(
    chunk: Chunk<T>,
    call: &impl Fn(Vec<T>) -> F,
    results: &mut [Option<Result<R>>],
) -> Option<Error> {
    if chunk.items.is_empty() {
        return None;
    }
    let answers = call(chunk.items).await;
    let gone = |error: &&Error| error.kind() == ErrorKind::Unavailable && error.never_reached_server();
    let last = answers.last().and_then(|answer| answer.as_ref().err()).filter(gone).cloned();
    fill(&chunk.places, answers, results);
    last
}

fn fill<R>(places: &[usize], answers: impl IntoIterator<Item = Result<R>>, results: &mut [Option<Result<R>>]) {
    for (place, answer) in places.iter().zip(answers) {
        if let Some(slot) = results.get_mut(*place) {
            *slot = Some(answer);
        }
    }
}

/// The same error for all that shared a call.
pub(crate) fn all_failed<R>(count: usize, error: &Error) -> Vec<Result<R>> {
    (0..count).map(|_| Err(error.clone())).collect()
}

/// Refuses a thing that fits into no call.
pub(crate) fn fits(what: &str, at: usize, size: usize, limit: usize) -> Result<()> {
    if size <= limit {
        return Ok(());
    }
    let text = format!("{what} {at} makes a message of {size} bytes, accepted: at most {limit}");
    Err(Error::new(ErrorKind::TooLarge, text).unsent())
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    fn gone() -> Error {
        Error::new(ErrorKind::Unavailable, "nobody is there").unsent()
    }

    proptest! {
        /// However the sizes fall, no call is over either limit, nothing is left out, and all is answered in its place.
        #[test]
        fn calls_keep_both_limits(sizes in proptest::collection::vec(0usize..400, 0..3000), limit in 400usize..600_000) {
            let calls = RefCell::new(Vec::new());
            // A size of nothing stands for what cannot be sent.
            let things = sizes.iter().enumerate().map(|(at, size)| match size {
                0 => Err(Error::invalid("thing", at)),
                size => Ok(((at, *size), *size)),
            });
            let results = in_chunks(things, limit, async |things: Vec<(usize, usize)>| {
                calls.borrow_mut().push(things.clone());
                things.into_iter().map(|(at, _)| Ok(at)).collect()
            });
            let results = results.now_or_never().unwrap();
            let calls = calls.into_inner();
            let size = |call: &[(usize, usize)]| call.iter().map(|(_, size)| size).sum::<usize>();
            prop_assert!(calls.iter().all(|call| !call.is_empty() && call.len() <= MOST && size(call) <= limit));
            for (call, next) in calls.iter().zip(calls.iter().skip(1)) {
                prop_assert!(call.len() == MOST || size(call) + next[0].1 > limit, "one more would have fitted");
            }
            prop_assert_eq!(results.len(), sizes.len());
            for (at, (result, size)) in results.iter().zip(&sizes).enumerate() {
                prop_assert_eq!(result.as_ref().ok(), (*size > 0).then_some(&at));
            }
        }
    }

    #[test]
    fn what_is_left_is_not_tried_when_nobody_is_there() {
        let calls = Cell::new(0);
        let things = (0..2500).map(|at| if at == 2400 { Err(Error::invalid("thing", at)) } else { Ok((at, 1)) });
        let results = in_chunks(things, usize::MAX, async |things: Vec<usize>| {
            calls.set(calls.get() + 1);
            if calls.get() == 1 { things.into_iter().map(Ok).collect() } else { all_failed(things.len(), &gone()) }
        });
        let results = results.now_or_never().unwrap();
        assert_eq!((calls.get(), results.len()), (2, 2500));
        for (at, result) in results.into_iter().enumerate() {
            let expected = match at {
                0..1000 => Ok(at),
                2400 => Err(ErrorKind::InvalidInput),
                _ => Err(ErrorKind::Unavailable),
            };
            assert_eq!(result.map_err(|error| error.kind()), expected);
        }
    }

    #[test]
    fn an_answer_that_is_too_short_is_no_success() {
        let results = in_chunks((0..3).map(|at| Ok((at, 1))), 9, async |_: Vec<usize>| vec![Ok(0)]).now_or_never();
        let kinds: Vec<_> = results.unwrap().into_iter().map(|result| result.map_err(|error| error.kind())).collect();
        assert_eq!(kinds, [Ok(0), Err(ErrorKind::Server), Err(ErrorKind::Server)]);
    }
}
