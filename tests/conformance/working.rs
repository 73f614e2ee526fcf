//! W: what tasks and workers can do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use chrono::TimeDelta;
use hatchet::embedded::{Engine, Fault};
use hatchet::model::{ChunkContent, ChunkItem, DesiredLabel, LogLevel, RunDetails, TimeoutKind, WorkerId};
use hatchet::worker::WorkerState;
use hatchet::workflow::Sticky;
use hatchet::{Context, ErrorKind, Outcome, Priority, RunStatus, Task, TaskError};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::setup::{Setup, rows};
use crate::support::until_running;
use crate::tasks::{Doubled, Number, double};

rows! {
    c14_each_of_many_runs_has_its_own_options,
    w1_tasks_have_typed_inputs_outputs_and_errors,
    w5_timeouts_are_enforced_and_can_be_extended,
    w8_labels_can_change_while_the_worker_runs,
    w11_children_of_many_forms_are_started_once,
    w12_log_lines_arrive_in_order_with_their_levels,
    w13_chunks_of_text_of_values_and_of_bytes_reach_the_reader,
    w16_blocking_tasks_run_beside_others_and_can_be_cancelled,
    w19_pause_resume_and_drain_are_visible,
    w13_chunks_of_this_sdk_are_read_by_others,
    w20_no_more_attempts_run_than_there_are_slots,
    w20_slots_of_different_kinds_are_separate,
    w20_durable_slots_are_separate,
    w1_tasks_of_several_workflows_that_end_together_are_reported,
    w1_the_engine_stores_one_time_for_all_results_of_a_call,
}

const SECOND: Duration = Duration::from_secs(1);

async fn c14_each_of_many_runs_has_its_own_options(setup: Setup) {
    let task: Task<Number, (Option<Priority>, String, WorkerId)> =
        Task::new(setup.name("task"), async |_: Number, context: Context| {
            let team = context.metadata().remove("team").map(|team| team.to_string()).unwrap_or_default();
            Ok((context.priority(), team, context.worker_id()))
        });
    let task = task.sticky(Sticky::Hard);
    let register = |name: &str| setup.hatchet.worker(setup.name(name)).register(&task).build().unwrap().start();
    let (one, other) = (register("one").await.unwrap(), register("other").await.unwrap());
    let workers = [one.id(), other.id()];
    let runs =
        setup.hatchet.run_many(&task, (0..4).map(|n| Number { n })).metadata("team", "all").each(|at, options| {
            let options = options.desired_worker(workers[at % 2]);
            if at == 3 { options.metadata("team", "last").priority(Priority::High) } else { options }
        });
    let results: Vec<_> = runs.results().await.unwrap().into_iter().map(Result::unwrap).collect();
    for (at, (priority, team, worker)) in results.into_iter().enumerate() {
        let expected = if at == 3 { (Some(Priority::High), "\"last\"") } else { (Some(Priority::Low), "\"all\"") };
        assert_eq!(((priority, team.as_str()), worker), (expected, workers[at % 2]), "{at}");
    }
    one.shutdown().await;
    other.shutdown().await;
}

async fn w1_tasks_have_typed_inputs_outputs_and_errors(setup: Setup) {
    let echo = Task::new(setup.name("echo"), async |input: Number, context: Context| match input.n {
        0 => Err(TaskError::non_retryable("zero is not accepted")),
        n => Ok((context.task_name().to_owned(), n, vec![context.attempt()])),
    });
    let worker = setup.worker(&echo).await;
    // The output is an array, and returned as it was.
    let output = setup.hatchet.run(&echo, &Number { n: 7 }).result().await.unwrap();
    assert_eq!(output, (setup.name("echo"), 7, vec![1]));
    let error = setup.hatchet.run(&echo, &Number { n: 0 }).result().await.unwrap_err();
    assert!(
        matches!(error.outcome(), Some(Outcome::Failed(failure)) if failure.message.as_deref() == Some("zero is not accepted")),
        "{error:?}"
    );
    worker.shutdown().await;
}

