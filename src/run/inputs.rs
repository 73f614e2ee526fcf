//! The inputs and options of many requests, which are taken while the calls are made.

use std::fmt;

use serde::Serialize;
use sync_wrapper::SyncWrapper;

use crate::error::Result;
use crate::model::payload::encode_input;

/// Inputs that are encoded when they are taken: they need not fit in memory together.
pub(crate) struct Inputs<'a>(SyncWrapper<Box<dyn Iterator<Item = Result<String>> + Send + 'a>>);

impl<'a> Inputs<'a> {
    /// `name`: of all inputs, for errors.
    pub(crate) fn new<T: Serialize + 'a>(name: &'static str, inputs: impl Iterator<Item = T> + Send + 'a) -> Self {
        let encode = move |(at, input): (usize, T)| encode_input(format_args!("{name}[{at}]"), &input);
        Self::of(inputs.enumerate().map(encode))
    }

    fn of(encoded: impl Iterator<Item = Result<String>> + Send + 'a) -> Self {
        Self(SyncWrapper::new(Box::new(encoded)))
    }

    /// Takes the inputs, and leaves none.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Result<String>> + Send + 'a {
        std::mem::replace(self, Self::of(std::iter::empty())).0.into_inner()
    }

    /// Encodes all inputs now. Returns their number.
    pub(super) fn encode_all(&mut self) -> usize {
        let all: Vec<_> = self.take().collect();
        let count = all.len();
        *self = Self::of(all.into_iter());
        count
    }
}

/// The options of individual requests, by their index.
pub(crate) struct Each<'a, T>(Option<EachFn<'a, T>>);

type EachFn<'a, T> = SyncWrapper<Box<dyn FnMut(usize, T) -> T + Send + 'a>>;

impl<'a, T: Default + PartialEq> Each<'a, T> {
    pub(crate) fn new(options: impl FnMut(usize, T) -> T + Send + 'a) -> Self {
        Self(Some(SyncWrapper::new(Box::new(options))))
    }

    /// The options of a request, unless it has none: most have none if only some are special.
    pub(crate) fn get(&mut self, index: usize) -> Option<T> {
        let options = self.0.as_mut()?.get_mut()(index, T::default());
        (options != T::default()).then_some(options)
    }

    pub(crate) fn take(&mut self) -> Self {
        Self(self.0.take())
    }
}

impl<T> Default for Each<'_, T> {
    fn default() -> Self {
        Self(None)
    }
}

impl fmt::Debug for Inputs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inputs")
    }
}

impl<T> fmt::Debug for Each<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Some" } else { "None" })
    }
}
