//! Timeouts for peers that make no progress.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::error::BoxError;

/// Measures the time without progress.
struct StallTimer {
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl StallTimer {
    fn new(limit: Duration) -> Self {
        Self { limit, waiting: None }
    }

    /// Returns the polled value, or an error if it has been pending for longer than the limit.
    fn check<T>(&mut self, polled: Poll<T>, cx: &mut Context<'_>, stalled: impl FnOnce() -> T) -> Poll<T> {
        if polled.is_ready() {
            self.waiting = None;
            return polled;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        waiting.as_mut().poll(cx).map(|()| stalled())
    }
}

/// A connection that fails if the peer does not read what is written to it.
pub(super) struct WriteTimeout<I> {
    io: I,
    writing: StallTimer,
}

impl<I> WriteTimeout<I> {
    pub(super) fn new(io: I, limit: Duration) -> Self {
        Self { io, writing: StallTimer::new(limit) }
    }
}

fn unread<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::TimedOut, "the peer did not read in time"))
}

impl<I: AsyncRead + Unpin> AsyncRead for WriteTimeout<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.writing.check(written, cx, unread)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.writing.check(written, cx, unread)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    // A socket has nothing to flush, so a successful flush is not progress of the peer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A body that fails if its next part does not arrive in time.
pub(super) struct ReadTimeout<B> {
    body: B,
    reading: StallTimer,
}

impl<B> ReadTimeout<B> {
    pub(super) fn new(body: B, limit: Duration) -> Self {
        Self { body, reading: StallTimer::new(limit) }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for ReadTimeout<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into);
        let limit = self.reading.limit;
        self.reading.check(frame, cx, || Some(Err(format!("no part of the body arrived within {limit:?}").into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
