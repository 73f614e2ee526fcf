//! Sends the log lines and the chunks of all tasks of a worker.
//!
//! A call takes one line: the contract has no call for several. The engine orders lines by their arrival, so the next line of a task is
//! sent only when the one before it has been accepted. Chunks have numbers: several of a task can be in flight.

mod lanes;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::lanes::{LaneKey, Lanes};
use super::delivery::Delivery;
use crate::client::Client;
use crate::error::Result;
use crate::telemetry::{self, Measurement};
use crate::workflow::{MessageOrigin, TaskMessage, TaskOutput};

/// How long messages are still sent when the worker has ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The queue of a worker's log lines and chunks, and the task that sends them.
pub(super) struct Outputs {
    output: TaskOutput,
    closed: CancellationToken,
    task: JoinHandle<()>,
}

impl Outputs {
    pub(super) fn start(client: &Client) -> Self {
        let (output, messages) = TaskOutput::new();
        let closed = CancellationToken::new();
        let sender = Sender {
            delivery: Arc::new(Delivery::new(client.rpc().clone())),
            messages,
            lanes: Lanes::default(),
            calls: FuturesUnordered::new(),
            rejected: 0,
        };
        Self { output, closed: closed.clone(), task: tokio::spawn(sender.run(closed)) }
    }

    pub(super) fn output(&self) -> TaskOutput {
        self.output.clone()
    }

    /// Sends what is in the queue, within a few seconds, and ends.
    pub(super) async fn close(mut self) {
        self.closed.cancel();
        if timeout(CLOSE_TIMEOUT, &mut self.task).await.is_err() {
            let lost = self.output.unsent();
            (0..lost).for_each(|_| telemetry::record(&Measurement::TaskMessageLost));
            tracing::warn!(lost, "some log lines or chunks of tasks could not be sent before the worker ended");
        }
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Sender {
    delivery: Arc<Delivery>,
    messages: mpsc::UnboundedReceiver<TaskMessage>,
    /// The messages that have left the queue.
    lanes: Lanes,
    calls: FuturesUnordered<BoxFuture<'static, (LaneKey, MessageOrigin, Result<()>)>>,
    /// The number of messages since the last accepted one that were lost.
    rejected: u32,
}

impl Sender {
    async fn run(mut self, closed: CancellationToken) {
        let (mut is_closed, mut is_empty) = (false, false);
        loop {
            let now = Instant::now();
            while let Some((lane, message)) = self.lanes.next(now, self.delivery.is_retrying()) {
                let (origin, delivery) = (message.origin, Arc::clone(&self.delivery));
                self.calls.push(Box::pin(async move { (lane, origin, delivery.send(message).await) }));
            }
            let wake_at = self.lanes.wake_at();
            tokio::select! {
                biased;
                Some((lane, origin, result)) = self.calls.next() => {
                    self.lanes.sent(lane, Instant::now());
                    self.on_sent(origin, result);
                }
                () = closed.cancelled(), if !is_closed => {
                    is_closed = true;
                    self.messages.close();
                }
                message = self.messages.recv(), if !is_empty => match message {
                    Some(message) => self.lanes.push(message, Instant::now()),
                    None => is_empty = true,
                },
                () = sleep_until(wake_at.unwrap_or(now)), if wake_at.is_some() => {}
                else => return,
            }
        }
    }

    fn on_sent(&mut self, MessageOrigin { run, task, attempt }: MessageOrigin, result: Result<()>) {
        let Err(error) = result else {
            self.rejected = 0;
            return;
        };
        telemetry::record(&Measurement::TaskMessageLost);
        self.rejected = self.rejected.saturating_add(1);
        if self.rejected <= telemetry::MAX_WARNINGS {
            tracing::warn!(run_id = %run, task_id = %task, attempt, %error, "a log line or a chunk of a task was lost");
        } else {
            tracing::debug!(run_id = %run, task_id = %task, attempt, %error, "another log line or chunk of a task was lost");
        }
    }
}
