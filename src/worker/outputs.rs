//! Sends the log lines and the chunks of all tasks of a worker: those of one task one after the other, those of several tasks
//! concurrently.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::model::TaskId;
use crate::workflow::{TaskContent, TaskMessage, TaskOutput};

/// The maximum number of calls in flight.
const MAX_CALLS: usize = 16;
/// The number of messages that wait for another one of their task. Further ones stay in the bounded queue.
const MAX_WAITING: usize = 1000;
/// How long messages are still sent when the worker has ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The queue of a worker's log lines and chunks, and the task that sends them.
pub(super) struct Outputs {
    output: TaskOutput,
    closed: CancellationToken,
    task: JoinHandle<u64>,
}

impl Outputs {
    pub(super) fn start(client: &Client) -> Self {
        let (output, messages) = TaskOutput::new();
        let closed = CancellationToken::new();
        let sender = Sender {
            client: client.clone(),
            messages,
            calls: FuturesUnordered::new(),
            waiting: HashMap::new(),
            count: 0,
        };
        Self { output, closed: closed.clone(), task: tokio::spawn(sender.run(closed)) }
    }

    pub(super) fn output(&self) -> TaskOutput {
        self.output.clone()
    }

    /// Sends what is in the queue, within some seconds, and ends.
    pub(super) async fn close(mut self) {
        self.closed.cancel();
        let lost = timeout(CLOSE_TIMEOUT, &mut self.task).await;
        if !matches!(lost, Ok(Ok(0))) {
            tracing::warn!("some log lines or chunks of tasks could not be sent before the worker ended");
        }
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Sender {
    client: Client,
    messages: mpsc::Receiver<TaskMessage>,
    calls: FuturesUnordered<BoxFuture<'static, (TaskId, Result<()>)>>,
    /// The messages of tasks that have a call in flight.
    waiting: HashMap<TaskId, VecDeque<TaskMessage>>,
    /// Their number.
    count: usize,
}

impl Sender {
    /// Returns the number of messages that could not be sent.
    async fn run(mut self, closed: CancellationToken) -> u64 {
        let (mut lost, mut is_closed) = (0, false);
        loop {
            let has_capacity = self.calls.len() < MAX_CALLS && self.count < MAX_WAITING;
            tokio::select! {
                biased;
                Some((task, result)) = self.calls.next() => lost += self.on_sent(task, result),
                () = closed.cancelled(), if !is_closed => {
                    is_closed = true;
                    self.messages.close();
                }
                message = self.messages.recv(), if has_capacity => match message {
                    Some(message) => self.on_message(message),
                    None if self.calls.is_empty() => return lost,
                    None => lost += match self.calls.next().await {
                        Some((task, result)) => self.on_sent(task, result),
                        None => 0,
                    },
                },
            }
        }
    }

    fn on_message(&mut self, message: TaskMessage) {
        if let Some(waiting) = self.waiting.get_mut(&message.task) {
            waiting.push_back(message);
            self.count += 1;
        } else {
            self.waiting.insert(message.task, VecDeque::new());
            self.call(message);
        }
    }

    fn on_sent(&mut self, task: TaskId, result: Result<()>) -> u64 {
        match self.waiting.get_mut(&task).and_then(VecDeque::pop_front) {
            Some(next) => {
                self.count -= 1;
                self.call(next);
            }
            None => {
                self.waiting.remove(&task);
            }
        }
        let Err(error) = result else { return 0 };
        log(task, &error);
        1
    }

    fn call(&self, message: TaskMessage) {
        let TaskMessage { task, attempt, content } = message;
        let rpc = self.client.rpc().clone();
        self.calls.push(Box::pin(async move {
            let sent = match content {
                TaskContent::Log { level, message, metadata } => {
                    rpc.events.put_log(task, &level.to_string(), message, metadata, attempt).await
                }
                TaskContent::Chunk { index, at, content, permit } => {
                    let sent = rpc.events.put_chunk(task, at, index, content.encode()).await;
                    drop(permit);
                    sent
                }
                // Nobody waits for it any longer if this fails.
                TaskContent::Flush(flushed) => {
                    let _ = flushed.send(());
                    Ok(())
                }
            };
            (task, sent)
        }));
    }
}

fn log(task: TaskId, error: &Error) {
    tracing::warn!(task_id = %task, %error, "failed to send a log line or a chunk of a task");
}
