//! The streams behind the named stream types.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::unfold;
use sync_wrapper::SyncWrapper;

use crate::error::Result;

/// A fused stream whose type has no name. It is `Sync` although its futures are not: it can only be polled by its owner.
pub(crate) struct BoxStream<T>(SyncWrapper<Pin<Box<dyn Stream<Item = T> + Send>>>);

impl<T: 'static> BoxStream<T> {
    pub(crate) fn new(stream: impl Stream<Item = T> + Send + 'static) -> Self {
        Self(SyncWrapper::new(Box::pin(stream.fuse())))
    }
}

impl<T: 'static> BoxStream<Result<T>> {
    /// A stream from a source that the first poll opens. If that fails, the error is the only item. `next` returns an item, with the source
    /// unless the stream ends after it.
    pub(crate) fn opened<S, N>(
        open: impl Future<Output = Result<S>> + Send + 'static,
        next: impl Fn(S) -> N + Clone + Send + 'static,
    ) -> Self
    where
        S: Send + 'static,
        N: Future<Output = Option<(Result<T>, Option<S>)>> + Send + 'static,
        T: Send,
    {
        let closed: Source<S> = Source::Closed(Box::pin(open));
        Self::new(unfold(Some(closed), move |source| {
            let next = next.clone();
            async move {
                let source = match source? {
                    Source::Open(source) => source,
                    Source::Closed(open) => match open.await {
                        Ok(source) => source,
                        Err(error) => return Some((Err(error), None)),
                    },
                };
                let (item, source) = next(source).await?;
                Some((item, source.map(Source::Open)))
            }
        }))
    }
}

/// The source of a stream.
enum Source<S> {
    Closed(BoxFuture<'static, Result<S>>),
    Open(S),
}

impl<T> Stream for BoxStream<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.get_mut().as_mut().poll_next(cx)
    }
}