/// The worker reports their ends in one call, for which the engine stores one time.
async fn w1_tasks_of_several_workflows_that_end_together_are_reported(setup: Setup) {
    // Together more than the largest batch.
    const RUNS: u32 = 110;
    let (started, end) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let task = |name: &str| {
        let code = async |(started, end): (Arc<AtomicU32>, Arc<Notify>), input: Number, context: Context| {
            let ended = end.notified();
            started.fetch_add(1, SeqCst);
            ended.await;
            match input.n {
                0 => Err(TaskError::non_retryable(context.task_name())),
                n => Ok((context.task_name().to_owned(), n)),
            }
        };
        Task::with_state(setup.name(name), (Arc::clone(&started), Arc::clone(&end)), code)
    };
    let (one, two) = (task("one"), task("two"));
    let worker = setup.hatchet.worker(setup.name("worker")).slots(2 * RUNS).register(&one).register(&two);
    let worker = worker.build().unwrap().start().await.unwrap();
    if let Some(engine) = &setup.engine {
        engine.faults().inject_times("SendBatchActionEvent", Fault::Delay(Duration::ZERO), 100).unwrap();
    }
    let mut runs = Vec::new();
    for task in [&one, &two] {
        let inputs = (0..i64::from(RUNS)).map(|n| Number { n });
        for (run, n) in setup.hatchet.run_many(task, inputs).start().await.unwrap().into_iter().zip(0..) {
            runs.push((run.unwrap(), task.name().to_owned(), n));
        }
    }
    while started.load(SeqCst) < 2 * RUNS {
        sleep(SECOND / 50).await;
    }
    let before = setup.engine.as_ref().map(|engine| engine.faults().planned());
    let ended_at = setup.engine.as_ref().map_or_else(chrono::Utc::now, Engine::now);
    end.notify_waiters();
    for (run, name, n) in &runs {
        match (run.outcome().await.unwrap(), n) {
            (Outcome::Failed(failure), 0) => assert_eq!(failure.message.as_deref(), Some(name.as_str())),
            (Outcome::Completed(_), _) => assert_eq!(run.result().await.unwrap(), (name.clone(), *n)),
            other => panic!("{other:?}"),
        }
    }
    let mut finished = Vec::new();
    for (run, ..) in &runs {
        finished.push(run.details().await.unwrap().finished_at().unwrap());
    }
    let (first, last) = (finished.iter().min().unwrap(), finished.iter().max().unwrap());
    assert!(*last - *first <= TimeDelta::seconds(1), "{first} to {last}");
    // The clock of the machine is not that of a real engine.
    assert!((*first - ended_at).abs() < TimeDelta::seconds(5), "{ended_at}: {first} to {last}");
    let calls = setup.engine.as_ref().map(|engine| before.unwrap() - engine.faults().planned());
    assert!(calls.is_none_or(|calls| (1..5).contains(&calls)), "{calls:?} calls for {} ends", runs.len());
    worker.shutdown().await;
}

