//! Crashes that tests inject into the operations of a store.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use crate::sync::lock;

/// The error of each operation of a process that has crashed.
#[derive(Debug)]
pub(super) struct Crashed;

/// A process that crashes at one of its operations: before the store carries it out, or after. Later operations fail, too.
#[derive(Debug, Clone, Default)]
pub(super) struct Crash {
    operations: Arc<AtomicUsize>,
    /// The step at which the process crashes. Each operation has two.
    at: Option<usize>,
    log: Arc<Mutex<Vec<String>>>,
    /// How many objects the store still rejects.
    rejections: Arc<AtomicUsize>,
    /// Whether the response to the next creation is lost, and the store's client sends the request again.
    loses_response: Arc<AtomicBool>,
    /// Whether the store replaces objects instead of rejecting them.
    replaces: Arc<AtomicBool>,
    /// Whether the next object gets other content than was written.
    damages: Arc<AtomicBool>,
    /// The object whose operations fail.
    fails: Arc<Mutex<Vec<String>>>,
    /// How long each operation waits.
    delay: Arc<Mutex<Duration>>,
}

impl Crash {
    pub(super) fn at(step: usize) -> Self {
        Self { at: Some(step), ..Self::default() }
    }

    /// Makes the store reject the next objects.
    pub(super) fn reject(&self, objects: usize) {
        self.rejections.store(objects, SeqCst);
    }

    /// Whether the next object is rejected.
    pub(super) fn is_rejected(&self) -> bool {
        self.rejections.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    /// Makes the store create the next object, and reject it when its client sends the request again.
    pub(super) fn lose_response(&self) {
        self.loses_response.store(true, SeqCst);
    }

    pub(super) fn is_response_lost(&self) -> bool {
        self.loses_response.swap(false, SeqCst)
    }

    /// Makes the store replace objects, as one without conditional writes does.
    pub(super) fn replace(&self) {
        self.replaces.store(true, SeqCst);
    }

    pub(super) fn replaces(&self) -> bool {
        self.replaces.load(SeqCst)
    }

    /// Delays each operation by this time.
    pub(super) fn delay_by(&self, delay: Duration) {
        *lock(&self.delay) = delay;
    }

    pub(super) async fn delay(&self) {
        let delay = *lock(&self.delay);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    /// Makes the operations of one object fail.
    pub(super) fn fail(&self, path: &str) {
        lock(&self.fails).push(path.to_owned());
    }

    /// Ends what [`fail`](Self::fail) began.
    pub(super) fn succeed(&self) {
        lock(&self.fails).clear();
    }

    /// Makes the store damage the next object that is written.
    pub(super) fn damage(&self) {
        self.damages.store(true, SeqCst);
    }

    /// What the store keeps of an object.
    pub(super) fn kept(&self, content: Bytes) -> Bytes {
        if self.damages.swap(false, SeqCst) { content.slice(1..) } else { content }
    }

    /// The operations before the crash.
    pub(super) fn operations(&self) -> Vec<String> {
        lock(&self.log).clone()
    }

    /// Whether it has happened.
    pub(super) fn has_happened(&self) -> bool {
        self.at.is_some_and(|at| self.operations.load(SeqCst) > at)
    }

    pub(super) fn before(&self, operation: &str, path: &str) -> Result<(), Crashed> {
        lock(&self.log).push(format!("{operation} {path}"));
        if lock(&self.fails).iter().any(|fails| fails == path) {
            return Err(Crashed);
        }
        self.step()
    }

    pub(super) fn after(&self) -> Result<(), Crashed> {
        self.step()
    }

    fn step(&self) -> Result<(), Crashed> {
        let step = self.operations.fetch_add(1, SeqCst);
        if self.at.is_some_and(|at| step >= at) { Err(Crashed) } else { Ok(()) }
    }
}
