//! The rate limits of the tenant.

use std::time::Duration;

use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{RateLimitDetails, RateLimitWindow};
use crate::request::{CommandBuilder, ReadBuilder};

impl Client {
    /// Returns a builder for a rate limit of `limit` units in each window; [`send`](RateLimitBuilder::send) creates or changes the rate
    /// limit.
    ///
    /// Tasks consume its units with [`RateLimit::new`](crate::workflow::RateLimit::new). The client's namespace is not added to the key:
    /// all programs of a tenant share the rate limit.
    ///
    /// The limit must be from 0 to 2,147,483,647. With a limit of 0, tasks that consume its units wait. The first task that uses a new key
    /// starts about 1.2 seconds late.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// use hatchet::model::RateLimitWindow;
    ///
    /// let openai = hatchet.rate_limit("openai", 100, RateLimitWindow::Minute).send().await?;
    /// println!("{} units left", openai.details().await?.remaining);
    /// # Ok(())
    /// # }
    /// ```
    pub fn rate_limit(&self, key: impl Into<String>, limit: u32, window: RateLimitWindow) -> RateLimitBuilder {
        RateLimitBuilder { client: self.clone(), key: key.into(), limit, window, request: RequestOptions::default() }
    }

    /// Returns a handle to an existing rate limit. Nothing is sent, so this does not check that the limit exists.
    pub fn rate_limit_handle(&self, key: impl Into<String>) -> RateLimitHandle {
        RateLimitHandle { client: self.clone(), key: key.into() }
    }

    /// Returns a query for rate limits, including those that the engine has created for dynamic keys.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// for limit in hatchet.rate_limits().key_contains("openai").get().await? {
    ///     println!("{}: {} of {} left", limit.key, limit.remaining, limit.limit);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn rate_limits(&self) -> RateLimitQuery {
        RateLimitQuery { client: self.clone(), key_part: None, request: RequestOptions::default() }
    }
}

/// A builder for a rate limit of the tenant; see [`Client::rate_limit`].
///
/// [`send`](Self::send) creates the rate limit, or changes the existing one with the same key.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// use std::time::Duration;
/// use hatchet::model::RateLimitWindow;
///
/// hatchet.rate_limit("openai", 100, RateLimitWindow::Minute).timeout(Duration::from_secs(5)).send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is created until `send` is awaited"]
pub struct RateLimitBuilder {
    client: Client,
    key: String,
    limit: u32,
    window: RateLimitWindow,
    request: RequestOptions,
}

impl RateLimitBuilder {
    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.request.retry = Some(policy);
        self
    }

    /// Creates the rate limit, or changes the existing one with the same key.
    ///
    /// A higher limit applies from the next window on; a lower limit applies immediately.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the key is empty or contains U+0000, or if the limit is over 2,147,483,647. Nothing is
    /// sent then.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the limit may have been created or changed.
    pub async fn send(self) -> Result<RateLimitHandle> {
        check_key(&self.key)?;
        let limit = i32::try_from(self.limit).map_err(|_| {
            Error::invalid("rate limit", format_args!("expected at most {} units, got {}", i32::MAX, self.limit))
        })?;
        let client = self.client.with(self.request)?;
        client.rpc().workflows.put_rate_limit(self.key.clone(), limit, self.window).await?;
        Ok(RateLimitHandle { client: self.client, key: self.key })
    }
}

/// A handle to a rate limit.
///
/// A handle is cheap to clone. Dropping a handle does not affect the limit.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// let openai = hatchet.rate_limit_handle("openai");
/// println!("{} units left", openai.details().await?.remaining);
/// openai.delete().send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RateLimitHandle {
    client: Client,
    key: String,
}

impl RateLimitHandle {
    /// Returns the key that tasks refer to.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the client that this handle uses.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns a request for the details of the limit. The request needs the REST API.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the limit does not exist.
    ///
    /// # Cancel safety
    /// The request is cancel safe: it only reads.
    pub fn details(&self) -> ReadBuilder<RateLimitDetails> {
        let key = self.key.clone();
        ReadBuilder::new(&self.client, move |client| async move {
            check_key(&key)?;
            let rows = list(&client, Some(&key)).await?;
            rows.into_iter().find(|row| row.key == key).ok_or_else(|| {
                let text = format!("the tenant has no rate limit {key:?}");
                Error::new(ErrorKind::NotFound, text).without_side_effects()
            })
        })
    }

    /// Returns a command that deletes the limit. The command also succeeds if the limit does not exist. It needs the REST API.
    ///
    /// # Errors
    /// [`Rejected`](ErrorKind::Rejected) if a workflow uses the limit.
    pub fn delete(&self) -> CommandBuilder {
        let key = self.key.clone();
        CommandBuilder::new(&self.client, move |client| async move {
            check_key(&key)?;
            client.rpc().rest.delete_rate_limit(&key).await
        })
    }
}

/// A query for rate limits; see [`Client::rate_limits`].
///
/// [`get`](Self::get) sends it. By default, all rate limits of the tenant match.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// let all = hatchet.rate_limits().get().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until `get` is awaited"]
pub struct RateLimitQuery {
    client: Client,
    key_part: Option<String>,
    request: RequestOptions,
}

impl RateLimitQuery {
    /// Matches only limits whose key contains this string; the match is case-sensitive.
    ///
    /// If this method is called several times, the last string applies.
    pub fn key_contains(mut self, part: impl Into<String>) -> Self {
        self.key_part = Some(part.into());
        self
    }

    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.request.retry = Some(policy);
        self
    }

    /// Returns all matching limits, in the order of their keys. The request reads them page by page. It needs the REST API.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if the REST API cannot be reached.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn get(self) -> Result<Vec<RateLimitDetails>> {
        let client = self.client.with(self.request)?;
        list(&client, self.key_part.as_deref()).await
    }
}

async fn list(client: &Client, key_part: Option<&str>) -> Result<Vec<RateLimitDetails>> {
    let search = key_part.filter(|part| !part.is_empty()).map(|part| ("search", part.to_owned()));
    let rows = client.rpc().rest.rate_limits(&search.into_iter().collect::<Vec<_>>()).await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

fn check_key(key: &str) -> Result<()> {
    if key.is_empty() || key.contains('\0') {
        return Err(Error::invalid("rate limit", format_args!("expected a non-empty key without U+0000, got {key:?}")));
    }
    Ok(())
}