/// The outbox relies on it: which time counts, and that a call with many results is accepted, as is one with a task that does not exist.
async fn w1_the_engine_stores_one_time_for_all_results_of_a_call(setup: Setup) {
    use hatchet::raw::pb::dispatcher_client::DispatcherClient;
    use hatchet::raw::pb::{BatchActionEvent, BatchActionEventItem, StepActionEventType};
    const RUNS: i64 = 300;
    // The worker only registers the task: the engine accepts the results of attempts that are queued.
    let task = double(setup.name("task"));
    setup.worker(&task).await.shutdown().await;
    let inputs = (0..RUNS).map(|n| Number { n });
    let runs = setup.hatchet.run_many(&task, inputs).start().await.unwrap();
    let runs: Vec<_> = runs.into_iter().map(Result::unwrap).collect();
    let (first, has_created_at) = (&runs[0], |details: &RunDetails| details.created_at.is_some());
    let before = setup.fetch_until(async || first.details().await.unwrap(), has_created_at).await.created_at.unwrap();
    let at = before - TimeDelta::hours(1);
    let item = |task: String| BatchActionEventItem {
        task_run_external_id: task,
        event_payload: r#"{"doubled":2}"#.into(),
        ..BatchActionEventItem::default()
    };
    let mut dispatcher = DispatcherClient::new(setup.hatchet.raw_channel());
    let (completed, failed) = runs.split_at(runs.len() - 1);
    let missing = "00000000-0000-4000-8001-00000000ffff".to_owned();
    for (kind, runs) in
        [(StepActionEventType::StepEventTypeCompleted, completed), (StepActionEventType::StepEventTypeFailed, failed)]
    {
        let ids = runs.iter().map(|run| run.id().to_string());
        dispatcher
            .send_batch_action_event(BatchActionEvent {
                event_type: kind as i32,
                event_timestamp: Some(prost_types::Timestamp { seconds: at.timestamp(), nanos: 0 }),
                items: ids.chain([missing.clone()]).map(item).collect(),
                ..BatchActionEvent::default()
            })
            .await
            .unwrap();
    }
    for run in completed {
        assert_eq!(run.result().await.unwrap(), Doubled { doubled: 2 });
        let finished = run.details().await.unwrap().finished_at().unwrap();
        assert_eq!(finished.timestamp(), at.timestamp(), "the time of the call");
    }
    let failure = failed[0].outcome().await.unwrap();
    assert!(matches!(failure, Outcome::Failed(_)), "{failure:?}");
    let finished = failed[0].details().await.unwrap().finished_at().unwrap();
    assert!(finished > before, "{finished}: the time of the engine");
}

async fn w5_timeouts_are_enforced_and_can_be_extended(setup: Setup) {
    let slow = |name: &str, extended: bool| {
        let task = Task::new(setup.name(name), move |input: Number, context: Context| async move {
            if extended {
                context.refresh_timeout(10 * SECOND).send().await?;
            }
            sleep(4 * SECOND).await;
            Ok(Doubled { doubled: input.n * 2 })
        });
        task.timeout(2 * SECOND)
    };
    let (short, extended) = (slow("short", false), slow("extended", true));
    let idle = double(setup.name("idle")).schedule_timeout(2 * SECOND);
    let worker = setup.hatchet.worker(setup.name("worker")).register(&short).register(&extended);
    let worker = worker.build().unwrap().start().await.unwrap();
    let runs = (setup.hatchet.run(&short, &Number { n: 1 }), setup.hatchet.run(&extended, &Number { n: 2 }));
    let (short, extended) = tokio::join!(runs.0.outcome(), runs.1.result());
    let Ok(Outcome::TimedOut(timeout)) = short else { panic!("{short:?}") };
    assert_eq!(timeout.kind, TimeoutKind::Execution);
    assert_eq!(extended.unwrap(), Doubled { doubled: 4 });
    worker.shutdown().await;
    // No worker takes this one.
    let worker = setup.worker(&idle).await;
    worker.shutdown().await;
    let outcome = setup.hatchet.run(&idle, &Number { n: 1 }).outcome().await.unwrap();
    assert!(matches!(&outcome, Outcome::TimedOut(timeout) if timeout.kind == TimeoutKind::Schedule), "{outcome:?}");
}

