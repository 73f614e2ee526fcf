//! Jobs that report their progress: a stream with an item for each step, and a report of all steps so far.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::StreamExt as _;

use crate::boxed::BoxStream;
use crate::error::Result;
use crate::sync::lock;

/// What is done in steps.
pub(super) trait Job: Send + 'static {
    /// What a step did.
    type Item: Send + 'static;
    /// What all steps did.
    type Report: Clone + Default + Send + 'static;

    /// Works until there is an item. `None` at the end.
    fn step(&mut self) -> impl Future<Output = Result<Option<Self::Item>>> + Send;

    /// What was done so far, also by a step that failed.
    fn report(&self) -> &Self::Report;

    /// Whether there are further steps after one that failed.
    fn continues_after_error(&self) -> bool {
        false
    }
}

/// The progress of a job, which works while the stream is polled.
pub(super) struct Progress<T, R> {
    items: BoxStream<Result<T>>,
    report: Arc<Mutex<R>>,
}

impl<T: Send + 'static, R: Clone + Default + Send + 'static> Progress<T, R> {
    /// The first poll opens the job. If that fails, the error is the only item.
    pub(super) fn of<J: Job<Item = T, Report = R>>(
        open: impl Future<Output = Result<Box<J>>> + Send + 'static,
    ) -> Self {
        let report = Arc::new(Mutex::new(R::default()));
        let shared = Arc::clone(&report);
        let items = BoxStream::opened(open, move |mut job: Box<J>| {
            let report = Arc::clone(&shared);
            async move {
                let item = job.step().await;
                *lock(&report) = job.report().clone();
                match item {
                    Ok(item) => Some((Ok(item?), Some(job))),
                    Err(error) => Some((Err(error), job.continues_after_error().then_some(job))),
                }
            }
        });
        Self { items, report }
    }

    pub(super) async fn next(&mut self) -> Option<Result<T>> {
        self.items.next().await
    }

    /// The report up to the last item that the stream has returned, or its end.
    pub(super) fn report(&self) -> R {
        lock(&self.report).clone()
    }
}

impl<T, R> Stream for Progress<T, R> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.poll_next_unpin(cx)
    }
}
