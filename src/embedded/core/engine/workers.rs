//! Commands of workers.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::embedded::core::store::{At, Core, Label, Registration, StatusError, StreamId, Turn};
use crate::embedded::core::workers::{registration, sessions};

impl Core {
    pub(crate) fn register(&mut self, turn: &mut Turn<'_>, request: Registration) -> Result<Uuid, StatusError> {
        registration::register(self, turn, request)
    }

    /// Checks the names of services, which have no other effect.
    pub(crate) fn check_services(services: &[String]) -> Result<(), StatusError> {
        registration::check_services(services)
    }

    pub(crate) fn upsert_labels(&mut self, worker: Uuid, labels: BTreeMap<String, Label>) -> Result<(), StatusError> {
        registration::upsert_labels(self, worker, labels)
    }

    /// Opens a stream of a worker. The worker is assigned nothing before its next heartbeat.
    pub(crate) fn listen(&mut self, worker: Uuid, stream: StreamId) -> Result<(), StatusError> {
        sessions::listen(self, worker, stream)
    }

    pub(crate) fn unsubscribe(&mut self, worker: Uuid) -> Result<(), StatusError> {
        sessions::unsubscribe(self, worker)
    }

    pub(crate) fn heartbeat(&mut self, turn: &mut Turn<'_>, worker: Uuid) -> Result<(), StatusError> {
        sessions::heartbeat(self, turn, worker)
    }

    /// Records a heartbeat that was due earlier. Returns false if it would have been rejected.
    pub(crate) fn count_heartbeat(&mut self, worker: Uuid, at: At) -> bool {
        sessions::count_heartbeat(self, worker, at)
    }

    /// Pauses or resumes a worker. Returns false if it does not exist.
    pub(crate) fn pause(&mut self, turn: &mut Turn<'_>, worker: Uuid, paused: bool) -> bool {
        sessions::pause(self, turn, worker, paused)
    }
}
