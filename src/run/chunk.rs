//! Things that go in one call, as many as fit.

use crate::error::{Error, ErrorKind, Result};

/// What one call takes at the most.
const MOST: usize = 1000;

/// Things of one call, with their places among all of them.
#[derive(Debug)]
pub(crate) struct Chunk<T> {
    pub(crate) places: Vec<usize>,
    pub(crate) items: Vec<T>,
    size: usize,
}

impl<T> Default for Chunk<T> {
    fn default() -> Self {
        Self { places: Vec::new(), items: Vec::new(), size: 0 }
    }
}

impl<T> Chunk<T> {
    /// Whether one more of this size fits.
    pub(crate) fn takes(&self, size: usize, limit: usize) -> bool {
        self.items.len() < MOST && self.size + size <= limit
    }

    pub(crate) fn add(&mut self, place: usize, item: T, size: usize) {
        self.places.push(place);
        self.items.push(item);
        self.size += size;
    }
}

/// Gives those in these places the same error.
pub(crate) fn fail<R>(places: &[usize], error: &Error, results: &mut [Option<Result<R>>]) {
    for place in places {
        if let Some(slot) = results.get_mut(*place) {
            *slot = Some(Err(error.duplicate()));
        }
    }
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
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However the sizes fall, no chunk is over either limit and nothing is left out.
        #[test]
        fn chunks_keep_both_limits(sizes in proptest::collection::vec(1usize..400, 0..3000)) {
            let limit = 1000;
            let (mut chunk, mut sent) = (Chunk::default(), 0);
            for (place, size) in sizes.iter().enumerate() {
                if !chunk.takes(*size, limit) {
                    prop_assert!(chunk.size <= limit && chunk.items.len() <= MOST && !chunk.items.is_empty());
                    sent += std::mem::take(&mut chunk).places.len();
                }
                chunk.add(place, (), *size);
            }
            prop_assert_eq!(sent + chunk.places.len(), sizes.len());
        }
    }
}