async fn w8_labels_can_change_while_the_worker_runs(setup: Setup) {
    let task: Task<Number, WorkerId> =
        Task::new(setup.name("task"), async |_: Number, context: Context| Ok(context.worker_id()));
    let register = |name: &str| {
        let worker = setup.hatchet.worker(setup.name(name)).label("model", "small").register(&task);
        worker.build().unwrap().start()
    };
    let (one, other) = (register("one").await.unwrap(), register("other").await.unwrap());
    other.set_labels([("model", "large")]).send().await.unwrap();
    assert!(other.set_labels([("", 1)]).send().await.is_err());
    // The scheduler of the real engine notices labels a few seconds later.
    sleep(8 * SECOND).await;
    for (size, worker) in [("large", &other), ("small", &one)] {
        let run = setup.hatchet.run(&task, &Number { n: 1 });
        let run = run.desired_label("model", DesiredLabel::equal(size).required());
        assert_eq!(run.result().await.unwrap(), worker.id(), "{size}");
    }
    one.shutdown().await;
    other.shutdown().await;
}

async fn w11_children_of_many_forms_are_started_once(setup: Setup) {
    let child = double(setup.name("child"));
    let parent = Task::new(setup.name("parent"), {
        let child = child.clone();
        move |input: Number, context: Context| {
            let child = child.clone();
            async move {
                let one = context.run(&child, &input).start().await?;
                let many = context.run_many(&child, (1..=3).map(|n| Number { n })).start().await?;
                let keyed = context.run(&child, &Number { n: 9 }).child_key("nine").start().await?;
                let mut ids = vec![one.id()];
                for run in many {
                    ids.push(run?.id());
                }
                ids.push(keyed.id());
                if context.attempt() == 1 {
                    return Err(TaskError::new("again"));
                }
                Ok(ids)
            }
        }
    });
    let parent = parent.retries(1);
    let worker = setup.hatchet.worker(setup.name("worker")).register(&child).register(&parent);
    let worker = worker.build().unwrap().start().await.unwrap();
    let run = setup.hatchet.run(&parent, &Number { n: 5 }).start().await.unwrap();
    let ids = run.result().await.unwrap();
    for (id, doubled) in ids.iter().zip([10, 2, 4, 6, 18]) {
        assert_eq!(setup.hatchet.run_handle(*id).typed::<Doubled>().result().await.unwrap(), Doubled { doubled });
    }
    setup.eventually(async || run.children().await.is_ok_and(|children| children.len() == 5)).await;
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.failed), (6, 1), "{report}");
}

