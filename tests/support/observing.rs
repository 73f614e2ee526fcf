//! What the crate reports about itself.

#![allow(dead_code, reason = "each test program uses only some of them")]

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use hatchet::worker::HealthServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// The spans and events of the crate, one text for each, and what a test adds.
#[derive(Clone, Default)]
pub(crate) struct Collected(Arc<Mutex<Vec<String>>>);

impl Collected {
    /// Collects the spans and events of this thread, until the guard is dropped.
    pub(crate) fn start() -> (Self, DefaultGuard) {
        let collected = Self::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(collected.clone()));
        (collected, guard)
    }

    pub(crate) fn add(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    fn record(&self, kind: &str, metadata: &Metadata<'_>, record: impl FnOnce(&mut Text)) {
        if metadata.target().starts_with("hatchet") {
            let mut text = Text(format!("{kind} {} {} {}", metadata.level(), metadata.target(), metadata.name()));
            record(&mut text);
            self.add(text.0);
        }
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// The number of lines that contain all of these.
    pub(crate) fn count(&self, parts: &[&str]) -> usize {
        self.0.lock().unwrap().iter().filter(|text| parts.iter().all(|part| text.contains(part))).count()
    }

    pub(crate) fn has(&self, parts: &[&str]) -> bool {
        self.count(parts) > 0
    }
}

/// A string to which fields are appended.
pub(crate) struct Text(pub(crate) String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collected {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.record("span", attributes.metadata(), |text| attributes.record(text));
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.record("event", event.metadata(), |text| event.record(text));
    }
}

/// The status and the response of a path of the health server.
pub(crate) async fn get(health: &HealthServer, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(health.address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    (response.split(' ').nth(1).unwrap().parse().unwrap(), response)
}
