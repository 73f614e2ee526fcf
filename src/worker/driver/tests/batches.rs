//! Attempts of batches.

use super::*;
use crate::rpc::MAX_VERSION_AGE;
use crate::rpc::convert::{Report, ReportKind};
use crate::worker::key::Key;
use crate::worker::outbox;
use crate::worker::ownership::Checked;
use crate::workflow::{BatchItem, BatchOptions};

/// An assignment of a batch with these tasks.
pub(super) fn batch(id: &str, tasks: &[u8]) -> Vec<u8> {
    let item = |task: &u8| {
        let id = format!("00000000-0000-4000-8001-0000000000{task:02x}");
        format!(r#""{id}":{{"workflow_run_id":"{id}","payload":{{"input":{{}}}}}}"#)
    };
    let items: Vec<_> = tasks.iter().map(item).collect();
    let action = pb::AssignedAction {
        action_type: pb::ActionType::StartBatch as i32,
        action_id: "task:task".into(),
        action_payload: format!("{{{}}}", items.join(",")),
        batch_id: Some(id.into()),
        batch_start_payload: Some(pb::BatchStartPayload { expected_size: 3, ..Default::default() }),
        ..Default::default()
    };
    action.encode_to_vec()
}

/// The reports that were sent, as event type, last digits of the task, and retry count.
fn reports(calls: &Calls) -> Vec<(i32, String, Option<i32>)> {
    let last = |id: &str| id[id.len() - 2..].to_owned();
    let one = |event: pb::StepActionEvent| (event.event_type, last(&event.task_run_external_id), event.retry_count);
    let mut reports: Vec<_> = calls.messages("SendStepActionEvent").into_iter().map(one).collect();
    for batch in calls.messages::<pb::BatchActionEvent>("SendBatchActionEvent") {
        let items = batch.items.iter();
        reports.extend(items.map(|item| (batch.event_type, last(&item.task_run_external_id), item.retry_count)));
    }
    reports.sort();
    reports
}

fn batch_task() -> Task<(), u8> {
    let options = BatchOptions::new(3);
    Task::batch("task", options, async |items: Vec<BatchItem<()>>| {
        tokio::time::sleep(SECOND).await;
        let number = |context: &Context| uuid::Uuid::from(context.task_id()).as_bytes()[15];
        let result = |context: &Context| match number(context) {
            2 => Err(TaskError::new("as planned")),
            number => Ok(number),
        };
        Ok(items.iter().map(|item| result(&item.context)).collect())
    })
}

#[tokio::test(start_paused = true)]
async fn each_attempt_of_a_batch_is_reported_once_and_counted_once() {
    let unreadable = |size: Option<i32>| {
        let action = pb::AssignedAction {
            action_type: pb::ActionType::StartBatch as i32,
            action_payload: "{".into(),
            batch_start_payload: size
                .map(|expected_size| pb::BatchStartPayload { expected_size, ..Default::default() }),
            ..Default::default()
        };
        action.encode_to_vec()
    };
    let assignments = vec![
        (SECOND, batch("a", &[1, 2, 3])),
        (SECOND, batch("a", &[1, 2, 3])),
        (SECOND, unreadable(Some(2))),
        // One at least.
        (SECOND, unreadable(None)),
        (SECOND + SECOND / 2, action(pb::ActionType::CancelStepRun, 3, 4).encode_to_vec()),
    ];
    let (client, calls) = server(assignments, |call, _| {
        match call {
        call if call.contains("/task-events") => Some(Scripted::Rest(
            200,
            r#"{"rows":[{"eventType":"BATCH_FLUSHED","timestamp":"2026-11-23T14:00:00Z","message":"Batch a flushed","retryCount":7}]}"#
                .into(),
        )),
        "GetVersion" => Some(Scripted::message(&pb::GetVersionResponse { version: "v0.104.7".into() })),
        _ => None,
    }
    });
    let worker = client.worker("worker").register(&batch_task()).build().unwrap();
    let running = worker.start().await.unwrap();
    tokio::time::sleep(4 * SECOND).await;
    let report = running.shutdown().await;
    assert_eq!(report.to_string(), "attempts: 1 completed, 1 failed, 1 cancelled, 3 unfinished");
    // Only a failure needs the retry count: the engine would apply it to the next attempt if it was sent twice.
    let started = pb::StepActionEventType::StepEventTypeStarted as i32;
    let completed = pb::StepActionEventType::StepEventTypeCompleted as i32;
    let failed = pb::StepActionEventType::StepEventTypeFailed as i32;
    let expected = [
        (started, "01", None),
        (started, "02", None),
        (started, "03", None),
        (completed, "01", None),
        (failed, "02", Some(7)),
    ];
    assert_eq!(reports(&calls), expected.map(|(kind, task, retry_count)| (kind, task.to_owned(), retry_count)));
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_an_unknown_action_fails_and_names_it() {
    let action = pb::AssignedAction {
        action_id: "task:other".into(),
        ..pb::AssignedAction::decode(&batch("a", &[1, 2])[..]).unwrap()
    };
    let (client, calls) = server(vec![(SECOND, action.encode_to_vec())], |_, _| None);
    let running = client.worker("worker").register(&task()).build().unwrap().start().await.unwrap();
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(running.shutdown().await.to_string(), "attempts: 0 completed, 2 failed, 0 cancelled, 0 unfinished");
    let failed = pb::StepActionEventType::StepEventTypeFailed as i32;
    let mut reports = calls.messages::<pb::BatchActionEvent>("SendBatchActionEvent").into_iter();
    let failures = reports.find(|batch| batch.event_type == failed).unwrap();
    for item in failures.items {
        assert_eq!(item.event_payload, "this worker has no task for the action task:other");
        assert_eq!(item.should_not_retry, Some(true));
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_without_batches_is_rejected() {
    let version = |call: &str, _| {
        (call == "GetVersion").then(|| Scripted::message(&pb::GetVersionResponse { version: "v0.88.0".into() }))
    };
    let (client, calls) = server(Vec::new(), version);
    let error = client.worker("worker").register(&batch_task()).build().unwrap().start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unimplemented);
    assert!(error.to_string().contains("batches: expected engine v0.88.1 or later, got v0.88.0"), "{error}");
    assert_eq!(calls.count("PutWorkflow"), 0);
}

/// The response to `GetVersion` of an engine with batches.
pub(super) fn engine_version() -> Scripted {
    Scripted::message(&pb::GetVersionResponse { version: "v0.111.0".into() })
}

#[tokio::test(start_paused = true)]
async fn completions_of_a_batch_do_not_wait_for_what_its_failures_need() {
    // The version is needed for the delays of two retries. The one of the start is too old, and it cannot be read again.
    let late = MAX_VERSION_AGE + SECOND;
    let (client, calls) = server(vec![(late, batch("a", &[1, 2, 3]))], |call, count| match call {
        "GetVersion" if count == 1 => Some(engine_version()),
        "GetVersion" => Some(Scripted::Hangs),
        _ => None,
    });
    let options = BatchOptions::new(3);
    let task: Task<(), ()> = Task::batch("task", options, async |_: Vec<BatchItem<()>>| {
        let later = || Err(TaskError::retry_after("later", SECOND));
        Ok(vec![Ok(()), later(), later()])
    });
    let running = client.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    tokio::time::sleep(late + 60 * SECOND).await;
    let report = running.shutdown().await;
    assert_eq!(report.to_string(), "attempts: 1 completed, 2 failed, 0 cancelled, 0 unfinished");
    let since = |call: &str| {
        let times = calls.times(call);
        times.into_iter().map(|at| at - calls.times("ListenV2")[0]).collect::<Vec<_>>()
    };
    assert_eq!(since("SendStepActionEvent"), [late], "the completion");
    // The starts, and the failures after the timeout of one call.
    assert_eq!(since("SendBatchActionEvent"), [late, late + client.rpc_timeout()]);
    assert_eq!(calls.count("GetVersion"), 2);
}

#[tokio::test(start_paused = true)]
async fn the_chunks_of_a_batch_are_flushed_at_the_same_time() {
    let (client, calls) = server(vec![(SECOND, batch("a", &[1, 2, 3]))], |call, _| match call {
        "GetVersion" => Some(engine_version()),
        "PutStreamEvent" => Some(Scripted::after(SECOND, Scripted::empty())),
        _ => None,
    });
    let options = BatchOptions::new(3);
    let task: Task<(), ()> = Task::batch("task", options, async |items: Vec<BatchItem<()>>| {
        for item in &items {
            item.context.put("a").await?;
        }
        Ok(items.iter().map(|_| Ok(())).collect())
    });
    let running = client.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    tokio::time::sleep(10 * SECOND).await;
    running.shutdown().await;
    let reported = calls.times("SendBatchActionEvent")[1] - calls.times("SendBatchActionEvent")[0];
    // One second for the calls, and the delay after which the engine has published a chunk.
    assert_eq!(reported, SECOND + Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn the_children_of_a_batch_are_not_started_again() {
    // It may be a retry: the engine does not say which attempts these are.
    let (client, calls) = server(vec![(SECOND, batch("a", &[1]))], |call, _| match call {
        "GetVersion" => Some(Scripted::message(&pb::GetVersionResponse { version: "v0.104.7".into() })),
        "TriggerWorkflow" => Some(Scripted::Status(3)),
        _ => None,
    });
    let options = BatchOptions::new(3);
    let parent: Task<(), ()> = Task::batch("task", options, async |items: Vec<BatchItem<()>>| {
        for item in &items {
            item.context.run_many(&task(), [(), ()]).start().await?;
        }
        Ok(items.iter().map(|_| Ok(())).collect())
    });
    let running = client.worker("worker").register(&parent).build().unwrap().start().await.unwrap();
    tokio::time::sleep(3 * SECOND).await;
    running.shutdown().await;
    // A bulk call would start those again that exist.
    assert_eq!((calls.count("BulkTriggerWorkflow"), calls.count("TriggerWorkflow")), (0, 2));
}

/// A server on which another worker has the third attempt of task 1, while this one gets the second attempts of tasks 1 and 3 as batch `first`.
fn reassigning_server(change: impl Fn(&str, usize) -> Option<Scripted> + Send + Sync + 'static) -> (Client, Calls) {
    server(vec![(SECOND, batch("first", &[1, 3]))], move |call, count| {
        change(call, count).or_else(|| match call {
            "GetVersion" => Some(Scripted::message(&pb::GetVersionResponse { version: "v0.104.7".into() })),
            call if call.contains("/task-events") => Some(Scripted::Rest(
                200,
                r#"{"rows":[{"eventType":"BATCH_FLUSHED","timestamp":"2026-11-23T14:00:00Z","message":"Batch second flushed","retryCount":2},
                {"eventType":"BATCH_FLUSHED","timestamp":"2026-11-23T13:00:00Z","message":"Batch first flushed","retryCount":1}]}"#
                    .into(),
            )),
            call if call.contains("/workflow-runs/") => {
                Some(run_details(call, "RUNNING", if call.ends_with("01") { 2 } else { 1 }))
            }
            _ => None,
        })
    })
}

/// Completes all runs of a batch after a few seconds.
fn slow_batch_task(seconds: u32) -> Task<(), bool> {
    let options = BatchOptions::new(3);
    Task::batch("task", options, move |items: Vec<BatchItem<()>>| async move {
        tokio::time::sleep(seconds * SECOND).await;
        Ok(items.iter().map(|item| Ok(item.context.is_cancelled())).collect())
    })
}

/// The reports of attempts that have completed.
fn completions(calls: &Calls) -> Vec<(String, Option<i32>)> {
    let completed = pb::StepActionEventType::StepEventTypeCompleted as i32;
    reports(calls).into_iter().filter(|(kind, ..)| *kind == completed).map(|(_, task, count)| (task, count)).collect()
}

#[tokio::test(start_paused = true)]
async fn an_attempt_of_a_batch_that_another_worker_has_is_not_reported() {
    // The first stream ends.
    let first = vec![(SECOND, batch("first", &[1, 3]))];
    let (client, calls) = reassigning_server(move |call, count| match call {
        "ListenV2" if count == 1 => Some(Scripted::Stream(first.clone(), Some(14))),
        "ListenV2" => Some(Scripted::Stream(Vec::new(), None)),
        _ => None,
    });
    let running = client.worker("worker").register(&slow_batch_task(10)).build().unwrap().start().await.unwrap();
    tokio::time::sleep(15 * SECOND).await;
    let report = running.shutdown().await;
    assert_eq!(report.to_string(), "attempts: 1 completed, 0 failed, 1 cancelled, 0 unfinished");
    assert_eq!(completions(&calls), [("03".to_owned(), None)]);
}

#[tokio::test(start_paused = true)]
async fn results_of_a_batch_that_waited_through_an_outage_name_their_attempts() {
    type Fails = fn(&str, usize) -> bool;
    // The first call with the results fails; the heartbeats fail when the batch ends.
    let outages: [Fails; 2] = [
        |call, count| call == "SendBatchActionEvent" && count == 2,
        |call, count| call == "Heartbeat" && (4..=8).contains(&count),
    ];
    for fails in outages {
        let (client, calls) = reassigning_server(move |call, count| fails(call, count).then_some(Scripted::Status(14)));
        let running = client.worker("worker").register(&slow_batch_task(2)).build().unwrap().start().await.unwrap();
        tokio::time::sleep(15 * SECOND).await;
        let report = running.shutdown().await;
        assert_eq!(report.to_string(), "attempts: 1 completed, 0 failed, 1 cancelled, 0 unfinished");
        // Without a retry count, the engine would apply the other one to the attempt of the other worker.
        assert_eq!(completions(&calls), [("03".to_owned(), Some(1))]);
    }
}

/// The result of an attempt of batch `earlier` that an earlier process has run. Its retry count is a guess.
fn earlier_result(task: u8, retry_count: i32) -> (Key, Report) {
    let action: Action = action(pb::ActionType::StartStepRun, task, retry_count).into();
    let report =
        Report::new(WORKER.parse().unwrap(), &action, ReportKind::Completed, chrono::DateTime::default(), "{}".into());
    (Key::read(&action).unwrap(), report.in_batch("earlier"))
}

#[tokio::test(start_paused = true)]
async fn a_result_of_an_earlier_process_is_withdrawn_although_its_retry_count_is_not_known() {
    let (client, _) = server(Vec::new(), |_, _| None);
    let mut driver = driver(&client);
    let (key, report) = earlier_result(1, 2);
    driver.earlier.report(1, key, report, &mut driver.outbox);
    for (retry_count, is_left) in [(1, true), (4, false)] {
        driver.on_action(action(pb::ActionType::CancelStepRun, 1, retry_count).into());
        assert_eq!(driver.earlier.contains(&key), is_left, "{retry_count}");
    }
    assert!(driver.outbox.next_call(Instant::now()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_result_of_an_earlier_process_is_still_one_when_it_is_too_large_and_replaced() {
    const TOO_LARGE: &str = "grpc: received message larger than max (5000 vs. 4000)";
    let (client, _) =
        server(Vec::new(), |call, _| (call == "SendStepActionEvent").then_some(Scripted::Rejection(8, TOO_LARGE)));
    let mut driver = driver(&client);
    let (key, report) = earlier_result(1, 2);
    let report = report.with_retry_count(2).with_text(|_| "x".repeat(5000));
    driver.earlier.report(1, key, report, &mut driver.outbox);
    let call = driver.outbox.next_call(Instant::now()).unwrap();
    driver.on_sent(outbox::send(client.rpc().clone(), call).await);
    assert!(driver.earlier.contains(&key));
    driver.on_action(action(pb::ActionType::CancelStepRun, 1, 2).into());
    assert!(driver.earlier.len() == 0 && driver.outbox.next_call(Instant::now()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_lost_result_of_an_earlier_process_does_not_cancel_the_next_attempt() {
    let (client, _) = server(Vec::new(), |_, _| None);
    let mut driver = driver(&client);
    let (key, report) = earlier_result(1, 0);
    let batch_id = report.batch.clone();
    driver.earlier = EarlierResults::new(vec![(1, key, report)]);
    driver.on_checked(&Checked { lost: [((key, batch_id), None)].into(), ..Checked::default() });
    // Its retry count is as little known.
    driver.on_action(pb::AssignedAction::decode(&batch("next", &[1])[..]).unwrap().into());
    assert_eq!(driver.assignments.counts(), (1, 0, 0));
}

/// The key of an attempt of a batch is a guess, so that two results can have the same.
#[tokio::test(start_paused = true)]
async fn a_lost_result_of_an_earlier_process_does_not_withdraw_that_of_this_one() {
    // The second report is the result.
    let (client, _) =
        server(Vec::new(), |call, count| (call == "SendStepActionEvent" && count == 2).then_some(Scripted::Status(14)));
    let mut driver = driver(&client);
    let (key, report) = earlier_result(1, 0);
    let earlier = (key, report.batch.clone());
    driver.earlier = EarlierResults::new(vec![(1, key, report)]);
    driver.on_action(pb::AssignedAction::decode(&batch("next", &[1])[..]).unwrap().into());
    driver.outbox.add(key, earlier_result(1, 0).1.in_batch("next"));
    let start = driver.outbox.next_call(Instant::now()).unwrap();
    driver.on_sent(outbox::send(client.rpc().clone(), start).await);
    let result = driver.outbox.next_call(Instant::now()).unwrap();
    // The check ends while the result is being sent, and the call fails.
    driver.on_checked(&Checked { lost: [(earlier, None)].into(), ..Checked::default() });
    driver.on_sent(outbox::send(client.rpc().clone(), result).await);
    assert!(driver.outbox.has_unchecked(), "it is kept");
}

/// A failure is in flight while a check finds the next attempt: it counts as what the engine responds.
#[tokio::test(start_paused = true)]
async fn a_failure_that_a_check_overtakes_counts_as_failed() {
    let (client, _) = server(Vec::new(), |_, _| None);
    let mut driver = driver(&client);
    driver.on_action(action(pb::ActionType::StartStepRun, 5, 0).into());
    let ended = driver.jobs.next().await.unwrap();
    driver.on_ended(ended);
    let mut calls = Vec::new();
    while let Some(call) = driver.outbox.next_call(Instant::now()) {
        let is_failure = call.entries.iter().any(|entry| entry.report.kind == ReportKind::Failed);
        if is_failure {
            let key = call.entries[0].key;
            driver.on_checked(&Checked { lost: [((key, None), None)].into(), ..Checked::default() });
        }
        calls.push(is_failure);
        driver.on_sent(outbox::send(client.rpc().clone(), call).await);
    }
    assert_eq!(calls, [false, true]);
    assert_eq!(
        driver.assignments.into_report().to_string(),
        "attempts: 0 completed, 1 failed, 0 cancelled, 0 unfinished"
    );
}

#[tokio::test(start_paused = true)]
async fn results_of_an_earlier_process_with_the_same_guessed_key_do_not_keep_a_check_running() {
    let (client, _) = server(Vec::new(), |_, _| None);
    let mut driver = driver(&client);
    let results = [(1, "one"), (2, "two")].map(|(number, batch_id)| {
        let (key, report) = earlier_result(1, 0);
        (number, key, report.in_batch(batch_id))
    });
    driver.earlier = EarlierResults::new(results.into());
    // The worker is not connected: the results are checked once more when they are in the outbox.
    driver.hold_doubtful_reports();
    driver.on_checked(&Checked::default());
    assert_eq!(driver.outbox.unchecked().count(), 2);
    driver.start_check(true);
    let checked = driver.checks.answered().await;
    driver.on_checked(&checked);
    assert!(!driver.outbox.has_unchecked());
}
