//! One stream of events for a client: a reason to look at a run, and no more.
//!
//! The stream is by metadata, on a tag that all runs of this client carry. It misses nothing, as it is open before a run
//! is looked at; and it hangs up now and then, when all runs that it has seen have completed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::link::{Link, LinkEvent};
use crate::client::Client;
use crate::model::{RunId, convert};
use crate::rpc::{EventOf, Rpc};
use crate::run::watch_tag;

const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long to wait before a refused stream is reopened.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// The hints of a client. The stream is open while anyone listens.
#[derive(Debug, Default)]
pub(super) struct Hints(Arc<Mutex<Listeners>>);

#[derive(Debug, Default)]
struct Listeners {
    by_run: HashMap<RunId, Vec<Arc<Notify>>>,
    /// The stream's task, which runs while there are listeners.
    task: Option<AbortOnDropHandle<()>>,
}

/// Hears of one run. Dropping it stops that.
#[derive(Debug)]
pub(super) struct Listener {
    run: RunId,
    heard: Arc<Notify>,
    hints: Arc<Mutex<Listeners>>,
}

impl Listener {
    pub(super) fn of(client: &Client, run: RunId) -> Self {
        let hints = Arc::clone(&client.shared(Hints::default).0);
        let heard = Arc::new(Notify::new());
        let mut listeners = lock(&hints);
        listeners.by_run.entry(run).or_default().push(Arc::clone(&heard));
        // A task that has ended is replaced.
        if listeners.task.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            let follow = follow(client.rpc().clone(), watch_tag(client), Arc::clone(&hints));
            listeners.task = Some(AbortOnDropHandle::new(client.runtime().spawn(follow)));
        }
        drop(listeners);
        Self { run, heard, hints }
    }

    /// Resolves when something has happened to the run since the last time. Cancel safe.
    pub(super) async fn heard(&self) {
        self.heard.notified().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut listeners = lock(&self.hints);
        if let Some(heard) = listeners.by_run.get_mut(&self.run) {
            heard.retain(|other| !Arc::ptr_eq(other, &self.heard));
            if heard.is_empty() {
                listeners.by_run.remove(&self.run);
            }
        }
        if listeners.by_run.is_empty() {
            listeners.task = None;
        }
    }
}

fn lock(listeners: &Mutex<Listeners>) -> std::sync::MutexGuard<'_, Listeners> {
    listeners.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Follows the stream, and opens it again whenever it ends, until it is stopped.
async fn follow(rpc: Rpc, tag: (String, String), listeners: Arc<Mutex<Listeners>>) {
    let mut link = Link::new("run events", LONGEST_PAUSE);
    link.renew();
    loop {
        match link.next().await {
            LinkEvent::Due => {
                let (rpc, tag) = (rpc.clone(), tag.clone());
                link.open(async move { rpc.dispatcher.tagged_events(tag).await });
            }
            LinkEvent::Message(EventOf(run)) => {
                let Ok(run) = convert::id(&run) else { continue };
                for heard in lock(&listeners).by_run.get(&run).into_iter().flatten() {
                    heard.notify_one();
                }
            }
            // Whoever was between two streams may have missed something.
            LinkEvent::Lost(_) => {
                for heard in lock(&listeners).by_run.values().flatten() {
                    heard.notify_one();
                }
            }
            // Meanwhile, polling continues without notifications.
            LinkEvent::Refused(error) => {
                tracing::warn!(%error, retry_after = ?REFUSED_PAUSE, "stream of run events was refused");
                sleep(REFUSED_PAUSE).await;
                link.renew();
            }
        }
    }
}
