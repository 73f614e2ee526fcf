//! What all callers of a client share: the subscription to run results, the events of watched runs, their fetches, and the cache of
//! workflows. The client owns it.

mod events;
mod fetcher;
mod parents;
mod rejection;
mod results;
mod sharing;
mod tasks;
mod workflows;

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::config::Config;
use crate::rpc::Rpc;
use crate::time::Clock;

pub(crate) use events::{
    CLIENT_KEY, ChunkEvent, ChunkSubscription, ChunksOf, GroupSubscription, Listing, Membership, Notifications,
    RunEvents, Subscription, Tag, TaskRow, Wanted,
};
pub(crate) use fetcher::{Fetcher, Gate, Permit, Question, Turns, pass};
pub(crate) use parents::{MAX_DEPTH, ParentRun, Parents};
pub(crate) use results::{Answer, Results};
pub(crate) use tasks::Tasks;
pub(crate) use workflows::{WorkflowCache, creation_deadline, invalid_idempotency_key};

/// The prefix of the metadata key of the runs whose chunks a client reads together with those of their children. Children inherit the key,
/// whichever client starts them. It contains the tag of the client, so that a child's children can be read, too.
pub(crate) const FAMILY_PREFIX: &str = "hatchet_rs__family_";

/// The shared state of a client.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) results: Results,
    pub(crate) events: RunEvents,
    /// The fetches of watches.
    pub(crate) fetcher: Fetcher,
    /// The fetches of waits, for runs whose outcome the stream does not determine, and their probes.
    pub(crate) wait_fetcher: Fetcher,
    pub(crate) workflows: Arc<WorkflowCache>,
    pub(crate) parents: Parents,
    /// The tag of the runs that this client starts, so that one subscription reports on all of them.
    tag: Tag,
    tasks: Tasks,
}

impl Feed {
    pub(crate) fn new(rpc: &Rpc, runtime: Handle, config: &Config, clock: Clock) -> Self {
        let tag = (CLIENT_KEY.to_owned(), format!("{:016x}", fastrand::u64(..)));
        let tasks = Tasks::new(runtime);
        let parents = Parents::default();
        let fetcher = Fetcher::new(tasks.clone(), config.watch_request_rate());
        let wait_fetcher = Fetcher::new(tasks.clone(), config.wait_request_rate());
        Self {
            results: Results::new(rpc.clone(), tasks.clone(), wait_fetcher.gate()),
            events: RunEvents::new(rpc.clone(), tasks.clone(), fetcher.clone(), parents.clone(), clock),
            fetcher,
            wait_fetcher,
            workflows: Arc::new(WorkflowCache::new(
                rpc.clone(),
                tasks.clone(),
                config.namespace().unwrap_or_default().to_owned(),
            )),
            parents,
            tag,
            tasks,
        }
    }

    /// The tag of the runs whose chunks this client reads together with those of their children.
    pub(crate) fn family_tag(&self) -> Tag {
        (format!("{FAMILY_PREFIX}{}", self.tag.1), "1".to_owned())
    }

    pub(crate) fn tag(&self) -> &Tag {
        &self.tag
    }

    /// Ends all tasks, and waits until they have ended.
    pub(crate) async fn close(&self) {
        self.tasks.close().await;
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}
