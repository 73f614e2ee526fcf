//! Pushing events.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::event::EventHandle;
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Priority;
use crate::model::metadata::Metadata;
use crate::model::payload::encode_input;
use crate::rpc::convert::NewEvent;
use crate::run::{Each, Inputs, Took, all_failed, batched, fits};
use crate::telemetry::EVENT_TRACEPARENT;

impl Client {
    /// Returns a builder for an event; [`send`](EventBuilder::send) sends it.
    ///
    /// The engine starts a run of each workflow that listens to the key, with the payload as the input, so the payload must serialize to a
    /// JSON object.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// # #[derive(serde::Serialize)]
    /// # struct Order { id: String }
    /// let order = Order { id: "o-1".into() };
    /// let event = hatchet.push("order:created", &order).metadata("tenant", "acme").send().await?;
    /// for run in event.runs().await? {
    ///     println!("event {} started run {}", event.id(), run.id());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn push<T: Serialize + ?Sized>(&self, key: impl Into<String>, payload: &T) -> EventBuilder {
        EventBuilder { common: Common::new(self, key.into()), payload: encode_input("payload", payload) }
    }

    /// Returns a builder for many events with the same key; [`send`](EventManyBuilder::send) sends them.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// let readings = (0..5000).map(|n| serde_json::json!({ "reading": n }));
    /// for event in hatchet.push_many("sensor:reading", readings).send().await? {
    ///     println!("{}", event?.id());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn push_many<'a, T: Serialize + 'a>(
        &self,
        key: impl Into<String>,
        payloads: impl IntoIterator<Item = T, IntoIter: Send + 'a>,
    ) -> EventManyBuilder<'a> {
        let payloads = Inputs::new("payloads", payloads.into_iter());
        EventManyBuilder { common: Common::new(self, key.into()), payloads, each: Each::default() }
    }
}

/// The options that one event and many events have in common.
#[derive(Debug)]
struct Common {
    client: Client,
    key: String,
    metadata: Metadata,
    priority: Option<Priority>,
    scope: Option<String>,
    request: RequestOptions,
}

impl Common {
    fn new(client: &Client, key: String) -> Self {
        Self {
            client: client.clone(),
            key,
            metadata: Metadata::default(),
            priority: None,
            scope: None,
            request: RequestOptions::default(),
        }
    }

    /// Checks the options, also those of one event, and returns the event without its payload.
    fn event(&self, own: &EventOptions) -> Result<NewEvent> {
        let scope = own.scope.as_ref().or(self.scope.as_ref());
        check(&self.key, scope.map(String::as_str))?;
        self.metadata.check()?;
        own.metadata.check()?;
        // The runs inherit the tag, so that this client's subscription reports on them.
        let (key, value) = self.client.feed().tag();
        let metadata = self.metadata.encode_with(&own.metadata.with_trace(&[EVENT_TRACEPARENT]), Some((key, value)))?;
        let priority = own.priority.or(self.priority).map(Priority::number);
        Ok(NewEvent::new(self.client.prefixed(&self.key), metadata, priority, scope.cloned()))
    }
}

/// One of the server's two calls accepts an empty key, and the other does not.
fn check(key: &str, scope: Option<&str>) -> Result<()> {
    for (field, text) in [("event key", Some(key)), ("event scope", scope)] {
        if text.is_some_and(|text| text.contains('\0')) {
            return Err(Error::invalid(
                field,
                "expected a string without U+0000, got one that contains it: the server cannot store it",
            ));
        }
    }
    if key.is_empty() {
        return Err(Error::invalid("event key", "expected at least one character, got an empty string"));
    }
    Ok(())
}

/// A builder for an event; see [`Client::push`].
///
/// [`send`](Self::send) pushes the event. By default, it has no tags, no scope and no priority.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// let payload = serde_json::json!({ "id": "o-1" });
/// let event = hatchet.push("order:created", &payload).scope("oslo").send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is sent until `send` is awaited"]
pub struct EventBuilder {
    common: Common,
    payload: Result<String>,
}

impl EventBuilder {
    /// Adds a tag to the event and the runs that it starts.
    ///
    /// Keys must not be empty, must not contain a colon, must not begin with `hatchet__` or `hatchet_rs__`, and must not be `traceparent`.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.common.metadata.insert(key.into(), value.into().into());
        self
    }

    /// Sets the priority of the runs. The default is the default priority of each workflow.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.common.priority = Some(priority);
        self
    }

    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.common.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.common.request.retry = Some(policy);
        self
    }

    /// Sets the scope, which selects the filters that apply.
    ///
    /// For a workflow with filters, the engine starts one run for each filter that has this scope and whose expression is true. Workflows
    /// without filters ignore the scope.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.common.scope = Some(scope.into());
        self
    }

    /// Sends the event. Its runs may start before this method returns. It is not an error if no workflow listens to the key.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) or [`TooLarge`](ErrorKind::TooLarge) if the event is invalid or too large; nothing is sent
    /// then. For all other errors, the event may have been accepted if [`has_no_side_effects`](Error::has_no_side_effects) returns `false`.
    /// In that case, the event is not sent again.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the event may have been sent.
    pub async fn send(self) -> Result<EventHandle> {
        let event = self.common.event(&EventOptions::default())?.with_payload(self.payload?);
        let client = self.common.client.with(self.common.request)?;
        let id = client.rpc().events.push(event).await?;
        Ok(EventHandle::pushed(self.common.client, id, self.common.key))
    }
}

