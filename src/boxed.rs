//! The streams behind the named stream types.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::StreamExt as _;
use sync_wrapper::SyncWrapper;

/// A fused stream whose type has no name. It is `Sync` although its futures are not: it can only be polled by its owner.
pub(crate) struct BoxStream<T>(SyncWrapper<Pin<Box<dyn Stream<Item = T> + Send>>>);

impl<T: 'static> BoxStream<T> {
    pub(crate) fn new(stream: impl Stream<Item = T> + Send + 'static) -> Self {
        Self(SyncWrapper::new(Box::pin(stream.fuse())))
    }
}

impl<T> Stream for BoxStream<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.get_mut().as_mut().poll_next(cx)
    }
}
