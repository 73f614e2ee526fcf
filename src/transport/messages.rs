//! The messages of a server stream.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::future::ready;
use tonic::{Status, Streaming};

use super::status::from_status;
use super::token_health::TokenHealth;
use crate::error::Result;

/// The messages of one stream. It ends with an error, or without one if the server ends it.
pub(crate) struct Messages<T>(Pin<Box<dyn Stream<Item = Result<T>> + Send>>);

impl<T> Messages<T> {
    fn new<M>(call: &'static str, stream: Streaming<M>, token: Arc<TokenHealth>) -> Self
    where
        M: TryInto<T, Error: std::fmt::Display> + Send + 'static,
        T: Send + 'static,
    {
        let mut is_first = true;
        Self(Box::pin(stream.filter_map(move |message| {
            let converted = match message {
                Ok(message) => {
                    // A stream that is open continues after its token has expired.
                    if std::mem::take(&mut is_first) {
                        token.accepted();
                    }
                    match message.try_into() {
                        Ok(message) => Some(Ok(message)),
                        // An invalid message must not end the stream for its other messages.
                        Err(error) => {
                            tracing::warn!(call, %error, "skipped invalid message of a stream");
                            None
                        }
                    }
                }
                Err(status) => Some(Err(token.mark_if_recoverable(from_status(call, status)))),
            };
            ready(converted)
        })))
    }

    /// Returns the messages of an opened stream, or the error if it could not be opened.
    pub(crate) fn opened<M>(
        call: &'static str,
        stream: Result<Streaming<M>, Status>,
        token: &Arc<TokenHealth>,
    ) -> Result<Self>
    where
        M: TryInto<T, Error: std::fmt::Display> + Send + 'static,
        T: Send + 'static,
    {
        match stream {
            Ok(stream) => Ok(Self::new(call, stream, Arc::clone(token))),
            Err(status) => Err(token.mark_if_recoverable(from_status(call, status))),
        }
    }

    /// Keeps a value until the stream is dropped.
    pub(crate) fn holding(self, value: impl Send + 'static) -> Self
    where
        T: 'static,
    {
        Self(Box::pin(self.0.inspect(move |_| _ = &value)))
    }

    /// A stream of these items.
    #[cfg(test)]
    pub(crate) fn of(items: Vec<Result<T>>) -> Self
    where
        T: Send + 'static,
    {
        Self(Box::pin(futures_util::stream::iter(items)))
    }

    /// A stream of messages, each at a time after a moment. It stays open.
    #[cfg(test)]
    pub(crate) fn timed(start: tokio::time::Instant, items: Vec<(std::time::Duration, T)>) -> Self
    where
        T: Send + 'static,
    {
        let items = futures_util::stream::iter(items).then(move |(at, item)| async move {
            tokio::time::sleep_until(start + at).await;
            Ok(item)
        });
        Self(Box::pin(items.chain(futures_util::stream::pending())))
    }

    /// The next message, or `None` if the server has ended the stream. Cancel safe.
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
