//! A stream of messages, as plain values.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::StreamExt as _;
use tonic::{Status, Streaming};

use crate::error::Result;
use crate::transport::{TokenHealth, from_status};

/// The messages that the server sends on one stream. It ends with an error, or when the server ends it well.
pub(crate) struct Messages<T>(Pin<Box<dyn Stream<Item = Result<T>> + Send>>);

impl<T> Messages<T> {
    /// The messages of a stream that `call` has opened.
    fn new<M: Into<T> + Send + 'static>(call: &'static str, stream: Streaming<M>, token: Arc<TokenHealth>) -> Self {
        let mut is_first = true;
        Self(Box::pin(stream.map(move |message| match message {
            Ok(message) => {
                // A stream that is open goes on after its token has expired.
                if std::mem::take(&mut is_first) {
                    token.accepted();
                }
                Ok(message.into())
            }
            Err(status) => Err(token.mark_if_recoverable(from_status(call, status))),
        })))
    }

    /// What came when it was opened.
    pub(super) fn opened<M: Into<T> + Send + 'static>(
        call: &'static str,
        answer: Result<tonic::Response<Streaming<M>>, Status>,
        token: &Arc<TokenHealth>,
    ) -> Result<Self> {
        match answer {
            Ok(stream) => Ok(Self::new(call, stream.into_inner(), Arc::clone(token))),
            Err(status) => Err(token.mark_if_recoverable(from_status(call, status))),
        }
    }

    /// A stream of these, for those who test what reads one.
    #[cfg(test)]
    pub(crate) fn of(items: Vec<Result<T>>) -> Self
    where
        T: Send + 'static,
    {
        Self(Box::pin(futures_util::stream::iter(items)))
    }

    /// The next message, or `None` after the server's own end. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Result<T>> {
        self.0.next().await
    }
}

impl<T> Stream for Messages<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl<T> fmt::Debug for Messages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Messages")
    }
}
