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

/// A builder for a command, such as [`CronHandle::pause`](crate::handle::CronHandle::pause).
///
/// ```no_run
/// # async fn example(cron: hatchet::handle::CronHandle) -> hatchet::Result<()> {
/// use std::time::Duration;
///
/// cron.pause().timeout(Duration::from_secs(5)).send().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is sent until `send` is awaited"]
pub struct CommandBuilder<T = ()>(Request<T>);

impl<T> CommandBuilder<T> {
    pub(crate) fn new<F>(client: &Client, call: impl FnOnce(Client) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        Self(Request::new(client, call))
    }

    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.options.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.0.options.retry = Some(policy);
        self
    }

    /// Sends the command.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the timeout is out of range, and the errors of the method that returned this command. The
    /// command may have been applied if [`has_no_side_effects`](crate::Error::has_no_side_effects) returns `false`.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the command may have been applied.
    pub async fn send(self) -> Result<T> {
        self.0.send().await
    }
}

/// A builder for a read request, such as [`CronHandle::details`](crate::handle::CronHandle::details).
///
/// The request is sent when the builder is awaited. It is cancel safe, because it only reads. If the timeout is out of range, it fails with
/// [`InvalidInput`](crate::ErrorKind::InvalidInput).
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
#[must_use = "nothing is fetched until the builder is awaited"]
pub struct ReadBuilder<T>(Request<T>);

impl<T> ReadBuilder<T> {
    pub(crate) fn new<F>(client: &Client, call: impl FnOnce(Client) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        Self(Request::new(client, call))
    }

    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.options.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.0.options.retry = Some(policy);
        self
    }
}

impl<T: 'static> IntoFuture for ReadBuilder<T> {
    type Output = Result<T>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.0.send())
    }
}

impl<T> fmt::Debug for CommandBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandBuilder").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ReadBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadBuilder").field("options", &self.0.options).finish_non_exhaustive()
    }
}
