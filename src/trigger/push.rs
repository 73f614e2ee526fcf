//! Pushing events.

use serde::Serialize;
use tokio::time::Instant;

use super::event::EventHandle;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::metadata::Metadata;
use crate::model::payload::encode_input;
use crate::model::{Priority, convert};
use crate::rpc::grpc_types::NewEvent;
use crate::run::{Took, all_failed, fits, in_chunks, watch_tag};

impl Client {
    /// Prepares an event; [`send`](EventBuilder::send) sends it. Each workflow that listens to its key starts a run with the
    /// payload as its input, so it must be written as a JSON object.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// # #[derive(serde::Serialize)]
    /// # struct Order { id: String }
    /// let order = Order { id: "o-1".into() };
    /// let event = hatchet.push_event("order:created", &order).metadata("tenant", "acme").send().await?;
    /// for run in event.runs().await? {
    ///     println!("{} has started {}", event.id(), run.id());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn push_event<T: Serialize + ?Sized>(&self, key: impl Into<String>, payload: &T) -> EventBuilder {
        EventBuilder { common: Common::new(self, key.into()), payload: encode_input("payload", payload) }
    }

    /// Prepares many events of one key; [`send`](EventsBuilder::send) sends them.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// let readings = (0..5000).map(|n| serde_json::json!({ "reading": n }));
    /// for event in hatchet.push_events("sensor:reading", readings).send().await? {
    ///     println!("{}", event?.id());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn push_events<T: Serialize>(
        &self,
        key: impl Into<String>,
        payloads: impl IntoIterator<Item = T>,
    ) -> EventsBuilder {
        let payloads =
            payloads.into_iter().enumerate().map(|(at, payload)| encode_input(&format!("payload {at}"), &payload));
        EventsBuilder { common: Common::new(self, key.into()), payloads: payloads.collect() }
    }
}

/// What one event and many of them have in common.
#[derive(Debug)]
struct Common {
    client: Client,
    key: String,
    metadata: Metadata,
    priority: Option<Priority>,
    scope: Option<String>,
}

impl Common {
    fn new(client: &Client, key: String) -> Self {
        Self { client: client.clone(), key, metadata: Metadata::default(), priority: None, scope: None }
    }

    /// The event without a payload, checked.
    fn event(&self) -> Result<NewEvent> {
        check(&self.key, self.scope.as_deref())?;
        self.metadata.check()?;
        let mut metadata = self.metadata.clone();
        // Its runs inherit it, so that this client's stream tells of them.
        let (key, value) = watch_tag(&self.client);
        metadata.insert(key, value.into());
        let priority = self.priority.map(Priority::number);
        Ok(NewEvent::new(self.client.prefixed(&self.key), metadata.encode()?, priority, self.scope.clone()))
    }
}

/// An empty key is taken by one call of the server and refused by the other.
fn check(key: &str, scope: Option<&str>) -> Result<()> {
    for (field, text) in [("event key", Some(key)), ("event scope", scope)] {
        if text.is_some_and(|text| text.contains('\0')) {
            return Err(Error::invalid(
                field,
                "found the character U+0000, accepted: all other characters, as the engine cannot store it",
            ));
        }
    }
    if key.is_empty() {
        return Err(Error::invalid("event key", "found an empty text, accepted: one or more characters"));
    }
    Ok(())
}

macro_rules! event_options {
    () => {
        /// Tags the event and the runs that it starts. Keys must not be empty, have no colon, and not begin with `hatchet__`,
        /// `hatchet_rs__` or be `traceparent`.
        pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
            self.common.metadata.insert(key.into(), value.into().into());
            self
        }

        /// How urgent the runs are. Without it, each workflow's default priority holds.
        pub fn priority(mut self, priority: Priority) -> Self {
            self.common.priority = Some(priority);
            self
        }

        /// Which filters are tried. A workflow that has filters is started only by events with a scope that one of them has; one
        /// that has none, by any.
        pub fn scope(mut self, scope: impl Into<String>) -> Self {
            self.common.scope = Some(scope.into());
            self
        }
    };
}

/// An event that is about to be sent.
#[derive(Debug)]
#[must_use = "nothing is sent before `send`"]
pub struct EventBuilder {
    common: Common,
    payload: Result<String>,
}

impl EventBuilder {
    event_options!();

    /// Sends the event. Its runs have often begun before this returns; nobody has to listen to it.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) and [`TooLarge`](ErrorKind::TooLarge) before anything is sent. For any other,
    /// ask [`never_reached_server`](Error::never_reached_server): if it is `false`, the event may have been accepted. It is not
    /// sent again by itself.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the event may have been sent.
    pub async fn send(self) -> Result<EventHandle> {
        let event = self.common.event()?.with_payload(self.payload?);
        let id = self.common.client.rpc().events.push(event).await?;
        Ok(EventHandle::pushed(self.common.client, convert::id(&id)?, self.common.key))
    }
}

/// Many events that are about to be sent.
#[derive(Debug)]
#[must_use = "nothing is sent before `send`"]
pub struct EventsBuilder {
    common: Common,
    payloads: Vec<Result<String>>,
}

impl EventsBuilder {
    event_options!();

    /// Sends the events, and returns one result for each payload, in the order of the payloads.
    ///
    /// The events are sent in sequential calls of at most 1000 events and at most the maximum message size. If the server is slow, the
    /// calls are smaller, so that each takes about a tenth of its [deadline](crate::ConfigBuilder::rpc_timeout). A payload that
    /// cannot be sent is an error in its result and does not affect the other events. If a call fails, all of its events have that
    /// error; [`never_reached_server`](Error::never_reached_server) reports whether they may have been accepted.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for the key, the scope and the metadata, which concern all events.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, some or all of the events may have been sent.
    pub async fn send(self) -> Result<Vec<Result<EventHandle>>> {
        let Self { common, payloads } = self;
        let event = common.event()?;
        let limit = common.client.rpc().events.max_send();
        let events = payloads.into_iter().enumerate().map(|(at, payload)| {
            let event = event.with_payload(payload?);
            let size = event.size();
            fits("payload", at, size, limit).map(|()| (event, size))
        });
        let common = &common;
        let call = |events: Vec<NewEvent>| async move {
            let (count, begun) = (events.len(), Instant::now());
            let answer = common.client.rpc().events.bulk_push(events).await;
            let took = Took::since(begun);
            took.answered(match answer {
                Err(error) => all_failed(count, &error),
                Ok(ids) if ids.len() != count => {
                    let text = format!("BulkPush was sent {count} events and answered {} ids", ids.len());
                    all_failed(count, &Error::new(ErrorKind::Server, text))
                }
                Ok(ids) => {
                    let handle = |id| EventHandle::pushed(common.client.clone(), id, common.key.clone());
                    ids.iter().map(|id| convert::id(id).map(handle)).collect()
                }
            })
        };
        Ok(in_chunks(events, limit, common.client.config().rpc_timeout(), call).await)
    }
}
