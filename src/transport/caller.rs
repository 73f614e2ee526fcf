//! Unary calls: one deadline for all tries, and retries of calls that can be repeated.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::Instrument as _;

use super::budget::RetryBudget;
use super::request::Sent;
use super::retry::{Repeat, Retry, decide};
use super::status::from_status;
use super::token_health::TokenHealth;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::telemetry::{self, Measurement};
use crate::time::RateLimit;

/// The deadline (100 years) for calls whose deadline is beyond the range of the clock.
const MAX_DEADLINE: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The properties of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// The name in error messages.
    pub(crate) name: &'static str,
    repeat: Repeat,
    /// The timeout, if it is not the configured one.
    pub(crate) deadline: Option<Duration>,
}

impl Call {
    /// A call that can be repeated: a second execution has no additional effect.
    pub(crate) const fn idempotent(name: &'static str) -> Self {
        Self { name, repeat: Repeat::Always, deadline: None }
    }

    /// A call that has an effect at each execution. It is retried if it was certainly not processed.
    pub(crate) const fn once(name: &'static str) -> Self {
        Self { name, repeat: Repeat::IfUnprocessed, deadline: None }
    }

    /// A call that is never retried here: its caller retries it, must check first whether it is still right, or has no use for a late one.
    /// It does not withdraw from the retry budget.
    pub(crate) const fn single(name: &'static str) -> Self {
        Self { name, repeat: Repeat::Never, deadline: None }
    }

    pub(crate) const fn within(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

/// Makes calls. They share the default timeout, the retry budget and the state of the token.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    deadline: Duration,
    retry: RetryPolicy,
    budget: Arc<RetryBudget>,
    token: Arc<TokenHealth>,
    closed: CancellationToken,
    /// The rate of retries, if it is limited.
    retry_rate: Option<RateLimit>,
}

impl Caller {
    pub(crate) fn new(deadline: Duration, retry: RetryPolicy) -> Self {
        Self {
            deadline,
            retry,
            budget: Arc::default(),
            token: Arc::default(),
            closed: CancellationToken::new(),
            retry_rate: None,
        }
    }

    /// A caller for one request, with its options.
    pub(crate) fn with(&self, options: RequestOptions) -> Self {
        Self {
            deadline: options.timeout.unwrap_or(self.deadline),
            retry: options.retry.unwrap_or(self.retry),
            ..self.clone()
        }
    }

    /// A caller whose retries are also limited by a rate. It is for callers that limit their first tries themselves.
    pub(crate) fn with_retry_rate(&self, rate: RateLimit) -> Self {
        Self { retry_rate: Some(rate), ..self.clone() }
    }

    /// Fails all later calls, also of clones.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// A caller for another API of the same server, with its own token state: each API checks the token by itself.
    pub(crate) fn for_other_api(&self) -> Self {
        Self { token: Arc::default(), ..self.clone() }
    }

    /// Whether the token was accepted or rejected.
    pub(crate) fn token(&self) -> &Arc<TokenHealth> {
        &self.token
    }

    /// Makes a gRPC call. Each try gets the flag that its request sets when it is sent.
    pub(crate) async fn grpc<T, F>(&self, call: Call, mut attempt: impl FnMut(Sent) -> F) -> Result<T>
    where
        F: Future<Output = std::result::Result<T, Status>>,
    {
        let sent = Sent::default();
        let run = self.run(call, sent.clone(), || {
            let attempt = attempt(sent.clone());
            async move { attempt.await.map_err(|status| from_status(call.name, status)) }
        });
        run.await
    }

    /// Makes a call, with retries. The deadline applies to all tries together. If it passes during a try, the call may have had an
    /// effect, unless no request was sent. A caller that cannot observe its requests passes [`Sent::unknown`].
    pub(crate) async fn run<T, F>(&self, call: Call, sent: Sent, attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let (span, mut tries) = (telemetry::call_span(call.name), 0);
        if span.is_disabled() {
            return self.tries(call, sent, attempt, &mut tries).await;
        }
        // Boxed, so that the other calls are not larger.
        let result = Box::pin(self.tries(call, sent, attempt, &mut tries).instrument(span.clone())).await;
        span.record("tries", tries);
        telemetry::record_result(&span, &result);
        result
    }

