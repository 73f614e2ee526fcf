//! The stream of assignments, opened again whenever it is lost.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tonic::{Status, Streaming};

use crate::client::Client;
use crate::error::Error;
use crate::model::WorkerId;
use crate::rpc::pb::AssignedAction;
use crate::transport::from_status;
use crate::watch::Reconnect;

/// A worker must be back soon: without a stream it is given nothing, and after half a minute it loses what it has.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// So long a stream may take to be known to the engine.
const FIRST_MOMENT: Duration = Duration::from_millis(500);

type Opening = Pin<Box<dyn Future<Output = Result<Streaming<AssignedAction>, Status>> + Send>>;

/// The stream, in one of its states.
enum State {
    /// Asked for. The server shows it to be open only with its first message.
    Opening(Opening),
    Open(Box<Streaming<AssignedAction>>),
    Lost(Instant),
}

pub(super) struct Link {
    client: Client,
    worker: WorkerId,
    state: State,
    reconnect: Reconnect,
    /// When the stream was last asked for.
    asked: Instant,
}

/// What happened to the stream.
pub(super) enum LinkEvent {
    Action(Box<AssignedAction>),
    /// It was asked for anew: beats must follow.
    Reopened,
    /// It can never be opened.
    Refused(Error),
}

impl Link {
    pub(super) fn new(client: Client, worker: WorkerId) -> Self {
        let asked = Instant::now();
        Self { client, worker, state: State::Lost(asked), reconnect: Reconnect::new(LONGEST_PAUSE), asked }
    }

    /// Opens the stream again, as the engine said to a beat of this time that it is gone. A beat from before the stream
    /// was asked for, or from its first moment, says nothing about it.
    pub(super) fn reopen(&mut self, beat: Instant) {
        if beat < self.asked + FIRST_MOMENT || matches!(self.state, State::Lost(_)) {
            return;
        }
        let pause = self.reconnect.lost(None, fastrand::f64()).unwrap_or_default();
        self.state = State::Lost(Instant::now() + pause);
    }

    /// The same for a worker that was registered anew.
    pub(super) fn move_to(&mut self, worker: WorkerId) {
        self.worker = worker;
        self.state = State::Lost(Instant::now());
    }

    /// The next thing that happens. Cancel safe: what is under way stays in `self`.
    pub(super) async fn next(&mut self) -> LinkEvent {
        loop {
            let lost = match &mut self.state {
                State::Lost(until) => {
                    sleep_until(*until).await;
                    let (rpc, worker_id) = (self.client.rpc().clone(), self.worker.to_string());
                    self.state = State::Opening(Box::pin(async move { rpc.dispatcher.listen(worker_id).await }));
                    self.asked = Instant::now();
                    return LinkEvent::Reopened;
                }
                State::Opening(opening) => match opening.await {
                    Ok(stream) => {
                        self.state = State::Open(Box::new(stream));
                        continue;
                    }
                    Err(status) => Some(status),
                },
                State::Open(stream) => match stream.message().await {
                    Ok(Some(action)) => {
                        self.reconnect.delivered();
                        return LinkEvent::Action(Box::new(action));
                    }
                    Ok(None) => None,
                    Err(status) => Some(status),
                },
            };
            let error = lost.map(|status| from_status("ListenV2", status));
            match (self.reconnect.lost(error.as_ref(), fastrand::f64()), error) {
                (None, Some(error)) => {
                    self.state = State::Lost(Instant::now() + LONGEST_PAUSE);
                    return LinkEvent::Refused(error);
                }
                (pause, error) => {
                    self.reconnect.log("assignments", error.as_ref());
                    self.state = State::Lost(Instant::now() + pause.unwrap_or_default());
                }
            }
        }
    }
}
