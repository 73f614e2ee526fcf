//! Whether a command that was rejected is sent again. Its caller must fetch the runs before.

use tokio::time::{Duration, Instant, sleep};

use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::Error;
use crate::transport::retry_delay;

/// The retries of one command.
#[derive(Debug)]
pub(super) struct Resend {
    policy: RetryPolicy,
    failures: u32,
    until: Instant,
}

impl Resend {
    pub(super) fn new(client: &Client, request: RequestOptions, within: Duration) -> Self {
        let policy = request.retry.unwrap_or_else(|| client.config().retry());
        Self { policy, failures: 0, until: Instant::now() + within }
    }

    /// Waits until the command may be sent again after an error without side effects. Returns `false` if it may not.
    pub(super) async fn again(&mut self, error: &Error) -> bool {
        self.failures += 1;
        let pause = error.pushback().unwrap_or_else(|| retry_delay(self.failures, fastrand::f64()));
        let is_allowed =
            error.is_transient() && self.policy.allows(self.failures) && Instant::now() + pause < self.until;
        if is_allowed {
            sleep(pause).await;
        }
        is_allowed
    }
}