    /// Makes a call, and counts its tries.
    async fn tries<T, F>(&self, call: Call, sent: Sent, mut attempt: impl FnMut() -> F, tries: &mut u32) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let start = telemetry::is_recorded().then(Instant::now);
        if self.closed.is_cancelled() {
            return Err(Error::closed("the client").without_side_effects());
        }
        let allowed = call.deadline.unwrap_or(self.deadline);
        let now = Instant::now();
        let deadline = now.checked_add(allowed).unwrap_or(now + MAX_DEADLINE);
        let timeout = runtime::timer("a call", deadline)?;
        tokio::pin!(timeout);
        let (mut failures, mut last, mut has_side_effects) = (0_u32, None, false);
        let result = loop {
            *tries = tries.saturating_add(1);
            let response = tokio::select! {
                biased;
                response = attempt() => response,
                () = &mut timeout => {
                    let error = timed_out(call.name, allowed, failures, last);
                    let is_unsent = !has_side_effects && !sent.get();
                    break Err(if is_unsent { error.without_side_effects() } else { error });
                }
            };
            let error = match response {
                Ok(response) => {
                    self.budget.deposit();
                    self.token.accepted();
                    break Ok(response);
                }
                Err(error) => self.token.mark_if_recoverable(error),
            };
            failures = failures.saturating_add(1);
            let left = deadline.saturating_duration_since(Instant::now());
            match decide(&error, call.repeat, failures, left, fastrand::f64()) {
                // A closed client is not retried.
                Retry::After(delay)
                    if !self.closed.is_cancelled() && self.retry.allows(failures) && self.budget.withdraw() =>
                {
                    tracing::debug!(call = call.name, failures, ?delay, %error, "retrying");
                    has_side_effects |= !error.has_no_side_effects();
                    let pause = async {
                        sleep(delay).await;
                        match &self.retry_rate {
                            Some(rate) => rate.pass_before(deadline).await,
                            None => true,
                        }
                    };
                    // Boxed, because few calls are retried.
                    match Box::pin(self.closed.run_until_cancelled(pause)).await {
                        Some(true) => {
                            telemetry::record(&Measurement::Retry { call: call.name });
                            last = Some(error);
                        }
                        Some(false) => {
                            self.budget.refund();
                            break Err(if has_side_effects { error.with_possible_side_effects() } else { error });
                        }
                        None => {
                            let closed = Error::closed("the client").with_source(error);
                            break Err(if has_side_effects { closed } else { closed.without_side_effects() });
                        }
                    }
                }
                // An earlier try may have had an effect, even if the last one had none.
                _ => break Err(if has_side_effects { error.with_possible_side_effects() } else { error }),
            }
        };
        if let Some(start) = start {
            let error = result.as_ref().err().map(Error::kind);
            telemetry::record(&Measurement::Call { call: call.name, error, duration: start.elapsed() });
        }
        result
    }
}

