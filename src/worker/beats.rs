//! Heartbeats. A worker is given work while its last beat is less than five seconds old, and loses what it has half a
//! minute after it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::model::WorkerId;

/// Two beats may be lost before it matters.
const PERIOD: Duration = Duration::from_secs(2);
/// A beat that the engine gets before it sees the stream does not count, so a new stream is followed by a few soon ones,
/// the first of them when the stream has had a moment to get there.
const SOON: [Duration; 3] = [Duration::from_millis(30), Duration::from_millis(150), Duration::from_millis(500)];

/// What a beat has shown.
#[derive(Debug)]
pub(super) enum Beat {
    Accepted,
    /// The engine has seen the stream close: it must be opened again. With the time when it was asked.
    Refused(Instant),
    /// The engine does not know the worker.
    Unknown,
    Lost(Error),
}

/// Beats for as long as it is polled, and tells of each beat. It begins when `opened` says that a stream was asked for,
/// and each time it says so begins a row of soon beats.
pub(super) async fn beat(client: Client, worker: WorkerId, mut opened: mpsc::Receiver<()>, told: mpsc::Sender<Beat>) {
    if opened.recv().await.is_none() {
        return;
    }
    let (clock, mut idle) = (client.clock(), false);
    let mut soon = SOON.into_iter();
    let mut next = Instant::now();
    loop {
        let early = soon.next();
        idle &= early.is_none();
        next += early.unwrap_or(PERIOD);
        tokio::select! {
            biased;
            Some(()) = opened.recv() => {
                soon = SOON.into_iter();
                next = Instant::now();
                continue;
            }
            due = clock.next_heartbeat(worker.as_uuid(), next, PERIOD, idle) => next = due,
        }
        let asked = Instant::now();
        let beat = match client.rpc().dispatcher.heartbeat(&worker.to_string(), clock.now()).await {
            Ok(()) => Beat::Accepted,
            Err(error) if error.kind() == ErrorKind::Rejected => Beat::Refused(asked),
            Err(error) if error.is_not_found() => Beat::Unknown,
            Err(error) => Beat::Lost(error),
        };
        idle = matches!(beat, Beat::Accepted);
        // After a slow beat the next one is due from now, not at once.
        next = next.max(Instant::now() - PERIOD / 2);
        // A driver that is behind must not hold up the beats: it hears of the next one.
        if let Err(mpsc::error::TrySendError::Closed(_)) = told.try_send(beat) {
            return;
        }
    }
}
