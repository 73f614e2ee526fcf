//! Requests of handles: commands and reads that have no options of their own.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::Result;

/// What a request does, with a client that has its options.
type Call<T> = Box<dyn FnOnce(Client) -> BoxFuture<'static, Result<T>> + Send + Sync>;

/// A request, and its options.
struct Request<T> {
    client: Client,
    options: RequestOptions,
    call: Call<T>,
}

impl<T> Request<T> {
    fn new<F>(client: &Client, call: impl FnOnce(Client) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let call: Call<T> = Box::new(move |client| Box::pin(call(client)));
        Self { client: client.clone(), options: RequestOptions::default(), call }
    }

    async fn send(self) -> Result<T> {
        let client = self.client.with(self.options)?;
        (self.call)(client).await
    }
}

/// A command that is about to be sent, such as [`CronHandle::pause`](crate::handle::CronHandle::pause).
///
/// ```no_run
/// # async fn example(cron: hatchet::handle::CronHandle) -> hatchet::Result<()> {
/// use std::time::Duration;
///
/// cron.pause().timeout(Duration::from_secs(5)).send().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is sent before `send`"]
pub struct Command<T = ()>(Request<T>);

impl<T> Command<T> {
    pub(crate) fn new<F>(client: &Client, call: impl FnOnce(Client) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        Self(Request::new(client, call))
    }

    /// Sets the deadline of each call of this request, from 1 ms to 24 hours. The default is the configured
    /// [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.options.timeout = Some(timeout);
        self
    }

    /// Sets how often the calls of this request are retried. The default is the configured
    /// [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.0.options.retry = Some(policy);
        self
    }

    /// Sends the command.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for the timeout, and the errors of the method that returned this command. The
    /// command may have been applied if [`has_no_side_effects`](crate::Error::has_no_side_effects) returns `false`.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the command may have been applied.
    pub async fn send(self) -> Result<T> {
        self.0.send().await
    }
}

/// A read that is about to be sent, such as [`CronHandle::details`](crate::handle::CronHandle::details). It is sent when it is
/// awaited. Dropping it has no effect.
///
/// ```no_run
/// # async fn example(cron: hatchet::handle::CronHandle) -> hatchet::Result<()> {
/// use std::time::Duration;
///
/// println!("{}", cron.details().await?.expression);
/// println!("{}", cron.details().timeout(Duration::from_secs(1)).await?.is_enabled);
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is fetched before it is awaited"]
pub struct Read<T>(Request<T>);

impl<T> Read<T> {
    pub(crate) fn new<F>(client: &Client, call: impl FnOnce(Client) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        Self(Request::new(client, call))
    }

    /// Sets the deadline of each call of this request, from 1 ms to 24 hours. The default is the configured
    /// [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.options.timeout = Some(timeout);
        self
    }

    /// Sets how often the calls of this request are retried. The default is the configured
    /// [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.0.options.retry = Some(policy);
        self
    }
}

impl<T: 'static> IntoFuture for Read<T> {
    type Output = Result<T>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.0.send())
    }
}

impl<T> fmt::Debug for Command<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Read<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Read").field("options", &self.0.options).finish_non_exhaustive()
    }
}