/// The error if the deadline passed during a try, with the error of the previous try as its source.
fn timed_out(call: &str, allowed: Duration, failures: u32, last: Option<Error>) -> Error {
    let text = format!("{call} timed out after {allowed:?}");
    let Some(last) = last else { return Error::new(ErrorKind::Timeout, text).transient() };
    let tries = failures.saturating_add(1);
    Error::new(ErrorKind::Timeout, format!("{text} ({tries} tries)")).with_source(last).transient()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::RetryAfter;

    const SECOND: Duration = Duration::from_secs(1);

    async fn count(call: Call, error: impl Fn() -> Error, fail: u32) -> (u32, Result<()>) {
        let tries = Cell::new(0);
        let result = Caller::new(30 * SECOND, RetryPolicy::default())
            .run(call, Sent::unknown(), || {
                tries.set(tries.get() + 1);
                let result = if tries.get() <= fail { Err(error()) } else { Ok(()) };
                async { result }
            })
            .await;
        (tries.get(), result)
    }

    fn lost() -> Error {
        Error::new(ErrorKind::Unavailable, "lost").transient()
    }

    #[tokio::test(start_paused = true)]
    async fn idempotent_calls_are_retried_until_they_succeed() {
        let (tries, result) = count(Call::idempotent("Get"), lost, 5).await;
        assert!(result.is_ok());
        assert_eq!(tries, 6);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_have_possible_side_effects_if_one_try_had() {
        let tries = Cell::new(0);
        let result: Result<()> = Caller::new(30 * SECOND, RetryPolicy::default())
            .run(Call::idempotent("Put"), Sent::unknown(), || {
                tries.set(tries.get() + 1);
                let error = if tries.get() == 1 { lost() } else { lost().without_side_effects() };
                async { Err(error) }
            })
            .await;
        let error = result.unwrap_err();
        assert!(tries.get() > 2 && !error.has_no_side_effects(), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_policy_limits_the_retries_of_a_request() {
        let caller = Caller::new(30 * SECOND, RetryPolicy::default());
        for (policy, expected) in [(RetryPolicy::none(), 1), (RetryPolicy::max_retries(2), 3)] {
            let tries = Cell::new(0);
            let options = RequestOptions { timeout: None, retry: Some(policy) };
            let caller = caller.with(options);
            let call = caller.run(Call::idempotent("Get"), Sent::unknown(), || {
                tries.set(tries.get() + 1);
                async { Err::<(), _>(lost()) }
            });
            assert!(call.await.is_err());
            assert_eq!(tries.get(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_sent_at_a_limited_rate_until_the_deadline() {
        let limit = RateLimit::new(1);
        let caller = Caller::new(10 * SECOND, RetryPolicy::default()).with_retry_rate(limit.clone());
        for (reserved, expected) in [(0, vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9]), (8, vec![0, 9]), (30, vec![0])] {
            // What others have reserved, and the first try. The delay of a retry is shorter.
            let others = limit.clone();
            let others = tokio::spawn(async move { others.pass(reserved + 1).await });
            tokio::task::yield_now().await;
            let (start, at) = (Instant::now(), std::cell::RefCell::new(Vec::new()));
            let call = caller.run(Call::idempotent("Get"), Sent::unknown(), || {
                at.borrow_mut().push(start.elapsed().as_secs());
                async { Err::<(), _>(lost().with_retry_after(Some(RetryAfter::Delay(SECOND / 10)))) }
            });
            assert_eq!(call.await.unwrap_err().kind(), ErrorKind::Unavailable);
            assert_eq!(at.into_inner(), expected);
            others.await.unwrap();
            sleep(60 * SECOND).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_with_possible_side_effects_are_not_retried() {
        let (tries, result) = count(Call::once("Trigger"), lost, 1).await;
        assert_eq!((tries, result.unwrap_err().has_no_side_effects()), (1, false));
        let (tries, result) = count(Call::once("Trigger"), || lost().without_side_effects(), 1).await;
        assert_eq!((tries, result.is_ok()), (2, true));
    }

    #[tokio::test(start_paused = true)]
    async fn single_calls_are_not_retried_and_leave_the_budget() {
        let caller = Caller::new(30 * SECOND, RetryPolicy::default());
        for _ in 0..100 {
            let call = caller
                .run(Call::single("Cancel"), Sent::unknown(), || async { Err::<(), _>(lost().without_side_effects()) });
            assert!(call.await.unwrap_err().has_no_side_effects());
        }
        let tries = Cell::new(0);
        let call = caller.run(Call::idempotent("Get"), Sent::unknown(), || {
            tries.set(tries.get() + 1);
            let result = if tries.get() == 1 { Err(lost()) } else { Ok(()) };
            async { result }
        });
        call.await.unwrap();
        assert_eq!(tries.get(), 2, "the budget is full");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_after_the_end_of_the_client() {
        for (is_sent, first) in [(true, lost()), (false, lost().without_side_effects())] {
            let (caller, tries) = (Caller::new(30 * SECOND, RetryPolicy::default()), Cell::new(0));
            let first = first.with_retry_after(Some(RetryAfter::Delay(5 * SECOND)));
            let call = caller.run(Call::idempotent("Put"), Sent::unknown(), || {
                tries.set(tries.get() + 1);
                let result = if tries.get() == 1 { Err(first.clone()) } else { Ok(()) };
                async { result }
            });
            let start = Instant::now();
            let close = async {
                sleep(SECOND).await;
                caller.close();
            };
            let (result, ()) = tokio::join!(call, close);
            let error = result.unwrap_err();
            assert_eq!((error.kind(), tries.get(), start.elapsed()), (ErrorKind::Closed, 1, SECOND));
            assert_eq!(error.has_no_side_effects(), !is_sent, "{error:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_before_anything_was_sent_has_no_side_effects() {
        let caller = Caller::new(2 * SECOND, RetryPolicy::default());
        for is_sent in [false, true] {
            let call = caller.grpc(Call::once("Trigger"), |sent| async move {
                if is_sent {
                    sent.set();
                }
                std::future::pending::<std::result::Result<(), Status>>().await
            });
            let error = call.await.unwrap_err();
            assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Timeout, !is_sent));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_limits_retries() {
        let start = Instant::now();
        let (tries, result) = count(Call::idempotent("Get"), lost, u32::MAX).await;
        assert!(result.is_err() && tries <= 21 && start.elapsed() < 30 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn the_servers_delay_is_used_exactly() {
        let start = Instant::now();
        let (tries, _) =
            count(Call::idempotent("Get"), || lost().with_retry_after(Some(RetryAfter::Delay(7 * SECOND))), 2).await;
        assert_eq!((tries, start.elapsed()), (3, 14 * SECOND));
        let (tries, result) =
            count(Call::idempotent("Get"), || lost().with_retry_after(Some(RetryAfter::Delay(40 * SECOND))), 2).await;
        assert_eq!((tries, result.is_err()), (1, true));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_without_a_response_end_at_their_deadline() {
        let start = Instant::now();
        let call = Call::idempotent("Get").within(2 * SECOND);
        let result: Result<()> =
            Caller::new(30 * SECOND, RetryPolicy::default()).run(call, Sent::unknown(), std::future::pending).await;
        let error = result.unwrap_err();
        assert!(error.is_timeout() && !error.has_no_side_effects());
        assert_eq!(error.to_string(), "Get timed out after 2s");
        assert_eq!(start.elapsed(), 2 * SECOND);
        assert!(std::error::Error::source(&error).is_none(), "no earlier try has failed");
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_keep_the_error_of_the_previous_try() {
        let (start, tries) = (Instant::now(), Cell::new(0));
        let call = Call::idempotent("Get").within(2 * SECOND);
        let result: Result<()> = Caller::new(30 * SECOND, RetryPolicy::default())
            .run(call, Sent::unknown(), || {
                tries.set(tries.get() + 1);
                let failed = (tries.get() < 4).then(|| format!("rejected, try {}", tries.get()));
                async {
                    match failed {
                        Some(text) => Err(Error::new(ErrorKind::Unavailable, text).transient().without_side_effects()),
                        None => std::future::pending().await,
                    }
                }
            })
            .await;
        let error = result.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (ErrorKind::Timeout, 2 * SECOND));
        assert_eq!(error.to_string(), "Get timed out after 2s (4 tries)");
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(source.downcast_ref::<Error>().unwrap().to_string(), "rejected, try 3");
        assert!(!error.has_no_side_effects(), "the last try may have reached the server");
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_beyond_the_clock_do_not_panic() {
        let call = Call::idempotent("Get").within(Duration::MAX);
        assert!(
            Caller::new(SECOND, RetryPolicy::default()).run(call, Sent::unknown(), || async { Ok(()) }).await.is_ok()
        );
    }

    #[test]
    fn calls_without_a_runtime_or_timers_return_errors() {
        let caller = Caller::new(SECOND, RetryPolicy::default());
        let call = || caller.run(Call::idempotent("Get"), Sent::unknown(), || async { Ok(()) });
        let bare = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for result in [futures_util::FutureExt::now_or_never(call()).unwrap(), bare.block_on(call())] {
            let error = result.unwrap_err();
            assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Config, true), "{error}");
        }
    }
}
