//! The dispatch of results, for `benches/instructions`.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Results, ResultsDriver};
use crate::model::{Payload, RunId};
use crate::rpc::convert::{RunResults, TaskResult};
use crate::transport::StreamEvent;

impl Results {
    /// Passes messages of the stream to their waiters, while this many wait, each for its own run. Returns how many were answered.
    pub(crate) fn dispatch(&self, waiting: usize, messages: usize) -> usize {
        let (_commands, inbox) = mpsc::unbounded_channel();
        let mut driver = ResultsDriver::new(self.rpc.clone(), self.gate.clone(), inbox);
        let probe_at = Instant::now() + Duration::from_secs(10);
        // What is made here does not depend on the number of messages.
        let all: Vec<_> = (0..waiting)
            .map(|number| {
                let run = RunId::from(uuid::Uuid::from_u128(number as u128));
                let (waiter, receiver) = oneshot::channel();
                driver.waiting.add(run, probe_at, false, waiter);
                let result = TaskResult { task: run.into(), name: "task".into(), result: Ok(Payload::output("{}")) };
                (receiver, RunResults { run, tasks: Some(vec![result]) })
            })
            .collect();
        all.into_iter()
            .take(messages)
            .filter_map(|(mut receiver, message)| {
                driver.on_stream(StreamEvent::Message(message));
                receiver.try_recv().ok()
            })
            .count()
    }
}
