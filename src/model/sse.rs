//! Server-sent events, in the format that a browser's `EventSource` reads.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A server-sent event.
///
/// The `Display` implementation writes the event in the format that a browser's `EventSource` reads.
///
/// [`RunChunks::into_sse`](crate::stream::RunChunks::into_sse) creates the events for chunks. This type is for other events in the same response,
/// such as the status changes of a run.
///
/// ```
/// use hatchet::model::SseEvent;
///
/// let event = SseEvent::new("first line\nsecond line").name("status").id("7");
/// assert_eq!(event.to_string(), "event: status\nid: 7\ndata: first line\ndata: second line\n\n");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "an event has no effect until it is sent"]
#[non_exhaustive]
pub struct SseEvent {
    /// The name. An event without a name is a `message`, which `EventSource.onmessage` receives.
    pub name: Option<String>,
    /// The id. A browser that reconnects sends the last id that it has received as the `Last-Event-ID` header.
    pub id: Option<String>,
    /// How long the browser waits before it reconnects, from this event on.
    pub retry: Option<Duration>,
    /// The payload, which a browser reads as `event.data`.
    pub data: String,
}

impl SseEvent {
    /// Creates an event with this data. A browser receives all line breaks (CR LF and CR, too) as LF.
    pub fn new(data: impl Into<String>) -> Self {
        Self { name: None, id: None, retry: None, data: data.into() }
    }

    /// Sets the name. Line breaks and U+0000 are removed.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the id. Line breaks and U+0000 are removed.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets how long the browser waits before it reconnects, from this event on. Only whole milliseconds are sent.
    pub fn retry(mut self, retry: Duration) -> Self {
        self.retry = Some(retry);
        self
    }
}

impl fmt::Display for SseEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (field, value) in [("event", &self.name), ("id", &self.id)] {
            if let Some(value) = value {
                write!(f, "{field}: ")?;
                value.split(['\r', '\n', '\0']).try_for_each(|part| f.write_str(part))?;
                f.write_str("\n")?;
            }
        }
        if let Some(retry) = self.retry {
            writeln!(f, "retry: {}", retry.as_millis())?;
        }
        // One space after the colon is removed by the reader, and the line breaks between lines are kept.
        let mut rest = self.data.as_str();
        loop {
            let end = rest.find(['\r', '\n']);
            let (line, next) = end.map_or((rest, None), |end| {
                let (line, next) = rest.split_at(end);
                (line, next.strip_prefix("\r\n").or_else(|| next.get(1..)))
            });
            writeln!(f, "data: {line}")?;
            match next {
                Some(next) => rest = next,
                None => return f.write_str("\n"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a browser dispatches for a string, by the rules of the HTML standard.
    fn parse(text: &str) -> Vec<(String, String, String)> {
        let (mut events, mut name, mut data, mut last_id) = (Vec::new(), String::new(), String::new(), String::new());
        let lines = text.replace("\r\n", "\n").replace('\r', "\n");
        for line in lines.split_terminator('\n') {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" if line.is_empty() => {
                    if !data.is_empty() {
                        data.pop();
                        events.push((name.clone(), last_id.clone(), data.clone()));
                    }
                    name.clear();
                    data.clear();
                }
                "event" => name = value.into(),
                "id" if !value.contains('\0') => last_id = value.into(),
                "data" => data = format!("{data}{value}\n"),
                _ => {}
            }
        }
        events
    }

    #[test]
    fn each_line_is_a_field() {
        for (data, expected) in [
            ("", "data: \n\n"),
            (" a", "data:  a\n\n"),
            ("a\n", "data: a\ndata: \n\n"),
            ("a\r\nb\rc\nd", "data: a\ndata: b\ndata: c\ndata: d\n\n"),
            ("\r\r\n", "data: \ndata: \ndata: \n\n"),
            ("ä\0: b", "data: ä\0: b\n\n"),
        ] {
            assert_eq!(SseEvent::new(data).to_string(), expected, "{data:?}");
        }
        let event = SseEvent::new("x").name("a\nb").id("1\r\n\0data: 2").retry(Duration::from_millis(1500));
        assert_eq!(event.to_string(), "event: ab\nid: 1data: 2\nretry: 1500\ndata: x\n\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

        /// Whatever the strings contain, a browser receives each event once, with its data.
        #[test]
        fn a_browser_receives_what_was_sent(
            events in proptest::collection::vec(("[\\PC\r\n\0: ]{0,20}", "[a\r\n\0:ü ]{0,8}", "[1\r\n\0: ü]{0,8}"), 0..6),
        ) {
            let text: String =
                events.iter().map(|(data, name, id)| SseEvent::new(data).name(name).id(id).to_string()).collect();
            let clean = |text: &str| text.replace(['\r', '\n', '\0'], "");
            let expected: Vec<_> = events
                .iter()
                .map(|(data, name, id)| (clean(name), clean(id), data.replace("\r\n", "\n").replace('\r', "\n")))
                .collect();
            prop_assert_eq!(parse(&text), expected);
        }
    }
}
