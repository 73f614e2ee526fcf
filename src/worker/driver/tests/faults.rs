//! Parts of the engine that fail while others work: its REST API, its database, or the calls beside the reports.

use super::super::super::connection::{MAX_REJECTION, MAX_TOKEN_REJECTION};
use super::batches::engine_version;
use super::*;
use crate::transport::REJECTIONS_TRANSIENT_FOR;

/// A task that takes some seconds.
fn slow(seconds: u32) -> Task<(), ()> {
    let task = Task::with_state("task", seconds, async |seconds, (): (), _: Context| {
        tokio::time::sleep(seconds * SECOND).await;
        Ok(())
    });
    task.timeout(100_000 * SECOND)
}

/// When the completions were sent.
fn completions(calls: &Calls) -> Vec<Instant> {
    let completed = pb::StepActionEventType::StepEventTypeCompleted as i32;
    let events = calls.messages::<pb::StepActionEvent>("SendStepActionEvent");
    // Each is accepted at once.
    let times = calls.times("SendStepActionEvent");
    let ends = times.into_iter().zip(events).filter(|(_, event)| event.event_type == completed);
    ends.map(|(at, _)| at).collect()
}

#[tokio::test(start_paused = true)]
async fn results_that_name_their_attempt_do_not_wait_for_a_rest_api_that_hangs() {
    let begin = Instant::now();
    // No heartbeat is accepted for 35 seconds.
    let is_away = move || (2 * SECOND..37 * SECOND).contains(&begin.elapsed());
    let (client, calls) = server(vec![(SECOND, start(9))], move |call, _| match call {
        "Heartbeat" if is_away() => Some(Scripted::Status(14)),
        call if call.contains("/workflow-runs/") => Some(Scripted::Hangs),
        _ => None,
    });
    let running = client.worker("worker").register(&slow(30)).build().unwrap().start().await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    let connected = calls.times("Heartbeat").into_iter().find(|at| *at - begin >= 37 * SECOND).unwrap();
    assert_eq!(completions(&calls), [connected + 3 * SECOND]);
    assert_eq!(running.shutdown().await.completed, 1);
}