async fn w12_log_lines_arrive_in_order_with_their_levels(setup: Setup) {
    let talk: Task<Number, ()> = Task::new(setup.name("talk"), async |input: Number, context: Context| {
        context.log_with(LogLevel::Debug, "first", json!({"n": input.n}))?;
        for n in 0..input.n {
            context.log(format!("line {n}"));
        }
        context.log_with(LogLevel::Error, "x".repeat(20_000), ())?;
        context.log("");
        assert!(context.log_with(LogLevel::Info, "wrong", [1]).is_err());
        Ok(())
    });
    let worker = setup.worker(&talk).await;
    let run = setup.hatchet.run(&talk, &Number { n: 50 }).start().await.unwrap();
    run.result().await.unwrap();
    worker.shutdown().await;
    let lines = setup
        .fetch_until(
            async || {
                let (mut lines, mut all) = (run.logs(), Vec::new());
                while let Some(line) = lines.next().await {
                    all.push(line.unwrap());
                }
                all
            },
            |lines| lines.len() >= 53,
        )
        .await;
    let expected = (0..50).map(|n| format!("line {n}"));
    assert_eq!(lines[1..51].iter().map(|line| line.message.clone()).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert_eq!(
        (&lines[0].level, lines[0].message.as_str(), &lines[0].metadata),
        (&LogLevel::Debug, "first", &Some(json!({"n": 50})))
    );
    assert_eq!(lines[1].metadata, None);
    assert_eq!((&lines[51].level, lines[51].message.chars().count()), (&LogLevel::Error, 10_000));
    assert!(lines[51].message.ends_with("x… (truncated)"));
    assert_eq!((lines[52].message.as_str(), lines.len()), (" ", 53));
}

async fn w13_chunks_of_text_of_values_and_of_bytes_reach_the_reader(setup: Setup) {
    let chat: Task<Number, ()> = Task::new(setup.name("chat"), async |input: Number, context: Context| {
        // The engine looks for a run that was subscribed to at its start a second later.
        sleep(2 * SECOND).await;
        context.put("text").await?;
        context.put_json(&input).await?;
        context.put_bytes([0x00, 0xff, b'\n']).await?;
        context.put_bytes("text").await?;
        let large = context.put("x".repeat(5 << 20)).await.unwrap_err();
        assert_eq!(large.kind(), ErrorKind::TooLarge);
        // As base64, these are too large, too.
        let large = context.put_bytes(vec![0; 7 << 19]).await.unwrap_err();
        assert_eq!(large.kind(), ErrorKind::TooLarge);
        Ok(())
    });
    let worker = setup.worker(&chat).await;
    let mut chunks = setup.hatchet.run(&chat, &Number { n: 7 }).chunks();
    let mut found = Vec::new();
    while let Some(item) = chunks.next().await {
        if let ChunkItem::Chunk(chunk) = item.unwrap() {
            found.push(chunk);
        }
    }
    assert_eq!(found.iter().map(|chunk| chunk.index).collect::<Vec<_>>(), [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!((found[0].text(), found[1].parse::<Number>().unwrap()), (Some("text"), Number { n: 7 }));
    assert_eq!(found[2].content, ChunkContent::Bytes(vec![0x00, 0xff, b'\n']));
    assert_eq!(found[3].content, ChunkContent::Bytes(b"text".to_vec()));
    worker.shutdown().await;
}

async fn w16_blocking_tasks_run_beside_others_and_can_be_cancelled(setup: Setup) {
    setup.use_real_time();
    let was_cancelled = Arc::new(AtomicBool::new(false));
    let spin: Task<Number, Doubled> = Task::blocking(setup.name("spin"), {
        let was_cancelled = Arc::clone(&was_cancelled);
        move |input: Number, context: Context| {
            if input.n > 0 {
                return Ok(Doubled { doubled: input.n * 2 });
            }
            while !context.is_cancelled() {
                std::thread::sleep(Duration::from_millis(5));
            }
            was_cancelled.store(true, SeqCst);
            Err(TaskError::new("cancelled"))
        }
    });
    let worker = setup.worker(&spin).await;
    let endless = setup.hatchet.run(&spin, &Number { n: 0 }).start().await.unwrap();
    until_running(&endless).await;
    let other = setup.hatchet.run(&spin, &Number { n: 4 }).result().await.unwrap();
    assert_eq!(other, Doubled { doubled: 8 });
    endless.cancel().send().await.unwrap();
    assert!(matches!(endless.outcome().await.unwrap(), Outcome::Cancelled(_)));
    setup.eventually(async || was_cancelled.load(SeqCst)).await;
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.cancelled, report.total()), (1, 1, 2), "{report}");
}

async fn w19_pause_resume_and_drain_are_visible(setup: Setup) {
    let task = double(setup.name("double"));
    let worker = setup.worker(&task).await;
    worker.ready().await.unwrap();
    let mut statuses = worker.statuses();
    assert_eq!(statuses.next().await.unwrap().state, WorkerState::Connected);
    worker.pause().send().await.unwrap();
    setup.eventually(async || worker.status().is_paused).await;
    // What the engine's scheduler knows is up to 1.5 seconds old.
    sleep(3 * SECOND).await;
    let run = setup.hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    sleep(2 * SECOND).await;
    assert_eq!(run.details().await.unwrap().status, RunStatus::Queued);
    worker.resume().send().await.unwrap();
    assert_eq!(run.result().await.unwrap(), Doubled { doubled: 2 });
    let states = async {
        let mut seen = Vec::new();
        while let Some(status) = statuses.next().await {
            if seen.last() != Some(&status.state) {
                seen.push(status.state);
            }
        }
        seen
    };
    let (report, seen) = tokio::join!(worker.shutdown(), states);
    assert_eq!((report.completed, report.total()), (1, 1));
    assert!(seen.ends_with(&[WorkerState::Draining, WorkerState::Stopped]), "{seen:?}");
}

async fn w20_no_more_attempts_run_than_there_are_slots(setup: Setup) {
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let task: Task<Number, ()> = Task::new(setup.name("task"), {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        move |_: Number, _: Context| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            async move {
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                sleep(SECOND / 5).await;
                running.fetch_sub(1, SeqCst);
                Ok(())
            }
        }
    });
    let worker = setup.hatchet.worker(setup.name("worker")).slots(3).register(&task).build().unwrap();
    let worker = worker.start().await.unwrap();
    let results = setup.hatchet.run_many(&task, (0..20).map(|n| Number { n })).results().await.unwrap();
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(most.load(SeqCst), 3);
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.total()), (20, 20));
}

