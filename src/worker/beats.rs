//! Heartbeats. A worker is given work while its last beat is less than five seconds old, and loses what it has half a
//! minute after it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::model::WorkerId;
use crate::rpc::pb::HeartbeatRequest;
use crate::time::to_proto;

/// Two beats may be lost before it matters.
const PERIOD: Duration = Duration::from_secs(2);
/// A beat that the engine got before it saw the stream does not count, so a new stream is followed by a few soon ones.
const SOON: [Duration; 3] = [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(400)];

/// What a beat has shown.
#[derive(Debug)]
pub(super) enum Beat {
    Accepted,
    /// The engine has seen the stream close: it must be opened again.
    Refused,
    /// The engine does not know the worker.
    Unknown,
    Lost(Error),
}

/// Beats for as long as it is polled, and tells of each beat. `opened` begins a row of soon ones.
pub(super) async fn beat(client: Client, worker: WorkerId, mut opened: mpsc::Receiver<()>, told: mpsc::Sender<Beat>) {
    let mut soon = SOON.into_iter();
    let mut next = Instant::now();
    loop {
        next += soon.next().unwrap_or(PERIOD);
        tokio::select! {
            biased;
            Some(()) = opened.recv() => {
                soon = SOON.into_iter();
                next = Instant::now();
                continue;
            }
            () = sleep_until(next) => {}
        }
        let request =
            HeartbeatRequest { worker_id: worker.to_string(), heartbeat_at: Some(to_proto(client.clock().now())) };
        let beat = match client.rpc().dispatcher.heartbeat(request).await {
            Ok(_) => Beat::Accepted,
            Err(error) if error.kind() == ErrorKind::Rejected => Beat::Refused,
            Err(error) if error.is_not_found() => Beat::Unknown,
            Err(error) => Beat::Lost(error),
        };
        // After a slow beat the next one is due from now, not at once.
        next = next.max(Instant::now() - PERIOD / 2);
        if told.send(beat).await.is_err() {
            return;
        }
    }
}
