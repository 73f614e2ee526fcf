//! Sends a log line or a chunk of a task until the engine accepts it.

use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

use crate::error::{Error, ErrorKind, Result};
use crate::rpc::Rpc;
use crate::sync::lock;
use crate::transport::retry_delay;
use crate::workflow::{MessageOrigin, TaskContent, TaskMessage};

/// For how long a message is sent again while the engine accepts others.
const MAX_FAILING: Duration = Duration::from_secs(120);

/// Sends messages. If the engine cannot be reached, one at a time is sent again, to find out whether it is back.
#[derive(Debug)]
pub(super) struct Delivery {
    rpc: Rpc,
    turn: Semaphore,
    outage: Mutex<Outage>,
}

#[derive(Debug)]
struct Outage {
    failures: u32,
    /// Nothing is sent again before this time.
    until: Instant,
    /// The number of messages that were ever accepted.
    accepted: u64,
}

/// A message in the form in which it is sent.
#[derive(Clone)]
enum Unsent {
    Line { level: String, message: String, metadata: String },
    Chunk { index: i64, at: DateTime<Utc>, text: String },
}

impl Delivery {
    pub(super) fn new(rpc: Rpc) -> Self {
        let outage = Outage { failures: 0, until: Instant::now(), accepted: 0 };
        Self { rpc, turn: Semaphore::new(1), outage: Mutex::new(outage) }
    }

    /// Sends a message until the engine accepts it.
    ///
    /// # Errors
    /// The engine will never accept the message.
    pub(super) async fn send(&self, message: TaskMessage) -> Result<()> {
        let TaskMessage { origin: MessageOrigin { run, task, attempt }, content } = message;
        // It counts as queued until the end.
        let (unsent, _permit) = match content {
            TaskContent::Log { level, message, metadata, permit } => {
                (Unsent::Line { level: level.to_string(), message, metadata }, permit)
            }
            TaskContent::Chunk { index, at, content, permit } => {
                (Unsent::Chunk { index, at, text: content.encode() }, permit)
            }
            // Nobody waits for it any longer if this fails.
            TaskContent::Flush(flushed) => {
                let _ = flushed.send(());
                return Ok(());
            }
        };
        let mut first_failure = None;
        loop {
            let mut turn = None;
            if first_failure.is_some() {
                turn = Some(self.turn.acquire().await);
                let until = lock(&self.outage).until;
                sleep_until(until).await;
            }
            let sent = match unsent.clone() {
                Unsent::Line { level, message, metadata } => {
                    self.rpc.events.put_log(task, &level, message, metadata, attempt).await
                }
                Unsent::Chunk { index, at, text } => self.rpc.events.put_chunk(task, at, index, text).await,
            };
            let now = Instant::now();
            let mut outage = lock(&self.outage);
            let Err(error) = sent else {
                *outage = Outage { failures: 0, until: now, accepted: outage.accepted.saturating_add(1) };
                return Ok(());
            };
            let (since, accepted) = *first_failure.get_or_insert((now, outage.accepted));
            if is_refused(&error) || now >= since + MAX_FAILING && outage.accepted > accepted {
                return Err(error);
            }
            // Those that are sent at the same time fail together.
            if turn.is_some() || outage.failures == 0 {
                outage.failures = outage.failures.saturating_add(1);
                let delay = retry_delay(outage.failures, fastrand::f64());
                outage.until = now + delay.max(error.pushback().unwrap_or_default());
            }
            tracing::debug!(run_id = %run, task_id = %task, attempt, failures = outage.failures, %error, "failed to send a log line or a chunk; retrying");
        }
    }
}

/// Whether the engine will never accept the message. Other errors are not about the message: a proxy may refuse a token for a while.
fn is_refused(error: &Error) -> bool {
    let kinds = [ErrorKind::Rejected, ErrorKind::TooLarge, ErrorKind::Closed, ErrorKind::Unimplemented];
    error.is_not_found() || kinds.contains(&error.kind()) && !error.is_transient()
}
