//! One subscription to run events for all watches of a client. An event only means that a run must be fetched.
//!
//! The subscription is by metadata, for the tag that all runs of this client have. It is requested before a run is fetched, but the server
//! does not report when it begins: it sends the response headers only with the first message. Events before that are lost. So all
//! subscribers are notified when a stream is lost, and again with the first message of the next one, and they also poll. The server ends
//! the subscription whenever all runs that it has seen have completed.

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

fn notify_all(subscribers: &Mutex<Subscribers>) {
    for notify in lock(subscribers).by_run.values().flatten() {
        notify.notify_one();
    }
}

/// Reads the stream until the task is aborted.
async fn read(rpc: Rpc, tag: (String, String), subscribers: Arc<Mutex<Subscribers>>) {
    let mut stream = ReconnectingStream::new("run events", MAX_BACKOFF);
    stream.reopen_now();
    // Whether events may have been lost since the last message.
    let mut has_gap = false;
    loop {
        match stream.next().await {
            StreamEvent::NeedsOpen => {
                has_gap = true;
                let (rpc, tag) = (rpc.clone(), tag.clone());
                stream.open(async move { rpc.dispatcher.tagged_events(tag).await });
            }
            StreamEvent::Message(_) if std::mem::take(&mut has_gap) => notify_all(&subscribers),
            StreamEvent::Message(ChangedRun(run)) => {
                for notify in lock(&subscribers).by_run.get(&run).into_iter().flatten() {
                    notify.notify_one();
                }
            }
            StreamEvent::Lost(_) => notify_all(&subscribers),
            // Meanwhile, polling continues without notifications.
            StreamEvent::Failed(error) => {
                tracing::warn!(%error, retry_after = ?FAILED_PAUSE, "stream of run events failed");
                sleep(FAILED_PAUSE).await;
                stream.reopen_now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tokio::time::Instant;

    use super::*;
    use crate::rpc::pb::WorkflowEvent;
    use crate::scripted::{Scripted, client};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn all_subscribers_are_notified_after_a_gap() {
        let [watched, other] = [1, 2].map(|id| RunId::from(uuid::Uuid::from_u128(id)));
        let event = WorkflowEvent { workflow_run_id: other.to_string(), ..Default::default() }.encode_to_vec();
        let (client, _) = client(move |_, count| match count {
            1 => Scripted::Stream(vec![(SECOND, event.clone()), (2 * SECOND, event.clone())], Some(0)),
            2 => Scripted::Stream(vec![(3 * SECOND, event.clone())], None),
            _ => Scripted::Hangs,
        });
        let notifications = client.feed().run_events.subscribe(watched);
        let started = Instant::now();
        let mut notified = Vec::new();
        while let Ok(()) = tokio::time::timeout(60 * SECOND, notifications.notified()).await {
            notified.push(started.elapsed().as_secs());
        }
        // With the first message of each stream, and when the first stream was lost.
        assert_eq!(notified, [1, 2, 5]);
    }
}