#[tokio::test(start_paused = true)]
async fn results_of_a_shutdown_do_not_wait_for_a_rest_api_that_hangs() {
    let begin = Instant::now();
    let (client, calls) = server(vec![(SECOND, start(9))], move |call, _| match call {
        "Heartbeat" if begin.elapsed() > 2 * SECOND => Some(Scripted::Status(14)),
        call if call.starts_with("PATCH") || call.contains("/workflow-runs/") => Some(Scripted::Hangs),
        _ => None,
    });
    let build = client.worker("worker").register(&slow(28)).shutdown_grace_period(60 * SECOND);
    let running = build.build().unwrap().start().await.unwrap();
    tokio::time::sleep(3 * SECOND).await;
    let started = *calls.times("SendStepActionEvent").first().unwrap();
    // The worker cannot be paused, so that it sends no heartbeats any longer, and its grace period is 25 seconds.
    let report = running.shutdown().await;
    assert_eq!((report.completed, report.total()), (1, 1), "{report}");
    assert_eq!(completions(&calls), [started + 28 * SECOND + 3 * SECOND]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_with_attempts_waits_for_a_token_that_is_rejected() {
    let outage = 1000 * SECOND;
    for (has_attempt, seconds, is_over) in [(true, 1000, false), (false, 1000, true), (true, 10_000, true)] {
        let begin = Instant::now();
        let is_rejected = move || begin.elapsed() > 10 * SECOND && begin.elapsed() < outage * seconds / 1000;
        let assignments = if has_attempt { vec![(SECOND, start(9)), (9 * SECOND, cancel(99))] } else { Vec::new() };
        let (client, calls) = server(Vec::new(), move |call, _| match call {
            "ListenV2" | "Heartbeat" | "SendStepActionEvent" if is_rejected() => Some(Scripted::Status(16)),
            "ListenV2" if begin.elapsed() < SECOND => Some(Scripted::Stream(assignments.clone(), Some(14))),
            _ => None,
        });
        let running = client.worker("worker").register(&slow(60)).build().unwrap().start().await.unwrap();
        if is_over {
            let error = running.run_until(std::future::pending::<()>()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthenticated);
            let longest = if has_attempt { MAX_TOKEN_REJECTION } else { MAX_REJECTION };
            let since = begin.elapsed().saturating_sub(REJECTIONS_TRANSIENT_FOR + longest);
            assert!(since > 10 * SECOND && since < 60 * SECOND, "{since:?}");
        } else {
            tokio::time::sleep_until(begin + outage + 20 * SECOND).await;
            assert_eq!((running.status().state, completions(&calls).len()), (WorkerState::Connected, 1));
            assert_eq!(running.shutdown().await.completed, 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_delay_of_a_retry_outlives_an_outage() {
    let away = 120 * SECOND;
    let begin = Instant::now();
    let (client, calls) = server(vec![(SECOND, start(9))], move |call, _| match call {
        "GetVersion" if begin.elapsed() < away => Some(Scripted::Status(14)),
        "GetVersion" => Some(engine_version()),
        _ => None,
    });
    let later: Task<(), ()> =
        Task::new("task", async |(): (), _: Context| Err(TaskError::retry_after("later", 7 * SECOND)));
    let later = later.retries(1).timeout(1000 * SECOND);
    let running = client.worker("worker").register(&later).build().unwrap().start().await.unwrap();
    tokio::time::sleep(away + 10 * SECOND).await;
    let reports = calls.messages::<pb::StepActionEvent>("SendStepActionEvent");
    let failed = reports.last().unwrap();
    assert_eq!((reports.len(), failed.retry_after_ms, failed.should_not_retry), (2, Some(7000), None));
    assert_eq!(running.shutdown().await.failed, 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_waits_for_the_engines_version_ends_with_the_worker() {
    let (client, _) =
        server(vec![(SECOND, start(9))], |call, _| (call == "GetVersion").then_some(Scripted::Status(14)));
    let later: Task<(), ()> =
        Task::new("task", async |(): (), _: Context| Err(TaskError::retry_after("later", 7 * SECOND)));
    let build = client.worker("worker").shutdown_grace_period(5 * SECOND).register(&later.retries(1));
    let running = build.build().unwrap().start().await.unwrap();
    tokio::time::sleep(2 * SECOND).await;
    let started = Instant::now();
    let report = running.shutdown().await;
    assert_eq!((report.unfinished, report.total(), started.elapsed()), (1, 1, 5 * SECOND), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_result_in_time_outlives_the_chunks_that_cannot_be_sent() {
    let (client, _) = server(vec![(SECOND, start(9))], |call, _| (call == "PutStreamEvent").then_some(Scripted::Hangs));
    let talking: Task<(), ()> = Task::new("task", async |(): (), context: Context| {
        context.put("a chunk").await?;
        tokio::time::sleep(2 * SECOND).await;
        Ok(())
    });
    let build = client.worker("worker").shutdown_grace_period(5 * SECOND).register(&talking);
    let running = build.build().unwrap().start().await.unwrap();
    tokio::time::sleep(2 * SECOND).await;
    let report = running.shutdown().await;
    assert_eq!((report.completed, report.total()), (1, 1), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_failure_whose_text_is_too_large_is_retried_as_planned() {
    let too_large = "grpc: received message larger than max (5000 vs. 4000)";
    for (is_retryable, should_not_retry) in [(true, None), (false, Some(true))] {
        let (client, calls) = server(vec![(SECOND, start(9))], move |call, count| {
            (call == "SendStepActionEvent" && count == 2).then_some(Scripted::Rejection(8, too_large))
        });
        let wordy: Task<(), ()> = Task::with_state("task", is_retryable, async |is_retryable, (): (), _: Context| {
            let text = "x".repeat(5000);
            Err(if is_retryable { TaskError::new(text) } else { TaskError::non_retryable(text) })
        });
        let running = client.worker("worker").register(&wordy.retries(1)).build().unwrap().start().await.unwrap();
        tokio::time::sleep(5 * SECOND).await;
        let reports = calls.messages::<pb::StepActionEvent>("SendStepActionEvent");
        let failed = reports.last().unwrap();
        assert_eq!((reports.len(), failed.should_not_retry), (2, should_not_retry));
        assert!(failed.event_payload.ends_with("… (5000 bytes, cut at 500)"), "{}", failed.event_payload);
        assert_eq!(running.shutdown().await.failed, 1);
    }
}

/// The engine passes on the output of a task that is not a parent, if it ended before the attempt was assigned.
#[tokio::test(start_paused = true)]
async fn only_the_outputs_of_parents_can_be_read() {
    let last = pb::AssignedAction {
        action_id: "flow:last".into(),
        task_name: "last".into(),
        action_payload: r#"{"input":{},"parents":{"first":{"_value":1},"sibling":{"_value":2}}}"#.into(),
        ..action(pb::ActionType::StartStepRun, 9, 0)
    };
    let on_failure = pb::AssignedAction { action_id: "flow:repair".into(), ..last.clone() };
    let on_failure =
        pb::AssignedAction { task_run_external_id: "00000000-0000-4000-8001-00000000000a".into(), ..on_failure };
    let assignments = vec![(SECOND, last.encode_to_vec()), (2 * SECOND, on_failure.encode_to_vec())];
    let (client, calls) = server(assignments, |_, _| None);
    let number = |name: &str| Task::new(name, async |(): (), _: Context| Ok(0u32));
    let sum = |name: &str| {
        Task::new(name, async |(): (), context: Context| {
            let first: u32 = context.parent_output("first")?;
            Ok(first + context.parent_output::<u32>("sibling")?)
        })
    };
    let flow = Workflow::<()>::new("flow").task(&number("first")).task(&number("sibling"));
    let flow = flow.task_after(&sum("last"), "first").on_failure(&sum("repair"));
    let running = client.worker("worker").register(&flow).build().unwrap().start().await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    let reports = calls.messages::<pb::StepActionEvent>("SendStepActionEvent");
    let ends: Vec<_> = reports.iter().filter(|report| !report.event_payload.is_empty()).collect();
    let text = "task \"sibling\" is not a parent of task \"last\", or has no output";
    assert_eq!((ends[0].event_payload.as_str(), ends[0].should_not_retry), (text, Some(true)));
    assert_eq!(ends[1].event_payload, r#"{"_value":3}"#, "the on-failure task follows all others");
    assert_eq!(running.shutdown().await.total(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_integer_that_the_on_failure_task_would_get_rounded_is_rejected() {
    let assigned = pb::AssignedAction { action_id: "flow:first".into(), ..action(pb::ActionType::StartStepRun, 9, 0) };
    let (client, calls) = server(vec![(SECOND, assigned.encode_to_vec())], |_, _| None);
    let first = Task::new("first", async |(): (), _: Context| Ok((1u64 << 53) + 1));
    let repair = Task::new("repair", async |(): (), _: Context| Ok(()));
    let flow = Workflow::<()>::new("flow").task(&first).on_failure(&repair);
    let running = client.worker("worker").register(&flow).build().unwrap().start().await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    let reports = calls.messages::<pb::StepActionEvent>("SendStepActionEvent");
    let failed = reports.last().unwrap();
    assert_eq!(failed.event_type, pb::StepActionEventType::StepEventTypeFailed as i32);
    assert!(failed.event_payload.contains("9007199254740993"), "{}", failed.event_payload);
    running.shutdown().await;
}

/// The task of an attempt whose report the engine has accepted, although the worker did not get the response.
#[tokio::test(start_paused = true)]
async fn a_result_whose_response_was_lost_with_the_stream_counts_once() {
    // The stream ends when the result has been sent. It is not accepted twice.
    for (status, expected) in [
        ("COMPLETED", "attempts: 1 completed, 0 failed, 0 cancelled, 0 unfinished"),
        ("CANCELLED", "attempts: 0 completed, 0 failed, 1 cancelled, 0 unfinished"),
    ] {
        let first = vec![(SECOND, start(2)), (4 * SECOND, cancel(9))];
        let (client, calls) = server(Vec::new(), move |call, count| match call {
            "ListenV2" if count == 1 => Some(Scripted::Stream(first.clone(), Some(14))),
            "ListenV2" => Some(Scripted::Stream(Vec::new(), None)),
            "SendStepActionEvent" if count == 2 => Some(Scripted::after(3 * SECOND, Scripted::Status(14))),
            call if call.contains("/workflow-runs/") => Some(run_details(call, status, 0)),
            _ => None,
        });
        let running = client.worker("worker").register(&slow(2)).build().unwrap().start().await.unwrap();
        tokio::time::sleep(20 * SECOND).await;
        assert_eq!(running.status().unreported, 0);
        assert_eq!(running.shutdown().await.to_string(), expected);
        assert_eq!(calls.count("SendStepActionEvent"), 2, "the end was not sent again");
    }
}

/// An attempt is assigned after the stream was lost. It ends while the REST API is asked about it, which then shows its end.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_ends_during_a_check_is_not_lost() {
    for is_lost in [false, true] {
        let first = vec![(SECOND, start(1)), (SECOND, cancel(9))];
        let (client, calls) = server(Vec::new(), move |call, count| match call {
            "ListenV2" if count == 1 => Some(Scripted::Stream(first.clone(), Some(14))),
            "ListenV2" => Some(Scripted::Stream(vec![(Duration::ZERO, start(2))], None)),
            // The starts of both, and the end of the second one, which is accepted in any case.
            "SendStepActionEvent" if count >= 3 && is_lost => Some(Scripted::after(9 * SECOND, Scripted::Status(14))),
            call if call.ends_with("02") && call.contains("/workflow-runs/") => {
                Some(Scripted::after(SECOND * 5 / 2, run_details(call, "COMPLETED", 0)))
            }
            call if call.contains("/workflow-runs/") => Some(run_details(call, "COMPLETED", 0)),
            _ => None,
        });
        let running = client.worker("worker").register(&slow(2)).build().unwrap().start().await.unwrap();
        tokio::time::sleep(60 * SECOND).await;
        assert_eq!(running.status().unreported, 0);
        let report = running.shutdown().await.to_string();
        assert_eq!(
            report,
            "attempts: 2 completed, 0 failed, 0 cancelled, 0 unfinished",
            "{:?}",
            calls.times("SendStepActionEvent")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_assigned_again_after_its_end_does_not_run_again() {
    let (client, calls) = server(vec![(SECOND, start(2)), (10 * SECOND, start(2))], |_, _| None);
    let running = client.worker("worker").register(&slow(2)).build().unwrap().start().await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(completions(&calls).len(), 1, "the engine has accepted its result");
    tokio::time::sleep(15 * SECOND).await;
    assert_eq!(running.shutdown().await.to_string(), "attempts: 1 completed, 0 failed, 0 cancelled, 0 unfinished");
    assert_eq!(calls.count("SendStepActionEvent"), 2);
}

/// A proxy rejects heartbeats. The stream works, and a heartbeat that is rejected by the engine would have another code.
#[tokio::test(start_paused = true)]
async fn heartbeats_that_a_proxy_rejects_do_not_close_the_stream() {
    for (code, streams) in [(3, 1), (9, 2)] {
        let (client, calls) = server(Vec::new(), move |call, count| {
            (call == "Heartbeat" && count == 5).then_some(Scripted::Status(code))
        });
        let running = worker(&client).start().await.unwrap();
        tokio::time::sleep(30 * SECOND).await;
        assert_eq!(calls.count("ListenV2"), streams, "{code}");
        running.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_worker_is_registered_once_although_it_cannot_be_paused_again() {
    // The engine has lost the worker, and the REST API is away for the next three calls.
    let (client, calls) = server(Vec::new(), |call, count| match (call, count) {
        ("Heartbeat", 6..=9) => Some(Scripted::Status(5)),
        (call, 2..=4) if call.starts_with("PATCH") => Some(Scripted::Rest(400, "{}".into())),
        _ => None,
    });
    let running = worker(&client).start().await.unwrap();
    running.pause().send().await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    let pauses = calls.count(&format!("PATCH /api/v1/workers/{WORKER}"));
    assert_eq!((pauses, calls.count("Register"), calls.count("ListenV2")), (5, 2, 2));
    running.shutdown().await;
}

/// The stream cannot be opened again, and the engine rejects heartbeats of a worker without one.
#[tokio::test(start_paused = true)]
async fn results_do_not_wait_for_a_stream_that_cannot_be_opened() {
    let first = vec![(SECOND, start(2)), (2 * SECOND, cancel(9))];
    let (client, calls) = server(Vec::new(), move |call, count| match call {
        "ListenV2" if count == 1 => Some(Scripted::Stream(first.clone(), Some(14))),
        "ListenV2" => Some(Scripted::Status(14)),
        "Heartbeat" if count > 4 => Some(Scripted::Status(9)),
        call if call.contains("/workflow-runs/") => Some(run_details(call, "RUNNING", 0)),
        _ => None,
    });
    let running = client.worker("worker").register(&slow(3)).build().unwrap().start().await.unwrap();
    tokio::time::sleep(10 * SECOND).await;
    let started = *calls.times("SendStepActionEvent").first().unwrap();
    let sent = completions(&calls);
    // With the next heartbeat, whose answer shows that the engine can be asked.
    assert!(sent.len() == 1 && sent[0] - started <= 6 * SECOND, "{:?}", sent[0] - started);
    assert_eq!(running.shutdown().await.completed, 1);
}

/// The answer of a check is from before the cancellation, which is lost with the stream.
#[tokio::test(start_paused = true)]
async fn an_answer_from_before_the_stream_was_lost_does_not_count() {
    let begin = Instant::now();
    let streams =
        [vec![(SECOND, start(2)), (2 * SECOND, cancel(9))], vec![(SECOND, cancel(9)), (3 * SECOND / 2, cancel(9))]];
    let (client, calls) = server(Vec::new(), move |call, count| match call {
        "ListenV2" if count <= 2 => Some(Scripted::Stream(streams[count - 1].clone(), Some(14))),
        "ListenV2" => Some(Scripted::Stream(Vec::new(), None)),
        // The first check takes two seconds.
        call if call.contains("/workflow-runs/") => {
            let status = if begin.elapsed() < 3 * SECOND { "RUNNING" } else { "CANCELLED" };
            let answer = run_details(call, status, 0);
            Some(if count == 1 { Scripted::after(2 * SECOND, answer) } else { answer })
        }
        _ => None,
    });
    let running = client.worker("worker").register(&slow(3)).build().unwrap().start().await.unwrap();
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(running.shutdown().await.to_string(), "attempts: 0 completed, 0 failed, 1 cancelled, 0 unfinished");
    assert!(completions(&calls).is_empty(), "{:?}", completions(&calls));
}
