//! Commands on streams.

use uuid::Uuid;

use crate::embedded::core::store::{Core, Effect, StreamId, Turn};
use crate::embedded::core::streams::{events, results};
use crate::embedded::core::workers::sessions;

impl Core {
    /// Opens a stream that can ask for the results of runs.
    pub(crate) fn open_results(&mut self, turn: &Turn<'_>, stream: StreamId) {
        results::open(self, turn, stream);
    }

    /// Asks for the result of a run. If the run does not exist, the stream waits for it forever.
    pub(crate) fn ask_result(&mut self, turn: &Turn<'_>, stream: StreamId, run: Uuid) {
        results::ask(self, turn, stream, run);
    }

    /// Opens a stream that watches one run by its id.
    pub(crate) fn watch_run(&mut self, turn: &Turn<'_>, stream: StreamId, run: Uuid) {
        events::watch_run(self, turn, stream, run);
    }

    /// Opens a stream that watches all runs with a tag.
    pub(crate) fn watch_tag(&mut self, stream: StreamId, key: &str, value: &str) {
        events::watch_tag(self, stream, key, value);
    }

    /// The peer has closed a stream.
    pub(crate) fn close_stream(&mut self, turn: &mut Turn<'_>, stream: StreamId) {
        sessions::close(self, turn, stream);
        results::close(self, stream);
        events::close(self, stream);
    }

    /// Ends all streams without an error, because the engine shuts down.
    pub(crate) fn end_streams(&mut self) {
        for stream in self.streams.take_all() {
            self.effects.push(Effect::End(stream, Ok(())));
        }
        for worker in self.workers.values_mut() {
            worker.clear_streams();
        }
    }
}