/// A builder for many events with the same key, each with its own payload; see [`Client::push_many`].
///
/// [`send`](Self::send) pushes them.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// let payloads = [serde_json::json!({ "id": "o-1" }), serde_json::json!({ "id": "o-2" })];
/// let events = hatchet.push_many("order:created", payloads).metadata("tenant", "acme").send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is sent until `send` is awaited"]
pub struct EventManyBuilder<'a> {
    common: Common,
    payloads: Inputs<'a>,
    each: Each<'a, EventOptions>,
}

/// The options of one of many events; see [`EventManyBuilder::each`].
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// let payloads = [serde_json::json!({ "id": "o-1" }), serde_json::json!({ "id": "o-2" })];
/// let cities = ["oslo", "bergen"];
/// hatchet.push_many("order:created", payloads).each(|index, options| options.scope(cities[index])).send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use = "options have no effect unless they are returned"]
pub struct EventOptions {
    metadata: Metadata,
    priority: Option<Priority>,
    scope: Option<String>,
}

impl EventOptions {
    /// Adds a tag to the event and the runs that it starts; see [`EventBuilder::metadata`].
    ///
    /// The tag replaces a tag with the same key that is set for all events.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into().into());
        self
    }

    /// Sets the priority of the runs. The default is the priority of all events.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Sets the scope; see [`EventBuilder::scope`]. The default is the scope of all events.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }
}

impl<'a> EventManyBuilder<'a> {
    /// Adds a tag to all events and the runs that they start.
    ///
    /// Keys must not be empty, must not contain a colon, must not begin with `hatchet__` or `hatchet_rs__`, and must not be `traceparent`.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.common.metadata.insert(key.into(), value.into().into());
        self
    }

    /// Sets the priority of the runs. The default is the default priority of each workflow.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.common.priority = Some(priority);
        self
    }

    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.common.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.common.request.retry = Some(policy);
        self
    }

    /// Sets the scope, which selects the filters that apply.
    ///
    /// For a workflow with filters, the engine starts one run for each filter that has this scope and whose expression is true. Workflows
    /// without filters ignore the scope.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.common.scope = Some(scope.into());
        self
    }

    /// Sets options for individual events.
    ///
    /// While the calls are made, the function is called once for each payload that can be serialized, with the index of the payload, and
    /// returns the options of its event. These are added to the options of all events, and replace options of the same name.
    pub fn each(mut self, options: impl FnMut(usize, EventOptions) -> EventOptions + Send + 'a) -> Self {
        self.each = Each::new(options);
        self
    }

    /// Sends the events, and returns one result for each payload, in the order of the payloads.
    ///
    /// The events are sent in sequential calls of at most 1000 events and at most the maximum message size. If the server is slow, the
    /// calls are smaller, so that each takes about a tenth of its [deadline](crate::config::ConfigBuilder::rpc_timeout). If a payload
    /// cannot be sent, its result is an error, and the other events are not affected. If a call fails, the result of each of its events is
    /// that error; the events may have been accepted if [`has_no_side_effects`](Error::has_no_side_effects) returns `false`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the key, the scope or the metadata of all events is invalid. If an option of a
    /// [single event](Self::each) is invalid, the result of that event is an error.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, some or all of the events may have been sent.
    pub async fn send(self) -> Result<Vec<Result<EventHandle>>> {
        let Self { common, mut payloads, mut each } = self;
        let event = common.event(&EventOptions::default())?;
        let client = common.client.with(common.request)?;
        let limit = client.rpc().events.max_send();
        let events = payloads.take().enumerate().map(|(at, payload)| {
            let payload = payload?;
            let event = match each.get(at) {
                Some(own) => common.event(&own)?.with_payload(payload),
                None => event.with_payload(payload),
            };
            let size = event.size();
            fits("payloads", at, size, limit).map(|()| (event, size))
        });
        let (common, client) = (&common, &client);
        let call = |events: Vec<NewEvent>| async move {
            let (count, sent_at) = (events.len(), Instant::now());
            let response = client.rpc().events.bulk_push(events).await;
            let took = Took::since(sent_at);
            took.with(match response {
                Err(error) => all_failed(count, &error),
                Ok(ids) if ids.len() != count => {
                    let text = format!("the response to BulkPush has {} ids for {count} events", ids.len());
                    all_failed(count, &Error::new(ErrorKind::Server, text))
                }
                Ok(ids) => {
                    let handle = |id| EventHandle::pushed(common.client.clone(), id, common.key.clone());
                    ids.into_iter().map(|id| id.map(handle)).collect()
                }
            })
        };
        Ok(batched(events, limit, client.rpc_timeout(), call).await)
    }
}