/// What a subscriber of another SDK receives: text and values as they are, and bytes as a data URL.
async fn w13_chunks_of_this_sdk_are_read_by_others(setup: Setup) {
    use hatchet::raw::pb::dispatcher_client::DispatcherClient;
    use hatchet::raw::pb::{ResourceEventType, SubscribeToWorkflowEventsRequest};

    let chat: Task<Number, ()> = Task::new(setup.name("chat"), async |input: Number, context: Context| {
        sleep(2 * SECOND).await;
        context.put("text, with \"quotes\" and \u{e4}\u{1f600}").await?;
        context.put_json(&input).await?;
        context.put_bytes([0x00, 0xff, b'\n']).await?;
        Ok(())
    });
    let worker = setup.worker(&chat).await;
    let tag = setup.name("tag");
    let request = SubscribeToWorkflowEventsRequest {
        additional_meta_key: Some("reader".into()),
        additional_meta_value: Some(tag.clone()),
        ..Default::default()
    };
    let mut dispatcher = DispatcherClient::new(setup.hatchet.raw_channel());
    let mut read = tokio::spawn(async move {
        let mut events = dispatcher.subscribe_to_workflow_events(request).await.unwrap().into_inner();
        let mut chunks = Vec::new();
        while chunks.len() < 3 {
            let event = events.message().await.unwrap().unwrap();
            if event.event_type() == ResourceEventType::Stream {
                chunks.push(event);
            }
        }
        chunks
    });
    sleep(SECOND).await;
    let run = setup.hatchet.run(&chat, &Number { n: 7 }).metadata("reader", tag).start().await.unwrap();
    let chunks = tokio::time::timeout(60 * SECOND, &mut read).await.unwrap().unwrap();
    let payloads: Vec<_> = chunks.iter().map(|chunk| chunk.event_payload.as_str()).collect();
    let [text, value, bytes] = payloads[..] else { panic!("{payloads:?}") };
    assert_eq!(text, "text, with \"quotes\" and \u{e4}\u{1f600}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(value).unwrap(), json!({"n": 7}));
    assert_eq!(bytes, "data:application/octet-stream;by=hatchet-rs;base64,AP8K");
    assert_eq!(chunks.iter().map(|chunk| chunk.event_index).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
    for chunk in &chunks {
        assert_eq!((&chunk.workflow_run_id, chunk.event_type()), (&run.id().to_string(), ResourceEventType::Stream));
    }
    run.result().await.unwrap();
    worker.shutdown().await;
}

/// Counts how many attempts run at the same time.
#[derive(Clone, Default)]
struct Concurrent {
    running: Arc<AtomicU32>,
    most: Arc<AtomicU32>,
}

impl Concurrent {
    async fn work(&self) {
        self.most.fetch_max(self.running.fetch_add(1, SeqCst) + 1, SeqCst);
        sleep(2 * SECOND).await;
        self.running.fetch_sub(1, SeqCst);
    }
}

/// The type of slots that the engine gives to durable tasks. Any task can request them.
async fn w20_durable_slots_are_separate(setup: Setup) {
    let (durable, other) = (Concurrent::default(), Concurrent::default());
    let work = |name: &str, concurrent: &Concurrent| -> Task<Number, ()> {
        let code = async |concurrent: Concurrent, _: Number, _: Context| {
            concurrent.work().await;
            Ok(())
        };
        Task::with_state(setup.name(name), concurrent.clone(), code)
    };
    let wait = work("wait", &durable).slot_request("durable", 1);
    let parse = work("parse", &other);
    let worker = setup.hatchet.worker(setup.name("worker")).slots(10).slot_type("durable", 2);
    let worker = worker.register(&wait).register(&parse).build().unwrap().start().await.unwrap();
    let waits = setup.hatchet.run_many(&wait, (0..4).map(|n| Number { n })).start().await.unwrap();
    let parsed = setup.hatchet.run_many(&parse, (0..4).map(|n| Number { n })).results().await.unwrap();
    assert!(parsed.iter().all(Result::is_ok));
    for run in waits {
        run.unwrap().result().await.unwrap();
    }
    assert_eq!((durable.most.load(SeqCst), other.most.load(SeqCst)), (2, 4));
    worker.shutdown().await;
}

async fn w20_slots_of_different_kinds_are_separate(setup: Setup) {
    let (gpu, cpu) = (Concurrent::default(), Concurrent::default());
    let work = |name: &str, concurrent: &Concurrent| -> Task<Number, WorkerId> {
        Task::with_state(
            setup.name(name),
            concurrent.clone(),
            async |concurrent: Concurrent, _: Number, context: Context| {
                concurrent.work().await;
                Ok(context.worker_id())
            },
        )
    };
    let train = work("train", &gpu).slot_request("gpu", 2);
    let parse = work("parse", &cpu);
    let with_gpus = setup.hatchet.worker(setup.name("gpu")).slots(10).slot_type("gpu", 5).register(&train);
    let with_gpus = with_gpus.register(&parse).build().unwrap().start().await.unwrap();
    let too_many = work("too-many", &gpu).slot_request("gpu", 6);
    let error = setup.hatchet.worker(setup.name("gpu")).slot_type("gpu", 5).register(&too_many).build().unwrap_err();
    assert!(error.to_string().contains("expected at most 5 of type \"gpu\""), "{error}");

    // Two of them fit into five slots. They leave default slots for others, also if they take one each.
    let trained = setup.hatchet.run_many(&train, (0..6).map(|n| Number { n })).start().await.unwrap();
    let started = tokio::time::Instant::now();
    let parsed = setup.hatchet.run_many(&parse, (0..6).map(|n| Number { n })).results().await.unwrap();
    assert!(parsed.into_iter().all(|worker| worker.unwrap() == with_gpus.id()));
    if setup.engine.is_some() {
        assert!(started.elapsed() < 5 * SECOND, "{:?}: they do not wait for the others", started.elapsed());
    }
    for run in trained {
        assert_eq!(run.unwrap().result().await.unwrap(), with_gpus.id());
    }
    assert_eq!((gpu.most.load(SeqCst), cpu.most.load(SeqCst)), (2, 6));
    let report = with_gpus.shutdown().await;
    assert_eq!((report.completed, report.total()), (12, 12), "{report}");

    // A worker without slots of the type gets none of them.
    let without_gpus = setup.hatchet.worker(setup.name("cpu")).slots(10).register(&train).register(&parse);
    let without_gpus = without_gpus.build().unwrap().start().await.unwrap();
    let waiting = setup.hatchet.run(&train, &Number { n: 1 }).start().await.unwrap();
    setup.hatchet.run(&parse, &Number { n: 1 }).result().await.unwrap();
    sleep(5 * SECOND).await;
    assert_eq!(waiting.details().await.unwrap().status, RunStatus::Queued);
    waiting.cancel().send().await.unwrap();
    assert_eq!(without_gpus.shutdown().await.total(), 1);
}
