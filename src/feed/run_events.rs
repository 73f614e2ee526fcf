//! One subscription to run events for all watches of a client. An event only means that a run must be fetched.
//!
//! The subscription is by metadata, for the tag that all runs of this client have. It is opened before a run is fetched, so nothing
//! falls between the two. The server ends it whenever all runs that it has seen have completed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::tasks::Tasks;
use crate::model::RunId;
use crate::rpc::{ChangedRun, Rpc};
use crate::transport::{ReconnectingStream, StreamEvent};

const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// The pause before a failed stream is reopened.
const FAILED_PAUSE: Duration = Duration::from_secs(30);

/// The run events of a client. The stream is open while there are subscribers.
#[derive(Debug)]
pub(crate) struct RunEvents {
    rpc: Rpc,
    tag: (String, String),
    tasks: Tasks,
    subscribers: Arc<Mutex<Subscribers>>,
}

#[derive(Debug, Default)]
struct Subscribers {
    by_run: HashMap<RunId, Vec<Arc<Notify>>>,
    /// The task that reads the stream. It runs while there are subscribers.
    task: Option<AbortOnDropHandle<Option<()>>>,
}

/// The notifications for one run. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Notifications {
    run: RunId,
    notify: Arc<Notify>,
    subscribers: Arc<Mutex<Subscribers>>,
}

impl RunEvents {
    pub(super) fn new(rpc: Rpc, tag: (String, String), tasks: Tasks) -> Self {
        Self { rpc, tag, tasks, subscribers: Arc::default() }
    }

    /// Subscribes to the events of one run.
    pub(crate) fn subscribe(&self, run: RunId) -> Notifications {
        let notify = Arc::new(Notify::new());
        let mut subscribers = lock(&self.subscribers);
        subscribers.by_run.entry(run).or_default().push(Arc::clone(&notify));
        // A task that has ended is replaced.
        if subscribers.task.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            let read = read(self.rpc.clone(), self.tag.clone(), Arc::clone(&self.subscribers));
            subscribers.task = Some(AbortOnDropHandle::new(self.tasks.spawn(read)));
        }
        drop(subscribers);
        Notifications { run, notify, subscribers: Arc::clone(&self.subscribers) }
    }
}

impl Notifications {
    /// Waits until something has happened to the run since the last call. Cancel safe.
    pub(crate) async fn notified(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Notifications {
    fn drop(&mut self) {
        let mut subscribers = lock(&self.subscribers);
        if let Some(of_run) = subscribers.by_run.get_mut(&self.run) {
            of_run.retain(|other| !Arc::ptr_eq(other, &self.notify));
            if of_run.is_empty() {
                subscribers.by_run.remove(&self.run);
            }
        }
        if subscribers.by_run.is_empty() {
            subscribers.task = None;
        }
    }
}

fn lock(subscribers: &Mutex<Subscribers>) -> std::sync::MutexGuard<'_, Subscribers> {
    subscribers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the stream until the task is aborted.
async fn read(rpc: Rpc, tag: (String, String), subscribers: Arc<Mutex<Subscribers>>) {
    let mut stream = ReconnectingStream::new("run events", MAX_BACKOFF);
    stream.reopen_now();
    loop {
        match stream.next().await {
            StreamEvent::NeedsOpen => {
                let (rpc, tag) = (rpc.clone(), tag.clone());
                stream.open(async move { rpc.dispatcher.tagged_events(tag).await });
            }
            StreamEvent::Message(ChangedRun(run)) => {
                for notify in lock(&subscribers).by_run.get(&run).into_iter().flatten() {
                    notify.notify_one();
                }
            }
            // Events between two streams are lost.
            StreamEvent::Lost(_) => {
                for notify in lock(&subscribers).by_run.values().flatten() {
                    notify.notify_one();
                }
            }
            // Meanwhile, polling continues without notifications.
            StreamEvent::Failed(error) => {
                tracing::warn!(%error, retry_after = ?FAILED_PAUSE, "stream of run events failed");
                sleep(FAILED_PAUSE).await;
                stream.reopen_now();
            }
        }
    }
}
