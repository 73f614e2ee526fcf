//! Sends the log lines and the chunks of all tasks of a worker: those of one task one after the other, those of several tasks
//! concurrently.
//!
//! A call takes one line: the contract has no call for several. The engine orders lines by their arrival, so that the next line of a task is
//! sent when the one before it has been accepted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::delivery::Delivery;
use super::key::KeyMap;
use crate::client::Client;
use crate::error::Result;
use crate::model::TaskId;
use crate::telemetry::{self, Measurement};
use crate::workflow::{MessageOrigin, TaskMessage, TaskOutput};

/// The maximum number of calls in flight.
const MAX_CALLS: usize = 16;
/// The number of messages that wait for another one of their task. Further ones stay in the bounded queue.
const MAX_WAITING: usize = 1000;
/// How long messages are still sent when the worker has ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The queue of a worker's log lines and chunks, and the task that sends them.
pub(super) struct Outputs {
    output: TaskOutput,
    closed: CancellationToken,
    /// The number of messages that have left the queue and were not accepted yet.
    unsent: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Outputs {
    pub(super) fn start(client: &Client) -> Self {
        let (output, messages) = TaskOutput::new();
        let (closed, unsent) = (CancellationToken::new(), Arc::<AtomicUsize>::default());
        let sender = Sender {
            delivery: Arc::new(Delivery::new(client.rpc().clone())),
            messages,
            calls: FuturesUnordered::new(),
            waiting: KeyMap::default(),
            count: 0,
            unsent: Arc::clone(&unsent),
            rejected: 0,
        };
        Self { output, closed: closed.clone(), unsent, task: tokio::spawn(sender.run(closed)) }
    }

    pub(super) fn output(&self) -> TaskOutput {
        self.output.clone()
    }

    /// Sends what is in the queue, within a few seconds, and ends.
    pub(super) async fn close(mut self) {
        self.closed.cancel();
        if timeout(CLOSE_TIMEOUT, &mut self.task).await.is_err() {
            let lost = self.output.queued().saturating_add(self.unsent.load(Relaxed));
            (0..lost).for_each(|_| telemetry::record(&Measurement::TaskMessageLost));
            tracing::warn!(lost, "some log lines or chunks of tasks could not be sent before the worker ended");
        }
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Sender {
    delivery: Arc<Delivery>,
    messages: mpsc::Receiver<TaskMessage>,
    calls: FuturesUnordered<BoxFuture<'static, (MessageOrigin, Result<()>)>>,
    /// The messages of tasks that have a call in flight.
    waiting: KeyMap<TaskId, VecDeque<TaskMessage>>,
    /// Their number.
    count: usize,
    unsent: Arc<AtomicUsize>,
    /// The number of messages since the last accepted one that were lost.
    rejected: u32,
}

impl Sender {
    async fn run(mut self, closed: CancellationToken) {
        let mut is_closed = false;
        loop {
            let has_capacity = self.calls.len() < MAX_CALLS && self.count < MAX_WAITING;
            tokio::select! {
                biased;
                Some((origin, result)) = self.calls.next() => self.on_sent(origin, result),
                () = closed.cancelled(), if !is_closed => {
                    is_closed = true;
                    self.messages.close();
                }
                message = self.messages.recv(), if has_capacity => match message {
                    Some(message) => self.on_message(message),
                    None => match self.calls.next().await {
                        Some((origin, result)) => self.on_sent(origin, result),
                        None => return,
                    },
                },
            }
        }
    }

    fn on_message(&mut self, message: TaskMessage) {
        self.unsent.fetch_add(1, Relaxed);
        if let Some(waiting) = self.waiting.get_mut(&message.origin.task) {
            waiting.push_back(message);
            self.count += 1;
        } else {
            self.waiting.insert(message.origin.task, VecDeque::new());
            self.call(message);
        }
    }

    fn on_sent(&mut self, MessageOrigin { run, task, attempt }: MessageOrigin, result: Result<()>) {
        self.unsent.fetch_sub(1, Relaxed);
        match self.waiting.get_mut(&task).and_then(VecDeque::pop_front) {
            Some(next) => {
                self.count -= 1;
                self.call(next);
            }
            None => {
                self.waiting.remove(&task);
            }
        }
        let Err(error) = result else {
            self.rejected = 0;
            return;
        };
        telemetry::record(&Measurement::TaskMessageLost);
        self.rejected = self.rejected.saturating_add(1);
        if self.rejected <= telemetry::MAX_WARNINGS {
            tracing::warn!(run_id = %run, task_id = %task, attempt, %error, "a log line or a chunk of a task was lost");
        } else {
            tracing::debug!(run_id = %run, task_id = %task, attempt, %error, "another log line or chunk of a task was lost");
        }
    }

    fn call(&self, message: TaskMessage) {
        let delivery = Arc::clone(&self.delivery);
        self.calls.push(Box::pin(async move { (message.origin, delivery.send(message).await) }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::rpc::pb;
    use crate::scripted::{Calls, Scripted, client};
    use crate::workflow::{Context, Task};

    const SECOND: Duration = Duration::from_secs(1);
    const WORKER: &str = "00000000-0000-4000-8003-000000000001";

    /// The messages of the lines of a task that were accepted, in order.
    fn lines(calls: &Calls, task: u8) -> Vec<String> {
        let end = format!("{task:02x}");
        let all = calls.messages::<pb::PutLogRequest>("PutLog").into_iter();
        all.filter(|line| line.task_run_external_id.ends_with(&end)).map(|line| line.message).collect()
    }

    /// A worker with these tasks assigned at once. Each log line takes a second.
    fn server(tasks: u8) -> (Client, Calls) {
        server_with(tasks, |_| Scripted::after(SECOND, Scripted::empty()))
    }

    /// The same with another response to log lines, by the time since the start.
    fn server_with(tasks: u8, put_log: impl Fn(Duration) -> Scripted + Send + Sync + 'static) -> (Client, Calls) {
        let start = Instant::now();
        let action = |task: u8| {
            let id = format!("00000000-0000-4000-8001-0000000000{task:02x}");
            prost::Message::encode_to_vec(&pb::AssignedAction {
                action_type: pb::ActionType::StartStepRun as i32,
                action_id: "task:task".into(),
                action_payload: r#"{"input":{}}"#.into(),
                workflow_run_id: id.clone(),
                task_run_external_id: id,
                ..Default::default()
            })
        };
        let actions: Vec<_> = (1..=tasks).map(|task| (SECOND, action(task))).collect();
        client(move |call, _| match call {
            "Register" => {
                Scripted::message(&pb::WorkerRegisterResponse { worker_id: WORKER.into(), ..Default::default() })
            }
            "PutWorkflow" => Scripted::message(&pb::v1::CreateWorkflowVersionResponse {
                id: WORKER.into(),
                workflow_id: WORKER.into(),
            }),
            "ListenV2" => Scripted::Stream(actions.clone(), None),
            "PutLog" => put_log(start.elapsed()),
            call if call.contains("/workflows") => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
            call if call.contains(' ') => Scripted::Rest(200, "{}".into()),
            _ => Scripted::empty(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn lines_of_a_task_are_sent_in_order_and_tasks_do_not_wait_for_each_other() {
        let (client, calls) = server(40);
        let task: Task<(), ()> = Task::new("task", async |(): (), context: Context| {
            (0..5).for_each(|number| context.log(number.to_string()));
            Ok(())
        });
        let running = client.worker("worker").slots(40).register(&task).build().unwrap().start().await.unwrap();
        tokio::time::sleep(SECOND * 60).await;
        running.shutdown().await;
        for task in 1..=40 {
            assert_eq!(lines(&calls, task), ["0", "1", "2", "3", "4"], "{task}");
        }
        // Sixteen tasks at a time, each with five calls of a second.
        let times = calls.times("PutLog");
        assert_eq!((times.len(), times[times.len() - 1] - times[0]), (200, SECOND * 14));
        let most = times.iter().map(|at| times.iter().filter(|other| *other == at).count()).max();
        assert_eq!(most, Some(MAX_CALLS));
    }

    #[tokio::test(start_paused = true)]
    async fn lines_beyond_the_queue_are_dropped_and_the_task_is_not_slowed_down() {
        const LINES: usize = 12_000;
        let (client, calls) = server(1);
        let took = Arc::new(Mutex::new(None));
        let task =
            Task::with_state("task", Arc::clone(&took), async |took: Arc<Mutex<_>>, (): (), context: Context| {
                let begin = Instant::now();
                (0..LINES).for_each(|number| context.log(number.to_string()));
                *took.lock().unwrap() = Some(begin.elapsed());
                // Until there is space again.
                tokio::time::sleep(5 * SECOND).await;
                context.log("the last one");
                Ok(())
            });
        let running = client.worker("worker").register(&task).build().unwrap().start().await.unwrap();
        tokio::time::sleep(SECOND * 13_000).await;
        running.shutdown().await;
        // Although each call takes a second.
        assert_eq!(*took.lock().unwrap(), Some(Duration::ZERO));
        // What fits into the queue is sent, in its order. The rest is counted.
        let lines = lines(&calls, 1);
        let (expected, lost) = (10_000, LINES - 10_000);
        assert_eq!(lines.len(), expected + 2);
        assert!(lines[..expected].iter().enumerate().all(|(number, line)| *line == number.to_string()));
        assert_eq!(
            lines[expected..],
            [
                format!("{lost} log lines of this task were lost, because too many lines were waiting to be sent"),
                "the last one".to_owned()
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn lines_wait_while_the_engine_cannot_be_reached() {
        let (client, calls) = server_with(20, |elapsed| match elapsed {
            elapsed if elapsed < 60 * SECOND => Scripted::Status(14),
            _ => Scripted::empty(),
        });
        let task: Task<(), ()> = Task::new("task", async |(): (), context: Context| {
            for number in 0..90 {
                context.log(number.to_string());
                sleep(SECOND).await;
            }
            Ok(())
        });
        let running = client.worker("worker").slots(20).register(&task).build().unwrap().start().await.unwrap();
        sleep(SECOND * 100).await;
        running.shutdown().await;
        let expected: Vec<_> = (0..90).map(|number| number.to_string()).collect();
        for task in 1..=20 {
            assert_eq!(lines(&calls, task), expected, "{task}");
        }
        // Sixteen at once, and then one at a time.
        let rejected = calls.count("PutLog") - 20 * 90;
        assert!((20..100).contains(&rejected), "{rejected}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_is_rejected_is_lost_alone() {
        let (client, calls) = server_with(1, |elapsed| match elapsed.as_secs() {
            10..20 => Scripted::Status(3),
            _ => Scripted::empty(),
        });
        let task: Task<(), ()> = Task::new("task", async |(): (), context: Context| {
            for number in 0..4 {
                context.log(number.to_string());
                sleep(7 * SECOND).await;
            }
            Ok(())
        });
        let running = client.worker("worker").register(&task).build().unwrap().start().await.unwrap();
        sleep(SECOND * 60).await;
        running.shutdown().await;
        assert_eq!((lines(&calls, 1), calls.count("PutLog")), (vec!["0".into(), "1".into(), "3".into()], 4));
    }

    /// After a long outage, the engine still fails now and then.
    #[tokio::test(start_paused = true)]
    async fn a_line_that_waited_through_a_long_outage_may_fail_once_more() {
        let (client, calls) = server_with(20, |elapsed| match elapsed.as_millis() {
            0..600_000 => Scripted::Status(14),
            time if time % 3 == 0 => Scripted::Status(14),
            _ => Scripted::after(Duration::from_millis(7), Scripted::empty()),
        });
        let task: Task<(), ()> = Task::new("task", async |(): (), context: Context| {
            (0..3).for_each(|number| context.log(number.to_string()));
            Ok(())
        });
        let running = client.worker("worker").slots(20).register(&task).build().unwrap().start().await.unwrap();
        sleep(SECOND * 900).await;
        running.shutdown().await;
        for task in 1..=20 {
            assert_eq!(lines(&calls, task), ["0", "1", "2"], "{task}");
        }
    }

    /// A line that the engine cannot store must not stop the others, also if there are no others meanwhile.
    #[tokio::test(start_paused = true)]
    async fn a_line_with_an_internal_error_is_given_up_after_a_minute() {
        let (client, calls) = server_with(1, |elapsed| match elapsed {
            elapsed if elapsed < 70 * SECOND => Scripted::Status(13),
            _ => Scripted::empty(),
        });
        let task: Task<(), ()> = Task::new("task", async |(): (), context: Context| {
            (0..3).for_each(|number| context.log(number.to_string()));
            Ok(())
        });
        let running = client.worker("worker").register(&task).build().unwrap().start().await.unwrap();
        sleep(SECOND * 200).await;
        running.shutdown().await;
        assert_eq!(lines(&calls, 1), ["1", "2"]);
    }
}
